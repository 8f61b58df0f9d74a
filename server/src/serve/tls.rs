//! TLS: certificates and keys from files, with the ring provider that the workspace has anyway.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

/// What connections are encrypted with.
#[derive(Debug)]
pub(super) struct ServerConfig(Arc<rustls::ServerConfig>);

impl ServerConfig {
    /// In the form that connections take.
    pub(super) fn shared(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.0)
    }
}

/// Reads the certificate chain, its key and, if clients need certificates too, the authorities that these come from, all
/// in PEM.
///
/// # Errors
/// When one of them is not there or cannot be read, or when the key is not the certificate's. No text holds a key.
pub(super) fn load(files: &[Vec<u8>]) -> Result<ServerConfig, String> {
    let (chain, key) = (certificates("the certificate file", &files[0])?, &files[1]);
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("the key file: {error}"))?;
    let provider = Arc::new(ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match files.get(2) {
        None => builder.with_no_client_auth(),
        Some(authorities) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates("the client authorities' file", authorities)? {
                roots.add(certificate).map_err(|error| format!("the client authorities' file: {error}"))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().map_err(|error| error.to_string())?)
        }
    };
    // Also tells whether the key is the certificate's.
    let mut config = builder.with_single_cert(chain, key).map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(ServerConfig(Arc::new(config)))
}

fn certificates(what: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(certificates) if certificates.is_empty() => Err(format!("{what}: there is no certificate in it")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("{what}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Vec<u8>, Vec<u8>) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes())
    }

    #[test]
    fn a_certificate_needs_its_own_key() {
        let ((certificate, key), (other, other_key)) = (pair(), pair());
        assert!(load(&[certificate.clone(), key.clone()]).is_ok());
        assert!(load(&[certificate.clone(), key.clone(), other.clone()]).is_ok());
        let error = |files: &[&Vec<u8>]| {
            load(&files.iter().map(|file| (*file).clone()).collect::<Vec<_>>()).unwrap_err()
        };
        assert!(error(&[&certificate, &other_key]).contains("keys may not be consistent"));
        assert!(error(&[&key, &key]).contains("no certificate in it"));
        assert!(error(&[&certificate, &certificate]).starts_with("the key file: "));
        assert!(error(&[&certificate, &key, &key]).starts_with("the client authorities' file: "));
        assert!(error(&[&Vec::new(), &key]).contains("no certificate"));
    }
}
