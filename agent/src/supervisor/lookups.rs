//! What others ask of the supervisor: the pods, their logs, how they ended.

use std::net::SocketAddr;
use std::sync::Arc;

use super::tend::container_of;
use super::workshop::Running;
use super::{lock, start, Entry, PodState, Supervisor};
use crate::api::{Container, Pod, PodStatus};
use crate::log::PodKey;
use crate::pod::conditions::is_owned;
use crate::pod::logs::{self, LogRefusal};
use crate::pod::ports;

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

/// What there is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotThere {
    /// No such pod on this node.
    Pod,
    /// No such container in it, or it does not run.
    Container,
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
        let entry = self.named(namespace, pod, None).ok_or(LogRefusal::NoPod)?;
        let state = entry.state();
        let found = logs::find(&state.record, container, previous)?;
        Ok(LogTarget {
            pod: start::key_of(&state.pod),
            container: container.to_owned(),
            run: found.run,
            running: found.running,
        })
    }

    /// The newest pod of this name: of two the older is on its way out. With a UID, that very one.
    fn named(&self, namespace: &str, pod: &str, uid: Option<&str>) -> Option<Arc<Entry>> {
        let is_meant = |entry: &Arc<Entry>| {
            let state = entry.state();
            let meta = &state.pod.metadata;
            meta.namespace == namespace && meta.name == pod && uid.is_none_or(|uid| meta.uid == uid)
        };
        let newest = |entry: &Arc<Entry>| {
            let state = entry.state();
            (!state.record.removed, state.pod.metadata.creation_timestamp)
        };
        self.shared.entries().into_iter().filter(is_meant).max_by_key(newest)
    }

    /// Is there such a pod?
    #[must_use]
    pub fn has(&self, namespace: &str, pod: &str, uid: Option<&str>) -> bool {
        self.named(namespace, pod, uid).is_some()
    }

    /// A container that runs.
    ///
    /// # Errors
    /// What there is not.
    pub fn running(
        &self,
        namespace: &str,
        pod: &str,
        uid: Option<&str>,
        container: &str,
    ) -> Result<(Container, Arc<dyn Running>), NotThere> {
        let entry = self.named(namespace, pod, uid).ok_or(NotThere::Pod)?;
        let state = entry.state();
        let run = state.runs.get(container).cloned().ok_or(NotThere::Container)?;
        let spec = container_of(&state.pod, container).cloned().ok_or(NotThere::Container)?;
        Ok((spec, run))
    }

    /// Where a running container of a pod listens on a port of its.
    ///
    /// # Errors
    /// Why none does.
    pub fn listener(
        &self,
        namespace: &str,
        pod: &str,
        uid: Option<&str>,
        port: u16,
    ) -> Result<SocketAddr, String> {
        let entry = self.named(namespace, pod, uid).ok_or("pod does not exist")?;
        let state = entry.state();
        let declares = |container: &&Container| {
            ports::declared(&state.pod, container).iter().any(|own| own.container_port == i32::from(port))
        };
        let containers = state.pod.spec.init_containers.iter().chain(&state.pod.spec.containers);
        let Some(container) = containers.clone().find(declares) else {
            return Err(format!(
                "no container of pod {namespace}/{pod} listens on port {port}: it is opened for those that declare it \
                 (containerPort, or the annotation {})",
                ports::LISTEN
            ));
        };
        if state.runs.get(&container.name).is_none() {
            return Err(format!("container \"{}\", whose port {port} is, does not run", container.name));
        }
        let ips = &self.shared.node().ips;
        let address =
            ips.iter().find_map(|ip| ip.parse().ok()).ok_or("this node does not know its address")?;
        Ok(SocketAddr::new(address, port))
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
