//! Images: references, registries, credentials, formats and the content-addressed store.
//!
//! [`pull`] asks the registry that a [`Reference`] names ([`registry`], over [`http`], logged in to as
//! [`auth`] and [`credentials`] say), finds the module in what it answers ([`manifest`], [`formats`])
//! and streams it into the [`Store`] ([`download`]), or unpacks its layers there ([`unpack`]); [`push`] stores a module
//! the other way, [`collect`] removes what no pod has. All of it blocks: call it on a blocking thread. What
//! it needs in memory (certificate authorities, buffers) is freed when a call returns.

use std::path::PathBuf;

mod auth;
mod collect;
mod credentials;
mod digest;
mod download;
mod error;
mod formats;
mod http;
mod local;
mod location;
mod logins;
mod manifest;
mod pull;
mod push;
mod reference;
mod registry;
#[cfg(test)]
mod standin;
mod store;
#[cfg(test)]
mod tests;
mod tls;
mod unpack;

pub use collect::{Collected, InUse, Thresholds, Users};
pub use credentials::Keyring;
pub use digest::{Digest, DigestError};
pub use error::{PullCause, PullError, RegistryError, REGISTRY_UNAVAILABLE};
pub use formats::Unrunnable;
pub use local::local;
pub use logins::of_docker as logins_of_docker;
pub use pull::{pull, MAX_MODULE};
pub use push::{push, Format, PushError, Pushed};
pub use reference::{Reference, ReferenceError};
pub use store::{Found, Store};

/// How registries are spoken to.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    /// `host[:port]` that may be spoken to over plain http, or over https with any certificate. https is
    /// tried first, as Docker does. This machine's loopback addresses are always among them.
    pub insecure: Vec<String>,
    /// Folder with `HOST[:PORT]/*.crt`, as Docker's and containerd's certs.d.
    pub certs_dir: PathBuf,
}

/// What an image is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// To be run: its module.
    Module,
    /// To be looked into, as an `image` volume is: its files.
    Files,
}

/// A pulled image, as the store knows it.
#[derive(Clone, Debug)]
pub struct Image {
    /// `registry/repository@sha256:…`, what `status.containerStatuses[].imageID` shows.
    pub id: String,
    /// Digest of the module, the key under which it is compiled and shared.
    pub module_digest: String,
    /// The module's file; the folder of its files, where those are wanted.
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
