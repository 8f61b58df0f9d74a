//! The tables against framehop, an unwinder that reads the same `.eh_frame` in its own way: whole stacks at instants of
//! a timer's choice. Row by row they are compared in `unwind::oracle`.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use framehop::{ExplicitModuleSectionInfo, Unwinder as _};

use super::super::modules::{Modules, loaded_sections};
use super::*;
use crate::config::Unwinder;
use crate::sys::signal::OnTimer;
use crate::sys::stack::Bounds;
use crate::sys::{signal, timer};
use crate::unwind::oracle::Peer;
use crate::unwind::{CodeMap, Memory, Native, Registers, walk};

type Framehop = <Native as Peer>::Unwinder;

fn framehop() -> (Framehop, <Framehop as framehop::Unwinder>::Cache) {
    let (mut unwinder, cache) = Native::unwinder();
    for (module, section, address) in loaded_sections() {
        let info = ExplicitModuleSectionInfo {
            base_svma: 0,
            text_svma: Some(module.start.wrapping_sub(module.bias)..module.end.wrapping_sub(module.bias)),
            eh_frame_svma: Some(address..address + section.len() as u64),
            eh_frame: Some(section),
            ..Default::default()
        };
        let name = module.path.display().to_string();
        unwinder.add_module(framehop::Module::new(name, module.start..module.end, module.bias, info));
    }
    (unwinder, cache)
}

fn tables() -> CodeMap {
    let mut modules = Modules::default();
    modules.refresh(Unwinder::Tables);
    modules.code_map()
}

/// Words of stack kept of each instant.
const DEPTH: usize = 8192;
const INSTANTS: usize = 512;

/// What a timer's signal found: registers and the stack above them.
struct Instant {
    registers: [AtomicU64; 4],
    words: AtomicUsize,
    stack: [AtomicU64; DEPTH],
}

static FOUND: [Instant; INSTANTS] = [const {
    Instant {
        registers: [const { AtomicU64::new(0) }; 4],
        words: AtomicUsize::new(0),
        stack: [const { AtomicU64::new(0) }; DEPTH],
    }
}; INSTANTS];
static TAKEN: AtomicUsize = AtomicUsize::new(0);
static BOUNDS: Bounds = Bounds::new();

/// Copies registers and stack away.
struct Photograph;

impl OnTimer for Photograph {
    fn on_timer(_value: usize, _overrun: u32, registers: Registers) -> bool {
        let Some(instant) = FOUND.get(TAKEN.load(Ordering::Relaxed)) else { return true };
        let Some(mut stack) = BOUNDS.stack(registers.sp) else { return true };
        for (word, value) in
            instant.registers.iter().zip([registers.ip, registers.sp, registers.fp, registers.lr])
        {
            word.store(value, Ordering::Relaxed);
        }
        let mut words = 0;
        for (i, word) in instant.stack.iter().enumerate() {
            let Some(value) = stack.word(registers.sp + 8 * i as u64) else { break };
            word.store(value, Ordering::Relaxed);
            words = i + 1;
        }
        instant.words.store(words, Ordering::Relaxed);
        TAKEN.fetch_add(1, Ordering::Release);
        true
    }

    fn on_clock(_origin: signal::Origin, _registers: Registers) -> bool {
        false
    }
}

/// The stack of a past instant.
struct Past<'a>(&'a Instant);

impl Memory for Past<'_> {
    fn word(&mut self, address: u64) -> Option<u64> {
        let index = address.checked_sub(self.0.registers[1].load(Ordering::Relaxed))? / 8;
        let words = &self.0.stack[..self.0.words.load(Ordering::Relaxed)];
        words.get(usize::try_from(index).ok()?).map(|word| word.load(Ordering::Relaxed))
    }
}

/// Code of many kinds: the standard library's, libc's, callbacks through libc, unwinding, generics in deep recursion.
#[inline(never)]
fn varied(depth: u32, seed: u64) -> u64 {
    if depth > 0 {
        return varied(depth - 1, black_box(seed.wrapping_mul(31))) + 1;
    }
    let mut numbers: Vec<u64> = (0..200).map(|i| (seed ^ i).wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
    numbers.sort_by_key(|number| number.reverse_bits());
    let text: String =
        numbers.iter().map(|number| format!("{number:x}-{:.3} ", *number as f64 / 7.0)).collect();
    let map: std::collections::HashMap<&str, usize> =
        text.split(' ').map(|word| (word, word.len())).collect();
    let caught = std::panic::catch_unwind(|| {
        if map.len() > 1 {
            std::panic::resume_unwind(Box::new(text.len()));
        }
        0usize
    });
    let threads = std::fs::read_to_string("/proc/self/stat").map(|stat| stat.len()).unwrap_or_default();
    caught.unwrap_or_else(|length| *length.downcast::<usize>().expect("a length")) as u64 + threads as u64
}

#[test]
fn whole_stacks_at_any_instant_are_framehops() {
    // A sampler's signal would interrupt this thread as well.
    let _turn = TURN.lock();
    let (tables, (framehop, mut cache)) = (tables(), framehop());
    let signal = libc::SIGUSR2;
    signal::install_for_test::<Photograph>(signal);
    std::thread::spawn(move || {
        BOUNDS.learn_own();
        let timer = timer::create(thread::id(), signal, 0).expect("a timer");
        let period = Duration::from_micros(500);
        timer.arm(period, false, period).expect("armed");
        let mut seed = 1;
        while TAKEN.load(Ordering::Acquire) < 300 {
            seed += 1;
            black_box(varied((seed % 40) as u32, seed));
        }
        timer.delete();
    })
    .join()
    .expect("runs");

    let (mut same, mut whole, mut frames_compared) = (0, 0, 0);
    let taken = TAKEN.load(Ordering::Acquire).min(INSTANTS);
    for instant in &FOUND[..taken] {
        let [ip, sp, fp, lr] = [0, 1, 2, 3].map(|i| instant.registers[i].load(Ordering::Relaxed));
        let mut ours = Vec::new();
        let registers = Registers { ip, sp, fp, lr };
        let end = walk::<Native>(&tables, registers, &mut Past(instant), |frame| {
            ours.push(frame);
            ours.len() < 200
        });
        let mut theirs = Vec::new();
        let mut read = |address| Past(instant).word(address).ok_or(());
        let mut iterator = framehop.iter_frames(ip, Native::theirs(registers), &mut cache, &mut read);
        while let Ok(Some(frame)) = iterator.next() {
            theirs.push(frame.address());
        }
        whole += u64::from(end == End::Entry);
        frames_compared += ours.len();
        same += u64::from(ours == theirs);
        // Where nothing is known, as while libgcc moves the stack pointer to a landing pad, framehop guesses on by rbp.
        let guessed = matches!(end, End::NoRule | End::NoModule) && theirs.starts_with(&ours);
        assert!(ours == theirs || guessed, "after {end:?}\nours   {ours:x?}\ntheirs {theirs:x?}");
    }
    println!("{same} of {taken} stacks agree, {whole} reach the entry, {frames_compared} frames");
    assert!(same * 100 >= taken as u64 * 95, "{same} of {taken}");
    assert!(whole * 100 >= taken as u64 * 95, "{whole} of {taken} reach the entry");
}
