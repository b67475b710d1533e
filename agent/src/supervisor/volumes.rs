//! The volumes of a pod: there before its first container starts, and kept as their objects are from then on.
//!
//! What the API server is asked for is asked once, when the volume is made, and again when a watch tells of a change
//! or a token grows old. The volume of the token that every pod is given, whether it wants one or not, is made when a
//! guest first looks into it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_lite::future::or;

use super::api::{ApiFailure, Followed, ObjectKind, ObjectName, Signal, TokenAsked};
use super::inbox::Message;
use super::start::absolute;
use super::{lock, Entry, Shared};
use crate::api::{Container, EnvVar, Pod, Volume, VolumeMount, VolumeSource};
use crate::control::{self, Task};
use crate::pod::admission::is_default_token;
use crate::pod::events::{failed_mount, pod_label};
use crate::pod::lifecycle::StartFailure;
use crate::pod::payload::{fingerprint, is_secret, parts, payload, Given, Part, Payload};
use crate::pod::storage::storage;
use crate::runtime::{Laying, Place, Preopen};
use crate::volume::{HostPath, MountError, ObjectVolume, PodVolumes};

/// First and longest wait before a volume that could not be made is tried again (`goroutinemap/exponentialbackoff`).
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(122));
/// Wait before what could not be brought up to date is tried again.
const AGAIN: Duration = Duration::from_secs(60);
/// A token is asked for anew after this part of its life, or this long (`token_manager.go`, requiresRefresh).
const OLD: f64 = 0.8;
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// At most so much earlier, by chance.
const JITTER: Duration = Duration::from_secs(10);

/// A wait that doubles.
#[derive(Debug, Default)]
pub struct Pause {
    delay: Duration,
    until: Duration,
}

impl Pause {
    /// Something failed: not again before this.
    fn step(&mut self, now: Duration) -> Duration {
        self.delay = self.delay.saturating_mul(2).clamp(PAUSE.0, PAUSE.1);
        self.until = now.saturating_add(self.delay);
        self.until
    }
}

/// The volumes of one pod that are made of objects.
#[derive(Default)]
pub struct Objects {
    changed: Arc<Signal>,
    volumes: async_lock::Mutex<BTreeMap<String, State>>,
    keeper: Mutex<Option<Task<()>>>,
}

#[derive(Default)]
struct State {
    /// Where it is.
    folder: Option<PathBuf>,
    /// Of what was written last; none: nothing was.
    written: Option<u64>,
    /// The same without its tokens: what is kept on the disk is written anew when this changes.
    lasting: Option<u64>,
    followed: BTreeMap<ObjectName, Followed>,
    /// By the audience and the life that were asked for.
    tokens: Vec<(TokenAsked, Held)>,
    /// It is to be looked at again then.
    due: Option<Duration>,
    pause: Pause,
}

struct Held {
    text: String,
    refresh_at: Duration,
    ends_at: Duration,
}

impl Objects {
    /// Something of the pod's own changed that its volumes may tell of.
    pub fn look(&self) {
        self.changed.give();
    }

    /// The volumes are to go: nobody keeps them any more.
    pub fn end(&self) {
        drop(lock(&self.keeper).take());
    }
}

/// Makes the volumes of a pod, if they are not there; the first that cannot be made is told of.
pub async fn mount(
    shared: &Arc<Shared>,
    entry: &Arc<Entry>,
    pod: &Pod,
) -> Result<Arc<PodVolumes>, StartFailure> {
    let mut pause = entry.mounting.lock().await;
    if let Some(mounted) = entry.volumes.get() {
        return Ok(mounted.clone());
    }
    if shared.clock.now().mono < pause.until {
        return Err(StartFailure::Mount(pause.until));
    }
    match Box::pin(all(shared, entry, pod)).await {
        Ok(mounted) => {
            let mounted = Arc::new(mounted);
            let _once = entry.volumes.set(mounted.clone()).await;
            Ok(mounted)
        }
        Err(error) => {
            shared.tell(pod, failed_mount(&error.volume, &error.text));
            Err(StartFailure::Mount(pause.step(shared.clock.now().mono)))
        }
    }
}

/// The volumes that some container mounts.
fn mounted(pod: &Pod) -> impl Iterator<Item = &Volume> {
    let containers = pod.spec.init_containers.iter().chain(&pod.spec.containers);
    let names: BTreeSet<&str> =
        containers.flat_map(|container| &container.volume_mounts).map(|mount| mount.name.as_str()).collect();
    pod.spec.volumes.iter().filter(move |volume| names.contains(volume.name.as_str()))
}

/// Does the pod mount more than the token that it is given unasked?
pub fn has_own(pod: &Pod) -> bool {
    let mut containers = pod.spec.init_containers.iter().chain(&pod.spec.containers);
    let from_file = |env: &EnvVar| env.value_from.as_ref().is_some_and(|from| from.file_key_ref.is_some());
    mounted(pod).any(|volume| !is_lazy(pod, volume)) || containers.any(|c| c.env.iter().any(from_file))
}

/// Is a volume made when a guest first looks into it?
fn is_lazy(pod: &Pod, volume: &Volume) -> bool {
    is_default_token(volume) && !has_sub_path(pod, &volume.name)
}

/// What a container mounts of a pod that [has nothing of its own](has_own): there before anything is made.
pub fn unasked(shared: &Arc<Shared>, entry: &Arc<Entry>, pod: &Pod, container: &Container) -> Vec<Preopen> {
    let mount = |mount: &VolumeMount| {
        let volume = pod.spec.volumes.iter().find(|volume| volume.name == mount.name)?;
        let place = later(shared, entry, &volume.name);
        Some(Preopen { guest: absolute(&mount.mount_path), place, read_only: true, account: None })
    };
    container.volume_mounts.iter().filter_map(mount).collect()
}

/// Is some of it mounted by a subPath?
fn has_sub_path(pod: &Pod, volume: &str) -> bool {
    let containers = pod.spec.init_containers.iter().chain(&pod.spec.containers);
    let mut mounts = containers.flat_map(|container| &container.volume_mounts);
    mounts.any(|mount| mount.name == volume && !(mount.sub_path.is_empty() && mount.sub_path_expr.is_empty()))
}

async fn all(shared: &Arc<Shared>, entry: &Arc<Entry>, pod: &Pod) -> Result<PodVolumes, MountError> {
    let told = {
        let entry = Arc::downgrade(entry);
        Arc::new(move |exceeded| {
            if let Some(entry) = entry.upgrade() {
                entry.inbox.put(Message::Exceeded(exceeded));
            }
        })
    };
    let host_path = |volume: &Volume| {
        let VolumeSource::HostPath(source) = &volume.source else { return None };
        let (name, path, kind) = (volume.name.clone(), source.path.clone(), source.kind.clone());
        Some(HostPath { name, path, kind })
    };
    let host_paths = mounted(pod).filter_map(host_path).collect();
    let uid = pod.metadata.uid.clone();
    let volumes = shared.workshop.lay_volumes(uid, storage(pod, shared.storage), host_paths, told).await?;
    for volume in mounted(pod).filter(|volume| parts(&volume.source).is_some()) {
        let place = if is_lazy(pod, volume) {
            later(shared, entry, &volume.name)
        } else {
            let made = make(shared, entry, pod, volume).await;
            made.map_err(|text| MountError { volume: volume.name.clone(), text })?
        };
        volumes.add(&volume.name, place);
    }
    Ok(volumes)
}

/// A volume that is made when a guest first looks into it.
fn later(shared: &Arc<Shared>, entry: &Arc<Entry>, name: &str) -> Place {
    let at = entry.state().pod.spec.volumes.iter().position(|volume| volume.name == name);
    let (shared, entry) = (shared.clone(), Arc::downgrade(entry));
    Place::Later(Arc::new(move || -> Laying {
        let (shared, entry) = (shared.clone(), entry.clone());
        let (done, made) = async_channel::bounded(1);
        // The control thread's work, and not a guest's.
        let work = control::spawn(async move {
            let Some(entry) = entry.upgrade() else { return };
            let pod = entry.state().pod.clone();
            let Some(volume) = at.and_then(|at| pod.spec.volumes.get(at)) else { return };
            let made = make(&shared, &entry, &pod, volume).await;
            if let Err(text) = &made {
                // Many guests may want it at once, again and again: it is told of as often as it is tried.
                if !text.is_empty() {
                    shared.tell(&pod, failed_mount(&volume.name, text));
                }
            }
            let _gone_if_the_guest_is = done.send(made).await;
        });
        Box::pin(async move {
            let _work = work;
            match made.recv().await {
                Ok(Ok(Place::Folder(host))) => {
                    control::blocking(move || Ok((std::fs::File::open(host)?.into(), None))).await
                }
                _ => Err(io::ErrorKind::Other.into()),
            }
        })
    }))
}

/// Makes a volume of objects, and keeps it as they are from then on. An empty error was told before.
async fn make(shared: &Arc<Shared>, entry: &Arc<Entry>, pod: &Pod, volume: &Volume) -> Result<Place, String> {
    let objects = lock(&entry.objects).get_or_insert_with(Arc::default).clone();
    let mut volumes = objects.volumes.lock().await;
    let state = volumes.entry(volume.name.clone()).or_default();
    let now = shared.clock.now().mono;
    if state.written.is_none() && now < state.pause.until {
        return Err(String::new());
    }
    let kept = match &state.folder {
        Some(folder) => Ok(Some(folder.clone())),
        None => shared.workshop.take_up(spec_of(pod, volume)).await,
    };
    let kept = kept.map_err(|error| error.to_string())?;
    let updated = shared.ask(kept.is_some(), update(shared, &objects, state, pod, volume)).await;
    let made =
        match updated.unwrap_or_else(|| Err(Failure::Away("the API server does not answer".to_owned()))) {
            Ok(()) => state.folder.clone().ok_or_else(String::new),
            Err(Failure::Away(text)) => match kept {
                Some(folder) => {
                    log::info!("pod {}: volume {} is as it was last: {text}", pod_label(pod), volume.name);
                    state.due = Some(now.saturating_add(AGAIN));
                    Ok(folder)
                }
                None => Err(text),
            },
            Err(Failure::Wrong(text)) => Err(text),
        };
    match made {
        Ok(folder) => {
            let mut keeper = lock(&objects.keeper);
            if keeper.is_none() {
                *keeper = Some(control::spawn(keep(shared.clone(), Arc::downgrade(entry), objects.clone())));
            }
            Ok(Place::Folder(folder))
        }
        Err(text) => {
            state.pause.step(now);
            Err(text)
        }
    }
}

fn spec_of(pod: &Pod, volume: &Volume) -> ObjectVolume {
    ObjectVolume {
        uid: pod.metadata.uid.clone(),
        name: volume.name.clone(),
        kind: volume.source.kind().to_owned(),
        secret: is_secret(&volume.source),
    }
}

/// Keeps the volumes of a pod as their objects are, until the pod is gone.
async fn keep(shared: Arc<Shared>, entry: std::sync::Weak<Entry>, objects: Arc<Objects>) {
    loop {
        let due = objects.volumes.lock().await.values().filter_map(|state| state.due).min();
        let in_time = async {
            match due {
                Some(at) => shared.clock.until(at).await,
                None => std::future::pending().await,
            }
        };
        or(objects.changed.wait(), in_time).await;
        let Some(entry) = entry.upgrade() else { return };
        let pod = entry.state().pod.clone();
        let mut volumes = objects.volumes.lock().await;
        for volume in &pod.spec.volumes {
            let Some(state) = volumes.get_mut(&volume.name) else { continue };
            match Box::pin(update(&shared, &objects, state, &pod, volume)).await {
                Ok(()) => {}
                Err(Failure::Away(text)) => {
                    log::debug!("pod {}: volume {} stays as it is: {text}", pod_label(&pod), volume.name);
                    state.due = Some(shared.clock.now().mono.saturating_add(AGAIN));
                }
                Err(Failure::Wrong(text)) => {
                    shared.tell(&pod, failed_mount(&volume.name, &text));
                    state.due = Some(shared.clock.now().mono.saturating_add(AGAIN));
                }
            }
        }
    }
}

/// Why a volume is not as its objects are.
enum Failure {
    /// Nobody can say now how they are.
    Away(String),
    /// They make no such volume, or it cannot be written.
    Wrong(String),
}

/// Writes the volume as its objects are, if it is not so.
async fn update(
    shared: &Arc<Shared>,
    objects: &Objects,
    state: &mut State,
    pod: &Pod,
    volume: &Volume,
) -> Result<(), Failure> {
    state.due = None;
    let given = gather(shared, objects, state, pod, volume).await?;
    let node = shared.node();
    let payload = payload(pod, &volume.source, &given, &node).map_err(Failure::Wrong)?;
    let now = fingerprint(&payload);
    if state.written == Some(now) {
        return Ok(());
    }
    let lasting = fingerprint(&without_tokens(&payload, &volume.source));
    let anew = state.lasting != Some(lasting);
    let written = shared.workshop.write_volume(spec_of(pod, volume), payload, anew).await;
    state.folder = Some(written.map_err(|error| Failure::Wrong(error.to_string()))?);
    (state.written, state.lasting) = (Some(now), Some(lasting));
    state.pause = Pause::default();
    Ok(())
}

fn without_tokens(payload: &Payload, source: &VolumeSource) -> Payload {
    let tokens = parts(source).unwrap_or_default();
    let is_token =
        |path: &String| tokens.iter().any(|part| matches!(part, Part::Token(token) if token.path == *path));
    payload
        .iter()
        .filter(|(path, _)| !is_token(path))
        .map(|(path, file)| (path.clone(), file.clone()))
        .collect()
}

/// What each part of the volume is made of.
async fn gather(
    shared: &Arc<Shared>,
    objects: &Objects,
    state: &mut State,
    pod: &Pod,
    volume: &Volume,
) -> Result<Vec<Given>, Failure> {
    let mut given = Vec::new();
    for part in parts(&volume.source).unwrap_or_default() {
        given.push(match part {
            Part::ConfigMap(keys) => {
                let object = follow(shared, objects, state, pod, ObjectKind::ConfigMap, keys.name);
                let found = shared.api.config_map(&object.namespace, &object.name).await;
                let found = there(found, "configmap", &object)?;
                settle(state, &object, found.as_ref().is_some_and(|map| map.immutable == Some(true)));
                Given::ConfigMap(found.map(Arc::new))
            }
            Part::Secret(keys) => {
                let object = follow(shared, objects, state, pod, ObjectKind::Secret, keys.name);
                let found = shared.api.secret(&object.namespace, &object.name).await;
                let found = there(found, "secret", &object)?;
                settle(state, &object, found.as_ref().is_some_and(|secret| secret.immutable == Some(true)));
                Given::Secret(found.map(Arc::new))
            }
            Part::Downward(_) => Given::Nothing,
            Part::Token(token) => {
                let asked =
                    TokenAsked { audience: token.audience.clone(), seconds: token.expiration_seconds };
                Given::Token(self::token(shared, state, pod, asked).await?)
            }
        });
    }
    Ok(given)
}

fn follow(
    shared: &Shared,
    objects: &Objects,
    state: &mut State,
    pod: &Pod,
    kind: ObjectKind,
    name: &str,
) -> ObjectName {
    let object = ObjectName { kind, namespace: pod.metadata.namespace.clone(), name: name.to_owned() };
    if !state.followed.contains_key(&object) {
        if let Some(followed) = shared.api.follow(&object, &objects.changed) {
            state.followed.insert(object.clone(), followed);
        }
    }
    object
}

/// What never changes is not followed.
fn settle(state: &mut State, object: &ObjectName, immutable: bool) {
    if immutable {
        state.followed.remove(object);
    }
}

/// An object, or that there is none.
fn there<T>(found: Result<T, ApiFailure>, kind: &str, object: &ObjectName) -> Result<Option<T>, Failure> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(ApiFailure::NotFound(_)) => Ok(None),
        Err(error) => {
            let text = format!("couldn't get {kind} {}/{}: {error}", object.namespace, object.name);
            Err(match error {
                ApiFailure::Unavailable(_) => Failure::Away(text),
                _ => Failure::Wrong(text),
            })
        }
    }
}

/// A token, the one that is held as long as it is young, and while nobody gives another.
async fn token(shared: &Shared, state: &mut State, pod: &Pod, asked: TokenAsked) -> Result<String, Failure> {
    let now = shared.clock.now().mono;
    let due = |state: &mut State, at: Duration| state.due = Some(state.due.map_or(at, |due| due.min(at)));
    let held = state.tokens.iter().position(|(known, _)| *known == asked);
    if let Some((_, held)) = held.and_then(|at| state.tokens.get(at)).filter(|(_, h)| now < h.refresh_at) {
        let (text, at) = (held.text.clone(), held.refresh_at);
        due(state, at);
        return Ok(text);
    }
    match shared.api.token(pod, &asked).await {
        Ok(token) => {
            let jitter = JITTER.mul_f64(fastrand::f64());
            let age = token.life.mul_f64(OLD).min(MAX_AGE).saturating_sub(jitter).max(Duration::from_secs(1));
            let refresh_at = now.saturating_add(age);
            let ends_at = now.saturating_add(token.life);
            let fresh = Held { text: token.text.clone(), refresh_at, ends_at };
            match held.and_then(|at| state.tokens.get_mut(at)) {
                Some((_, held)) => *held = fresh,
                None => state.tokens.push((asked, fresh)),
            }
            due(state, refresh_at);
            Ok(token.text)
        }
        Err(error) => {
            let old = held.and_then(|at| state.tokens.get(at)).filter(|(_, held)| now < held.ends_at);
            if let Some((_, held)) = old {
                let text = held.text.clone();
                log::warn!("pod {}: its token stays as it is: {error}", pod_label(pod));
                due(state, now.saturating_add(AGAIN));
                return Ok(text);
            }
            let text = format!("failed to fetch token: {error}");
            Err(match error {
                ApiFailure::Unavailable(_) => Failure::Away(text),
                _ => Failure::Wrong(text),
            })
        }
    }
}
