//! Profiles as files, for development: `go tool pprof`, speedscope and others open them.

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use super::{ExportError, Profile, ProfileExporter, Receiver};

/// Files kept unless told otherwise: an hour of ten-second windows.
const KEEP: usize = 360;

/// Writes each profile to a file of its own, `<service>-<start in ms>-<number>.pb.gz`, and removes its own oldest
/// ones beyond 360.
#[derive(Debug)]
pub struct FileExporter {
    directory: PathBuf,
    keep: usize,
    written: VecDeque<PathBuf>,
    count: u64,
}

impl FileExporter {
    /// Writes to `directory`, which is created with the first profile.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), keep: KEEP, written: VecDeque::new(), count: 0 }
    }

    /// How many files to keep, at least one.
    #[must_use]
    pub fn keep(mut self, files: usize) -> Self {
        self.keep = files.max(1);
        self
    }

    fn write(&mut self, profile: &Profile) -> std::io::Result<()> {
        let service = profile.labels.iter().find(|(name, _)| name == "service_name");
        let service: String = service
            .map_or("profile", |(_, value)| value)
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' })
            .take(100)
            .collect();
        let start = profile.start.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let path = self.directory.join(format!("{service}-{start}-{}.pb.gz", self.count));
        let unfinished = path.with_extension("tmp");
        fs::create_dir_all(&self.directory)?;
        // Whoever watches the directory sees whole files only.
        fs::write(&unfinished, &profile.pprof)?;
        fs::rename(&unfinished, &path)?;
        self.count += 1;
        self.written.push_back(path);
        while self.written.len() > self.keep
            && let Some(oldest) = self.written.pop_front()
        {
            // Someone may have moved it away: that is what it is for.
            let _ = fs::remove_file(oldest);
        }
        Ok(())
    }
}

impl ProfileExporter for FileExporter {
    fn export(&mut self, profile: &Profile) -> Result<(), ExportError> {
        self.write(profile).map_err(|error| {
            ExportError::retryable(format!("cannot write to {}: {error}", self.directory.display()))
        })
    }

    fn receiver(&mut self) -> Option<Receiver> {
        Some(Receiver::full(format!("directory {}", self.directory.display())))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn profile(service: &str) -> Profile {
        Profile {
            pprof: vec![1, 2, 3],
            labels: vec![("service_name".to_owned(), service.to_owned())].into(),
            start: SystemTime::UNIX_EPOCH + Duration::from_secs(7),
            duration: Duration::from_secs(10),
            samples: 1,
        }
    }

    fn names(directory: &std::path::Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("the directory exists");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn each_profile_becomes_a_file_and_the_oldest_go() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let target = directory.path().join("deep/er");
        let mut exporter = FileExporter::new(&target).keep(2);
        for service in ["../a b", "shop", "shop"] {
            exporter.export(&profile(service)).expect("writable");
        }
        assert_eq!(names(&target), ["shop-7000-1.pb.gz", "shop-7000-2.pb.gz"]);
        assert_eq!(fs::read(target.join("shop-7000-1.pb.gz")).expect("readable"), [1, 2, 3]);
        exporter.export(&profile("../a b")).expect("writable");
        assert_eq!(names(&target), [".._a_b-7000-3.pb.gz", "shop-7000-2.pb.gz"]);
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error_that_names_it() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let error =
            FileExporter::new(file.path()).export(&profile("shop")).expect_err("a file is in the way");
        assert!(error.is_retryable());
        assert!(error.to_string().contains(&*file.path().to_string_lossy()), "{error}");
    }
}
