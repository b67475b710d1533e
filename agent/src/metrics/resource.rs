//! `/metrics/resource`: what metrics-server reads, and so what `kubectl top` and autoscalers show
//! (`pkg/kubelet/metrics/collectors/resource_metrics.go`).

use super::text::{Exposition, Kind, Value};
use super::{ContainerFigures, Figures, PodFigures};

/// Each sample with the time when it was taken: a rate is reckoned between two of them.
#[must_use]
pub fn resource(figures: &Figures) -> String {
    let mut out = Exposition::new(Some(figures.at));
    of_containers(
        &mut out,
        figures,
        ("container_cpu_usage_seconds_total", Kind::Counter),
        "Cumulative cpu time consumed by the container in core-seconds",
        |container| Value::Time(container.used.cpu),
    );
    of_containers(
        &mut out,
        figures,
        ("container_memory_working_set_bytes", Kind::Gauge),
        "Current working set of the container in bytes",
        |container| Value::Count(container.used.memory),
    );
    of_containers(
        &mut out,
        figures,
        ("container_start_time_seconds", Kind::Gauge),
        "Start time of the container since unix epoch in seconds",
        |container| Value::At(container.started),
    );
    let machine = &figures.machine;
    let help = "Cumulative cpu time consumed by the node in core-seconds";
    out.family("node_cpu_usage_seconds_total", Kind::Counter, help).sample(&[], Value::Time(machine.cpu));
    let used = machine.memory.saturating_sub(machine.available);
    let help = "Current working set of the node in bytes";
    out.family("node_memory_working_set_bytes", Kind::Gauge, help).sample(&[], Value::Count(used));
    let help = "Current swap usage of the node in bytes. Reported only on non-windows systems";
    out.family("node_swap_usage_bytes", Kind::Gauge, help).sample(&[], Value::Count(machine.swapped));
    let help = "Cumulative cpu time consumed by the pod in core-seconds";
    of_pods(&mut out, figures, ("pod_cpu_usage_seconds_total", Kind::Counter), help, |pod| {
        Value::Time(pod.used.cpu)
    });
    let help = "Current working set of the pod in bytes";
    of_pods(&mut out, figures, ("pod_memory_working_set_bytes", Kind::Gauge), help, |pod| {
        Value::Count(pod.used.memory)
    });
    let help = "1 if there was an error while getting container metrics, 0 otherwise";
    out.family("resource_scrape_error", Kind::Gauge, help).sample(&[], Value::Count(0));
    out.finish()
}

fn of_containers(
    out: &mut Exposition,
    figures: &Figures,
    (name, kind): (&'static str, Kind),
    help: &'static str,
    value: fn(&ContainerFigures) -> Value,
) {
    let family = out.family(name, kind, help);
    for PodFigures { pod, containers, .. } in &figures.pods {
        for container in containers {
            let labels =
                [("container", container.name.as_str()), ("namespace", &pod.namespace), ("pod", &pod.name)];
            family.sample(&labels, value(container));
        }
    }
}

fn of_pods(
    out: &mut Exposition,
    figures: &Figures,
    (name, kind): (&'static str, Kind),
    help: &'static str,
    value: fn(&PodFigures) -> Value,
) {
    let family = out.family(name, kind, help);
    // As of a kubelet, whose pods have no account once their containers have ended.
    for figures in figures.pods.iter().filter(|figures| !figures.containers.is_empty()) {
        let pod = &figures.pod;
        family.sample(&[("namespace", &pod.namespace), ("pod", &pod.name)], value(figures));
    }
}
