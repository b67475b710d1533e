//! The kubelet API's serving certificate: asked for, waited for, handed over.
//!
//! Nothing in a cluster approves these by itself: a person (or an approver of the cluster's) does. Until
//! then the node is Ready, and the kubelet API shows a self-signed certificate.

use std::net::IpAddr;
use std::time::Duration;

use async_io::Timer;
use jiff::Timestamp;
use rcgen::SanType;

use super::certificates::{CertificateError, CertificateFolder, Identity, Purpose};
use super::client::Client;
use super::csr::{CsrError, Wanted};
use crate::control;
use crate::outgoing::within;

/// First and longest pause after a refusal.
const PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
/// The API server forgets a request that nobody approved after a day; a new one is made before.
const SIGNING_TIMEOUT: Duration = Duration::from_secs(23 * 3600);

/// What the certificate must say.
pub struct Serving {
    /// The node's name, also a DNS name in the certificate.
    pub node: String,
    /// The node's addresses.
    pub addresses: Vec<IpAddr>,
}

#[derive(Debug, thiserror::Error)]
enum ServingError {
    #[error(transparent)]
    Csr(#[from] CsrError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("{0}")]
    Other(String),
}

impl Serving {
    /// Comes back with a certificate that can be used: the one that is kept, or a new one when somebody
    /// has approved it. Tries for ever; `asked` hears the name of each request that waits for approval.
    pub async fn certificate(
        &self,
        client: &Client,
        folder: &CertificateFolder,
        asked: &(dyn Fn(&str) + Sync),
    ) -> Identity {
        let kept = folder.clone();
        match control::blocking(move || kept.load(Purpose::Serving)).await {
            Ok(Some(identity)) if self.still_good(&identity) => return identity,
            Ok(_) => {}
            Err(error) => log::warn!("{error}; asking for a new serving certificate"),
        }
        let mut pause = PAUSE.0;
        loop {
            match self.request(client, folder, asked).await {
                Ok(identity) => return identity,
                Err(error) => {
                    if let ServingError::Csr(CsrError::Denied { .. } | CsrError::Failed { .. }) = &error {
                        if let Err(error) = folder.forget_pending(Purpose::Serving) {
                            log::error!("{error}");
                        }
                    }
                    log::error!("serving certificate: {error}; trying again in {} s", pause.as_secs());
                }
            }
            Timer::after(pause.mul_f64(1.0 + fastrand::f64() * 0.1)).await;
            pause = pause.saturating_mul(2).min(PAUSE.1);
        }
    }

    async fn request(
        &self,
        client: &Client,
        folder: &CertificateFolder,
        asked: &(dyn Fn(&str) + Sync),
    ) -> Result<Identity, ServingError> {
        let pending = folder.clone();
        let key = control::blocking(move || pending.pending_key(Purpose::Serving)).await?;
        let wanted = Wanted { node: &self.node, purpose: Purpose::Serving, names: self.names()?, key: &key };
        let pending = wanted.submit(client).await?;
        log::warn!(
            "the kubelet API shows a self-signed certificate, and kubectl logs may fail, until somebody \
             approves this node's own: kubectl certificate approve {}",
            pending.name
        );
        asked(&pending.name);
        let certificate = within(SIGNING_TIMEOUT, pending.signed(client))
            .await
            .map_err(|_| ServingError::Other(format!("nobody approved {} for a day", pending.name)))??;
        let folder = folder.clone();
        let store = move || folder.store(Purpose::Serving, &certificate, &key, Timestamp::now());
        let identity = control::blocking(store).await?;
        log::info!("{} was approved: the kubelet API shows it now", pending.name);
        Ok(identity)
    }

    fn names(&self) -> Result<Vec<SanType>, ServingError> {
        let name = self.node.as_str().try_into().map_err(|_| {
            ServingError::Other(format!("the node name {:?} cannot stand in a certificate", self.node))
        })?;
        let addresses = self.addresses.iter().map(|address| SanType::IpAddress(*address));
        Ok(std::iter::once(SanType::DnsName(name)).chain(addresses).collect())
    }

    /// Not expired, and for the name and addresses that the node has now.
    fn still_good(&self, identity: &Identity) -> bool {
        let facts = &identity.facts;
        facts.dns_names.contains(&self.node)
            && self.addresses.iter().all(|address| facts.addresses.contains(address))
            && !facts.expired(Timestamp::now())
    }
}
