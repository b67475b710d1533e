//! What a pod may know of itself: its fields and its resources, for variables and downward API files.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::environment::{error, EnvironmentError};
use super::node::NodeFacts;
use super::resources::amount;
use super::termination::is_default_message;
use super::unsupported::is_default_token;
use crate::api::{Container, Pod, ProjectedVolume, Quantity, ResourceFieldSelector, VolumeSource};

/// The value of a field of the pod, for a variable or a downward API file.
///
/// # Errors
/// When there is no such field, or the node's address is not known yet.
pub fn field_value(pod: &Pod, path: &str, node: &NodeFacts) -> Result<String, EnvironmentError> {
    let meta = &pod.metadata;
    let subscript = path.strip_suffix("']").and_then(|path| path.split_once("['"));
    match subscript {
        Some(("metadata.labels", key)) => return Ok(meta.labels.get(key).cloned().unwrap_or_default()),
        Some(("metadata.annotations", key)) => {
            return Ok(meta.annotations.get(key).cloned().unwrap_or_default())
        }
        Some(_) => return error(format!("fieldPath \"{path}\" does not support subscript")),
        None => {}
    }
    let addresses = || {
        let unknown = || EnvironmentError("the node's address is not known yet".to_owned());
        if node.ips.is_empty() {
            Err(unknown())
        } else {
            Ok(&node.ips)
        }
    };
    Ok(match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => format_map(&meta.labels),
        "metadata.annotations" => format_map(&meta.annotations),
        "spec.nodeName" => pod.spec.node_name.clone(),
        "spec.serviceAccountName" => pod.spec.service_account_name.clone(),
        "status.hostIP" | "status.podIP" => addresses()?.first().cloned().unwrap_or_default(),
        "status.hostIPs" | "status.podIPs" => addresses()?.join(","),
        _ => return error(format!("unsupported fieldPath: {path}")),
    })
}

/// The volume of the token that pods are given, as the last of them had it.
static DEFAULT_TOKEN: Mutex<Weak<ProjectedVolume>> = Mutex::new(Weak::new());

/// What `kubectl apply` notes for itself: the whole manifest once more, up to 256 KiB.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Takes from a pod what only `kubectl apply` reads, unless the pod itself may be shown it.
pub fn lighten(pod: &mut Pod) {
    let containers = pod.spec.init_containers.iter().chain(&pod.spec.containers);
    let froms = containers.flat_map(|c| &c.env).filter_map(|env| env.value_from.as_ref());
    let mut fields = froms.filter_map(|from| from.field_ref.as_ref());
    // A volume can hold all annotations.
    let has_files =
        pod.spec.volumes.iter().any(|volume| matches!(volume.source.kind(), "downwardAPI" | "projected"));
    if !has_files && !fields.any(|field| field.field_path.contains(LAST_APPLIED)) {
        pod.metadata.annotations.remove(LAST_APPLIED);
        if pod.metadata.annotations.is_empty() {
            // An empty tree keeps its last node.
            pod.metadata.annotations = BTreeMap::new();
        }
    }
    // A list that is read takes room for four to begin with, and a pod has one container most often.
    let (spec, status) = (&mut pod.spec, &mut pod.status);
    spec.init_containers.shrink_to_fit();
    spec.containers.shrink_to_fit();
    spec.tolerations.shrink_to_fit();
    spec.volumes.shrink_to_fit();
    spec.image_pull_secrets.shrink_to_fit();
    for container in spec.init_containers.iter_mut().chain(&mut spec.containers) {
        container.env.shrink_to_fit();
        container.volume_mounts.shrink_to_fit();
        // What everybody has, and nothing means the same.
        if is_default_message(container) {
            (container.termination_message_path, container.termination_message_policy) = Default::default();
        }
    }
    for volume in spec.volumes.iter_mut().filter(|volume| is_default_token(volume)) {
        // Every pod has such a volume, of a kilobyte and a half, and nearly all of them are alike.
        if let VolumeSource::Projected(own) = &mut volume.source {
            let mut shared = DEFAULT_TOKEN.lock().unwrap_or_else(PoisonError::into_inner);
            match shared.upgrade() {
                Some(known) if known == *own => *own = known,
                _ => *shared = Arc::downgrade(own),
            }
        }
    }
    status.conditions.shrink_to_fit();
    status.init_container_statuses.shrink_to_fit();
    status.container_statuses.shrink_to_fit();
}

/// `key="value"` lines, as the downward API writes all labels.
fn format_map(map: &BTreeMap<String, String>) -> String {
    let lines: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

/// The value of a container's resource, divided and rounded up.
///
/// # Errors
/// When there is no such container or resource.
pub fn resource_value(
    pod: &Pod,
    container: &Container,
    selector: &ResourceFieldSelector,
    node: &NodeFacts,
) -> Result<String, EnvironmentError> {
    let name = &selector.container_name;
    let container = if name.is_empty() || *name == container.name {
        container
    } else {
        let all = pod.spec.containers.iter().chain(&pod.spec.init_containers);
        match all.into_iter().find(|container| container.name == *name) {
            Some(container) => container,
            None => return error(format!("container {name} not found")),
        }
    };
    let resource = selector.resource.as_str();
    let (list, own_pod, name) = match resource.split_once('.') {
        Some(("limits", name)) => {
            (&container.resources.limits, pod.spec.resources.as_ref().map(|r| &r.limits), name)
        }
        Some(("requests", name)) => (&container.resources.requests, None, name),
        _ => return error(format!("unsupported container resource : {resource}")),
    };
    if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !name.starts_with("hugepages-") {
        return error(format!("unsupported container resource : {resource}"));
    }
    let value_in =
        |list: &BTreeMap<String, Quantity>| list.get(name).and_then(|q| amount(name, q)).filter(|v| *v > 0);
    let mut value = value_in(list);
    if resource.starts_with("limits.") && !name.starts_with("hugepages-") {
        value = value.or_else(|| own_pod.and_then(value_in)).or_else(|| value_in(&node.allocatable));
    }
    // Both are thousandths for cpu, units for all else.
    let one = if name == "cpu" { 1000 } else { 1 };
    let divisor = selector.divisor.as_ref().and_then(|q| amount(name, q)).filter(|d| *d > 0).unwrap_or(one);
    let (value, divisor) = (i128::from(value.unwrap_or(0)), i128::from(divisor));
    Ok(((value + divisor - 1) / divisor).to_string())
}
