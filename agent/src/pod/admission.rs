//! Whether a pod that the API server shows for this node may run on it (`pkg/kubelet/lifecycle/predicate.go`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::events::{of_pod, EventKind, EventText};
use super::node::NodeFacts;
use super::ports::declared;
use super::resources::{amount, requests};
use super::{affinity, unsupported};
use crate::api::{ContainerPort, Pod};

pub use super::unsupported::{has_read_only_root, is_default_token};

/// Why a pod is refused: it becomes Failed and is never looked at again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// One word, `status.reason`.
    pub reason: String,
    /// For people; `status.message` prefixes it.
    pub message: String,
}

impl Rejection {
    /// A rejection.
    #[must_use]
    pub fn new(reason: &str, message: String) -> Rejection {
        Rejection { reason: reason.to_owned(), message }
    }

    /// What `kubectl describe` shows of it.
    #[must_use]
    pub fn event(&self) -> EventText {
        of_pod(EventKind::Warning, &self.reason, self.message.clone())
    }

    /// `status.message` of the rejected pod.
    #[must_use]
    pub fn status_message(&self) -> String {
        format!("Pod was rejected: {}", self.message)
    }
}

/// Decides on a pod, given the pods that already hold a place here (not the finished ones).
/// Admitted: the events that say what it will not get.
///
/// # Errors
/// The first reason against it, in a kubelet's order; what only this node refuses comes last.
pub fn admit(pod: &Pod, node: &NodeFacts, others: &[&Pod]) -> Result<Vec<EventText>, Rejection> {
    let refusal = operating_system(pod, node)
        .or_else(|| supplemental_groups(pod))
        .or_else(|| room(pod, node, others))
        .or_else(|| {
            predicate(
                !affinity::matches(pod, node),
                "NodeAffinity",
                "didn't match Pod's node affinity/selector",
            )
        })
        .or_else(|| predicate(elsewhere(pod, node), "NodeName", "didn't match the requested node name"))
        .or_else(|| {
            predicate(
                ports_taken(pod, node, others),
                "NodePorts",
                "didn't have free ports for the requested pod ports",
            )
        })
        .or_else(|| {
            let untolerated = affinity::untolerated(pod, node).is_some();
            predicate(untolerated, "TaintToleration", "had taints that the pod didn't tolerate")
        })
        .or_else(|| unsupported::refusal(pod));
    match refusal {
        Some(rejection) => Err(rejection),
        None => Ok(unsupported::notes(pod)),
    }
}

fn predicate(failed: bool, name: &str, text: &str) -> Option<Rejection> {
    failed.then(|| Rejection::new(name, format!("Predicate {name} failed: node(s) {text}")))
}

fn elsewhere(pod: &Pod, node: &NodeFacts) -> bool {
    !pod.spec.node_name.is_empty() && pod.spec.node_name != node.name
}

/// The label `kubernetes.io/os`, by which a pod and a node say what they are for and what they are.
const OS_LABEL: &str = "kubernetes.io/os";

fn operating_system(pod: &Pod, node: &NodeFacts) -> Option<Rejection> {
    let own = node.labels.get(OS_LABEL);
    let label = pod.metadata.labels.get(OS_LABEL);
    if label.is_some() && label != own {
        let message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return Some(Rejection::new("PodOSSelectorNodeLabelDoesNotMatch", message.to_owned()));
    }
    let os = pod.spec.os.as_ref().map(|os| &os.name);
    if os.is_some() && os != own {
        let message = "Failed to admit pod as the OS field doesn't match node OS";
        return Some(Rejection::new("PodOSNotSupported", message.to_owned()));
    }
    None
}

fn supplemental_groups(pod: &Pod) -> Option<Rejection> {
    let policy = pod.spec.security_context.as_ref()?.get("supplementalGroupsPolicy")?.as_str()?;
    (policy == "Strict").then(|| {
        let message = "SupplementalGroupsPolicy=Strict is not supported in this node";
        Rejection::new("SupplementalGroupsPolicyNotSupported", message.to_owned())
    })
}

/// `noderesources.Fits`: the number of pods first, then cpu, memory and the rest.
fn room(pod: &Pod, node: &NodeFacts, others: &[&Pod]) -> Option<Rejection> {
    let capacity =
        |name: &str| node.allocatable.get(name).and_then(|quantity| amount(name, quantity)).unwrap_or(0);
    let taken = i64::try_from(others.len()).unwrap_or(i64::MAX);
    if taken >= capacity("pods") {
        return Some(out_of("pods", 1, taken, capacity("pods")));
    }
    let wanted = requests(pod);
    let mut used: BTreeMap<String, i64> = BTreeMap::new();
    for (name, value) in others.iter().flat_map(|other| requests(other)) {
        if wanted.contains_key(&name) {
            let sum = used.entry(name).or_insert(0);
            *sum = sum.saturating_add(value);
        }
    }
    let lacks = |name: &str| {
        let wanted = wanted.get(name).copied().filter(|wanted| *wanted > 0)?;
        let used = used.get(name).copied().unwrap_or(0);
        (wanted > capacity(name).saturating_sub(used)).then(|| out_of(name, wanted, used, capacity(name)))
    };
    let first = ["cpu", "memory", "ephemeral-storage"];
    // An extended resource that this node does not know is somebody else's to hand out.
    let ours = |name: &&String| !is_extended(name) || node.allocatable.contains_key(*name);
    let rest = wanted.keys().filter(|name| !first.contains(&name.as_str())).filter(ours);
    first.into_iter().find_map(lacks).or_else(|| rest.into_iter().find_map(|name| lacks(name)))
}

/// `v1helper.IsExtendedResourceName`: has a domain that is not Kubernetes' own.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

fn out_of(name: &str, wanted: i64, used: i64, capacity: i64) -> Rejection {
    let message = format!(
        "Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, capacity: {capacity}"
    );
    Rejection::new(&format!("OutOf{name}"), message)
}

fn host_ports(pod: &Pod) -> impl Iterator<Item = &ContainerPort> {
    let containers = pod.spec.init_containers.iter().chain(&pod.spec.containers);
    containers.flat_map(|container| &container.ports).filter(|port| port.host_port > 0)
}

/// Whether a hostPort is another pod's, or any port one of the agent's own: a pod's address is the node's.
fn ports_taken(pod: &Pod, node: &NodeFacts, others: &[&Pod]) -> bool {
    let own = |number: i32| node.own_ports.iter().any(|own| i32::from(*own) == number);
    let containers = pod.spec.init_containers.iter().chain(&pod.spec.containers);
    containers.flat_map(|c| declared(pod, c)).any(|port| own(port.container_port) || own(port.host_port))
        || host_ports(pod)
            .any(|port| others.iter().flat_map(|other| host_ports(other)).any(|other| conflict(port, other)))
}

fn protocol(port: &ContainerPort) -> &str {
    if port.protocol.is_empty() {
        "TCP"
    } else {
        &port.protocol
    }
}

fn conflict(a: &ContainerPort, b: &ContainerPort) -> bool {
    let any = |port: &ContainerPort| matches!(port.host_ip.as_str(), "" | "0.0.0.0" | "::");
    a.host_port == b.host_port && protocol(a) == protocol(b) && (a.host_ip == b.host_ip || any(a) || any(b))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
#[path = "admission_tests.rs"]
mod tests;
