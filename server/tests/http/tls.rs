//! Encrypted connections: the real binary with certificates made for the test.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::support::{DEADLINE, Server, command, replace};

/// A certificate and its key, in PEM.
struct Pair {
    certificate: String,
    key: String,
}

/// An authority, which is the certificate of one kind of peers.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("good names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate"),
        )
    }

    fn certificate(&self) -> String {
        self.0.pem()
    }

    fn issue(&self) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("good names");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate").pem();
        Pair { certificate, key: key.serialize_pem() }
    }
}

/// Where a server finds its certificate.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn new(dir: &Path, pair: &Pair) -> Self {
        let files = Self { certificate: dir.join("tls.crt"), key: dir.join("tls.key") };
        files.write(pair);
        files
    }

    fn write(&self, pair: &Pair) {
        replace(&self.certificate, &pair.certificate);
        replace(&self.key, &pair.key);
    }

    fn server(&self, args: &[&str]) -> Server {
        let path = |path: &PathBuf| path.to_str().expect("plain").to_owned();
        let (certificate, key) = (path(&self.certificate), path(&self.key));
        Server::with_args(&[&["--tls-cert-file", &certificate, "--tls-key-file", &key], args].concat())
    }
}

/// Asks for readiness on a new connection; none if that fails.
fn ask(server: &Server, trusted: &Authority, own: Option<&Pair>, http2: bool) -> Option<(u16, Version)> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(trusted.certificate().as_bytes()).expect("pem"))
        .expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("pem")];
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("pem");
            builder.with_client_auth_cert(chain, key).expect("a pair")
        }
    };
    let builder = HttpsConnectorBuilder::new().with_tls_config(config).https_only();
    let connector =
        if http2 { builder.enable_all_versions().build() } else { builder.enable_http1().build() };
    let port = server.url().rsplit_once(':').expect("a port").1;
    let request = Request::get(format!("https://localhost:{port}/ready")).body(Full::<Bytes>::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let exchange = client.request(request.expect("a good request"));
        let response = tokio::time::timeout(DEADLINE, exchange).await.expect("in time").ok()?;
        let (status, version) = (response.status().as_u16(), response.version());
        response.into_body().collect().await.ok()?;
        Some((status, version))
    })
}

#[test]
fn both_versions_of_http_are_served_encrypted() {
    let (dir, authority) = (tempfile::tempdir().expect("a directory"), Authority::new());
    let server = Files::new(dir.path(), &authority.issue()).server(&[]);
    assert!(server.url().starts_with("https://127.0.0.1:"), "{}", server.url());
    assert_eq!(ask(&server, &authority, None, false), Some((200, Version::HTTP_11)));
    assert_eq!(ask(&server, &authority, None, true), Some((200, Version::HTTP_2)));
    assert_eq!(ask(&server, &Authority::new(), None, true), None, "the certificate is of another authority");
}

#[test]
fn clients_that_do_not_finish_their_handshake_hold_nobody_up() {
    let (dir, authority) = (tempfile::tempdir().expect("a directory"), Authority::new());
    let server = Files::new(dir.path(), &authority.issue()).server(&[]);
    let address = server.url().strip_prefix("https://").expect("encrypted").to_owned();
    let silent: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(&address).expect("connects")).collect();
    assert_eq!(ask(&server, &authority, None, true), Some((200, Version::HTTP_2)));
    drop(silent);
}

#[test]
fn a_renewed_certificate_is_used_without_a_restart_and_a_broken_one_is_not() {
    let (dir, old, new) = (tempfile::tempdir().expect("a directory"), Authority::new(), Authority::new());
    let files = Files::new(dir.path(), &old.issue());
    let server = files.server(&[]);
    assert!(ask(&server, &old, None, true).is_some());
    // Half of a change, as when files are replaced one after the other.
    let pair = new.issue();
    replace(&files.certificate, &pair.certificate);
    let line = server.logged("cannot reload");
    assert!(line.contains("tls.crt") && line.contains("keys may not be consistent"), "{line}");
    assert!(ask(&server, &old, None, true).is_some(), "the old pair is still in use");
    files.write(&pair);
    let begun = Instant::now();
    while ask(&server, &new, None, true).is_none() {
        assert!(begun.elapsed() < DEADLINE, "the new certificate is never used");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(ask(&server, &old, None, true), None);
}

#[test]
fn clients_may_need_certificates_too() {
    let (dir, authority, clients) =
        (tempfile::tempdir().expect("a directory"), Authority::new(), Authority::new());
    let authorities = dir.path().join("clients.crt");
    std::fs::write(&authorities, clients.certificate()).expect("written");
    let files = Files::new(dir.path(), &authority.issue());
    let server = files.server(&["--tls-client-ca-file", authorities.to_str().expect("plain")]);
    assert_eq!(ask(&server, &authority, None, false), None);
    assert_eq!(ask(&server, &authority, Some(&authority.issue()), false), None);
    assert_eq!(ask(&server, &authority, Some(&clients.issue()), false), Some((200, Version::HTTP_11)));
}

/// What a server that may keep nothing in its bucket says: it is asked at this endpoint with these settings.
fn bucket_error(endpoint: &str, env: &[(&str, &str)]) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().to_str().expect("plain");
    let bucket =
        ["--object-store=s3://profiles", "--object-region=eu-central-1", "--object-endpoint", endpoint];
    let output = command(&[&["serve", "--listen=127.0.0.1:0", "--data-dir", data], &bucket[..]].concat())
        .envs([("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret")])
        .envs(env.iter().copied())
        .output()
        .expect("the binary starts");
    assert!(!output.status.success());
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn a_bucket_is_reached_encrypted_by_trusted_authorities_alone_and_through_the_proxy_that_is_set() {
    let (dir, authority) = (tempfile::tempdir().expect("a directory"), Authority::new());
    // It is no object store, but its refusal shows that it was asked.
    let server = Files::new(dir.path(), &authority.issue()).server(&[]);
    let port = server.url().rsplit_once(':').expect("a port").1.to_owned();
    let endpoint = format!("https://localhost:{port}");
    let trusted = |authority: &Authority, name: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, authority.certificate()).expect("written");
        path.to_str().expect("plain").to_owned()
    };
    let (right, wrong) = (trusted(&authority, "right.pem"), trusted(&Authority::new(), "wrong.pem"));

    let asked = bucket_error(&endpoint, &[("SSL_CERT_FILE", &right)]);
    assert!(asked.contains("s3://profiles/probe/") && asked.contains("404"), "{asked}");
    let distrusted = bucket_error(&endpoint, &[("SSL_CERT_FILE", &wrong)]);
    assert!(distrusted.contains("invalid peer certificate"), "{distrusted}");

    let (proxy, seen) = tunnel();
    let proxied = [("SSL_CERT_FILE", &*right), ("HTTPS_PROXY", &proxy)];
    let asked = bucket_error(&endpoint, &proxied);
    assert!(asked.contains("404"), "{asked}");
    let head = seen.try_recv().expect("the proxy was asked");
    assert!(head.starts_with(&format!("CONNECT localhost:{port} HTTP/1.1\r\n")), "{head}");
    assert!(head.to_lowercase().contains("proxy-authorization: basic"), "{head}");
    let around = bucket_error(&endpoint, &[&proxied[..], &[("NO_PROXY", "localhost")]].concat());
    assert!(around.contains("404") && seen.try_recv().is_err(), "{around}");
}

/// A proxy with a login, by its address, and the heads of what it is asked.
fn tunnel() -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("http://user:word@{}", listener.local_addr().expect("bound"));
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(client.try_clone().expect("another handle"));
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|read| read > 0) {}
            let host = head.split(' ').nth(1).expect("a host").to_owned();
            if tell.send(head).is_err() {
                return;
            }
            let server = TcpStream::connect(host).expect("the host is there");
            (&client).write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("written");
            let back = (server.try_clone().expect("another handle"), client);
            std::thread::spawn(move || std::io::copy(&mut reader, &mut &server));
            std::thread::spawn(move || std::io::copy(&mut &back.0, &mut &back.1));
        }
    });
    (address, told)
}
