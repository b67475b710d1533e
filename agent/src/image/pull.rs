//! Pulls an image: resolves the reference, chooses the manifest and its module layer, and streams the
//! module into the store.

use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::credentials::{Credential, Keyring};
use super::digest::Digest;
use super::download::{download, Limits};
use super::error::{PullCause, PullError, RegistryError};
use super::formats::{self, Content, Execution, ImageConfig};
use super::http::{read_limited, Reply};
use super::manifest::{self, Descriptor, Document, Manifest};
use super::reference::Reference;
use super::registry::{Access, Session};
use super::store::{self, Ingest, Record, Store};
use super::{unpack, Image, Registries, Use};
use crate::runtime::beneath::Beneath;

/// Largest manifest or index (distribution-spec: clients and registries should allow 4 MiB).
const MAX_MANIFEST: usize = 4 << 20;
/// Largest image config.
const MAX_CONFIG: usize = 1 << 20;
/// Largest module: three times the largest interpreters that are shipped as one (CPython 26 MB). It
/// is compiled from memory, so the boards' own memory ends sooner.
pub const MAX_MODULE: u64 = 64 << 20;

/// Pulls an image into the store. Blocks. A second pull waits for the first, and finds what it left.
/// Once `cancelled` is set it ends at its next step.
///
/// # Errors
/// Every way a pull can fail; the text says what was asked, of whom, why it failed and what to do.
pub fn pull(
    registries: &Registries,
    reference: &Reference,
    wanted: Use,
    keyring: &Keyring,
    store: &Store,
    cancelled: &AtomicBool,
) -> Result<Image, PullError> {
    let _alone = store.pulling();
    let failed = |cause| PullError { image: reference.to_string(), cause };
    let mut session = Session::open(registries, reference, Access::Pull)
        .map_err(|error| failed(PullCause::Resolve { reference: reference.to_string(), error }))?;
    let limits = Limits::new(cancelled);
    let pulled = Pull { reference, wanted, store, limits, session: &mut session }.run(keyring);
    pulled.map_err(|cause| failed(blot(cause, &session)))
}

/// Takes out of an error what a registry echoed of a secret.
fn blot(cause: PullCause, session: &Session) -> PullCause {
    let clean = |text: String| session.blot(text);
    match cause {
        PullCause::Resolve { reference, error } => PullCause::Resolve { reference, error: error.map(clean) },
        PullCause::Fetch { what, error } => PullCause::Fetch { what, error: error.map(clean) },
        PullCause::Corrupt(text) => PullCause::Corrupt(clean(text)),
        PullCause::TooLarge(text) => PullCause::TooLarge(clean(text)),
        PullCause::Malformed(text) => PullCause::Malformed(clean(text)),
        PullCause::Unrunnable(why) => PullCause::Unrunnable(why),
        PullCause::GivenUp(why) => PullCause::GivenUp(why),
        PullCause::Store(error) => PullCause::Store(error),
    }
}

struct Pull<'a> {
    reference: &'a Reference,
    wanted: Use,
    store: &'a Store,
    limits: Limits<'a>,
    session: &'a mut Session,
}

/// A manifest as it came.
struct Fetched {
    digest: Digest,
    bytes: Vec<u8>,
    content_type: Option<String>,
}

impl Pull<'_> {
    fn run(&mut self, keyring: &Keyring) -> Result<Image, PullCause> {
        let (top, login) = self.resolve(keyring)?;
        let manifest = self.choose(&top)?;
        if self.wanted == Use::Files {
            let size = self.unpack(&top.digest, &manifest)?;
            return self.file(&top.digest, (&top.digest.to_string(), size), Execution::default(), login);
        }
        let (module, execution) = self.contents(&manifest)?;
        let digest: Digest = module
            .digest
            .parse()
            .map_err(|why| PullCause::Malformed(format!("its manifest names a layer by no digest: {why}")))?;
        if module.size > MAX_MODULE {
            return Err(PullCause::TooLarge(format!(
                "its module has {} bytes, and this node takes at most {MAX_MODULE}",
                module.size
            )));
        }
        if !self.store.has(&digest, module.size) {
            let ingest = self.download(&digest, module.size)?;
            self.store.keep(ingest, &digest).map_err(PullCause::Store)?;
        }
        self.file(&top.digest, (&module.digest, module.size), execution, login)
    }

    /// Gets the manifest with each credential that fits, then without any, until one is let in; and the
    /// digest of that one.
    fn resolve(&mut self, keyring: &Keyring) -> Result<(Fetched, Option<String>), PullCause> {
        let credentials = keyring.lookup(&self.reference.name());
        let tried = credentials.len();
        let mut worst: Option<RegistryError> = None;
        for credential in credentials.into_iter().map(Some).chain([None]) {
            let login = credential.as_ref().map(Credential::digest);
            self.limits.check()?;
            self.session.log_in(credential);
            match self.session.manifest(&self.reference.target()) {
                Ok(reply) => {
                    let fetched = self.take(reply, &self.reference.target(), self.reference.digest())?;
                    return Ok((fetched, login));
                }
                Err(error) if error.depends_on_credential() => {
                    // "Not found", heard from one who was let in, says more than "denied".
                    if worst.is_none() || matches!(error, RegistryError::NotFound(_)) {
                        worst = Some(error);
                    }
                }
                Err(error) => return Err(self.unresolved(error)),
            }
        }
        let error = worst.unwrap_or_else(|| RegistryError::NotFound("not found".to_owned()));
        let with = match (tried, &error) {
            (0, RegistryError::Denied(_)) => " (no credentials for it: add an imagePullSecret)".to_owned(),
            (n, RegistryError::Denied(_)) => format!(" (tried {n} of the pod's credentials, then none)"),
            _ => String::new(),
        };
        let error = error.map(|text| format!("{text}{with}"));
        Err(self.unresolved(error))
    }

    fn unresolved(&self, error: RegistryError) -> PullCause {
        let error = match error {
            RegistryError::NotFound(text) => RegistryError::NotFound(format!("{}: {text}", self.reference)),
            other => other,
        };
        PullCause::Resolve { reference: self.reference.to_string(), error }
    }

    /// Reads a manifest and checks it against the digest that it was asked by, or that the registry says.
    fn take(&self, reply: Reply, target: &str, wanted: Option<&Digest>) -> Result<Fetched, PullCause> {
        let header = |name: &str| Some(reply.headers().get(name)?.to_str().ok()?.to_owned());
        let content_type = header("content-type");
        let claimed: Option<Digest> = header("docker-content-digest").and_then(|value| value.parse().ok());
        let bytes = read_limited(reply, MAX_MANIFEST).map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => PullCause::TooLarge(format!("its manifest is {error}")),
            _ => self.unresolved(RegistryError::Unavailable(format!("reading manifest {target}: {error}"))),
        })?;
        let digest = match wanted.or(claimed.as_ref()) {
            Some(expected) if expected.matches(&bytes) => expected.clone(),
            Some(expected) => {
                return Err(PullCause::Corrupt(format!(
                    "the manifest {target} has the digest {}, and should have {expected}",
                    Digest::of(&bytes)
                )))
            }
            None => Digest::of(&bytes),
        };
        Ok(Fetched { digest, bytes, content_type })
    }

    /// The manifest itself, or the one that an index has for this node.
    fn choose(&mut self, top: &Fetched) -> Result<Manifest, PullCause> {
        let list = match read(top)? {
            Document::Manifest(manifest) => return Ok(manifest),
            Document::Index(list) => list,
        };
        let chosen = match self.wanted {
            Use::Module => manifest::choose(&list),
            Use::Files => manifest::choose_files(&list),
        };
        let chosen = chosen.map_err(|no| PullCause::Unrunnable(no.into()))?;
        let digest: Digest = chosen
            .digest
            .parse()
            .map_err(|why| PullCause::Malformed(format!("its index names a manifest by no digest: {why}")))?;
        let what = format!("manifest {digest}");
        self.limits.check()?;
        let reply = self
            .session
            .manifest(&digest.to_string())
            .map_err(|error| PullCause::Fetch { what: what.clone(), error })?;
        match read(&self.take(reply, &digest.to_string(), Some(&digest))?)? {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(_) => {
                Err(PullCause::Malformed("its index leads to another index, which is not followed".into()))
            }
        }
    }

    /// The module's layer, and what an image config says of its execution.
    fn contents<'m>(&mut self, manifest: &'m Manifest) -> Result<(&'m Descriptor, Execution), PullCause> {
        let content = formats::content(manifest).map_err(PullCause::Unrunnable)?;
        if !formats::has_image_config(manifest) {
            if let Content::Module(module) = content {
                return Ok((module, Execution::default()));
            }
        }
        let config = self.image_config(&manifest.config)?;
        match content {
            Content::Module(module) => Ok((module, config.execution())),
            Content::Packed => Err(PullCause::Unrunnable(config.refusal(manifest))),
        }
    }

    fn image_config(&mut self, descriptor: &Descriptor) -> Result<ImageConfig, PullCause> {
        let digest: Digest = descriptor.digest.parse().map_err(|why| {
            PullCause::Malformed(format!("its manifest names its config by no digest: {why}"))
        })?;
        let what = format!("config {digest}");
        let fetch = |error| PullCause::Fetch { what: what.clone(), error };
        self.limits.check()?;
        let reply = self.session.blob(&digest, 0).map_err(fetch)?;
        let bytes = read_limited(reply, MAX_CONFIG).map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => PullCause::TooLarge(format!("its config is {error}")),
            _ => fetch(RegistryError::Unavailable(error.to_string())),
        })?;
        if !digest.matches(&bytes) {
            return Err(PullCause::Corrupt(format!("its config has not the digest {digest}")));
        }
        ImageConfig::parse(&bytes).map_err(PullCause::Malformed)
    }

    /// Unpacks the layers of an image, unless its files are here; their bytes as they came.
    fn unpack(&mut self, digest: &Digest, manifest: &Manifest) -> Result<u64, PullCause> {
        let size = manifest.layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.size));
        if size > unpack::MAX_BYTES {
            return Err(PullCause::TooLarge(format!(
                "its layers have {size} bytes, and this node takes at most {}",
                unpack::MAX_BYTES
            )));
        }
        if self.store.files(digest).is_dir() {
            return Ok(size);
        }
        match self.unpack_whole(digest, manifest) {
            // How much they would have taken is not known.
            Err(PullCause::Store(error))
                if error.kind() == io::ErrorKind::StorageFull
                    && self.store.make_room(unpack::MAX_BYTES).map_err(PullCause::Store)? > 0 =>
            {
                self.unpack_whole(digest, manifest)?;
            }
            unpacked => unpacked?,
        }
        Ok(size)
    }

    /// Leaves all files in their place, or none anywhere.
    fn unpack_whole(&mut self, digest: &Digest, manifest: &Manifest) -> Result<(), PullCause> {
        let folder = self.store.unpacking().map_err(PullCause::Store)?;
        let done = self.unpack_into(&folder, manifest);
        let kept = done.and_then(|()| self.store.keep_files(&folder, digest).map_err(PullCause::Store));
        if folder.exists() {
            let _ = std::fs::remove_dir_all(&folder);
        }
        kept
    }

    fn unpack_into(&mut self, folder: &Path, manifest: &Manifest) -> Result<(), PullCause> {
        let root = Beneath::of(folder).map_err(PullCause::Store)?;
        let mut room = unpack::Room::default();
        for (number, layer) in manifest.layers.iter().enumerate() {
            let digest: Digest = layer.digest.parse().map_err(|why| {
                PullCause::Malformed(format!("its manifest names a layer by no digest: {why}"))
            })?;
            let ingest = self.download(&digest, layer.size)?;
            let content = ingest.reader().map_err(PullCause::Store)?;
            let unpacked = if layer.media_type.contains("tar") || layer.media_type.contains(".rootfs.diff") {
                unpack::layer(&root, content, &mut room)
            } else {
                let name = layer.title().and_then(|title| title.rsplit('/').next());
                let name = name.filter(|name| !matches!(*name, "" | "." | ".."));
                unpack::single(&root, name.unwrap_or(&format!("layer-{number}")), content)
            };
            unpacked.map_err(|error| match error.kind() {
                io::ErrorKind::StorageFull => PullCause::Store(error),
                _ => PullCause::Malformed(format!("its layer {digest} cannot be unpacked: {error}")),
            })?;
        }
        Ok(())
    }

    fn download(&mut self, digest: &Digest, size: u64) -> Result<Ingest, PullCause> {
        let ingest = self.store.ingest(size).map_err(PullCause::Store)?;
        let is_module = self.wanted == Use::Module;
        download(self.session, ingest, (digest, size), is_module, self.limits)
    }

    /// Records what the reference, and the digest behind it, stand for.
    fn file(
        &self,
        manifest: &Digest,
        (module, size): (&str, u64),
        execution: Execution,
        login: Option<String>,
    ) -> Result<Image, PullCause> {
        let at = self.reference.at(manifest);
        let logins = self.store.logins(&at, self.wanted, login);
        let mut record = Record {
            reference: store::key(&at, self.wanted),
            manifest: manifest.to_string(),
            module: module.to_owned(),
            size,
            entrypoint: execution.entrypoint.unwrap_or_default(),
            cmd: execution.cmd.unwrap_or_default(),
            env: execution.env.unwrap_or_default(),
            private: logins.is_some(),
            logins: logins.unwrap_or_default(),
        };
        self.store.file(&record).map_err(PullCause::Store)?;
        record.reference = store::key(self.reference, self.wanted);
        self.store.file(&record).map_err(PullCause::Store)?;
        self.store.find(self.reference, self.wanted).ok_or_else(|| {
            PullCause::Store(io::Error::new(io::ErrorKind::NotFound, "what was just stored is gone again"))
        })
    }
}

fn read(fetched: &Fetched) -> Result<Document, PullCause> {
    manifest::parse(&fetched.bytes, fetched.content_type.as_deref()).map_err(PullCause::Malformed)
}
