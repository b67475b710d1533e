//! What a WASI node cannot give a pod: refused in plain words where it would change what the pod means,
//! said in an event where it would not.

use serde_json::Value;

use super::admission::Rejection;
use super::destinations::{destinations, CONNECT};
use super::events::{of_pod, EventKind, EventText};
use super::handlers;
use super::ports::{annotated, is_tcp, LISTEN};
use crate::api::{Container, Pod, Volume, VolumeSource};

/// Name prefix of the volume that the API server's ServiceAccount admission adds to every pod.
const TOKEN_VOLUME: &str = "kube-api-access-";

/// Settings of a security context that say what a process may do on its host. A guest is no process.
const MEANINGLESS: [&str; 11] = [
    "allowPrivilegeEscalation",
    "appArmorProfile",
    "capabilities",
    "fsGroup",
    "privileged",
    "procMount",
    "runAsGroup",
    "runAsUser",
    "seLinuxOptions",
    "seccompProfile",
    "supplementalGroups",
];

/// The volume of the token that the API server gives every pod.
#[must_use]
pub fn is_default_token(volume: &Volume) -> bool {
    volume.name.starts_with(TOKEN_VOLUME) && matches!(volume.source, VolumeSource::Projected(_))
}

/// May the container's guest not write to its own root?
#[must_use]
pub fn has_read_only_root(container: &Container) -> bool {
    let context = container.security_context.as_ref();
    context.and_then(|context| context.get("readOnlyRootFilesystem")).and_then(Value::as_bool) == Some(true)
}

/// What is wrong with a volume, where this node cannot give it. The one place that says which it can.
fn volume_refusal(volume: &Volume) -> Option<String> {
    match &volume.source {
        VolumeSource::EmptyDir(source) if source.medium.is_empty() || source.medium == "Memory" => None,
        VolumeSource::EmptyDir(source) => Some(format!("an emptyDir of medium {}", source.medium)),
        VolumeSource::Projected(projected) => projected.sources.iter().find_map(|source| {
            if source.cluster_trust_bundle.is_some() {
                Some("a projection of a clusterTrustBundle".to_owned())
            } else if source.pod_certificate.is_some() {
                Some("a projection of a podCertificate".to_owned())
            } else {
                None
            }
        }),
        VolumeSource::ConfigMap(_)
        | VolumeSource::Secret(_)
        | VolumeSource::DownwardApi(_)
        | VolumeSource::HostPath(_)
        | VolumeSource::Image(_) => None,
        VolumeSource::Other(kind) => {
            let kind = if kind.is_empty() { "no known" } else { kind };
            Some(format!("a volume of {kind} kind"))
        }
    }
}

/// The first thing that this node cannot give the pod, if the pod would mean something else without it.
pub fn refusal(pod: &Pod) -> Option<Rejection> {
    let spec = &pod.spec;
    let of_pod = [
        (spec.host_pid, "HostPIDNotSupported", "hostPID: guests are no processes and see none of the host's"),
        (
            spec.host_ipc,
            "HostIPCNotSupported",
            "hostIPC: WASI has no interprocess memory or semaphores to share",
        ),
        (
            !spec.resource_claims.is_empty(),
            "ResourceClaimsNotSupported",
            "resourceClaims: this node hands out no devices",
        ),
        (
            spec.runtime_class_name.as_deref().is_some_and(|name| !name.is_empty()),
            "RuntimeClassNotSupported",
            "runtimeClassName: this node has one runtime, and no handlers to choose from; leave it out",
        ),
    ];
    if let Some((_, reason, message)) = of_pod.into_iter().find(|(set, ..)| *set) {
        return Some(Rejection::new(reason, message.to_owned()));
    }
    if spec.security_context.as_ref().and_then(|c| c.get("sysctls")).is_some_and(|s| !is_empty(s)) {
        let message = "securityContext.sysctls: a guest has no kernel of its own to set them on";
        return Some(Rejection::new("SysctlForbidden", message.to_owned()));
    }
    let listen = pod.metadata.annotations.get(LISTEN).and_then(|text| annotated(text).err());
    let wrong = listen.map(|error| (LISTEN, error)).or_else(|| Some((CONNECT, destinations(pod).err()?)));
    if let Some((annotation, error)) = wrong {
        return Some(Rejection::new("AnnotationInvalid", format!("annotation {annotation}: {error}")));
    }
    spec.init_containers.iter().chain(&spec.containers).find_map(|c| container_refusal(pod, c))
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

fn container_refusal(pod: &Pod, container: &Container) -> Option<Rejection> {
    let name = &container.name;
    let unsupported = |reason: &str, what: &str| {
        Some(Rejection::new(
            reason,
            format!("container \"{name}\" has {what}, which this node cannot give yet"),
        ))
    };
    if let Some(problem) = handlers::problem(container) {
        let message = format!("container \"{name}\" has {problem}");
        return Some(Rejection::new("HandlerNotSupported", message));
    }
    if !container.volume_devices.is_empty() {
        return unsupported("VolumeDevicesNotSupported", "volumeDevices (raw block devices)");
    }
    let restarts_all =
        |rule: &Value| rule.get("action").and_then(Value::as_str) == Some("RestartAllContainers");
    if container.restart_policy_rules.iter().any(restarts_all) {
        let message =
            "Pod requires node features that are not available: RestartAllContainersOnContainerExits";
        return Some(Rejection::new("PodFeatureUnsupported", message.to_owned()));
    }
    container.volume_mounts.iter().find_map(|mount| {
        let volume = pod.spec.volumes.iter().find(|volume| volume.name == mount.name);
        let what = match volume {
            Some(volume) => volume_refusal(volume)?,
            None => "a volume that the pod does not have".to_owned(),
        };
        let message =
            format!("container \"{name}\" mounts \"{}\", {what}, which this node cannot give", mount.name);
        Some(Rejection::new("VolumeNotSupported", message))
    })
}

/// What the pod asks for and will not get, without being the worse for it.
pub fn notes(pod: &Pod) -> Vec<EventText> {
    let mut notes = Vec::new();
    let ignored = ignored_settings(pod);
    if !ignored.is_empty() {
        let message = format!(
            "Ignored {}: a WASI guest is no process of this host and has no user, group or capability there",
            ignored.join(", ")
        );
        notes.push(of_pod(EventKind::Normal, "SettingIgnored", message));
    }
    for container in pod.spec.init_containers.iter().chain(&pod.spec.containers) {
        let name = &container.name;
        if !container.working_dir.is_empty() && container.working_dir != "/" {
            let message = format!(
                "Ignored workingDir \"{}\" of container \"{name}\": WASI has no working directory, guests start in /",
                container.working_dir
            );
            notes.push(of_pod(EventKind::Normal, "SettingIgnored", message));
        }
        for port in container.ports.iter().filter(|port| !is_tcp(port)) {
            let message = format!(
                "Port {} of container \"{name}\" is not opened: WASI preview 1 has no {} sockets",
                port.container_port, port.protocol
            );
            notes.push(of_pod(EventKind::Normal, "SettingIgnored", message));
        }
    }
    notes
}

fn ignored_settings(pod: &Pod) -> Vec<&'static str> {
    let containers = pod.spec.init_containers.iter().chain(&pod.spec.containers);
    let contexts: Vec<&Value> = containers
        .filter_map(|container| container.security_context.as_ref())
        .chain(pod.spec.security_context.as_ref())
        .collect();
    // A setting that only takes something away ("allowPrivilegeEscalation": false) holds here anyway.
    let asks = |value: &Value| !value.is_null() && value.as_bool() != Some(false) && !is_empty(value);
    let mut ignored: Vec<&'static str> = MEANINGLESS
        .into_iter()
        .filter(|key| contexts.iter().any(|context| context.get(key).is_some_and(asks)))
        .collect();
    if pod.spec.share_process_namespace == Some(true) {
        ignored.push("shareProcessNamespace");
    }
    if pod.spec.host_users == Some(false) {
        ignored.push("hostUsers: false");
    }
    ignored
}
