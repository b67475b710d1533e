//! Performs what [`crate::pod`] decides, one task a pod on the control thread.
//!
//! Pods come in by [`Supervisor::handle`]; what the supervisor needs of an API server is the trait [`Api`],
//! and of images, modules and logs the trait [`Workshop`]. `cluster/` implements the first for a real API
//! server, [`local`] for `copepod run`; [`WasmWorkshop`] is the second.
//!
//! ```text
//!   handle(PodEvent) ──► admission ──► tend (one task a pod) ──► start ──► Workshop (image, runtime, log)
//!                                       │   ▲        └─────────► reporter ──► Api (status, final delete)
//!                                       └───┘ starts, ends and answers come back as messages
//! ```
//!
//! What is decided of a pod is written down before it is done or told ([`crate::pod::checkpoint`]), and the next life
//! of the agent takes it up: [`Supervisor::resume`].

mod api;
mod by_container;
mod checkpoints;
mod clock;
mod deaths;
mod handlers;
mod inbox;
pub mod local;
mod ports;
mod probes;
mod reporter;
mod root;
mod start;
mod tend;
mod volumes;
mod workshop;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_lock::OnceCell;
use futures_lite::future::or;

use self::by_container::ByContainer;
use self::checkpoints::Last;
use self::inbox::{Inbox, Message};
pub use api::{Api, ApiFailure, BoxFuture, Followed, ObjectKind, ObjectName, Signal, Token, TokenAsked};
pub use clock::{Clock, SystemClock};
pub use deaths::Deaths;
pub use ports::Ports;
pub use workshop::{ByHand, Keep, RunSpec, Running, Terminal, WasmWorkshop, Workshop};

use crate::api::{Pod, PodStatus, Secret};
use crate::control::{self, Task};
use crate::durable::Checkpoints;
use crate::image::Keyring;
use crate::log::PodKey;
use crate::pod::admission::admit;
use crate::pod::checkpoint::Kept;
use crate::pod::conditions::is_owned;
use crate::pod::downward::lighten;
use crate::pod::environment::Sources;
use crate::pod::events::{pod_label, EventText};
use crate::pod::lifecycle::{apply, over, suspect, Happening};
use crate::pod::logs::{self, LogRefusal};
use crate::pod::node::NodeFacts;
use crate::pod::record::{Admission, PodRecord};
use crate::pod::resize::keep_allocated;
use crate::pod::status::is_final;
use crate::pod::storage::Defaults;
use crate::pod::{is_static, CONFIG_SOURCE, MIRROR};
use crate::runtime::Usage;
use crate::volume::PodVolumes;

/// How long an answer of the API server is waited for where what it said last is kept.
const PATIENCE: Duration = Duration::from_secs(5);
/// After that it is not asked such things for so long.
const AWAY: Duration = Duration::from_secs(30);

/// What a source of pods says.
#[derive(Clone, Debug)]
pub enum PodEvent {
    /// These are all pods: any other is gone.
    Set(Vec<Pod>),
    /// This pod is new or changed.
    Applied(Box<Pod>),
    /// The pod with this UID is gone from the API server.
    Deleted {
        /// metadata.uid
        uid: String,
    },
    /// These are all static pods: any other is gone. (The other events tell of the API server's alone.)
    Static(Vec<Pod>),
    /// The API server shows this status of the static pod with this UID: it has another image of it.
    Mirrored {
        /// metadata.uid
        uid: String,
        /// status of the mirror pod
        status: Box<PodStatus>,
    },
}

/// The sources of pods that are to speak before anything is removed that no pod has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Awaited {
    /// [`PodEvent::Set`]
    pub cluster: bool,
    /// [`PodEvent::Static`]
    pub folder: bool,
}

/// What a supervisor works with.
pub struct Setup {
    /// The API server, or what stands in for it.
    pub api: Arc<dyn Api>,
    /// Where containers are made.
    pub workshop: Arc<dyn Workshop>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// The node, as it is now; see [`Supervisor::set_node`].
    pub node: NodeFacts,
    /// Login data that every pull may use, beside the pod's own.
    pub keyring: Keyring,
    /// Who ran when the agent died.
    pub deaths: Arc<Deaths>,
    /// What containers may take of the disk that do not say it.
    pub storage: Defaults,
    /// Where pods are written down, for the agent's next life.
    pub checkpoints: Checkpoints,
    /// What they are given of secrets is written down as well.
    pub secrets_at_rest: bool,
    /// Who speaks of pods.
    pub awaited: Awaited,
}

/// The log that somebody asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogTarget {
    /// Whose.
    pub pod: PodKey,
    /// Which container's.
    pub container: String,
    /// Which run's, from 0.
    pub run: u32,
    /// The run goes on: a follower waits for more.
    pub running: bool,
}

/// What one running container has used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerUsage {
    /// Whose container.
    pub pod: PodKey,
    /// Its name.
    pub container: String,
    /// What it has used since it started.
    pub usage: Usage,
}

/// Looks after all pods of the node. Cheap to clone.
#[derive(Clone)]
pub struct Supervisor {
    shared: Arc<Shared>,
}

/// What all tasks share.
pub(crate) struct Shared {
    api: Arc<dyn Api>,
    workshop: Arc<dyn Workshop>,
    clock: Arc<dyn Clock>,
    keyring: Keyring,
    deaths: Arc<Deaths>,
    storage: Defaults,
    checkpoints: Checkpoints,
    secrets_at_rest: bool,
    /// Pods cannot be written down, and somebody was told.
    unwritten: AtomicBool,
    /// When this life of the agent began.
    begun: Duration,
    /// Until then the API server is not waited for where one can do without.
    away_until: Mutex<Duration>,
    given_sources: Last<Sources>,
    given_secrets: Last<Vec<Secret>>,
    node: Mutex<Arc<NodeFacts>>,
    pods: Mutex<Pods>,
}

#[derive(Default)]
struct Pods {
    /// By UID.
    entries: BTreeMap<String, Arc<Entry>>,
    /// The sources that have not said yet which pods there are.
    awaited: Awaited,
    /// The supervisor was shut down.
    closed: bool,
}

/// One pod.
pub(crate) struct Entry {
    state: Mutex<PodState>,
    inbox: Inbox,
    task: Mutex<Option<Task<()>>>,
    /// Made before the first container starts.
    volumes: OnceCell<Arc<PodVolumes>>,
    /// Held while they are made; the wait after they could not be.
    mounting: async_lock::Mutex<volumes::Pause>,
    /// Those that are made of objects, if there are such.
    objects: Mutex<Option<Arc<volumes::Objects>>>,
    /// Set when the pod is over, or forgotten.
    over: OnceCell<()>,
    /// The fingerprint of what was written down last; held while it is being written.
    written: Arc<async_lock::Mutex<Option<u64>>>,
}

pub(crate) struct PodState {
    pod: Arc<Pod>,
    record: PodRecord,
    runs: ByContainer<Arc<dyn Running>>,
    /// It is back under the same UID, while what was removed still ends.
    again: Option<Box<Pod>>,
    kept: Kept,
    /// It was taken up from an earlier life of the agent, and no source of pods has shown it since: nobody is told
    /// of it meanwhile.
    unseen: bool,
    /// What the API server showed of such a pod, for the reporter to begin with.
    shown: Option<Arc<PodStatus>>,
}

/// A lock that a panic of another task has not made useless: what it guards is set whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Entry {
    fn state(&self) -> MutexGuard<'_, PodState> {
        lock(&self.state)
    }

    /// Makes the pod's task look.
    fn nudge(&self) {
        self.inbox.put(Message::Look);
    }
}

impl Shared {
    fn node(&self) -> Arc<NodeFacts> {
        lock(&self.node).clone()
    }

    fn tell(&self, pod: &Pod, event: EventText) {
        log::debug!("pod {}: {}: {}", pod_label(pod), event.reason, event.message);
        self.api.event(event.about(pod), event);
    }

    /// Puts a question to the API server. Where something is `kept` from its last answer it is not waited for long:
    /// after a power cut without a network, pods run again now and not after every time-out.
    async fn ask<T>(&self, kept: bool, question: impl Future<Output = T>) -> Option<T> {
        if !kept {
            return Some(question.await);
        }
        let now = self.clock.now().mono;
        if now < *lock(&self.away_until) {
            return None;
        }
        let late = async {
            self.clock.until(now.saturating_add(PATIENCE)).await;
            None
        };
        let answer = or(async { Some(question.await) }, late).await;
        if answer.is_none() {
            *lock(&self.away_until) = self.clock.now().mono.saturating_add(AWAY);
        }
        answer
    }

    /// Removes what a pod that is over has on the disk beside its logs.
    async fn remove_volumes(&self, entry: &Entry, pod: &Pod) {
        if let Some(objects) = lock(&entry.objects).take() {
            objects.end();
        }
        if let Err(error) = self.workshop.remove_volumes(pod.metadata.uid.clone()).await {
            log::warn!("pod {}: its volumes stay until the agent starts again: {error}", pod_label(pod));
        }
    }

    /// The pod that is to take the place of the forgotten one comes back.
    fn forget(&self, uid: &str) -> Option<Box<Pod>> {
        let mut pods = lock(&self.pods);
        let entry = pods.entries.remove(uid)?;
        let again = entry.state().again.take();
        again
    }

    fn entries(&self) -> Vec<Arc<Entry>> {
        lock(&self.pods).entries.values().cloned().collect()
    }
}

impl Supervisor {
    /// Starts with no pods.
    #[must_use]
    pub fn new(setup: Setup) -> Supervisor {
        let Setup {
            api,
            workshop,
            clock,
            node,
            keyring,
            deaths,
            storage,
            checkpoints,
            secrets_at_rest,
            awaited,
        } = setup;
        let (node, begun) = (Mutex::new(Arc::new(node)), clock.now().mono);
        Supervisor {
            shared: Arc::new(Shared {
                api,
                workshop,
                clock,
                keyring,
                deaths,
                storage,
                checkpoints,
                secrets_at_rest,
                unwritten: AtomicBool::new(false),
                begun,
                away_until: Mutex::default(),
                given_sources: Last::default(),
                given_secrets: Last::default(),
                node,
                pods: Mutex::new(Pods { awaited, ..Pods::default() }),
            }),
        }
    }

    /// Takes in what a source of pods says. Nothing is ended because it is missing before the first
    /// [`PodEvent::Set`] says so.
    pub fn handle(&self, event: PodEvent) {
        match event {
            PodEvent::Set(mut pods) => {
                self.remove_unnamed(&pods, false);
                // The oldest has the first right to a place (`kubelet.go`, HandlePodAdditions).
                pods.sort_by_key(|pod| pod.metadata.creation_timestamp);
                for pod in pods {
                    self.applied(Box::new(pod));
                }
                self.has_spoken(|awaited| std::mem::take(&mut awaited.cluster));
            }
            PodEvent::Static(pods) => {
                self.remove_unnamed(&pods, true);
                for pod in pods {
                    self.found(Box::new(pod));
                }
                self.has_spoken(|awaited| std::mem::take(&mut awaited.folder));
            }
            PodEvent::Mirrored { uid, status } => {
                let Some(entry) = lock(&self.shared.pods).entries.get(&uid).cloned() else { return };
                let mut state = entry.state();
                // The UID is an annotation that anybody may write who can make pods: it may be another pod's.
                if !is_static(&state.pod) {
                    return;
                }
                see(&mut state, &status);
                drop(state);
                entry.nudge();
            }
            PodEvent::Applied(pod) => self.applied(pod),
            PodEvent::Deleted { uid } => self.removed(&uid),
        }
    }

    /// Removes the pods of a source that it no longer names.
    fn remove_unnamed(&self, named: &[Pod], from_folder: bool) {
        let known: BTreeSet<&str> = named.iter().map(|pod| pod.metadata.uid.as_str()).collect();
        let entries = self.shared.entries();
        for entry in entries {
            let pod = entry.state().pod.clone();
            if is_static(&pod) == from_folder && !known.contains(pod.metadata.uid.as_str()) {
                self.removed(&pod.metadata.uid);
            }
        }
    }

    /// A source has said which pods there are.
    fn has_spoken(&self, source: impl Fn(&mut Awaited) -> bool) {
        let all = {
            let awaited = &mut lock(&self.shared.pods).awaited;
            source(awaited) && !awaited.cluster && !awaited.folder
        };
        if all {
            self.clean_up();
        }
    }

    /// Removes what is left of pods that went away while no agent ran.
    fn clean_up(&self) {
        let shared = self.shared.clone();
        control::spawn(async move {
            let keep = || {
                let known = shared.clone();
                // Asked as the folders are looked at: a pod may have come meanwhile.
                move |uid: &str| lock(&known.pods).entries.contains_key(uid)
            };
            let (checkpoints, known) = (shared.checkpoints.clone(), keep());
            let forgotten = control::blocking(move || checkpoints.remove_others(known)).await;
            if let Err(error) = shared.workshop.remove_others(Box::new(keep())).await.and(forgotten) {
                log::warn!("cannot remove what is left of pods that are gone: {error}");
            }
        })
        .detach();
    }

    /// The node changed: addresses, labels, taints, capacity.
    pub fn set_node(&self, node: NodeFacts) {
        {
            let mut known = lock(&self.shared.node);
            if **known == node {
                return;
            }
            *known = Arc::new(node);
        }
        for entry in self.shared.entries() {
            entry.nudge();
        }
    }

    /// Is the node's address known?
    #[must_use]
    pub fn knows_address(&self) -> bool {
        !self.shared.node().ips.is_empty()
    }

    fn removed(&self, uid: &str) {
        let Some(entry) = lock(&self.shared.pods).entries.get(uid).cloned() else { return };
        {
            let mut state = entry.state();
            let pod = state.pod.clone();
            state.again = None;
            apply(&pod, &mut state.record, Happening::Removed, self.shared.clock.now());
        }
        entry.nudge();
    }

    fn applied(&self, mut pod: Box<Pod>) {
        lighten(&mut pod);
        if pod.metadata.annotations.contains_key(MIRROR) {
            // The API server's image of a static pod: the pod itself comes from elsewhere.
            return;
        }
        // Whatever it says, it comes from the API server.
        pod.metadata.annotations.remove(CONFIG_SOURCE);
        let pods = lock(&self.shared.pods);
        let Some(entry) = pods.entries.get(&pod.metadata.uid).cloned() else {
            drop(pods);
            return self.add(pod);
        };
        let mut state = entry.state();
        if state.record.removed {
            // Its guests are being ended and its logs removed: it begins anew when that is done.
            state.again = Some(pod);
            return;
        }
        if state.unseen {
            see(&mut state, &pod.status);
        }
        let changed = state.pod.metadata.generation != pod.metadata.generation;
        let resize = keep_allocated(&state.pod, &mut pod);
        state.record.resize_refused = resize.is_some();
        let told = resize.filter(|_| changed && state.record.admission == Admission::Admitted);
        // What the record took over when it began is not kept a second time.
        pod.status.init_container_statuses = Vec::new();
        pod.status.container_statuses = Vec::new();
        state.pod = Arc::from(pod);
        let pod = state.pod.clone();
        drop(state);
        if let Some(event) = told {
            self.shared.tell(&pod, event);
        }
        if let Some(objects) = &*lock(&entry.objects) {
            objects.look();
        }
        entry.nudge();
    }

    /// A static pod is there. Its UID says what it is: it never changes.
    fn found(&self, pod: Box<Pod>) {
        let known = lock(&self.shared.pods).entries.get(&pod.metadata.uid).cloned();
        match known {
            None => self.add(pod),
            Some(entry) => {
                let mut state = entry.state();
                if state.record.removed {
                    state.again = Some(pod);
                }
                state.unseen = false;
                drop(state);
                entry.nudge();
            }
        }
    }

    fn add(&self, pod: Box<Pod>) {
        let pod: Arc<Pod> = Arc::from(pod);
        let mut pods = lock(&self.shared.pods);
        if pods.closed || pods.entries.contains_key(&pod.metadata.uid) {
            return;
        }
        let (admission, events) = self.admission(&pod, &pods);
        let record = PodRecord::begin(&pod, admission, self.shared.clock.now());
        self.enter(&mut pods, pod.clone(), record, Kept::default(), false);
        drop(pods);
        for event in events {
            self.shared.tell(&pod, event);
        }
    }

    /// Begins to look after a pod.
    fn enter(&self, pods: &mut Pods, pod: Arc<Pod>, mut record: PodRecord, kept: Kept, unseen: bool) {
        let now = self.shared.clock.now();
        for container in record.all_mut() {
            let Some(count) = self.shared.deaths.suspicion(&pod.metadata.uid, &container.name) else {
                continue;
            };
            let at = now.mono.saturating_add(deaths::back_off(count));
            if let Some(event) = suspect(container, count, at) {
                self.shared.tell(&pod, event);
            }
        }
        let state =
            PodState { pod, record, runs: ByContainer::default(), again: None, kept, unseen, shown: None };
        let uid = state.pod.metadata.uid.clone();
        let entry = Arc::new(Entry {
            state: Mutex::new(state),
            inbox: Inbox::default(),
            task: Mutex::new(None),
            volumes: OnceCell::new(),
            mounting: async_lock::Mutex::default(),
            objects: Mutex::default(),
            over: OnceCell::new(),
            written: Arc::default(),
        });
        pods.entries.insert(uid, entry.clone());
        let task = control::spawn(tend::tend(self.shared.clone(), entry.clone()));
        *lock(&entry.task) = Some(task);
    }

    fn admission(&self, pod: &Pod, pods: &Pods) -> (Admission, Vec<EventText>) {
        // A pod that is over or on its way out needs no place.
        if is_final(&pod.status.phase) || pod.metadata.deletion_timestamp.is_some() {
            return (Admission::Admitted, Vec::new());
        }
        let holds_place = |entry: &&Arc<Entry>| {
            let state = entry.state();
            state.record.admission == Admission::Admitted
                && !state.record.removed
                && !(over(&state.pod, &state.record) && state.record.quiet())
        };
        let others: Vec<Arc<Pod>> =
            pods.entries.values().filter(holds_place).map(|entry| entry.state().pod.clone()).collect();
        let others: Vec<&Pod> = others.iter().map(Arc::as_ref).collect();
        match admit(pod, &self.shared.node(), &others) {
            Ok(notes) => (Admission::Admitted, notes),
            Err(rejection) => {
                log::warn!("pod {} was rejected: {}", pod_label(pod), rejection.message);
                let event = rejection.event();
                (Admission::Rejected(rejection), vec![event])
            }
        }
    }

    /// All pods with their status as this node sees it.
    #[must_use]
    pub fn pods(&self) -> Vec<Pod> {
        self.shared.entries().iter().map(|entry| shown(&entry.state())).collect()
    }

    /// Finds the log that `kubectl logs` means.
    ///
    /// # Errors
    /// Why there is none.
    pub fn log(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        previous: bool,
    ) -> Result<LogTarget, LogRefusal> {
        let is_meant = |entry: &&Arc<Entry>| {
            let state = entry.state();
            state.pod.metadata.namespace == namespace && state.pod.metadata.name == pod
        };
        // Of two of the same name the older is on its way out.
        let newest = |entry: &Arc<Entry>| {
            let state = entry.state();
            (!state.record.removed, state.pod.metadata.creation_timestamp)
        };
        let entries = self.shared.entries();
        let Some(entry) = entries.iter().filter(is_meant).max_by_key(|entry| newest(entry)) else {
            return Err(LogRefusal::NoPod);
        };
        let state = entry.state();
        let found = logs::find(&state.record, container, previous)?;
        Ok(LogTarget {
            pod: start::key_of(&state.pod),
            container: container.to_owned(),
            run: found.run,
            running: found.running,
        })
    }

    /// What each running container has used.
    #[must_use]
    pub fn usage(&self) -> Vec<ContainerUsage> {
        let of_pod = |entry: &Arc<Entry>| -> Vec<ContainerUsage> {
            let state = entry.state();
            let pod = start::key_of(&state.pod);
            let runs = state.runs.iter();
            runs.map(|(name, run)| ContainerUsage {
                pod: pod.clone(),
                container: name.clone(),
                usage: run.usage(),
            })
            .collect()
        };
        self.shared.entries().iter().flat_map(of_pod).collect()
    }

    /// Waits until the pod with this UID is over, or gone; its status then. `None`: there is no such pod.
    pub async fn outcome(&self, uid: &str) -> Option<PodStatus> {
        let entry = lock(&self.shared.pods).entries.get(uid).cloned()?;
        entry.over.wait().await;
        let status = shown(&entry.state()).status;
        Some(status)
    }

    /// Ends every guest and every task, without a word to the API server: a restart of the agent evicts
    /// nobody. False: some guest had not ended within `limit`.
    pub async fn shutdown(&self, limit: Duration) -> bool {
        let entries = {
            let mut pods = lock(&self.shared.pods);
            pods.closed = true;
            std::mem::take(&mut pods.entries)
        };
        let tasks: Vec<Task<()>> = entries.values().filter_map(|entry| lock(&entry.task).take()).collect();
        for task in tasks {
            task.cancel().await;
        }
        let runs: Vec<Arc<dyn Running>> = entries
            .values()
            .flat_map(|entry| std::mem::take(&mut entry.state().runs).into_values())
            .collect();
        for run in &runs {
            run.kill();
        }
        let ended = async {
            for run in &runs {
                run.wait().await;
            }
            true
        };
        let late = async {
            let deadline = self.shared.clock.now().mono.saturating_add(limit);
            self.shared.clock.until(deadline).await;
            false
        };
        or(ended, late).await
    }
}

/// The API server shows this status of the pod: the next that it is told of goes on from there.
fn see(state: &mut PodState, status: &PodStatus) {
    let mut status = status.clone();
    status.conditions.retain(|condition| is_owned(&condition.kind));
    state.unseen = false;
    state.record.settled = is_final(&status.phase);
    state.shown = Some(Arc::new(status));
}

/// The pod as it is now: what the API server has of it, with this node's own status over it.
fn shown(state: &PodState) -> Pod {
    let mut pod = (*state.pod).clone();
    let mut status = (*state.record.reported).clone();
    let own = |kind: &str| is_owned(kind) || status.conditions.iter().any(|own| own.kind == kind);
    let foreign = pod.status.conditions.iter().filter(|condition| !own(&condition.kind));
    let foreign: Vec<_> = foreign.cloned().collect();
    status.conditions.extend(foreign);
    pod.status = status;
    pod
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
