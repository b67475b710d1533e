//! The node as a whole: starts the rooms in their order, and ends them.

pub mod heartbeat;
pub mod host;
mod kubelet_api;
pub mod object;
mod signals;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_lite::FutureExt;

use crate::cluster::bootstrap::{join, JoinError, Joining};
use crate::cluster::certificates::{CertificateError, CertificateFolder};
use crate::cluster::events::Recorder;
use crate::cluster::registration::register;
use crate::cluster::{ApiError, Client};
use crate::config::{AgentConfig, VERSION};
use crate::image::Store;
use crate::log::Logs;
use crate::{control, durable};
use heartbeat::Heartbeat;
use host::Host;
use signals::Signals;

/// Why the node cannot start, or go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A file or folder of the agent's own.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another agent has the data folder.
    #[error("{}: another copepod is running on it; give this one another --data-dir", .0.display())]
    InUse(PathBuf),
    /// Something that the kernel would not give.
    #[error("{what}: {source}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The certificates on disk.
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    /// The cluster cannot be joined.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The kubelet API cannot be offered.
    #[error("the kubelet API: {0}")]
    KubeletApi(String),
    /// The node's own address is not known.
    #[error("{0}; set --node-ip")]
    NoAddress(String),
}

/// Joins the cluster and is a node of it until SIGTERM or SIGINT.
///
/// # Errors
/// [`NodeError`]
pub async fn run(config: AgentConfig) -> Result<(), NodeError> {
    let mut signals =
        Signals::take().map_err(|source| NodeError::System { what: "taking over signals", source })?;
    log::info!("copepod {VERSION}, node {}", config.node_name);
    let stopped = async {
        signals.next().await;
        log::info!("told to end");
        Ok(None)
    };
    let started = async { Box::pin(start(&config)).await.map(Some) };
    let Some(running) = started.or(stopped).await? else { return Ok(()) };
    signals.next().await;
    log::info!("told to end: the pods stop, and stay bound to this node");
    running.stop().await;
    Ok(())
}

/// What runs until the node ends.
struct Running {
    /// Dropping one of them cancels it.
    _tasks: Vec<control::Task<()>>,
    /// Keeps other agents out of the data folder.
    _lock: std::fs::File,
}

impl Running {
    async fn stop(self) {}
}

/// Starts the rooms, in the order in which they need each other.
async fn start(config: &AgentConfig) -> Result<Running, NodeError> {
    let data = &config.data_dir;
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| NodeError::File { path, source }
    };
    durable::ensure_private_dir(data).map_err(file(data))?;
    let lock = durable::lock_dir(data).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => NodeError::InUse(data.clone()),
        _ => file(data)(error),
    })?;
    let folder = CertificateFolder::open(data.join("pki"))?;
    let images = data.join("images");
    let store = Store::open(&images).map_err(file(&images))?;
    let host = Host::read(data);

    let (client, kubeconfig) = join(&Joining {
        node: &config.node_name,
        kubeconfig: &config.kubeconfig,
        bootstrap_file: config.bootstrap_file.as_deref(),
        folder: &folder,
    })
    .await?;
    let address = own_address(config, &client).await?;
    let logs = Logs::new(data.join("logs"));
    let api = kubelet_api::KubeletApi::start(config, address, &client, Arc::new(NoPods), logs.clone())?;
    let node = object::node(config, &host, address);
    let registered = register(&client, &node).await;
    let recorder = Recorder::start(client.clone(), &config.node_name);
    let heartbeat = Heartbeat {
        client: client.clone(),
        node,
        registered,
        host,
        data_dir: data.clone(),
        store: store.clone(),
        recorder: recorder.clone(),
    };
    let tasks = vec![
        control::spawn(heartbeat.run()),
        control::spawn(api.keep_certificates(client, folder, kubeconfig)),
    ];
    Ok(Running { _tasks: tasks, _lock: lock })
}

/// `--node-ip`, or the address that leads to the API server.
async fn own_address(config: &AgentConfig, client: &Client) -> Result<IpAddr, NodeError> {
    if let Some(address) = config.node_ip {
        return Ok(address);
    }
    let found = async {
        let targets = client.server().addresses().await.map_err(|error: ApiError| error.to_string())?;
        let target = targets.first().ok_or("the API server has no address")?;
        host::address_towards(*target).map_err(|error| format!("finding the way to {target}: {error}"))
    };
    let address = found.await.map_err(NodeError::NoAddress)?;
    if address.is_loopback() {
        return Err(NodeError::NoAddress(format!("{address} leads to the API server, and only here")));
    }
    Ok(address)
}

struct NoPods;

impl crate::server::PodsView for NoPods {
    fn pods(&self) -> serde_json::Value {
        serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []})
    }

    fn container_log(
        &self,
        _: &str,
        _: &str,
        _: &str,
        _: bool,
    ) -> Result<crate::server::LogTarget, crate::server::LogRefusal> {
        Err(crate::server::LogRefusal::NoPod)
    }
}
