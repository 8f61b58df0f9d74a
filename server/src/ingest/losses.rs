//! What senders say that they lost: notes of the bridge among a pprof's comments, as `lost.ring_full=2`.

use spanflame_wire::google::v1::__buffa::view::ProfileView;

use crate::model::Loss;

/// The most causes that are read.
const MAX_CAUSES: usize = 32;
/// The longest name of one, in bytes.
const MAX_CAUSE_BYTES: usize = 64;

/// Samples that the sender took and lost before this profile, by cause. Any other comment is passed over.
pub(super) fn losses(pprof: &ProfileView<'_>) -> Vec<Loss> {
    let text =
        |&index: &i64| usize::try_from(index).ok().and_then(|index| pprof.string_table.get(index).copied());
    let mut losses: Vec<Loss> = Vec::new();
    for (cause, samples) in pprof.comment.iter().filter_map(text).filter_map(loss) {
        match losses.iter().position(|loss| *loss.cause == *cause) {
            Some(at) => losses[at].samples = losses[at].samples.saturating_add(samples),
            None if losses.len() < MAX_CAUSES => losses.push(Loss { cause: cause.into(), samples }),
            None => {}
        }
    }
    losses
}

fn loss(note: &str) -> Option<(&str, u64)> {
    let (cause, samples) = note.strip_prefix("lost.")?.split_once('=')?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let named = (1..=MAX_CAUSE_BYTES).contains(&cause.len()) && cause.bytes().all(plain);
    let samples = samples.parse().ok().filter(|&samples| samples > 0)?;
    named.then_some((cause, samples))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_notes_of_losses_are_read() {
        assert_eq!(loss("lost.ring_full=2"), Some(("ring_full", 2)));
        for other in [
            "",
            "frequency=100",
            "lost.=2",
            "lost.ring_full",
            "lost.ring_full=0",
            "lost.ring_full=-1",
            "lost.ring_full=99999999999999999999",
            "lost.Ring=1",
            "lost.a b=1",
            "unlabelled.at=0.5 main",
        ] {
            assert_eq!(loss(other), None, "{other}");
        }
        assert_eq!(loss(&format!("lost.{}=1", "a".repeat(65))), None);
    }
}
