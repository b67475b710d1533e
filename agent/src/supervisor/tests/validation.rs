//! What an API server refuses of a status with 422 (`pkg/apis/core/validation`, ValidatePodStatusUpdate), as far
//! as a node can get it wrong.

use super::*;
use crate::api::ContainerStatus;

/// Why it would not take `new` where it shows `old`.
pub fn refusal(pod: &Pod, old: &PodStatus, new: &PodStatus) -> Option<String> {
    if !old.qos_class.is_empty() && new.qos_class != old.qos_class {
        return Some(format!("status.qosClass: {} is immutable, not {}", old.qos_class, new.qos_class));
    }
    if new.observed_generation < 0 {
        return Some("status.observedGeneration: must be a non-negative integer".to_owned());
    }
    if new.pod_ips.first().map_or("", |first| &first.ip) != new.pod_ip
        || new.host_ips.first().map_or("", |first| &first.ip) != new.host_ip
    {
        return Some("status: the first of podIPs and hostIPs must be podIP and hostIP".to_owned());
    }
    resurrected(pod, &old.container_statuses, &new.container_statuses)
        .or_else(|| resurrected(pod, &old.init_container_statuses, &new.init_container_statuses))
}

/// ValidateContainerStateTransition
fn resurrected(pod: &Pod, old: &[ContainerStatus], new: &[ContainerStatus]) -> Option<String> {
    let policy = pod.spec.restart_policy.as_str();
    let stays = |status: &&ContainerStatus| {
        let end = status.state.terminated.as_ref();
        end.is_some_and(|end| policy == "Never" || (policy == "OnFailure" && end.exit_code == 0))
    };
    let is_back =
        |old: &ContainerStatus| new.iter().any(|new| new.name == old.name && new.state.terminated.is_none());
    let back = old.iter().filter(stays).find(|old| is_back(old))?;
    Some(format!("status of {}: may not be transitioned to non-terminated state", back.name))
}

#[test]
fn what_an_api_server_refuses_is_refused_here() {
    let read = |status: Value| -> PodStatus { serde_json::from_value(status).unwrap() };
    let ended = |code: i32| json!({"containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": code}}}]});
    let runs = json!({"containerStatuses": [{"name": "c", "state": {"running": {}}}]});
    for (policy, old, new, taken) in [
        ("Never", ended(1), runs.clone(), false),
        ("OnFailure", ended(0), runs.clone(), false),
        ("OnFailure", ended(1), runs.clone(), true),
        ("Always", ended(0), runs.clone(), true),
        ("Never", ended(1), ended(0), true),
        ("Never", json!({"qosClass": "Burstable"}), json!({"qosClass": "BestEffort"}), false),
        ("Never", json!({}), json!({"qosClass": "BestEffort"}), true),
        ("Never", json!({}), json!({"podIP": "1.1.1.1", "podIPs": [{"ip": "2.2.2.2"}]}), false),
        ("Never", json!({}), json!({"hostIP": "1.1.1.1", "hostIPs": [{"ip": "1.1.1.1"}]}), true),
        ("Never", json!({}), json!({"observedGeneration": -1}), false),
    ] {
        let pod = samples::pod(&json!({"restartPolicy": policy}));
        let refused = refusal(&pod, &read(old.clone()), &read(new.clone()));
        assert_eq!(refused.is_none(), taken, "{policy}: {old} to {new}: {refused:?}");
    }
}
