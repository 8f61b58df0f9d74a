//! Starting, refusing to start, and stopping.

use std::process::Output;

use crate::support::{SPAN, Server, checkout, command};

fn fails(args: &[&str]) -> String {
    let Output { status, stdout, stderr } = command(args).output().expect("the binary starts");
    assert!(!status.success() && stdout.is_empty());
    String::from_utf8(stderr).expect("text")
}

#[test]
fn addresses_beyond_loopback_need_permission() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().to_str().expect("plain");
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let error = fails(&["serve", "--listen", listen, "--data-dir", data]);
        assert!(error.contains("refusing to listen") && error.contains("--allow-unauthenticated"), "{error}");
    }
    let server = Server::with_args(&["--listen=0.0.0.0:0", "--allow-unauthenticated"]);
    assert!(server.url().starts_with("http://0.0.0.0:"));
    server.alive();
}

#[test]
fn what_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().to_str().expect("plain");
    assert!(fails(&["serve", "--listen", "nonsense", "--data-dir", data]).contains("listen = \"nonsense\""));
    assert!(fails(&["serve", "--config", "/no/such/file", "--data-dir", data]).contains("/no/such/file"));
    assert!(fails(&["serve", "--max-request-bytes=1", "--data-dir", data]).contains("max_request_bytes = 1"));
    let file = dir.path().join("file");
    std::fs::write(&file, "allow_unauthenticatd = true").expect("written");
    let error = fails(&["serve", "--config", file.to_str().expect("plain"), "--data-dir", data]);
    assert!(error.contains("allow_unauthenticatd"), "{error}");
    let server = Server::start();
    let taken = server.url().strip_prefix("http://").expect("http").to_owned();
    assert!(fails(&["serve", "--listen", &taken, "--data-dir", data]).contains(&taken));
    let holder = Server::on(dir.path(), &[]);
    let error = fails(&["serve", "--listen", "127.0.0.1:0", "--data-dir", data]);
    assert!(error.contains(data) && error.contains("in use by another process"), "{error}");
    holder.alive();
}

#[test]
fn a_file_and_the_environment_configure_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("spanflame.toml");
    std::fs::write(&file, "log_format = 'json'\nmax_samples = 1\n").expect("written");
    let server = Server::with_args(&["--config", file.to_str().expect("plain")]);
    assert!(server.logged("\"listening\"").starts_with('{'));
    let message = server.push(checkout()).refused(400, "invalid_argument");
    assert!(message.contains("max_samples"), "{message}");

    let output = command(&["serve"])
        .env("SPANFLAME_LISTEN", "0.0.0.0:0")
        .env("SPANFLAME_DATA_DIR", dir.path())
        .output()
        .expect("the binary starts");
    assert!(String::from_utf8_lossy(&output.stderr).contains("refusing to listen on 0.0.0.0"));
}

#[cfg(target_os = "linux")]
#[test]
fn termination_is_graceful_and_keeps_the_data() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Server::on(dir.path(), &[]);
    server.pushed(checkout());
    rustix::process::kill_process(server.pid(), rustix::process::Signal::TERM).expect("the process is ours");
    assert!(server.ended().success());
    server.logged("stopped");
    let again = Server::on(dir.path(), &[]);
    assert_eq!(again.get(&format!("/api/v1/spans/{SPAN}")).status, 200);
}
