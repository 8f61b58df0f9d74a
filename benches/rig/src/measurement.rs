//! One measured target and the line that prints it.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What was measured for one target. Displayed as the line `cargo xtask targets` prints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// The target: `B1`, `T4`, …
    pub id: String,
    /// Our figure at the hardest point, absent where we have no such mode yet.
    pub ours: Option<f64>,
    /// The peer's figure at the same point.
    pub peer: Option<f64>,
    /// What both figures count: `instructions`, `ns`, `fraction`, …
    pub unit: String,
    /// Which peer, with its version.
    pub peer_is: String,
    /// The other points, and what a reader has to know about the run.
    pub note: String,
}

impl fmt::Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)?;
        if let Some(ours) = self.ours {
            write!(f, " ours={}", plain(ours))?;
        }
        if let Some(peer) = self.peer {
            write!(f, " peer={}", plain(peer))?;
        }
        if let (Some(ours), Some(peer)) = (self.ours, self.peer)
            && ours > 0.0
        {
            write!(f, " ratio={}", plain(peer / ours))?;
        }
        write!(f, " unit={}", self.unit)?;
        if !self.peer_is.is_empty() {
            write!(f, " peer_is=\"{}\"", self.peer_is.replace('"', "'"))?;
        }
        if !self.note.is_empty() {
            write!(f, " note=\"{}\"", self.note.replace('"', "'"))?;
        }
        Ok(())
    }
}

/// Three significant figures below 1000, whole numbers above.
fn plain(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let digits = (2 - value.abs().log10().floor() as i32).max(0) as usize;
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn b1() -> Measurement {
        Measurement {
            id: "B1".to_owned(),
            ours: Some(9400.0),
            peer: Some(114_858.0),
            unit: "instructions".to_owned(),
            peer_is: "pyroscope 2.1.5".to_owned(),
            note: String::new(),
        }
    }

    #[test]
    fn prints_the_documented_line() {
        assert_eq!(
            b1().to_string(),
            "B1 ours=9400 peer=114858 ratio=12.2 unit=instructions peer_is=\"pyroscope 2.1.5\""
        );
    }

    #[test]
    fn leaves_out_what_was_not_measured() {
        let line = Measurement { ours: None, note: "no such mode".to_owned(), ..b1() }.to_string();
        assert_eq!(
            line,
            "B1 peer=114858 unit=instructions peer_is=\"pyroscope 2.1.5\" note=\"no such mode\""
        );
    }

    #[test]
    fn keeps_three_significant_figures() {
        assert_eq!(plain(0.98712), "0.987");
        assert_eq!(plain(0.00194), "0.00194");
        assert_eq!(plain(0.5), "0.5");
        assert_eq!(plain(0.0), "0");
        assert_eq!(plain(1000.0), "1000");
        assert_eq!(plain(-12.34), "-12.3");
    }
}
