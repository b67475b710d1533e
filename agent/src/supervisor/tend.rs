//! The task of one pod: looks at how it is, does what is to be done, and waits for what happens.

use std::sync::Arc;
use std::time::Duration;

use futures_lite::future::or;

use super::by_container::ByContainer;
use super::deaths::{Mark, STEADY};
use super::figures;
use super::handlers::{hook, Means};
use super::inbox::Message;
use super::probes;
use super::reporter::{Answer, Reporter};
use super::root::ContainerRoot;
use super::start::{self, Started};
use super::workshop::Running;
use super::{Entry, Shared, Supervisor};
use crate::api::{Container, Pod, PodStatus};
use crate::control::{self, Task};
use crate::pod::events::{pod_label, EventText};
use crate::pod::handlers::{pre_stop, ProbeKind};
use crate::pod::is_static;
use crate::pod::lifecycle::{advance, apply, plan, Action, Happening, StartFailure};
use crate::pod::status::{is_final, report};
use crate::pod::storage::evicted;
use crate::pod::termination::{falls_back_to_log, message_path};
use crate::runtime::Exit;

/// Rounds of doing and planning again at one look. Two are enough for every story; a plan that never came to
/// rest would otherwise hold up the control thread.
const MAX_ROUNDS: usize = 8;

/// Wait after a pod could not be written down.
const WRITE_AGAIN: Duration = Duration::from_secs(60);

struct Tender {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    /// Starts that go on, with their numbers.
    starts: ByContainer<(u64, Task<()>)>,
    /// Of what runs, each with the wait after which it is no suspect any more.
    marks: ByContainer<(Arc<Mark>, Option<Task<()>>)>,
    /// Waits for the ends of guests.
    watches: ByContainer<Task<()>>,
    /// What is done before stops.
    hooks: ByContainer<Task<()>>,
    /// Probes of what runs.
    probes: ByContainer<Vec<Task<()>>>,
    serial: u64,
    reporter: Reporter,
    /// The pod is over, and its volumes are being removed.
    cleared: bool,
    /// It is being written down.
    writing: Option<Task<()>>,
    /// It could not be: not again before this.
    write_again: Duration,
}

/// What a look came to.
struct Look {
    wake: Option<Duration>,
    forget: bool,
}

/// Looks after one pod until nothing is left of it.
pub async fn tend(shared: Arc<Shared>, entry: Arc<Entry>) {
    let accepted = entry.state().record.reported.clone();
    let mut tender = Tender {
        shared,
        entry,
        starts: ByContainer::default(),
        marks: ByContainer::default(),
        watches: ByContainer::default(),
        hooks: ByContainer::default(),
        probes: ByContainer::default(),
        serial: 0,
        reporter: Reporter::new(accepted),
        cleared: false,
        writing: None,
        write_again: Duration::ZERO,
    };
    loop {
        let look = tender.look();
        if look.forget {
            break;
        }
        let wait = async {
            match look.wake {
                Some(at) => tender.shared.clock.until(at).await,
                None => std::future::pending().await,
            }
            Message::Look
        };
        let message = or(tender.entry.inbox.take(), wait).await;
        tender.take(message);
    }
    // Its size is not every pod's, all its life.
    Box::pin(tender.forget()).await;
}

impl Tender {
    fn look(&mut self) -> Look {
        let mut look = Look { wake: None, forget: false };
        if let Some(shown) = self.entry.state().shown.take() {
            self.reporter = Reporter::new(shown);
        }
        let mut events = Vec::new();
        for _ in 0..MAX_ROUNDS {
            let now = self.shared.clock.now();
            let (pod, plan, told) = {
                let mut state = self.entry.state();
                let pod = state.pod.clone();
                let told = advance(&pod, &mut state.record, now);
                (pod.clone(), plan(&pod, &state.record, now), told)
            };
            events.extend(told);
            look.wake = plan.wake;
            let mut acted = false;
            for action in plan.actions {
                match action {
                    Action::Forget => look.forget = true,
                    Action::Delete => {
                        let again = self.reporter.delete(&self.shared, &pod, &self.entry);
                        look.wake = earlier(look.wake, again);
                    }
                    action => {
                        acted = true;
                        self.act(&pod, action, &mut events);
                    }
                }
            }
            if !acted || look.forget {
                break;
            }
        }
        let (pod, status, silent) = self.report();
        for event in events {
            self.shared.tell(&pod, event);
        }
        // What is told is written down before.
        let written = self.write_down(&mut look);
        if written && !silent {
            let again = self.reporter.offer(&self.shared, &pod, &status, &self.entry);
            look.wake = earlier(look.wake, again);
        }
        if is_final(&status.phase) || look.forget {
            self.clear(&pod);
            let _over_before = self.entry.over.set_blocking(());
        }
        look
    }

    /// Gives back the room that a pod takes which is over, as long as its object stays.
    fn clear(&mut self, pod: &Arc<Pod>) {
        if !std::mem::replace(&mut self.cleared, true) {
            let (shared, entry, pod) = (self.shared.clone(), self.entry.clone(), pod.clone());
            control::spawn(async move { shared.remove_volumes(&entry, &pod).await }).detach();
        }
    }

    /// Has the pod written down if that is due. True: it is, or cannot be.
    fn write_down(&mut self, look: &mut Look) -> bool {
        if !self.shared.checkpoints.is_kept() {
            return true;
        }
        if self.writing.is_some() {
            return false;
        }
        let now = self.shared.clock.now();
        let Some((_, checkpoint)) = self.entry.checkpoint(now, self.shared.secrets_at_rest) else {
            return true;
        };
        let known = self.entry.written.try_lock();
        if known.is_some_and(|written| *written == Some(checkpoint.fingerprint)) {
            return true;
        }
        if now.mono < self.write_again {
            look.wake = earlier(look.wake, Some(self.write_again));
            return true;
        }
        let (shared, entry) = (self.shared.clone(), self.entry.clone());
        self.writing = Some(control::spawn(async move {
            let done = shared.write_down(&entry).await;
            entry.inbox.put(Message::Written(done));
        }));
        false
    }

    /// One status, which the record, the reporter and what is on its way share; and whether nobody is to be told.
    fn report(&self) -> (Arc<Pod>, Arc<PodStatus>, bool) {
        let mut state = self.entry.state();
        let status = report(&state.pod, &state.record, &self.shared.node(), self.shared.clock.now());
        if *state.record.reported != status {
            state.record.reported = Arc::new(status);
        }
        let silent = state.record.removed || state.unseen;
        (state.pod.clone(), state.record.reported.clone(), silent)
    }

    fn act(&mut self, pod: &Arc<Pod>, action: Action, events: &mut Vec<EventText>) {
        let happening = match action {
            Action::Start(name) => {
                self.begin(pod, &name);
                Happening::Starting(name)
            }
            Action::Abort(name) => {
                self.starts.remove(&name);
                Happening::Aborted(name)
            }
            Action::PreStop(name) => {
                self.pre_stop(pod, &name);
                Happening::PreStopping(name)
            }
            Action::Ask(name) => {
                self.give_notice(pod, &name);
                Happening::Asked(name)
            }
            Action::Kill(name, code) => {
                if let Some(run) = self.entry.state().runs.get(&name) {
                    run.kill();
                }
                Happening::Killed(name, code)
            }
            Action::Delete | Action::Forget => return,
        };
        events.extend(self.happens(pod, happening));
    }

    fn pre_stop(&mut self, pod: &Pod, container: &str) {
        let wanted = container_of(pod, container).and_then(pre_stop);
        let run = self.entry.state().runs.get(container).cloned();
        let (shared, entry, name) = (self.shared.clone(), self.entry.clone(), container.to_owned());
        let task = control::spawn(async move {
            let own = shared.node().ips.first().cloned();
            let outcome = match (&wanted, &run) {
                (Some(wanted), Some(run)) => {
                    Box::pin(hook(wanted, &Means { own, run: &**run, clock: &*shared.clock })).await
                }
                _ => Ok(()),
            };
            entry.inbox.put(Message::PreStopped { container: name, outcome });
        });
        self.hooks.insert(container.to_owned(), task);
    }

    fn give_notice(&self, pod: &Pod, container: &str) {
        let given = self.shared.workshop.clone();
        let (uid, container, label) = (pod.metadata.uid.clone(), container.to_owned(), pod_label(pod));
        control::spawn(async move {
            if let Err(error) = given.give_notice(uid, container.clone()).await {
                log::warn!("pod {label}: container {container} is not told that it is to stop: {error}");
            }
        })
        .detach();
    }

    fn happens(&self, pod: &Pod, happening: Happening) -> Vec<EventText> {
        apply(pod, &mut self.entry.state().record, happening, self.shared.clock.now())
    }

    fn begin(&mut self, pod: &Arc<Pod>, name: &str) {
        let Some(container) = container_of(pod, name).cloned() else { return };
        let run = self.entry.state().record.container(name).map_or(0, |container| {
            container.restart_count.saturating_add(u32::from(container.ended.is_some()))
        });
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        let (shared, entry, pod) = (self.shared.clone(), self.entry.clone(), pod.clone());
        let task = control::spawn(async move {
            let outcome = start::start(&shared, &entry, &pod, &container, run).await;
            entry.inbox.put(Message::Start { container: container.name, serial, outcome });
        });
        self.starts.insert(name.to_owned(), (serial, task));
    }

    fn take(&mut self, message: Message) {
        let now = self.shared.clock.now();
        let pod = self.entry.state().pod.clone();
        let happening = match message {
            Message::Look => None,
            Message::Start { container, serial, outcome } => {
                if self.starts.get(&container).is_none_or(|(current, _)| *current != serial) {
                    // Given up meanwhile; a run that was made is ended as it is dropped.
                    return;
                }
                self.starts.remove(&container);
                Some(self.started(container, outcome))
            }
            Message::Ended { container, exit, left } => {
                self.watches.remove(&container);
                self.hooks.remove(&container);
                self.probes.remove(&container);
                self.marks.remove(&container);
                figures::end_run(&mut self.entry.state(), &container);
                Some(Happening::Ended(container, exit, left))
            }
            Message::PreStopped { container, outcome } => {
                self.hooks.remove(&container);
                if let Err(error) = &outcome {
                    log::warn!("pod {}: preStop hook of container {container}: {error}", pod_label(&pod));
                }
                Some(Happening::PreStopped { container, well: outcome.is_ok() })
            }
            Message::Probed { container, kind, well } => {
                if kind == ProbeKind::Startup && well {
                    self.probe(&pod, &container, &[ProbeKind::Readiness, ProbeKind::Liveness]);
                }
                Some(Happening::Probed { container, kind, well })
            }
            Message::Exceeded(exceeded) => {
                Some(Happening::StorageExceeded(evicted(&pod, &exceeded, self.shared.storage)))
            }
            Message::Written(done) => {
                self.writing = None;
                if done.is_err() {
                    self.write_again = now.mono.saturating_add(WRITE_AGAIN);
                }
                None
            }
            Message::Patched(answer) => {
                let answer = self.reporter.patched(&pod, answer, now.mono);
                (answer == Answer::Settled).then_some(Happening::Settled)
            }
            Message::Deleted(answer) => {
                self.reporter.deleted(&pod, answer, now.mono).then_some(Happening::Deleted)
            }
        };
        if let Some(happening) = happening {
            for event in self.happens(&pod, happening) {
                self.shared.tell(&pod, event);
            }
        }
    }

    fn started(&mut self, container: String, outcome: Result<Started, StartFailure>) -> Happening {
        figures::count_start(&self.shared, outcome.is_ok());
        let Started { run, id, image_id, mark, root } = match outcome {
            Ok(started) => started,
            Err(failure) => return Happening::Failed(container, failure),
        };
        let Some(run) = run.take() else {
            return Happening::Failed(container, StartFailure::Create("the run is gone".to_owned()));
        };
        self.entry.state().runs.insert(container.clone(), run.clone());
        if let Some(mark) = mark {
            self.keep_mark(container.clone(), Arc::new(mark));
        }
        self.watch(container.clone(), run, root);
        let pod = self.entry.state().pod.clone();
        let first: &[ProbeKind] = match container_of(&pod, &container) {
            // The others wait for it.
            Some(spec) if spec.startup_probe.is_some() => &[ProbeKind::Startup],
            _ => &[ProbeKind::Readiness, ProbeKind::Liveness],
        };
        self.probe(&pod, &container, first);
        Happening::Started { container, id, image_id }
    }

    /// Begins to probe a container that runs, in place of how it was probed before.
    fn probe(&mut self, pod: &Pod, container: &str, kinds: &[ProbeKind]) {
        let run = self.entry.state().runs.get(container).cloned();
        let (Some(spec), Some(run)) = (container_of(pod, container), run) else { return };
        let start = |kind: &ProbeKind| probes::start(&self.shared, &self.entry, spec, *kind, &run);
        let tasks: Vec<Task<()>> = kinds.iter().filter_map(start).collect();
        if tasks.is_empty() {
            self.probes.remove(container);
        } else {
            self.probes.insert(container.to_owned(), tasks);
        }
    }

    fn keep_mark(&mut self, container: String, mark: Arc<Mark>) {
        let uid = &self.entry.state().pod.metadata.uid;
        let suspected = self.shared.deaths.suspicion(uid, &container).is_some();
        let trial = suspected.then(|| {
            let (shared, mark) = (self.shared.clone(), mark.clone());
            control::spawn(async move {
                shared.clock.until(shared.clock.now().mono.saturating_add(STEADY)).await;
                mark.steady();
            })
        });
        self.marks.insert(container, (mark, trial));
    }

    fn watch(&mut self, container: String, run: Arc<dyn Running>, root: Arc<ContainerRoot>) {
        let (shared, entry, name) = (self.shared.clone(), self.entry.clone(), container.clone());
        let task = control::spawn(async move {
            let exit = run.wait().await;
            let left = Box::pin(last_words(&shared, &entry, &name, &exit, &root)).await;
            entry.inbox.put(Message::Ended { container: name, exit, left });
        });
        self.watches.insert(container, task);
    }

    async fn forget(self) {
        let pod = self.entry.state().pod.clone();
        self.shared.remove_volumes(&self.entry, &pod).await;
        let key = start::key_of(&pod);
        if let Err(error) = self.shared.workshop.remove_logs(key.clone()).await {
            log::warn!("cannot remove the logs of pod {}/{} ({}): {error}", key.namespace, key.name, key.uid);
        }
        self.shared.erase(&self.entry, &pod).await;
        self.shared.deaths.forget_pod(&key.uid);
        // The logs go first: those of a pod that comes again have the same place.
        if let Some(pod) = self.shared.forget(&key.uid) {
            let supervisor = Supervisor { shared: self.shared.clone() };
            if is_static(&pod) {
                supervisor.found(pod);
            } else {
                supervisor.applied(pod);
            }
        }
    }
}

/// What a guest that ended has said of its end: its termination message, or the end of its log.
async fn last_words(
    shared: &Shared,
    entry: &Entry,
    container: &str,
    exit: &Exit,
    root: &ContainerRoot,
) -> Vec<u8> {
    let (pod, run) = {
        let state = entry.state();
        (state.pod.clone(), state.record.container(container).map_or(0, |known| known.restart_count))
    };
    let Some(spec) = container_of(&pod, container) else { return Vec::new() };
    let left = root.message(message_path(spec)).await;
    if left.is_empty() && falls_back_to_log(spec, i32::from(*exit != Exit::Code(0))) {
        let key = start::key_of(&pod);
        return shared.workshop.end_of_log(key, container.to_owned(), run).await;
    }
    left
}

pub fn container_of<'p>(pod: &'p Pod, name: &str) -> Option<&'p Container> {
    pod.spec.init_containers.iter().chain(&pod.spec.containers).find(|container| container.name == name)
}

fn earlier(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
