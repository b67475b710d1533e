//! Pushes a module: its config, its bytes and a manifest, in the layout of wasm-to-oci or of the CNCF.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::UNIX_EPOCH;

use jiff::Timestamp;
use serde::Serialize;

use super::credentials::Keyring;
use super::digest::{Algorithm, Digest, Hasher};
use super::error::RegistryError;
use super::formats::{
    self, Unrunnable, CNCF_CONFIG, CNCF_LAYER, MAGIC, WASM_TO_OCI_CONFIG, WASM_TO_OCI_LAYER,
};
use super::http::Payload;
use super::manifest::OCI_MANIFEST;
use super::pull::MAX_MODULE;
use super::reference::Reference;
use super::registry::{Access, Session};
use super::Registries;

/// A module is hashed in pieces of this size.
const CHUNK: usize = 64 << 10;

/// How a module is laid out in a registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// What wasm-to-oci writes and Krustlet reads.
    #[default]
    WasmToOci,
    /// The CNCF's Wasm OCI artifact layout, `application/wasm`.
    Cncf,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Format, String> {
        match text {
            "wasm-to-oci" => Ok(Format::WasmToOci),
            "cncf" => Ok(Format::Cncf),
            other => Err(format!("{other:?} is no format: wasm-to-oci or cncf")),
        }
    }
}

/// Why a push failed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The file cannot be read.
    #[error("cannot read {path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the file system says.
        error: io::Error,
    },
    /// The file is none that a node would run.
    #[error("{path} is not pushed: {why}")]
    Unrunnable {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        why: Unrunnable,
    },
    /// The file is larger than what a node takes.
    #[error("{path} is not pushed: it has {size} bytes, and a node takes at most {MAX_MODULE}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// A digest follows from what is pushed.
    #[error("cannot push to {0}: a digest cannot be chosen, give a tag")]
    ToDigest(String),
    /// The logins in Docker's configuration cannot be used.
    #[error("cannot read the registry logins: {0}")]
    Login(String),
    /// The registry did not take it.
    #[error("failed to push \"{reference}\": {error}")]
    Registry {
        /// Where it was to go.
        reference: String,
        /// What the registry did instead.
        error: RegistryError,
    },
}

/// What was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Digest of the manifest.
    pub digest: Digest,
    /// Bytes of the module.
    pub size: u64,
}

/// Pushes a module. Blocks. `progress` is told how many bytes of the module have gone out, of how many.
///
/// # Errors
/// A file that is no module, and every way in which a registry can refuse it.
pub fn push(
    registries: &Registries,
    reference: &Reference,
    keyring: &Keyring,
    path: &Path,
    format: Format,
    progress: &dyn Fn(u64, u64),
) -> Result<Pushed, PushError> {
    if reference.digest().is_some() {
        return Err(PushError::ToDigest(reference.to_string()));
    }
    let module = Module::read(path)?;
    let failed = |error| PushError::Registry { reference: reference.to_string(), error };
    let mut session = Session::open(registries, reference, Access::Push).map_err(failed)?;
    let mut worst = None;
    for credential in keyring.lookup(&reference.name()).into_iter().map(Some).chain([None]) {
        session.log_in(credential);
        match module.upload(&mut session, &reference.target(), format, progress) {
            Ok(digest) => return Ok(Pushed { digest, size: module.size }),
            Err(error) if error.depends_on_credential() => {
                worst.get_or_insert(error);
            }
            Err(error) => return Err(failed(error.map(|text| session.blot(text)))),
        }
    }
    let error = worst.unwrap_or_else(|| RegistryError::Denied("push access denied".to_owned()));
    Err(failed(error.map(|text| session.blot(text))))
}

/// A file that is a module, hashed.
struct Module {
    file: File,
    digest: Digest,
    size: u64,
    /// The file's name without its folder.
    title: String,
    /// When the file was last changed: the same file makes the same manifest.
    created: Timestamp,
}

impl Module {
    fn read(path: &Path) -> Result<Module, PushError> {
        let unread = |error| PushError::File { path: path.to_owned(), error };
        let unrunnable = |why| PushError::Unrunnable { path: path.to_owned(), why };
        let mut file = File::open(path).map_err(unread)?;
        let meta = file.metadata().map_err(unread)?;
        if !meta.is_file() {
            return Err(unread(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
        }
        if meta.len() > MAX_MODULE {
            return Err(PushError::TooLarge { path: path.to_owned(), size: meta.len() });
        }
        let changed = meta.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let seconds = changed.and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or_default();
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut head = Vec::new();
        let mut size: u64 = 0;
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = match file.read(&mut chunk) {
                Ok(0) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(unread)?,
            };
            let data = chunk.get(..read).unwrap_or_default();
            head.extend(data.iter().take(MAGIC.saturating_sub(head.len())));
            hasher.update(data);
            size = size.saturating_add(read as u64);
            if size > MAX_MODULE {
                return Err(PushError::TooLarge { path: path.to_owned(), size });
            }
        }
        formats::check_magic(&head).map_err(unrunnable)?;
        Ok(Module {
            file,
            digest: hasher.finish(),
            size,
            title: path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            created: Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH),
        })
    }

    fn upload(
        &self,
        session: &mut Session,
        target: &str,
        format: Format,
        progress: &dyn Fn(u64, u64),
    ) -> Result<Digest, RegistryError> {
        let documents = self.documents(format)?;
        if !session.has_blob(&self.digest)? {
            let sent = Cell::new(0_u64);
            let told = |count: usize| {
                sent.set(sent.get().saturating_add(count as u64).min(self.size));
                progress(sent.get(), self.size);
            };
            session.put_blob(&self.digest, Payload::File(&self.file, self.size, &told))?;
        }
        progress(self.size, self.size);
        let config = Digest::of(&documents.config);
        if !session.has_blob(&config)? {
            session.put_blob(&config, Payload::Bytes(&documents.config))?;
        }
        let digest = Digest::of(&documents.manifest);
        let reply = session.put_manifest(target, OCI_MANIFEST, &documents.manifest)?;
        let said = reply.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        match said.map(str::parse::<Digest>) {
            Some(Ok(other)) if other != digest && other.algorithm() == digest.algorithm() => {
                Err(RegistryError::Protocol(format!("the registry stored {other} where {digest} was sent")))
            }
            _ => Ok(digest),
        }
    }

    fn documents(&self, format: Format) -> Result<Documents, RegistryError> {
        let digest = self.digest.to_string();
        let (config, config_type, layer_type) = match format {
            Format::WasmToOci => (b"{}".to_vec(), WASM_TO_OCI_CONFIG, WASM_TO_OCI_LAYER),
            Format::Cncf => {
                let config = CncfConfig {
                    created: self.created.to_string(),
                    architecture: "wasm",
                    os: "wasip1",
                    layer_digests: [&digest],
                };
                (json(&config)?, CNCF_CONFIG, CNCF_LAYER)
            }
        };
        let config_digest = Digest::of(&config).to_string();
        let wasm_to_oci = format == Format::WasmToOci;
        let manifest = Manifest {
            schema_version: 2,
            media_type: (!wasm_to_oci).then_some(OCI_MANIFEST),
            config: Descriptor {
                media_type: config_type,
                digest: &config_digest,
                size: config.len() as u64,
                annotations: None,
            },
            layers: [Descriptor {
                media_type: layer_type,
                digest: &digest,
                size: self.size,
                annotations: wasm_to_oci.then_some(Annotations { title: &self.title }),
            }],
        };
        Ok(Documents { manifest: json(&manifest)?, config })
    }
}

struct Documents {
    config: Vec<u8>,
    manifest: Vec<u8>,
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, RegistryError> {
    serde_json::to_vec(value).map_err(|e| RegistryError::Protocol(format!("cannot write the manifest: {e}")))
}

/// The fields in wasm-to-oci's order, so that the same file gets the same digest from both.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<&'a str>,
    config: Descriptor<'a>,
    layers: [Descriptor<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'a> {
    media_type: &'a str,
    digest: &'a str,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<Annotations<'a>>,
}

#[derive(Serialize)]
struct Annotations<'a> {
    /// Key under which wasm-to-oci (ORAS) notes the name of the file.
    #[serde(rename = "org.opencontainers.image.title")]
    title: &'a str,
}

/// The config of the CNCF's layout, version 0.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CncfConfig<'a> {
    created: String,
    architecture: &'a str,
    os: &'a str,
    layer_digests: [&'a str; 1],
}
