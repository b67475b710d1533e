//! `/metrics`: the agent's own, under the kubelet's names where it has such.

use std::time::Duration;

use jiff::Timestamp;

use super::text::{Exposition, Kind, Value};
use super::Figures;
use crate::config::{KUBELET_VERSION, VERSION};

/// What the agent is, does and costs.
#[must_use]
pub fn agent(figures: &Figures) -> String {
    let mut out = Exposition::new(None);
    let one = Value::Count(1);
    let help = "A metric with a constant '1' value labeled by the version that the node reports.";
    let version = [("agent_version", VERSION), ("git_version", KUBELET_VERSION)];
    out.family("kubernetes_build_info", Kind::Gauge, help).sample(&version, one);
    let help = "The node's name. The count is always 1.";
    let node = [("node", figures.machine.node.as_str())];
    out.family("kubelet_node_name", Kind::Gauge, help).sample(&node, one);
    of_pods(&mut out, figures);
    of_cluster(&mut out, figures);
    of_process(&mut out, figures);
    out.finish()
}

fn of_pods(out: &mut Exposition, figures: &Figures) {
    let (counts, pods) = (&figures.counts, &figures.pods);
    let count = |number: usize| Value::Count(u64::try_from(number).unwrap_or(u64::MAX));
    let running = pods.iter().filter(|pod| !pod.containers.is_empty()).count();
    let help = "Number of pods that have a running container";
    out.family("kubelet_running_pods", Kind::Gauge, help).sample(&[], count(running));
    let running = pods.iter().map(|pod| pod.containers.len()).sum();
    let help = "Number of containers currently running";
    let state = [("container_state", "running")];
    out.family("kubelet_running_containers", Kind::Gauge, help).sample(&state, count(running));
    let help = "Cumulative number of containers started";
    let started = Value::Count(counts.started);
    out.family("kubelet_started_containers_total", Kind::Counter, help).sample(&[], started);
    let help = "Cumulative number of errors when starting containers";
    let failed = Value::Count(counts.failed);
    out.family("kubelet_started_containers_errors_total", Kind::Counter, help).sample(&[], failed);
    let help = "Linear memory of all guests together.";
    let memory = Value::Count(counts.guest_memory);
    out.family("copepod_guest_memory_bytes", Kind::Gauge, help).sample(&[], memory);
    let help = "Linear memory that all guests may have together.";
    let limit = Value::Count(counts.guest_memory_limit);
    out.family("copepod_guest_memory_limit_bytes", Kind::Gauge, help).sample(&[], limit);
}

fn of_cluster(out: &mut Exposition, figures: &Figures) {
    let counts = &figures.counts;
    let family = out.family(
        "rest_client_requests_total",
        Kind::Counter,
        "Number of HTTP requests, partitioned by status code, method, and host.",
    );
    for (method, code, times) in &counts.requests {
        let code = if *code == 0 { "<error>".to_owned() } else { code.to_string() };
        let labels = [("code", code.as_str()), ("host", &counts.api_server), ("method", method)];
        family.sample(&labels, Value::Count(*times));
    }
    for (name, help, ends) in [
        (
            "kubelet_certificate_manager_client_ttl_seconds",
            "Time until the client certificate expires; 0 when it has.",
            counts.client_certificate,
        ),
        (
            "kubelet_certificate_manager_server_ttl_seconds",
            "Time until the serving certificate expires; 0 when it has.",
            counts.serving_certificate,
        ),
    ] {
        if let Some(ends) = ends {
            out.family(name, Kind::Gauge, help).sample(&[], Value::Time(left(ends, figures.at)));
        }
    }
}

fn left(ends: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(ends.duration_since(now)).unwrap_or_default()
}

/// The names of Prometheus' client libraries.
fn of_process(out: &mut Exposition, figures: &Figures) {
    let process = &figures.process;
    let help = "Total user and system CPU time spent in seconds, guests included.";
    let cpu = Value::Time(process.cpu);
    out.family("process_cpu_seconds_total", Kind::Counter, help).sample(&[], cpu);
    let started = Value::At(process.started);
    let help = "Start time of the process since unix epoch in seconds.";
    out.family("process_start_time_seconds", Kind::Gauge, help).sample(&[], started);
    for (name, help, value) in [
        ("process_resident_memory_bytes", "Resident memory size in bytes.", process.resident),
        ("process_virtual_memory_bytes", "Virtual memory size in bytes.", process.size),
        ("process_open_fds", "Number of open file descriptors.", process.open_files),
        ("process_max_fds", "Maximum number of open file descriptors.", process.max_files),
        ("process_threads", "Number of threads.", process.threads),
    ] {
        out.family(name, Kind::Gauge, help).sample(&[], Value::Count(value));
    }
    if let Some(written) = process.written {
        let help = "Bytes that the agent and its guests caused to be written to disks.";
        let written = Value::Count(written);
        out.family("copepod_storage_written_bytes_total", Kind::Counter, help).sample(&[], written);
    }
}
