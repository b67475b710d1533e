//! What the sources of pods say: pods come, change and go, and are admitted or refused.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_lock::OnceCell;

use super::by_container::ByContainer;
use super::inbox::Inbox;
use super::{deaths, lock, tend, Entry, PodState, Pods, Supervisor};
use crate::api::{Pod, PodStatus};
use crate::control;
use crate::pod::admission::admit;
use crate::pod::checkpoint::Kept;
use crate::pod::conditions::is_owned;
use crate::pod::downward::lighten;
use crate::pod::events::{pod_label, EventText};
use crate::pod::lifecycle::{apply, over, suspect, Happening};
use crate::pod::record::{Admission, PodRecord};
use crate::pod::resize::keep_allocated;
use crate::pod::status::is_final;
use crate::pod::{is_static, CONFIG_SOURCE, MIRROR};
use crate::runtime::Usage;

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

impl Supervisor {
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

    pub(super) fn applied(&self, mut pod: Box<Pod>) {
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
        (pod.status.host_ip, pod.status.host_ips) = Default::default();
        (pod.status.pod_ip, pod.status.pod_ips) = Default::default();
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
    pub(super) fn found(&self, pod: Box<Pod>) {
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
    pub(super) fn enter(
        &self,
        pods: &mut Pods,
        pod: Arc<Pod>,
        mut record: PodRecord,
        kept: Kept,
        unseen: bool,
    ) {
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
        let state = PodState {
            pod,
            record,
            runs: ByContainer::default(),
            used: Usage::default(),
            probed: Vec::new(),
            again: None,
            kept,
            unseen,
            shown: None,
        };
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
}

/// The API server shows this status of the pod: the next that it is told of goes on from there.
fn see(state: &mut PodState, status: &PodStatus) {
    let mut status = status.clone();
    status.conditions.retain(|condition| is_owned(&condition.kind));
    state.unseen = false;
    state.record.settled = is_final(&status.phase);
    state.shown = Some(Arc::new(status));
}
