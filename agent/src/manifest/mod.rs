//! Pods from files: a manifest that somebody runs by hand, and the static pods of a folder.

mod folder;

use std::path::Path;

use ring::digest::{digest, SHA256};
use serde_json::Value;

use crate::api::{Pod, Time, Toleration};
use crate::config::{read_bounded, yaml};
use crate::durable::clock::Now;
use crate::pod::{CONFIG_HASH, CONFIG_SEEN, CONFIG_SOURCE, FROM_FILE, MIRROR};

pub use folder::follow;

/// Bytes of a manifest.
const MAX_MANIFEST: u64 = 1024 * 1024;
/// Characters of a pod's name (RFC 1123 subdomain), and of a namespace's or a container's (label).
const MAX_NAME: (usize, usize) = (253, 63);
/// Namespace of a pod whose manifest names none.
const NAMESPACE: &str = "default";

/// Reads a Pod, YAML or JSON. Blocks.
///
/// # Errors
/// What is wrong with the file, without its path.
pub fn read(path: &Path) -> Result<Pod, String> {
    let text = read_bounded(path, MAX_MANIFEST).map_err(|error| error.to_string())?;
    let value = yaml::parse(&text).map_err(|error| error.to_string())?;
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or("nothing");
    if kind != "Pod" {
        return Err(format!("it holds {kind}, where a Pod belongs"));
    }
    let pod: Pod = serde_json::from_str(&value.to_string())
        .map_err(|error| format!("not a Pod as the API defines it: {error}"))?;
    if pod.spec.containers.is_empty() {
        return Err("the Pod has no containers".into());
    }
    Ok(pod)
}

/// Gives a pod from a manifest what an API server would have given it. (It was given to this node, whatever it says
/// of others.)
#[must_use]
pub fn defaulted(mut pod: Pod, node: &str, now: Now) -> Pod {
    let meta = &mut pod.metadata;
    if meta.name.is_empty() {
        meta.name = if meta.generate_name.is_empty() { "pod".to_owned() } else { meta.generate_name.clone() };
    }
    if meta.namespace.is_empty() {
        NAMESPACE.clone_into(&mut meta.namespace);
    }
    if meta.uid.is_empty() {
        let random = format!("{:032x}", fastrand::u128(..));
        let part = |from: usize, to: usize| random.get(from..to).unwrap_or_default();
        meta.uid = [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-");
    }
    meta.generation = meta.generation.max(1);
    meta.creation_timestamp.get_or_insert_with(|| Time::from(now.wall));
    if pod.spec.restart_policy.is_empty() {
        "Always".clone_into(&mut pod.spec.restart_policy);
    }
    node.clone_into(&mut pod.spec.node_name);
    pod.status = crate::api::PodStatus::default();
    pod
}

/// Makes a manifest's pod a static pod of this node (`pkg/kubelet/config/common.go`, applyDefaults): its name ends in
/// the node's, its UID is a hash of what it is and where it comes from, and no taint drives it away.
///
/// # Errors
/// What no static pod may have: a name that is none, or objects that only an API server has.
pub fn static_pod(manifest: Pod, node: &str, file: &Path, now: Now) -> Result<Pod, String> {
    if let Some(what) = refers_to_api(&manifest) {
        return Err(format!("static pods may not refer to {what}, which only an API server has"));
    }
    let mut text = format!("{node}\n{}\n", file.display()).into_bytes();
    text.extend(serde_json::to_vec(&manifest).map_err(|error| error.to_string())?);
    let hash = digest(&SHA256, &text);
    let hash: String = hash.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let mut pod = manifest;
    if pod.metadata.name.is_empty() {
        return Err("metadata.name is missing".to_owned());
    }
    pod.metadata.name = format!("{}-{node}", pod.metadata.name);
    pod.metadata.uid.clone_from(&hash);
    let annotations = &mut pod.metadata.annotations;
    annotations.remove(MIRROR);
    annotations.insert(CONFIG_SOURCE.to_owned(), FROM_FILE.to_owned());
    annotations.insert(CONFIG_SEEN.to_owned(), now.wall.to_string());
    annotations.insert(CONFIG_HASH.to_owned(), hash);
    let toleration =
        Toleration { operator: "Exists".into(), effect: "NoExecute".into(), ..Toleration::default() };
    pod.spec.tolerations.push(toleration);
    let pod = defaulted(pod, node, now);
    check_names(&pod)?;
    Ok(pod)
}

/// What of the API server the pod needs (`pkg/api/pod/util.go`, HasAPIObjectReference).
fn refers_to_api(pod: &Pod) -> Option<&'static str> {
    let spec = &pod.spec;
    if !spec.service_account_name.is_empty() {
        return Some("a service account");
    }
    if !spec.image_pull_secrets.is_empty() {
        return Some("imagePullSecrets");
    }
    if !spec.resource_claims.is_empty() {
        return Some("resource claims");
    }
    let containers = || spec.init_containers.iter().chain(&spec.containers);
    let froms = || containers().flat_map(|c| &c.env).filter_map(|env| env.value_from.as_ref());
    let sources = || containers().flat_map(|container| &container.env_from);
    if sources().any(|s| s.secret_ref.is_some()) || froms().any(|from| from.secret_key_ref.is_some()) {
        return Some("secrets");
    }
    if sources().any(|s| s.config_map_ref.is_some()) || froms().any(|f| f.config_map_key_ref.is_some()) {
        return Some("config maps");
    }
    spec.volumes.iter().find_map(|volume| match volume.source.kind() {
        "secret" => Some("secrets"),
        "configMap" => Some("config maps"),
        "projected" => Some("projected volumes"),
        "persistentVolumeClaim" | "ephemeral" | "csi" => Some("persistent volumes"),
        _ => None,
    })
}

/// What an API server would have checked, and folders are named by.
fn check_names(pod: &Pod) -> Result<(), String> {
    let label = |name: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !name.is_empty() && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-')
    };
    let (name, namespace) = (&pod.metadata.name, &pod.metadata.namespace);
    if name.len() > MAX_NAME.0 || !name.split('.').all(label) {
        return Err(format!("metadata.name: {name:?} is no name of a pod (RFC 1123 subdomain)"));
    }
    if namespace.len() > MAX_NAME.1 || !label(namespace) {
        return Err(format!("metadata.namespace: {namespace:?} is no name of a namespace (RFC 1123 label)"));
    }
    let containers: Vec<_> = pod.spec.init_containers.iter().chain(&pod.spec.containers).collect();
    for (index, container) in containers.iter().enumerate() {
        let name = &container.name;
        if name.len() > MAX_NAME.1 || !label(name) {
            return Err(format!("{name:?} is no name of a container (RFC 1123 label)"));
        }
        if container.image.is_empty() {
            return Err(format!("container {name:?} has no image"));
        }
        if containers.iter().take(index).any(|other| other.name == *name) {
            return Err(format!("two containers are called {name:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use serde_json::json;

    fn made(overlay: &Value) -> Result<Pod, String> {
        let mut pod = json!({"metadata": {"name": "web"},
            "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
        for (pointer, value) in overlay.as_object().unwrap() {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            pod.pointer_mut(parent).unwrap()[key] = value.clone();
        }
        let pod = serde_json::from_value(pod).unwrap();
        static_pod(pod, "pi", Path::new("/etc/pods/web.yaml"), Now::read())
    }

    #[test]
    fn a_static_pod_is_of_its_node_and_its_file() {
        let pod = made(&json!({})).unwrap();
        assert_eq!((pod.metadata.name.as_str(), pod.metadata.namespace.as_str()), ("web-pi", "default"));
        assert_eq!((pod.spec.node_name.as_str(), pod.spec.restart_policy.as_str()), ("pi", "Always"));
        let annotations = &pod.metadata.annotations;
        assert_eq!(annotations["kubernetes.io/config.source"], "file");
        assert_eq!(annotations["kubernetes.io/config.hash"], pod.metadata.uid);
        assert_eq!(pod.metadata.uid.len(), 32);
        assert_eq!(pod.spec.tolerations[0].effect, "NoExecute");
        assert_eq!(made(&json!({})).unwrap().metadata.uid, pod.metadata.uid, "the same, whenever it is read");
        let other = made(&json!({"/metadata/labels": {"a": "b"}})).unwrap();
        assert_ne!(other.metadata.uid, pod.metadata.uid);
        assert_eq!(made(&json!({"/metadata/namespace": "system"})).unwrap().metadata.namespace, "system");
    }

    #[test]
    fn what_no_static_pod_may_have_is_refused_in_plain_words() {
        for (overlay, text) in [
            (json!({"/spec/serviceAccountName": "s"}), "a service account"),
            (json!({"/spec/imagePullSecrets": [{"name": "s"}]}), "imagePullSecrets"),
            (json!({"/spec/containers/0/envFrom": [{"secretRef": {"name": "s"}}]}), "secrets"),
            (json!({"/spec/containers/0/envFrom": [{"configMapRef": {"name": "s"}}]}), "config maps"),
            (json!({"/spec/volumes": [{"name": "v", "configMap": {"name": "c"}}]}), "config maps"),
            (json!({"/spec/volumes": [{"name": "v", "persistentVolumeClaim": {}}]}), "persistent volumes"),
            (json!({"/metadata/name": ""}), "metadata.name is missing"),
            (json!({"/metadata/name": "../x"}), "is no name of a pod"),
            (json!({"/metadata/namespace": "a/b"}), "is no name of a namespace"),
            (json!({"/spec/containers/0/name": "A"}), "is no name of a container"),
            (json!({"/spec/containers/0/image": ""}), "has no image"),
            (json!({"/spec/initContainers": [{"name": "c", "image": "i"}]}), "two containers are called"),
        ] {
            let error = made(&overlay).unwrap_err();
            assert!(error.contains(text), "{overlay}: {error}");
        }
    }
}
