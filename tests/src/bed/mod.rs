//! A bed: a cluster of its own behind [`walls`], with room for nodes and registries.

pub mod certificates;
pub mod control_plane;
pub mod process;
pub mod walls;

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        atomic::{AtomicU32, Ordering},
        Mutex, OnceLock,
    },
    time::{Duration, Instant},
};

use certificates::{Certificates, Pair};
use control_plane::ControlPlane;
use process::Process;
use rustix::process::Signal;
use walls::Walls;

use crate::tools;

/// Where the API server listens, on port [`control_plane::PORT`].
pub const CONTROL_PLANE: &str = "192.168.11.2";
/// Where the registry with TLS and passwords listens.
pub const REGISTRY: &str = "192.168.11.3";
/// Where the registry without either listens.
pub const PLAIN_REGISTRY: &str = "192.168.11.4";
/// The address of the node that the tutorial starts.
pub const NODE: &str = "192.168.11.5";
/// Addresses for further nodes.
pub const MORE_NODES: [&str; 5] =
    ["192.168.11.6", "192.168.11.7", "192.168.11.8", "192.168.11.9", "192.168.11.10"];
/// The host name inside, which is what a node is called that is given no name.
pub const HOSTNAME: &str = "pi";

/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(200);
/// Lines of the agents' logs (on a board, of its console) that a failure shows, and of all the others'.
const AGENT_TAIL: usize = 60;
const OTHER_TAIL: usize = 8;

/// A bed, for as long as the value lives.
#[derive(Debug)]
pub struct Bed {
    folder: PathBuf,
    certificates: Certificates,
    /// Signs the certificates of the registries; the agent knows it from SSL_CERT_FILE.
    authority: Pair,
    control_plane: Option<ControlPlane>,
    /// Registries and whatever else lives as long as the bed. Before the walls, as they fall first.
    residents: Mutex<Vec<Process>>,
    walls: Walls,
}

impl Bed {
    /// A bed with a control plane that is ready for use.
    pub fn start() -> Bed {
        Bed::start_with(&[])
    }

    /// The same, its controller manager with further arguments.
    pub fn start_with(controller_manager: &[&str]) -> Bed {
        let mut bed = Bed::empty();
        bed.control_plane = Some(ControlPlane::start(&bed, controller_manager));
        bed
    }

    /// A bed with nothing in it.
    pub fn empty() -> Bed {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("copepod-bed-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap_or_else(|e| panic!("cannot make {}: {e}", folder.display()));
        for inner in ["logs", "home", "docker", "bin"] {
            fs::create_dir(folder.join(inner)).expect("the bed's folder is writable");
        }
        let keep = std::env::var_os("COPEPOD_KEEP").is_some_and(|value| value == "1");
        if keep {
            fs::write(folder.join("keep"), "").expect("the bed's folder is writable");
            eprintln!("the bed's folder stays: {}", folder.display());
        }
        let hosts = format!(
            "127.0.0.1 localhost\n{CONTROL_PLANE} control-plane\n{REGISTRY} registry.test\n\
             {PLAIN_REGISTRY} plain.test\n{NODE} {HOSTNAME}\n"
        );
        fs::write(folder.join("hosts"), hosts).expect("the bed's folder is writable");
        fs::write(folder.join("hostname"), HOSTNAME).expect("the bed's folder is writable");
        let certificates = Certificates::new(folder.join("certificates"));
        let authority = certificates.authority("test-registries");
        let mut addresses = vec![CONTROL_PLANE, REGISTRY, PLAIN_REGISTRY, NODE];
        addresses.extend(MORE_NODES);
        let walls = Walls::build(&folder, &addresses);
        show_logs_on_panic(&folder);
        Bed { folder, certificates, authority, control_plane: None, residents: Mutex::default(), walls }
    }

    /// `program` as a command inside, in the bed's folder, with an environment of its own:
    ///
    /// - `PATH` begins with [`Bed::bin`], then the tests' tools;
    /// - `KUBECONFIG` is the administrator's;
    /// - `SSL_CERT_FILE` is the authority of the registries, `DOCKER_CONFIG` is [`Bed::docker_config`];
    /// - `HOME` is an empty folder, and `COPEPOD_DATA_DIR` one in the bed.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.command_in(program, &self.folder)
    }

    /// The same, in another directory.
    pub fn command_in(&self, program: impl AsRef<OsStr>, directory: &Path) -> Command {
        let mut command = self.walls.command(program, directory);
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
        let mut folders = vec![self.bin(), tools::folder()];
        folders.extend(std::env::split_paths(&path));
        command.env_clear();
        command.env("PATH", std::env::join_paths(folders).expect("no folder of the PATH holds a colon"));
        command.env("HOME", self.folder.join("home"));
        command.env("COPEPOD_DATA_DIR", self.folder.join("data"));
        command.env("KUBECONFIG", self.admin_kubeconfig());
        command.env("SSL_CERT_FILE", self.registry_authority());
        command.env("DOCKER_CONFIG", self.docker_config());
        for kept in ["TERM", "LANG", "RUST_BACKTRACE", "TMPDIR"] {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        command
    }

    /// Starts `command` in the background, both its outputs going to the log `name`. It ends with the
    /// returned value.
    pub fn spawn(&self, name: &str, command: Command) -> Process {
        Process::spawn(name, command, &self.log(name))
    }

    /// Starts `command` as [`Bed::spawn`] does, for as long as the bed lives.
    pub fn house(&self, name: &str, command: Command) {
        let process = self.spawn(name, command);
        self.residents.lock().expect("no test panics with this lock held").push(process);
    }

    /// Cuts the API server off, and brings it back: it answers nobody meanwhile, and nobody is told.
    #[track_caller]
    pub fn api_server_away(&self, away: bool) {
        let residents = self.residents.lock().expect("no test panics with this lock held");
        let server = residents.iter().find(|resident| resident.name() == "kube-apiserver");
        server.expect("the bed has an API server").signal(if away { Signal::STOP } else { Signal::CONT });
    }

    /// What should live as long as the bed, and does not.
    fn ended_resident(&self) -> Option<String> {
        let mut residents = self.residents.lock().expect("no test panics with this lock held");
        residents.iter_mut().find_map(|resident| resident.ended().map(|_| resident.name().to_owned()))
    }

    /// Looks at `condition` until it gives something, and gives that. After `limit` the test fails,
    /// saying that it waited for `what`.
    #[track_caller]
    pub fn wait_for<T>(&self, what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + limit;
        loop {
            if let Some(value) = condition() {
                return value;
            }
            if let Some(ended) = self.ended_resident() {
                panic!("{ended} has ended, which was still needed, when waiting for {what}");
            }
            assert!(Instant::now() < end, "waited {} s in vain for {what}", limit.as_secs());
            std::thread::sleep(POLL);
        }
    }

    /// The bed's own folder, which goes with it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file of the bed's folder with these contents.
    pub fn write(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.folder.join(name);
        fs::write(&path, contents).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
        path
    }

    /// The folder that comes first in PATH inside.
    pub fn bin(&self) -> PathBuf {
        self.folder.join("bin")
    }

    /// The log of what runs under `name`.
    pub fn log(&self, name: &str) -> PathBuf {
        self.folder.join("logs").join(format!("{name}.log"))
    }

    /// The kubeconfig of the cluster's administrator, certificates inline.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.folder.join("admin.conf")
    }

    /// The PEM file of the authority that signs the registries' certificates.
    pub fn registry_authority(&self) -> &Path {
        &self.authority.certificate
    }

    /// The folder in which `docker login` would keep its `config.json`.
    pub fn docker_config(&self) -> PathBuf {
        self.folder.join("docker")
    }

    /// The API server's URL.
    pub fn server(&self) -> String {
        format!("https://{CONTROL_PLANE}:{}", control_plane::PORT)
    }

    /// The cluster's own certificates.
    ///
    /// Panics in a bed that was made [`Bed::empty`].
    pub fn cluster(&self) -> &ControlPlane {
        self.control_plane.as_ref().expect("an empty bed has no control plane")
    }

    /// The folder of certificates.
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// The authority that signs the registries' certificates, with its key.
    pub fn authority(&self) -> &Pair {
        &self.authority
    }

    /// Process 1 inside, as it is called from outside.
    pub fn holder(&self) -> u32 {
        self.walls.holder()
    }
}

/// After any panic of this process, the last lines of the logs in `folder` are printed.
fn show_logs_on_panic(folder: &Path) {
    static FOLDERS: OnceLock<Mutex<Vec<PathBuf>>> = OnceLock::new();
    let folders = FOLDERS.get_or_init(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            before(panic);
            let Some(Ok(folders)) = FOLDERS.get().map(Mutex::lock) else { return };
            folders.iter().for_each(|folder| show_logs(folder));
        }));
        Mutex::default()
    });
    folders.lock().expect("no test panics with this lock held").push(folder.to_path_buf());
}

fn show_logs(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder.join("logs")) else { return };
    let mut logs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    logs.sort();
    for log in logs {
        let name = log.file_stem().and_then(OsStr::to_str).unwrap_or_default().to_owned();
        let lines =
            if name.starts_with("agent") || name.starts_with("board") { AGENT_TAIL } else { OTHER_TAIL };
        eprintln!(
            "--- {}: {name}, its last {lines} lines that matter ---\n{}",
            folder.display(),
            tail(&log, lines)
        );
    }
}

/// The last `lines` lines of a log, without what the components of the control plane say at each start.
fn tail(log: &Path, lines: usize) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    // klog begins a line with its level and the date, I1122 for one; etcd writes JSON.
    let harmless = |line: &str| {
        let klog =
            line.starts_with(['I', 'W']) && line.get(1..5).is_some_and(|date| date.parse::<u16>().is_ok());
        klog || line.starts_with(r#"{"level":"warn""#)
    };
    let all: Vec<&str> = text.lines().filter(|line| !harmless(line)).collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
