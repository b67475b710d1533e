//! The kubelet API's serving certificate: asked for, waited for, shown, and renewed.
//!
//! Nothing in a cluster approves these by itself: a person (or an approver of the cluster's) does. Until
//! then the node is Ready, and the kubelet API shows a self-signed certificate, or the last that was signed.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rcgen::SanType;

use super::certificates::{CertificateFolder, Facts, Identity, Purpose};
use super::client::Client;
use super::csr::{obtain, Desk};
use super::rotation::{CertificateEnds, Renewal, Trouble};
use crate::control;
use crate::supervisor::{BoxFuture, Signal};

/// The API server forgets a request that nobody approved after a day; a new one is made before.
const SIGNING_TIMEOUT: Duration = Duration::from_secs(23 * 3600);

/// What the certificate must say.
#[derive(Debug)]
pub struct ServingNames {
    /// The node's name, also a DNS name in the certificate.
    node: String,
    addresses: Mutex<Vec<IpAddr>>,
    changed: Signal,
}

impl ServingNames {
    /// Of a node at these addresses.
    #[must_use]
    pub fn new(node: String, addresses: Vec<IpAddr>) -> ServingNames {
        ServingNames { node, addresses: Mutex::new(addresses), changed: Signal::default() }
    }

    /// The node is at these addresses now.
    pub fn set_addresses(&self, addresses: Vec<IpAddr>) {
        *self.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
        self.changed.give();
    }

    fn addresses(&self) -> Vec<IpAddr> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn sans(&self) -> Result<Vec<SanType>, String> {
        let name = self.node.as_str().try_into();
        let name =
            name.map_err(|_| format!("the node name {:?} cannot stand in a certificate", self.node))?;
        let addresses = self.addresses().into_iter().map(SanType::IpAddress);
        Ok(std::iter::once(SanType::DnsName(name)).chain(addresses).collect())
    }

    fn are_in(&self, facts: &Facts) -> bool {
        let addresses = self.addresses();
        facts.dns_names.contains(&self.node)
            && addresses.iter().all(|address| facts.addresses.contains(address))
    }
}

/// What the serving certificate is renewed with.
pub struct ServingIdentity<'s> {
    /// What it must say.
    pub names: Arc<ServingNames>,
    /// Whom to ask.
    pub client: Client,
    /// Where keys and certificates are kept.
    pub folder: CertificateFolder,
    /// Shows it from now on.
    pub show: &'s (dyn Fn(&Identity) -> Result<(), String> + Sync),
    /// Hears the name of a request that somebody has to approve; nothing: there is none any more.
    pub tell: &'s (dyn Fn(Option<&str>) + Sync),
    /// Told of each one's end.
    pub ends: Arc<CertificateEnds>,
}

impl ServingIdentity<'_> {
    /// Shows the certificate that is kept, if there is one that can still be used.
    pub async fn take_up(&self) -> Option<Identity> {
        let folder = self.folder.clone();
        let kept = control::blocking(move || folder.load(Purpose::Serving)).await;
        let kept = kept.inspect_err(|error| log::warn!("{error}; asking for a new serving certificate"));
        let identity = kept.ok()??;
        match self.adopt(&identity).await {
            Ok(()) => Some(identity),
            Err(error) => {
                log::error!("{error}; asking for a new serving certificate");
                None
            }
        }
    }
}

impl Renewal for ServingIdentity<'_> {
    fn what(&self) -> &'static str {
        "serving certificate"
    }

    fn is_right(&self, facts: &Facts) -> bool {
        self.names.are_in(facts)
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.names.changed.wait())
    }

    fn sign(&self, _expired: bool) -> BoxFuture<'_, Result<Identity, Trouble>> {
        Box::pin(async move {
            let asked = |request: &str| {
                let shown = match self.ends.serving() {
                    Some(ends) => format!("its old one, which holds until {ends:.0},"),
                    None => "a self-signed certificate, and kubectl logs may fail,".to_owned(),
                };
                log::warn!(
                    "the kubelet API shows {shown} until somebody approves this node's own: kubectl certificate \
                     approve {request}"
                );
                (self.tell)(Some(request));
            };
            let desk = Desk { client: &self.client, folder: &self.folder, node: &self.names.node };
            let names = self.names.sans()?;
            let identity = obtain(desk, Purpose::Serving, names, SIGNING_TIMEOUT, &asked).await?;
            (self.tell)(None);
            Ok(identity)
        })
    }

    fn adopt<'a>(&'a self, identity: &'a Identity) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            (self.show)(identity)?;
            self.ends.set_serving(&identity.facts);
            Ok(())
        })
    }
}
