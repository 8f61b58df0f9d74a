//! One file of traces: what came in some hours, or until it was large enough. Files come and go whole, so that retention
//! costs nothing and damage to one costs none of the others.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use foldhash::fast::RandomState;
use parking_lot::{Mutex, RwLock};
use redb::{
    Builder, Database, DatabaseError, ReadOnlyDatabase, ReadTransaction, ReadableDatabase, ReadableTable,
    TableDefinition,
};

use super::error::TraceError;
use super::record::{self, Prepared, RowFacts};
use super::span::{Origin, SpanStatus, TracedSpan};
use crate::cancel;
use crate::model::{SpanId, TenantId, TraceId};

/// The version of the tables.
const VERSION: u64 = 1;
/// Operations that a tenant may have by name in one file: anyone may make names up. Spans of further ones are found by
/// looking at them.
const MAX_OPERATIONS: usize = 10_000;
/// Memory for resources that are recognised when they come again, in bytes.
const MAX_KNOWN_ORIGINS: usize = 4 << 20;
/// The same for those that one look at a trace recognises.
const MAX_READ_ORIGINS: usize = 4 << 20;

/// `version`, `since_ms`, when it was made, and `records`, the number that the next record gets.
const FACTS: TableDefinition<&str, u64> = TableDefinition::new("facts");
/// Number → id, first start, last start, spans.
const TENANTS: TableDefinition<u32, (&str, u64, u64, u64)> = TableDefinition::new("tenants");
/// Number → service, resource and library.
const ORIGINS: TableDefinition<u32, (&str, &[u8])> = TableDefinition::new("origins");
/// Tenant, trace, number → origin, spans.
const RECORDS: TableDefinition<(u32, u128, u64), (u32, &[u8])> = TableDefinition::new("records");
/// Number → tenant, whether it stands for all that have no number, service, name.
const OPERATIONS: TableDefinition<u32, (u32, bool, &str, &str)> = TableDefinition::new("operations");
/// Operation, start, span → trace, duration, status.
const STARTS: TableDefinition<(u32, u64, u64), (u128, u64, u8)> = TableDefinition::new("starts");
/// Tenant, span → trace.
const SPANS: TableDefinition<(u32, u64), u128> = TableDefinition::new("spans");

/// One file.
pub(super) struct Slice {
    /// The one in its name; later files have higher ones.
    pub(super) number: u64,
    pub(super) path: PathBuf,
    /// When it was made, in Unix milliseconds.
    pub(super) since_ms: i64,
    cache_bytes: usize,
    /// None after a failure, until it is opened again.
    handle: Mutex<Option<Arc<Handle>>>,
    tenants: RwLock<HashMap<TenantId, TenantFacts>>,
    /// Whether it is out of service: what is written to it from then on would never be read.
    gone: AtomicBool,
}

enum Handle {
    Writing(Database),
    /// Nothing is added any more.
    Sealed(ReadOnlyDatabase),
}

/// What a file has of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TenantFacts {
    number: u32,
    /// When its first span began, in Unix nanoseconds.
    pub(super) first_nanos: u64,
    /// When its last one began.
    pub(super) last_nanos: u64,
    pub(super) spans: u64,
}

/// An operation and its number in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Operation {
    pub(super) number: u32,
    /// Whether it stands for all that have no number; service and name are empty then.
    pub(super) rest: bool,
    pub(super) service: String,
    pub(super) name: String,
}

/// A span in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
    pub(super) start_nanos: u64,
    pub(super) facts: RowFacts,
}

/// What the writer knows of the file that it writes.
#[derive(Default)]
pub(super) struct Known {
    origins: HashMap<(String, Vec<u8>), u32, RandomState>,
    origins_bytes: usize,
    next_origin: u32,
    operations: HashMap<(u32, String, String), u32, RandomState>,
    rests: HashMap<u32, u32, RandomState>,
    of_tenant: HashMap<u32, usize, RandomState>,
    next_operation: u32,
    next_record: u64,
}

/// A view of a file as it was at one moment.
pub(super) struct Reading {
    transaction: ReadTransaction,
    path: PathBuf,
    /// The database must outlive its transactions.
    _handle: Arc<Handle>,
}

/// Runs what may panic on a damaged file.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, TraceError>) -> Result<T, TraceError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(TraceError::damaged(path, "the database could not make sense of it")))
}

impl Slice {
    /// Makes a file to write to.
    pub(super) fn create(
        path: PathBuf,
        number: u64,
        since_ms: i64,
        cache_bytes: usize,
    ) -> Result<Self, TraceError> {
        let slice = Self {
            number,
            since_ms,
            cache_bytes,
            handle: Mutex::default(),
            tenants: RwLock::default(),
            gone: AtomicBool::new(false),
            path: path.clone(),
        };
        let made = guarded(&path, || {
            let failed = |error: redb::Error| TraceError::of("make", &path, error);
            let database =
                Builder::new().set_cache_size(cache_bytes).create(&path).map_err(|e| failed(e.into()))?;
            let write = database.begin_write().map_err(|error| failed(error.into()))?;
            write_tables(&write, since_ms).map_err(failed)?;
            write.commit().map_err(|error| failed(error.into()))?;
            Ok(database)
        });
        match made {
            Ok(database) => *slice.handle.lock() = Some(Arc::new(Handle::Writing(database))),
            Err(error) => {
                // Half a file would be taken for a damaged one at the next start.
                let _ = std::fs::remove_file(&path);
                return Err(error);
            }
        }
        Ok(slice)
    }

    /// Opens a file, to write to or not.
    pub(super) fn open(
        path: PathBuf,
        number: u64,
        cache_bytes: usize,
        writing: bool,
    ) -> Result<Self, TraceError> {
        let handle = open(&path, cache_bytes, writing)?;
        let mut slice = Self {
            number,
            since_ms: 0,
            cache_bytes,
            handle: Mutex::new(Some(Arc::new(handle))),
            tenants: RwLock::default(),
            gone: AtomicBool::new(false),
            path,
        };
        let reading = slice.read()?;
        let (tenants, since_ms) = guarded(&slice.path, || Ok((reading.tenants()?, reading.since_ms()?)))?;
        slice.since_ms = since_ms;
        *slice.tenants.write() = tenants;
        Ok(slice)
    }

    /// What it has of a tenant.
    pub(super) fn facts(&self, tenant: &TenantId) -> Option<TenantFacts> {
        self.tenants.read().get(tenant).copied()
    }

    /// What it has of all of them.
    pub(super) fn all_facts(&self) -> Vec<(TenantId, TenantFacts)> {
        self.tenants.read().iter().map(|(tenant, facts)| (tenant.clone(), *facts)).collect()
    }

    /// Bytes that it takes on disk.
    pub(super) fn disk_bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |metadata| disk_bytes(&metadata))
    }

    /// Takes it out of service, before its file gets another name.
    pub(super) fn leave(&self) {
        self.gone.store(true, Ordering::SeqCst);
    }

    fn check_gone(&self) -> Result<(), TraceError> {
        if self.gone.load(Ordering::SeqCst) {
            return Err(TraceError::damaged(&self.path, "it was set aside before"));
        }
        Ok(())
    }

    /// Whether nothing is added to it any more.
    pub(super) fn is_sealed(&self) -> bool {
        self.handle.lock().as_ref().is_some_and(|handle| matches!(**handle, Handle::Sealed(_)))
    }

    fn handle(&self) -> Result<Arc<Handle>, TraceError> {
        let mut handle = self.handle.lock();
        if let Some(handle) = &*handle {
            return Ok(Arc::clone(handle));
        }
        // By now another file may have its name.
        self.check_gone()?;
        let opened = Arc::new(open(&self.path, self.cache_bytes, true)?);
        *handle = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// A view of it as it is now.
    pub(super) fn read(&self) -> Result<Reading, TraceError> {
        let handle = self.handle()?;
        let begun = match &*handle {
            Handle::Writing(database) => database.begin_read(),
            Handle::Sealed(database) => database.begin_read(),
        };
        let transaction = begun.map_err(|error| TraceError::of("read", &self.path, error))?;
        Ok(Reading { transaction, path: self.path.clone(), _handle: handle })
    }

    /// Closes it to writes if nobody reads it just now; tells whether it is closed. Closing is what makes the next start quick.
    pub(super) fn seal(&self) -> Result<bool, TraceError> {
        let mut handle = self.handle.lock();
        match &*handle {
            Some(open) if matches!(**open, Handle::Sealed(_)) => return Ok(true),
            // Nobody can get at it while the lock is held.
            Some(open) if Arc::strong_count(open) > 1 => return Ok(false),
            _ => {}
        }
        *handle = None;
        *handle = Some(Arc::new(open(&self.path, self.cache_bytes, false)?));
        Ok(true)
    }

    /// Writes spans of tenants; all of them are durable, or on an error none. After one, `known` has to be read anew. It is
    /// an error, too, if the file went out of service meanwhile.
    pub(super) fn write(
        &self,
        batches: &[(TenantId, Prepared)],
        known: &mut Known,
    ) -> Result<(), TraceError> {
        self.check_gone()?;
        let handle = self.handle()?;
        let Handle::Writing(database) = &*handle else {
            let (action, path) = ("write", self.path.clone());
            return Err(TraceError::Io { action, path, why: "it is closed".into() });
        };
        let mut tenants = self.tenants.read().clone();
        let written = guarded(&self.path, || {
            let failed = |error: redb::Error| TraceError::of("write", &self.path, error);
            let write = database.begin_write().map_err(|error| failed(error.into()))?;
            insert(&write, batches, known, &mut tenants).map_err(failed)?;
            write.commit().map_err(|error| failed(error.into()))
        });
        if let Err(error) = written {
            // After an error of the disk the database takes nothing more until it is opened again.
            self.handle.lock().take();
            return Err(error);
        }
        *self.tenants.write() = tenants;
        self.check_gone()
    }
}

fn open(path: &Path, cache_bytes: usize, writing: bool) -> Result<Handle, TraceError> {
    guarded(path, || {
        let failed = |error: DatabaseError| TraceError::of("open", path, error);
        let mut builder = Builder::new();
        builder.set_cache_size(cache_bytes);
        let handle = if writing {
            Handle::Writing(builder.open(path).map_err(failed)?)
        } else {
            let sealed = match builder.open_read_only(path) {
                // It was not closed before the last process ended.
                Err(DatabaseError::RepairAborted) => {
                    drop(builder.open(path).map_err(failed)?);
                    builder.open_read_only(path)
                }
                opened => opened,
            };
            Handle::Sealed(sealed.map_err(failed)?)
        };
        let begun = match &handle {
            Handle::Writing(database) => database.begin_read(),
            Handle::Sealed(database) => database.begin_read(),
        };
        let read = begun.map_err(|error| TraceError::of("open", path, error))?;
        let facts = read.open_table(FACTS).map_err(|error| TraceError::of("open", path, error))?;
        let version = facts.get("version").map_err(|error| TraceError::of("open", path, error))?;
        match version.map(|version| version.value()) {
            Some(VERSION) => {}
            Some(found) if found > VERSION => {
                return Err(TraceError::Version { path: path.to_owned(), found, supported: VERSION });
            }
            _ => return Err(TraceError::damaged(path, "it does not say which version it is")),
        }
        drop((facts, read));
        Ok(handle)
    })
}

fn write_tables(write: &redb::WriteTransaction, since_ms: i64) -> Result<(), redb::Error> {
    let mut facts = write.open_table(FACTS)?;
    facts.insert("version", VERSION)?;
    facts.insert("since_ms", u64::try_from(since_ms).unwrap_or(0))?;
    write.open_table(TENANTS)?;
    write.open_table(ORIGINS)?;
    write.open_table(RECORDS)?;
    write.open_table(OPERATIONS)?;
    write.open_table(STARTS)?;
    write.open_table(SPANS)?;
    Ok(())
}

fn insert(
    write: &redb::WriteTransaction,
    batches: &[(TenantId, Prepared)],
    known: &mut Known,
    tenants: &mut HashMap<TenantId, TenantFacts>,
) -> Result<(), redb::Error> {
    let mut of_tenants = write.open_table(TENANTS)?;
    let mut origins = write.open_table(ORIGINS)?;
    let mut operations = write.open_table(OPERATIONS)?;
    let mut records = write.open_table(RECORDS)?;
    let mut starts = write.open_table(STARTS)?;
    let mut spans = write.open_table(SPANS)?;
    for (tenant, prepared) in batches {
        let number = tenants.len() as u32;
        let facts = tenants.entry(tenant.clone()).or_insert(TenantFacts {
            number,
            first_nanos: u64::MAX,
            last_nanos: 0,
            spans: 0,
        });
        let mut numbers = Vec::with_capacity(prepared.origins.len());
        for origin in &prepared.origins {
            let message = origin.message();
            let (number, new) = known.origin(&origin.service, &message);
            if new {
                origins.insert(number, (&*origin.service, message.as_slice()))?;
            }
            numbers.push(number);
        }
        for record in &prepared.records {
            let key = (facts.number, record.trace.get(), known.next_record);
            known.next_record += 1;
            records.insert(key, (numbers[record.origin], record.bytes.as_slice()))?;
        }
        for row in &prepared.rows {
            let service = &prepared.origins[row.origin].service;
            let (operation, new) = known.operation(facts.number, service, &row.name);
            match new {
                None => {}
                Some(true) => {
                    operations.insert(operation, (facts.number, true, "", ""))?;
                }
                Some(false) => {
                    let entry = (facts.number, false, &**service, row.name.as_str());
                    operations.insert(operation, entry)?;
                }
            }
            let key = (operation, row.start_nanos, row.span.get());
            let value = (row.trace.get(), row.facts.duration_nanos, row.facts.status_number());
            starts.insert(key, value)?;
            spans.insert((facts.number, row.span.get()), row.trace.get())?;
            facts.first_nanos = facts.first_nanos.min(row.start_nanos);
            facts.last_nanos = facts.last_nanos.max(row.start_nanos);
            facts.spans += 1;
        }
        let entry = (tenant.as_str(), facts.first_nanos, facts.last_nanos, facts.spans);
        of_tenants.insert(facts.number, entry)?;
    }
    write.open_table(FACTS)?.insert("records", known.next_record)?;
    Ok(())
}

impl Known {
    /// What the file holds of it.
    pub(super) fn of(slice: &Slice) -> Result<Self, TraceError> {
        let reading = slice.read()?;
        guarded(&slice.path, || {
            let mut known = Self::default();
            let facts = reading.table(FACTS)?;
            known.next_record = reading.ok(facts.get("records"))?.map_or(0, |records| records.value());
            for entry in reading.ok(reading.table(ORIGINS)?.iter())? {
                let (number, value) = reading.ok(entry)?;
                let (service, message) = value.value();
                known.remember(service, message, number.value());
                known.next_origin = known.next_origin.max(number.value() + 1);
            }
            for entry in reading.ok(reading.table(OPERATIONS)?.iter())? {
                let (number, value) = reading.ok(entry)?;
                let (number, (tenant, rest, service, name)) = (number.value(), value.value());
                known.next_operation = known.next_operation.max(number + 1);
                if rest {
                    known.rests.insert(tenant, number);
                } else {
                    known.operations.insert((tenant, service.to_owned(), name.to_owned()), number);
                    *known.of_tenant.entry(tenant).or_default() += 1;
                }
            }
            Ok(known)
        })
    }

    fn remember(&mut self, service: &str, message: &[u8], number: u32) {
        self.origins_bytes += message.len() + service.len();
        if self.origins_bytes > MAX_KNOWN_ORIGINS {
            // Those that come again are written once more.
            self.origins.clear();
            self.origins_bytes = message.len() + service.len();
        }
        self.origins.insert((service.to_owned(), message.to_vec()), number);
    }

    /// The number of a resource, and whether it is new.
    fn origin(&mut self, service: &str, message: &[u8]) -> (u32, bool) {
        let key = (service.to_owned(), message.to_vec());
        if let Some(&number) = self.origins.get(&key) {
            return (number, false);
        }
        let number = self.next_origin;
        self.next_origin += 1;
        self.remember(service, message, number);
        (number, true)
    }

    /// The number of an operation; and if it is new, whether it stands for all further ones.
    fn operation(&mut self, tenant: u32, service: &str, name: &str) -> (u32, Option<bool>) {
        let key = (tenant, service.to_owned(), name.to_owned());
        if let Some(&number) = self.operations.get(&key) {
            return (number, None);
        }
        let count = self.of_tenant.entry(tenant).or_default();
        if *count >= MAX_OPERATIONS {
            if let Some(&number) = self.rests.get(&tenant) {
                return (number, None);
            }
            self.rests.insert(tenant, self.next_operation);
            self.next_operation += 1;
            return (self.next_operation - 1, Some(true));
        }
        *count += 1;
        self.operations.insert(key, self.next_operation);
        self.next_operation += 1;
        (self.next_operation - 1, Some(false))
    }
}

impl Reading {
    fn ok<T>(&self, result: Result<T, redb::StorageError>) -> Result<T, TraceError> {
        result.map_err(|error| TraceError::of("read", &self.path, error))
    }

    fn table<K: redb::Key, V: redb::Value>(
        &self,
        definition: TableDefinition<K, V>,
    ) -> Result<redb::ReadOnlyTable<K, V>, TraceError> {
        self.transaction.open_table(definition).map_err(|error| TraceError::of("read", &self.path, error))
    }

    fn tenants(&self) -> Result<HashMap<TenantId, TenantFacts>, TraceError> {
        let mut tenants = HashMap::new();
        for entry in self.ok(self.table(TENANTS)?.iter())? {
            let (number, value) = self.ok(entry)?;
            let (id, first_nanos, last_nanos, spans) = value.value();
            let id = TenantId::new(id).map_err(|error| TraceError::damaged(&self.path, error.to_string()))?;
            let number = number.value();
            tenants.insert(id, TenantFacts { number, first_nanos, last_nanos, spans });
        }
        Ok(tenants)
    }

    fn since_ms(&self) -> Result<i64, TraceError> {
        let since = self.ok(self.table(FACTS)?.get("since_ms"))?.map_or(0, |since| since.value());
        Ok(i64::try_from(since).unwrap_or(i64::MAX))
    }

    /// Visits the spans of a trace in the order in which they came, until it is told to stop; one that came twice, twice.
    /// Tells how many records make no sense: they cost none of the others.
    pub(super) fn trace(
        &self,
        tenant: TenantFacts,
        trace: TraceId,
        visit: &mut dyn FnMut(TracedSpan) -> Result<bool, TraceError>,
    ) -> Result<u64, TraceError> {
        guarded(&self.path, || {
            let (records, origins) = (self.table(RECORDS)?, self.table(ORIGINS)?);
            let mut read: HashMap<u32, Arc<Origin>, RandomState> = HashMap::default();
            let mut read_bytes = 0;
            let mut unreadable = 0;
            let mut skip = |why: String| {
                unreadable += 1;
                tracing::error!(file = %self.path.display(), %trace, why, "a record of traces cannot be read");
            };
            let key = |number| (tenant.number, trace.get(), number);
            'records: for entry in self.ok(records.range(key(0)..=key(u64::MAX)))? {
                cancel::check()?;
                let (_, value) = self.ok(entry)?;
                let (number, bytes) = value.value();
                let origin = match read.get(&number) {
                    Some(origin) => Arc::clone(origin),
                    None => {
                        let Some(found) = self.ok(origins.get(number))? else {
                            skip("its resource is missing".to_owned());
                            continue;
                        };
                        let (service, message) = found.value();
                        let origin = match record::origin(service, message) {
                            Ok(origin) => Arc::new(origin),
                            Err(why) => {
                                skip(why);
                                continue;
                            }
                        };
                        read_bytes += origin.weight();
                        if read_bytes > MAX_READ_ORIGINS {
                            // Those that come again are read once more.
                            read.clear();
                            read_bytes = origin.weight();
                        }
                        read.insert(number, Arc::clone(&origin));
                        origin
                    }
                };
                match record::spans(bytes, &origin) {
                    Ok(spans) => {
                        for span in spans {
                            if !visit(span)? {
                                break 'records;
                            }
                        }
                    }
                    Err(why) => skip(why),
                }
            }
            Ok(unreadable)
        })
    }

    /// The trace of a span.
    pub(super) fn trace_of(&self, tenant: TenantFacts, span: SpanId) -> Result<Option<TraceId>, TraceError> {
        guarded(&self.path, || {
            let found = self.ok(self.table(SPANS)?.get((tenant.number, span.get())))?;
            Ok(found.and_then(|trace| TraceId::new(trace.value())))
        })
    }

    /// A tenant's operations.
    pub(super) fn operations(&self, tenant: TenantFacts) -> Result<Vec<Operation>, TraceError> {
        guarded(&self.path, || {
            let mut operations = Vec::new();
            for entry in self.ok(self.table(OPERATIONS)?.iter())? {
                let (number, value) = self.ok(entry)?;
                let (of, rest, service, name) = value.value();
                if of == tenant.number {
                    let (service, name) = (service.to_owned(), name.to_owned());
                    operations.push(Operation { number: number.value(), rest, service, name });
                }
            }
            Ok(operations)
        })
    }

    /// Visits the spans of an operation that began within this time, the last first, until it is told to stop.
    pub(super) fn starts(
        &self,
        operation: u32,
        first_nanos: u64,
        last_nanos: u64,
        mut visit: impl FnMut(Row) -> Result<bool, TraceError>,
    ) -> Result<(), TraceError> {
        /// Rows between two questions whether anybody still waits.
        const ROWS_AT_ONCE: usize = 1024;
        if first_nanos > last_nanos {
            return Ok(());
        }
        guarded(&self.path, || {
            let starts = self.table(STARTS)?;
            let range = (operation, first_nanos, 0)..=(operation, last_nanos, u64::MAX);
            for (number, entry) in self.ok(starts.range(range))?.rev().enumerate() {
                if number % ROWS_AT_ONCE == 0 {
                    cancel::check()?;
                }
                let (key, value) = self.ok(entry)?;
                let ((_, start_nanos, span), (trace, duration_nanos, status)) = (key.value(), value.value());
                let (Some(trace), Some(span)) = (TraceId::new(trace), SpanId::new(span)) else { continue };
                let facts = RowFacts { duration_nanos, status: SpanStatus::of(i32::from(status)) };
                if !visit(Row { trace, span, start_nanos, facts })? {
                    break;
                }
            }
            Ok(())
        })
    }
}

#[cfg(unix)]
fn disk_bytes(metadata: &std::fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    // A file is made longer before it is filled.
    metadata.blocks() * 512
}

#[cfg(not(unix))]
fn disk_bytes(metadata: &std::fs::Metadata) -> u64 {
    metadata.len()
}
