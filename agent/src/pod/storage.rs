//! What the files of a pod may take of the node's disk, and what is said of one that wanted more
//! (`pkg/kubelet/eviction/eviction_manager.go`, localStorageEviction).
//!
//! A kubelet looks now and then, and evicts who has taken too much. Here nobody gets there: what would pass a limit
//! is refused, with ENOSPC, and then the pod is evicted in the same words.

use super::resources::{memory_limit, most_at_once, storage_limit};
use crate::api::{Pod, Quantity, VolumeSource};

/// What holds for each container that names no limit, and for the files of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// `--default-storage`, in bytes
    pub bytes: u64,
    /// `--container-max-files`
    pub files: u64,
    /// `--default-memory`, in bytes: what of a pod's memory is not limited otherwise.
    pub memory: u64,
}

/// What a pod may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Bytes of all its volumes together.
    pub bytes: u64,
    /// Files, folders and links in them.
    pub files: u64,
    /// Its `emptyDir` volumes.
    pub empty_dirs: Vec<EmptyDir>,
}

/// An `emptyDir` volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmptyDir {
    /// Its name.
    pub name: String,
    /// Bytes that it may take: `sizeLimit`, and in memory no more than its pod may have of that.
    pub limit: Option<u64>,
    /// Who would pass that is evicted: it is `sizeLimit`.
    pub evicts: bool,
    /// Its medium is memory.
    pub in_memory: bool,
    /// Files that it may have.
    pub files: u64,
}

/// What a guest of the pod wanted to pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// The `sizeLimit` of this volume.
    Volume(String),
    /// The bytes that all containers may take together.
    Pod,
    /// The files that they may have.
    Files,
}

/// What the pod may take.
#[must_use]
pub fn storage(pod: &Pod, defaults: Defaults) -> Storage {
    let files = most_at_once(pod, |_| defaults.files);
    let memory = most_at_once(pod, |container| memory_limit(pod, container).unwrap_or(defaults.memory));
    let empty_dir = |volume: &crate::api::Volume| {
        let VolumeSource::EmptyDir(source) = &volume.source else { return None };
        let limit = source.size_limit.as_ref().and_then(Quantity::value);
        let limit = limit.and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit > 0);
        let in_memory = source.medium == "Memory";
        let own = limit;
        let limit = if in_memory { Some(limit.unwrap_or(u64::MAX).min(memory)) } else { limit };
        let evicts = own.is_some() && own == limit;
        Some(EmptyDir { name: volume.name.clone(), limit, evicts, in_memory, files })
    };
    let empty_dirs = pod.spec.volumes.iter().filter_map(empty_dir).collect();
    Storage { bytes: total(pod, defaults), files, empty_dirs }
}

fn total(pod: &Pod, defaults: Defaults) -> u64 {
    most_at_once(pod, |container| storage_limit(pod, container).unwrap_or(defaults.bytes))
}

/// Why the pod is evicted.
#[must_use]
pub fn evicted(pod: &Pod, exceeded: &Exceeded, defaults: Defaults) -> String {
    match exceeded {
        Exceeded::Volume(name) => {
            let limit = pod.spec.volumes.iter().find(|volume| volume.name == *name).and_then(|volume| {
                let VolumeSource::EmptyDir(source) = &volume.source else { return None };
                source.size_limit.clone()
            });
            let limit = limit.unwrap_or_default();
            format!("Usage of EmptyDir volume \"{name}\" exceeds the limit \"{limit}\". ")
        }
        Exceeded::Pod => format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {}. ",
            binary(total(pod, defaults))
        ),
        Exceeded::Files => format!(
            "Pod has as many files in its volumes as this node allows, {} a container (--container-max-files). ",
            defaults.files
        ),
    }
}

/// Bytes as a quantity (`resource.BinarySI`).
fn binary(bytes: u64) -> String {
    let units = [(30, "Gi"), (20, "Mi"), (10, "Ki")];
    let whole = units.into_iter().find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    match whole {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::samples::pod as pod_of;
    use super::*;

    const DEFAULTS: Defaults = Defaults { bytes: 64 << 20, files: 4096, memory: 128 << 20 };

    fn pod(containers: serde_json::Value) -> Pod {
        pod_of(&json!({
            "containers": containers,
            "initContainers": [{"name": "init", "image": "i", "resources": {"limits": {"ephemeral-storage": "80Mi"}}}],
            "volumes": [
                {"name": "cache", "emptyDir": {"sizeLimit": "1Mi"}},
                {"name": "scratch", "emptyDir": {}},
                {"name": "fast", "emptyDir": {"medium": "Memory"}},
                {"name": "settings", "configMap": {"name": "c"}},
            ],
        }))
    }

    #[test]
    fn limits_are_summed_and_defaults_stand_in() {
        let both = pod(json!([
            {"name": "a", "image": "i", "resources": {"limits": {"ephemeral-storage": "100Mi"}}},
            {"name": "b", "image": "i"},
        ]));
        let empty_dir = |name: &str, limit, in_memory| EmptyDir {
            name: name.to_owned(),
            limit,
            evicts: name == "cache",
            in_memory,
            files: 8192,
        };
        let empty_dirs = vec![
            empty_dir("cache", Some(1 << 20), false),
            empty_dir("scratch", None, false),
            empty_dir("fast", Some(256 << 20), true),
        ];
        let expected = Storage { bytes: 164 << 20, files: 8192, empty_dirs };
        assert_eq!(storage(&both, DEFAULTS), expected);
        let less = pod(json!([{"name": "a", "image": "i"}]));
        assert_eq!(storage(&less, DEFAULTS).bytes, 80 << 20, "the init container's");
        assert_eq!(storage(&Pod::default(), DEFAULTS).empty_dirs, []);
    }

    #[test]
    fn an_eviction_is_told_as_a_kubelet_does() {
        let pod = pod(
            json!([{"name": "a", "image": "i", "resources": {"limits": {"ephemeral-storage": "81920Ki"}}}]),
        );
        for (exceeded, text) in [
            (Exceeded::Volume("cache".into()), "Usage of EmptyDir volume \"cache\" exceeds the limit \"1Mi\". "),
            (Exceeded::Pod, "Pod ephemeral local storage usage exceeds the total limit of containers 80Mi. "),
            (
                Exceeded::Files,
                "Pod has as many files in its volumes as this node allows, 4096 a container (--container-max-files). ",
            ),
        ] {
            assert_eq!(evicted(&pod, &exceeded, DEFAULTS), text);
        }
    }

    #[test]
    fn bytes_as_quantities() {
        for (bytes, text) in [(0, "0"), (1 << 30, "1Gi"), (3 << 29, "1536Mi"), (1024, "1Ki"), (1025, "1025")]
        {
            assert_eq!(binary(bytes), text);
        }
    }
}
