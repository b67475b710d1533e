//! Certificate signing requests: made, sent, waited for (`certificates.k8s.io/v1`), and what comes of them kept.

use std::time::Duration;

use base64::prelude::{Engine as _, BASE64_URL_SAFE_NO_PAD};
use http::Method;
use jiff::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData, SanType};
use ring::digest::{digest, SHA512_256};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::CertificateSigningRequestDer;
use serde_json::{json, Value};

use super::certificates::{CertificateError, CertificateFolder, Facts, Identity, Purpose};
use super::client::{Call, Client};
use super::error::{ApiError, Outage};
use super::watch::{Change, Watcher};
use crate::api::{
    ByteString, CertificateSigningRequest as Csr, CertificateSigningRequestCondition as Condition,
    CertificateSigningRequestSpec, Object, ObjectMeta, Typed,
};
use crate::control;
use crate::outgoing::within;
use crate::x509::request_info;

const CLIENT_USAGES: [&str; 2] = ["digital signature", "client auth"];
const SERVING_USAGES: [&str; 2] = ["digital signature", "server auth"];
/// Names that are tried for a serving request when the first is another key's.
const MAX_NAMES: usize = 3;

/// Why a request did not lead to a certificate.
#[derive(Debug, thiserror::Error)]
pub enum CsrError {
    /// The API server could not be asked, or refused.
    #[error("certificate signing request: {0}")]
    Api(#[from] ApiError),
    /// The request could not be made.
    #[error("certificate signing request: {0}")]
    Make(String),
    /// Somebody said no.
    #[error("certificate signing request {name} was denied: {message}")]
    Denied {
        /// Its name.
        name: String,
        /// Why, in the denier's words.
        message: String,
    },
    /// The signer would not sign.
    #[error("certificate signing request {name} failed: {message}")]
    Failed {
        /// Its name.
        name: String,
        /// Why, in the signer's words.
        message: String,
    },
    /// It is gone, or another stands under its name.
    #[error("certificate signing request {name} was deleted before it was signed")]
    Deleted {
        /// Its name.
        name: String,
    },
    /// The request of that name belongs to another key.
    #[error("certificate signing request {name} exists and was made with another key")]
    Taken {
        /// Its name.
        name: String,
    },
}

/// Why there is no certificate yet.
#[derive(Debug, thiserror::Error)]
pub enum ObtainError {
    /// The request.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// The folder of keys and certificates.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Nobody said yes or no.
    #[error("nobody approved {name} for {minutes} minutes (kubectl certificate approve {name})")]
    Late {
        /// The request.
        name: String,
        /// For how long.
        minutes: u64,
    },
}

impl ObtainError {
    /// Somebody said no to this request: the same again would be in vain.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            ObtainError::Csr(CsrError::Denied { .. } | CsrError::Failed { .. } | CsrError::Taken { .. })
        )
    }
}

/// Where certificates come from, and where they are kept.
#[derive(Clone, Copy)]
pub struct Desk<'d> {
    /// Whom to ask.
    pub client: &'d Client,
    /// The keys and certificates.
    pub folder: &'d CertificateFolder,
    /// For whom.
    pub node: &'d str,
}

/// Asks for a certificate with the key that waits for one, waits until it is signed, and keeps both. `asked` hears the
/// name of the request. The next request after a refusal has a new key.
///
/// # Errors
/// [`ObtainError`]
pub async fn obtain(
    desk: Desk<'_>,
    purpose: Purpose,
    names: Vec<SanType>,
    patience: Duration,
    asked: &(dyn Fn(&str) + Sync),
) -> Result<Identity, ObtainError> {
    let folder = desk.folder.clone();
    let key = control::blocking(move || folder.pending_key(purpose)).await?;
    let wanted = Wanted { node: desk.node, purpose, names, key: &key };
    let signed = async {
        let pending = wanted.submit(desk.client).await?;
        asked(&pending.name);
        let late = |_| ObtainError::Late { name: pending.name.clone(), minutes: patience.as_secs() / 60 };
        Ok::<_, ObtainError>(within(patience, pending.signed(desk.client)).await.map_err(late)??)
    };
    let signed = Box::pin(signed).await;
    if signed.as_ref().is_err_and(ObtainError::is_refusal) {
        let folder = desk.folder.clone();
        // A mere deletion says nothing of the key, but a refusal is of this request: the next one is another.
        if let Err(error) = control::blocking(move || folder.forget_pending(purpose)).await {
            log::error!("{error}");
        }
    }
    let certificate = signed?;
    let folder = desk.folder.clone();
    let store = move || folder.store(purpose, &certificate, &key, Timestamp::now());
    Ok(control::blocking(store).await?)
}

/// What to ask for.
pub struct Wanted<'a> {
    /// For whom.
    pub node: &'a str,
    /// For what.
    pub purpose: Purpose,
    /// Names and addresses of a serving certificate.
    pub names: Vec<SanType>,
    /// The key.
    pub key: &'a KeyPair,
}

/// A request that was sent and not answered yet.
pub struct Pending {
    /// Its name, what `kubectl certificate approve` takes.
    pub name: String,
    uid: String,
    /// The version that it was seen at: what is older says nothing of it.
    version: String,
}

impl Pending {
    fn of(csr: Csr) -> Pending {
        let meta = csr.metadata;
        Pending { name: meta.name, uid: meta.uid, version: meta.resource_version }
    }
}

impl Wanted<'_> {
    fn signer(&self) -> &'static str {
        match self.purpose {
            Purpose::Client => "kubernetes.io/kube-apiserver-client-kubelet",
            Purpose::Serving => "kubernetes.io/kubelet-serving",
        }
    }

    fn usages(&self) -> [&'static str; 2] {
        match self.purpose {
            Purpose::Client => CLIENT_USAGES,
            Purpose::Serving => SERVING_USAGES,
        }
    }

    fn common_name(&self) -> String {
        format!("system:node:{}", self.node)
    }

    /// The name of the `n`th try.
    ///
    /// A client request is named as a kubelet names it: by key, subject and usages, so that the same
    /// request after a crash meets itself. A serving request is named after the node, as Krustlet's
    /// users type it.
    fn name(&self, n: usize) -> String {
        let mut text = String::new();
        let mut add = |part: &[u8]| {
            text.push_str(&BASE64_URL_SAFE_NO_PAD.encode(part));
            text.push('|');
        };
        add(&self.key.subject_public_key_info());
        add(self.common_name().as_bytes());
        add(b"system:nodes");
        for usage in self.usages() {
            add(usage.as_bytes());
        }
        let digest = digest(&SHA512_256, text.as_bytes());
        match (self.purpose, n) {
            (Purpose::Client, _) => format!("node-csr-{}", BASE64_URL_SAFE_NO_PAD.encode(digest)),
            (Purpose::Serving, 0) => format!("{}-tls", self.node),
            (Purpose::Serving, n) => {
                let suffix: String =
                    digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
                if n == 1 {
                    format!("{}-tls-{suffix}", self.node)
                } else {
                    format!("{}-tls-{suffix}-{:04x}", self.node, fastrand::u16(..))
                }
            }
        }
    }

    fn pem(&self) -> Result<String, CsrError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, self.common_name());
        params.subject_alt_names = self.names.clone();
        params
            .serialize_request(self.key)
            .and_then(|request| request.pem())
            .map_err(|error| CsrError::Make(error.to_string()))
    }

    fn object(&self, name: &str, pem: &str) -> Value {
        let csr = Csr {
            metadata: ObjectMeta { name: name.to_owned(), ..ObjectMeta::default() },
            spec: CertificateSigningRequestSpec {
                request: ByteString(pem.as_bytes().to_vec()),
                signer_name: self.signer().to_owned(),
                usages: self.usages().map(str::to_owned).to_vec(),
                ..CertificateSigningRequestSpec::default()
            },
            ..Csr::default()
        };
        json!(Typed::new(&csr))
    }

    /// Sends the request, or finds the one that this key has sent before.
    ///
    /// # Errors
    /// [`CsrError`]
    pub async fn submit(&self, client: &Client) -> Result<Pending, CsrError> {
        let pem = self.pem()?;
        let mut taken = String::new();
        for n in 0..MAX_NAMES {
            let name = self.name(n);
            let call = Call::new(Method::POST, Csr::collection(None)).json(&self.object(&name, &pem));
            match client.read::<Csr>(call).await {
                Ok(csr) => return Ok(Pending::of(csr)),
                Err(error) if error.is(409) => {
                    let path = format!("{}/{name}", Csr::collection(None));
                    let found: Csr = client.read(Call::new(Method::GET, path)).await?;
                    if self.is_ours(&found, &pem) {
                        return Ok(Pending::of(found));
                    }
                    taken = name;
                    if self.purpose == Purpose::Client {
                        break;
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(CsrError::Taken { name: taken })
    }

    /// Whether a request that exists is for the same key, subject and names, and can still be used:
    /// refused ones and expired certificates cannot.
    fn is_ours(&self, found: &Csr, pem: &str) -> bool {
        let inner = |pem: &[u8]| {
            let der = CertificateSigningRequestDer::from_pem_slice(pem).ok()?;
            request_info(&der).map(<[u8]>::to_vec)
        };
        let same = inner(&found.spec.request.0).is_some_and(|theirs| inner(pem.as_bytes()) == Some(theirs));
        let refused = conditions(found).any(|c| c.kind == "Denied" || c.kind == "Failed");
        let expired = certificate(found)
            .is_some_and(|pem| Facts::of(&pem).map_or(true, |facts| facts.expired(Timestamp::now())));
        same && found.spec.signer_name == self.signer() && !refused && !expired
    }
}

impl Pending {
    /// Waits until the request is signed; the certificate chain, PEM.
    ///
    /// # Errors
    /// [`CsrError::Denied`], [`CsrError::Failed`], [`CsrError::Deleted`]; [`CsrError::Api`] when the API
    /// server will not let this agent look (the token has expired, say). Passing troubles are waited out.
    pub async fn signed(&self, client: &Client) -> Result<String, CsrError> {
        let selector = format!("fieldSelector=metadata.name%3D{}", self.name);
        let mut watcher: Watcher<Csr> =
            Watcher::new(client.clone(), Csr::collection(None), selector).since(&self.version);
        let mut outage = Outage::default();
        loop {
            let found = match watcher.next().await {
                Ok(Change::All(items)) => items.into_iter().next(),
                Ok(Change::Applied(csr)) => Some(csr),
                Ok(Change::Deleted(_)) => None,
                Err(error) if error.is(401) || error.is(403) => return Err(error.into()),
                Err(error) => {
                    outage.report(&format!("waiting for {}", self.name), &error);
                    continue;
                }
            };
            let gone = || CsrError::Deleted { name: self.name.clone() };
            let csr = found.filter(|csr| csr.metadata.uid == self.uid).ok_or_else(gone)?;
            if let Some(condition) = conditions(&csr).find(|c| c.kind == "Denied" || c.kind == "Failed") {
                let words = [&condition.message, &condition.reason].into_iter().find(|text| !text.is_empty());
                let message = words.cloned().unwrap_or_default();
                let name = csr.metadata.name.clone();
                return Err(if condition.kind == "Denied" {
                    CsrError::Denied { name, message }
                } else {
                    CsrError::Failed { name, message }
                });
            }
            let approved = conditions(&csr).any(|c| c.kind == "Approved");
            if let Some(pem) = certificate(&csr).filter(|_| approved) {
                return Ok(pem);
            }
        }
    }
}

fn conditions(csr: &Csr) -> impl Iterator<Item = &Condition> {
    csr.status.conditions.iter()
}

fn certificate(csr: &Csr) -> Option<String> {
    let pem = &csr.status.certificate.0;
    String::from_utf8(pem.clone()).ok().filter(|pem| !pem.is_empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn csr(wanted: &Wanted<'_>, status: serde_json::Value) -> Csr {
        serde_json::from_value(json!({
            "metadata": {"name": "x", "uid": "u"},
            "spec": {"request": base64::prelude::BASE64_STANDARD.encode(wanted.pem().unwrap()), "signerName": wanted.signer()},
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn names_are_the_kubelets_and_krustlets() {
        let key = KeyPair::generate().unwrap();
        let client = Wanted { node: "n", purpose: Purpose::Client, names: vec![], key: &key };
        assert!(client.name(0).starts_with("node-csr-"));
        assert_eq!(client.name(0).len(), "node-csr-".len() + 43);
        assert_eq!(client.name(0), client.name(1));
        let serving = Wanted { node: "n", purpose: Purpose::Serving, names: vec![], key: &key };
        assert_eq!(serving.name(0), "n-tls");
        assert_eq!(serving.name(1).len(), "n-tls-".len() + 8);
        assert_ne!(serving.name(2), serving.name(1));
    }

    #[test]
    fn only_a_request_of_the_same_key_and_names_is_taken_up_again() {
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let names = vec![SanType::DnsName("n".try_into().unwrap())];
        let wanted = |key| Wanted { node: "n", purpose: Purpose::Serving, names: names.clone(), key };
        let ours = wanted(&key);
        let pem = ours.pem().unwrap();
        assert!(ours.is_ours(&csr(&ours, json!({})), &pem));
        assert!(!ours.is_ours(&csr(&wanted(&other), json!({})), &pem));
        let fewer = Wanted { names: vec![], ..wanted(&key) };
        assert!(!ours.is_ours(&csr(&fewer, json!({})), &pem));
        for kind in ["Denied", "Failed"] {
            let refused = json!({"conditions": [{"type": kind, "message": null}]});
            assert!(!ours.is_ours(&csr(&ours, refused), &pem));
        }
    }
}
