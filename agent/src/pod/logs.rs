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

/// Why a container has no log to show: the cases of a kubelet's `validateContainerLogStatus`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogRefusal {
    /// No such pod on this node.
    NoPod,
    /// The pod has no such container.
    NoContainer,
    /// `previous` was asked for and there is no earlier run.
    NoPrevious,
    /// It has not run yet; the waiting reason (`ContainerCreating`, `ImagePullBackOff`, …).
    Waiting(String),
    /// It has ended without ever having run.
    Terminated,
    /// Nothing is known of its state yet.
    NotAvailable,
}

/// Finds the run of a container that is meant.
///
/// # Errors
/// Why there is no log.
pub fn find(record: &PodRecord, container: &str, previous: bool) -> Result<LogRun, LogRefusal> {
    let Some(known) = record.container(container) else {
        return Err(LogRefusal::NoContainer);
    };
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
            None => Err(LogRefusal::NoPrevious),
        };
    }
    if known.running().is_some() {
        return Ok(LogRun { run: known.restart_count, running: true });
    }
    if let Some(end) = &known.ended {
        let log = end.log.or_else(|| known.previous.as_ref().and_then(|end| end.log));
        return match log {
            Some(run) => Ok(LogRun { run, running: false }),
            None => Err(LogRefusal::Terminated),
        };
    }
    match &state.waiting {
        Some(waiting) => Err(LogRefusal::Waiting(waiting.reason.clone())),
        None => Err(LogRefusal::NotAvailable),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "logs_tests.rs"]
mod tests;
