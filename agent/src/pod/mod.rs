//! What was, what happened → what to do, what to report. Functions over values: no I/O, no clock.
//!
//! * [`admission`] says whether a pod may run here; `affinity`, [`resources`] and `unsupported` are its parts.
//! * [`record`] keeps what happened to a pod, [`happening`] puts it there, [`lifecycle`] says what to do next,
//!   with the waits of [`backoff`] and the restart rules of [`policy`].
//! * [`environment`] gives a container its variables and arguments ([`expansion`], [`services`], [`downward`], [`env_file`]),
//!   [`ports`] what it listens on, [`destinations`] where it may connect to, [`storage`] how far it may fill the disk.
//! * [`status`] turns record into `status`, with [`phase`] and [`conditions`]; [`patch`] says what of it is new.
//! * [`payload`] makes the files of volumes out of objects, [`hosts`] and [`termination`] speak of a container's own root.
//! * [`handlers`] reads what is done to a container from outside: probes and hooks.
//! * [`resize`] says that a pod cannot be resized in place.
//! * [`checkpoint`] is a pod as it is written down, for a life of the agent that has nobody to ask.
//! * [`events`] holds the words that `kubectl describe` shows; [`logs`] which run's log is asked for.
//!
//! Time comes in as [`crate::durable::clock::Now`]; waits are reckoned on its monotonic half.

pub mod admission;
mod affinity;
pub mod backoff;
pub mod checkpoint;
pub mod conditions;
pub mod destinations;
pub mod downward;
pub mod env_file;
pub mod environment;
pub mod events;
pub mod expansion;
pub mod handlers;
pub mod happening;
pub mod hosts;
pub mod lifecycle;
pub mod logs;
pub mod node;
pub mod patch;
pub mod payload;
pub mod phase;
pub mod policy;
pub mod ports;
pub mod record;
pub mod resize;
pub mod resources;
pub mod services;
pub mod status;
pub mod storage;
pub mod termination;
mod unsupported;

#[cfg(test)]
pub(crate) mod samples;

/// Annotation: a stopping guest is not ended at once, but told, and given the grace period (design: Stopping).
pub const WAIT_FOR_GRACE: &str = "copepod/wait-for-grace";

/// Variable of such a pod's containers: the path of a file that is there when they are to stop.
pub const STOP_FILE: &str = "COPEPOD_STOP_FILE";

/// Does the pod have [`WAIT_FOR_GRACE`]?
#[must_use]
pub fn waits_for_grace(pod: &crate::api::Pod) -> bool {
    pod.metadata.annotations.get(WAIT_FOR_GRACE).is_some_and(|value| value == "true")
}

/// Annotation that marks the API server's image of a static pod; never run from there. Its value is the pod's hash.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// Annotation: where a pod comes from; only static pods keep one.
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";

/// The value of [`CONFIG_SOURCE`] of a pod from a manifest.
pub const FROM_FILE: &str = "file";

/// Annotation: when a static pod was seen first.
pub const CONFIG_SEEN: &str = "kubernetes.io/config.seen";

/// Annotation: the hash of a static pod, which is its UID.
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";

/// Does the pod come from a manifest of this node?
#[must_use]
pub fn is_static(pod: &crate::api::Pod) -> bool {
    pod.metadata.annotations.get(CONFIG_SOURCE).is_some_and(|source| source == FROM_FILE)
}
