//! What pods have used, for [`crate::metrics`].

use std::sync::atomic::Ordering;
use std::sync::Arc;

use super::{start, Entry, PodState, Supervisor};
use crate::api::Container;
use crate::metrics::{ContainerFigures, PodFigures, ProbeCount};
use crate::pod::handlers::ProbeKind;
use crate::pod::record::Activity;
use crate::pod::resources::{cpu_limit, cpu_request, memory_limit};
use crate::runtime::Usage;

impl Supervisor {
    /// What each pod has used, those that are over included as long as they are here.
    #[must_use]
    pub fn figures(&self) -> Vec<PodFigures> {
        self.shared.entries().iter().map(|entry| self.of_pod(entry)).collect()
    }

    /// How many containers were started, and how many could not be.
    #[must_use]
    pub fn starts(&self) -> (u64, u64) {
        let [started, failed] = &self.shared.starts;
        let count = |counter: &std::sync::atomic::AtomicUsize| {
            u64::try_from(counter.load(Ordering::Relaxed)).unwrap_or(u64::MAX)
        };
        (count(started), count(failed))
    }

    fn of_pod(&self, entry: &Arc<Entry>) -> PodFigures {
        let volumes = entry.volumes.get().map(|volumes| volumes.used());
        let (files, files_limit) = volumes.unwrap_or_default();
        let state = entry.state();
        let spec = &state.pod.spec;
        let containers: Vec<ContainerFigures> = spec
            .init_containers
            .iter()
            .chain(&spec.containers)
            .filter_map(|container| self.of_container(&state, container))
            .collect();
        let used = containers.iter().map(|container| container.used).fold(state.used, Usage::plus);
        PodFigures {
            pod: start::key_of(&state.pod),
            started: state.record.start_time.timestamp(),
            used,
            files: (files.bytes, files.files),
            files_limit: files_limit.bytes,
            containers,
            probes: state.probed.clone(),
        }
    }

    fn of_container(&self, state: &PodState, container: &Container) -> Option<ContainerFigures> {
        let run = state.runs.get(&container.name)?;
        let record = state.record.container(&container.name)?;
        let Activity::Running(running) = &record.activity else { return None };
        let id = running.id.split_once("://").map_or(running.id.as_str(), |(_, id)| id);
        Some(ContainerFigures {
            name: container.name.clone(),
            id: id.to_owned(),
            image: record.image.clone(),
            started: running.started_at.timestamp(),
            used: run.usage(),
            memory_limit: memory_limit(&state.pod, container).unwrap_or(self.shared.storage.memory),
            cpu_limit: cpu_limit(&state.pod, container),
            cpu_request: cpu_request(&state.pod, container),
        })
    }
}

/// A probe of the pod came to a result; none: it could not be made.
pub fn count_probe(entry: &Entry, container: &str, kind: ProbeKind, well: Option<bool>) {
    let kind = match kind {
        ProbeKind::Startup => "Startup",
        ProbeKind::Readiness => "Readiness",
        ProbeKind::Liveness => "Liveness",
    };
    let result = match well {
        Some(true) => "successful",
        Some(false) => "failed",
        None => "unknown",
    };
    let mut state = entry.state();
    let same = |count: &&mut ProbeCount| {
        count.container == container && count.kind == kind && count.result == result
    };
    match state.probed.iter_mut().find(same) {
        Some(known) => known.count = known.count.saturating_add(1),
        None => {
            state.probed.reserve_exact(1);
            state.probed.push(ProbeCount { container: container.to_owned(), kind, result, count: 1 });
        }
    }
}

/// A container was started, or could not be.
pub fn count_start(shared: &super::Shared, well: bool) {
    let [started, failed] = &shared.starts;
    let counter = if well { started } else { failed };
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A run of the container has ended: what it used stays its pod's.
pub fn end_run(state: &mut PodState, container: &str) {
    if let Some(run) = state.runs.get(container) {
        state.used = state.used.plus(Usage { memory: 0, ..run.usage() });
    }
    state.runs.remove(container);
}
