//! The pods as the kubelet API shows them.

use crate::api::Pod;
use crate::server::{LogRefusal, LogTarget, PodsView};
use crate::supervisor::Supervisor;

/// What the supervisor knows, for the server.
pub struct NodePods(pub Supervisor);

impl PodsView for NodePods {
    fn pods(&self) -> Vec<Pod> {
        self.0.pods()
    }

    fn container_log(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        previous: bool,
    ) -> Result<LogTarget, LogRefusal> {
        let found = self.0.log(namespace, pod, container, previous)?;
        Ok(LogTarget { pod: found.pod, container: found.container, restart: found.run })
    }
}
