//! Ids, profile types and tenants: what is read is written as it was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanflame_server::model::{ProfileType, SpanId, TenantId, TraceId};

fuzz_target!(|text: &str| {
    if let Ok(id) = text.parse::<SpanId>() {
        assert_eq!(id.to_string(), text.to_ascii_lowercase());
    }
    if let Ok(id) = text.parse::<TraceId>() {
        assert_eq!(id.to_string(), text.to_ascii_lowercase());
    }
    if let Ok(kind) = text.parse::<ProfileType>() {
        assert_eq!(kind.to_string().parse::<ProfileType>().as_ref(), Ok(&kind));
    }
    if let Ok(tenant) = TenantId::new(text) {
        assert_eq!(tenant.as_str(), text);
    }
});
