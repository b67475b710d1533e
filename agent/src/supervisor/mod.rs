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
mod figures;
mod handlers;
mod images;
mod inbox;
mod instance;
pub mod local;
mod lookups;
mod ports;
mod probes;
mod program;
mod reporter;
mod root;
mod sources;
mod start;
mod tend;
mod volumes;
mod workshop;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize};
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
pub use lookups::{LogTarget, NotThere};
pub use ports::Ports;
pub use sources::{Awaited, PodEvent};
pub use workshop::{ByHand, Ending, Keep, RunSpec, Running, Streams, Terminal, WasmWorkshop, Workshop};

use crate::api::{Pod, PodStatus, Secret};
use crate::control::Task;
use crate::durable::Checkpoints;
use crate::image::Keyring;
use crate::metrics::ProbeCount;
use crate::pod::checkpoint::Kept;
use crate::pod::environment::Sources;
use crate::pod::events::{pod_label, EventText};
use crate::pod::node::NodeFacts;
use crate::pod::record::PodRecord;
use crate::pod::storage::Defaults;
use crate::runtime::Usage;
use crate::volume::PodVolumes;

/// How long an answer of the API server is waited for where what it said last is kept.
const PATIENCE: Duration = Duration::from_secs(5);
/// After that it is not asked such things for so long.
const AWAY: Duration = Duration::from_secs(30);

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
    /// Containers that were started, and that could not be.
    starts: [AtomicUsize; 2],
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
    /// What the runs have used that ended.
    used: Usage,
    /// What its probes came to.
    probed: Vec<ProbeCount>,
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
                starts: Default::default(),
            }),
        }
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
