//! Objects in a bucket of an S3-compatible object store, which servers may share.
//!
//! Everybody who asks is on a thread that may block; the client's connections live on a thread of their own.

use std::fmt;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_executor::{block_on, block_on_stream};
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path as Name;
use object_store::prefix::PrefixStore;
use object_store::{
    BackoffConfig, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig,
};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

use super::http_client::Connector;
use super::{Objects, back_off, io_error_kind};

/// How often a request is tried again, and until when.
const RETRIES: (usize, Duration) = (3, Duration::from_secs(20));
/// How often an object is created again that others are just writing, too.
const CONFLICTS: u32 = 5;
/// Objects of at most so many bytes are read whole: a request costs more than the bytes.
const SMALL_BYTES: u64 = 512 << 10;
/// Memory for them.
const SMALL_CACHE_BYTES: u64 = 32 << 20;

/// A bucket of an S3-compatible object store, and the part of it that is ours.
///
/// Credentials come from where AWS's own tools look: the variables `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and
/// `AWS_SESSION_TOKEN`, a web identity, or the metadata of the container or machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// What names of our objects begin with, without a slash at its ends; may be empty.
    pub prefix: String,
    /// Where the object store is reached; none for AWS, or what `AWS_ENDPOINT_URL` says.
    pub endpoint: Option<String>,
    /// Its region; none for what `AWS_REGION` says.
    pub region: Option<String>,
    /// Whether it may be reached without TLS.
    pub allow_http: bool,
}

impl Bucket {
    /// The bucket and prefix of `s3://bucket/prefix`.
    ///
    /// # Errors
    /// With what was expected.
    pub fn parse(url: &str) -> Result<Self, String> {
        let expected = || format!("expected s3://bucket or s3://bucket/prefix, got {url:?}");
        let rest = url.strip_prefix("s3://").ok_or_else(expected)?;
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        let good = !name.is_empty()
            && name.bytes().all(plain)
            && (prefix.is_empty()
                || prefix
                    .split('/')
                    .all(|part| !part.is_empty() && part != "." && part != ".." && part.bytes().all(plain)));
        if !good {
            return Err(expected());
        }
        Ok(Self { name: name.to_owned(), prefix: prefix.to_owned(), ..Self::default() })
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, prefix, .. } = self;
        if prefix.is_empty() { write!(f, "s3://{name}") } else { write!(f, "s3://{name}/{prefix}") }
    }
}

/// Objects in a bucket.
pub(in crate::store) struct BucketObjects {
    /// `s3://bucket/prefix`, for errors.
    place: String,
    store: PrefixStore<AmazonS3>,
    /// Small objects that were read or written lately.
    small: Cache<String, Arc<[u8]>, Bytes>,
    /// Drives the client. Taken only when this is dropped, without waiting for it.
    runtime: Option<Runtime>,
}

#[derive(Clone)]
struct Bytes;

impl Weighter<String, Arc<[u8]>> for Bytes {
    fn weight(&self, name: &String, bytes: &Arc<[u8]>) -> u64 {
        (name.len() + bytes.len() + 128) as u64
    }
}

impl BucketObjects {
    /// Those in this bucket. Nothing is asked of it yet.
    pub(in crate::store) fn open(bucket: &Bucket) -> io::Result<Self> {
        let backoff = BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(3),
            base: 2.0,
        };
        let retry = RetryConfig { backoff, max_retries: RETRIES.0, retry_timeout: RETRIES.1 };
        // What the environment says about the client itself comes first: it holds the credentials.
        let mut builder = AmazonS3Builder::from_env()
            .with_http_connector(Connector)
            .with_retry(retry)
            .with_bucket_name(&bucket.name)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_allow_http(bucket.allow_http);
        if let Some(endpoint) = &bucket.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(region) = &bucket.region {
            builder = builder.with_region(region);
        }
        let store = builder.build().map_err(|error| io::Error::other(whole(&error)))?;
        let store = PrefixStore::new(store, bucket.prefix.as_str());
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("object-store").enable_all().build()?;
        let small = Cache::with_weighter(1024, SMALL_CACHE_BYTES, Bytes);
        Ok(Self { place: bucket.to_string(), store, small, runtime: Some(runtime) })
    }

    /// Makes sure that the bucket does what the store relies on, and that we may do it.
    ///
    /// # Errors
    /// When it does not: with what is missing.
    pub(in crate::store) fn check(&self) -> io::Result<()> {
        let name = format!("probe/{}", Uuid::new_v4().as_simple());
        let lacks =
            |what: &str| Err(io::Error::new(ErrorKind::Unsupported, format!("{}: {what}", self.place)));
        // No, if an earlier try of the request had got through: what is read tells.
        self.create(&name, b"first".to_vec())?;
        let second = self.create(&name, b"second".to_vec());
        let (read, listed) = (self.get(&name), self.list("probe", ""));
        self.remove(&name)?;
        if second? {
            return lacks(
                "the object store overwrites objects although it is told not to (If-None-Match: *), so that servers \
                 would destroy what others wrote; use one that supports conditional writes",
            );
        }
        if read? != b"first" || !listed?.contains(&name) {
            return lacks("what was written is not what is read and listed next");
        }
        match self.get(&name) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            // Without the right to list, a missing object cannot be told from a forbidden one.
            Err(error) => Err(error),
            Ok(_) => lacks("an object that was removed is still there"),
        }
    }

    /// Waits for what the object store answers about an object.
    fn wait<T>(
        &self,
        name: &str,
        answer: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, object_store::Error> {
        let _entered = self.runtime.as_ref().map(Runtime::enter);
        block_on(answer).inspect_err(|error| tracing::debug!(name, %error, "object store"))
    }

    /// An error of the object store that says where.
    fn failed(&self, name: &str, error: object_store::Error) -> io::Error {
        use object_store::Error::{PermissionDenied, Unauthenticated};
        let kind = match &error {
            PermissionDenied { .. } | Unauthenticated { .. } => ErrorKind::PermissionDenied,
            _ => match io_error_kind(&error) {
                // That would be told as a full data directory.
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ErrorKind::Other,
                kind => kind,
            },
        };
        io::Error::new(kind, format!("{}/{name}: {}", self.place, whole(&error)))
    }

    fn remember(&self, name: &str, bytes: &[u8]) {
        if bytes.len() as u64 <= SMALL_BYTES {
            self.small.insert(name.to_owned(), bytes.into());
        }
    }
}

/// An error with what is behind it: the client's own says little.
fn whole(error: &object_store::Error) -> String {
    let mut text = error.to_string();
    let mut behind = std::error::Error::source(error);
    while let Some(error) = behind {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        behind = error.source();
    }
    text
}

impl Objects for BucketObjects {
    fn create(&self, name: &str, bytes: Vec<u8>) -> io::Result<bool> {
        let (location, payload) = (Name::from(name), bytes::Bytes::from(bytes));
        for conflict in 1..=CONFLICTS {
            let options = PutOptions::from(PutMode::Create);
            let put = self.store.put_opts(&location, PutPayload::from(payload.clone()), options);
            match self.wait(name, put) {
                Ok(_) => {
                    self.remember(name, &payload);
                    return Ok(true);
                }
                // 409 says that somebody else is about to write or remove it, not that it is there.
                Err(object_store::Error::AlreadyExists { source, .. })
                    if !source.is::<object_store::Error>() && conflict < CONFLICTS =>
                {
                    std::thread::sleep(back_off(conflict));
                }
                Err(object_store::Error::AlreadyExists { source, .. })
                    if source.is::<object_store::Error>() =>
                {
                    return Ok(false);
                }
                Err(error) => return Err(self.failed(name, error)),
            }
        }
        unreachable!("the last round returns")
    }

    fn read(&self, name: &str, range: Range<u64>) -> io::Result<Vec<u8>> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let (start, end) = (range.start as usize, range.end as usize);
        if let Some(part) = self.small.get(name).and_then(|whole| Some(whole.get(start..end)?.to_vec())) {
            return Ok(part);
        }
        // A segment is first read at its end, so this is all of a small one.
        let whole = range.end <= SMALL_BYTES;
        let asked = if whole { 0..range.end } else { range.clone() };
        let location = Name::from(name);
        let read = match self.wait(name, self.store.get_range(&location, asked.clone())) {
            Ok(read) if read.len() as u64 == asked.end - asked.start => read,
            Ok(_) => return Err(ErrorKind::UnexpectedEof.into()),
            Err(error @ object_store::Error::NotFound { .. }) => return Err(self.failed(name, error)),
            // A range behind the end is refused in as many ways as there are object stores.
            Err(error) => match self.wait(name, self.store.head(&location)) {
                Ok(meta) if meta.size < range.end => return Err(ErrorKind::UnexpectedEof.into()),
                _ => return Err(self.failed(name, error)),
            },
        };
        if whole {
            self.remember(name, &read);
            return Ok(read[start..].to_vec());
        }
        Ok(read.into())
    }

    fn get(&self, name: &str) -> io::Result<Vec<u8>> {
        let got = async { self.store.get(&Name::from(name)).await?.bytes().await };
        self.wait(name, got).map(Into::into).map_err(|error| self.failed(name, error))
    }

    fn list(&self, prefix: &str, after: &str) -> io::Result<Vec<String>> {
        let location = Name::from(prefix);
        let listed = match after {
            "" => self.store.list(Some(&location)),
            after => self.store.list_with_offset(Some(&location), &Name::from(after)),
        };
        let mut names = Vec::new();
        let _entered = self.runtime.as_ref().map(Runtime::enter);
        for meta in block_on_stream(listed) {
            let meta = meta.map_err(|error| self.failed(prefix, error))?;
            names.push(meta.location.as_ref().to_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn modified_ms(&self, name: &str) -> io::Result<i64> {
        let head = self.wait(name, self.store.head(&Name::from(name)));
        head.map(|meta| meta.last_modified.timestamp_millis()).map_err(|error| self.failed(name, error))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.small.remove(name);
        match self.wait(name, self.store.delete(&Name::from(name))) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed(name, error)),
        }
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn is_read_whole(&self, name: &str, bytes: u64) -> bool {
        bytes <= SMALL_BYTES && self.small.peek(name).is_none()
    }

    /// What an object store shows is durable.
    fn settle(&self, _prefix: &str) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BucketObjects {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting is not allowed on every thread, and nobody waits for an answer any more.
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_named_by_its_url() {
        let parsed = |url| {
            Bucket::parse(url).map(|bucket| (bucket.name.clone(), bucket.prefix.clone(), bucket.to_string()))
        };
        let found = |name: &str, prefix: &str, shown: &str| {
            Ok::<_, String>((name.to_owned(), prefix.to_owned(), shown.to_owned()))
        };
        assert_eq!(parsed("s3://profiles"), found("profiles", "", "s3://profiles"));
        assert_eq!(parsed("s3://profiles/"), found("profiles", "", "s3://profiles"));
        assert_eq!(parsed("s3://a.b-c/eu/prod/"), found("a.b-c", "eu/prod", "s3://a.b-c/eu/prod"));
    }

    #[test]
    fn what_is_no_bucket_is_refused_with_what_was_expected() {
        for url in
            ["", "profiles", "http://host/bucket", "s3://", "s3:///x", "s3://a//b", "s3://a/../b", "s3://a b"]
        {
            let error = Bucket::parse(url).unwrap_err();
            assert!(
                error.contains("expected s3://bucket/prefix") || error.contains("s3://bucket or"),
                "{error}"
            );
        }
    }

    #[test]
    fn an_object_store_that_is_away_is_told_with_bucket_and_key_within_bounds() {
        // A port that nobody listens on.
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", taken.local_addr().unwrap());
        drop(taken);
        let bucket = Bucket {
            endpoint: Some(endpoint),
            region: Some("eu-central-1".into()),
            allow_http: true,
            ..Bucket::parse("s3://profiles/prod").unwrap()
        };
        let objects = objects_of(&bucket);
        let error = objects.get("manifest/1").unwrap_err();
        assert!(error.to_string().starts_with("s3://profiles/prod/manifest/1: "), "{error}");
        assert!(error.to_string().contains("onnection refused"), "with the reason: {error}");
        assert!(objects.create("manifest/1", vec![1]).is_err());
        assert!(objects.read("manifest/1", 0..4).is_err());
        assert!(objects.list("manifest", "").is_err());
        assert!(objects.check().is_err());
    }

    /// With credentials that need no look-up.
    fn objects_of(bucket: &Bucket) -> BucketObjects {
        let mut objects = BucketObjects::open(bucket).unwrap();
        let store = AmazonS3Builder::new()
            .with_bucket_name(&bucket.name)
            .with_endpoint(bucket.endpoint.as_deref().unwrap())
            .with_region("eu-central-1")
            .with_allow_http(true)
            .with_http_connector(Connector)
            .with_access_key_id("id")
            .with_secret_access_key("secret")
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .build()
            .unwrap();
        objects.store = PrefixStore::new(store, bucket.prefix.as_str());
        objects
    }
}
