//! The pods as the server sees them.

use std::net::SocketAddr;

use futures_util::future::BoxFuture;

use crate::api::Pod;
use crate::log::PodKey;
use crate::metrics::Figures;
pub use crate::pod::logs::LogRefusal;
use crate::runtime::stdio::{Ends, Wanted};
use crate::runtime::Exit;
pub use crate::supervisor::NotThere;

/// Which log a client is to get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogTarget {
    /// The pod.
    pub pod: PodKey,
    /// The container's name.
    pub container: String,
    /// Which run of it.
    pub restart: u32,
}

/// A pod that a client names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID, if it is to be this very one.
    pub uid: Option<String>,
}

/// An instance that a client is connected to.
pub struct Session {
    /// The client's ends of its streams.
    pub ends: Ends,
    /// Ends as it does. Dropped before, the instance is ended, unless it is `lasting`.
    pub exit: BoxFuture<'static, Exit>,
    /// Ends it.
    pub kill: Box<dyn Fn() + Send + Sync>,
    /// It is the container itself, which goes on without its client.
    pub lasting: bool,
}

/// What starts a session, once the client is there.
pub type Start = BoxFuture<'static, Result<Session, String>>;

/// What the server asks the rest of the agent. Called on the control thread: answers come from memory.
pub trait PodsView: Send + Sync {
    /// The pods bound to this node, statuses included.
    fn pods(&self) -> Vec<Pod>;

    /// What the node and its pods have used.
    fn figures(&self) -> Figures;

    /// Which log `kubectl logs` is to get: that of the run that goes on, else of the last one that
    /// ended, and with `previous` of the one that ended before.
    ///
    /// # Errors
    /// Why there is none.
    fn container_log(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        previous: bool,
    ) -> Result<LogTarget, LogRefusal>;

    /// Is there such a pod?
    fn has_pod(&self, pod: &PodName) -> bool;

    /// Gets ready to run a command beside a container (`kubectl exec`).
    ///
    /// # Errors
    /// Why there is nothing to run it beside.
    fn exec(
        &self,
        pod: &PodName,
        container: &str,
        command: Vec<String>,
        wanted: Wanted,
    ) -> Result<Start, NotThere>;

    /// Gets ready to connect a client to a container itself (`kubectl attach`), as far as it has such streams: which
    /// it will be connected to, and how to.
    ///
    /// # Errors
    /// Why there is nothing to connect to.
    fn attach(&self, pod: &PodName, container: &str, wanted: Wanted) -> Result<(Wanted, Start), NotThere>;

    /// Where a container of this pod listens on a port (`kubectl port-forward`).
    ///
    /// # Errors
    /// Why none does: the text for the client.
    fn listener(&self, pod: &PodName, port: u16) -> Result<SocketAddr, String>;
}
