//! The server's side of TLS: 1.2 and up, ring, no tickets and no session cache; the certificate can be changed while connections live.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;

/// Why a certificate and key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// No certificate in the PEM, or one that cannot be read.
    #[error("the certificate file holds no readable certificate")]
    Certificate,
    /// No private key in the PEM, or one that cannot be read.
    #[error("the key file holds no readable private key")]
    Key,
    /// The key does not belong to the certificate, or is of a kind that is not supported.
    #[error("the private key does not fit the certificate")]
    Mismatch,
}

/// The certificate in use; new connections take what is here when they arrive.
#[derive(Debug)]
pub struct Tls(RwLock<Option<Arc<ServerConfig>>>);

impl Tls {
    /// Serves with this chain and key; with an empty key, plain HTTP.
    pub fn new(certificate_pem: &str, key_pem: &str) -> Result<Self, TlsError> {
        Ok(Self(RwLock::new(config(certificate_pem, key_pem)?)))
    }

    /// Changes the certificate for connections to come.
    pub fn replace(&self, certificate_pem: &str, key_pem: &str) -> Result<(), TlsError> {
        let config = config(certificate_pem, key_pem)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// What a new connection is served with; none for plain HTTP.
    pub fn current(&self) -> Option<Arc<ServerConfig>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn config(certificate_pem: &str, key_pem: &str) -> Result<Option<Arc<ServerConfig>>, TlsError> {
    if key_pem.is_empty() {
        return Ok(None);
    }
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate_pem.as_bytes()).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or(TlsError::Certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| TlsError::Key)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|_| TlsError::Mismatch)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|_| TlsError::Mismatch)?;
    // Without resumption no key outlives its connection, and a client certificate (later) is checked each time.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_taken_with_its_own_key_only() {
        let make = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (a, b) = (make(), make());
        let key = |made: &rcgen::CertifiedKey<rcgen::KeyPair>| made.signing_key.serialize_pem();
        let tls = Tls::new(&a.cert.pem(), &key(&a)).unwrap();
        let before = tls.current().unwrap();
        assert_eq!(tls.replace(&b.cert.pem(), &key(&a)), Err(TlsError::Mismatch));
        assert_eq!(tls.replace("", &key(&a)), Err(TlsError::Certificate));
        assert_eq!(tls.replace(&a.cert.pem(), "nonsense"), Err(TlsError::Key));
        assert!(Arc::ptr_eq(&before, &tls.current().unwrap()));
        tls.replace(&b.cert.pem(), &key(&b)).unwrap();
        assert!(!Arc::ptr_eq(&before, &tls.current().unwrap()));
        assert!(Tls::new("", "").unwrap().current().is_none());
    }
}
