//! Every test there is.

use crate::{clients, page, python, shell};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave out the tests that need Node.js, Python and a browser
    #[arg(long)]
    rust_only: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    // Together the members turn on every feature of the bridge, its benchmark hooks and the agent's adapter included.
    shell::run(shell::cargo().args(["test", "--workspace", "--no-fail-fast"]))?;
    // What the signal handler can reach is read from the code that users run: the optimized one.
    let reach = [
        "test",
        "--release",
        "--package",
        "spanflame",
        "--features",
        "bench-internals",
        "--test",
        "handler_reach",
    ];
    shell::run(shell::cargo().args(reach))?;
    shell::run(shell::cargo().args(["test", "--release", "--package", "spanflame-cdylib-tests"]))?;
    // Two profilers of others, which exclude each other: each is linked with ours in a workspace of its own.
    for peer in ["pprof", "pyroscope"] {
        let manifest = shell::root().join("tests/beside").join(peer).join("Cargo.toml");
        let mut beside = shell::cargo();
        beside.args(["test", "--manifest-path"]).arg(manifest);
        shell::run(beside.arg("--target-dir").arg(shell::target_dir().join("beside")))?;
    }
    if args.rust_only {
        return Ok(());
    }
    let requirements = shell::root().join("tests/openapi/requirements.txt");
    let schemathesis = python::programs("schemathesis", &requirements)?.join("schemathesis");
    let document =
        ["test", "--package", "spanflame-tests", "--features", "schemathesis", "--test", "openapi"];
    shell::run(shell::cargo().args(document).env("SCHEMATHESIS", schemathesis))?;
    let python = python::with_s3()?;
    let shared = ["test", "--package", "spanflame-tests", "--features", "shared", "--test", "shared"];
    shell::run(shell::cargo().args(shared).env("SPANFLAME_PYTHON", python))?;
    page::install()?;
    shell::need("chromium", &["chromium", "fonts-dejavu-core"])?;
    shell::run(&mut page::npm(&["run", "check"]))?;
    shell::run(&mut page::npm(&["test"]))?;
    shell::run(shell::cargo().args(["build", "--package", "spanflame-server"]))?;
    let server = shell::target_dir().join("debug/spanflame");
    shell::run(page::npm(&["run", "test:browser"]).env("SPANFLAME_BIN", server))?;
    clients::test()
}
