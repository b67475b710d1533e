//! `/metrics/cadvisor`: of cAdvisor's names those that dashboards of containers and nodes ask for
//! (<https://github.com/google/cadvisor/blob/master/docs/storage/prometheus.md>).

use super::text::{Exposition, Kind, Value};
use super::{ContainerFigures, Figures};
use crate::log::PodKey;

/// A period of the kernel's bandwidth control, which the runtime has as well.
const PERIOD: u64 = 100_000;

/// What stands for an interface where there is none.
const WASI: &str = "wasi";

/// The containers, and the machine as the container with the id `/`.
#[must_use]
pub fn cadvisor(figures: &Figures) -> String {
    let machine = &figures.machine;
    let used = machine.memory.saturating_sub(machine.available);
    let mut out = Table { out: Exposition::new(Some(figures.at)), figures };
    out.rows(
        ("container_cpu_usage_seconds_total", Kind::Counter, "Cumulative cpu time consumed in seconds."),
        Some(Value::Time(machine.cpu)),
        |container| Some(Value::Time(container.used.cpu)),
    );
    for (name, help) in [
        ("container_memory_working_set_bytes", "Current working set in bytes."),
        ("container_memory_usage_bytes", "Current memory usage in bytes."),
        ("container_memory_rss", "Size of RSS in bytes."),
    ] {
        out.rows((name, Kind::Gauge, help), Some(Value::Count(used)), |container| {
            Some(Value::Count(container.used.memory))
        });
    }
    out.rows(
        ("container_memory_swap", Kind::Gauge, "Container swap usage in bytes."),
        Some(Value::Count(machine.swapped)),
        |_| Some(Value::Count(0)),
    );
    out.rows(
        ("container_spec_memory_limit_bytes", Kind::Gauge, "Memory limit for the container."),
        None,
        |container| Some(Value::Count(container.memory_limit)),
    );
    out.rows(("container_spec_cpu_period", Kind::Gauge, "CPU period of the container."), None, |container| {
        container.cpu_limit.map(|_| Value::Count(PERIOD))
    });
    out.rows(("container_spec_cpu_quota", Kind::Gauge, "CPU quota of the container."), None, |container| {
        container.cpu_limit.map(|milli| Value::Count(u64::from(milli).saturating_mul(PERIOD) / 1000))
    });
    out.rows(("container_spec_cpu_shares", Kind::Gauge, "CPU share of the container."), None, |container| {
        // `MilliCPUToShares`
        Some(Value::Count((u64::from(container.cpu_request).saturating_mul(1024) / 1000).max(2)))
    });
    out.rows(
        (
            "container_start_time_seconds",
            Kind::Gauge,
            "Start time of the container since unix epoch in seconds.",
        ),
        Some(Value::At(machine.booted)),
        |container| Some(Value::At(container.started)),
    );
    let help = "Last time a container was seen by the exporter";
    let last_seen = out.out.family("container_last_seen", Kind::Gauge, help);
    for (labels, _) in containers(figures) {
        last_seen.sample(&labels.all(), Value::At(figures.at));
    }
    out.of_machine();
    out.out.finish()
}

struct Table<'f> {
    out: Exposition,
    figures: &'f Figures,
}

impl Table<'_> {
    fn rows(
        &mut self,
        (name, kind, help): (&'static str, Kind, &'static str),
        machine: Option<Value>,
        value: fn(&ContainerFigures) -> Option<Value>,
    ) {
        let family = self.out.family(name, kind, help);
        if let Some(value) = machine {
            family.sample(&Labels { id: "/", ..Labels::default() }.all(), value);
        }
        for (labels, container) in containers(self.figures) {
            if let Some(value) = value(container) {
                family.sample(&labels.all(), value);
            }
        }
    }

    fn of_machine(&mut self) {
        let machine = &self.figures.machine;
        let root = [("device", "data"), ("id", "/")];
        let disk = machine.disk;
        let mut gauge = |name, help, value, labels: &[(&str, &str)]| {
            self.out.family(name, Kind::Gauge, help).sample(labels, Value::Count(value));
        };
        let help = "Number of bytes that can be consumed by the container on this filesystem.";
        gauge("container_fs_limit_bytes", help, disk.capacity, &root);
        let help = "Number of bytes that are consumed by the container on this filesystem.";
        gauge("container_fs_usage_bytes", help, disk.capacity.saturating_sub(disk.free), &root);
        gauge("machine_cpu_cores", "Number of logical CPU cores.", u64::from(machine.cores), &[]);
        gauge("machine_memory_bytes", "Amount of memory installed on the machine.", machine.memory, &[]);
        for (name, help, sent) in [
            ("container_network_receive_bytes_total", "Cumulative count of bytes received", false),
            ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", true),
        ] {
            let family = self.out.family(name, Kind::Counter, help);
            for (interface, received, transmitted) in &machine.interfaces {
                let bytes = if sent { *transmitted } else { *received };
                family.sample(&[("id", "/"), ("interface", interface)], Value::Count(bytes));
            }
            // Guests have connections and no interface; what they sent and received is their pod's.
            for pod in self.figures.pods.iter().filter(|pod| !pod.containers.is_empty()) {
                let bytes = if sent { pod.used.sent } else { pod.used.received };
                let PodKey { namespace, name, uid } = &pod.pod;
                let labels =
                    [("id", uid.as_str()), ("interface", WASI), ("namespace", namespace), ("pod", name)];
                family.sample(&labels, Value::Count(bytes));
            }
        }
    }
}

/// cAdvisor's labels of a container.
#[derive(Default)]
struct Labels<'f> {
    container: &'f str,
    id: &'f str,
    image: &'f str,
    namespace: &'f str,
    pod: &'f str,
}

impl<'f> Labels<'f> {
    fn all(&self) -> [(&'static str, &'f str); 6] {
        [
            ("container", self.container),
            ("id", self.id),
            ("image", self.image),
            ("name", self.id.trim_matches('/')),
            ("namespace", self.namespace),
            ("pod", self.pod),
        ]
    }
}

fn containers(figures: &Figures) -> impl Iterator<Item = (Labels<'_>, &ContainerFigures)> {
    figures.pods.iter().flat_map(|pod| {
        pod.containers.iter().map(move |container| {
            let labels = Labels {
                container: &container.name,
                id: &container.id,
                image: &container.image,
                namespace: &pod.pod.namespace,
                pod: &pod.pod.name,
            };
            (labels, container)
        })
    })
}
