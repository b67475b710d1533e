//! `status.phase` from the states of the containers (`kubelet_pods.go`, getPhase).

use super::policy::{is_sidecar, restarts};
use crate::api::{ContainerStateTerminated, ContainerStatus, Pod};

/// The phase of a pod whose containers are as `init` and `containers` say, each in the order of the spec.
/// `replaced`: containers that come again whatever their policies say. `terminal`: nothing runs and nothing
/// will be started again, whatever the policies say.
#[must_use]
pub fn phase(
    pod: &Pod,
    init: &[ContainerStatus],
    containers: &[ContainerStatus],
    replaced: impl Fn(&str) -> bool,
    terminal: bool,
) -> &'static str {
    let mut pending = 0_usize;
    for container in pod.spec.init_containers.iter().filter(|container| !is_sidecar(container)) {
        let status = init.iter().find(|status| status.name == container.name);
        let lasts = |code| !replaced(&container.name) && !restarts(pod, container, true, code);
        match status.and_then(end) {
            Some(end) if end.exit_code != 0 && lasts(end.exit_code) => return "Failed",
            Some(_) => {}
            None => pending += 1,
        }
    }
    let (mut running, mut waiting, mut stopped, mut succeeded, mut restarting) =
        (0_usize, 0_usize, 0_usize, 0_usize, 0_usize);
    for container in pod.spec.init_containers.iter().filter(|container| is_sidecar(container)) {
        // How a sidecar ended says nothing of the pod.
        let status = init.iter().find(|status| status.name == container.name);
        let runs = status.is_some_and(|status| status.state.running.is_some());
        running += usize::from(runs);
        waiting += usize::from(!runs && status.and_then(end).is_none());
    }
    for container in &pod.spec.containers {
        let status = containers.iter().find(|status| status.name == container.name);
        if status.is_some_and(|status| status.state.running.is_some()) {
            running += 1;
        } else if let Some(end) = status.and_then(end) {
            stopped += 1;
            succeeded += usize::from(end.exit_code == 0);
            let restarted = replaced(&container.name) || restarts(pod, container, false, end.exit_code);
            restarting += usize::from(restarted);
        } else {
            waiting += 1;
        }
    }
    match (pending + waiting, running) {
        (1.., _) => "Pending",
        (0, 1..) => "Running",
        (0, 0) if stopped == 0 => "Pending",
        (0, 0) if !terminal && restarting > 0 => "Running",
        (0, 0) if succeeded == stopped => "Succeeded",
        (0, 0) => "Failed",
    }
}

/// The end of the latest run, unless one goes on.
fn end(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    match &status.state {
        state if state.running.is_some() => None,
        state => state.terminated.as_ref().or(status.last_state.terminated.as_ref()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::pod::samples::pod;
    use serde_json::{json, Value};

    /// `r` running, `w` waiting, `0`/`1` ended so, `b`/`s` waiting to restart after 1 or 0.
    fn status(name: &str, state: char) -> ContainerStatus {
        let ended = |code: i32| json!({"terminated": {"exitCode": code}});
        let (state, last) = match state {
            'r' => (json!({"running": {}}), json!({})),
            '0' => (ended(0), json!({})),
            '1' => (ended(1), json!({})),
            'b' => (json!({"waiting": {}}), ended(1)),
            's' => (json!({"waiting": {}}), ended(0)),
            _ => (json!({"waiting": {}}), json!({})),
        };
        serde_json::from_value(json!({"name": name, "state": state, "lastState": last})).unwrap()
    }

    fn names(kind: &str, states: &str) -> Vec<(String, char)> {
        states.chars().enumerate().map(|(index, state)| (format!("{kind}{index}"), state)).collect()
    }

    /// An `S` before the state of an init container makes it a sidecar.
    fn phase_of(policy: &str, init: &str, containers: &str, terminal: bool) -> &'static str {
        let sidecars: Vec<bool> =
            init.split_inclusive(|c| c != 'S').map(|one| one.starts_with('S')).collect();
        let (init, containers) = (names("i", &init.replace('S', "")), names("c", containers));
        let specs = |list: &[(String, char)], sidecars: &[bool]| -> Vec<Value> {
            let policy =
                |index| if sidecars.get(index) == Some(&true) { json!("Always") } else { Value::Null };
            let all = list.iter().enumerate();
            all.map(|(index, (n, _))| json!({"name": n, "restartPolicy": policy(index)})).collect()
        };
        let pod = pod(&json!({
            "restartPolicy": policy, "initContainers": specs(&init, &sidecars), "containers": specs(&containers, &[]),
        }));
        let statuses =
            |list: &[(String, char)]| -> Vec<_> { list.iter().map(|(n, state)| status(n, *state)).collect() };
        phase(&pod, &statuses(&init), &statuses(&containers), |_| false, terminal)
    }

    #[test]
    fn phases() {
        for (policy, init, containers, terminal, expected) in [
            ("Always", "", "w", false, "Pending"),
            ("Always", "", "r", false, "Running"),
            ("Always", "", "rw", false, "Pending"),
            ("Always", "", "rb", false, "Running"),
            ("Always", "", "0", false, "Running"),
            ("Always", "", "1", false, "Running"),
            ("Always", "", "b", false, "Running"),
            ("Always", "", "0", true, "Succeeded"),
            ("Always", "", "s", true, "Succeeded"),
            ("Always", "", "01", true, "Failed"),
            ("OnFailure", "", "0", false, "Succeeded"),
            ("OnFailure", "", "1", false, "Running"),
            ("OnFailure", "", "b0", false, "Running"),
            ("OnFailure", "", "00", false, "Succeeded"),
            ("Never", "", "0", false, "Succeeded"),
            ("Never", "", "1", false, "Failed"),
            ("Never", "", "01", false, "Failed"),
            ("Never", "", "0r", false, "Running"),
            ("Always", "r", "w", false, "Pending"),
            ("Always", "w", "w", false, "Pending"),
            ("Always", "0r", "w", false, "Pending"),
            ("Always", "1", "w", false, "Pending"),
            ("Always", "b", "w", false, "Pending"),
            ("Always", "0", "w", false, "Pending"),
            ("Always", "00", "r", false, "Running"),
            ("Never", "1", "w", false, "Failed"),
            ("Never", "01", "w", false, "Failed"),
            ("OnFailure", "1", "w", false, "Pending"),
            ("Never", "0", "0", false, "Succeeded"),
            ("Never", "Sw", "w", false, "Pending"),
            ("Never", "Sr", "w", false, "Pending"),
            ("Never", "Sr", "r", false, "Running"),
            ("Never", "Sw", "r", false, "Pending"),
            ("Never", "Sb", "r", false, "Running"),
            ("Never", "S1", "r", false, "Running"),
            ("Never", "Sr", "0", false, "Running"),
            ("Never", "S1", "0", true, "Succeeded"),
            ("Never", "S0", "1", true, "Failed"),
            ("Never", "SbSr", "0", false, "Running"),
            ("Never", "Sr1", "w", false, "Failed"),
            ("Never", "0Sr", "r", false, "Running"),
        ] {
            assert_eq!(
                phase_of(policy, init, containers, terminal),
                expected,
                "{policy} init={init} containers={containers} terminal={terminal}"
            );
        }
    }
}
