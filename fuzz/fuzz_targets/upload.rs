//! What the targets for formats of `/ingest` share: a body is decoded, and what is accepted is kept and read back.

use spanflame_server::ingest::{Budget, Limits, Parts, Upload};
use spanflame_server::store::fuzzing;

/// Decodes a body in this format.
pub fn decode(format: &str, body: &[u8]) {
    // Small enough that reaching a limit is not running out of memory.
    let limits = Limits { max_profile_bytes: 1 << 20, max_decoded_bytes: 16 << 20, ..Limits::default() };
    let parameters = [("name", "fuzz.cpu{a=b}"), ("format", format)];
    let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let upload = Upload::parse(&parameters, "", 0).expect("a good description");
    let parts = Parts { profile: body.to_vec().into(), ..Parts::default() };
    match upload.decode(&parts, &limits, &mut Budget::new(&limits), 0) {
        Ok(profiles) => fuzzing::keep(profiles),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
