//! What others ask of the supervisor: the pods, their logs, how they ended.

use std::sync::Arc;

use super::{lock, start, Entry, PodState, Supervisor};
use crate::api::{Pod, PodStatus};
use crate::log::PodKey;
use crate::pod::conditions::is_owned;
use crate::pod::logs::{self, LogRefusal};

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

impl Supervisor {
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

    /// Waits until the pod with this UID is over, or gone; its status then. `None`: there is no such pod.
    pub async fn outcome(&self, uid: &str) -> Option<PodStatus> {
        let entry = lock(&self.shared.pods).entries.get(uid).cloned()?;
        entry.over.wait().await;
        let status = shown(&entry.state()).status;
        Some(status)
    }
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
