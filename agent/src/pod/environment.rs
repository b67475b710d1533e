//! A container's variables and arguments (`kubelet_pods.go`, makeEnvironmentVariables).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::downward::{field_value, resource_value};
use super::env_file::{self, EnvFiles};
use super::expansion::expand;
use super::node::NodeFacts;
use super::services;
use crate::api::{ConfigMap, Container, EnvVarSource, FileKeySelector, ObjectMeta, Pod, Secret, Service};
use crate::runtime::MAX_ARGUMENTS;

/// All variables and arguments of a container together, in bytes, as the runtime counts them. It stops
/// references that double their value again and again, too.
pub const MAX_BYTES: usize = MAX_ARGUMENTS;

/// The objects that a container's environment draws on. An object that is not there is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sources {
    /// By name.
    pub config_maps: BTreeMap<String, ConfigMap>,
    /// By name.
    pub secrets: BTreeMap<String, Secret>,
    /// Of all namespaces that are told of.
    pub services: Vec<Service>,
}

impl Sources {
    /// Drops what this container does not draw on: what is kept for later is kept in memory.
    #[must_use]
    pub fn trimmed(mut self, container: &Container) -> Sources {
        let froms = || container.env.iter().filter_map(|env| env.value_from.as_ref());
        let whole = |name: &str, of: &str| {
            container.env_from.iter().any(|from| match of {
                "ConfigMap" => from.config_map_ref.as_ref().is_some_and(|r| r.name == name),
                _ => from.secret_ref.as_ref().is_some_and(|r| r.name == name),
            })
        };
        for (name, object) in self.config_maps.iter_mut().filter(|(name, _)| !whole(name, "ConfigMap")) {
            let refs = || froms().filter_map(|from| from.config_map_key_ref.as_ref());
            object.data.retain(|key, _| refs().any(|r| r.name == *name && r.key == *key));
        }
        for (name, object) in self.secrets.iter_mut().filter(|(name, _)| !whole(name, "Secret")) {
            let refs = || froms().filter_map(|from| from.secret_key_ref.as_ref());
            object.data.retain(|key, _| refs().any(|r| r.name == *name && r.key == *key));
        }
        let config_maps = self.config_maps.values_mut().map(|object| &mut object.metadata);
        let secrets = self.secrets.values_mut().map(|object| &mut object.metadata);
        for metadata in config_maps.chain(secrets) {
            *metadata = ObjectMeta::default();
        }
        for Service { metadata, .. } in &mut self.services {
            let (name, namespace) =
                (std::mem::take(&mut metadata.name), std::mem::take(&mut metadata.namespace));
            *metadata = ObjectMeta { name, namespace, ..ObjectMeta::default() };
        }
        self.services.shrink_to_fit();
        self
    }
}

/// The objects that a container's environment draws on, by name: ConfigMaps, Secrets.
#[must_use]
pub fn references(container: &Container) -> (BTreeSet<&str>, BTreeSet<&str>) {
    let (mut config_maps, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    for from in &container.env_from {
        config_maps.extend(from.config_map_ref.as_ref().map(|r| r.name.as_str()));
        secrets.extend(from.secret_ref.as_ref().map(|r| r.name.as_str()));
    }
    for from in container.env.iter().filter_map(|env| env.value_from.as_ref()) {
        config_maps.extend(from.config_map_key_ref.as_ref().map(|r| r.name.as_str()));
        secrets.extend(from.secret_key_ref.as_ref().map(|r| r.name.as_str()));
    }
    (config_maps, secrets)
}

/// What an image says of its own variables and arguments.
#[derive(Clone, Copy, Debug, Default)]
pub struct ImageConfig<'i> {
    /// `K=V`
    pub env: &'i [String],
    /// The program and its first arguments.
    pub entrypoint: &'i [String],
    /// Arguments, unless the container has its own.
    pub cmd: &'i [String],
}

/// Why a container has no environment (`CreateContainerConfigError`). The text never holds a secret's value.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EnvironmentError(pub(super) String);

pub(super) fn error<T>(text: String) -> Result<T, EnvironmentError> {
    Err(EnvironmentError(text))
}

/// A variable's `name=value` and NUL.
fn size(name: &str, value: &str) -> usize {
    name.len().saturating_add(value.len()).saturating_add(2)
}

/// A container's variables, each name once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// What the guest is given, in order.
    pub all: Vec<(String, String)>,
    /// What references see: all but the image's own.
    pub visible: Vec<(String, String)>,
}

/// Variables in order, each name once.
#[derive(Default)]
struct Variables {
    list: Vec<(String, String)>,
    index: BTreeMap<String, usize>,
    bytes: usize,
}

impl Variables {
    fn set(&mut self, name: &str, value: String) -> Result<(), EnvironmentError> {
        if name.is_empty() || name.contains('=') || name.contains('\0') || value.contains('\0') {
            let name = name.escape_debug();
            return error(format!(
                "variable \"{name}\": a name is not empty and has no =, and no variable has a NUL byte"
            ));
        }
        let before = self.get(name).map_or(0, |before| size(name, before));
        self.bytes = self.bytes.saturating_sub(before).saturating_add(size(name, &value));
        if self.bytes > MAX_BYTES {
            return error(format!("the environment is larger than {MAX_BYTES} bytes at variable \"{name}\""));
        }
        match self.index.get(name).and_then(|index| self.list.get_mut(*index)) {
            Some(entry) => entry.1 = value,
            None => {
                self.index.insert(name.to_owned(), self.list.len());
                self.list.push((name.to_owned(), value));
            }
        }
        Ok(())
    }

    fn get(&self, name: &str) -> Option<&str> {
        let index = self.index.get(name)?;
        self.list.get(*index).map(|(_, value)| value.as_str())
    }
}

/// A container's variables, in order: the image's own, the services', `envFrom`, then `env`; later ones win.
///
/// # Errors
/// What is missing or wrong.
pub fn variables(
    pod: &Pod,
    container: &Container,
    image: ImageConfig<'_>,
    node: &NodeFacts,
    sources: &Sources,
    files: &EnvFiles,
) -> Result<Environment, EnvironmentError> {
    let mut variables = Variables::default();
    for pair in image.env {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        variables.set(name, value.to_owned())?;
    }
    // References in values see the pod's variables, not the image's.
    let mut visible = Variables::default();
    let links = pod.spec.enable_service_links.unwrap_or(true);
    for (name, value) in services::variables(&sources.services, &pod.metadata.namespace, links) {
        visible.set(&name, value)?;
    }
    from_objects(container, sources, &mut visible)?;
    for env in &container.env {
        let value = if !env.value.is_empty() {
            let Some(value) = expand(&env.value, MAX_BYTES, |name| visible.get(name)) else {
                return error(format!("variable \"{}\" is longer than {MAX_BYTES} bytes", env.name));
            };
            Some(value)
        } else if let Some(from) = &env.value_from {
            value_from(pod, container, from, node, (sources, files))?
        } else {
            Some(String::new())
        };
        if let Some(value) = value {
            visible.set(&env.name, value)?;
        }
    }
    for (name, value) in &visible.list {
        variables.set(name, value.clone())?;
    }
    Ok(Environment { all: variables.list, visible: visible.list })
}

fn from_objects(
    container: &Container,
    sources: &Sources,
    variables: &mut Variables,
) -> Result<(), EnvironmentError> {
    for from in &container.env_from {
        if let Some(reference) = &from.config_map_ref {
            match sources.config_maps.get(&reference.name) {
                Some(object) => {
                    for (key, value) in &object.data {
                        variables.set(&format!("{}{key}", from.prefix), value.clone())?;
                    }
                }
                None if reference.optional => {}
                None => return error(format!("configmap \"{}\" not found", reference.name)),
            }
        } else if let Some(reference) = &from.secret_ref {
            match sources.secrets.get(&reference.name) {
                Some(object) => {
                    for (key, value) in &object.data {
                        variables
                            .set(&format!("{}{key}", from.prefix), text(&reference.name, key, &value.0)?)?;
                    }
                }
                None if reference.optional => {}
                None => return error(format!("secret \"{}\" not found", reference.name)),
            }
        }
    }
    Ok(())
}

fn text(secret: &str, key: &str, value: &[u8]) -> Result<String, EnvironmentError> {
    match std::str::from_utf8(value) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => error(format!("key {key} of secret \"{secret}\" is not UTF-8 and cannot be a variable")),
    }
}

/// `None`: what it names is not there, and need not be.
fn value_from(
    pod: &Pod,
    container: &Container,
    from: &EnvVarSource,
    node: &NodeFacts,
    (sources, files): (&Sources, &EnvFiles),
) -> Result<Option<String>, EnvironmentError> {
    let namespace = &pod.metadata.namespace;
    if let Some(field) = &from.field_ref {
        return field_value(pod, &field.field_path, node).map(Some);
    }
    if let Some(resource) = &from.resource_field_ref {
        return resource_value(pod, container, resource, node).map(Some);
    }
    if let Some(reference) = &from.config_map_key_ref {
        let name = &reference.name;
        return match sources.config_maps.get(name).map(|object| object.data.get(&reference.key)) {
            Some(Some(value)) => Ok(Some(value.clone())),
            _ if reference.optional => Ok(None),
            Some(None) => {
                error(format!("couldn't find key {} in ConfigMap {namespace}/{name}", reference.key))
            }
            None => error(format!("configmap \"{name}\" not found")),
        };
    }
    if let Some(FileKeySelector { volume_name, path, key, optional }) = &from.file_key_ref {
        let text = files.get(&(volume_name.clone(), path.clone())).and_then(Option::as_deref);
        return match text.and_then(|text| env_file::value(text, key)).as_deref() {
            None => error("couldn't parse env file".to_owned()),
            Some("") if *optional => Ok(None),
            Some("") => error(format!(
                "environment variable key \"{key}\" not found in file \"{path}\" of volume \"{volume_name}\""
            )),
            Some(value) => Ok(Some(value.to_owned())),
        };
    }
    if let Some(reference) = &from.secret_key_ref {
        let name = &reference.name;
        return match sources.secrets.get(name).map(|object| object.data.get(&reference.key)) {
            Some(Some(value)) => text(name, &reference.key, &value.0).map(Some),
            _ if reference.optional => Ok(None),
            Some(None) => error(format!("couldn't find key {} in Secret {namespace}/{name}", reference.key)),
            None => error(format!("secret \"{name}\" not found")),
        };
    }
    Ok(Some(String::new()))
}

/// argv: `command`, else the image's entrypoint, else `program`; then `args`, else the image's Cmd if it has
/// not been given up by a command of the container's own.
///
/// # Errors
/// When it is too long, alone or with the environment, or holds a NUL byte.
pub fn arguments(
    container: &Container,
    image: ImageConfig<'_>,
    program: &str,
    environment: &Environment,
) -> Result<Vec<String>, EnvironmentError> {
    let values: BTreeMap<&str, &str> =
        environment.visible.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let sizes = environment.all.iter().map(|(name, value)| size(name, value));
    let mut left = MAX_BYTES.saturating_sub(sizes.fold(0, usize::saturating_add));
    let mut expanded = |list: &[String]| {
        let expand_one = |text: &String| match expand(text, left, |name| values.get(name).copied()) {
            Some(text) => {
                left = left.saturating_sub(text.len());
                Ok(text)
            }
            None => too_long(),
        };
        list.iter().map(expand_one).collect::<Result<Vec<String>, _>>()
    };
    let mut argv = expanded(&container.command)?;
    let args = expanded(&container.args)?;
    if argv.is_empty() {
        argv = image.entrypoint.to_vec();
        // A Cmd without an entrypoint has the program's name in front.
        if argv.is_empty() && (image.cmd.is_empty() || !args.is_empty()) {
            argv.push(program.to_owned());
        }
        if args.is_empty() {
            argv.extend_from_slice(image.cmd);
        }
    }
    argv.extend(args);
    let sizes = environment.all.iter().map(|(name, value)| size(name, value));
    let sizes = sizes.chain(argv.iter().map(|text| text.len().saturating_add(1)));
    if sizes.fold(0, usize::saturating_add) > MAX_BYTES {
        return too_long();
    }
    match argv.iter().any(|text| text.contains('\0')) {
        true => error("an argument has a NUL byte".to_owned()),
        false => Ok(argv),
    }
}

/// A `subPathExpr` with its variables: none may be missing (`expansion.go` and `kubelet_pods.go`, makeMounts).
///
/// # Errors
/// Which is.
pub fn sub_path(expression: &str, environment: &Environment) -> Result<String, EnvironmentError> {
    let values: BTreeMap<&str, &str> =
        environment.visible.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let missing = std::cell::Cell::new(false);
    let expanded = expand(expression, MAX_BYTES, |name| {
        let value = values.get(name).copied();
        missing.set(missing.get() || value.is_none());
        value
    });
    match expanded {
        Some(path) if !missing.get() => Ok(path),
        _ => error(format!("missing value for a variable of subPathExpr \"{expression}\"")),
    }
}

fn too_long<T>() -> Result<T, EnvironmentError> {
    error(format!("command, args and environment are larger than {MAX_BYTES} bytes together"))
}

/// A module's name from its image's: what stands between the last `/` and the tag.
#[must_use]
pub fn program_name(image: &str) -> &str {
    let image = image.split_once('@').map_or(image, |(name, _)| name);
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split_once(':').map_or(last, |(name, _)| name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
#[path = "environment_tests.rs"]
mod tests;
