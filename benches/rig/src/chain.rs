//! Stacks of an exact depth, made of distinct functions with frames of different sizes.
#![allow(unsafe_code)] // asks libgcc how deep the stack is

use std::ffi::c_void;
use std::hint::black_box;

type Link = fn(usize, &mut dyn FnMut()) -> usize;

static CHAIN: [Link; 64] = [
    link::<0>, link::<1>, link::<2>, link::<3>, link::<4>, link::<5>, link::<6>, link::<7>, link::<8>,
    link::<9>, link::<10>, link::<11>, link::<12>, link::<13>, link::<14>, link::<15>, link::<16>,
    link::<17>, link::<18>, link::<19>, link::<20>, link::<21>, link::<22>, link::<23>, link::<24>,
    link::<25>, link::<26>, link::<27>, link::<28>, link::<29>, link::<30>, link::<31>, link::<32>,
    link::<33>, link::<34>, link::<35>, link::<36>, link::<37>, link::<38>, link::<39>, link::<40>,
    link::<41>, link::<42>, link::<43>, link::<44>, link::<45>, link::<46>, link::<47>, link::<48>,
    link::<49>, link::<50>, link::<51>, link::<52>, link::<53>, link::<54>, link::<55>, link::<56>,
    link::<57>, link::<58>, link::<59>, link::<60>, link::<61>, link::<62>, link::<63>,
];

/// One function of the chain; `I` makes each body and frame size its own, so none is merged or inlined.
#[inline(never)]
fn link<const I: usize>(below: usize, leaf: &mut dyn FnMut()) -> usize {
    let mut frame = [0_u8; I];
    black_box(&mut frame);
    let depth = descend(I + 1, below, leaf);
    black_box(&frame);
    black_box(depth) + 1
}

#[inline(always)]
fn descend(next: usize, below: usize, leaf: &mut dyn FnMut()) -> usize {
    match CHAIN.get(next) {
        Some(link) if below > 0 => link(below - 1, leaf),
        _ => {
            leaf();
            0
        }
    }
}

/// Runs `leaf` with `frames` frames on this thread's stack, its own included, or as few as there can be.
pub(crate) fn at_depth(frames: usize, leaf: &mut dyn FnMut()) {
    let mut seen = 0;
    descend(0, 0, &mut || seen = depth_of_caller());
    descend(0, frames.saturating_sub(seen), leaf);
}

/// How many frames libgcc's unwinder finds from the calling function outwards.
#[inline(never)]
fn depth_of_caller() -> usize {
    unsafe extern "C" {
        fn _Unwind_Backtrace(
            each: extern "C" fn(*mut c_void, *mut c_void) -> i32,
            argument: *mut c_void,
        ) -> i32;
    }
    extern "C" fn count(_context: *mut c_void, argument: *mut c_void) -> i32 {
        // SAFETY: `argument` is the address of `frames` below, which outlives the walk.
        let frames = unsafe { &mut *argument.cast::<usize>() };
        *frames += 1;
        0
    }
    let mut frames = 0_usize;
    // SAFETY: the callback keeps to the signature that libgcc documents and does not unwind.
    unsafe { _Unwind_Backtrace(count, (&raw mut frames).cast()) };
    frames.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reaches_the_asked_depth() {
        for frames in [24, 32, 62] {
            let mut seen = 0;
            at_depth(frames, &mut || seen = depth_of_caller());
            assert_eq!(seen, frames);
        }
    }
}
