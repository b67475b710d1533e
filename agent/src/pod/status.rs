//! `status` of a pod, from its record (`kubelet_pods.go`, generateAPIPodStatus and convertToAPIContainerStatuses).

use super::conditions::{conditions, disrupted, resize_infeasible};
use super::lifecycle::over;
use super::node::NodeFacts;
use super::phase::phase;
use super::policy::is_sidecar;
use super::record::{unknown_end, Activity, Admission, ContainerRecord, Ended, PodFailure, PodRecord};
use super::resources::qos_class;
use crate::api::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIp, Pod, PodIp, PodStatus, VolumeMountStatus, Word,
};
use crate::durable::clock::Now;

/// What is to be reported of a pod now. Of the conditions only those that this agent owns are in it.
#[must_use]
pub fn report(pod: &Pod, record: &PodRecord, node: &NodeFacts, now: Now) -> PodStatus {
    match &record.admission {
        Admission::Over => (*record.reported).clone(),
        Admission::Rejected(rejection) => PodStatus {
            observed_generation: pod.metadata.generation,
            phase: "Failed".to_owned(),
            reason: rejection.reason.clone(),
            message: rejection.status_message(),
            start_time: Some(record.start_time),
            qos_class: qos_class(pod),
            ..PodStatus::default()
        },
        Admission::Admitted => admitted(pod, record, node, now),
    }
}

/// Is a phase a final one?
#[must_use]
pub fn is_final(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

fn admitted(pod: &Pod, record: &PodRecord, node: &NodeFacts, now: Now) -> PodStatus {
    let ended = (record.stop.is_some() || over(pod, record)) && record.quiet();
    let mut status = PodStatus {
        observed_generation: pod.metadata.generation,
        start_time: Some(record.start_time),
        qos_class: qos_class(pod),
        ..PodStatus::default()
    };
    addresses(record, node, &mut status);
    let unstarted = if pod.spec.init_containers.is_empty() { "ContainerCreating" } else { "PodInitializing" };
    let each = |specs: &[Container], records: &[ContainerRecord]| -> Vec<ContainerStatus> {
        specs
            .iter()
            .zip(records)
            .map(|(spec, record)| container_status(spec, record, unstarted, ended))
            .collect()
    };
    status.init_container_statuses = each(&pod.spec.init_containers, &record.init);
    let init = pod.spec.init_containers.iter().zip(&mut status.init_container_statuses);
    for (_, init) in init.filter(|(spec, _)| !is_sidecar(spec)) {
        init.ready = init.state.terminated.as_ref().is_some_and(|end| end.exit_code == 0);
    }
    status.container_statuses = each(&pod.spec.containers, &record.containers);
    if ended {
        end_unstarted(pod, record, &mut status);
    }
    let replaced = |name: &str| record.container(name).is_some_and(|container| container.replace);
    let (init, containers) = (&status.init_container_statuses, &status.container_statuses);
    status.phase = phase(pod, init, containers, replaced, ended).to_owned();
    if ended && (record.failure.is_some() || !is_final(&status.phase)) {
        status.phase = "Failed".to_owned();
    }
    if is_final(&status.phase) && !record.quiet() {
        // A final phase is for when nothing runs any more: until then the pod stays what it was.
        let before = record.reported.phase.as_str();
        status.phase = if before == "Pending" { "Pending" } else { "Running" }.to_owned();
    }
    if is_final(&pod.status.phase) && status.phase != pod.status.phase {
        // Somebody else declared it over: their word stays.
        status.phase.clone_from(&pod.status.phase);
        status.reason.clone_from(&pod.status.reason);
        status.message.clone_from(&pod.status.message);
    } else if let Some(failure) = record.failure.as_ref().filter(|_| status.phase == "Failed") {
        status.reason = failure.reason().to_owned();
        status.message = failure.message().to_owned();
    }
    let prepared = !ended && !over(pod, record) && !record.unmounted;
    status.conditions = conditions(pod, &status, &record.reported, prepared, now);
    if record.resize_refused && !is_final(&status.phase) {
        status.conditions.push(resize_infeasible(pod, &record.reported, now));
    }
    if let Some(PodFailure::Evicted(message)) = &record.failure {
        status.conditions.push(disrupted(pod, message, &record.reported, now));
    }
    status.container_statuses.sort_by(|a, b| a.name.cmp(&b.name));
    status.ephemeral_container_statuses = ephemeral(pod);
    status
}

/// The pod's address is the node's. Once shown it does not change while the pod lives.
fn addresses(record: &PodRecord, node: &NodeFacts, status: &mut PodStatus) {
    let Some(first) = node.ips.first() else {
        status.host_ip.clone_from(&record.reported.host_ip);
        status.host_ips.clone_from(&record.reported.host_ips);
        status.pod_ip.clone_from(&record.reported.pod_ip);
        status.pod_ips.clone_from(&record.reported.pod_ips);
        return;
    };
    status.host_ip.clone_from(first);
    status.host_ips = node.ips.iter().map(|ip| HostIp { ip: ip.clone() }).collect();
    if record.reported.pod_ip.is_empty() {
        status.pod_ip.clone_from(first);
        status.pod_ips = node.ips.iter().map(|ip| PodIp { ip: ip.clone() }).collect();
    } else {
        status.pod_ip.clone_from(&record.reported.pod_ip);
        status.pod_ips.clone_from(&record.reported.pod_ips);
    }
}

fn container_status(
    spec: &Container,
    record: &ContainerRecord,
    unstarted: &str,
    ended: bool,
) -> ContainerStatus {
    let (state, last) = states(record, unstarted, ended);
    let running = record.running();
    let shown = running.map(|running| running.id.as_str());
    let latest = record.ended.as_ref().map(|end| end.terminated.container_id.as_str());
    let has_run = running.is_some() || record.ended.is_some();
    ContainerStatus {
        name: spec.name.clone(),
        image: spec.image.clone(),
        image_id: record.image_id.clone(),
        container_id: shown.or(latest).unwrap_or_default().to_owned(),
        ready: running.is_some_and(|running| running.started && running.ready),
        started: Some(running.is_some_and(|running| running.started)),
        restart_count: i32::try_from(record.restart_count).unwrap_or(i32::MAX),
        state,
        last_state: last.map_or_else(ContainerState::default, |end| terminated(end.terminated.clone())),
        allocated_resources: if has_run { spec.resources.requests.clone() } else { Default::default() },
        resources: (has_run && spec.resources != Default::default()).then(|| spec.resources.clone()),
        volume_mounts: if has_run { volume_mounts(spec) } else { Vec::new() },
    }
}

/// `volumeMounts`: what is mounted read-only is so all the way down, as no guest has mounts of its own.
fn volume_mounts(spec: &Container) -> Vec<VolumeMountStatus> {
    let mounts = spec.volume_mounts.iter();
    mounts
        .map(|mount| VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: mount.read_only,
            recursive_read_only: mount.read_only.then(|| {
                let asked = mount.recursive_read_only.as_deref();
                Word::from(match asked {
                    Some("Enabled" | "IfPossible") => "Enabled",
                    _ => "Disabled",
                })
            }),
        })
        .collect()
}

/// `state` and the run of `lastState`.
fn states<'r>(
    record: &'r ContainerRecord,
    unstarted: &str,
    ended: bool,
) -> (ContainerState, Option<&'r Ended>) {
    if let Activity::Running(running) = &record.activity {
        let running = Some(ContainerStateRunning { started_at: Some(running.started_at) });
        return (ContainerState { running, ..ContainerState::default() }, record.ended.as_ref());
    }
    if record.replace && !ended {
        // It comes again whatever its policy says, so it must not be shown as ended: the API server lets
        // nothing leave that state whose policy does not say so.
        let (reason, message) = record.waiting.as_ref().map_or((unstarted, ""), |w| (&w.reason, &w.message));
        return (waiting(reason, message), record.ended.as_ref());
    }
    match (&record.waiting, &record.ended) {
        (Some(waiting), last) if !ended => (self::waiting(&waiting.reason, &waiting.message), last.as_ref()),
        (_, Some(end)) => (terminated(end.terminated.clone()), record.previous.as_ref()),
        (Some(waiting), None) => (self::waiting(&waiting.reason, &waiting.message), None),
        (None, None) => (waiting(unstarted, ""), None),
    }
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    let waiting = Some(ContainerStateWaiting { reason: reason.to_owned(), message: message.to_owned() });
    ContainerState { waiting, ..ContainerState::default() }
}

fn terminated(end: ContainerStateTerminated) -> ContainerState {
    ContainerState { terminated: Some(end), ..ContainerState::default() }
}

/// In a pod that is over no container waits: what never began ended without anybody knowing how
/// (`status_manager.go`, TerminatePod). Containers of a pod that never got past its init containers stay as they are.
fn end_unstarted(pod: &Pod, record: &PodRecord, status: &mut PodStatus) {
    let begun = |container: &ContainerRecord| container.ended.is_some();
    let initialized = pod.spec.init_containers.is_empty()
        || record.containers.iter().any(begun)
        || (record.init.last().is_some_and(ContainerRecord::succeeded)
            && !pod.spec.init_containers.last().is_some_and(is_sidecar));
    let last_begun = record.init.iter().rposition(begun).unwrap_or(0);
    let init = status.init_container_statuses.iter_mut().take(last_begun.saturating_add(1));
    let containers = status.container_statuses.iter_mut().filter(|_| initialized);
    for container in init.chain(containers).filter(|container| container.state.terminated.is_none()) {
        container.state = terminated(unknown_end());
    }
}

/// Ephemeral containers cannot run here; `kubectl debug` waits until they run or are over.
fn ephemeral(pod: &Pod) -> Vec<ContainerStatus> {
    let mut statuses: Vec<ContainerStatus> = pod
        .spec
        .ephemeral_containers
        .iter()
        .map(|container| ContainerStatus {
            name: container.name.clone(),
            image: container.image.clone(),
            state: terminated(ContainerStateTerminated {
                exit_code: 128,
                reason: "ContainerCannotRun".to_owned(),
                message: "this node cannot run ephemeral containers: a guest has no processes to look into"
                    .to_owned(),
                ..ContainerStateTerminated::default()
            }),
            ..ContainerStatus::default()
        })
        .collect();
    statuses.sort_by(|a, b| a.name.cmp(&b.name));
    statuses
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
#[path = "status_tests.rs"]
mod tests;
