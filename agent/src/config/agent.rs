//! The settings of the agent itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use super::container_logs::{self, LOG_DIR, LOG_FLUSH_INTERVAL, LOG_MAX_FILES, LOG_MAX_SIZE, LOG_RATE};
use super::image_gc::{self, IMAGE_GC_HIGH_THRESHOLD, IMAGE_GC_LOW_THRESHOLD};
use super::kubelet_api;
use super::machine::{parse_host_path, parse_host_paths, share_memory, MIB};
use super::node_labels::{parse_label, parse_taint};
use super::setting::{CommandLine, Setting, Takes};
use super::values::{UsageError, Values};
use crate::console;
use crate::image::{Registries, Thresholds};
use crate::log;
use crate::pod::storage::Defaults;

/// Most pods that a node can be set to take; what it holds comes out of its memory long before.
const MAX_PODS: u32 = 10_000;
/// Most MiB that can be set as a container's share of the disk: a tebibyte.
const MAX_STORAGE: u64 = 1024 * 1024;
/// Most files that a container can be set to have: what is counted at a start of the agent is gone through.
const MAX_FILES: u64 = 10_000_000;
/// Most interpreter threads.
const MAX_THREADS: usize = 256;
/// Characters of a node's name: it is also the value of the label `kubernetes.io/hostname`.
const MAX_NODE_NAME: usize = 63;

/// The machine's configuration file, which need not be there.
pub const CONFIG_FILE: &str = "/etc/copepod/copepod.yaml";

/// `copepod` without a sub-command: join a cluster and be a node of it.
pub const COMMAND: CommandLine = CommandLine {
    name: "copepod",
    operands: "",
    operand_count: (0, 0),
    about:
        "Copepod joins this machine to a Kubernetes cluster as a node that runs WebAssembly (WASI) modules.\n\
            \n\
            Commands:\n  \
            copepod            join a cluster and run its pods\n  \
            copepod board      show what this machine is set to by its board file\n  \
            copepod bootstrap  make the bootstrap file that a new node joins with\n  \
            copepod console    print the address of this node's page\n  \
            copepod logs       print what a container here has printed\n  \
            copepod pods       list the pods of this node\n  \
            copepod push       push a module to a registry\n  \
            copepod run        run a module or a Pod manifest here, without a cluster\n  \
            copepod status     say how this node is\n\
            \n\
            Each has its own --help.",
    settings: SETTINGS,
    configurable: true,
};

pub(super) const fn value(
    name: &'static str,
    aliases: &'static [&'static str],
    shown: &'static str,
    default: Option<&'static str>,
    help: &'static str,
) -> Setting {
    Setting { name, aliases, takes: Takes::Value(shown), default, help, board: false }
}

pub(super) const fn number(
    name: &'static str,
    shown: &'static str,
    default: Option<&'static str>,
    help: &'static str,
) -> Setting {
    Setting { name, aliases: &[], takes: Takes::Number(shown), default, help, board: false }
}

const fn list(
    name: &'static str,
    shown: &'static str,
    default: Option<&'static str>,
    help: &'static str,
) -> Setting {
    Setting { name, aliases: &[], takes: Takes::List(shown), default, help, board: false }
}

/// `--insecure-registries`, which several commands have.
pub const INSECURE_REGISTRIES: Setting =
    list("insecure-registries", "HOST[:PORT]", None, "Registries that may be spoken to without TLS.");

/// `--registry-certs-dir`, likewise.
pub const REGISTRY_CERTS_DIR: Setting = value(
    "registry-certs-dir",
    &[],
    "DIR",
    Some("/etc/copepod/certs.d"),
    "Certificate authorities of private registries, as DIR/HOST[:PORT]/ca.crt. The system's own (or \
     SSL_CERT_FILE) hold for all.",
);

/// `--log-level`, likewise.
pub const LOG_LEVEL: Setting =
    value("log-level", &[], "LEVEL", Some("info"), "error, warn, info, debug or trace.");

const SETTINGS: &[Setting] = &[
    value(
        "bootstrap-file",
        &["bootstrap-kubeconfig"],
        "FILE",
        None,
        "Kubeconfig with the token that a new node joins with (copepod bootstrap makes one). Needed until \
         the node has a certificate of its own.",
    ),
    value(
        "kubeconfig",
        &[],
        "FILE",
        None,
        "Kubeconfig of this node. Written once the node has joined; a file that is there is used as it is \
         [default: DATA-DIR/kubeconfig].",
    ),
    value(
        "pod-manifest-path",
        &["static-pod-path"],
        "DIR",
        None,
        "Folder of static pods, a manifest a file: they run whatever becomes of the API server, which is shown an \
         image of each. With neither a bootstrap file nor a kubeconfig the node runs them alone, in no cluster.",
    ),
    value("data-dir", &[], "DIR", Some("/var/lib/copepod"), "Where keys, images and logs are kept.")
        .of_the_board(),
    value(
        "run-dir",
        &[],
        "DIR",
        None,
        "Folder in memory (a tmpfs) for the secrets and tokens that pods mount, and for emptyDir volumes of medium \
         Memory [default: the RUNTIME_DIRECTORY that systemd gives, else DATA-DIR/run].",
    ),
    value(
        "secrets-at-rest",
        &[],
        "true|false",
        Some("true"),
        "Whether the secrets and tokens that pods are given are kept in the data folder as well (readable by the \
         agent alone), so that those pods start after a power cut without the API server. With false they are kept \
         in memory only, and such pods wait for the API server.",
    ),
    value(
        "node-name",
        &["hostname-override"],
        "NAME",
        None,
        "Name of the node [default: the host's name in lower case].",
    ),
    value(
        "node-ip",
        &[],
        "IP",
        None,
        "Address of the node, where the API server reaches it [default: the address that leads to the API \
         server, followed when the network gives another one].",
    ),
    kubelet_api::ADDRESS,
    kubelet_api::PORT,
    list(
        "node-labels",
        "KEY=VALUE",
        None,
        "Labels of the node, added to the default ones or in their place.",
    ),
    list(
        "register-with-taints",
        "KEY=VALUE:EFFECT",
        Some("krustlet/arch=wasm32-wasi:NoExecute"),
        "Taints that the node is registered with. An empty value registers it with none.",
    ),
    number("max-pods", "N", Some("110"), "Pods that the node takes at most."),
    Setting {
        name: "console",
        aliases: &[],
        takes: Takes::Optional("PORT"),
        default: None,
        help: "A page about this node, for a browser on this machine or behind ssh -L, on this port of loopback [PORT \
               is 10248 if it is left out; false: no page]. copepod console prints its address.",
        board: true,
    },
    kubelet_api::CLIENT_CA_FILE,
    kubelet_api::SYSTEM_LOG_DIR,
    INSECURE_REGISTRIES,
    REGISTRY_CERTS_DIR,
    IMAGE_GC_HIGH_THRESHOLD,
    IMAGE_GC_LOW_THRESHOLD,
    number("interpreter-threads", "N", Some("0"), "Threads that run guests; 0 means one a core.")
        .of_the_board(),
    number(
        "memory-reserved",
        "MIB",
        Some("0"),
        "Memory, in MiB, that is kept for the system and the agent: pods are given the machine's without it \
         (the node's allocatable memory).",
    )
    .of_the_board(),
    number(
        "guest-memory",
        "MIB",
        None,
        "Memory, in MiB, that all guests may have together: what would pass it is refused to the guest that \
         asks [default: the machine's without --memory-reserved].",
    )
    .of_the_board(),
    number("default-memory", "MIB", Some("128"), "Memory limit, in MiB, of a container that names none.")
        .of_the_board(),
    number(
        "default-storage",
        "MIB",
        Some("64"),
        "What the files of a container may take in its pod's emptyDir volumes and its own root, in MiB, if it has no \
         limit of ephemeral-storage. A guest that would write more is refused, and its pod evicted.",
    )
    .of_the_board(),
    number(
        "container-max-files",
        "N",
        Some("4096"),
        "Files, folders and links that a container may have in its pod's emptyDir volumes.",
    )
    .of_the_board(),
    value(
        "watchdog-device",
        &[],
        "PATH",
        None,
        "Hardware watchdog that the agent feeds, so that a board that hangs is started anew; none means that \
         it feeds none [default: none].",
    )
    .of_the_board(),
    list(
        "host-paths",
        "PATH",
        None,
        "Folders, files and devices of this machine that pods may be given by hostPath volumes, each with all that is \
         in it. copepod board --systemd opens them for the service.",
    )
    .of_the_board(),
    value(
        "board",
        &[],
        "NAME|FILE",
        None,
        "Board file: settings that come with the machine (copepod board shows them). NAME is one of copepod \
         board --list; a FILE has a / in it or ends in .toml; none means no board file [default: the one that \
         is for this machine, by /proc/device-tree/compatible].",
    ),
    LOG_DIR,
    LOG_MAX_SIZE,
    LOG_MAX_FILES,
    LOG_RATE,
    LOG_FLUSH_INTERVAL,
    LOG_LEVEL,
    value(
        "config",
        &[],
        "FILE",
        None,
        "Configuration file (YAML) [default: /etc/copepod/copepod.yaml, if it is there].",
    ),
];

/// The agent's settings, checked.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// `--bootstrap-file`
    pub bootstrap_file: Option<PathBuf>,
    /// `--kubeconfig`
    pub kubeconfig: PathBuf,
    /// `--pod-manifest-path`
    pub pod_manifest_path: Option<PathBuf>,
    /// `--data-dir`
    pub data_dir: PathBuf,
    /// `--run-dir`
    pub run_dir: PathBuf,
    /// `--secrets-at-rest`
    pub secrets_at_rest: bool,
    /// `--console`: its port, if it is wanted.
    pub console: Option<u16>,
    /// `--node-name`, lower-cased
    pub node_name: String,
    /// `--node-ip`
    pub node_ip: Option<IpAddr>,
    /// `--address`
    pub address: IpAddr,
    /// `--port`
    pub port: u16,
    /// `--node-labels`
    pub node_labels: Vec<(String, String)>,
    /// `--register-with-taints`: key, value, effect
    pub taints: Vec<(String, String, String)>,
    /// `--max-pods`
    pub max_pods: u32,
    /// `--client-ca-file`
    pub client_ca_file: Option<PathBuf>,
    /// `--system-log-dir`; none: the machine's logs are handed to nobody
    pub system_log_dir: Option<PathBuf>,
    /// `--insecure-registries`
    pub insecure_registries: Vec<String>,
    /// `--registry-certs-dir`
    pub registry_certs_dir: PathBuf,
    /// `--image-gc-high-threshold`, `--image-gc-low-threshold`
    pub image_gc: Thresholds,
    /// `--interpreter-threads`
    pub interpreter_threads: usize,
    /// `--memory-reserved`, in bytes; less than the machine has
    pub memory_reserved: u64,
    /// `--guest-memory`, in bytes
    pub guest_memory: u64,
    /// `--default-memory`, in bytes
    pub default_memory: u64,
    /// `--default-storage`, `--container-max-files`
    pub storage: Defaults,
    /// `--watchdog-device`
    pub watchdog_device: Option<PathBuf>,
    /// `--host-paths`: absolute, without `..`
    pub host_paths: Vec<PathBuf>,
    /// `--log-dir`
    pub log_dir: PathBuf,
    /// `--container-log-max-size`, `--container-log-max-files`, `--log-rate`, `--log-flush-interval`
    pub logs: log::Settings,
}

impl AgentConfig {
    /// The settings of the interpreter.
    #[must_use]
    pub fn runtime(&self) -> crate::runtime::Config {
        crate::runtime::Config {
            threads: self.interpreter_threads,
            default_memory: self.default_memory,
            guest_memory: self.guest_memory,
        }
    }

    /// How registries are spoken to.
    #[must_use]
    pub fn registries(&self) -> Registries {
        Registries { insecure: self.insecure_registries.clone(), certs_dir: self.registry_certs_dir.clone() }
    }

    /// Checks every value. `host_name` is what the kernel calls this machine, `memory` what it has, in
    /// bytes; 0 where that is not known.
    ///
    /// # Errors
    /// [`UsageError`], one line that names the flag, variable, key or field.
    pub fn from_values(values: &Values, host_name: &str, memory: u64) -> Result<AgentConfig, UsageError> {
        // Absolute: files of ours name each other, and are read relative to where they stand.
        let absolute = |text: &str| std::path::absolute(text).map_err(|error| error.to_string());
        let path = |name: &str| values.parse(name, absolute);
        let data_dir = path("data-dir")?.unwrap_or_default();
        let node_name = match values.parse("node-name", parse_node_name)? {
            Some(name) => name,
            None => parse_node_name(host_name).map_err(|problem| UsageError::Value {
                origin: format!("host name {host_name:?}"),
                problem: format!("{problem}; set --node-name"),
            })?,
        };
        let taints = values.parse_list("register-with-taints", parse_taint)?;
        for (at, (key, _, effect)) in taints.iter().enumerate() {
            if taints.iter().take(at).any(|(k, _, e)| (k, e) == (key, effect)) {
                return Err(UsageError::Value {
                    origin: "--register-with-taints".into(),
                    problem: format!("{key}:{effect} stands there twice"),
                });
            }
        }
        let console = values.parse("console", parse_console)?.flatten();
        let (memory_reserved, guest_memory) = share_memory(values, memory)?;
        let host_paths = parse_host_paths(values)?;
        let default_memory = values
            .parse("default-memory", |text| parse_number(text, 1, 4096u64))?
            .unwrap_or(128)
            .saturating_mul(MIB);
        let node_ip = values.parse("node-ip", parse_node_ip)?;
        let any = match node_ip {
            Some(IpAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        Ok(AgentConfig {
            console,
            bootstrap_file: path("bootstrap-file")?,
            pod_manifest_path: path("pod-manifest-path")?,
            run_dir: path("run-dir")?.unwrap_or_else(|| match std::env::var_os("RUNTIME_DIRECTORY") {
                Some(folder) => PathBuf::from(folder),
                None => data_dir.join("run"),
            }),
            secrets_at_rest: values
                .parse("secrets-at-rest", |text| {
                    text.parse::<bool>().map_err(|_| "neither true nor false".into())
                })?
                .unwrap_or(true),
            kubeconfig: path("kubeconfig")?.unwrap_or_else(|| data_dir.join("kubeconfig")),
            node_name,
            node_ip,
            address: values
                .parse("address", |text| text.parse::<IpAddr>().map_err(|_| "not an IP address".into()))?
                .unwrap_or(any),
            port: values.parse("port", |text| parse_number(text, 1, u16::MAX))?.unwrap_or(10250),
            node_labels: values.parse_list("node-labels", parse_label)?,
            taints,
            max_pods: values.parse("max-pods", |text| parse_number(text, 0, MAX_PODS))?.unwrap_or(110),
            client_ca_file: path("client-ca-file")?,
            system_log_dir: values.parse("system-log-dir", kubelet_api::folder_or_none)?.flatten(),
            insecure_registries: values.list("insecure-registries").to_vec(),
            registry_certs_dir: path("registry-certs-dir")?.unwrap_or_default(),
            image_gc: image_gc::thresholds(values)?,
            interpreter_threads: values
                .parse("interpreter-threads", |text| parse_number(text, 0, MAX_THREADS))?
                .unwrap_or(0),
            memory_reserved,
            guest_memory,
            default_memory,
            storage: Defaults {
                memory: default_memory,
                bytes: values
                    .parse("default-storage", |text| parse_number(text, 1, MAX_STORAGE))?
                    .unwrap_or(64)
                    .saturating_mul(MIB),
                files: values
                    .parse("container-max-files", |text| parse_number(text, 1, MAX_FILES))?
                    .unwrap_or(4096),
            },
            watchdog_device: values
                .parse("watchdog-device", |text| match text {
                    "" | "none" => Ok(None),
                    path => parse_host_path(path).map(Some),
                })?
                .flatten(),
            host_paths,
            log_dir: path("log-dir")?.unwrap_or_else(|| data_dir.join("logs")),
            logs: container_logs::settings(values)?,
            data_dir,
        })
    }
}

/// A whole number in a range.
pub(super) fn parse_number<T: std::str::FromStr + PartialOrd + std::fmt::Display>(
    text: &str,
    least: T,
    most: T,
) -> Result<T, String> {
    match text.parse::<T>() {
        Ok(number) if number >= least && number <= most => Ok(number),
        _ => Err(format!("not a whole number from {least} to {most}")),
    }
}

/// The console's port: a number, or whether it is wanted at its own.
pub fn parse_console(text: &str) -> Result<Option<u16>, String> {
    match text {
        "true" => Ok(Some(console::PORT)),
        "false" => Ok(None),
        number => parse_number(number, 1, u16::MAX).map(Some),
    }
}

fn parse_node_name(text: &str) -> Result<String, String> {
    let name = text.to_ascii_lowercase();
    let part = |part: &str| {
        !part.is_empty()
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    if name.len() > MAX_NODE_NAME || !name.split('.').all(part) {
        return Err(
            "not a node name: at most 63 letters, digits, '-' and '.', each part beginning and ending with \
             a letter or digit"
                .into(),
        );
    }
    Ok(name)
}

fn parse_node_ip(text: &str) -> Result<IpAddr, String> {
    let ip: IpAddr = text.parse().map_err(|_| "not an IP address".to_owned())?;
    if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() {
        return Err("the API server cannot reach a node at this address".into());
    }
    Ok(ip)
}
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
#[path = "agent_tests.rs"]
pub(super) mod tests;
