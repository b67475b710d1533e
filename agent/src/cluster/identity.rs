//! The node's client certificate, with which it proves itself to the API server: renewed by itself, and after its end
//! by the bootstrap file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::certificates::{CertificateFolder, Facts, Identity, Purpose};
use super::client::Client;
use super::csr::{obtain, Desk};
use super::kubeconfig::Kubeconfig;
use super::rotation::{CertificateEnds, Renewal, Trouble};
use crate::supervisor::BoxFuture;

/// How long a request is waited for, before it is looked at anew (`certificateWaitTimeout`).
const SIGNING_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// What the client certificate is renewed with.
pub struct ClientIdentity {
    /// The node's name.
    pub node: String,
    /// The client that uses it.
    pub client: Client,
    /// Where the API server is.
    pub kubeconfig: Kubeconfig,
    /// The node's kubeconfig, in case that somebody puts another there.
    pub path: PathBuf,
    /// The bootstrap kubeconfig, for a certificate that has ended.
    pub bootstrap_file: Option<PathBuf>,
    /// Where keys and certificates are kept.
    pub folder: CertificateFolder,
    /// Told of each one's end.
    pub ends: Arc<CertificateEnds>,
}

impl ClientIdentity {
    /// The certificate in use, if it is a node's, which a cluster renews; none: it is somebody else's, or there is a
    /// token in its place, and whoever gave it looks after it.
    #[must_use]
    pub fn current(&self) -> Option<Identity> {
        let (certificate, key) = self.kubeconfig.identity.clone()?;
        let facts = Facts::of(&certificate).ok()?;
        self.ends.set_client(&facts);
        (facts.common_name == self.name()).then_some(Identity { certificate, key, facts })
    }

    fn name(&self) -> String {
        format!("system:node:{}", self.node)
    }

    /// One that a person has put into the kubeconfig.
    fn replaced(&self) -> Option<Identity> {
        let (certificate, key) = Kubeconfig::load(&self.path).ok()?.identity?;
        let facts = Facts::of(&certificate).ok()?;
        let usable = facts.common_name == self.name() && !facts.expired(Timestamp::now());
        usable.then_some(Identity { certificate, key, facts })
    }

    async fn request(&self, client: &Client) -> Result<Identity, Trouble> {
        let asked = |request: &str| log::info!("asked for a new client certificate: {request}");
        let desk = Desk { client, folder: &self.folder, node: &self.node };
        Ok(obtain(desk, Purpose::Client, Vec::new(), SIGNING_TIMEOUT, &asked).await?)
    }
}

impl Renewal for ClientIdentity {
    fn what(&self) -> &'static str {
        "client certificate"
    }

    fn is_right(&self, facts: &Facts) -> bool {
        facts.common_name == self.name()
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    fn sign(&self, expired: bool) -> BoxFuture<'_, Result<Identity, Trouble>> {
        Box::pin(async move {
            if !expired {
                return self.request(&self.client).await;
            }
            if let Some(identity) = self.replaced() {
                return Ok(identity);
            }
            let Some(file) = &self.bootstrap_file else {
                return Err(format!(
                    "it has expired, and there is no --bootstrap-file to ask for another with: put a new kubeconfig at \
                     {}",
                    self.path.display()
                )
                .into());
            };
            let bootstrap = Kubeconfig::load(file).map_err(|error| {
                format!("it has expired, and the bootstrap file cannot be used: {error}; make one with `copepod bootstrap`")
            })?;
            log::warn!("the client certificate has expired: asking for another with {}", file.display());
            let client =
                bootstrap.client().map_err(|problem| format!("kubeconfig {}: {problem}", file.display()))?;
            self.request(&client).await
        })
    }

    fn adopt<'a>(&'a self, identity: &'a Identity) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let mut kubeconfig = self.kubeconfig.clone();
            kubeconfig.identity = Some((identity.certificate.clone(), identity.key.clone()));
            self.client.replace_credentials(kubeconfig.credentials()?).await;
            self.ends.set_client(&identity.facts);
            Ok(())
        })
    }
}
