//! Objects in memory, for tests and fuzz targets.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use parking_lot::Mutex;

use super::objects::Objects;

/// Objects by their names.
#[derive(Default)]
pub(super) struct Memory(pub(super) Mutex<BTreeMap<String, Vec<u8>>>);

impl Objects for Memory {
    fn create(&self, name: &str, bytes: Vec<u8>) -> io::Result<bool> {
        let mut objects = self.0.lock();
        let free = !objects.contains_key(name);
        if free {
            objects.insert(name.to_owned(), bytes);
        }
        Ok(free)
    }

    fn read(&self, name: &str, range: Range<u64>) -> io::Result<Vec<u8>> {
        let bytes = self.get(name)?;
        let range = range.start as usize..range.end as usize;
        bytes.get(range).map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn get(&self, name: &str) -> io::Result<Vec<u8>> {
        self.0.lock().get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, prefix: &str, after: &str) -> io::Result<Vec<String>> {
        let objects = self.0.lock();
        let inside = |name: &&String| name.split_once('/').is_some_and(|(of, _)| of == prefix);
        Ok(objects.keys().filter(inside).filter(|name| name.as_str() > after).cloned().collect())
    }

    fn modified_ms(&self, name: &str) -> io::Result<i64> {
        self.get(name).map(|_| 0)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().remove(name);
        Ok(())
    }

    fn settle(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
}
