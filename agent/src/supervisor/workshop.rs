//! Where containers are made: images, modules, guests and their logs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use async_io::Timer;
use async_lock::Mutex;

use super::api::BoxFuture;
use super::instance::{ContainerRun, Kit, OwnStreams};
use super::lock;
use super::ports::{self, Held, Ports, PATIENCE};
use crate::durable::clock::Now;
use crate::image::{self, Found, Image, Keyring, Reference, Registries, Store, Use, MAX_MODULE};
use crate::log::{Logs, PodKey, ReadOptions, Writer};
use crate::pod::lifecycle::StartFailure;
use crate::pod::payload::Payload;
use crate::pod::ports::Port;
use crate::pod::storage::Storage;
use crate::pod::termination::{LOG_BYTES, LOG_LINES};
use crate::runtime::destinations::Destination;
use crate::runtime::quota::Account;
use crate::runtime::stdio::{Ends, Wanted};
use crate::runtime::{Exit, FileMount, Listener, Module, Output, Preopen, Runtime, Stdio, Usage};
use crate::volume::{HostPath, MountError, Mounts, ObjectVolume, PodVolumes, RootFiles, Told, Volumes};
use crate::{control, error_chain};

/// What one run of a container is made of.
#[derive(Clone, Debug)]
pub struct RunSpec {
    /// Whose container.
    pub pod: PodKey,
    /// Its name.
    pub container: String,
    /// Which run it is, from 0.
    pub run: u32,
    /// argv
    pub args: Vec<String>,
    /// Environment, in order.
    pub env: Vec<(String, String)>,
    /// Limit of its memory in bytes.
    pub memory: Option<u64>,
    /// Thousandths of a processor that it asks for.
    pub cpu_request: u32,
    /// Thousandths of a processor that it may use.
    pub cpu_limit: Option<u32>,
    /// What it mounts, in order.
    pub mounts: Mounts,
    /// Its own root, if nothing is mounted there.
    pub root: Option<Preopen>,
    /// What it listens on.
    pub ports: Vec<Port>,
    /// Where it may connect to.
    pub destinations: Vec<Destination>,
    /// How its standard streams are to be.
    pub streams: Streams,
}

/// Standard streams of a container (core/v1 Container).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// Its standard input waits for clients.
    pub stdin: bool,
    /// It ends with the first client.
    pub stdin_once: bool,
    /// They are a terminal.
    pub tty: bool,
}

/// A run that goes on.
pub trait Running: Send + Sync {
    /// Ends it soon. Idempotent.
    fn kill(&self);
    /// Waits until it has ended and its log is complete.
    fn wait(&self) -> BoxFuture<'_, Exit>;
    /// What it has used.
    fn usage(&self) -> Usage;
    /// Starts a second instance of its module, with these arguments, on the same volumes.
    ///
    /// # Errors
    /// Why it could not be started.
    fn exec(&self, args: Vec<String>, stdio: Stdio) -> Result<Box<dyn Running>, String>;
    /// Starts what the first argument names ([`super::program`]), beside it and on the same volumes.
    ///
    /// # Errors
    /// Why it could not be started.
    fn command(&self, args: Vec<String>, stdio: Stdio) -> BoxFuture<'_, Result<Box<dyn Running>, String>>;
    /// Connects a client to its own standard streams.
    ///
    /// # Errors
    /// When there are no more descriptors.
    fn attach(&self, wanted: Wanted) -> io::Result<Ends>;
}

/// A run that is ended when nobody waits for it, or is connected to it, any more.
pub struct Ending(pub Box<dyn Running>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.kill();
    }
}

/// Makes containers.
pub trait Workshop: Send + Sync {
    /// The image that a name stands for here, for whoever has this login data, without asking a registry.
    fn find<'a>(
        &'a self,
        name: &'a str,
        reference: &'a Reference,
        wanted: Use,
        keyring: &'a Keyring,
    ) -> BoxFuture<'a, Found>;
    /// Pulls an image, one at a time; also says how long the pull itself took.
    fn pull(
        &self,
        reference: Reference,
        wanted: Use,
        keyring: Keyring,
    ) -> BoxFuture<'_, Result<(Image, Duration), StartFailure>>;
    /// Starts a run.
    fn run(&self, image: Image, spec: RunSpec) -> BoxFuture<'_, Result<Box<dyn Running>, StartFailure>>;
    /// Makes the volumes of a pod that need nobody else, or takes up those that are there; `told` of what its guests
    /// are refused.
    fn lay_volumes(
        &self,
        uid: String,
        storage: Storage,
        host_paths: Vec<HostPath>,
        told: Told,
    ) -> BoxFuture<'_, Result<PodVolumes, MountError>>;
    /// Writes the files of a volume that is made of objects, and says where they are; `anew`: also for a later life.
    fn write_volume(
        &self,
        volume: ObjectVolume,
        payload: Payload,
        anew: bool,
    ) -> BoxFuture<'_, io::Result<PathBuf>>;
    /// Takes up the files of such a volume as they were last; none: they are not there.
    fn take_up(&self, volume: ObjectVolume) -> BoxFuture<'_, io::Result<Option<PathBuf>>>;
    /// Makes the root of a container anew.
    fn lay_root(
        &self,
        uid: String,
        container: String,
        content: RootFiles,
        volumes: Arc<PodVolumes>,
    ) -> BoxFuture<'_, io::Result<(OwnedFd, Arc<Account>)>>;
    /// Makes the folder in which a container is told that it is to stop.
    fn lay_notice(&self, uid: String, container: String) -> BoxFuture<'_, io::Result<Preopen>>;
    /// Tells a container that it is to stop, if it has such a folder.
    fn give_notice(&self, uid: String, container: String) -> BoxFuture<'_, io::Result<()>>;
    /// Removes the volumes of a pod whose containers have ended for good.
    fn remove_volumes(&self, uid: String) -> BoxFuture<'_, io::Result<()>>;
    /// The last lines of a run's log, as many as stand in for a termination message.
    fn end_of_log(&self, pod: PodKey, container: String, run: u32) -> BoxFuture<'_, Vec<u8>>;
    /// Removes the logs of a pod that is gone.
    fn remove_logs(&self, pod: PodKey) -> BoxFuture<'_, io::Result<()>>;
    /// Removes the logs and volumes of all pods whose UID `keep` does not know.
    fn remove_others(&self, keep: Keep) -> BoxFuture<'_, io::Result<()>>;
}

/// Knows the UIDs of pods.
pub type Keep = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// What every container has here that its pod does not give it: nothing on a node, for `copepod run` what its
/// command line says.
#[derive(Clone, Default)]
pub struct ByHand {
    /// Images that are here under a name of their own and never pulled: files.
    pub images: BTreeMap<String, Image>,
    /// Folders of the host.
    pub folders: Vec<Preopen>,
    /// No container has a root of its own: as other runtimes of WASI run a module, with no folders but the given ones.
    pub rootless: bool,
    /// Fuel of each run.
    pub fuel: Option<u64>,
    /// Opens the standard input of a run; none: it is at its end.
    pub stdin: Option<fn() -> io::Result<OwnedFd>>,
    /// Where output is copied to, beside the logs.
    pub terminal: Option<Terminal>,
}

/// Another place where a container's output is copied to: a terminal's stdout and stderr.
#[derive(Clone)]
pub struct Terminal {
    /// Takes stdout.
    pub stdout: Arc<dyn Output>,
    /// Takes stderr.
    pub stderr: Arc<dyn Output>,
}

/// The real workshop: WASI modules from OCI registries.
pub struct WasmWorkshop {
    /// Runs the guests.
    pub runtime: Runtime,
    /// Keeps the images.
    pub store: Store,
    /// How registries are spoken to.
    pub registries: Arc<Registries>,
    /// Lays out the volumes.
    pub volumes: Volumes,
    /// Keeps the logs.
    pub logs: Logs,
    /// What comes from a command line.
    pub by_hand: ByHand,
    /// Who holds which port.
    pub ports: Ports,
    /// Held by the pull that goes on.
    pub pulling: Arc<Mutex<()>>,
    /// What a container was given last: who is given the same shares it.
    pub given: Given,
}

/// See [`WasmWorkshop::given`].
#[derive(Default)]
pub struct Given {
    env: LastList<String>,
    files: LastList<FileMount>,
    destinations: LastList<Destination>,
}

/// The list that somebody was given last.
struct LastList<T>(std::sync::Mutex<std::sync::Weak<[T]>>);

impl<T> Default for LastList<T> {
    fn default() -> LastList<T> {
        LastList(std::sync::Mutex::new(std::sync::Weak::<[T; 0]>::new()))
    }
}

impl<T> LastList<T> {
    fn alike(&self, list: Vec<T>, alike: impl Fn(&T, &T) -> bool) -> Arc<[T]> {
        let mut last = lock(&self.0);
        let same = |known: &Arc<[T]>| {
            known.len() == list.len() && known.iter().zip(&list).all(|(known, own)| alike(known, own))
        };
        if let Some(known) = last.upgrade().filter(same) {
            return known;
        }
        let list: Arc<[T]> = list.into();
        *last = Arc::downgrade(&list);
        list
    }
}

/// Tells the work on another thread when nobody waits for it any more.
#[derive(Default)]
struct Abandoned(Arc<AtomicBool>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Workshop for WasmWorkshop {
    fn find<'a>(
        &'a self,
        name: &'a str,
        reference: &'a Reference,
        wanted: Use,
        keyring: &'a Keyring,
    ) -> BoxFuture<'a, Found> {
        Box::pin(async move {
            if let Some(image) = self.by_hand.images.get(name) {
                return Found::Here(image.clone());
            }
            let (store, reference, keyring) = (self.store.clone(), reference.clone(), keyring.clone());
            control::blocking(move || store.find_for(&reference, wanted, &keyring)).await
        })
    }

    fn pull(
        &self,
        reference: Reference,
        wanted: Use,
        keyring: Keyring,
    ) -> BoxFuture<'_, Result<(Image, Duration), StartFailure>> {
        Box::pin(async move {
            let turn = self.pulling.lock_arc().await;
            let (store, registries) = (self.store.clone(), self.registries.clone());
            let begun = Now::read().mono;
            let abandoned = Abandoned::default();
            let cancelled = abandoned.0.clone();
            let image = control::blocking(move || {
                // The work's own: it goes on for a while when nobody waits for it any more.
                let _turn = turn;
                let pulled = caught(|| {
                    let pulled = image::pull(&registries, &reference, wanted, &keyring, &store, &cancelled);
                    Ok(pulled.map_err(|error| StartFailure::Pull {
                        reason: error.reason(),
                        text: error_chain(&error),
                        image: String::new(),
                    }))
                });
                pulled.unwrap_or_else(|panic| Err(StartFailure::pull(panic)))
            })
            .await?;
            drop(abandoned);
            Ok((image, Now::read().mono.saturating_sub(begun)))
        })
    }

    fn run(&self, image: Image, spec: RunSpec) -> BoxFuture<'_, Result<Box<dyn Running>, StartFailure>> {
        Box::pin(async move {
            let (runtime, store, logs) = (self.runtime.clone(), self.store.clone(), self.logs.clone());
            let (key, container, run) = (spec.pod.clone(), spec.container.clone(), spec.run);
            let (module, writer) = control::blocking(move || {
                let module = compile(&runtime, &store, &image)?;
                let writer = logs.open(&key, &container, run).map_err(|error| {
                    StartFailure::Create(format!(
                        "failed to open the log of container \"{container}\": {error}"
                    ))
                })?;
                Ok::<_, StartFailure>((module, writer))
            })
            .await?;
            let opened = self.open_ports(&spec).await;
            let (listeners, held) = opened.inspect_err(|_| writer.close())?;
            self.spawn(&module, &writer, spec, listeners, held)
        })
    }

    fn lay_volumes(
        &self,
        uid: String,
        storage: Storage,
        host_paths: Vec<HostPath>,
        told: Told,
    ) -> BoxFuture<'_, Result<PodVolumes, MountError>> {
        let volumes = self.volumes.clone();
        Box::pin(control::blocking(move || volumes.lay(&uid, &storage, &host_paths, &told)))
    }

    fn write_volume(
        &self,
        volume: ObjectVolume,
        payload: Payload,
        anew: bool,
    ) -> BoxFuture<'_, io::Result<PathBuf>> {
        let volumes = self.volumes.clone();
        Box::pin(control::blocking(move || volumes.write(&volume, &payload, anew)))
    }

    fn take_up(&self, volume: ObjectVolume) -> BoxFuture<'_, io::Result<Option<PathBuf>>> {
        let volumes = self.volumes.clone();
        Box::pin(control::blocking(move || volumes.take_up(&volume)))
    }

    fn lay_root(
        &self,
        uid: String,
        container: String,
        content: RootFiles,
        of_pod: Arc<PodVolumes>,
    ) -> BoxFuture<'_, io::Result<(OwnedFd, Arc<Account>)>> {
        let volumes = self.volumes.clone();
        Box::pin(control::blocking(move || volumes.lay_root(&uid, &container, &content, &of_pod)))
    }

    fn end_of_log(&self, pod: PodKey, container: String, run: u32) -> BoxFuture<'_, Vec<u8>> {
        Box::pin(async move {
            let options = ReadOptions { tail: Some(LOG_LINES as u64), ..ReadOptions::default() };
            let Ok(mut reader) = self.logs.read(&pod, &container, run, options).await else {
                return Vec::new();
            };
            let mut end = Vec::new();
            while let Some(Ok(piece)) = reader.next().await {
                end.extend_from_slice(&piece);
                end.drain(..end.len().saturating_sub(LOG_BYTES));
            }
            end
        })
    }

    fn lay_notice(&self, uid: String, container: String) -> BoxFuture<'_, io::Result<Preopen>> {
        let volumes = self.volumes.clone();
        Box::pin(control::blocking(move || volumes.lay_notice(&uid, &container)))
    }

    fn give_notice(&self, uid: String, container: String) -> BoxFuture<'_, io::Result<()>> {
        let volumes = self.volumes.clone();
        Box::pin(control::blocking(move || volumes.give_notice(&uid, &container)))
    }

    fn remove_volumes(&self, uid: String) -> BoxFuture<'_, io::Result<()>> {
        let volumes = self.volumes.clone();
        Box::pin(control::blocking(move || volumes.remove(&uid)))
    }

    fn remove_logs(&self, pod: PodKey) -> BoxFuture<'_, io::Result<()>> {
        let logs = self.logs.clone();
        Box::pin(control::blocking(move || logs.remove(&pod)))
    }

    fn remove_others(&self, keep: Keep) -> BoxFuture<'_, io::Result<()>> {
        let (logs, volumes) = (self.logs.clone(), self.volumes.clone());
        Box::pin(control::blocking(move || logs.remove_others(&keep).and(volumes.remove_others(&keep))))
    }
}

impl WasmWorkshop {
    /// Waits a little for ports that a guest which was ended has not given back yet.
    async fn open_ports(&self, spec: &RunSpec) -> Result<(Vec<Listener>, Held), StartFailure> {
        let PodKey { namespace, name, .. } = &spec.pod;
        let holder = format!("container \"{}\" of pod {namespace}/{name}", spec.container);
        let begun = Now::read().mono;
        loop {
            match self.ports.open(&holder, &spec.ports) {
                Err(ports::Refused::ByStranger(_)) if Now::read().mono.saturating_sub(begun) < PATIENCE => {
                    Timer::after(PATIENCE / 20).await;
                }
                done => return done.map_err(StartFailure::from),
            }
        }
    }

    fn spawn(
        &self,
        module: &Module,
        writer: &Arc<Writer>,
        spec: RunSpec,
        listeners: Vec<Listener>,
        held: Held,
    ) -> Result<Box<dyn Running>, StartFailure> {
        let stdin = self.by_hand.stdin.map(|open| open()).transpose();
        let stdin = stdin.unwrap_or_else(|error| {
            log::warn!("standard input cannot be opened, and is at its end for the guest: {error}");
            None
        });
        let mut preopens = spec.mounts.folders;
        preopens.extend(self.by_hand.folders.iter().cloned());
        // The last, as guests look for those that they know by their numbers.
        let root = spec.root.filter(|root| {
            !self.by_hand.rootless && preopens.iter().all(|folder| folder.guest != root.guest)
        });
        preopens.extend(root);
        let env = spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let kit = Kit {
            runtime: self.runtime.clone(),
            module: module.clone(),
            program: spec.args.first().map_or("", String::as_str).into(),
            env: self.given.env.alike(env, |a, b| a == b),
            preopens: preopens.into(),
            // No two have the same, but most have none.
            files: self.given.files.alike(spec.mounts.files, |_, _| false),
            destinations: self.given.destinations.alike(spec.destinations, |a, b| a == b),
            memory: spec.memory,
            cpu_request: spec.cpu_request,
            cpu_limit: spec.cpu_limit,
        };
        let failed = |text: String| {
            writer.close();
            StartFailure::Run(format!("failed to start the module: {text}"))
        };
        let (stdio, streams) = OwnStreams::open(writer, self.by_hand.terminal.as_ref(), stdin, spec.streams)
            .map_err(|error| failed(format!("its standard streams: {error}")))?;
        let mut guest = kit.guest(spec.args, stdio);
        guest.name = format!("{}/{}/{}", spec.pod.namespace, spec.pod.name, spec.container);
        (guest.listeners, guest.fuel) = (listeners, self.by_hand.fuel);
        match self.runtime.spawn(module, guest) {
            Ok(guest) => Ok(Box::new(ContainerRun::new(guest, kit, writer.clone(), streams, held))),
            Err(error) => Err(failed(error_chain(&error))),
        }
    }
}

/// Reads and compiles an image's module, or finds it where a guest still runs it. Blocks.
fn compile(runtime: &Runtime, store: &Store, image: &Image) -> Result<Module, StartFailure> {
    if let Some(module) = runtime.compiled(&image.module_digest) {
        return Ok(module);
    }
    let unread = |error: io::Error| {
        StartFailure::Create(format!("failed to read the module of image \"{}\": {error}", image.id))
    };
    let bytes = read(image).map_err(unread)?;
    if !store.verify(image, &bytes).map_err(unread)? {
        let text = format!(
            "the module of image \"{}\" is damaged on disk ({}): it is pulled again where it may be pulled",
            image.id,
            image.module.display()
        );
        return Err(StartFailure::Create(text));
    }
    // One stranger's module must not end the agent, whatever the compiler makes of it.
    caught(|| runtime.compile(&image.module_digest, &bytes).map_err(|error| error_chain(&error))).map_err(
        |error| StartFailure::Run(format!("image \"{}\" has no module that can run here: {error}", image.id)),
    )
}

fn read(image: &Image) -> io::Result<Vec<u8>> {
    let file = File::open(&image.module)?;
    // As large as it is: grown by doubling, it would take up to twice the memory of a large module.
    let size = file.metadata()?.len().min(MAX_MODULE).saturating_add(1);
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    let read = file.take(MAX_MODULE.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > MAX_MODULE {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it is larger than {MAX_MODULE} bytes"),
        ));
    }
    Ok(bytes)
}

/// Runs `work`; a panic of its becomes an error.
pub fn caught<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(format!("internal error, please report it: {text}"))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
#[path = "workshop_tests.rs"]
mod tests;
