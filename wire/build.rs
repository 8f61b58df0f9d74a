//! Compiles `proto/` with no compiler but Cargo's: protox reads the sources, connectrpc's generator writes the code.

use std::error::Error;
use std::path::PathBuf;

const FILES: [&str; 14] = [
    "capabilities/v1/feature_flags.proto",
    "google/v1/profile.proto",
    "jfr/v1/labels.proto",
    "opentelemetry/proto/collector/profiles/v1development/profiles_service.proto",
    "opentelemetry/proto/collector/trace/v1/trace_service.proto",
    "opentelemetry/proto/common/v1/common.proto",
    "opentelemetry/proto/profiles/v1development/profiles.proto",
    "opentelemetry/proto/resource/v1/resource.proto",
    "opentelemetry/proto/trace/v1/trace.proto",
    "push/v1/push.proto",
    "querier/v1/querier.proto",
    "settings/v1/setting.proto",
    "types/v1/types.proto",
    "version/v1/version.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("proto");
    let descriptors = PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.bin");

    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    std::fs::write(&descriptors, compiler.encode_file_descriptor_set())?;

    connectrpc_build::Config::new()
        .descriptor_set(&descriptors)
        .files(&FILES)
        .include_file("spanflame_wire.rs")
        .gate_client_feature(true)
        .emit_rerun_directives(false)
        .compile()?;
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");
    Ok(())
}
