//! The node as a whole: starts the rooms in their order, and ends them.

pub mod heartbeat;
pub mod host;
mod kubelet_api;
pub mod object;
mod pods_view;
mod service_manager;
pub mod signals;
pub mod watchdog;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_io::Timer;
use futures_lite::FutureExt;

use crate::cluster::bootstrap::{join, JoinError, Joining};
use crate::cluster::certificates::{CertificateError, CertificateFolder};
use crate::cluster::events::Recorder;
use crate::cluster::pods::{follow, PodApi};
use crate::cluster::registration::register;
use crate::cluster::Client;
use crate::config::{AgentConfig, VERSION};
use crate::durable::Checkpoints;
use crate::image::{Keyring, Store};
use crate::log::Logs;
use crate::runtime::Runtime;
use crate::supervisor::{ByHand, Deaths, Ports, Setup, Supervisor, SystemClock, WasmWorkshop};
use crate::volume::Volumes;
use crate::{control, durable};
use heartbeat::Heartbeat;
use host::Host;
use kubelet_api::KubeletApi;
use service_manager::ServiceManager;
use signals::Signals;
use watchdog::Watchdogs;

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
    /// Another agent has a folder: which, and the flag that sets it.
    #[error("{}: another copepod is running on it; give this one another {}", .0.display(), .1)]
    InUse(PathBuf, &'static str),
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
    host::allow_open_files();
    let manager = ServiceManager::from_environment(|name| std::env::var_os(name));
    // Keeps other agents out of the data folder, and so away from the watchdog.
    let _lock = own_folder(&config.data_dir, "--data-dir")?;
    // What is found in the log folder and belongs to no pod of this node is removed.
    let apart = !config.log_dir.starts_with(&config.data_dir);
    let _log_lock = apart.then(|| own_folder(&config.log_dir, "--log-dir")).transpose()?;
    let watchdogs = Watchdogs::start(config.watchdog_device.as_deref(), &manager);
    let ended = live(&config, &mut signals, &manager).await;
    // Also after an error: it has been said, and a board that restarts would only say it again.
    watchdogs.stop();
    ended
}

async fn live(
    config: &AgentConfig,
    signals: &mut Signals,
    manager: &ServiceManager,
) -> Result<(), NodeError> {
    let stopped = async {
        signals.next().await;
        log::info!("told to end");
        manager.stopping();
        Ok(None)
    };
    let started = async { Box::pin(start(config, manager)).await.map(Some) };
    let Some(running) = started.or(stopped).await? else { return Ok(()) };
    signals.next().await;
    log::info!("told to end: the pods stop, and stay bound to this node");
    manager.stopping();
    running.stop().await;
    Ok(())
}

/// First and longest pause between two looks for the node's address.
const ADDRESS_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What runs until the node ends.
struct Running {
    supervisor: Supervisor,
    logs: Logs,
    /// Dropping one of them cancels it.
    _tasks: Vec<control::Task<()>>,
}

/// How long guests and their logs may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// How long what waits of the logs may take to be written at the end.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

impl Running {
    /// Ends the guests; the API server is told nothing, so that the pods stay bound to this node.
    async fn stop(self) {
        if !self.supervisor.shutdown(STOP_LIMIT).await {
            log::warn!("some guest did not end within {} s", STOP_LIMIT.as_secs());
        }
        // The guests that ended have closed theirs. Modules that are being compiled may hold the turns of all
        // others, and are not waited for.
        let flushed = control::at_the_end(move || self.logs.flush());
        let late = async {
            Timer::after(FLUSH_LIMIT).await;
            false
        };
        if !flushed.or(late).await {
            log::warn!("what containers printed last was not written within {} s", FLUSH_LIMIT.as_secs());
        }
    }
}

/// Starts the rooms, in the order in which they need each other.
async fn start(config: &AgentConfig, manager: &ServiceManager) -> Result<Running, NodeError> {
    let data = &config.data_dir;
    let folder = CertificateFolder::open(data.join("pki"))?;
    let images = data.join("images");
    let store = control::blocking({
        let images = images.clone();
        move || Store::open(&images)
    });
    let store = store.await.map_err(|source| NodeError::File { path: images, source })?;
    let host = Host::read(data);
    let runtime = Runtime::start(config.runtime())
        .map_err(|source| NodeError::System { what: "starting the interpreter threads", source })?;
    let checkpoints = data.join("checkpoints");
    let opened = control::blocking({
        let checkpoints = checkpoints.clone();
        move || Checkpoints::open(&checkpoints)
    });
    let checkpoints = opened.await.map_err(|source| NodeError::File { path: checkpoints, source })?;
    let logs = Logs::new(config.log_dir.clone(), config.logs.clone());
    let pod_api = Arc::new(PodApi::default());
    let supervisor = Supervisor::new(Setup {
        api: pod_api.clone(),
        workshop: Arc::new(WasmWorkshop {
            runtime,
            store: store.clone(),
            registries: Arc::new(config.registries()),
            volumes: Volumes::new(config.data_dir.join("pods")),
            logs: logs.clone(),
            by_hand: ByHand::default(),
            ports: Ports::default(),
            pulling: Arc::default(),
        }),
        clock: Arc::new(SystemClock),
        node: object::facts(&object::node(config, &host, config.node_ip), config.port),
        keyring: Keyring::default(),
        deaths: Arc::new(last_deaths()),
        storage: config.storage,
        checkpoints,
    });
    // Before the cluster is reached, whose clock, network or certificates may be away for long.
    supervisor.resume().await;
    // A board whose network is down must not be killed for it.
    manager.ready();

    let (client, kubeconfig) = join(&Joining {
        node: &config.node_name,
        kubeconfig: &config.kubeconfig,
        bootstrap_file: config.bootstrap_file.as_deref(),
        folder: &folder,
        tell: &|text| manager.status(text),
    })
    .await?;
    let recorder = Recorder::start(client.clone(), &config.node_name);
    pod_api.join(client.clone(), recorder.clone());
    let address = own_address(config, &client, manager).await?;
    let node = object::node(config, &host, Some(address));
    let facts = object::facts(&node, config.port);
    supervisor.set_node(facts.clone());
    // The port is bound before the node is registered: what cannot be served is not offered.
    let view = Arc::new(pods_view::NodePods(supervisor.clone()));
    let api = KubeletApi::start(config, address, &client, view, logs.clone())?;
    manager.status(&format!("registering node {} with {}", config.node_name, client.server().authority()));
    let registered = register(&client, &node).await;
    manager.status(&format!("node {} is registered", config.node_name));
    let heartbeat =
        Heartbeat { client: client.clone(), node, registered, host, data_dir: data.clone(), store, recorder };
    let pods = follow(client.clone(), facts, supervisor.clone());
    let tasks = vec![
        control::spawn(heartbeat.run()),
        control::spawn(pods),
        control::spawn(api.keep_certificates(client, folder, kubeconfig, manager.clone())),
    ];
    Ok(Running { supervisor, logs, _tasks: tasks })
}

/// Folder of the marks of running containers.
const RUNNING: &str = "running";

/// Which containers ran when the agent died last, from the folder in memory that systemd gives a service
/// (`RuntimeDirectory=`). Elsewhere nothing of it is known.
fn last_deaths() -> Deaths {
    let folder = std::env::var_os("RUNTIME_DIRECTORY").map(|folder| PathBuf::from(folder).join(RUNNING));
    Deaths::open(folder.as_deref()).unwrap_or_else(|error| {
        log::warn!("which containers ran when the agent died is not known: {error}");
        Deaths::default()
    })
}

/// Makes the folder that a flag names and keeps other agents out of it.
fn own_folder(folder: &Path, flag: &'static str) -> Result<std::fs::File, NodeError> {
    let path = folder.to_owned();
    durable::ensure_private_dir(folder).and_then(|()| durable::lock_dir(folder)).map_err(
        |source| match source.kind() {
            std::io::ErrorKind::WouldBlock => NodeError::InUse(path, flag),
            _ => NodeError::File { path, source },
        },
    )
}

/// `--node-ip`, or the address that leads to the API server: waited for, as a board may be up before its
/// network.
async fn own_address(
    config: &AgentConfig,
    client: &Client,
    manager: &ServiceManager,
) -> Result<IpAddr, NodeError> {
    if let Some(address) = config.node_ip {
        return Ok(address);
    }
    let mut pause = ADDRESS_PAUSE.0;
    let mut told = String::new();
    loop {
        let problem = match client.server().addresses().await {
            Err(error) => error.to_string(),
            Ok(targets) => {
                let found = targets.iter().map(|target| host::address_towards(*target));
                match found.reduce(|first, next| first.or(next)) {
                    Some(Ok(address)) if address.is_loopback() => {
                        return Err(NodeError::NoAddress(format!(
                            "{address} leads to the API server, and only here"
                        )));
                    }
                    Some(Ok(address)) => return Ok(address),
                    Some(Err(error)) => format!("finding the way to the API server: {error}"),
                    None => "the API server has no address".to_owned(),
                }
            }
        };
        if problem != told {
            log::error!("this node's address is not known yet: {problem}; waiting for it (or set --node-ip)");
            manager.status(&format!("waiting for this node's address: {problem}"));
            told = problem;
        }
        Timer::after(pause).await;
        pause = pause.saturating_mul(2).min(ADDRESS_PAUSE.1);
    }
}
