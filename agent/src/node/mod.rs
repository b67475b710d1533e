//! The node as a whole: starts the rooms in their order, and ends them.

mod figures;
pub mod heartbeat;
pub mod host;
mod image_gc;
mod kubelet_api;
pub mod object;
mod pods_view;
mod service_manager;
pub mod signals;
pub mod watchdog;

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_io::Timer;
use futures_lite::FutureExt;

use crate::api::{ObjectReference, Pod};
use crate::cluster::bootstrap::{join, JoinError, Joining};
use crate::cluster::certificates::{CertificateError, CertificateFolder};
use crate::cluster::contact::{Contact, Standing};
use crate::cluster::events::Recorder;
use crate::cluster::identity::ClientIdentity;
use crate::cluster::kubeconfig::Kubeconfig;
use crate::cluster::mirrors::Mirrors;
use crate::cluster::pods::{follow, PodApi};
use crate::cluster::registration::register;
use crate::cluster::rotation::{keep, WallClock};
use crate::cluster::serving::ServingNames;
use crate::cluster::{CertificateEnds, Client};
use crate::config::{read_bounded, AgentConfig, VERSION};
use crate::durable::Checkpoints;
use crate::image::{Keyring, Store};
use crate::log::Logs;
use crate::pod::events::{EventKind, EventText};
use crate::pod::node::NodeFacts;
use crate::runtime::Runtime;
use crate::supervisor::local::LocalApi;
use crate::supervisor::{
    Awaited, ByHand, Deaths, PodEvent, Ports, Setup, Supervisor, SystemClock, WasmWorkshop,
};
use crate::volume::Volumes;
use crate::{console, control, durable, manifest, own_pages};
use figures::Sources;
use heartbeat::{Heartbeat, Moved};
use host::Host;
use kubelet_api::{KubeletApi, Membership};
use pods_view::NodeView;
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
    let store = open(data.join("images"), Store::open).await?;
    let run_dir = open(config.run_dir.clone(), in_memory).await?;
    let checkpoints = open(data.join("checkpoints"), Checkpoints::open).await.unwrap_or_else(|error| {
        log::error!("{error}: pods are not written down, and do not come back by themselves after a restart");
        Checkpoints::default()
    });
    let host = Host::read(data);
    let runtime = Runtime::start(config.runtime())
        .map_err(|source| NodeError::System { what: "starting the interpreter threads", source })?;
    let logs = Logs::new(config.log_dir.clone(), config.logs.clone());
    let pod_api = Arc::new(PodApi::default());
    let alone = stands_alone(config);
    let facts = object::facts(&object::node(config, &host, config.node_ip), config.port);
    let supervisor = Supervisor::new(Setup {
        api: if alone { LocalApi::new(tell) } else { pod_api.clone() },
        workshop: Arc::new(WasmWorkshop {
            runtime: runtime.clone(),
            store: store.clone(),
            registries: Arc::new(config.registries()),
            volumes: Volumes::new(
                data.join("pods"),
                run_dir.join("pods"),
                config.host_paths.clone(),
                config.secrets_at_rest,
            ),
            logs: logs.clone(),
            by_hand: ByHand::default(),
            ports: Ports::default(),
            pulling: Arc::default(),
            given: Default::default(),
        }),
        clock: Arc::new(SystemClock),
        node: facts.clone(),
        keyring: keyring(&data.join(LOGINS)),
        deaths: Arc::new(last_deaths()),
        storage: config.storage,
        secrets_at_rest: config.secrets_at_rest,
        checkpoints,
        awaited: Awaited { cluster: !alone, folder: config.pod_manifest_path.is_some() },
    });
    store.keep_for(supervisor.image_users());
    // Before the cluster is reached, whose clock, network or certificates may be away for long.
    supervisor.resume().await;
    let mut tasks = vec![
        follow_manifests(config, &supervisor, pod_api.mirrors()),
        control::spawn(own_pages::keep_few()),
        control::spawn(image_gc::run(store.clone(), config.image_gc)),
    ];
    let (joined, ends) = (Arc::<OnceLock<Client>>::default(), Arc::<CertificateEnds>::default());
    let view = Arc::new(NodeView(Sources {
        supervisor: supervisor.clone(),
        runtime,
        node: config.node_name.clone(),
        host: host.clone(),
        data_dir: data.clone(),
        client: joined.clone(),
        certificates: ends.clone(),
    }));
    let contact = Arc::<Contact>::default();
    contact.set(if alone { Standing::Alone } else { Standing::Joining });
    let told = console::Context { pods: view.clone(), logs: logs.clone(), contact: contact.clone() };
    tasks.extend(console::start(data, config.console, told));
    // In a cluster the one that pods of an earlier life had is more likely right.
    let known = !alone && supervisor.knows_address();
    let finding = control::spawn(find_own_address(facts, supervisor.clone(), known));
    // A board whose network is down must not be killed for it.
    manager.ready();
    if alone {
        log::info!("there is neither a kubeconfig nor a bootstrap file: static pods run here, in no cluster");
        manager.status("running static pods, in no cluster");
        tasks.push(finding);
        return Ok(Running { supervisor, logs, _tasks: tasks });
    }

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
    // Joined once.
    let _ = joined.set(client.clone());
    let address = own_address(config, &client, manager).await?;
    // Static pods, and those of an earlier life, needed none that leads to the API server.
    drop(finding);
    let node = object::node(config, &host, Some(address));
    let facts = object::facts(&node, config.port);
    supervisor.set_node(facts.clone());
    // The port is bound before the node is registered: what cannot be served is not offered.
    let api = KubeletApi::start(config, address, &client, view, logs.clone())?;
    manager.status(&format!("registering node {} with {}", config.node_name, client.server().authority()));
    let registered = register(&client, &node).await;
    manager.status(&format!("node {} is registered", config.node_name));
    let mirrors = {
        let (mirrors, client, node) = (pod_api.mirrors(), client.clone(), config.node_name.clone());
        let uid = registered.uid.clone();
        async move { mirrors.keep(&client, &node, &uid).await }
    };
    let names = Arc::new(ServingNames::new(config.node_name.clone(), vec![address]));
    let moved: Moved = {
        let (names, supervisor, port) = (names.clone(), supervisor.clone(), config.port);
        Box::new(move |node, address| {
            supervisor.set_node(object::facts(node, port));
            names.set_addresses(vec![address]);
        })
    };
    let heartbeat = Heartbeat {
        client: client.clone(),
        node,
        registered,
        host,
        data_dir: data.clone(),
        store,
        recorder,
        contact,
        // A given address stays.
        moved: config.node_ip.is_none().then_some(moved),
    };
    let pods = follow(client.clone(), facts, supervisor.clone(), pod_api.mirrors());
    tasks.extend([
        control::spawn(heartbeat.run()),
        control::spawn(pods),
        control::spawn(mirrors),
        control::spawn(keep_identity(config, &client, &kubeconfig, &folder, &ends)),
        control::spawn(api.keep(
            Membership { client, kubeconfig, folder, names, ends },
            config.node_name.clone(),
            manager.clone(),
        )),
    ]);
    Ok(Running { supervisor, logs, _tasks: tasks })
}

/// Keeps the client certificate from ending.
fn keep_identity(
    config: &AgentConfig,
    client: &Client,
    kubeconfig: &Kubeconfig,
    folder: &CertificateFolder,
    ends: &Arc<CertificateEnds>,
) -> impl Future<Output = ()> + Send + 'static {
    let identity = ClientIdentity {
        node: config.node_name.clone(),
        client: client.clone(),
        kubeconfig: kubeconfig.clone(),
        path: config.kubeconfig.clone(),
        bootstrap_file: config.bootstrap_file.clone(),
        folder: folder.clone(),
        ends: ends.clone(),
    };
    async move {
        match identity.current() {
            Some(current) => keep(&identity, &WallClock, Some(current)).await,
            None => log::info!(
                "the kubeconfig's credentials are not a node's certificate: whoever gave them must renew them"
            ),
        }
    }
}

/// Makes the folder of what must not be on a disk, and says so where it is on one.
fn in_memory(folder: &Path) -> std::io::Result<PathBuf> {
    durable::ensure_private_dir(folder)?;
    // `TMPFS_MAGIC`, `RAMFS_MAGIC`; of 32 bits, with a sign or without one.
    let kind = i128::from(rustix::fs::statfs(folder)?.f_type) & 0xffff_ffff;
    if !matches!(kind, 0x0102_1994 | 0x8584_58f6) {
        log::warn!(
            "{} is on a disk: secrets and tokens that pods mount are written there; set --run-dir to a folder of a \
             tmpfs",
            folder.display()
        );
    }
    Ok(folder.to_owned())
}

/// Opens a folder of the data folder's.
async fn open<T: Send + 'static>(
    path: PathBuf,
    open: impl FnOnce(&Path) -> std::io::Result<T> + Send + 'static,
) -> Result<T, NodeError> {
    let opened = control::blocking({
        let path = path.clone();
        move || open(&path)
    });
    opened.await.map_err(|source| NodeError::File { path, source })
}

/// There is no cluster to join, and none is waited for.
fn stands_alone(config: &AgentConfig) -> bool {
    config.pod_manifest_path.is_some() && config.bootstrap_file.is_none() && !config.kubeconfig.exists()
}

/// Follows the folder of static pods, if there is one.
fn follow_manifests(
    config: &AgentConfig,
    supervisor: &Supervisor,
    mirrors: Arc<Mirrors>,
) -> control::Task<()> {
    let supervisor = supervisor.clone();
    let tell = move |pods: Vec<Pod>| {
        mirrors.want(&pods);
        supervisor.handle(PodEvent::Static(pods));
    };
    match config.pod_manifest_path.clone() {
        Some(folder) => control::spawn(manifest::follow(folder, config.node_name.clone(), tell)),
        None => control::spawn(async move { tell(Vec::new()) }),
    }
}

/// Events of a node in no cluster.
fn tell(about: &ObjectReference, event: &EventText) {
    let line = format!("pod {}/{}: {}: {}", about.namespace, about.name, event.reason, event.message);
    match event.kind {
        EventKind::Normal => log::info!("{line}"),
        EventKind::Warning => log::warn!("{line}"),
    }
}

/// An address that nobody has (RFC 5737): the way to it is the way to anywhere, and nothing is sent there.
const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);

/// Waits until a node that has joined no cluster has an address, unless one is known.
async fn find_own_address(facts: NodeFacts, supervisor: Supervisor, known: bool) {
    if known || !facts.ips.is_empty() {
        return;
    }
    loop {
        if let Ok(address) = host::address_towards(ANYWHERE) {
            supervisor.set_node(NodeFacts { ips: vec![address.to_string()], ..facts });
            return;
        }
        Timer::after(ADDRESS_PAUSE.1).await;
    }
}

/// File in the data folder with logins that every pull may use, as a kubelet has it (`credentialprovider`).
const LOGINS: &str = "config.json";
/// Bytes of it.
const MAX_LOGINS: u64 = 1024 * 1024;

/// The node's own logins.
fn keyring(path: &Path) -> Keyring {
    let mut keyring = Keyring::default();
    let read = match read_bounded(path, MAX_LOGINS) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return keyring,
        Err(error) => Err(error.to_string()),
        Ok(text) => keyring.add_docker_config_json(text.as_bytes()),
    };
    if let Err(error) = read {
        log::error!("logins of registries, {}: {error}; none of them is used", path.display());
        return Keyring::default();
    }
    keyring
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
