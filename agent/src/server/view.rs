//! The pods as the server sees them.

use serde_json::Value;

use crate::log::PodKey;
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
    /// A v1 PodList of the pods bound to this node, statuses included.
    fn pods(&self) -> Value;

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

    /// A v1 PodList of the pods that run now.
    fn running_pods(&self) -> Value {
        let mut list = self.pods();
        if let Some(items) = list.get_mut("items").and_then(Value::as_array_mut) {
            items.retain(|pod| pod.pointer("/status/phase").and_then(Value::as_str) == Some("Running"));
        }
        list
    }

    /// Whether the pods' lifecycles still turn: the `syncloop` part of `/healthz`.
    ///
    /// # Errors
    /// What is wrong, for the agent's own log.
    fn healthy(&self) -> Result<(), String> {
        Ok(())
    }
}
