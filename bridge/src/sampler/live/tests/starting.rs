//! What is settled when sampling starts: rings that are large enough, and refusals that name their reason.

use super::*;

#[test]
fn what_comes_between_two_drains_fits_into_a_ring_at_any_rate_and_depth() {
    for frequency in 1..=1000u32 {
        for max_depth in [1, 32, 128, MAX_DEPTH] {
            let room = handler::most_words(max_depth);
            let pause = pause(frequency.into(), max_depth);
            assert!(pause >= Duration::from_millis(10), "{pause:?} at {frequency} Hz");
            let ring = ring::Ring::new();
            assert!(ring.allocate());
            let samples = (pause.as_secs_f64() * f64::from(frequency)).round() as usize;
            // Rings are seldom empty at their first word: one record may skip as much as another holds.
            for sample in 0..samples {
                let record = ring.reserve(room as u16);
                assert!(record.is_some(), "{sample} of {samples} at {frequency} Hz and {max_depth} frames");
                record.into_iter().for_each(|record| record.commit(room, 0));
            }
        }
    }
}

#[test]
fn a_clock_above_the_tick_has_rings_emptied_more_often() {
    let _turn = TURN.lock();
    let mut sampler = Sampler::start(Options::new(1000, spans())).expect("starts");
    sampler.above_tick = true;
    assert!(sampler.pause() <= Duration::from_millis(40), "{:?}", sampler.pause());
    sampler.set_divider(10);
    assert!(sampler.pause() >= Duration::from_millis(100), "{:?}", sampler.pause());
}

#[test]
fn too_many_forks_in_a_row_are_called_by_their_name() {
    let _turn = TURN.lock();
    let forks = FORKS.swap(MAX_FORKS, Ordering::AcqRel);
    let refused = Sampler::start(Options::new(100, spans())).err();
    // The claim was taken in a process that counts otherwise.
    FORKS.store(forks, Ordering::Release);
    assert!(matches!(refused, Some(SamplerError::Forks)), "{refused:?}");
    assert!(Sampler::start(Options::new(100, spans())).is_ok());
}
