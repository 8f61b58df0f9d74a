//! The example whose work leaves its task: the blocking pool, threads and rayon count for the spans that sent it there.

use spanflame_tests::process::Process;

use crate::house::{Burn, House, assert_samples_are_in_their_spans, assert_shares};

const BURNS: [Burn; 3] = [
    Burn { span: "make album", function: "unpack_pictures", milliseconds: 120 },
    Burn { span: "make album", function: "draw_cover", milliseconds: 120 },
    Burn { span: "shrink pictures", function: "shrink_picture", milliseconds: 120 },
];
const ALBUMS: u32 = 10;

#[test]
fn work_on_blocking_plain_and_rayon_threads_counts_for_its_spans() {
    let house = House::open();
    let mut command = house.example("example-threads");
    Process::start(
        command.args(["--albums", &ALBUMS.to_string(), "--cpu-ms", "120"]).env("SPANFLAME_SCOPE", "all"),
    )
    .wait();

    let (spans, samples) = (house.spans(), house.samples());
    assert_eq!(spans.len(), 2 * ALBUMS as usize);
    assert_samples_are_in_their_spans(&spans, &BURNS, &samples);
    let album = Burn { milliseconds: 240, ..BURNS[0] };
    assert_shares(&[(album, ALBUMS), (BURNS[2], ALBUMS)], &spans, &samples);
    for burn in &BURNS {
        assert!(samples.iter().any(|sample| sample.runs(burn.function)), "{} was never seen", burn.function);
    }
}
