//! Probes a container, as often as its spec says, while it runs (`pkg/kubelet/prober/worker.go`). One that waits costs a
//! timer and no more.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::figures::count_probe;
use super::handlers::{probe, Means, Outcome};
use super::inbox::Message;
use super::workshop::Running;
use super::{Entry, Shared};
use crate::api::{Container, Pod};
use crate::control::{self, Task};
use crate::pod::events::{probe_errored, probe_warning, unhealthy};
use crate::pod::handlers::{of_probe, Handler, ProbeKind, Rhythm, Tally};

/// A guest is given this long before it is first asked: a kubelet's first look comes some time within a period.
const FIRST: Duration = Duration::from_secs(1);
/// Times that a probe is tried which cannot be made (`maxProbeRetries`).
const TRIES: usize = 3;

/// Begins to probe a container's run.
pub fn start(
    shared: &Arc<Shared>,
    entry: &Arc<Entry>,
    container: &Container,
    kind: ProbeKind,
    run: &Arc<dyn Running>,
) -> Option<Task<()>> {
    let spec = kind.of(container)?;
    // What is wrong with it has refused the pod.
    let handler = of_probe(container, spec).ok()?;
    let prober = Prober {
        shared: shared.clone(),
        entry: Arc::downgrade(entry),
        container: container.name.clone(),
        kind,
        handler,
        rhythm: Rhythm::of(spec),
        run: Arc::downgrade(run),
    };
    Some(control::spawn(prober.keep_asking()))
}

struct Prober {
    shared: Arc<Shared>,
    entry: Weak<Entry>,
    container: String,
    kind: ProbeKind,
    handler: Handler,
    rhythm: Rhythm,
    run: Weak<dyn Running>,
}

impl Prober {
    async fn keep_asking(self) {
        let clock = self.shared.clock.clone();
        let begun = clock.now().mono;
        let mut next = begun.saturating_add(self.rhythm.delay.max(FIRST));
        // A start of the agent starts all pods at once; their probes need not come at once.
        if begun.saturating_sub(self.shared.begun) < self.rhythm.period {
            next = next.saturating_add(self.rhythm.period.mul_f64(fastrand::f64()));
        }
        let (mut tally, mut counted) = (Tally::default(), None);
        loop {
            clock.until(next).await;
            // One that takes longer than its period is not made up for.
            next = next
                .max(clock.now().mono.saturating_sub(self.rhythm.period))
                .saturating_add(self.rhythm.period);
            let Some((entry, pod)) = self.looked_after() else { return };
            let well = Box::pin(self.ask(&pod)).await;
            count_probe(&entry, &self.container, self.kind, well);
            let Some(well) = well else { continue };
            let Some(counts) = tally.add(well, &self.rhythm) else { continue };
            if counted != Some(counts) {
                counted = Some(counts);
                let (container, kind) = (self.container.clone(), self.kind);
                entry.inbox.put(Message::Probed { container, kind, well: counts });
            }
            // What says that the container is to be started anew, or has started, has said all.
            if self.kind == ProbeKind::Startup || (self.kind == ProbeKind::Liveness && !counts) {
                return;
            }
        }
    }

    /// The pod, unless it is on its way out: then only its readiness matters.
    fn looked_after(&self) -> Option<(Arc<Entry>, Arc<Pod>)> {
        let entry = self.entry.upgrade()?;
        let (pod, stopping) = {
            let state = entry.state();
            (state.pod.clone(), state.record.stop.is_some() || state.record.removed)
        };
        (!stopping || self.kind == ProbeKind::Readiness).then_some((entry, pod))
    }

    /// Makes the probe; none: it could not be made, and says nothing.
    async fn ask(&self, pod: &Pod) -> Option<bool> {
        let run = self.run.upgrade()?;
        let name = self.container.as_str();
        let mut problem = String::new();
        for _ in 0..TRIES {
            let own = self.shared.node().ips.first().cloned();
            let means = Means { own, run: &*run, clock: &*self.shared.clock };
            match probe(&self.handler, self.rhythm.timeout, &means).await {
                Ok(Outcome::Success) => return Some(true),
                Ok(Outcome::Warning(text)) => {
                    self.shared.tell(pod, probe_warning(name, self.kind, &text));
                    return Some(true);
                }
                Ok(Outcome::Failure(text)) => {
                    self.shared.tell(pod, unhealthy(name, self.kind, &text));
                    return Some(false);
                }
                Err(error) => problem = error,
            }
        }
        self.shared.tell(pod, probe_errored(name, self.kind, &problem));
        None
    }
}
