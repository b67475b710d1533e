//! Images: references, registries, credentials, formats and the content-addressed store. All of it blocks: call it on a blocking thread.

use std::path::{Path, PathBuf};
use std::str::FromStr;

/// An image reference, normalised as Docker does (`docker.io/library/…`, tag `latest`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {}

/// Why a text is no image reference (waiting reason `InvalidImageName`).
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct ReferenceError;

impl FromStr for Reference {
    type Err = ReferenceError;
    fn from_str(_text: &str) -> Result<Reference, ReferenceError> {
        Ok(Reference {})
    }
}

/// How registries are spoken to.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    /// `host[:port]` that may be spoken to over plain http.
    pub insecure: Vec<String>,
    /// Folder with `HOST[:PORT]/ca.crt`, as Docker's and containerd's certs.d.
    pub certs_dir: PathBuf,
}

/// Login data for registries, from imagePullSecrets and files, in the order to be tried.
#[derive(Clone, Default)]
pub struct Keyring {}

impl Keyring {
    /// Adds the content of a `.dockerconfigjson` (`{"auths":…}`).
    ///
    /// # Errors
    /// What is wrong with it, without any secret in the text.
    pub fn add_docker_config_json(&mut self, _json: &[u8]) -> Result<(), String> {
        Ok(())
    }
    /// Adds the content of a legacy `.dockercfg` (the bare map).
    ///
    /// # Errors
    /// As above.
    pub fn add_dockercfg(&mut self, _json: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

/// A pulled image, as the store knows it.
#[derive(Clone, Debug)]
pub struct Image {
    /// `registry/repository@sha256:…`, what `status.containerStatuses[].imageID` shows.
    pub id: String,
    /// Digest of the module, the key under which it is compiled and shared.
    pub module_digest: String,
    /// The module's file.
    pub module: PathBuf,
    /// Bytes of the module.
    pub size: u64,
    /// Entrypoint of an image config, if it has one.
    pub entrypoint: Vec<String>,
    /// Cmd of an image config, if it has one.
    pub cmd: Vec<String>,
    /// Env of an image config (`K=V`).
    pub env: Vec<String>,
}

/// Why a pull failed.
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct PullError;

/// The content-addressed store. Cheap to clone.
#[derive(Clone)]
pub struct Store {}

impl Store {
    /// Opens (or makes) the store in a folder.
    ///
    /// # Errors
    /// What the file system says, with the path.
    pub fn open(_folder: &Path) -> std::io::Result<Store> {
        Ok(Store {})
    }
    /// The image that a reference names here, without asking a registry.
    #[must_use]
    pub fn find(&self, _reference: &Reference) -> Option<Image> {
        None
    }
    /// Every image: its names (`repo:tag`, `repo@digest`) and size in bytes, for node.status.images.
    #[must_use]
    pub fn list(&self) -> Vec<(Vec<String>, u64)> {
        Vec::new()
    }
}

/// Pulls an image into the store. Blocks.
///
/// # Errors
/// Every way a pull can fail; the text says what was asked, of whom, why it failed and what to do.
pub fn pull(
    _registries: &Registries,
    _reference: &Reference,
    _keyring: &Keyring,
    _store: &Store,
) -> Result<Image, PullError> {
    Err(PullError)
}
