//! What happened to a pod so far: values only, so that they can be kept on disk.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::admission::Rejection;
use super::backoff::Backoff;
use super::conditions::is_owned;
use super::events::DEADLINE_MESSAGE;
use super::policy::restarts;
use crate::api::{Container, ContainerStateTerminated, ContainerStatus, Pod, PodStatus, Time};
use crate::durable::clock::Now;

/// Everything that is known of a pod beside its spec.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PodRecord {
    /// Whether it may run.
    pub admission: Admission,
    /// `status.startTime`: when this node first saw it.
    pub start_time: Time,
    /// How long it had been active when this record began, for a pod that an earlier life of the agent saw.
    pub active_before: Duration,
    /// When this record began.
    pub began: Duration,
    /// The init containers, as the spec orders them.
    pub init: Vec<ContainerRecord>,
    /// The containers, as the spec orders them.
    pub containers: Vec<ContainerRecord>,
    /// All of the pod is to end.
    pub stop: Option<Stop>,
    /// This node has failed it, whatever becomes of its containers.
    pub failure: Option<PodFailure>,
    /// It asks for other resources than it was admitted with.
    #[serde(skip)]
    pub resize_refused: bool,
    /// Its volumes could not be made so far.
    #[serde(skip)]
    pub unmounted: bool,
    /// Its object is gone from the API server.
    #[serde(skip)]
    pub removed: bool,
    /// The API server has a final phase of it, or will never take one.
    #[serde(skip)]
    pub settled: bool,
    /// The final delete was accepted.
    #[serde(skip)]
    pub deleted: bool,
    /// The status that was last worked out: transition times go on from there.
    #[serde(skip)]
    pub reported: Arc<PodStatus>,
}

/// Whether a pod may run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Admission {
    /// It may.
    Admitted,
    /// It may not, ever.
    Rejected(Rejection),
    /// It was over before this record began; it is not run again.
    Over,
}

/// Why this node fails a pod that it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodFailure {
    /// It ran into `activeDeadlineSeconds`.
    DeadlineExceeded,
    /// It wanted more of the disk than it may have; the text says what.
    Evicted(String),
}

impl PodFailure {
    /// `status.reason`
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            PodFailure::DeadlineExceeded => "DeadlineExceeded",
            PodFailure::Evicted(_) => "Evicted",
        }
    }

    /// `status.message`
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            PodFailure::DeadlineExceeded => DEADLINE_MESSAGE,
            PodFailure::Evicted(message) => message,
        }
    }
}

/// All of a pod is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// When what still runs is ended.
    pub deadline: Duration,
    /// The grace that this deadline came from, in seconds.
    pub grace: i64,
}

impl Stop {
    /// One that begins now.
    #[must_use]
    pub fn within(grace: i64, now: Now) -> Stop {
        let grace = grace.max(0);
        let wait = u64::try_from(grace.max(MIN_GRACE)).unwrap_or(0);
        Stop { deadline: now.mono.saturating_add(Duration::from_secs(wait)), grace }
    }
}

/// Shortest grace of a guest that is waited for (`minimumGracePeriodInSeconds`).
const MIN_GRACE: i64 = 2;

/// What happened to one container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Its name in the spec.
    pub name: String,
    /// What it does now.
    pub activity: Activity,
    /// Why it waits, where there is more to say than that it has not begun.
    pub waiting: Option<Waiting>,
    /// Not to be started before this.
    pub retry_at: Option<Duration>,
    /// The latest run that ended.
    pub ended: Option<Ended>,
    /// The run that ended before that one.
    pub previous: Option<Ended>,
    /// `restartCount`: which run the latest is, from 0.
    pub restart_count: u32,
    /// The wait between restarts.
    pub restart_wait: Backoff,
    /// The wait between pulls.
    pub pull_wait: Backoff,
    /// The image of the spec that was last tried.
    pub image: String,
    /// `imageID` of the latest run.
    pub image_id: String,
    /// It was stopped because its image changed: it starts again whatever its policy says.
    pub replace: bool,
}

/// What a container does now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activity {
    /// Nothing.
    #[default]
    Idle,
    /// It is being started: image, environment, module.
    Starting,
    /// It is given to the runtime: from here on it counts as a run, whatever becomes of the agent.
    Launching(Launch),
    /// It runs.
    Running(Running),
}

/// A run that is about to begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// `containerID`
    pub id: String,
    /// `imageID`
    pub image_id: String,
    /// Since when.
    pub at: Time,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// `containerID`
    pub id: String,
    /// Since when.
    pub started_at: Time,
    /// When it was given to the runtime, which may have had to compile its module first.
    pub launched_at: Time,
    /// How far its `preStop` hook is.
    pub pre_stop: PreStop,
    /// It was told to stop.
    pub asked: bool,
    /// It was ended by the agent, and this is the exit code that says how.
    pub kill: Option<i32>,
    /// Its startup probe has succeeded, or it has none.
    #[serde(skip)]
    pub started: bool,
    /// Its readiness probe says that it is, or it has none.
    #[serde(skip)]
    pub ready: bool,
    /// It alone is to end, to be started anew: another image, or a probe that says so.
    #[serde(skip)]
    pub stop: Option<Stop>,
}

/// How far a `preStop` hook is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PreStop {
    /// It waits for the stop.
    #[default]
    Waits,
    /// It runs.
    Runs,
    /// It has run, well or not.
    Done,
}

/// A run that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// What the status says of it.
    pub terminated: ContainerStateTerminated,
    /// Which run it was: the name of its log. None when no run of this node's has a log.
    pub log: Option<u32>,
}

/// `state.waiting`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// One word.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Waiting {
    /// Why a container waits.
    #[must_use]
    pub fn new(reason: &str, message: String) -> Waiting {
        Waiting { reason: reason.to_owned(), message }
    }
}

/// Why a container waits between restarts.
pub const CRASH_LOOP: &str = "CrashLoopBackOff";

/// Reason of a run whose end nobody saw (`kubecontainer.ContainerReasonStatusUnknown`).
pub const STATUS_UNKNOWN: &str = "ContainerStatusUnknown";

/// Its exit code: 128 + SIGKILL.
const UNKNOWN_EXIT: i32 = 137;

/// The end of a run that nobody saw.
#[must_use]
pub fn unknown_end() -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: UNKNOWN_EXIT,
        reason: STATUS_UNKNOWN.to_owned(),
        message: "The container could not be located when the pod was terminated".to_owned(),
        ..ContainerStateTerminated::default()
    }
}

impl PodRecord {
    /// Begins a record of a pod. What an earlier life of the agent reported of it is in its status, and goes on:
    /// finished containers stay finished, restart counts count on, and a container that ran has an unknown end.
    #[must_use]
    pub fn begin(pod: &Pod, admission: Admission, now: Now) -> PodRecord {
        let over = matches!(pod.status.phase.as_str(), "Succeeded" | "Failed");
        let start_time = pod.status.start_time.unwrap_or_else(|| now.wall.into());
        let active = now.wall.as_second().saturating_sub(start_time.timestamp().as_second());
        let mut reported = pod.status.clone();
        reported.conditions.retain(|condition| is_owned(&condition.kind));
        PodRecord {
            admission: if over { Admission::Over } else { admission },
            start_time,
            // A clock that was set back, or has not been set yet, expires nothing.
            active_before: Duration::from_secs(u64::try_from(active).unwrap_or(0)),
            began: now.mono,
            init: restored(pod, true, now),
            containers: restored(pod, false, now),
            stop: None,
            failure: None,
            resize_refused: false,
            unmounted: false,
            removed: false,
            settled: over,
            deleted: false,
            reported: Arc::new(reported),
        }
    }

    /// All containers, init containers first.
    pub fn all(&self) -> impl Iterator<Item = &ContainerRecord> {
        self.init.iter().chain(&self.containers)
    }

    /// All containers, to be changed.
    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut ContainerRecord> {
        self.init.iter_mut().chain(&mut self.containers)
    }

    /// One container.
    #[must_use]
    pub fn container(&self, name: &str) -> Option<&ContainerRecord> {
        self.all().find(|container| container.name == name)
    }

    /// One container, to be changed.
    pub fn container_mut(&mut self, name: &str) -> Option<&mut ContainerRecord> {
        self.all_mut().find(|container| container.name == name)
    }

    /// The run that a container has now, to be changed.
    pub fn running_mut(&mut self, name: &str) -> Option<&mut Running> {
        match &mut self.container_mut(name)?.activity {
            Activity::Running(running) => Some(running),
            _ => None,
        }
    }

    /// Nothing runs and nothing is being started.
    #[must_use]
    pub fn quiet(&self) -> bool {
        self.all().all(|container| container.activity == Activity::Idle)
    }

    /// As it is written down: what a later life of the agent has to go on with. A start that goes on has not
    /// begun, or is a run already; whatever else is tried again and again is tried again then.
    #[must_use]
    pub fn lasting(&self) -> PodRecord {
        let mut record = self.clone();
        for container in record.all_mut() {
            match std::mem::take(&mut container.activity) {
                Activity::Launching(Launch { id, image_id, at }) => launched(container, id, image_id, at, at),
                Activity::Running(running) => {
                    let started_at = running.launched_at;
                    container.activity = Activity::Running(Running { started_at, ..running });
                }
                Activity::Idle | Activity::Starting => {}
            }
            if container.running().is_none() && container.ended.is_none() {
                container.image = String::new();
            }
            let crashes = container.waiting.as_ref().is_some_and(|waiting| waiting.reason == CRASH_LOOP);
            if !crashes {
                container.waiting = None;
                container.retry_at = None;
            }
            container.pull_wait = Backoff::default();
        }
        record
    }

    /// Something of it has begun, or was decided: it is worth being written down.
    #[must_use]
    pub fn is_worth_keeping(&self) -> bool {
        let begun = |container: &ContainerRecord| {
            container.ended.is_some()
                || matches!(container.activity, Activity::Launching(_) | Activity::Running(_))
        };
        self.admission == Admission::Admitted
            && (self.all().any(begun) || self.failure.is_some() || self.stop.is_some())
    }

    /// Goes on with a record that an earlier life of the agent wrote down: `time` makes its times this life's, and
    /// what ran then has ended, nobody knows how.
    pub fn resume(&mut self, pod: &Pod, time: impl Fn(Duration) -> Duration) {
        self.began = time(self.began);
        if let Some(stop) = &mut self.stop {
            stop.deadline = time(stop.deadline);
        }
        let init = pod.spec.init_containers.iter().map(|spec| (true, spec)).zip(&mut self.init);
        let apps = pod.spec.containers.iter().map(|spec| (false, spec)).zip(&mut self.containers);
        for ((init, spec), container) in init.chain(apps) {
            container.retry_at = container.retry_at.map(&time);
            container.restart_wait = container.restart_wait.translated(&time);
            let Activity::Running(running) = std::mem::take(&mut container.activity) else { continue };
            let terminated = ContainerStateTerminated {
                started_at: Some(running.started_at),
                container_id: running.id,
                ..unknown_end()
            };
            let log = Some(container.restart_count);
            container.previous = container.ended.replace(Ended { terminated, log });
            if !container.replace && !restarts(pod, spec, init, UNKNOWN_EXIT) {
                container.restart_count = container.restart_count.saturating_add(1);
            }
        }
    }

    /// How long the pod has been active.
    #[must_use]
    pub fn active(&self, now: Now) -> Duration {
        self.active_before.saturating_add(now.mono.saturating_sub(self.began))
    }
}

impl ContainerRecord {
    /// Its latest run ended with success, and it does nothing now.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.activity == Activity::Idle && self.ended.as_ref().is_some_and(|e| e.terminated.exit_code == 0)
    }

    /// The run that it has now.
    #[must_use]
    pub fn running(&self) -> Option<&Running> {
        match &self.activity {
            Activity::Running(running) => Some(running),
            _ => None,
        }
    }
}

/// A container's next run has begun.
pub(super) fn launched(
    container: &mut ContainerRecord,
    id: String,
    image_id: String,
    launched_at: Time,
    started_at: Time,
) {
    if container.ended.is_some() {
        container.restart_count = container.restart_count.saturating_add(1);
    }
    container.activity = Activity::Running(Running {
        id,
        started_at,
        launched_at,
        pre_stop: PreStop::Waits,
        asked: false,
        kill: None,
        started: false,
        ready: false,
        stop: None,
    });
    container.waiting = None;
    container.retry_at = None;
    if std::mem::take(&mut container.replace) {
        container.restart_wait = Backoff::default();
    }
    container.image_id = image_id;
    container.pull_wait = Backoff::default();
}

fn restored(pod: &Pod, init: bool, now: Now) -> Vec<ContainerRecord> {
    let (spec, status) = (&pod.spec, &pod.status);
    let (containers, statuses) = if init {
        (&spec.init_containers, &status.init_container_statuses)
    } else {
        (&spec.containers, &status.container_statuses)
    };
    let restore = |container: &Container| {
        let Some(status) = statuses.iter().find(|status| status.name == container.name) else {
            return ContainerRecord { name: container.name.clone(), ..ContainerRecord::default() };
        };
        let mut record = restored_container(status);
        restore_back_off(status, &mut record, now);
        if status.state.running.is_some() && !restarts(pod, container, init, UNKNOWN_EXIT) {
            // A kubelet counts the loss of a run as a restart, even where none follows.
            record.restart_count = record.restart_count.saturating_add(1);
        }
        record
    };
    containers.iter().map(restore).collect()
}

fn restored_container(status: &ContainerStatus) -> ContainerRecord {
    let count = u32::try_from(status.restart_count).unwrap_or(0);
    let ended = |terminated: &Option<ContainerStateTerminated>, run: Option<u32>| {
        let terminated = terminated.clone()?;
        let log = run.filter(|_| !terminated.container_id.is_empty());
        Some(Ended { terminated, log })
    };
    let (state, last) = (&status.state, &status.last_state);
    let ran = state.running.is_some() || state.terminated.is_some();
    let (current, previous) = if let Some(running) = &state.running {
        // The agent ended before the guest did: its end is unknown, its log is there.
        let unknown = ContainerStateTerminated {
            started_at: running.started_at,
            container_id: status.container_id.clone(),
            ..unknown_end()
        };
        (ended(&Some(unknown), Some(count)), ended(&last.terminated, count.checked_sub(1)))
    } else if state.terminated.is_some() {
        (ended(&state.terminated, Some(count)), ended(&last.terminated, count.checked_sub(1)))
    } else {
        (ended(&last.terminated, Some(count)), None)
    };
    ContainerRecord {
        name: status.name.clone(),
        ended: current,
        previous,
        restart_count: count,
        image: if ran { status.image.clone() } else { String::new() },
        image_id: status.image_id.clone(),
        ..ContainerRecord::default()
    }
}

/// A container that waited for its next restart goes on to wait, whatever became of the agent meanwhile.
fn restore_back_off(status: &ContainerStatus, record: &mut ContainerRecord, now: Now) {
    let waiting = status.state.waiting.as_ref().filter(|waiting| waiting.reason == CRASH_LOOP);
    let (Some(waiting), Some(ended)) = (waiting, &record.ended) else { return };
    // The first restart is immediate, the second waits.
    let delay = Backoff::delay_of(record.restart_count);
    let finished = ended.terminated.finished_at.unwrap_or_else(|| now.wall.into());
    let passed = now.wall.as_second().saturating_sub(finished.timestamp().as_second());
    // A clock that was set back shortens nothing and lengthens nothing.
    let left = delay.saturating_sub(Duration::from_secs(u64::try_from(passed).unwrap_or(0)));
    let restart = now.mono.saturating_add(left);
    record.waiting = Some(Waiting::new(CRASH_LOOP, waiting.message.clone()));
    record.retry_at = Some(restart);
    record.restart_wait = Backoff::after(delay, restart);
    record.image.clone_from(&status.image);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "record_tests.rs"]
mod tests;
