//! Clients of others, installed from their registries, against a real server: they push as they always do, and what they
//! pushed is asked for again. `cargo xtask test` installs them.

mod profilers;
mod rpc;

use std::path::PathBuf;
use std::process::Command;

use spanflame_tests::binaries::serve;
use spanflame_tests::process::Process;
use tempfile::TempDir;

/// A server with an empty store.
struct House {
    // Fields drop in this order.
    server: Process,
    address: String,
    _data: TempDir,
}

impl House {
    fn open() -> Self {
        let data = tempfile::tempdir().expect("there is room for temporary files");
        let server = serve(data.path());
        let address = server.address();
        Self { server, address, _data: data }
    }

    fn close(self) {
        self.server.terminate();
    }
}

/// A client's program in its language.
fn source(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("clients").join(path)
}

/// Python with the packages of `python/requirements.txt`.
fn python() -> Command {
    Command::new(
        std::env::var_os("SPANFLAME_PYTHON").expect("SPANFLAME_PYTHON: run this by `cargo xtask test`"),
    )
}

/// Node.js, which looks for packages beside the program that it runs.
fn node(program: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(source("node").join(program));
    command
}
