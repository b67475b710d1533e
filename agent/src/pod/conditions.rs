//! `status.conditions` that a node owns (`pkg/kubelet/status/generate.go`).

use super::policy::is_sidecar;
use super::resize::INFEASIBLE;
use crate::api::{Container, ContainerStatus, Pod, PodCondition, PodStatus, Time};
use crate::durable::clock::Now;

/// The conditions that this agent writes, in its order; all others are somebody else's and left alone.
const OWNED: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// The condition of a pod that asks for a resize, and only of such a one.
const RESIZE_PENDING: &str = "PodResizePending";

/// Is a condition this agent's to write?
#[must_use]
pub fn is_owned(kind: &str) -> bool {
    OWNED.contains(&kind) || kind == RESIZE_PENDING
}

/// What a condition says: its status, reason and message.
type Verdict = (bool, &'static str, String);

const TRUE: Verdict = (true, "", String::new());

/// Works out all owned conditions of a status that is complete but for them. `prepared`: the containers may
/// be started (there is an address, volumes are there). Transition times of `before` go on where nothing changed.
#[must_use]
pub fn conditions(
    pod: &Pod,
    status: &PodStatus,
    before: &PodStatus,
    prepared: bool,
    now: Now,
) -> Vec<PodCondition> {
    let ready_containers = containers_ready(pod, status);
    let ready = if ready_containers.0 { readiness_gates(pod) } else { ready_containers.clone() };
    let prepared = if prepared { TRUE } else { (false, "PodSandboxNotReady", String::new()) };
    let verdicts = [prepared, initialized(pod, status), ready, ready_containers, TRUE];
    OWNED
        .iter()
        .zip(verdicts)
        .map(|(kind, (holds, reason, message))| condition(pod, kind, (holds, reason, message), before, now))
        .collect()
}

/// `DisruptionTarget`: this node evicts the pod. Others write that condition too, of pods that they evict.
#[must_use]
pub fn disrupted(pod: &Pod, message: &str, before: &PodStatus, now: Now) -> PodCondition {
    condition(pod, "DisruptionTarget", (true, "TerminationByKubelet", message.to_owned()), before, now)
}

/// `PodResizePending`: the pod asks for a resize that will never be.
#[must_use]
pub fn resize_infeasible(pod: &Pod, before: &PodStatus, now: Now) -> PodCondition {
    condition(pod, RESIZE_PENDING, (true, "Infeasible", INFEASIBLE.to_owned()), before, now)
}

fn condition(
    pod: &Pod,
    kind: &str,
    (holds, reason, message): Verdict,
    before: &PodStatus,
    now: Now,
) -> PodCondition {
    let state = if holds { "True" } else { "False" };
    let mut old = before.conditions.iter();
    let old = old.find(|condition| condition.kind == kind && condition.status == state);
    PodCondition {
        kind: kind.into(),
        status: state.into(),
        reason: reason.to_owned(),
        message,
        observed_generation: pod.metadata.generation,
        last_probe_time: None,
        last_transition_time: old
            .and_then(|old| old.last_transition_time)
            .or_else(|| Some(Time::from(now.wall))),
    }
}

fn of<'s>(statuses: &'s [ContainerStatus], name: &str) -> Option<&'s ContainerStatus> {
    statuses.iter().find(|status| status.name == name)
}

fn initialized(pod: &Pod, status: &PodStatus) -> Verdict {
    let begun = |s: &ContainerStatus| {
        s.state.running.is_some() || s.state.terminated.is_some() || s.last_state.terminated.is_some()
    };
    let all = &pod.spec.init_containers;
    if status.phase == "Succeeded"
        && all.iter().all(|c| of(&status.init_container_statuses, &c.name).is_some())
    {
        return (true, "PodCompleted", String::new());
    }
    // Once a container has begun, the pod was initialized and stays so.
    let failed = status.phase == "Failed";
    if !failed && status.container_statuses.iter().any(begun) {
        return TRUE;
    }
    // A sidecar has done its part when it runs.
    let complete = |container: &Container, status: &ContainerStatus| {
        if is_sidecar(container) {
            status.started == Some(true)
        } else {
            status.ready
        }
    };
    let incomplete: Vec<&str> = all
        .iter()
        .filter(|c| of(&status.init_container_statuses, &c.name).is_none_or(|status| !complete(c, status)))
        .map(|container| container.name.as_str())
        .collect();
    if incomplete.is_empty() {
        return TRUE;
    }
    let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
    (false, "ContainersNotInitialized", message)
}

fn containers_ready(pod: &Pod, status: &PodStatus) -> Verdict {
    match status.phase.as_str() {
        "Succeeded" => return (false, "PodCompleted", String::new()),
        "Failed" => return (false, "PodFailed", String::new()),
        _ => {}
    }
    let sidecars = pod.spec.init_containers.iter().filter(|container| is_sidecar(container));
    let sidecars = sidecars.map(|container| (container, &status.init_container_statuses));
    let apps = pod.spec.containers.iter().map(|container| (container, &status.container_statuses));
    let unready: Vec<&str> = sidecars
        .chain(apps)
        .filter(|(container, statuses)| of(statuses, &container.name).is_none_or(|status| !status.ready))
        .map(|(container, _)| container.name.as_str())
        .collect();
    if unready.is_empty() {
        return TRUE;
    }
    (false, "ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" ")))
}

fn readiness_gates(pod: &Pod) -> Verdict {
    let unready: Vec<String> = pod
        .spec
        .readiness_gates
        .iter()
        .filter_map(|gate| {
            let kind = &gate.condition_type;
            match pod.status.conditions.iter().find(|condition| condition.kind == **kind) {
                None => {
                    Some(format!("corresponding condition of pod readiness gate \"{kind}\" does not exist."))
                }
                Some(condition) if condition.status != "True" => Some(format!(
                    "the status of pod readiness gate \"{kind}\" is not \"True\", but {}",
                    &*condition.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    if unready.is_empty() {
        return TRUE;
    }
    (false, "ReadinessGatesNotReady", unready.join(", "))
}
