//! The node and its pods as the kubelet API shows them.

use std::net::SocketAddr;
use std::sync::Arc;

use super::figures::Sources;
use crate::api::Pod;
use crate::metrics::Figures;
use crate::runtime::stdio::{connected, Wanted};
use crate::server::{LogRefusal, LogTarget, NotThere, PodName, PodsView, Session, Start};
use crate::supervisor::Ending;

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

    fn has_pod(&self, pod: &PodName) -> bool {
        self.0.supervisor.has(&pod.namespace, &pod.name, pod.uid.as_deref())
    }

    fn exec(
        &self,
        pod: &PodName,
        container: &str,
        command: Vec<String>,
        wanted: Wanted,
    ) -> Result<Start, NotThere> {
        let uid = pod.uid.as_deref();
        let (_, run) = self.0.supervisor.running(&pod.namespace, &pod.name, uid, container)?;
        Ok(Box::pin(async move {
            let (stdio, ends) = connected(wanted).map_err(|error| error.to_string())?;
            let second = Arc::new(Ending(run.command(command, stdio).await?));
            let ended = second.clone();
            Ok(Session {
                ends,
                exit: Box::pin(async move { second.0.wait().await }),
                kill: Box::new(move || ended.0.kill()),
                lasting: false,
            })
        }))
    }

    fn attach(&self, pod: &PodName, container: &str, wanted: Wanted) -> Result<(Wanted, Start), NotThere> {
        let uid = pod.uid.as_deref();
        let (spec, run) = self.0.supervisor.running(&pod.namespace, &pod.name, uid, container)?;
        let stderr = wanted.stderr && !spec.tty;
        let wanted = Wanted { stderr, tty: spec.tty, ..wanted };
        let start = async move {
            let ends = run.attach(wanted).map_err(|error| error.to_string())?;
            let ended = run.clone();
            Ok(Session {
                ends,
                exit: Box::pin(async move { run.wait().await }),
                kill: Box::new(move || ended.kill()),
                lasting: true,
            })
        };
        Ok((wanted, Box::pin(start)))
    }

    fn listener(&self, pod: &PodName, port: u16) -> Result<SocketAddr, String> {
        self.0.supervisor.listener(&pod.namespace, &pod.name, pod.uid.as_deref(), port)
    }
}
