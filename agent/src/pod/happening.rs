//! What happens to a pod, and what its record makes of it.

use std::time::Duration;

use super::backoff::go_duration;
use super::events::{self, EventText};
use super::handlers::ProbeKind;
use super::lifecycle::{over, own_grace};
use super::policy::restarts;
use super::record::{
    launched, Activity, ContainerRecord, Ended, Launch, PodFailure, PodRecord, PreStop, Running, Stop,
    Waiting, CRASH_LOOP,
};
use super::termination::message;
use crate::api::{Container, ContainerStateTerminated, Pod, Time};
use crate::durable::clock::Now;
use crate::image::REGISTRY_UNAVAILABLE;
use crate::runtime::Exit;

/// How long the error of a failed pull is shown before the waiting for the next one is: a kubelet shows it
/// until it next looks at the pod.
pub(super) const SHOW_PULL_ERROR: Duration = Duration::from_secs(3);

/// Wait between tries to start a container whose configuration or environment is wrong: somebody else has to
/// set it right (`kubelet.go`: `backOffPeriod`).
pub(super) const RETRY: Duration = Duration::from_secs(10);

/// Longest text that the API is told about a failure, in bytes (a termination message's own limit).
pub const MAX_MESSAGE: usize = 4096;

/// Exit code of a guest that was ended because it was to stop: 128 + SIGTERM.
pub const STOPPED: i32 = 143;

/// Exit code of a guest that was ended by force or by its memory limit: 128 + SIGKILL.
pub const KILLED: i32 = 137;

/// Exit code of a guest that trapped: 128 + SIGABRT.
pub const TRAPPED: i32 = 134;

/// Exit code of a guest that could not be started (`StartError` of container runtimes).
pub const NOT_STARTED: i32 = 128;

/// What became of something.
#[derive(Clone, Debug)]
pub enum Happening {
    /// A container is being started, for the image that the spec names.
    Starting(String),
    /// A container is given to the runtime.
    Launching {
        /// Its name.
        container: String,
        /// `containerID` of this run.
        id: String,
        /// `imageID`
        image_id: String,
    },
    /// A container could not be started.
    Failed(String, StartFailure),
    /// A container runs.
    Started {
        /// Its name.
        container: String,
        /// `containerID` of this run.
        id: String,
        /// `imageID`
        image_id: String,
    },
    /// A container's guest ended, with what it has said of that.
    Ended(String, Exit, Vec<u8>),
    /// What a container wants done before its stop is being done.
    PreStopping(String),
    /// It was done, or could not be.
    PreStopped {
        /// The container.
        container: String,
        /// Whether it was done.
        well: bool,
    },
    /// Probes of a container have said so often enough in a row that it counts.
    Probed {
        /// The container.
        container: String,
        /// What was probed.
        kind: ProbeKind,
        /// What they said.
        well: bool,
    },
    /// A container's guest was told that it is to stop.
    Asked(String),
    /// A container's guest was made to end, and this exit code says why.
    Killed(String, i32),
    /// Starting a container was given up.
    Aborted(String),
    /// A guest was refused what the pod may not take of the disk; the text says what.
    StorageExceeded(String),
    /// The API server shows a final phase, or will never take one.
    Settled,
    /// The API server took the final delete.
    Deleted,
    /// The API server shows the pod no more.
    Removed,
}

/// Why a container could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartFailure {
    /// The image's name is none.
    InvalidImageName(String),
    /// A pull failed.
    Pull {
        /// `ErrImagePull` or `RegistryUnavailable` ([`PULL_FAILED`]).
        reason: &'static str,
        /// Why.
        text: String,
        /// Which image; empty: the container's own.
        image: String,
    },
    /// This image is not here and must not be pulled.
    NeverPull(String),
    /// The pod's volumes cannot be made; they are tried again at this time.
    Mount(Duration),
    /// Its environment cannot be made.
    Config(String),
    /// This node failed (a log that cannot be opened, a module that cannot be read).
    Create(String),
    /// The module cannot run.
    Run(String),
    /// It ran, and what it wants done when it begins could not be.
    PostStart(String),
}

/// Why a container waits whose pull failed and is to be tried again (`pkg/kubelet/images/types.go`).
pub const PULL_FAILED: [&str; 2] = ["ErrImagePull", REGISTRY_UNAVAILABLE];

impl StartFailure {
    /// A failed pull that has no reason of its own.
    #[must_use]
    pub fn pull(text: String) -> StartFailure {
        StartFailure::Pull { reason: "ErrImagePull", text, image: String::new() }
    }

    fn bounded(self) -> StartFailure {
        match self {
            StartFailure::InvalidImageName(text) => {
                StartFailure::InvalidImageName(bounded(text, MAX_MESSAGE))
            }
            StartFailure::Pull { reason, text, image } => {
                StartFailure::Pull { reason, text: bounded(text, MAX_MESSAGE), image }
            }
            StartFailure::Mount(until) => StartFailure::Mount(until),
            StartFailure::NeverPull(image) => StartFailure::NeverPull(image),
            StartFailure::Config(text) => StartFailure::Config(bounded(text, MAX_MESSAGE)),
            StartFailure::Create(text) => StartFailure::Create(bounded(text, MAX_MESSAGE)),
            StartFailure::PostStart(text) => StartFailure::PostStart(bounded(text, MAX_MESSAGE)),
            StartFailure::Run(text) => StartFailure::Run(bounded(text, MAX_MESSAGE)),
        }
    }
}

/// Cuts a text that came from outside.
pub(super) fn bounded(mut text: String, limit: usize) -> String {
    let end = (0..=limit.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text
}

/// Takes in one thing that happened. What people should hear of it comes back.
pub fn apply(pod: &Pod, record: &mut PodRecord, happening: Happening, now: Now) -> Vec<EventText> {
    match happening {
        Happening::Starting(name) => {
            let image = spec_of(pod, &name).map(|(container, _)| container.image.clone());
            if let Some(container) = record.container_mut(&name) {
                container.activity = Activity::Starting;
                container.image = image.unwrap_or_default();
            }
            Vec::new()
        }
        Happening::Launching { container, id, image_id } => {
            record.unmounted = false;
            if let Some(container) = record.container_mut(&container) {
                let at = Time::from(now.wall);
                container.activity = Activity::Launching(Launch { id, image_id, at });
            }
            Vec::new()
        }
        Happening::StorageExceeded(message) => {
            if record.failure.is_some() || record.removed || over(pod, record) {
                return Vec::new();
            }
            let told = events::evicted(&message);
            record.failure = Some(PodFailure::Evicted(message));
            vec![told]
        }
        Happening::Aborted(name) => {
            if let Some(container) = record.container_mut(&name) {
                container.activity = Activity::Idle;
            }
            Vec::new()
        }
        Happening::Failed(name, failure) => failed(pod, record, &name, failure, now),
        Happening::Started { container, id, image_id } => {
            if let Some(container) = record.container_mut(&container) {
                let at = Time::from(now.wall);
                let launched_at = match &container.activity {
                    Activity::Launching(launch) => launch.at,
                    _ => at,
                };
                launched(container, id, image_id, launched_at, at);
                if let (Some((spec, _)), Activity::Running(running)) =
                    (spec_of(pod, &container.name), &mut container.activity)
                {
                    running.started = spec.startup_probe.is_none();
                    running.ready = spec.readiness_probe.is_none();
                }
            }
            vec![events::started(&container)]
        }
        Happening::PreStopping(name) => {
            if let Some(running) = record.running_mut(&name) {
                running.pre_stop = PreStop::Runs;
            }
            Vec::new()
        }
        Happening::PreStopped { container, well } => {
            let Some(running) = record.running_mut(&container) else { return Vec::new() };
            running.pre_stop = PreStop::Done;
            if well {
                return Vec::new();
            }
            vec![events::pre_stop_failed(&container)]
        }
        Happening::Probed { container, kind, well } => probed(pod, record, &container, kind, well, now),
        Happening::Asked(name) => {
            if let Some(running) = record.running_mut(&name) {
                running.asked = true;
            }
            Vec::new()
        }
        Happening::Killed(name, code) => {
            if let Some(running) = record.running_mut(&name) {
                running.kill = Some(code);
            }
            Vec::new()
        }
        Happening::Ended(name, exit, left) => ended(pod, record, &name, (exit, &left), now),
        Happening::Settled => {
            record.settled = true;
            Vec::new()
        }
        Happening::Deleted => {
            record.deleted = true;
            Vec::new()
        }
        Happening::Removed => {
            record.removed = true;
            Vec::new()
        }
    }
}

/// The container ran, or was being compiled, at `count` deaths of the agent in a row: it does not start before `at`.
#[must_use]
pub fn suspect(container: &mut ContainerRecord, count: u32, at: Duration) -> Option<EventText> {
    let message = format!(
        "the node's agent died {count} times in a row while container {} ran or was compiled: it starts after the \
         others, in back-off",
        container.name
    );
    container.retry_at = Some(at);
    told(container, CRASH_LOOP, &message).map(|()| events::suspected(&container.name, message))
}

fn failed(pod: &Pod, record: &mut PodRecord, name: &str, failure: StartFailure, now: Now) -> Vec<EventText> {
    let Some((spec, init)) = spec_of(pod, name) else { return Vec::new() };
    let Some(container) = record.container_mut(name) else { return Vec::new() };
    let launch = match std::mem::take(&mut container.activity) {
        Activity::Launching(launch) => Some(launch),
        _ => None,
    };
    let image = spec.image.as_str();
    let (reason, message) = match failure.bounded() {
        StartFailure::InvalidImageName(message) => {
            // Only another name helps, and that is seen when it comes.
            container.retry_at = Some(Duration::MAX);
            let told = told(container, "InvalidImageName", &message);
            return told.map_or_else(Vec::new, |()| {
                vec![events::inspect_failed(name, &message), events::failed(name, "InvalidImageName")]
            });
        }
        StartFailure::Pull { reason, text: error, image: other } => {
            let image = if other.is_empty() { image } else { &other };
            container.pull_wait.step(now.mono, now.mono);
            container.retry_at =
                Some(now.mono.saturating_add(SHOW_PULL_ERROR.min(container.pull_wait.delay())));
            container.waiting = Some(Waiting::new(reason, error.clone()));
            return vec![events::pull_failed(name, image, &error), events::failed(name, reason)];
        }
        StartFailure::Mount(until) => {
            // It waits as one that has not begun.
            container.retry_at = Some(until);
            record.unmounted = true;
            return Vec::new();
        }
        StartFailure::NeverPull(image) => {
            let image = image.as_str();
            container.retry_at = Some(now.mono.saturating_add(RETRY));
            let told = told(container, "ErrImageNeverPull", &events::never_pull_message(image));
            return told.map_or_else(Vec::new, |()| {
                vec![events::never_pull(name, image), events::failed(name, "ErrImageNeverPull")]
            });
        }
        StartFailure::Run(message) => {
            let unstarted = ContainerStateTerminated {
                exit_code: NOT_STARTED,
                reason: "StartError".to_owned(),
                message: message.clone(),
                finished_at: Some(now.wall.into()),
                ..ContainerStateTerminated::default()
            };
            if container.ended.is_some() {
                container.restart_count = container.restart_count.saturating_add(1);
            }
            let mut told = vec![events::created(name), events::failed(name, &message)];
            told.extend(finish(pod, spec, init, container, Ended { terminated: unstarted, log: None }, now));
            if container.waiting.is_none() && restarts(pod, spec, init, NOT_STARTED) {
                container.waiting = Some(Waiting::new("RunContainerError", message));
            }
            return told;
        }
        StartFailure::PostStart(message) => {
            let Some(launch) = launch else { return Vec::new() };
            let ended = ContainerStateTerminated {
                exit_code: STOPPED,
                reason: "Error".to_owned(),
                started_at: Some(launch.at),
                finished_at: Some(Time::from(now.wall).max(launch.at)),
                container_id: launch.id,
                ..ContainerStateTerminated::default()
            };
            if container.ended.is_some() {
                container.restart_count = container.restart_count.saturating_add(1);
            }
            container.image_id = launch.image_id;
            let log = Some(container.restart_count);
            let mut told = vec![events::post_start_failed(name)];
            told.extend(finish(pod, spec, init, container, Ended { terminated: ended, log }, now));
            if container.waiting.is_none() && restarts(pod, spec, init, STOPPED) {
                container.waiting = Some(Waiting::new("PostStartHookError", message));
            }
            return told;
        }
        StartFailure::Config(message) => ("CreateContainerConfigError", message),
        StartFailure::Create(message) => ("CreateContainerError", message),
    };
    container.retry_at = Some(now.mono.saturating_add(RETRY));
    told(container, reason, &message).map_or_else(Vec::new, |()| vec![events::failed(name, &message)])
}

/// What probes say of a container that runs, and is not being stopped.
fn probed(
    pod: &Pod,
    record: &mut PodRecord,
    name: &str,
    kind: ProbeKind,
    well: bool,
    now: Now,
) -> Vec<EventText> {
    let stopping = record.stop.is_some() || record.removed;
    let Some((spec, init)) = spec_of(pod, name) else { return Vec::new() };
    let Some(running) = record.running_mut(name) else { return Vec::new() };
    match (kind, well) {
        (ProbeKind::Readiness, _) => running.ready = well,
        (ProbeKind::Startup, true) => running.started = true,
        (ProbeKind::Liveness, true) => {}
        (ProbeKind::Startup | ProbeKind::Liveness, false) if !stopping && running.stop.is_none() => {
            let own = kind.of(spec).and_then(|probe| probe.termination_grace_period_seconds);
            running.stop = Some(Stop::within(own.unwrap_or_else(|| own_grace(pod)), now));
            let again = restarts(pod, spec, init, STOPPED);
            return vec![events::unhealthy_stop(name, kind, again)];
        }
        _ => {}
    }
    Vec::new()
}

/// Sets why a container waits; `Some` when that is news.
fn told(container: &mut ContainerRecord, reason: &str, message: &str) -> Option<()> {
    let waiting = Some(Waiting::new(reason, message.to_owned()));
    let news = container.waiting != waiting;
    container.waiting = waiting;
    news.then_some(())
}

fn ended(
    pod: &Pod,
    record: &mut PodRecord,
    name: &str,
    (exit, left): (Exit, &[u8]),
    now: Now,
) -> Vec<EventText> {
    let Some((spec, init)) = spec_of(pod, name) else { return Vec::new() };
    let stopping = record.stop.is_some() || record.removed;
    let Some(container) = record.container_mut(name) else { return Vec::new() };
    let Activity::Running(running) = std::mem::take(&mut container.activity) else { return Vec::new() };
    let mut terminated = terminated(&running, exit, now);
    terminated.message = message(pod, left, terminated.message);
    let log = Some(container.restart_count);
    let events = finish(pod, spec, init, container, Ended { terminated, log }, now);
    if stopping {
        container.waiting = None;
        return Vec::new();
    }
    events
}

/// What the status says of a run that ended.
fn terminated(running: &Running, exit: Exit, now: Now) -> ContainerStateTerminated {
    let error = || "Error".to_owned();
    let (exit_code, reason, message) = match exit {
        Exit::Code(0) => (0, "Completed".to_owned(), String::new()),
        // More than 31 bits do not fit the API's field; what is left over of an exit code is not 0 anyway.
        Exit::Code(code) => (i32::try_from(code).unwrap_or(i32::MAX), error(), String::new()),
        Exit::Trap(text) => (TRAPPED, error(), bounded(text, MAX_MESSAGE)),
        Exit::OutOfMemory => (KILLED, "OOMKilled".to_owned(), String::new()),
        Exit::Killed => (running.kill.unwrap_or(KILLED), error(), String::new()),
        Exit::Panic(text) => (TRAPPED, error(), bounded(text, MAX_MESSAGE)),
    };
    ContainerStateTerminated {
        exit_code,
        reason,
        message,
        started_at: Some(running.started_at),
        // The wall clock may have been set back meanwhile; no run ends before it began.
        finished_at: Some(Time::from(now.wall).max(running.started_at)),
        container_id: running.id.clone(),
        ..ContainerStateTerminated::default()
    }
}

/// Puts down the end of a run, and when the next may begin.
fn finish(
    pod: &Pod,
    spec: &Container,
    init: bool,
    container: &mut ContainerRecord,
    ended: Ended,
    now: Now,
) -> Vec<EventText> {
    let code = ended.terminated.exit_code;
    container.previous = container.ended.replace(ended);
    container.waiting = None;
    container.retry_at = None;
    if container.replace || !restarts(pod, spec, init, code) {
        return Vec::new();
    }
    let wait = container.restart_wait.until(now.mono).map(|until| (until, container.restart_wait.delay()));
    // The step belongs to the restart, but nothing can come between: its time is known now.
    let restart = wait.map_or(now.mono, |(until, _)| until);
    container.restart_wait.step(now.mono, restart);
    let Some((until, delay)) = wait else { return Vec::new() };
    container.retry_at = Some(until);
    let message = format!(
        "back-off {} restarting failed container={} pod={}",
        go_duration(delay),
        spec.name,
        events::pod_label(pod)
    );
    container.waiting = Some(Waiting::new(CRASH_LOOP, message));
    vec![events::restart_back_off(pod, &spec.name)]
}

/// A container's spec by its name, and whether it is an init container.
fn spec_of<'p>(pod: &'p Pod, name: &str) -> Option<(&'p Container, bool)> {
    let init = pod.spec.init_containers.iter().map(|container| (container, true));
    let all = init.chain(pod.spec.containers.iter().map(|container| (container, false)));
    all.into_iter().find(|(container, _)| container.name == name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
#[path = "probed_tests.rs"]
mod tests;
