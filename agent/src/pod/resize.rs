//! Resizing a pod in place: this node says that it cannot (`pkg/kubelet/allocation`), and what was allocated holds on.

use serde_json::json;

use super::events::{of_pod, EventKind, EventText};
use crate::api::{Container, Pod, ResourceRequirements};

/// Why not, for people.
pub const INFEASIBLE: &str =
    "This node cannot resize pods in place: a pod that is made anew gets what it asks for";

/// Gives a new version of a pod the resources that the pod was admitted with. What people should hear of it comes
/// back if it asks for others.
pub fn keep_allocated(admitted: &Pod, pod: &mut Pod) -> Option<EventText> {
    let generation = pod.metadata.generation;
    let all = |pod: &Pod| -> Vec<(String, ResourceRequirements)> {
        let containers = pod.spec.init_containers.iter().chain(&pod.spec.containers);
        containers.map(|container| (container.name.clone(), container.resources.clone())).collect()
    };
    if all(admitted) == all(pod) && admitted.spec.resources == pod.spec.resources {
        return None;
    }
    let asked = |containers: &[Container]| -> Vec<_> {
        containers.iter().map(|c| json!({"name": c.name, "resources": c.resources})).collect()
    };
    let mut summary =
        json!({"containers": asked(&pod.spec.containers), "generation": generation, "error": INFEASIBLE});
    if let Some(fields) = summary.as_object_mut().filter(|_| !pod.spec.init_containers.is_empty()) {
        fields.insert("initContainers".to_owned(), json!(asked(&pod.spec.init_containers)));
    }
    let keep = |containers: &mut Vec<Container>, admitted: &[Container]| {
        for container in containers {
            if let Some(before) = admitted.iter().find(|before| before.name == container.name) {
                container.resources = before.resources.clone();
            }
        }
    };
    keep(&mut pod.spec.init_containers, &admitted.spec.init_containers);
    keep(&mut pod.spec.containers, &admitted.spec.containers);
    pod.spec.resources.clone_from(&admitted.spec.resources);
    Some(of_pod(EventKind::Warning, "ResizeInfeasible", format!("Pod resize Infeasible: {summary}")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::pod::samples::pod as pod_of;

    fn pod(cpu: &str) -> Pod {
        pod_of(&json!({
            "containers": [{"name": "c", "image": "i:1", "resources": {"requests": {"cpu": cpu}}}],
            "initContainers": [{"name": "i", "image": "i:1"}],
        }))
    }

    #[test]
    fn what_was_allocated_holds_and_what_is_asked_for_is_told() {
        let (admitted, mut same, mut other) = (pod("100m"), pod("100m"), pod("200m"));
        assert_eq!(keep_allocated(&admitted, &mut same), None);
        assert_eq!(same, admitted);
        other.metadata.generation = 2;
        let told = keep_allocated(&admitted, &mut other).unwrap();
        assert_eq!((told.reason.as_str(), told.kind), ("ResizeInfeasible", EventKind::Warning));
        assert!(told.message.starts_with("Pod resize Infeasible: {"), "{}", told.message);
        assert!(
            told.message.contains("200m") && told.message.contains("\"generation\":2"),
            "{}",
            told.message
        );
        assert_eq!(other.spec, admitted.spec);
        let mut of_pod = pod("100m");
        of_pod.spec.resources = Some(ResourceRequirements::default());
        assert!(keep_allocated(&admitted, &mut of_pod).is_some());
        assert_eq!(of_pod.spec.resources, None);
    }
}
