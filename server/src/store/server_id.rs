//! The id of a data directory: tells its log files from those of other servers that share the objects.

use std::path::Path;

use uuid::Uuid;

use super::StoreError;
use super::disk::Disk;

const NAME: &str = "server-id";

/// The id of this data directory, made when there is none.
pub(super) fn of(disk: &dyn Disk, data_dir: &Path) -> Result<Uuid, StoreError> {
    let path = data_dir.join(NAME);
    let failed = |action| {
        let path = path.clone();
        move |error| StoreError::io(action, &path, error)
    };
    let names = disk.list(data_dir).map_err(failed("list"))?;
    if names.iter().any(|name| name == NAME) {
        let bytes = disk.read(&path).map_err(failed("read"))?;
        return read(&path, &bytes);
    }
    let id = Uuid::new_v4();
    let temporary = path.with_extension("tmp");
    if names.iter().any(|name| *name == format!("{NAME}.tmp")) {
        disk.remove(&temporary).map_err(failed("remove"))?;
    }
    let mut file = disk.create(&temporary).map_err(failed("create"))?;
    file.append(format!("{id}\n").as_bytes()).map_err(failed("write"))?;
    file.sync().map_err(failed("sync"))?;
    disk.rename(&temporary, &path).map_err(failed("rename"))?;
    disk.sync_dir(data_dir).map_err(failed("sync directory of"))?;
    Ok(id)
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
