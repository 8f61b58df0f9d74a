//! Ways for fuzz targets into parsers that are private. Not compiled otherwise.

use super::codec;
use super::head::Partition;
use super::log::format::{contents, header, put_record};
use super::source::Source;
use crate::model::{Profile, TenantId};

/// Reads a file of the log as a start does: as it is, and as what lies behind a whole record, which is always found.
pub fn log_file(bytes: &[u8]) {
    const SEQUENCE: u64 = 1;
    read_file(bytes, SEQUENCE);
    let (payload, rest) = bytes.split_at(bytes.len() / 2);
    let mut file = header(SEQUENCE, 0).to_vec();
    put_record(&mut file, SEQUENCE, 0, payload);
    let whole = file.len() - payload.len()..file.len();
    file.extend_from_slice(rest);
    assert_eq!(contents(&file, SEQUENCE).payloads.first(), Some(&whole));
    read_file(&file, SEQUENCE);
}

fn read_file(file: &[u8], sequence: u64) {
    let contents = contents(file, sequence);
    let mut end = 0;
    for range in &contents.payloads {
        assert!(end <= range.start && range.end <= contents.end, "records lie side by side");
        end = range.end;
        log_payload(&file[range.clone()]);
    }
    assert!(contents.end <= file.len());
}

/// Reads the payload of a record as a start does.
pub fn log_payload(bytes: &[u8]) {
    if let Ok((_, profiles)) = codec::decode(bytes) {
        keep(profiles);
    }
}

/// Keeps profiles as an append does, and checks that they read back.
pub fn keep(profiles: Vec<Profile>) {
    let tenant = TenantId::anonymous();
    let mut payload = Vec::new();
    codec::encode(&tenant, &profiles, &mut payload);
    assert_eq!(codec::decode(&payload), Ok((tenant.clone(), profiles.clone())));
    let partition = Partition::new(0);
    partition.insert(&tenant, &profiles);
    for source in partition.tenant(&tenant) {
        source.all_spans(&mut |_| ()).expect("memory is readable");
    }
}
