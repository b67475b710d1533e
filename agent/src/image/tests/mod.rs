//! Pulls and pushes against stand-ins on loopback.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod login;
mod pulls;
mod pushes;

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::digest::Digest;
use super::formats::{CNCF_CONFIG, CNCF_LAYER, WASM_TO_OCI_CONFIG, WASM_TO_OCI_LAYER};
use super::manifest::{DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use super::standin::{Answer, Repository, Seen, StandIn};
use super::{
    pull, Found, Image, Keyring, PullCause, PullError, Reference, Registries, RegistryError, Store,
    Unrunnable, Use,
};

const MODULE: &[u8] = b"\0asm\x01\0\0\0 and what a module goes on with, for long enough to be cut";

/// A store that goes with the test.
struct Bench {
    store: Store,
    folder: PathBuf,
}

impl Bench {
    fn new() -> Bench {
        let folder = std::env::temp_dir().join(format!("copepod-image-{:x}", fastrand::u64(..)));
        Bench { store: Store::open(&folder).unwrap(), folder }
    }

    fn pull(&self, reference: &str, keyring: &Keyring) -> Result<Image, PullError> {
        self.pull_unless(reference, keyring, &AtomicBool::new(false))
    }

    fn pull_unless(
        &self,
        reference: &str,
        keyring: &Keyring,
        cancelled: &AtomicBool,
    ) -> Result<Image, PullError> {
        pull(
            &Registries::default(),
            &reference.parse().unwrap(),
            Use::Module,
            keyring,
            &self.store,
            cancelled,
        )
    }

    fn pull_anonymously(&self, reference: &str) -> Result<Image, PullError> {
        self.pull(reference, &Keyring::default())
    }

    /// Whether who has no credentials must ask the registry for what is here.
    fn is_locked(&self, reference: &str) -> bool {
        let found = self.store.find_for(&reference.parse().unwrap(), Use::Module, &Keyring::default());
        assert!(!matches!(found, Found::Absent));
        matches!(found, Found::Locked)
    }

    /// Files that a failed pull must not leave.
    fn leftovers(&self) -> usize {
        ["ingest", "refs", "blobs/sha256"]
            .iter()
            .map(|part| fs::read_dir(self.folder.join(part)).unwrap().count())
            .sum()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn descriptor(media_type: &str, digest: &Digest, size: usize) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#)
}

/// A repository with one module under the tag `1`, in the layout of wasm-to-oci.
fn repository() -> (Repository, Digest) {
    let mut repository = Repository::default();
    let text = manifest(&mut repository, WASM_TO_OCI_CONFIG, b"{}", WASM_TO_OCI_LAYER, MODULE);
    let digest = repository.manifest("1", OCI_MANIFEST, &text);
    (repository, digest)
}

/// The text of a manifest of one layer, whose blobs are put into the repository.
fn manifest(
    repository: &mut Repository,
    config_type: &str,
    config: &[u8],
    layer_type: &str,
    layer: &[u8],
) -> String {
    let config = descriptor(config_type, &repository.blob(config), config.len());
    let layer = descriptor(layer_type, &repository.blob(layer), layer.len());
    format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#)
}

fn serve(repository: Repository) -> StandIn {
    StandIn::start(move |request| repository.answer(request))
}
