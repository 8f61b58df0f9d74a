//! The id of a data directory: tells its log files from those of other servers that share the objects.

use std::path::Path;

use uuid::Uuid;

use super::StoreError;
use super::disk::{Disk, read_file, replace_file};

const NAME: &str = "server-id";

/// The id of this data directory, made when there is none, and whether it was made now.
pub(super) fn of(disk: &dyn Disk, data_dir: &Path) -> Result<(Uuid, bool), StoreError> {
    if let Some(bytes) = read_file(disk, data_dir, NAME)? {
        return read(&data_dir.join(NAME), &bytes).map(|id| (id, false));
    }
    let id = Uuid::new_v4();
    replace_file(disk, data_dir, NAME, format!("{id}\n").as_bytes())?;
    Ok((id, true))
}

/// The id of a data directory that is not ours, none if it has none.
pub(super) fn existing(data_dir: &Path) -> Result<Option<Uuid>, StoreError> {
    let path = data_dir.join(NAME);
    match std::fs::read(&path) {
        Ok(bytes) => read(&path, &bytes).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read", &path, error)),
    }
}

fn read(path: &Path, bytes: &[u8]) -> Result<Uuid, StoreError> {
    let id = std::str::from_utf8(bytes).ok().and_then(|text| Uuid::try_parse(text.trim()).ok());
    id.ok_or_else(|| StoreError::Damaged {
        name: path.display().to_string(),
        what: "id of this server",
        why: "it is no UUID".to_owned(),
    })
}
