//! The pods as the server sees them.

use crate::api::Pod;
use crate::log::PodKey;
use crate::metrics::Figures;
pub use crate::pod::logs::LogRefusal;

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
}
