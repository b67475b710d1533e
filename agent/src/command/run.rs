//! `copepod run`: a module or a Pod manifest here, without a cluster.
//!
//! The way of a pod from the supervisor on, every line of it: what stands in for the cluster is one pod
//! from a file, and an API that tells its events to the terminal.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_lite::FutureExt;
use rustix::fs::{fstat, open, FileType, Mode, OFlags};

use super::Failure;
use crate::api::{
    Container, ContainerPort, EnvVar, ObjectMeta, ObjectReference, Pod, PodSpec, PodStatus, Quantity,
};
use crate::config::agent::{INSECURE_REGISTRIES, LOG_LEVEL, REGISTRY_CERTS_DIR};
use crate::config::setting::{CommandLine, Setting, Takes};
use crate::config::{UsageError, Values};
use crate::control;
use crate::durable::clock::Now;
use crate::durable::{ensure_private_dir, Checkpoints};
use crate::image::{self, Image, Keyring, Registries, Store};
use crate::log::Logs;
use crate::manifest::{self, defaulted};
use crate::node::host::Host;
use crate::node::object::standalone_facts;
use crate::node::signals::Signals;
use crate::pod::destinations::CONNECT;
use crate::pod::events::{EventKind, EventText};
use crate::pod::storage::Defaults;
use crate::runtime::destinations::Destination;
use crate::runtime::{self, Output, Place, Preopen, Runtime, HELLO};
use crate::supervisor::local::LocalApi;
use crate::supervisor::{
    Awaited, ByHand, PodEvent, Ports, Setup, Supervisor, SystemClock, Terminal, WasmWorkshop,
};
use crate::volume::Volumes;

/// How long guests may take to end after Ctrl-C.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// Linear memory of a container that names no limit: a developer's machine has it.
const DEFAULT_MEMORY: u64 = 1024 * 1024 * 1024;

/// The command line.
pub const COMMAND: CommandLine = CommandLine {
    name: "copepod run",
    operands: "[FILE [ARGUMENT…]]",
    operand_count: (0, 4096),
    about: "Runs a WASI module (.wasm) or a Pod manifest (YAML) here, without a cluster; without FILE, a \
            built-in\nmodule that prints hello. Images of a manifest that begin with a dot or a slash are \
            files, seen from\nthe manifest. Ends with the exit code of the container that failed (1 for codes \
            beyond 255, 128 where it could\nnot be started, 134 for a trap, 137 where a limit ended it). \
            Arguments that begin with a dash come after --.",
    settings: &[
        each(
            "dir",
            "HOST[::GUEST][:ro]",
            "Folder that the guest sees, by this name or as GUEST; with :ro it cannot be written to.",
        ),
        each(
            "env",
            "NAME[=VALUE]",
            "Variable of a module; without a value, the one of this shell. A manifest has its own.",
        ),
        each(
            "listen",
            "[NAME=][ADDRESS:]PORT",
            "TCP port that a module finds open, at 127.0.0.1 or ADDRESS. A manifest has ports of its own.",
        ),
        each(
            "connect",
            "HOST:PORT",
            "Destination that a module may connect to. A manifest has the annotation copepod/connect.",
        ),
        one("memory", "SIZE", "Limit of a module's memory, 64Mi say. A manifest has limits of its own."),
        one(
            "fuel",
            "NUMBER",
            "Fuel of the whole run, about a unit an instruction: what has used it up ends with a trap.",
        ),
        INSECURE_REGISTRIES,
        REGISTRY_CERTS_DIR,
        Setting { default: Some("warn"), ..LOG_LEVEL },
    ],
    configurable: false,
};

const fn each(name: &'static str, shown: &'static str, help: &'static str) -> Setting {
    Setting { name, aliases: &[], takes: Takes::Each(shown), default: None, help, board: false }
}

const fn one(name: &'static str, shown: &'static str, help: &'static str) -> Setting {
    Setting { takes: Takes::Value(shown), ..each(name, shown, help) }
}

/// Runs it.
///
/// # Errors
/// [`Failure`]; [`Failure::Code`] with the exit code of a container that failed.
pub fn run(values: &Values) -> Result<(), Failure> {
    let scratch = Scratch::make().map_err(|error| Failure::Failed(error.to_string()))?;
    let mut operands = values.operands.iter();
    let mut given = match operands.next() {
        None => Given::hello(&scratch.folder)?,
        Some(file) => Given::read(Path::new(file), operands.as_slice())?,
    };
    given.take(values)?;
    let registries = Registries {
        insecure: values.list("insecure-registries").to_vec(),
        certs_dir: values.text("registry-certs-dir").map(PathBuf::from).unwrap_or_default(),
    };
    let status = control::run(supervise(given, registries, &scratch.folder))?;
    status.map_or(Ok(()), |status| outcome(&status))
}

/// A folder for images and logs that is gone afterwards.
struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    fn make() -> io::Result<Scratch> {
        let folder = std::env::temp_dir().join(format!("copepod-run-{:016x}", fastrand::u64(..)));
        ensure_private_dir(&folder)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", folder.display())))?;
        Ok(Scratch { folder })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What to run, and what it is given here.
struct Given {
    pod: Pod,
    /// It was made around a module.
    is_module: bool,
    by_hand: ByHand,
}

impl Given {
    fn hello(folder: &Path) -> Result<Given, Failure> {
        let path = folder.join("hello.wasm");
        fs::write(&path, HELLO)
            .map_err(|error| Failure::Failed(format!("writing {}: {error}", path.display())))?;
        Given::module(&path, &[])
    }

    /// A module by its first bytes, a manifest else.
    fn read(path: &Path, arguments: &[OsString]) -> Result<Given, Failure> {
        let failed = |problem: String| Failure::Failed(format!("{}: {problem}", path.display()));
        let mut head = Vec::new();
        fs::File::open(path)
            .and_then(|file| file.take(4).read_to_end(&mut head))
            .map_err(|error| failed(error.to_string()))?;
        let named = path.extension().is_some_and(|extension| extension == "wasm");
        if named || head == *b"\0asm" {
            return Given::module(path, arguments);
        }
        if !arguments.is_empty() {
            return Err(failed("a manifest takes no arguments: they stand in its containers' args".into()));
        }
        let mut pod = manifest::read(path).map_err(failed)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let local = local_images(&mut pod, folder)?;
        Ok(Given { pod, is_module: false, by_hand: with(local) })
    }

    /// A pod around one module, that runs once.
    fn module(path: &Path, arguments: &[OsString]) -> Result<Given, Failure> {
        let image = local_image(path)?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let arguments: Vec<String> = arguments.iter().map(|a| literal(&a.to_string_lossy())).collect();
        let name = local_name(0);
        let container = Container {
            name: "main".into(),
            image: name.clone(),
            image_pull_policy: "Never".into(),
            command: vec![literal(&stem)],
            args: arguments,
            ..Container::default()
        };
        let spec =
            PodSpec { restart_policy: "Never".into(), containers: vec![container], ..PodSpec::default() };
        let metadata = ObjectMeta { name: "run".into(), ..ObjectMeta::default() };
        let pod = Pod { metadata, spec, ..Pod::default() };
        let by_hand = ByHand { stdin: Some(stdin), rootless: true, ..with(BTreeMap::from([(name, image)])) };
        Ok(Given { pod, is_module: true, by_hand })
    }

    /// What the flags give it.
    fn take(&mut self, values: &Values) -> Result<(), UsageError> {
        for name in ["env", "listen", "connect", "memory"] {
            if let Some(origin) = values.origin(name).filter(|_| !self.is_module) {
                let problem = "a manifest says it for each of its containers".to_owned();
                return Err(UsageError::Value { origin: origin.to_owned(), problem });
            }
        }
        self.by_hand.folders = values.parse_list("dir", folder)?;
        self.by_hand.fuel = values.parse("fuel", |text| {
            text.parse().map_err(|_| "not a whole number that fits 64 bits".to_owned())
        })?;
        let env = values.parse_list("env", variable)?;
        let ports = values.parse_list("listen", port)?;
        let destinations: Vec<String> = values.parse_list("connect", destination)?;
        let memory = values.parse("memory", size)?;
        if !destinations.is_empty() {
            self.pod.metadata.annotations.insert(CONNECT.to_owned(), destinations.join(","));
        }
        if let Some(container) = self.pod.spec.containers.first_mut().filter(|_| self.is_module) {
            container.env = env;
            container.ports = ports;
            if let Some(memory) = memory {
                container.resources.limits.insert("memory".to_owned(), memory);
            }
        }
        Ok(())
    }
}

fn with(images: BTreeMap<String, Image>) -> ByHand {
    let terminal = Some(Terminal { stdout: Arc::new(Stdout), stderr: Arc::new(Stderr) });
    ByHand { images, terminal, ..ByHand::default() }
}

/// This process's standard input. What waits is opened anew, since non-blocking holds for all who share an open
/// file, the shell among them.
fn stdin() -> io::Result<OwnedFd> {
    let own = io::stdin().as_fd().try_clone_to_owned()?;
    let file_type = FileType::from_raw_mode(fstat(&own)?.st_mode);
    if matches!(file_type, FileType::RegularFile | FileType::BlockDevice) {
        return Ok(own);
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    Ok(open("/proc/self/fd/0", flags, Mode::empty())?)
}

/// A text that is a destination, as the annotation has it.
fn destination(text: &str) -> Result<String, String> {
    let parsed = text.parse::<Destination>();
    parsed.map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// `[NAME=][ADDRESS:]PORT`
fn port(text: &str) -> Result<ContainerPort, String> {
    let (name, place) = text.split_once('=').unwrap_or(("", text));
    let problem = || "not a port: 8080, http=8080, 0.0.0.0:8080 or [::1]:8080".to_owned();
    let (host_ip, number) = match place.parse::<SocketAddr>() {
        Ok(address) => (Some(address.ip().to_string()), address.port()),
        Err(_) => (None, place.parse::<u16>().map_err(|_| problem())?),
    };
    if number == 0 {
        return Err(problem());
    }
    let number = i32::from(number);
    let host_port = if host_ip.is_some() { number } else { 0 };
    let host_ip = host_ip.unwrap_or_default();
    let name = name.to_owned();
    Ok(ContainerPort { name, container_port: number, host_port, host_ip, ..ContainerPort::default() })
}

/// `HOST[::GUEST][:ro]`
fn folder(text: &str) -> Result<Preopen, String> {
    let (text, read_only) = text.strip_suffix(":ro").map_or((text, false), |text| (text, true));
    let (host, guest) = text.split_once("::").unwrap_or((text, text));
    if host.is_empty() || guest.is_empty() {
        return Err(
            "not a folder, or a folder and the name that the guest has for it: HOST::GUEST".to_owned()
        );
    }
    Ok(Preopen {
        guest: guest.to_owned(),
        place: Place::Folder(PathBuf::from(host)),
        read_only,
        account: None,
    })
}

/// `NAME=VALUE`, or `NAME`, whose value is this process's own.
fn variable(text: &str) -> Result<EnvVar, String> {
    let own = || {
        std::env::var(text).map_err(|error| format!("no value is given, and of this shell's own: {error}"))
    };
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, value.to_owned()),
        None => (text, own()?),
    };
    if name.is_empty() {
        return Err("not a variable: NAME=VALUE".to_owned());
    }
    Ok(EnvVar { name: name.to_owned(), value: literal(&value), ..EnvVar::default() })
}

/// A text that means itself where `$(NAME)` would mean a variable.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

/// A quantity of bytes.
fn size(text: &str) -> Result<Quantity, String> {
    let quantity = Quantity(text.to_owned());
    match quantity.value() {
        Some(bytes) if bytes > 0 => Ok(quantity),
        _ => Err("not a size in bytes, such as 64Mi".to_owned()),
    }
}

/// The images of a pod that are files, each under a name that is a reference.
fn local_images(pod: &mut Pod, folder: &Path) -> Result<BTreeMap<String, Image>, Failure> {
    let mut local = BTreeMap::new();
    let spec = &mut pod.spec;
    for container in spec.init_containers.iter_mut().chain(&mut spec.containers) {
        if container.image.starts_with(['.', '/']) {
            let name = local_name(local.len());
            local.insert(name.clone(), local_image(&folder.join(&container.image))?);
            container.image = name;
            "Never".clone_into(&mut container.image_pull_policy);
        }
    }
    Ok(local)
}

fn local_name(n: usize) -> String {
    format!("localhost/file-{n}:local")
}

fn local_image(path: &Path) -> Result<Image, Failure> {
    image::local(path).map_err(|cause| Failure::Failed(format!("{}: {cause}", path.display())))
}

/// Runs the pod to its end, or to Ctrl-C; its status in the first case.
async fn supervise(
    given: Given,
    registries: Registries,
    folder: &Path,
) -> Result<Option<PodStatus>, Failure> {
    let failed = |what: &str, error: io::Error| Failure::Failed(format!("{what}: {error}"));
    let mut signals = Signals::take().map_err(|error| failed("taking over signals", error))?;
    let store = Store::open(&folder.join("images")).map_err(|error| failed("images", error))?;
    // One pod, on a machine that somebody sits at: no ceiling but each container's own.
    let config = runtime::Config { threads: 0, default_memory: DEFAULT_MEMORY, guest_memory: u64::MAX };
    let runtime =
        Runtime::start(config).map_err(|error| failed("starting the interpreter threads", error))?;
    let node = standalone_facts(&Host::read(folder));
    let pod = defaulted(given.pod, &node.name, Now::read());
    let uid = pod.metadata.uid.clone();
    let supervisor = Supervisor::new(Setup {
        api: LocalApi::new(tell),
        workshop: Arc::new(WasmWorkshop {
            runtime,
            store,
            registries: Arc::new(registries),
            volumes: Volumes::new(folder.join("pods"), folder.join("run"), vec!["/".into()], false),
            logs: Logs::new(folder.join("logs"), crate::log::Settings::default()),
            by_hand: given.by_hand,
            ports: Ports::default(),
            pulling: Arc::default(),
            given: Default::default(),
        }),
        clock: Arc::new(SystemClock),
        node,
        keyring: Keyring::default(),
        deaths: Arc::default(),
        checkpoints: Checkpoints::default(),
        awaited: Awaited::default(),
        storage: Defaults { bytes: u64::MAX, files: u64::MAX, memory: u64::MAX },
        secrets_at_rest: false,
    });
    supervisor.handle(PodEvent::Set(vec![pod]));
    let ended = async { supervisor.outcome(&uid).await };
    let interrupted = async {
        signals.next().await;
        None
    };
    let status = ended.or(interrupted).await;
    supervisor.shutdown(STOP_LIMIT).await;
    Ok(status)
}

fn tell(_: &ObjectReference, event: &EventText) {
    let line = format!("{}: {}", event.reason, event.message);
    match event.kind {
        EventKind::Normal => log::info!("{line}"),
        EventKind::Warning => log::warn!("{line}"),
    }
}

/// Success, or the reason and exit code of what failed.
fn outcome(status: &PodStatus) -> Result<(), Failure> {
    if status.phase == "Succeeded" {
        return Ok(());
    }
    let statuses = status.init_container_statuses.iter().chain(&status.container_statuses);
    let failed = statuses.filter_map(|s| s.state.terminated.as_ref()).find(|ended| ended.exit_code != 0);
    match failed {
        Some(ended) => {
            if !ended.message.is_empty() {
                super::complain(&format!("copepod run: {}: {}", ended.reason, ended.message));
            }
            Err(Failure::Code(u8::try_from(ended.exit_code).unwrap_or(1)))
        }
        None => Err(Failure::Failed(format!("{}: {}", status.reason, status.message))),
    }
}

struct Stdout;

impl Output for Stdout {
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()
    }
}

struct Stderr;

impl Output for Stderr {
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        io::stderr().lock().write_all(bytes)
    }
}
