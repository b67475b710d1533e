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
use crate::api::{ConfigMap, Object};
use crate::cluster::certificates::CertificateFolder;
use crate::cluster::kubeconfig::Kubeconfig;
use crate::cluster::reviews::Reviews;
use crate::cluster::serving::Serving;
use crate::cluster::{ApiError, Call, Client};
use crate::config::{read_bounded, AgentConfig};
use crate::control::{self, Task};
use crate::log::Logs;
use crate::server::{self, listen, self_signed, PodsView, ServerContext, Tls};

/// Bytes of `--client-ca-file`.
const MAX_CA: u64 = 1024 * 1024;
/// Between two tries to read the config map with the client authority.
const CLIENT_CA_PAUSE: Duration = Duration::from_secs(30);

/// The kubelet API, already listening.
pub struct KubeletApi {
    tls: Tls,
    serving: Serving,
    client_ca_file: Option<PathBuf>,
    server: Task<()>,
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
            configz: configz(config),
        };
        Ok(KubeletApi {
            tls,
            serving: Serving { node: config.node_name.clone(), addresses: vec![address] },
            client_ca_file: config.client_ca_file.clone(),
            server: control::spawn(server::serve(listen::connections(listener), context)),
        })
    }

    /// Finds out whom to believe and asks for a certificate; goes on serving until it is dropped.
    pub async fn keep_certificates(
        self,
        client: Client,
        folder: CertificateFolder,
        kubeconfig: Kubeconfig,
        manager: ServiceManager,
    ) {
        let clients = self.believe_clients(&client, &kubeconfig);
        let serving = async {
            let node = &self.serving.node;
            let asked = |request: &str| {
                manager.status(&format!(
                    "node {node} is registered; for its logs: kubectl certificate approve {request}"
                ));
            };
            let identity = self.serving.certificate(&client, &folder, &asked).await;
            manager.status(&format!("node {node} is registered"));
            let shown = self.tls.set_serving_pem(identity.certificate.as_bytes(), identity.key.as_bytes());
            if let Err(error) = shown {
                log::error!("the kubelet API keeps its self-signed certificate: {error}");
            }
        };
        futures_lite::future::zip(clients, serving).await;
        self.server.await;
    }

    /// The authority of client certificates: the file of the settings, else the cluster's config map,
    /// else the authority of the kubeconfig.
    async fn believe_clients(&self, client: &Client, kubeconfig: &Kubeconfig) {
        if let Some(path) = &self.client_ca_file {
            let set = read_bounded(path, MAX_CA)
                .map_err(|error| error.to_string())
                .and_then(|pem| self.tls.set_client_ca_pem(pem.as_bytes()).map_err(|e| e.to_string()));
            if let Err(problem) = set {
                log::error!(
                    "--client-ca-file {}: {problem}; no client certificate is accepted",
                    path.display()
                );
            }
            return;
        }
        let mut reported = false;
        loop {
            let (source, pem) = match cluster_client_ca(client).await {
                Ok(Some(pem)) => ("the cluster's config map", Some(pem)),
                Ok(None) => ("the kubeconfig", kubeconfig.authority.clone()),
                // May not be read: `copepod bootstrap` makes the binding; without it the kubeconfig's
                // authority is the best guess, and right on most clusters.
                Err(error) if error.is(403) => {
                    log::warn!(
                        "{error}; the authority of the kubeconfig is taken in its place: if kubectl logs is \
                         refused, run `copepod bootstrap` once, which opens that config map to nodes, or set \
                         --client-ca-file, and start this agent again"
                    );
                    ("the kubeconfig", kubeconfig.authority.clone())
                }
                Err(error) => {
                    if !std::mem::replace(&mut reported, true) {
                        log::warn!("reading the authority of client certificates: {error}; trying again");
                    }
                    Timer::after(CLIENT_CA_PAUSE).await;
                    continue;
                }
            };
            match pem.map(|pem| self.tls.set_client_ca_pem(pem.as_bytes())) {
                Some(Ok(())) => log::info!("client certificates are checked against {source}"),
                Some(Err(error)) => log::error!("{source}: {error}; no client certificate is accepted"),
                None => log::error!("{source} names no authority: no client certificate is accepted"),
            }
            return;
        }
    }
}

/// `kube-system/extension-apiserver-authentication`, where an API server publishes it.
async fn cluster_client_ca(client: &Client) -> Result<Option<String>, ApiError> {
    let path = format!("{}/extension-apiserver-authentication", ConfigMap::collection(Some("kube-system")));
    match client.read::<ConfigMap>(Call::new(Method::GET, path)).await {
        Ok(map) => Ok(map.data.get("client-ca-file").filter(|pem| !pem.is_empty()).cloned()),
        Err(error) if error.is(404) => Ok(None),
        Err(error) => Err(error),
    }
}

fn configz(config: &AgentConfig) -> serde_json::Value {
    json!({"kubeletconfig": {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "address": config.address,
        "port": config.port,
        "maxPods": config.max_pods,
        "systemReserved": {"memory": config.memory_reserved.to_string()},
        "nodeLeaseDurationSeconds": crate::cluster::lease::LEASE_SECONDS,
        "registerNode": true,
        "enableServer": true,
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true}},
        "authorization": {"mode": "Webhook"},
    }})
}
