//! `/stats/summary`: the kubelet's Summary API (`k8s.io/kubelet/pkg/apis/stats/v1alpha1`).

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{json, Map, Value};

use super::{Disk, Figures, PodFigures};
use crate::runtime::Usage;

/// A rate is one over so long at least, where it can be.
const WINDOW: Duration = Duration::from_secs(10);

/// CPU time as it was at the last two looks, for `usageNanoCores`. Empty until somebody asks.
#[derive(Debug, Default)]
pub struct Rates(Mutex<[Sample; 2]>);

#[derive(Debug, Default)]
struct Sample {
    /// On the monotonic clock.
    at: Duration,
    /// By a hash of what used it.
    cpu: HashMap<u64, Duration>,
}

/// Whose CPU time.
type Whose<'w> = (&'w str, &'w str);

fn key(whose: Whose<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    whose.hash(&mut hasher);
    hasher.finish()
}

/// What a summary is made with.
struct Reckoning<'f> {
    figures: &'f Figures,
    before: &'f Sample,
    seen: HashMap<u64, Duration>,
    time: String,
}

/// The summary; `brief` with CPU and memory alone (`only_cpu_and_memory`).
#[must_use]
pub fn summary(figures: &Figures, rates: &Rates, brief: bool) -> Value {
    let mut samples = rates.0.lock().unwrap_or_else(PoisonError::into_inner);
    let [before, last] = &mut *samples;
    let mut reckoning = Reckoning { figures, before, seen: HashMap::new(), time: time(figures.at) };
    let node = reckoning.node(brief);
    let pods: Vec<Value> = figures.pods.iter().filter_map(|pod| reckoning.pod(pod, brief)).collect();
    let seen = std::mem::take(&mut reckoning.seen);
    if figures.mono.saturating_sub(last.at) >= WINDOW {
        *before = std::mem::replace(last, Sample { at: figures.mono, cpu: seen });
    }
    json!({"node": node, "pods": pods})
}

fn time(at: Timestamp) -> String {
    format!("{at:.0}")
}

impl Reckoning<'_> {
    fn node(&mut self, brief: bool) -> Value {
        let (machine, process) = (&self.figures.machine, &self.figures.process);
        let used = machine.memory.saturating_sub(machine.available);
        let guests = self.figures.pods.iter().map(|pod| pod.used).fold(Usage::default(), Usage::plus);
        // Guests are no processes: who looks for the runtime's own finds the one that there is.
        let mut parts = Vec::new();
        for (name, cpu, memory) in [
            ("kubelet", process.cpu, process.resident),
            ("runtime", process.cpu, process.resident),
            ("pods", guests.cpu, guests.memory),
        ] {
            let mut part = self.used(("", name), cpu, process.started, memory);
            part.insert("name".into(), name.into());
            parts.push(part);
        }
        let mut node = self.used(("", ""), machine.cpu, machine.booted, used);
        if let Some(memory) = node.get_mut("memory").and_then(Value::as_object_mut) {
            memory.insert("availableBytes".into(), machine.available.into());
        }
        node.insert("nodeName".into(), machine.node.as_str().into());
        node.insert("systemContainers".into(), json!(parts));
        if brief {
            return Value::Object(node);
        }
        let disk = self.disk(machine.disk, machine.disk.capacity.saturating_sub(machine.disk.free));
        node.insert("runtime".into(), json!({"imageFs": disk}));
        node.insert("fs".into(), disk);
        let rlimit = json!({"time": self.time, "maxpid": machine.max_tasks, "curproc": machine.tasks});
        node.insert("rlimit".into(), rlimit);
        let interface = |(name, received, sent): &(String, u64, u64)| json!({"name": name, "rxBytes": received, "txBytes": sent});
        let interfaces: Vec<Value> = machine.interfaces.iter().map(interface).collect();
        let mut network = Map::from_iter([("time".to_owned(), self.time.as_str().into())]);
        // The first counts as the default one, as cAdvisor has it.
        if let Some(Value::Object(first)) = interfaces.first().cloned() {
            network.extend(first);
        }
        network.insert("interfaces".into(), interfaces.into());
        node.insert("network".into(), network.into());
        Value::Object(node)
    }

    /// Of a pod in which nothing runs there is nothing to say.
    fn pod(&mut self, pod: &PodFigures, brief: bool) -> Option<Value> {
        if pod.containers.is_empty() {
            return None;
        }
        let uid = pod.pod.uid.as_str();
        let mut containers = Vec::new();
        for container in &pod.containers {
            let used = container.used;
            let mut entry = self.used((uid, &container.name), used.cpu, container.started, used.memory);
            entry.insert("name".into(), container.name.as_str().into());
            containers.push(entry);
        }
        let mut entry = self.used((uid, ""), pod.used.cpu, pod.started, pod.used.memory);
        let reference = json!({"name": pod.pod.name, "namespace": pod.pod.namespace, "uid": uid});
        entry.insert("podRef".into(), reference);
        entry.insert("containers".into(), json!(containers));
        if !brief {
            let disk = self.figures.machine.disk;
            let (bytes, names) = pod.files;
            let own = Disk { capacity: pod.files_limit.min(disk.capacity), ..disk };
            let mut files = self.disk(own, bytes);
            if let Some(files) = files.as_object_mut() {
                files.insert("inodesUsed".into(), names.into());
            }
            entry.insert("ephemeral-storage".into(), files);
            let network = json!({"time": self.time, "rxBytes": pod.used.received, "txBytes": pod.used.sent});
            entry.insert("network".into(), network);
        }
        Some(Value::Object(entry))
    }

    fn used(
        &mut self,
        whose: Whose<'_>,
        cpu: Duration,
        started: Timestamp,
        memory: u64,
    ) -> Map<String, Value> {
        let key = key(whose);
        self.seen.insert(key, cpu);
        let (from, over) = match self.before.cpu.get(&key).filter(|before| **before <= cpu) {
            Some(before) => (*before, self.figures.mono.saturating_sub(self.before.at)),
            // Nobody has asked before: since it began.
            None => (
                Duration::ZERO,
                Duration::try_from(self.figures.at.duration_since(started)).unwrap_or_default(),
            ),
        };
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let rate = u128::from(nanos(cpu.saturating_sub(from))).saturating_mul(1_000_000_000);
        let rate = rate.checked_div(u128::from(nanos(over))).unwrap_or(0);
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        let fields = json!({
            "startTime": time(started),
            "cpu": {"time": self.time, "usageNanoCores": rate, "usageCoreNanoSeconds": nanos(cpu)},
            "memory": {"time": self.time, "usageBytes": memory, "workingSetBytes": memory, "rssBytes": memory},
        });
        match fields {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }

    fn disk(&self, disk: Disk, used: u64) -> Value {
        json!({
            "time": self.time,
            "availableBytes": disk.available,
            "capacityBytes": disk.capacity,
            "usedBytes": used,
            "inodesFree": disk.inodes_free,
            "inodes": disk.inodes,
            "inodesUsed": disk.inodes.saturating_sub(disk.inodes_free),
        })
    }
}
