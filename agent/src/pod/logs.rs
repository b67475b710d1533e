//! Which run's log `kubectl logs` means, or why there is none (`kubelet_pods.go`, validateContainerLogStatus).

use super::record::PodRecord;
use crate::api::ContainerState;

/// The run whose log is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRun {
    /// Which run of the container, from 0: the log's name.
    pub run: u32,
    /// It goes on: a follower waits for more.
    pub running: bool,
}

/// Why there is no log to read. The texts are a kubelet's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogRefusal {
    /// 404
    #[error("{0}")]
    NotFound(String),
    /// 400
    #[error("{0}")]
    BadRequest(String),
}

/// There is no such pod.
#[must_use]
pub fn no_pod(pod: &str) -> LogRefusal {
    LogRefusal::NotFound(format!("pod \"{pod}\" does not exist"))
}

/// Finds the run of a container of the pod called `pod`, given its record and the container's state as shown.
///
/// # Errors
/// Why there is no log.
pub fn find(pod: &str, record: &PodRecord, container: &str, previous: bool) -> Result<LogRun, LogRefusal> {
    let Some(known) = record.container(container) else {
        return Err(LogRefusal::NotFound(format!("container \"{container}\" not found in pod \"{pod}\"")));
    };
    let refuse = |text: String| Err(LogRefusal::BadRequest(text));
    let named = format!("container \"{container}\" in pod \"{pod}\"");
    let reported = &record.reported;
    let shown = reported.init_container_statuses.iter().chain(&reported.container_statuses);
    let state = shown.into_iter().find(|status| status.name == container).map(|status| &status.state);
    let none = ContainerState::default();
    let state = state.unwrap_or(&none);
    if previous {
        // The run of lastState: the latest that ended, unless it is the one that is shown as the state.
        let last = if state.terminated.is_some() { &known.previous } else { &known.ended };
        return match last.as_ref().and_then(|end| end.log) {
            Some(run) => Ok(LogRun { run, running: false }),
            None => refuse(format!("previous terminated {named} not found")),
        };
    }
    if known.running().is_some() {
        return Ok(LogRun { run: known.restart_count, running: true });
    }
    if let Some(end) = &known.ended {
        let log = end.log.or_else(|| known.previous.as_ref().and_then(|end| end.log));
        return match log {
            Some(run) => Ok(LogRun { run, running: false }),
            None => refuse(format!("{named} is terminated")),
        };
    }
    match state.waiting.as_ref().map(|waiting| waiting.reason.as_str()) {
        Some("ErrImagePull") => refuse(format!("{named} is waiting to start: image can't be pulled")),
        Some("ImagePullBackOff") => {
            refuse(format!("{named} is waiting to start: trying and failing to pull image"))
        }
        Some(reason) => refuse(format!("{named} is waiting to start: {reason}")),
        None => refuse(format!("{named} is not available")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "logs_tests.rs"]
mod tests;
