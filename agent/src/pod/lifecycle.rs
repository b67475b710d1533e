//! The life of a pod: what to do next.
//!
//! [`plan`] looks only at how things are, so that it does not matter which events came in which order or
//! were lost: asked again, it says again what is still to be done.

use std::time::Duration;

use super::backoff::Backoff;
use super::events::{self, EventText};
use super::handlers::pre_stop;
use super::happening::{KILLED, PULL_FAILED, SHOW_PULL_ERROR, STOPPED};
use super::policy::{is_sidecar, restarts};
use super::record::{Activity, Admission, ContainerRecord, PodFailure, PodRecord, PreStop, Stop, Waiting};
use super::status::is_final;
use super::waits_for_grace;
use crate::api::{Container, Pod};
use crate::durable::clock::Now;

pub use super::happening::{apply, suspect, Happening, StartFailure};

/// Grace of a pod that names none (`DefaultTerminationGracePeriodSeconds`).
const DEFAULT_GRACE: i64 = 30;

/// Grace of a pod that is evicted for the room that it takes (`immediateEvictionGracePeriodSeconds`).
const EVICTION_GRACE: i64 = 1;

/// What is to be done for a pod now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub actions: Vec<Action>,
    /// Look again at this time, whatever happens until then.
    pub wake: Option<Duration>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start this container.
    Start(String),
    /// Give up starting this container.
    Abort(String),
    /// Do what this container wants done before its stop.
    PreStop(String),
    /// Tell this container's guest that it is to stop.
    Ask(String),
    /// End this container's guest; the exit code says why.
    Kill(String, i32),
    /// Delete the pod's object with grace 0 and its UID as precondition.
    Delete,
    /// Nothing is left of the pod: forget it and its logs.
    Forget,
}

/// Lets a new version of the pod, or the time that passed, take effect. To be called before [`plan`].
pub fn advance(pod: &Pod, record: &mut PodRecord, now: Now) -> Vec<EventText> {
    let mut events = Vec::new();
    if record.admission == Admission::Admitted && !record.removed {
        events.extend(check_deadline(pod, record, now));
        if matches!(record.failure, Some(PodFailure::Evicted(_))) {
            events.extend(stop(record, EVICTION_GRACE, now));
        }
        events.extend(check_deletion(pod, record, now));
        // Somebody else declared it over, and a final phase is never left again.
        let declared = is_final(&pod.status.phase) && !is_final(&record.reported.phase);
        // What still runs of a pod that is over are its sidecars.
        if declared || (over(pod, record) && !record.quiet()) {
            events.extend(stop(record, own_grace(pod), now));
        }
        for (spec, container) in specs_mut(pod, record) {
            events.extend(advance_container(spec, container, own_grace(pod), now));
        }
    }
    events
}

fn check_deadline(pod: &Pod, record: &mut PodRecord, now: Now) -> Vec<EventText> {
    if record.failure.is_some() || over(pod, record) {
        return Vec::new();
    }
    let Some(deadline) = deadline(pod) else { return Vec::new() };
    if record.active(now) < deadline {
        return Vec::new();
    }
    record.failure = Some(PodFailure::DeadlineExceeded);
    let mut events = vec![events::deadline_exceeded()];
    events.extend(stop(record, own_grace(pod), now));
    events
}

fn deadline(pod: &Pod) -> Option<Duration> {
    pod.spec.active_deadline_seconds.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

fn check_deletion(pod: &Pod, record: &mut PodRecord, now: Now) -> Vec<EventText> {
    if pod.metadata.deletion_timestamp.is_none() {
        return Vec::new();
    }
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or_else(|| own_grace(pod));
    stop(record, grace, now)
}

pub(super) fn own_grace(pod: &Pod) -> i64 {
    pod.spec.termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE)
}

/// Begins to stop all of the pod, or shortens the grace of a stop that goes on.
fn stop(record: &mut PodRecord, grace: i64, now: Now) -> Vec<EventText> {
    let new = Stop::within(grace, now);
    match &mut record.stop {
        Some(stop) => {
            if new.grace < stop.grace {
                *stop = Stop { deadline: new.deadline.min(stop.deadline), ..new };
            }
            Vec::new()
        }
        none => {
            *none = Some(new);
            record.all().filter(|c| c.running().is_some()).map(|c| events::stopping(&c.name)).collect()
        }
    }
}

fn advance_container(
    spec: &Container,
    container: &mut ContainerRecord,
    grace: i64,
    now: Now,
) -> Vec<EventText> {
    let changed = !container.image.is_empty() && container.image != spec.image;
    match &mut container.activity {
        Activity::Running(running) if changed && running.kill.is_none() && !container.replace => {
            container.replace = true;
            running.stop.get_or_insert(Stop::within(grace, now));
            vec![events::changed(&spec.name)]
        }
        Activity::Idle if changed && container.waiting.is_some() => {
            // Another image: its waits are not those of the old one, and whatever was wrong may be right now.
            container.image = spec.image.clone();
            container.retry_at = None;
            container.pull_wait = Backoff::default();
            container.restart_wait = Backoff::default();
            Vec::new()
        }
        Activity::Idle if container.retry_at <= Some(now.mono) => {
            let failed = |waiting: &&Waiting| PULL_FAILED.contains(&waiting.reason.as_str());
            let Some(failed) = container.waiting.as_ref().filter(failed) else { return Vec::new() };
            let (reason, error) = (&failed.reason, &failed.message);
            let message = format!("Back-off pulling image \"{}\": {reason}: {error}", spec.image);
            let shown = SHOW_PULL_ERROR.min(container.pull_wait.delay());
            let until = now.mono.saturating_add(container.pull_wait.delay()).saturating_sub(shown);
            container.waiting = Some(Waiting::new("ImagePullBackOff", message));
            container.retry_at = Some(until);
            vec![
                events::pull_back_off(&spec.name, &spec.image),
                events::failed(&spec.name, "ImagePullBackOff"),
            ]
        }
        _ => Vec::new(),
    }
}

/// What is to be done now.
#[must_use]
pub fn plan(pod: &Pod, record: &PodRecord, now: Now) -> Plan {
    let mut plan = Plan::default();
    let running = record.admission == Admission::Admitted;
    if record.removed {
        for container in record.all() {
            plan_end(container, KILLED, &mut plan);
        }
        if record.quiet() {
            plan.actions.push(Action::Forget);
        }
    } else if let Some(stop) = record.stop.filter(|_| running) {
        let way = Way::of(pod, stop, now);
        plan_stop(pod, record, way, &mut plan);
        if !record.quiet() && !way.due {
            plan.wake = Some(stop.deadline);
        }
    } else if running && !over(pod, record) {
        plan_own_stops(pod, record, now, &mut plan);
        plan_starts(pod, record, now, &mut plan);
        if let Some(deadline) = deadline(pod) {
            let left = deadline.saturating_sub(record.active(now));
            wake(&mut plan, now.mono.saturating_add(left));
        }
    }
    let deleting = pod.metadata.deletion_timestamp.is_some() && record.quiet();
    if deleting && record.settled && !record.deleted && !record.removed {
        plan.actions.push(Action::Delete);
    }
    plan
}

/// How what runs is stopped now.
#[derive(Clone, Copy)]
struct Way {
    /// The grace is over: nobody is waited for.
    due: bool,
    /// There is time for what a container wants done before.
    hooks: bool,
    /// What runs ends now, and the exit code says why; none: it is told, and has its grace.
    code: Option<i32>,
}

impl Way {
    fn of(pod: &Pod, stop: Stop, now: Now) -> Way {
        let waits = waits_for_grace(pod);
        let due = now.mono >= stop.deadline;
        let code = if waits || stop.grace == 0 { KILLED } else { STOPPED };
        Way { due, hooks: !due && stop.grace > 0, code: (due || !waits).then_some(code) }
    }
}

/// Stops the containers that are to end alone.
fn plan_own_stops(pod: &Pod, record: &PodRecord, now: Now, plan: &mut Plan) {
    let init = pod.spec.init_containers.iter().zip(&record.init);
    for (spec, container) in init.chain(pod.spec.containers.iter().zip(&record.containers)) {
        let Some(running) = container.running().filter(|running| running.kill.is_none()) else { continue };
        let Some(stop) = running.stop else { continue };
        let way = Way::of(pod, stop, now);
        plan_stop_of(spec, container, way, false, plan);
        let hook = way.hooks && running.pre_stop != PreStop::Done && pre_stop(spec).is_some();
        if hook || way.code.is_none() {
            wake(plan, stop.deadline);
        }
    }
}

/// Stops a pod. What its containers want done before is done first, for all at once. Then sidecars go when all is gone
/// that came after them, the last one first (`kuberuntime_termination_order.go`). When the grace is over, nobody is
/// waited for. No `code`: what runs has until then, and is told.
fn plan_stop(pod: &Pod, record: &PodRecord, way: Way, plan: &mut Plan) {
    let mut needed = false;
    let init = pod.spec.init_containers.iter().map(|spec| (is_sidecar(spec), spec)).zip(&record.init);
    let apps = pod.spec.containers.iter().map(|spec| (false, spec)).zip(&record.containers);
    for ((sidecar, spec), container) in init.chain(apps).rev() {
        plan_stop_of(spec, container, way, !way.due && sidecar && needed, plan);
        needed |= container.activity != Activity::Idle;
    }
}

/// Stops one container; `held`: not yet, but what it wants done before is done.
fn plan_stop_of(spec: &Container, container: &ContainerRecord, way: Way, held: bool, plan: &mut Plan) {
    let before = match container.running() {
        Some(running) if way.hooks && pre_stop(spec).is_some() => running.pre_stop,
        _ => PreStop::Done,
    };
    match (&container.activity, way.code) {
        (Activity::Starting | Activity::Launching(_), _) => plan_end(container, KILLED, plan),
        _ if before == PreStop::Waits => plan.actions.push(Action::PreStop(container.name.clone())),
        _ if before == PreStop::Runs || held => {}
        (_, Some(code)) => plan_end(container, code, plan),
        (Activity::Running(running), None) if !running.asked && running.kill.is_none() => {
            plan.actions.push(Action::Ask(container.name.clone()));
        }
        _ => {}
    }
}

/// Ends a container's run, or gives up its start.
fn plan_end(container: &ContainerRecord, code: i32, plan: &mut Plan) {
    match &container.activity {
        Activity::Starting | Activity::Launching(_) => {
            plan.actions.push(Action::Abort(container.name.clone()))
        }
        Activity::Running(running) if running.kill.is_none() => {
            plan.actions.push(Action::Kill(container.name.clone(), code));
        }
        _ => {}
    }
}

fn plan_starts(pod: &Pod, record: &PodRecord, now: Now, plan: &mut Plan) {
    // The last that began: what came before it has had its turn.
    let begun = |container: &ContainerRecord| container.running().is_some() || container.ended.is_some();
    let reached = if record.containers.iter().any(begun) {
        record.init.len()
    } else {
        record.init.iter().rposition(begun).unwrap_or(0)
    };
    for (index, (spec, container)) in pod.spec.init_containers.iter().zip(&record.init).enumerate() {
        let sidecar = is_sidecar(spec);
        if !sidecar && (container.succeeded() || index < reached) {
            continue;
        }
        plan_start(pod, spec, true, container, now, plan);
        // The next waits until a sidecar has started, once.
        let started = container.running().is_some_and(|running| running.started);
        if !sidecar || (!started && index >= reached) {
            return;
        }
    }
    for (spec, container) in pod.spec.containers.iter().zip(&record.containers) {
        plan_start(pod, spec, false, container, now, plan);
    }
}

fn plan_start(
    pod: &Pod,
    spec: &Container,
    init: bool,
    container: &ContainerRecord,
    now: Now,
    plan: &mut Plan,
) {
    if container.activity != Activity::Idle || done(pod, spec, init, container) {
        return;
    }
    match container.retry_at {
        Some(at) if at > now.mono => wake(plan, at),
        _ => plan.actions.push(Action::Start(spec.name.clone())),
    }
}

fn wake(plan: &mut Plan, at: Duration) {
    if at != Duration::MAX {
        plan.wake = Some(plan.wake.map_or(at, |earlier| earlier.min(at)));
    }
}

/// The container ended and is not to run again.
fn done(pod: &Pod, spec: &Container, init: bool, container: &ContainerRecord) -> bool {
    !container.replace
        && container.activity == Activity::Idle
        && container.ended.as_ref().is_some_and(|e| !restarts(pod, spec, init, e.terminated.exit_code))
}

/// The pod is over: an init container failed for good, or all containers are done.
#[must_use]
pub fn over(pod: &Pod, record: &PodRecord) -> bool {
    let mut init = pod.spec.init_containers.iter().zip(&record.init);
    let mut containers = pod.spec.containers.iter().zip(&record.containers);
    init.any(|(spec, container)| done(pod, spec, true, container) && !container.succeeded())
        || (!record.containers.is_empty()
            && containers.all(|(spec, container)| done(pod, spec, false, container)))
}

fn specs_mut<'a>(
    pod: &'a Pod,
    record: &'a mut PodRecord,
) -> impl Iterator<Item = (&'a Container, &'a mut ContainerRecord)> {
    let init = pod.spec.init_containers.iter().zip(&mut record.init);
    init.chain(pod.spec.containers.iter().zip(&mut record.containers))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
#[path = "lifecycle_tests.rs"]
mod tests;
