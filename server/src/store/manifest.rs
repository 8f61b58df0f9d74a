//! The manifest: which segments there are, as a list of numbered entries that are created once and never changed.
//!
//! An entry adds segments, removes others, and names the log files whose profiles its segments hold; all of it happens or
//! nothing. Whoever writes takes the next free number, so entries have one order for everybody who shares the objects,
//! and of two that contradict one another the second is void. Checkpoints say what a row of entries came to.
//! `docs/storage.md` has the bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::objects::Objects;
use super::segment::{self, SegmentMeta};
use super::{Clock, StoreError};

/// Version of the objects that are written, and the only one that is read.
pub(super) const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"SPANMANI";
const HEADER_BYTES: usize = 20;
const ENTRIES: &str = "manifest";
const CHECKPOINTS: &str = "checkpoints";
/// A checkpoint is written after so many entries.
const CHECKPOINT_ENTRIES: u64 = 64;
/// Entries stay for so long after a checkpoint that stands for them: others may be about to read or to write behind them.
const KEPT_MS: i64 = 3_600_000;
/// Servers of which nothing was heard for so long are forgotten.
pub(super) const FORGOTTEN_MS: i64 = 30 * 24 * 3_600_000;
/// Who has not looked for so long may have missed entries that are gone by now.
const STALE_MS: i64 = KEPT_MS / 4;

/// What is to change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Change {
    /// Segments that are there from now on.
    #[serde(default)]
    pub(super) add: Vec<SegmentMeta>,
    /// Names of segments that are there no longer.
    #[serde(default)]
    pub(super) remove: Vec<String>,
    /// Numbers of the server's log files whose profiles the added segments hold.
    #[serde(default)]
    pub(super) logs: Vec<u64>,
    /// All of the server's log files with lower numbers are in segments, too,
    #[serde(default)]
    pub(super) logs_from: u64,
    /// but for these, which could not be read when it started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) logs_but: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// Tells the entry from any other.
    id: Uuid,
    /// Who wrote it.
    server: Uuid,
    /// When, in Unix milliseconds.
    at_ms: i64,
    /// The server has started, and this is the start's id: none that began before writes for its log any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start: Option<Uuid>,
    #[serde(flatten)]
    change: Change,
}

/// What all entries up to some came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// The segments, by their names.
    #[serde(with = "by_name")]
    pub(super) segments: BTreeMap<String, SegmentMeta>,
    /// For each server the numbers of log files whose profiles are in segments: those that may still lie on its disk, and
    /// the highest.
    logs: BTreeMap<Uuid, BTreeSet<u64>>,
    /// For each server the number below which its log files are in segments: it may still have some, as in a copy of the
    /// directory.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    logs_from: BTreeMap<Uuid, u64>,
    /// For each server the files below that number which are in none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    logs_but: BTreeMap<Uuid, BTreeSet<u64>>,
    /// The last start of each server.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    starts: BTreeMap<Uuid, Uuid>,
    /// When each server wrote its last entry, by its clock.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    heard: BTreeMap<Uuid, i64>,
}

/// A server's log files whose profiles are in segments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Covered {
    /// All with lower numbers are,
    from: u64,
    /// but for these.
    but: BTreeSet<u64>,
    logs: BTreeSet<u64>,
}

impl Covered {
    /// Whether the file with this number is one.
    pub(super) fn contains(&self, log: u64) -> bool {
        log < self.from && !self.but.contains(&log) || self.logs.contains(&log)
    }

    /// The change that says that `log` is one too, where these are the files that there are. However long one of them
    /// cannot be read or removed, what is said of all takes no more room.
    pub(super) fn and(&self, log: u64, files: &[u64]) -> Change {
        let logs_from = self.from.max(log);
        let open = |file: &u64| *file < logs_from && *file != log && !self.contains(*file);
        let logs_but = files.iter().copied().filter(open).collect();
        Change { logs: vec![log], logs_from, logs_but, ..Change::default() }
    }

    /// The highest number of one, none if there never was any.
    pub(super) fn last(&self) -> Option<u64> {
        self.logs.last().copied()
    }
}

/// The segments as a list: their names are in them.
mod by_name {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::SegmentMeta;

    pub(super) fn serialize<S: Serializer>(
        segments: &BTreeMap<String, SegmentMeta>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(segments.values())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<BTreeMap<String, SegmentMeta>, D::Error> {
        let segments: Vec<SegmentMeta> = Vec::deserialize(from)?;
        Ok(segments.into_iter().map(|segment| (segment.name.clone(), segment)).collect())
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Checkpoint {
    at_ms: i64,
    state: State,
}

impl State {
    /// The server's log files that are in segments.
    pub(super) fn logs_of(&self, server: Uuid) -> Covered {
        let from = self.logs_from.get(&server).copied().unwrap_or(0);
        let of_server = |of: &BTreeMap<Uuid, BTreeSet<u64>>| of.get(&server).cloned().unwrap_or_default();
        Covered { from, but: of_server(&self.logs_but), logs: of_server(&self.logs) }
    }

    /// Whether a change contradicts what was before it.
    fn contradicts(&self, server: Uuid, change: &Change) -> bool {
        let logs = self.logs.get(&server);
        change.remove.iter().any(|name| !self.segments.contains_key(name))
            || change.add.iter().any(|segment| self.segments.contains_key(&segment.name))
            || change.logs.iter().any(|log| logs.is_some_and(|logs| logs.contains(log)))
    }

    fn apply(&mut self, entry: Entry) {
        let Entry { server, start, change, at_ms, .. } = entry;
        let heard_ms = self.heard.entry(server).or_insert(at_ms);
        *heard_ms = at_ms.max(*heard_ms);
        if self.contradicts(server, &change) {
            return;
        }
        if let Some(start) = start {
            self.starts.insert(server, start);
            // There are more servers only after a start.
            self.forget(at_ms);
        }
        for name in &change.remove {
            self.segments.remove(name);
        }
        self.segments.extend(change.add.into_iter().map(|segment| (segment.name.clone(), segment)));
        if !change.logs.is_empty() {
            let logs = self.logs.entry(server).or_default();
            logs.extend(change.logs);
            let last = logs.last().copied();
            let from = self.logs_from.entry(server).or_default();
            *from = (*from).max(change.logs_from);
            logs.retain(|log| *log >= *from || Some(*log) == last);
            self.logs_but.remove(&server);
            if !change.logs_but.is_empty() {
                self.logs_but.insert(server, change.logs_but.into_iter().collect());
            }
        }
    }
}

impl State {
    /// Forgets servers that have not been heard of for long. One that comes back says so: see [`Manifest::remembers`].
    fn forget(&mut self, at_ms: i64) {
        // Earlier versions did not take note.
        for server in self.logs.keys().chain(self.starts.keys()) {
            self.heard.entry(*server).or_insert(at_ms);
        }
        let silent: Vec<Uuid> = {
            let heard = self.heard.iter();
            heard.filter(|(_, ms)| at_ms.saturating_sub(**ms) > FORGOTTEN_MS).map(|(id, _)| *id).collect()
        };
        for server in &silent {
            self.heard.remove(server);
            self.starts.remove(server);
            self.logs.remove(server);
            self.logs_from.remove(server);
            self.logs_but.remove(server);
        }
    }
}

/// The manifest as it is known here.
pub(super) struct Manifest {
    objects: Arc<dyn Objects>,
    clock: Clock,
    server: Uuid,
    /// Whether others write entries.
    shared: bool,
    /// When it was last known to be all that there is: by a clock that nobody sets, and by one that goes on while the
    /// machine sleeps.
    looked: (Instant, i64),
    /// This start of the server; none where nobody else can have its id.
    start: Option<Uuid>,
    /// Another start took its place: what was known of its log files then.
    ousted: Option<Covered>,
    state: State,
    /// The number of the next entry.
    next: u64,
    /// The number of the last checkpoint.
    checkpoint: u64,
}

impl Manifest {
    /// Reads the manifest.
    pub(super) fn load(objects: Arc<dyn Objects>, clock: Clock, server: Uuid) -> Result<Self, StoreError> {
        // What a crash left unfinished may be seen without being durable.
        for prefix in [ENTRIES, CHECKPOINTS] {
            objects.settle(prefix).map_err(|error| StoreError::io("sync", &objects.place(prefix), error))?;
        }
        let looked = (Instant::now(), clock());
        let mut manifest = Self {
            objects,
            clock,
            server,
            shared: false,
            looked,
            start: None,
            ousted: None,
            state: State::default(),
            next: 1,
            checkpoint: 1,
        };
        let checkpoints = manifest.list(CHECKPOINTS, "")?;
        let mut damage = None;
        for name in checkpoints.iter().rev() {
            match manifest.read::<Checkpoint>(name) {
                Ok(checkpoint) => {
                    manifest.state = checkpoint.state;
                    manifest.next = number(name).unwrap_or(1);
                    manifest.checkpoint = manifest.next;
                    damage = None;
                    break;
                }
                // The one before it leads to the same.
                Err(error @ StoreError::Damaged { .. }) => {
                    tracing::error!(%error, "checkpoint cannot be read");
                    damage = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = damage {
            let first = manifest.list(ENTRIES, "")?.first().and_then(|name| number(name));
            // All that it stands for may still be there.
            if first != Some(1) {
                return Err(error);
            }
            tracing::warn!(
                "no checkpoint of the manifest can be read, and every entry is there: they are read instead"
            );
        }
        manifest.refresh()?;
        Ok(manifest)
    }

    /// The same, of which others write entries, too.
    pub(super) fn shared(self) -> Self {
        Self { shared: true, ..self }
    }

    /// How many entries are known, those before the first included.
    pub(super) fn position(&self) -> u64 {
        self.next
    }

    /// What is known.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Refuses segments of versions that cannot be read.
    pub(super) fn check_versions(&self) -> Result<(), StoreError> {
        let newer = self.state.segments.values().find(|segment| !segment::is_readable(segment.version));
        newer.map_or(Ok(()), |segment| {
            let (path, found) = (segment.name.clone().into(), segment.version);
            Err(StoreError::Version { path, found, supported: segment::VERSION })
        })
    }

    /// Reads what others wrote since.
    pub(super) fn refresh(&mut self) -> Result<(), StoreError> {
        let after = object(ENTRIES, self.next - 1);
        for name in self.list(ENTRIES, &after)? {
            let number = number(&name).unwrap_or_default();
            if number != self.next {
                let name = object(ENTRIES, self.next);
                let why = format!("it is missing, while there is {number}");
                return Err(StoreError::Damaged { name, what: "entry", why });
            }
            let entry = self.read::<Entry>(&name)?;
            self.take(entry);
        }
        Ok(())
    }

    /// Takes the next entry for true.
    fn take(&mut self, entry: Entry) {
        let other = |start| self.start.is_some_and(|own| own != start);
        if entry.server == self.server && entry.start.is_some_and(other) {
            // Its log files are not ours from here on, whatever their numbers.
            self.ousted.get_or_insert_with(|| self.state.logs_of(self.server));
        }
        self.state.apply(entry);
        self.next += 1;
    }

    /// The log files of this server that are in segments.
    pub(super) fn covered(&self) -> Covered {
        self.ousted.clone().unwrap_or_else(|| self.state.logs_of(self.server))
    }

    /// Whether anything is known of this server. If not it is new, or was silent for so long that it is not known which of
    /// its log files are in segments; those that were begun since are in none.
    pub(super) fn remembers(&self) -> bool {
        let State { logs, starts, heard, .. } = &self.state;
        heard.contains_key(&self.server)
            || starts.contains_key(&self.server)
            || logs.contains_key(&self.server)
    }

    /// What is wrong if another server has this one's id.
    pub(super) fn ousted(&self) -> Option<StoreError> {
        self.ousted.as_ref().map(|_| StoreError::Copied(self.server))
    }

    /// Reads what others wrote since, at the cost of one small request if they wrote nothing. If it fails, what was read
    /// until then is known.
    pub(super) fn poll(&mut self) -> Result<(), StoreError> {
        if self.is_stale() {
            return self.reload();
        }
        let now = (Instant::now(), (self.clock)());
        loop {
            let name = object(ENTRIES, self.next);
            match self.objects.get(&name) {
                Ok(bytes) => {
                    self.take(unframe(&name, &bytes)?);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                Err(error) => return Err(StoreError::io("read", &self.objects.place(&name), error)),
            }
        }
        self.looked = now;
        Ok(())
    }

    /// Whether entries may have come and gone since somebody looked. The next number may have been used then.
    fn is_stale(&self) -> bool {
        let (instant, ms) = self.looked;
        let by_wall = (self.clock)().saturating_sub(ms);
        let by_instant = i64::try_from(instant.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.shared && by_wall.max(by_instant) > STALE_MS
    }

    /// Reads all of it again.
    fn reload(&mut self) -> Result<(), StoreError> {
        let read = Self::load(Arc::clone(&self.objects), Arc::clone(&self.clock), self.server)?;
        let last = read.state.starts.get(&self.server);
        let is_other = self.start.is_some() && last.is_some() && last != self.start.as_ref();
        let ousted = (self.ousted.is_some() || is_other).then(|| self.covered());
        *self = Self { start: self.start, ousted, ..read.shared() };
        Ok(())
    }

    /// Says that the server has started, and is the only one with its id from here on; tells no if the last one that said so
    /// is not among its earlier starts, which are `known`. Whatever a start before this one was about to write for its log
    /// comes too late then, as the number of its entry is taken.
    pub(super) fn begin(&mut self, start: Uuid, known: &[Uuid]) -> Result<bool, StoreError> {
        let begun = self.write(Some(start), Change::default(), |manifest, _| {
            Ok(manifest.state.starts.get(&manifest.server).is_none_or(|last| known.contains(last)))
        })?;
        self.start = begun.then_some(start);
        Ok(begun)
    }

    /// Makes a change durable and tells yes; or tells no, as what others wrote contradicts it. When it fails, the change
    /// may yet be found; whoever tries it again is told no then.
    pub(super) fn commit(&mut self, change: Change) -> Result<bool, StoreError> {
        self.write(None, change, |manifest, change| {
            let error = manifest.ousted().filter(|_| !change.logs.is_empty());
            error.map_or(Ok(!manifest.state.contradicts(manifest.server, change)), Err)
        })
    }

    /// Writes an entry as long as `may` says yes to what is in force before it.
    fn write(
        &mut self,
        start: Option<Uuid>,
        change: Change,
        may: impl Fn(&Self, &Change) -> Result<bool, StoreError>,
    ) -> Result<bool, StoreError> {
        let entry = Entry { id: Uuid::new_v4(), server: self.server, at_ms: (self.clock)(), start, change };
        let bytes = frame(&entry);
        let mut lost = 0;
        loop {
            if self.is_stale() {
                self.reload()?;
            }
            if !may(self, &entry.change)? {
                return Ok(false);
            }
            let name = object(ENTRIES, self.next);
            let created = self.objects.create(&name, bytes.clone());
            let created =
                created.map_err(|error| StoreError::io("create", &self.objects.place(&name), error))?;
            if created && self.is_stale() {
                // It took so long that the number may have been another's, whose entry is gone. What is in force shows it.
                continue;
            }
            if created {
                self.state.apply(entry);
                self.next += 1;
                self.write_checkpoint();
                return Ok(true);
            }
            // It is seen, but may not be durable if its writer failed.
            let settled = self.objects.settle(ENTRIES);
            settled.map_err(|error| StoreError::io("sync", &self.objects.place(ENTRIES), error))?;
            let other = self.read::<Entry>(&name)?;
            let own = other.id == entry.id;
            self.take(other);
            if own {
                // An earlier try of the same request had got through.
                self.write_checkpoint();
                return Ok(true);
            }
            if self.shared {
                self.objects.pause(lost);
                lost += 1;
                // Whatever came meanwhile need not be found number by number with an entry that comes too late.
                self.poll()?;
            }
        }
    }

    /// Writes a checkpoint if it is time. It need not succeed.
    fn write_checkpoint(&mut self) {
        if self.next < self.checkpoint + CHECKPOINT_ENTRIES {
            return;
        }
        // Of many servers one does it: who wrote a certain entry. Should it die, the next one comes soon.
        if self.shared && !(self.next - 1).is_multiple_of(CHECKPOINT_ENTRIES) {
            return;
        }
        let checkpoint = Checkpoint { at_ms: (self.clock)(), state: self.state.clone() };
        let name = object(CHECKPOINTS, self.next);
        if let Err(error) = self.objects.create(&name, frame(&checkpoint)) {
            tracing::warn!(name, %error, "checkpoint of the manifest cannot be written");
            return;
        }
        self.checkpoint = self.next;
    }

    /// Names with numbers below a prefix.
    fn list(&self, prefix: &str, after: &str) -> Result<Vec<String>, StoreError> {
        let mut names = self
            .objects
            .list(prefix, after)
            .map_err(|error| StoreError::io("list", &self.objects.place(prefix), error))?;
        names.retain(|name| number(name).is_some());
        Ok(names)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<T, StoreError> {
        let got = self.objects.get(name);
        let bytes = got.map_err(|error| StoreError::io("read", &self.objects.place(name), error))?;
        unframe(name, &bytes)
    }
}

/// The object with this number.
fn object(prefix: &str, number: u64) -> String {
    format!("{prefix}/{number:020}")
}

/// The number in an object's name.
fn number(name: &str) -> Option<u64> {
    let (_, digits) = name.rsplit_once('/')?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

fn frame(value: &impl Serialize) -> Vec<u8> {
    framed(&serde_json::to_vec(value).expect("names and numbers are JSON"))
}

/// JSON as it lies in an object.
pub(super) fn framed(json: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(json.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(json).to_le_bytes());
    bytes.extend_from_slice(json);
    bytes
}

fn unframe<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, StoreError> {
    let damaged =
        |why: &str| StoreError::Damaged { name: name.to_owned(), what: "manifest", why: why.to_owned() };
    let (header, json) = bytes.split_at_checked(HEADER_BYTES).ok_or_else(|| damaged("ends too early"))?;
    let number = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    if header[..8] != MAGIC {
        return Err(damaged("is none"));
    }
    if number(8) != VERSION {
        return Err(StoreError::Version { path: name.into(), found: number(8), supported: VERSION });
    }
    if number(12) as usize != json.len() || number(16) != crc32fast::hash(json) {
        return Err(damaged("checksum does not fit"));
    }
    serde_json::from_slice(json).map_err(|error| damaged(&error.to_string()))
}

#[cfg(any(test, fuzzing))]
pub(super) use self::fuzzed::{checkpoint_name, entry_name, read_any};

/// What a fuzz target needs.
#[cfg(any(test, fuzzing))]
mod fuzzed {
    use super::{CHECKPOINTS, Checkpoint, ENTRIES, Entry, StoreError, object, unframe};

    pub(in crate::store) fn entry_name(number: u64) -> String {
        object(ENTRIES, number)
    }

    pub(in crate::store) fn checkpoint_name(number: u64) -> String {
        object(CHECKPOINTS, number)
    }

    /// Reads an object as an entry and as a checkpoint.
    pub(in crate::store) fn read_any(bytes: &[u8]) -> Result<(), StoreError> {
        unframe::<Checkpoint>("fuzzed", bytes)?;
        unframe::<Entry>("fuzzed", bytes).map(drop)
    }
}

mod audit;
mod old;
#[cfg(test)]
mod tests;

pub(super) use self::old::remove_old;

pub(super) use self::audit::audit;
