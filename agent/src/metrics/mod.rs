//! What the node and its pods have used, and the forms in which it is told: pure, from [`Figures`] to text.
//!
//! The supervisor knows the pods' part and `node/` the machine's. [`resource`] is what metrics-server reads,
//! [`cadvisor`] what dashboards of containers read, [`probes`] how often which probe had which result, [`agent`] the
//! agent's own; [`summary`] is the kubelet's Summary API in JSON. [`text`] is Prometheus' text format.
//!
//! A guest's memory is its linear memory, as its limit counts it: pages of it that were never written to, or hold
//! zeros alone, are given back to the kernel and cost less than is told.

mod agent;
mod cadvisor;
mod probes;
mod resource;
mod summary;
#[cfg(test)]
mod tests;
mod text;

use std::time::Duration;

use jiff::Timestamp;

use crate::log::PodKey;
use crate::runtime::Usage;

pub use agent::agent;
pub use cadvisor::cadvisor;
pub use probes::probes;
pub use resource::resource;
pub use summary::{summary, Rates};
pub use text::CONTENT_TYPE;

/// Everything that was used, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// When.
    pub at: Timestamp,
    /// The same moment on the monotonic clock.
    pub mono: Duration,
    /// The machine.
    pub machine: Machine,
    /// The agent's process, guests included.
    pub process: Process,
    /// What the agent counts.
    pub counts: Counts,
    /// The pods that run, or ran and are not gone yet.
    pub pods: Vec<PodFigures>,
}

/// What the machine has, and what all that runs on it uses.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// The node's name.
    pub node: String,
    /// When it was started.
    pub booted: Timestamp,
    /// Processors.
    pub cores: u32,
    /// CPU time since it was started.
    pub cpu: Duration,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of it that could be had.
    pub available: u64,
    /// Bytes swapped out.
    pub swapped: u64,
    /// The file system of the agent's data.
    pub disk: Disk,
    /// Tasks.
    pub tasks: u64,
    /// Tasks that there can be.
    pub max_tasks: u64,
    /// Network interfaces but loopback: name, bytes received, bytes sent.
    pub interfaces: Vec<(String, u64, u64)>,
}

/// A file system, in bytes and inodes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk {
    /// Bytes in all.
    pub capacity: u64,
    /// Bytes free for this user.
    pub available: u64,
    /// Bytes free for root.
    pub free: u64,
    /// Inodes in all; 0 where they are made as needed.
    pub inodes: u64,
    /// Inodes free.
    pub inodes_free: u64,
}

/// The agent's process.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// When it began.
    pub started: Timestamp,
    /// CPU time of all its threads.
    pub cpu: Duration,
    /// Bytes resident.
    pub resident: u64,
    /// Bytes of address space.
    pub size: u64,
    /// Files open.
    pub open_files: u64,
    /// Files that it may have open.
    pub max_files: u64,
    /// Threads.
    pub threads: u64,
    /// Bytes that it caused to be written to disks (`write_bytes` of `/proc/PID/io`); none: the kernel does not count.
    pub written: Option<u64>,
}

/// What the agent counts of itself.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Containers that were started.
    pub started: u64,
    /// Containers that could not be started.
    pub failed: u64,
    /// Linear memory of all guests, in bytes.
    pub guest_memory: u64,
    /// What they may have together, in bytes.
    pub guest_memory_limit: u64,
    /// Where the API server is.
    pub api_server: String,
    /// Requests to it that were answered: method, status code (0: there was no answer), how often.
    pub requests: Vec<(&'static str, u16, u64)>,
    /// When the client certificate ends.
    pub client_certificate: Option<Timestamp>,
    /// When the serving certificate ends.
    pub serving_certificate: Option<Timestamp>,
}

/// What a pod has used.
#[derive(Clone, Debug)]
pub struct PodFigures {
    /// Which.
    pub pod: PodKey,
    /// `status.startTime`
    pub started: Timestamp,
    /// What all that ever ran in it has used.
    pub used: Usage,
    /// Bytes and names of its files on the disk, logs and images apart.
    pub files: (u64, u64),
    /// Bytes of them that there may be.
    pub files_limit: u64,
    /// What runs now.
    pub containers: Vec<ContainerFigures>,
    /// What its probes came to.
    pub probes: Vec<ProbeCount>,
}

/// What the run of a container has used.
#[derive(Clone, Debug)]
pub struct ContainerFigures {
    /// Its name.
    pub name: String,
    /// `containerID`, without its scheme.
    pub id: String,
    /// The image as its pod names it.
    pub image: String,
    /// Since when it runs.
    pub started: Timestamp,
    /// What it has used since.
    pub used: Usage,
    /// Bytes of memory that it may use.
    pub memory_limit: u64,
    /// Thousandths of a processor that it may use; none: all that there is.
    pub cpu_limit: Option<u32>,
    /// Thousandths of a processor that it asks for.
    pub cpu_request: u32,
}

/// How often a probe of a container came to a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeCount {
    /// The container.
    pub container: String,
    /// `Liveness`, `Readiness` or `Startup`.
    pub kind: &'static str,
    /// `successful`, `failed` or `unknown`.
    pub result: &'static str,
    /// How often.
    pub count: u64,
}
