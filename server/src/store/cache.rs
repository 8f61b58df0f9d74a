//! Pieces of segments that were read lately, within a bound of memory.
//!
//! What is asked for again and again stays; the rest makes room. The bound does not depend on how much is stored.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use super::StoreError;

/// A piece of a segment that can be kept.
pub(super) trait Cached: Send + Sync + 'static {
    /// Tells pieces of one kind from those of others.
    const KIND: u8;
    /// What it is called in errors.
    const WHAT: &'static str;

    /// Bytes of memory that it takes.
    fn bytes(&self) -> usize;
}

/// Segment, kind and number.
type Key = (u64, u8, u32);

#[derive(Clone)]
struct Piece {
    value: Arc<dyn Any + Send + Sync>,
    bytes: usize,
}

#[derive(Clone)]
struct Bytes;

impl Weighter<Key, Piece> for Bytes {
    fn weight(&self, _: &Key, piece: &Piece) -> u64 {
        piece.bytes as u64
    }
}

/// Pieces that were read lately.
pub(super) struct BlockCache {
    pieces: Cache<Key, Piece, Bytes>,
    next: AtomicU64,
}

/// What a piece takes on the average, roughly.
const USUAL_BYTES: u64 = 64 << 10;
/// What a piece takes beside itself.
const OVERHEAD: usize = 160;

impl BlockCache {
    /// A cache of at most so many bytes.
    pub(super) fn new(bytes: u64) -> Self {
        let options = OptionsBuilder::new()
            .weight_capacity(bytes)
            .estimated_items_capacity((bytes / USUAL_BYTES) as usize)
            // Each shard has its own share, and one segment's symbols may need more than a small one.
            .shards(1)
            .build()
            .expect("all that is needed is said");
        let hasher = DefaultHashBuilder::default();
        let pieces = Cache::with_options(options, Bytes, hasher, DefaultLifecycle::default());
        Self { pieces, next: AtomicU64::new(0) }
    }

    /// A number that no segment had before.
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The piece with this number, made by `load` if it is not here. Others that want it meanwhile wait for it.
    pub(super) fn get<T: Cached>(
        &self,
        segment: u64,
        number: u32,
        load: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<Arc<T>, StoreError> {
        let piece = self.pieces.get_or_insert_with(&(segment, T::KIND, number), || {
            let value = load()?;
            let bytes = value.bytes() + OVERHEAD;
            Ok::<_, StoreError>(Piece { value: Arc::new(value), bytes })
        })?;
        Ok(piece.value.downcast().expect("a kind has one type"))
    }

    /// The piece with this number if it is here.
    pub(super) fn peek<T: Cached>(&self, segment: u64, number: u32) -> Option<Arc<T>> {
        let piece = self.pieces.get(&(segment, T::KIND, number))?;
        Some(piece.value.downcast().expect("a kind has one type"))
    }

    /// Bytes of all pieces.
    pub(super) fn bytes(&self) -> u64 {
        self.pieces.weight()
    }

    /// Forgets the pieces of a segment.
    pub(super) fn forget(&self, segment: u64) {
        self.pieces.retain(|key, _| key.0 != segment);
    }
}
