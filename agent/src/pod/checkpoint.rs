//! A pod as it is written down: what a later life of the agent needs to go on with it when there is nobody to ask.
//!
//! It holds the pod as it was admitted, its record, and what its environment and its images drew on, secrets
//! included. Its form has a version; of a later one nothing is read.

use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::to_vec;

use super::environment::Sources;
use super::record::PodRecord;
use crate::api::{ObjectMeta, Pod, PodSpec, PodStatus, Secret};
use crate::durable::clock::{Now, Reading};

/// The form that is written.
const VERSION: u32 = 1;

/// What starts were last given by the API server, for restarts while it is away. Pods that were given the same share
/// it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Kept {
    /// By container, for those that have begun.
    pub sources: Vec<(String, Arc<Sources>)>,
    /// The pod's image pull secrets that could be had; none: they were not asked for yet.
    pub pull_secrets: Option<Arc<Vec<Secret>>>,
}

impl Kept {
    /// What the environment of a container drew on last.
    #[must_use]
    pub fn sources_of(&self, container: &str) -> Option<Arc<Sources>> {
        self.sources.iter().find(|(name, _)| name == container).map(|(_, sources)| sources.clone())
    }

    /// Keeps what the environment of a container draws on.
    pub fn keep_sources(&mut self, container: &str, sources: Arc<Sources>) {
        match self.sources.iter_mut().find(|(name, _)| name == container) {
            Some((_, known)) => *known = sources,
            None => {
                self.sources.reserve_exact(1);
                self.sources.push((container.to_owned(), sources));
            }
        }
    }
}

impl Kept {
    fn without_secrets(&self) -> Kept {
        let sources =
            self.sources.iter().filter(|(_, sources)| sources.secrets.is_empty()).cloned().collect();
        let none = self.pull_secrets.as_ref().filter(|secrets| secrets.is_empty()).cloned();
        Kept { sources, pull_secrets: none }
    }
}

/// What comes back of a pod.
#[derive(Debug)]
pub struct Resumed {
    /// As it was admitted, or last changed.
    pub pod: Pod,
    /// What happened to it.
    pub record: PodRecord,
    /// What its starts were given.
    pub kept: Kept,
}

/// What a pod is to be written down as.
#[derive(Debug)]
pub struct Checkpoint {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Of what matters in it: the same, and it need not be written again.
    pub fingerprint: u64,
}

#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    at: Reading,
    resource_version: String,
    reported: PodStatus,
}

/// What is written anew when it changes.
#[derive(Serialize)]
struct State<'p> {
    metadata: ObjectMeta,
    spec: &'p PodSpec,
    record: PodRecord,
    kept: Kept,
}

#[derive(Deserialize)]
struct OwnState {
    metadata: ObjectMeta,
    spec: PodSpec,
    record: PodRecord,
    kept: Kept,
}

#[derive(Deserialize)]
struct Whole {
    state: OwnState,
}

/// Writes a pod down; `secrets`: with what its starts were given of them. A container that needs one, and is written
/// down without, waits in the next life until the API server can be asked.
///
/// # Errors
/// Of the serializer; there is no pod that it refuses.
pub fn checkpoint(
    pod: &Pod,
    record: &PodRecord,
    kept: &Kept,
    now: Now,
    secrets: bool,
) -> Result<Checkpoint, serde_json::Error> {
    // Each status that is reported changes it.
    let metadata = ObjectMeta { resource_version: String::new(), ..pod.metadata.clone() };
    // By the one serializer of pods that there is: another would be a twentieth of the agent.
    let kept = if secrets { kept.clone() } else { kept.without_secrets() };
    let state = to_vec(&State { metadata, spec: &pod.spec, record: record.lasting(), kept })?;
    let mut hasher = DefaultHasher::new();
    hasher.write(&state);
    let head = Head {
        version: VERSION,
        at: Reading::of(now),
        resource_version: pod.metadata.resource_version.clone(),
        reported: (*record.reported).clone(),
    };
    let mut bytes = to_vec(&head)?;
    // The head is an object, which the state becomes a field of.
    bytes.pop();
    bytes.extend_from_slice(b",\"state\":");
    bytes.extend_from_slice(&state);
    bytes.push(b'}');
    Ok(Checkpoint { bytes, fingerprint: hasher.finish() })
}

/// Takes up a pod that was written down.
///
/// # Errors
/// What is wrong with it, for a person.
pub fn resume(bytes: &[u8], now: Now) -> Result<Resumed, String> {
    #[derive(Deserialize)]
    struct Form {
        version: u32,
    }

    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let form: Form = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if form.version != VERSION {
        return Err(format!(
            "it is of form {}, and this version of copepod reads form {VERSION}",
            form.version
        ));
    }
    let head: Head = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let Whole { state } = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let OwnState { mut metadata, spec, mut record, kept } = state;
    metadata.resource_version = head.resource_version;
    let status = PodStatus { qos_class: head.reported.qos_class.clone(), ..PodStatus::default() };
    let pod = Pod { metadata, spec, status };
    let fits = |records: usize, specs: usize| records == specs;
    if !fits(record.init.len(), pod.spec.init_containers.len())
        || !fits(record.containers.len(), pod.spec.containers.len())
    {
        return Err("it tells of other containers than its pod has".to_owned());
    }
    record.reported = Arc::new(head.reported);
    record.resume(&pod, head.at.translate(now));
    Ok(Resumed { pod, record, kept })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
#[path = "checkpoint_tests.rs"]
mod tests;
