//! Offers the kubelet API: port, certificates, and whom to believe.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_io::Timer;
use http::Method;
use serde_json::json;

use super::service_manager::ServiceManager;
use super::NodeError;
use crate::api::{ConfigMap, Metadata, Object};
use crate::cluster::certificates::{CertificateFolder, Identity};
use crate::cluster::error::Outage;
use crate::cluster::kubeconfig::Kubeconfig;
use crate::cluster::reviews::Reviews;
use crate::cluster::rotation::{keep, WallClock};
use crate::cluster::serving::{ServingIdentity, ServingNames};
use crate::cluster::watch::Watcher;
use crate::cluster::{ApiError, Call, CertificateEnds, Client};
use crate::config::{read_bounded, AgentConfig};
use crate::control::{self, Task};
use crate::durable::FileState;
use crate::log::Logs;
use crate::server::{self, listen, self_signed, PodsView, ServerContext, Tls};

/// Bytes of `--client-ca-file`.
const MAX_CA: u64 = 1024 * 1024;
/// Between two tries to read the config map, and between two where this node may not.
const READ_PAUSE: Duration = Duration::from_secs(10);
const FORBIDDEN_PAUSE: Duration = Duration::from_secs(300);
/// Where API servers publish the authority of client certificates.
const PUBLISHED: &str = "extension-apiserver-authentication";

/// The kubelet API, already listening.
pub struct KubeletApi {
    tls: Tls,
    client_ca_file: Option<PathBuf>,
    server: Task<()>,
}

/// What the node has of the cluster.
pub struct Membership {
    /// The API.
    pub client: Client,
    /// The kubeconfig that it joined with.
    pub kubeconfig: Kubeconfig,
    /// Where keys and certificates are kept.
    pub folder: CertificateFolder,
    /// What the serving certificate must say.
    pub names: Arc<ServingNames>,
    /// Told of each certificate's end.
    pub ends: Arc<CertificateEnds>,
}

impl KubeletApi {
    /// Listens, with a self-signed certificate, believing no client certificate yet.
    ///
    /// # Errors
    /// When the port is taken or the address is not this machine's.
    pub fn start(
        config: &AgentConfig,
        address: IpAddr,
        client: &Client,
        pods: Arc<dyn PodsView>,
        logs: Logs,
    ) -> Result<KubeletApi, NodeError> {
        let refused = |error: &dyn std::fmt::Display| NodeError::KubeletApi(error.to_string());
        let bound = SocketAddr::new(config.address, config.port);
        let listener = listen::bind(bound).map_err(|error| refused(&format!("{error}; see --port")))?;
        let (chain, key) = self_signed::make(std::slice::from_ref(&config.node_name), &[address])
            .map_err(|error| refused(&error))?;
        let tls = Tls::new(vec![chain], key).map_err(|error| refused(&error))?;
        let context = ServerContext {
            node_name: config.node_name.clone(),
            tls: tls.clone(),
            reviewer: Arc::new(Reviews::new(client.clone())),
            pods,
            logs,
            system_logs: config.system_log_dir.clone(),
            configz: configz(config),
        };
        Ok(KubeletApi {
            tls,
            client_ca_file: config.client_ca_file.clone(),
            server: control::spawn(server::serve(listen::connections(listener), context)),
        })
    }

    /// Follows whom to believe, and keeps the serving certificate from ending; serves until it is dropped.
    pub async fn keep(self, cluster: Membership, node: String, manager: ServiceManager) {
        let clients = self.believe_clients(&cluster.client, &cluster.kubeconfig);
        let show = |identity: &Identity| {
            let shown = self.tls.set_serving_pem(identity.certificate.as_bytes(), identity.key.as_bytes());
            shown.map_err(|error| error.to_string())
        };
        let tell = |request: Option<&str>| {
            manager.status(&match request {
                Some(request) => {
                    format!("node {node} is registered; for its logs: kubectl certificate approve {request}")
                }
                None => format!("node {node} is registered"),
            });
        };
        let serving = async {
            let identity = ServingIdentity {
                names: cluster.names.clone(),
                client: cluster.client.clone(),
                folder: cluster.folder.clone(),
                show: &show,
                tell: &tell,
                ends: cluster.ends.clone(),
            };
            let current = identity.take_up().await;
            keep(&identity, &WallClock, current).await;
        };
        futures_lite::future::zip(clients, serving).await;
        self.server.await;
    }

    /// The authority of client certificates: the file of the settings, else the cluster's config map,
    /// else the authority of the kubeconfig. Followed, whichever it is.
    async fn believe_clients(&self, client: &Client, kubeconfig: &Kubeconfig) {
        let mut believed = Believed { tls: &self.tls, pem: None };
        if let Some(path) = &self.client_ca_file {
            loop {
                let seen = FileState::of(path);
                let source = format!("--client-ca-file {}", path.display());
                match read_bounded(path, MAX_CA) {
                    Ok(pem) => believed.set(&source, pem),
                    Err(error) => log::error!("{source}: {error}; {}", believed.consequence()),
                }
                seen.replaced(path).await;
            }
        }
        let path = ConfigMap::collection(Some("kube-system"));
        let selector = format!("fieldSelector=metadata.name%3D{PUBLISHED}");
        let mut watcher: Watcher<Metadata> =
            Watcher::new(client.clone(), path.clone(), selector).of_metadata();
        let what = "reading the authority of client certificates";
        let (mut outage, mut forbidden) = (Outage::default(), false);
        // There is another version, and it could not be read so far.
        let mut unread = false;
        loop {
            // The watch tells that there is another version; what is in it is read. Were it watched whole, the
            // agent would be larger by a decoder of its events.
            if unread {
                Timer::after(READ_PAUSE).await;
            }
            let read = match unread {
                true => Ok(()),
                false => watcher.next().await.map(|_change| ()),
            };
            unread = read.is_ok();
            let read = match read {
                Ok(()) => published(client, &path).await,
                Err(error) => Err(error),
            };
            let found = match read {
                Ok(found) => found,
                Err(error) if error.is(410) => continue,
                // May not be read: `copepod bootstrap` makes the binding; without it the kubeconfig's
                // authority is the best guess, and right on most clusters.
                Err(error) if error.is(403) => {
                    if !std::mem::replace(&mut forbidden, true) {
                        log::warn!(
                            "{error}; the authority of the kubeconfig is taken in its place: if kubectl logs is \
                             refused, run `copepod bootstrap` once, which opens that config map to nodes, or set \
                             --client-ca-file"
                        );
                        believed.guess(kubeconfig);
                    }
                    Timer::after(FORBIDDEN_PAUSE).await;
                    continue;
                }
                Err(error) => {
                    outage.report(what, &error);
                    continue;
                }
            };
            outage.over(what);
            (forbidden, unread) = (false, false);
            match found {
                Some(pem) => believed.set("the cluster's config map", pem),
                None => believed.guess(kubeconfig),
            }
        }
    }
}

/// The authority that the cluster publishes, if it does.
async fn published(client: &Client, collection: &str) -> Result<Option<String>, ApiError> {
    let call = Call::new(Method::GET, format!("{collection}/{PUBLISHED}"));
    match client.read::<ConfigMap>(call).await {
        Ok(map) => Ok(map.data.get("client-ca-file").filter(|pem| !pem.is_empty()).cloned()),
        Err(error) if error.is(404) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The authority of client certificates that is believed.
struct Believed<'t> {
    tls: &'t Tls,
    pem: Option<String>,
}

impl Believed<'_> {
    fn set(&mut self, source: &str, pem: String) {
        if self.pem.as_ref() == Some(&pem) {
            return;
        }
        match self.tls.set_client_ca_pem(pem.as_bytes()) {
            Ok(()) => {
                log::info!("client certificates are checked against {source}");
                self.pem = Some(pem);
            }
            Err(error) => log::error!("{source}: {error}; {}", self.consequence()),
        }
    }

    fn guess(&mut self, kubeconfig: &Kubeconfig) {
        match &kubeconfig.authority {
            Some(pem) => self.set("the kubeconfig's authority", pem.clone()),
            None => log::error!("the kubeconfig names no authority; {}", self.consequence()),
        }
    }

    fn consequence(&self) -> &'static str {
        match self.pem {
            Some(_) => "the one before it still counts",
            None => "no client certificate is accepted",
        }
    }
}

fn configz(config: &AgentConfig) -> serde_json::Value {
    json!({"kubeletconfig": {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "address": config.address,
        "port": config.port,
        "maxPods": config.max_pods,
        "imageGCHighThresholdPercent": config.image_gc.high,
        "imageGCLowThresholdPercent": config.image_gc.low,
        "systemReserved": {"memory": config.memory_reserved.to_string()},
        "nodeLeaseDurationSeconds": crate::cluster::lease::LEASE_SECONDS,
        "registerNode": true,
        "enableServer": true,
        "enableSystemLogHandler": config.system_log_dir.is_some(),
        "rotateCertificates": true,
        "serverTLSBootstrap": true,
        "containerLogMaxSize": config.logs.max_size.to_string(),
        "containerLogMaxFiles": config.logs.max_files,
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true}},
        "authorization": {"mode": "Webhook"},
    }})
}
