//! Bytes become a pprof message, within limits. What the message says is not judged here.

use std::io::Read;

use buffa::{DecodeError, DecodeOptions};
use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use spanflame_wire::google::v1::__buffa::view::ProfileView;

use super::{Budget, IngestError, Limits};

const FIELD: &str = "raw_profile";
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The profile's bytes, decompressed if they are gzipped.
pub(super) fn decompress(raw: Bytes, limits: &Limits, budget: &mut Budget) -> Result<Bytes, IngestError> {
    if raw.is_empty() {
        return Err(IngestError::invalid(FIELD, "is empty: send a pprof profile, gzipped or not"));
    }
    gunzip(FIELD, raw, limits, budget)
}

/// The bytes of a field that holds a profile of any format, decompressed if they are gzipped.
pub(super) fn gunzip(
    field: &str,
    raw: Bytes,
    limits: &Limits,
    budget: &mut Budget,
) -> Result<Bytes, IngestError> {
    let max = limits.max_profile_bytes;
    let over = |got| IngestError::over(field, "max_profile_bytes", max, got);
    if !raw.starts_with(&GZIP_MAGIC) {
        // It is in memory already, as a part of the request.
        budget.count(raw.len());
        return if raw.len() > max { Err(over(raw.len())) } else { Ok(raw) };
    }
    let most = max.min(budget.left());
    let mut bytes = Vec::with_capacity(raw.len().saturating_mul(4).min(most));
    // One byte more than allowed tells the bomb without blowing it up.
    MultiGzDecoder::new(&raw[..])
        .take(most as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| IngestError::invalid(field, format!("is not complete gzip: {error}")))?;
    // What is refused below has cost its decompression too.
    budget.count(bytes.len());
    budget.take(bytes.len())?;
    if bytes.len() > max { Err(over(bytes.len())) } else { Ok(bytes.into()) }
}

/// The message in these bytes, borrowing from them.
pub(super) fn decode<'a>(bytes: &'a [u8], limits: &Limits) -> Result<ProfileView<'a>, IngestError> {
    let options = DecodeOptions::new()
        .with_max_message_size(limits.max_profile_bytes)
        .with_element_memory_limit(limits.max_decoded_bytes);
    options.decode_view(bytes).map_err(|error| match error {
        DecodeError::ElementMemoryLimitExceeded => {
            // How much it would have been is not known: decoding stopped.
            let max = limits.max_decoded_bytes;
            IngestError::over(FIELD, "max_decoded_bytes", max, max.saturating_add(1))
        }
        DecodeError::InvalidUtf8 => IngestError::invalid(
            "raw_profile: string_table",
            "a string is not valid UTF-8: encode all strings so",
        ),
        error => IngestError::invalid(FIELD, format!("is no pprof profile, or a damaged one: {error}")),
    })
}
