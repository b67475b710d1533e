//! The files of a volume that is made of objects: configMap, secret, downwardAPI, projected
//! (`pkg/volume/{configmap,secret,downwardapi,projected}`, MakePayload and collectData).

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::downward::{field_value, resource_value};
use super::node::NodeFacts;
use crate::api::{
    ConfigMap, Container, DownwardApiItem, KeyToPath, Pod, ProjectedVolume, Secret,
    ServiceAccountTokenProjection, VolumeSource,
};

/// Mode of files where neither volume nor item names one (`ConfigMapVolumeSourceDefaultMode` and its like).
const DEFAULT_MODE: i32 = 0o644;
/// Bytes of all files of a volume, and how many: some objects of the API's largest.
const MAX_BYTES: usize = 8 << 20;
const MAX_FILES: usize = 10_000;
/// Bytes of a path in a volume (`atomic_writer.go`: maxPathLength), and of a name.
const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;

/// One file. Its content is nobody's to print: it may be a secret.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PayloadFile {
    /// What is in it.
    pub data: Vec<u8>,
    /// Its permissions.
    pub mode: u32,
}

impl fmt::Debug for PayloadFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, mode {:o}", self.data.len(), self.mode)
    }
}

/// All files of a volume, by their paths in it.
pub type Payload = BTreeMap<String, PayloadFile>;

/// By this a payload is known again.
#[must_use]
pub fn fingerprint(payload: &Payload) -> u64 {
    let mut hasher = DefaultHasher::new();
    payload.hash(&mut hasher);
    hasher.finish()
}

/// A part of such a volume.
#[derive(Clone, Copy, Debug)]
pub enum Part<'v> {
    /// Keys of a ConfigMap.
    ConfigMap(Keys<'v>),
    /// Keys of a Secret.
    Secret(Keys<'v>),
    /// Fields of the pod.
    Downward(&'v [DownwardApiItem]),
    /// A token of the pod's service account.
    Token(&'v ServiceAccountTokenProjection),
}

/// Which keys of which object.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'v> {
    /// The object's name.
    pub name: &'v str,
    /// None: all.
    pub items: &'v [KeyToPath],
    /// Neither the object nor a key need be there.
    pub optional: bool,
}

/// The parts of a volume, in order; none: it is not made of objects.
#[must_use]
pub fn parts(source: &VolumeSource) -> Option<Vec<Part<'_>>> {
    Some(match source {
        VolumeSource::ConfigMap(map) => {
            vec![Part::ConfigMap(Keys { name: &map.name, items: &map.items, optional: map.optional })]
        }
        VolumeSource::Secret(secret) => vec![Part::Secret(Keys {
            name: &secret.secret_name,
            items: &secret.items,
            optional: secret.optional,
        })],
        VolumeSource::DownwardApi(downward) => vec![Part::Downward(&downward.items)],
        VolumeSource::Projected(projected) => projected_parts(projected),
        _ => return None,
    })
}

fn projected_parts(projected: &ProjectedVolume) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    for source in &projected.sources {
        if let Some(secret) = &source.secret {
            let (name, items) = (secret.name.as_str(), secret.items.as_slice());
            parts.push(Part::Secret(Keys { name, items, optional: secret.optional }));
        }
        if let Some(map) = &source.config_map {
            parts.push(Part::ConfigMap(Keys { name: &map.name, items: &map.items, optional: map.optional }));
        }
        if let Some(downward) = &source.downward_api {
            parts.push(Part::Downward(&downward.items));
        }
        if let Some(token) = &source.service_account_token {
            parts.push(Part::Token(token));
        }
    }
    parts
}

/// The mode of files that name none.
fn default_mode(source: &VolumeSource) -> i32 {
    let mode = match source {
        VolumeSource::ConfigMap(map) => map.default_mode,
        VolumeSource::Secret(secret) => secret.default_mode,
        VolumeSource::DownwardApi(downward) => downward.default_mode,
        VolumeSource::Projected(projected) => projected.default_mode,
        _ => None,
    };
    mode.unwrap_or(DEFAULT_MODE)
}

/// Does it hold what nobody else may know?
#[must_use]
pub fn is_secret(source: &VolumeSource) -> bool {
    let secret = |part: &Part<'_>| matches!(part, Part::Secret(_) | Part::Token(_));
    parts(source).is_some_and(|parts| parts.iter().any(secret))
}

/// What a part was given. Never printed.
#[derive(Clone)]
pub enum Given {
    /// The ConfigMap, if there is one.
    ConfigMap(Option<Arc<ConfigMap>>),
    /// The Secret, if there is one.
    Secret(Option<Arc<Secret>>),
    /// The token.
    Token(String),
    /// It needs nothing.
    Nothing,
}

/// The files of a volume. `given` has one entry for each of its [`parts`].
///
/// # Errors
/// What is missing or wrong, in a kubelet's words.
pub fn payload(
    pod: &Pod,
    source: &VolumeSource,
    given: &[Given],
    node: &NodeFacts,
) -> Result<Payload, String> {
    let default = default_mode(source);
    let mut payload = Payload::new();
    let mut bytes = 0_usize;
    for (part, given) in parts(source).unwrap_or_default().iter().zip(given) {
        let files = match (part, given) {
            (Part::ConfigMap(keys), Given::ConfigMap(map)) => {
                let all = map.as_ref().map(|map| {
                    let texts = map.data.iter().map(|(key, value)| (key.as_str(), value.as_bytes()));
                    texts.chain(map.binary_data.iter().map(|(k, v)| (k.as_str(), v.0.as_slice()))).collect()
                });
                of_keys(*keys, all, default, "configmap", "config key")?
            }
            (Part::Secret(keys), Given::Secret(secret)) => {
                let all = secret
                    .as_ref()
                    .map(|secret| secret.data.iter().map(|(k, v)| (k.as_str(), v.0.as_slice())).collect());
                of_keys(*keys, all, default, "secret", "secret key")?
            }
            (Part::Downward(items), _) => of_fields(pod, items, default, node)?,
            (Part::Token(token), Given::Token(text)) => {
                vec![(token.path.clone(), file(text.as_bytes().to_vec(), None, default))]
            }
            _ => return Err("a part of it was not asked for".to_owned()),
        };
        for (path, file) in files {
            check(&path)?;
            bytes = bytes.saturating_add(file.data.len());
            payload.insert(path, file);
        }
        if bytes > MAX_BYTES || payload.len() > MAX_FILES {
            return Err(format!("it has more than {MAX_BYTES} bytes or {MAX_FILES} files"));
        }
    }
    // A file where another has a folder.
    let conflict = payload.keys().find(|path| {
        let mut parents = path.match_indices('/').filter_map(|(at, _)| path.get(..at));
        parents.any(|parent| payload.contains_key(parent))
    });
    match conflict {
        Some(path) => Err(format!("{path:?} would be in a file and not in a folder")),
        None => Ok(payload),
    }
}

fn file(data: Vec<u8>, mode: Option<i32>, default: i32) -> PayloadFile {
    let mode = u32::try_from(mode.unwrap_or(default)).unwrap_or(0o644) & 0o777;
    PayloadFile { data, mode }
}

fn of_keys(
    keys: Keys<'_>,
    all: Option<BTreeMap<&str, &[u8]>>,
    default: i32,
    kind: &str,
    key_kind: &str,
) -> Result<Vec<(String, PayloadFile)>, String> {
    let Some(all) = all else {
        let missing = || format!("{kind} \"{}\" not found", keys.name);
        return if keys.optional { Ok(Vec::new()) } else { Err(missing()) };
    };
    if keys.items.is_empty() {
        let whole = |(key, value): (&str, &[u8])| (key.to_owned(), file(value.to_vec(), None, default));
        return Ok(all.into_iter().map(whole).collect());
    }
    let mut files = Vec::new();
    for item in keys.items {
        match all.get(item.key.as_str()) {
            Some(value) => files.push((item.path.clone(), file(value.to_vec(), item.mode, default))),
            None if keys.optional => {}
            None => return Err(format!("references non-existent {key_kind}: {}", item.key)),
        }
    }
    Ok(files)
}

fn of_fields(
    pod: &Pod,
    items: &[DownwardApiItem],
    default: i32,
    node: &NodeFacts,
) -> Result<Vec<(String, PayloadFile)>, String> {
    let mut files = Vec::new();
    for item in items {
        let value = if let Some(field) = &item.field_ref {
            field_value(pod, &field.field_path, node)
        } else if let Some(resource) = &item.resource_field_ref {
            // It names its container: a volume has none of its own.
            resource_value(pod, &Container::default(), resource, node)
        } else {
            continue;
        };
        let value = value.map_err(|error| error.to_string())?;
        files.push((item.path.clone(), file(value.into_bytes(), item.mode, default)));
    }
    Ok(files)
}

/// A path in a volume leads nowhere else, and is none of the writer's own (`atomic_writer.go`, validatePath).
fn check(path: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("invalid path {path:?}: {why}"));
    if path.is_empty() || path.len() > MAX_PATH || path.contains('\0') {
        return wrong("it is empty, too long, or has a NUL byte");
    }
    if path.starts_with('/') {
        return wrong("must be a relative path");
    }
    if path.starts_with("..") {
        return wrong("must not start with '..'");
    }
    if path.split('/').any(|name| name.is_empty() || name == "." || name == ".." || name.len() > MAX_NAME) {
        return wrong("it has a part that is no name");
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "payload_tests.rs"]
mod tests;
