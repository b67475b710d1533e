//! The words of events, as a kubelet writes them (`pkg/kubelet/events/event.go` and where they are used).

use std::time::Duration;

use super::backoff::go_duration;
use super::handlers::ProbeKind;
use crate::api::{ObjectReference, Pod};

/// `type` of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// `Normal`
    Normal,
    /// `Warning`
    Warning,
}

impl EventKind {
    /// The API's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Normal => "Normal",
            EventKind::Warning => "Warning",
        }
    }
}

/// One event about a pod or one of its containers, not yet with a name, a time or a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventText {
    /// `Normal` or `Warning`
    pub kind: EventKind,
    /// One word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// The container that it is about, if not the whole pod.
    pub container: Option<String>,
}

impl EventText {
    /// What the event is about: the pod, or a field of it.
    #[must_use]
    pub fn about(&self, pod: &Pod) -> ObjectReference {
        let field_path = self.container.as_ref().map_or_else(String::new, |name| {
            let init = pod.spec.init_containers.iter().any(|c| c.name == *name);
            format!("spec.{}{{{name}}}", if init { "initContainers" } else { "containers" })
        });
        ObjectReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            resource_version: pod.metadata.resource_version.clone(),
            field_path,
        }
    }
}

fn of(container: &str, kind: EventKind, reason: &str, message: String) -> EventText {
    EventText { kind, reason: reason.to_owned(), message, container: Some(container.to_owned()) }
}

/// An event about the whole pod.
#[must_use]
pub fn of_pod(kind: EventKind, reason: &str, message: String) -> EventText {
    EventText { kind, reason: reason.to_owned(), message, container: None }
}

/// A pull begins.
#[must_use]
pub fn pulling(container: &str, image: &str) -> EventText {
    of(container, EventKind::Normal, "Pulling", format!("Pulling image \"{image}\""))
}

/// A pull took `pull`, with `whole` counted from when it began to wait for its turn.
#[must_use]
pub fn pulled(container: &str, image: &str, pull: Duration, whole: Duration, bytes: u64) -> EventText {
    let (pull, whole) = (go_duration(pull), go_duration(whole));
    let message = format!(
        "Successfully pulled image \"{image}\" in {pull} ({whole} including waiting). Image size: {bytes} bytes."
    );
    of(container, EventKind::Normal, "Pulled", message)
}

/// No pull was needed.
#[must_use]
pub fn present(container: &str, image: &str) -> EventText {
    let message = format!("Container image \"{image}\" already present on machine");
    of(container, EventKind::Normal, "Pulled", message)
}

/// A pull failed.
#[must_use]
pub fn pull_failed(container: &str, image: &str, error: &str) -> EventText {
    of(container, EventKind::Warning, "Failed", format!("Failed to pull image \"{image}\": {error}"))
}

/// A pull is waited for.
#[must_use]
pub fn pull_back_off(container: &str, image: &str) -> EventText {
    of(container, EventKind::Normal, "BackOff", format!("Back-off pulling image \"{image}\""))
}

/// The image is not here and must not be pulled.
#[must_use]
pub fn never_pull(container: &str, image: &str) -> EventText {
    of(container, EventKind::Warning, "ErrImageNeverPull", never_pull_message(image))
}

/// What the container's state says then.
#[must_use]
pub fn never_pull_message(image: &str) -> String {
    format!("Container image \"{image}\" is not present with pull policy of Never")
}

/// The image's name is none.
#[must_use]
pub fn inspect_failed(container: &str, message: &str) -> EventText {
    of(container, EventKind::Warning, "InspectFailed", message.to_owned())
}

/// A container could not be started.
#[must_use]
pub fn failed(container: &str, error: &str) -> EventText {
    of(container, EventKind::Warning, "Failed", format!("Error: {error}"))
}

/// A volume could not be made.
#[must_use]
pub fn failed_mount(volume: &str, error: &str) -> EventText {
    let message = format!("MountVolume.SetUp failed for volume \"{volume}\" : {error}");
    of_pod(EventKind::Warning, "FailedMount", message)
}

/// A container was made.
#[must_use]
pub fn created(container: &str) -> EventText {
    of(container, EventKind::Normal, "Created", "Container created".to_owned())
}

/// A container runs.
#[must_use]
pub fn started(container: &str) -> EventText {
    of(container, EventKind::Normal, "Started", "Container started".to_owned())
}

/// A container is asked to stop.
#[must_use]
pub fn stopping(container: &str) -> EventText {
    of(container, EventKind::Normal, "Killing", format!("Stopping container {container}"))
}

/// What a container wanted done before its stop could not be.
#[must_use]
pub fn pre_stop_failed(container: &str) -> EventText {
    of(container, EventKind::Warning, "FailedPreStopHook", "PreStopHook failed".to_owned())
}

/// What a container wanted done when it began could not be.
#[must_use]
pub fn post_start_failed(container: &str) -> EventText {
    of(container, EventKind::Warning, "FailedPostStartHook", "PostStartHook failed".to_owned())
}

/// A probe failed.
#[must_use]
pub fn unhealthy(container: &str, kind: ProbeKind, output: &str) -> EventText {
    let message = format!("{} probe failed: {output}", kind.word());
    of(container, EventKind::Warning, "Unhealthy", message)
}

/// A probe could not be made.
#[must_use]
pub fn probe_errored(container: &str, kind: ProbeKind, error: &str) -> EventText {
    let message = format!("{} probe errored and resulted in unknown state: {error}", kind.word());
    of(container, EventKind::Warning, "Unhealthy", message)
}

/// A probe succeeded, and something about it is odd.
#[must_use]
pub fn probe_warning(container: &str, kind: ProbeKind, output: &str) -> EventText {
    let message = format!("{} probe warning: {output}", kind.word());
    of(container, EventKind::Warning, "ProbeWarning", message)
}

/// A container is stopped because of what a probe said.
#[must_use]
pub fn unhealthy_stop(container: &str, kind: ProbeKind, again: bool) -> EventText {
    let tail = if again { ", will be restarted" } else { "" };
    let message = format!("Container {container} failed {} probe{tail}", kind.word().to_lowercase());
    of(container, EventKind::Normal, "Killing", message)
}

/// A container is stopped because its image was changed.
#[must_use]
pub fn changed(container: &str) -> EventText {
    let message = format!("Container {container} definition changed, will be restarted");
    of(container, EventKind::Normal, "Killing", message)
}

/// A restart is waited for.
#[must_use]
pub fn restart_back_off(pod: &Pod, container: &str) -> EventText {
    let message = format!("Back-off restarting failed container {container} in pod {}", pod_label(pod));
    of(container, EventKind::Warning, "BackOff", message)
}

/// The agent has died where this container ran.
#[must_use]
pub fn suspected(container: &str, message: String) -> EventText {
    of(container, EventKind::Warning, "BackOff", message)
}

/// The pod was active for longer than it may be.
#[must_use]
pub fn deadline_exceeded() -> EventText {
    of_pod(EventKind::Normal, "DeadlineExceeded", DEADLINE_MESSAGE.to_owned())
}

/// The pod is evicted.
#[must_use]
pub fn evicted(message: &str) -> EventText {
    of_pod(EventKind::Warning, "Evicted", message.to_owned())
}

/// What the pod's status says of that deadline (`active_deadline.go`).
pub const DEADLINE_MESSAGE: &str = "Pod was active on the node longer than the specified deadline";

/// `name_namespace(uid)`, a kubelet's way to name a pod (`util/format/pod.go`).
#[must_use]
pub fn pod_label(pod: &Pod) -> String {
    format!("{}_{}({})", pod.metadata.name, pod.metadata.namespace, pod.metadata.uid)
}
