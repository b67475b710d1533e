//! TLS of the kubelet API: which certificate is served, and which client certificates are believed.
//!
//! A client certificate is asked for and not demanded (Go's `RequestClientCert`, as a kubelet has it): in
//! the handshake its holder proves to have the key, and nothing else is judged. Whether the cluster's
//! client CA signed it, and whether it is still valid, is judged at each request
//! ([`ClientCa::verify`]), so that a bad certificate is a 401 that a person can read instead of a
//! broken connection, a bearer token beside it still counts, and a certificate that expires or a CA
//! that is withdrawn ends what its holder may do on connections that are open. Only a certificate that
//! cannot be parsed, or whose key did not sign, breaks the handshake.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{ring, CryptoProvider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};

/// Certificates read from one file or config map: clusters that rotate their CA have two, ten are rare.
const MAX_CERTIFICATES: usize = 64;

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM, or not of certificates.
    #[error("the {what} is not readable as PEM: {source}")]
    Pem {
        /// What was read.
        what: &'static str,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// None, or too many.
    #[error("the {what} holds {count} certificates; 1 to {MAX_CERTIFICATES} can be used")]
    Count {
        /// What was read.
        what: &'static str,
        /// How many were seen.
        count: usize,
    },
    /// A certificate and key that are not each other's, or of a kind that TLS cannot use.
    #[error("the serving certificate cannot be used: {0}")]
    Serving(#[source] rustls::Error),
    /// A CA that is not one.
    #[error("the client CA cannot be used: {0}")]
    ClientCa(String),
    /// The TLS library refuses its own defaults.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[source] rustls::Error),
}

/// The server's side of TLS. Clones are one and the same.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ServerConfig>,
    serving: Arc<Serving>,
    client_ca: Arc<ClientCa>,
}

impl Tls {
    /// TLS 1.2 and 1.3 with this certificate (the node's own first, then who signed it). No client
    /// certificate is believed until [`Tls::set_client_ca_pem`].
    ///
    /// # Errors
    /// When certificate and key cannot be used.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Tls, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let serving = Arc::new(Serving { current: RwLock::new(certified(chain, key)?) });
        let client_ca = Arc::new(ClientCa { verifier: RwLock::new(None) });
        let mut config = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_client_cert_verifier(Arc::new(ProofOfKey { provider }))
            .with_cert_resolver(serving.clone());
        // Exec and attach upgrade HTTP/1.1 connections; without h2 here the API server uses 1.1 for all.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Clients are few and keep their connections: remembered sessions would cost more than they save.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Tls { config: Arc::new(config), serving, client_ca })
    }

    /// Serves another certificate from the next handshake on.
    ///
    /// # Errors
    /// When certificate and key cannot be used; the old ones stay.
    pub fn set_serving(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), TlsError> {
        let certified = certified(chain, key)?;
        *self.serving.current.write().unwrap_or_else(PoisonError::into_inner) = certified;
        Ok(())
    }

    /// [`Tls::set_serving`] from PEM: a chain, and a key (both may be in one text).
    ///
    /// # Errors
    /// When they cannot be read or used; the old ones stay.
    pub fn set_serving_pem(&self, chain: &[u8], key: &[u8]) -> Result<(), TlsError> {
        let what = "serving key";
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|source| TlsError::Pem { what, source })?;
        self.set_serving(certificates("serving certificate", chain)?, key)
    }

    /// Believes client certificates that one of these signed, and no others, from now on: open
    /// connections are judged by it too.
    ///
    /// # Errors
    /// When they cannot be read or used; the old ones stay.
    pub fn set_client_ca_pem(&self, pem: &[u8]) -> Result<(), TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates("client CA", pem)? {
            roots.add(certificate).map_err(|error| TlsError::ClientCa(error.to_string()))?;
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| TlsError::ClientCa(error.to_string()))?;
        *self.client_ca.verifier.write().unwrap_or_else(PoisonError::into_inner) = Some(verifier);
        Ok(())
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    pub(super) fn client_ca(&self) -> Arc<ClientCa> {
        self.client_ca.clone()
    }
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .take(MAX_CERTIFICATES.saturating_add(1))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| TlsError::Pem { what, source })?;
    match certificates.len() {
        1..=MAX_CERTIFICATES => Ok(certificates),
        count => Err(TlsError::Count { what, count }),
    }
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<CertifiedKey>, TlsError> {
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map(Arc::new).map_err(TlsError::Serving)
}

/// The certificate that is served now.
#[derive(Debug)]
struct Serving {
    current: RwLock<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Who may say who a client is.
#[derive(Debug)]
pub(super) struct ClientCa {
    verifier: RwLock<Option<Arc<dyn ClientCertVerifier>>>,
}

impl ClientCa {
    /// Whether the chain that a client presented leads to the client CA, is valid now, and is meant
    /// for clients.
    pub fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let verifier = self.verifier.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (end_entity, intermediates) =
            chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        verifier
            .ok_or_else(|| rustls::Error::General("no client CA is known yet".to_owned()))?
            .verify_client_cert(end_entity, intermediates, UnixTime::now())
            .map(|_| ())
    }
}

/// The handshake's part: the client has the key of the certificate that it shows.
#[derive(Debug)]
struct ProofOfKey {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for ProofOfKey {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: a client that has a certificate shows it, whoever signed it.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    /// Not judged here, see above: [`ClientCa::verify`] does, before the certificate counts for anything.
    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
