//! Whose log a data directory holds: the objects that its profiles belong to, and the starts of its server.
//!
//! A manifest says by their numbers which log files are in segments. That is true only of files that were numbered for that
//! manifest, by one server. In a directory that was copied, or that has served other objects meanwhile, other files have the
//! same numbers, and would be dropped unread. So a directory remembers where it was used, and who it was there.

use std::path::Path;

use uuid::Uuid;

use super::StoreError;
use super::disk::{Disk, read_file, replace_file};
use super::log::LogDir;
use super::manifest::{Covered, FORGOTTEN_MS, Manifest};
use super::objects::LocalObjects;
use super::options::system_clock;

const NAME: &str = "home";
/// The place of objects that lie in the data directory itself.
pub(super) const LOCAL: &str = "objects";
/// Starts that are remembered. The manifest names the last one, or after a restore an earlier one.
const STARTS: usize = 256;
/// Clocks of servers are less apart than this.
const CLOCKS_MS: i64 = 24 * 3_600_000;

/// What a data directory remembers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Home {
    /// Where its objects were when it was last used; none if nobody took note.
    place: Option<String>,
    /// The starts of its server where objects are shared, the last one last.
    starts: Vec<Uuid>,
}

impl Home {
    /// What this data directory remembers.
    pub(super) fn read(disk: &dyn Disk, data_dir: &Path) -> Result<Self, StoreError> {
        let Some(bytes) = read_file(disk, data_dir, NAME)? else { return Ok(Self::default()) };
        Self::parse(&bytes).ok_or_else(|| StoreError::Damaged {
            name: data_dir.join(NAME).display().to_string(),
            what: "home of the log",
            why: "it is no place with ids of starts".to_owned(),
        })
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(bytes).ok()?.lines();
        let place = lines.next().filter(|place| !place.is_empty())?.to_owned();
        let starts: Result<Vec<Uuid>, _> = lines.map(Uuid::try_parse).collect();
        Some(Self { place: Some(place), starts: starts.ok()? })
    }

    /// The starts of its server.
    pub(super) fn starts(&self) -> &[Uuid] {
        &self.starts
    }

    /// Remembers a place from now on, and a start there. Whoever is in the manifest was here before.
    pub(super) fn enter(
        &mut self,
        disk: &dyn Disk,
        data_dir: &Path,
        place: &str,
        start: Option<Uuid>,
    ) -> Result<(), StoreError> {
        let known = self.place.as_deref().is_none_or(|last| last == place);
        if known && start.is_none() {
            return Ok(());
        }
        self.place = Some(place.to_owned());
        self.starts.extend(start);
        let late = self.starts.len().saturating_sub(STARTS);
        self.starts.drain(..late);
        let mut text = format!("{place}\n");
        self.starts.iter().for_each(|start| text += &format!("{start}\n"));
        replace_file(disk, data_dir, NAME, text.as_bytes())
    }

    /// Makes sure that files of the log which the manifest at `place` takes for its own are, so that none is dropped unread
    /// which was written for another.
    ///
    /// # Errors
    /// When there may be one.
    pub(super) fn check_log(
        &self,
        dir: &LogDir,
        data_dir: &Path,
        place: &str,
        server: Uuid,
        covered: &Covered,
    ) -> Result<(), StoreError> {
        let local = data_dir.join("objects");
        let there = match self.place.as_deref() {
            // Nobody took note: what lies here belongs to the objects beside it if there are any.
            None if place != LOCAL && local.join("manifest").is_dir() => LOCAL,
            None => return Ok(()),
            Some(there) if there == place => return Ok(()),
            Some(there) => there,
        };
        // What is in segments there is in those that were copied from there. Another bucket need not be in reach.
        let copied = if there == LOCAL && local.join("manifest").is_dir() {
            let objects =
                LocalObjects::shared(&local).map_err(|error| StoreError::io("open", &local, error))?;
            Manifest::load(std::sync::Arc::new(objects), system_clock(), server)?.covered()
        } else {
            Covered::default()
        };
        let files = dir.files()?;
        let foreign = files.into_iter().find(|file| covered.contains(*file) && !copied.contains(*file));
        if let Some(log) = foreign {
            return Err(StoreError::Elsewhere {
                data_dir: data_dir.to_owned(),
                log,
                here: place.to_owned(),
                there: there.to_owned(),
            });
        }
        tracing::warn!(
            from = there,
            to = place,
            "the data directory was used with other objects, which are not served"
        );
        Ok(())
    }
}

impl Home {
    /// Makes sure that no file of the log may be in segments of a server that the manifest at `place` has forgotten. Files
    /// that were begun lately are in none: their server would be remembered.
    ///
    /// # Errors
    /// When there may be one.
    pub(super) fn check_forgotten(
        &self,
        dir: &LogDir,
        data_dir: &Path,
        place: &str,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        if self.place.as_deref() != Some(place) || self.starts.is_empty() {
            return Ok(());
        }
        for log in dir.files()? {
            if dir.begun_ms(log).is_some_and(|ms| ms < now_ms.saturating_sub(FORGOTTEN_MS - CLOCKS_MS)) {
                let (data_dir, here) = (data_dir.to_owned(), place.to_owned());
                return Err(StoreError::Forgotten { data_dir, log, here });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake_disk::{FakeDisk, Loss};
    use super::*;

    #[test]
    fn a_place_and_its_starts_are_remembered_within_bounds() {
        let (disk, dir) = (FakeDisk::default(), Path::new("/data"));
        let mut home = Home::read(&disk, dir).unwrap();
        home.enter(&disk, dir, LOCAL, None).unwrap();
        assert!(disk.paths().is_empty(), "who has the objects for itself needs no file");
        let starts: Vec<Uuid> = (0..STARTS as u128 + 3).map(Uuid::from_u128).collect();
        for start in &starts {
            home.enter(&disk, dir, "s3://a/b", Some(*start)).unwrap();
        }
        let found = Home::read(&disk.after(Loss::Everything), dir).unwrap();
        assert_eq!((found.place.as_deref(), found.starts()), (Some("s3://a/b"), &starts[3..]));
        home.enter(&disk, dir, LOCAL, None).unwrap();
        let found = Home::read(&disk.after(Loss::Everything), dir).unwrap();
        assert_eq!((found.place.as_deref(), found.starts()), (Some(LOCAL), &starts[3..]));
        disk.rot(&dir.join(NAME), |bytes| bytes.extend(b"nobody"));
        assert!(Home::read(&disk, dir).unwrap_err().to_string().contains("/data/home is damaged"));
    }
}
