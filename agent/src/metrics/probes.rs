//! `/metrics/probes` (`pkg/kubelet/prober/prober_manager.go`).

use super::text::{Exposition, Kind, Value};
use super::Figures;

/// How often each probe came to which result.
#[must_use]
pub fn probes(figures: &Figures) -> String {
    let mut out = Exposition::new(None);
    let help = "Cumulative number of a liveness, readiness or startup probe for a container by result.";
    let family = out.family("prober_probe_total", Kind::Counter, help);
    for pod in &figures.pods {
        for probe in &pod.probes {
            let labels = [
                ("container", probe.container.as_str()),
                ("namespace", &pod.pod.namespace),
                ("pod", &pod.pod.name),
                ("pod_uid", &pod.pod.uid),
                ("probe_type", probe.kind),
                ("result", probe.result),
            ];
            family.sample(&labels, Value::Count(probe.count));
        }
    }
    out.finish()
}
