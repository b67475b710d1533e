//! Which run's log `kubectl logs` means, or why there is none (`kubelet_pods.go`, validateContainerLogStatus).

use super::record::PodRecord;

/// The run whose log is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRun {
    /// Which run of the container, from 0: the log's name.
    pub run: u32,
    /// It goes on: a follower waits for more.
    pub running: bool,
}

/// Why there is no log to read. Whoever answers finds the words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogRefusal {
    /// No such pod on this node.
    NoPod,
    /// The pod has no such container.
    NoContainer,
    /// `previous` was asked for, and there is no run before.
    NoPrevious,
    /// It has not run yet; why it waits.
    Waiting(String),
    /// It is over without ever having run.
    Terminated,
    /// Nothing is known of its state yet.
    NotAvailable,
}

/// Finds the run of a container, given its pod's record.
///
/// # Errors
/// Why there is no log.
pub fn find(record: &PodRecord, container: &str, previous: bool) -> Result<LogRun, LogRefusal> {
    let known = record.container(container).ok_or(LogRefusal::NoContainer)?;
    let reported = &record.reported;
    let mut shown = reported.init_container_statuses.iter().chain(&reported.container_statuses);
    let state = shown.find(|status| status.name == container).map(|status| &status.state);
    let ended = |run| LogRun { run, running: false };
    if previous {
        // The run of lastState: the latest that ended, unless it is the one that is shown as the state.
        let is_state = state.is_some_and(|state| state.terminated.is_some());
        let last = if is_state { &known.previous } else { &known.ended };
        return last.as_ref().and_then(|end| end.log).map(ended).ok_or(LogRefusal::NoPrevious);
    }
    if known.running().is_some() {
        return Ok(LogRun { run: known.restart_count, running: true });
    }
    if let Some(end) = &known.ended {
        let log = end.log.or_else(|| known.previous.as_ref().and_then(|end| end.log));
        return log.map(ended).ok_or(LogRefusal::Terminated);
    }
    match state.and_then(|state| state.waiting.as_ref()) {
        Some(waiting) => Err(LogRefusal::Waiting(waiting.reason.clone())),
        None => Err(LogRefusal::NotAvailable),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "logs_tests.rs"]
mod tests;
