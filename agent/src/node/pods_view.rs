//! The node and its pods as the kubelet API shows them.

use super::figures::Sources;
use crate::api::Pod;
use crate::metrics::Figures;
use crate::server::{LogRefusal, LogTarget, PodsView};

/// What the supervisor and the kernel know, for the server.
pub struct NodeView(pub Sources);

impl PodsView for NodeView {
    fn pods(&self) -> Vec<Pod> {
        self.0.supervisor.pods()
    }

    fn figures(&self) -> Figures {
        self.0.read()
    }

    fn container_log(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        previous: bool,
    ) -> Result<LogTarget, LogRefusal> {
        let found = self.0.supervisor.log(namespace, pod, container, previous)?;
        Ok(LogTarget { pod: found.pod, container: found.container, restart: found.run })
    }
}
