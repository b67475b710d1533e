//! Starting one container: its image, its environment, its run (`kuberuntime_container.go`, startContainer).

use std::sync::Arc;

use futures_lite::future::or;

use super::api::ApiFailure;
use super::deaths::Mark;
use super::handlers::{hook, Means};
use super::root::ContainerRoot;
use super::volumes;
use super::workshop::{RunSpec, Running, Streams};
use super::{Entry, Shared};
use crate::api::{Container, Pod, Secret, VolumeMount, VolumeSource};
use crate::control;
use crate::image::{Found, Image, Keyring, Reference, Use, REGISTRY_UNAVAILABLE};
use crate::log::PodKey;
use crate::pod::admission::has_read_only_root;
use crate::pod::destinations::destinations;
use crate::pod::env_file::{self, EnvFiles};
use crate::pod::environment::{
    arguments, program_name, references, sub_path, variables, Environment, EnvironmentError, ImageConfig,
    Sources,
};
use crate::pod::events::{self, of_pod, EventKind};
use crate::pod::handlers::post_start;
use crate::pod::lifecycle::{apply, Happening, StartFailure};
use crate::pod::policy::{pull_policy, pull_policy_of, PullPolicy};
use crate::pod::ports::listened;
use crate::pod::resources::{cpu_limit, cpu_request, memory_limit};
use crate::pod::termination::message_path;
use crate::pod::{waits_for_grace, STOP_FILE};
use crate::runtime::{FileMount, Place, Preopen};
use crate::volume::{self, Mount, Mounts, PodVolumes, NOTICE_PATH};

/// Scheme of `containerID`.
const ID_SCHEME: &str = "copepod://";

/// A container that was started.
pub struct Started {
    /// Its run.
    pub run: RunGuard,
    /// `containerID`
    pub id: String,
    /// `imageID`
    pub image_id: String,
    /// Says that it runs.
    pub mark: Option<Mark>,
    /// Its own root.
    pub root: Arc<ContainerRoot>,
}

/// A run that is ended when nobody takes it over.
pub struct RunGuard(Option<Box<dyn Running>>);

impl RunGuard {
    /// Takes it over.
    pub fn take(mut self) -> Option<Arc<dyn Running>> {
        self.0.take().map(Arc::from)
    }
}

impl Drop for RunGuard {
    fn drop(&mut self) {
        if let Some(run) = &self.0 {
            run.kill();
        }
    }
}

/// Does all that it takes to start the run number `run` of a container.
pub async fn start(
    shared: &Arc<Shared>,
    entry: &Arc<Entry>,
    pod: &Pod,
    container: &Container,
    run: u32,
) -> Result<Started, StartFailure> {
    let volumes = match volumes::has_own(pod) {
        true => Some(volumes::mount(shared, entry, pod).await?),
        false => None,
    };
    if let Some(volumes) = &volumes {
        image_volumes(shared, entry, pod, container, volumes).await?;
    }
    let own =
        Wanted { container, image: &container.image, policy: pull_policy(container), what: Use::Module };
    let image = ensure_image(shared, entry, pod, own).await?;
    let sources = sources(shared, entry, pod, container).await?;
    let config = ImageConfig { env: &image.env, entrypoint: &image.entrypoint, cmd: &image.cmd };
    let config_error = |error: EnvironmentError| StartFailure::Config(error.to_string());
    let files = env_files(container, volumes.as_ref()).await;
    let mut env =
        variables(pod, container, config, &shared.node(), &sources, &files).map_err(config_error)?;
    let mut mounts = match volumes {
        Some(volumes) => {
            let wanted = mounts(container, &env).map_err(config_error)?;
            let found = control::blocking(move || volumes.mounts(&wanted)).await;
            found.map_err(StartFailure::Create)?
        }
        None => Mounts { folders: volumes::unasked(shared, entry, pod, container), ..Mounts::default() },
    };
    if waits_for_grace(pod) {
        let (uid, name) = (pod.metadata.uid.clone(), container.name.clone());
        let laid = shared.workshop.lay_notice(uid, name).await;
        let unlaid =
            |error| StartFailure::Create(format!("failed to set up the notice of its stop: {error}"));
        mounts.folders.push(laid.map_err(unlaid)?);
        env.all.retain(|(name, _)| name != STOP_FILE);
        env.all.push((STOP_FILE.to_owned(), NOTICE_PATH.to_owned()));
    }
    let args = arguments(container, config, program_name(&container.image), &env).map_err(config_error)?;
    let (root, preopen) = root(shared, entry, container, &mut mounts).await?;
    let spec = RunSpec {
        pod: key_of(pod),
        container: container.name.clone(),
        run,
        args,
        env: env.all,
        memory: memory_limit(pod, container),
        cpu_request: cpu_request(pod, container),
        cpu_limit: cpu_limit(pod, container),
        mounts,
        root: preopen,
        ports: listened(pod, container, &shared.node().ips)
            .map_err(|error| StartFailure::Create(format!("container \"{}\": {error}", container.name)))?,
        // What is wrong with them has refused the pod.
        destinations: destinations(pod).unwrap_or_default(),
        streams: Streams { stdin: container.stdin, stdin_once: container.stdin_once, tty: container.tty },
    };
    let image_id = image.id.clone();
    // Unguessable is not needed, never used twice is: 128 random bits.
    let id = format!("{ID_SCHEME}{:032x}", fastrand::u128(..));
    launch(shared, entry, pod, container, &id, &image_id).await;
    let mark = shared.deaths.mark(&pod.metadata.uid, &container.name);
    let running = shared.workshop.run(image, spec).await?;
    shared.tell(pod, events::created(&container.name));
    let run = RunGuard(Some(running));
    if let (Some(wanted), Some(running)) = (post_start(container), &run.0) {
        let own = shared.node().ips.first().cloned();
        let means = Means { own, run: &**running, clock: &*shared.clock };
        let done = async { Some(hook(&wanted, &means).await) };
        // What ended meanwhile has ended, and says itself how.
        let ended = async {
            running.wait().await;
            None
        };
        if let Some(Err(error)) = Box::pin(or(ended, done)).await {
            log::warn!(
                "pod {}: postStart hook of container {}: {error}",
                events::pod_label(pod),
                container.name
            );
            return Err(StartFailure::PostStart(error));
        }
    }
    Ok(Started { run, id, image_id, mark, root })
}

/// Writes down that the container runs, before it does: what must run once only does not run twice, whatever becomes
/// of the agent meanwhile. On a disk that takes nothing it runs all the same.
async fn launch(shared: &Shared, entry: &Entry, pod: &Pod, container: &Container, id: &str, image_id: &str) {
    let (container, id, image_id) = (container.name.clone(), id.to_owned(), image_id.to_owned());
    let launching = Happening::Launching { container, id, image_id };
    apply(pod, &mut entry.state().record, launching, shared.clock.now());
    // Why not was said in the log.
    let _ = shared.write_down(entry).await;
}

/// The files that variables of the container come from.
async fn env_files(container: &Container, volumes: Option<&Arc<PodVolumes>>) -> EnvFiles {
    let froms = container.env.iter().filter_map(|env| env.value_from.as_ref()?.file_key_ref.as_ref());
    let wanted: Vec<_> = froms.map(|from| (from.volume_name.clone(), from.path.clone())).collect();
    let Some(volumes) = volumes.filter(|_| !wanted.is_empty()).cloned() else { return EnvFiles::new() };
    let read = move || {
        let read = |(volume, path): (String, String)| {
            let text = volumes.read(&volume, &path, env_file::MAX_FILE);
            let text = text.map_err(|error| log::warn!("variables from {path} of volume {volume}: {error}"));
            ((volume, path), text.ok())
        };
        wanted.into_iter().map(read).collect()
    };
    control::blocking(read).await
}

/// What the container mounts, with the variables of its subPaths expanded.
fn mounts(container: &Container, env: &Environment) -> Result<Vec<Mount>, EnvironmentError> {
    let mount = |mount: &VolumeMount| {
        let sub_path = if mount.sub_path_expr.is_empty() {
            mount.sub_path.clone()
        } else {
            sub_path(&mount.sub_path_expr, env)?
        };
        Ok(Mount {
            volume: mount.name.clone(),
            guest: absolute(&mount.mount_path),
            read_only: mount.read_only,
            sub_path,
        })
    };
    container.volume_mounts.iter().map(mount).collect()
}

/// The container's own root. It is made at once only if its termination message must be written elsewhere than there:
/// in a volume that is mounted over its place, or where nothing else may be written.
async fn root(
    shared: &Arc<Shared>,
    entry: &Arc<Entry>,
    container: &Container,
    mounts: &mut Mounts,
) -> Result<(Arc<ContainerRoot>, Option<Preopen>), StartFailure> {
    let root = ContainerRoot::new(shared, entry, container, mounts);
    let read_only = has_read_only_root(container);
    let message = absolute(message_path(container));
    let covers = |folder: &Preopen| is_within(&message, &folder.guest);
    if read_only || mounts.folders.iter().any(covers) {
        let made = async {
            let (fd, account) = root.lay().await?;
            let path = message.clone();
            let handle = control::blocking(move || volume::handle(&fd, &path)).await?;
            Ok((handle, account))
        };
        let made: std::io::Result<_> = made.await;
        let (handle, account) = made.map_err(|error| {
            StartFailure::Create(format!(
                "failed to set up the root of container \"{}\": {error}",
                container.name
            ))
        })?;
        let account = Some(account);
        mounts.files.push(FileMount { guest: message, handle, read_only: false, account });
    }
    let preopen = Preopen { guest: "/".to_owned(), place: root.place(), read_only, account: None };
    Ok((root, Some(preopen)))
}

/// Does a path lie in a folder?
fn is_within(path: &str, folder: &str) -> bool {
    let rest = path.strip_prefix(folder.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.starts_with('/'))
}

/// A relative path of a container starts at its root.
pub fn absolute(path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    }
}

/// Whose logs a pod's are.
pub fn key_of(pod: &Pod) -> PodKey {
    let meta = &pod.metadata;
    PodKey { namespace: meta.namespace.clone(), name: meta.name.clone(), uid: meta.uid.clone() }
}

/// The images that the container mounts.
async fn image_volumes(
    shared: &Shared,
    entry: &Entry,
    pod: &Pod,
    container: &Container,
    volumes: &PodVolumes,
) -> Result<(), StartFailure> {
    for volume in &pod.spec.volumes {
        let VolumeSource::Image(source) = &volume.source else { continue };
        let mounted = container.volume_mounts.iter().any(|mount| mount.name == volume.name);
        if !mounted || volumes.has(&volume.name) {
            continue;
        }
        let policy = pull_policy_of(&source.pull_policy, &source.reference);
        let wanted = Wanted { container, image: &source.reference, policy, what: Use::Files };
        let image = Box::pin(ensure_image(shared, entry, pod, wanted)).await?;
        volumes.add(&volume.name, Place::Folder(image.module));
    }
    Ok(())
}

/// An image that a container needs.
#[derive(Clone, Copy)]
struct Wanted<'w> {
    container: &'w Container,
    image: &'w str,
    policy: PullPolicy,
    what: Use,
}

async fn ensure_image(
    shared: &Shared,
    entry: &Entry,
    pod: &Pod,
    wanted: Wanted<'_>,
) -> Result<Image, StartFailure> {
    let Wanted { container, image: name, policy, what } = wanted;
    let reference: Reference = name.parse().map_err(|error| {
        let text = format!(
            "Failed to apply default image tag \"{name}\": couldn't parse image name \"{name}\": {error}"
        );
        StartFailure::InvalidImageName(text)
    })?;
    let mut keyring = None;
    if policy != PullPolicy::Always {
        let mut found = shared.workshop.find(name, &reference, what, &shared.keyring).await;
        if matches!(found, Found::Locked) {
            // Only now are the pod's secrets asked for: what is public starts without the API server.
            let own = keyring.insert(self::keyring(shared, entry, pod).await?);
            found = shared.workshop.find(name, &reference, what, own).await;
        }
        if let Found::Here(image) = found {
            shared.tell(pod, events::present(&container.name, name));
            return Ok(image);
        }
        if policy == PullPolicy::Never {
            return Err(StartFailure::NeverPull(name.to_owned()));
        }
    }
    let keyring = match keyring {
        Some(keyring) => keyring,
        None => self::keyring(shared, entry, pod).await?,
    };
    shared.tell(pod, events::pulling(&container.name, name));
    let begun = shared.clock.now().mono;
    let pulled = shared.workshop.pull(reference.clone(), what, keyring.clone()).await;
    let (image, pull) = match pulled {
        Err(StartFailure::Pull { reason: REGISTRY_UNAVAILABLE, text, .. }) => {
            // What runs goes on after a power cut, whether the registry can be asked for a newer one or not.
            let ran = entry.state().record.container(&container.name).map(|known| known.image_id.clone());
            let known = |image: &Image| what == Use::Files || ran.as_ref() == Some(&image.id);
            return match shared.workshop.find(name, &reference, what, &keyring).await {
                Found::Here(image) if known(&image) => {
                    shared.tell(pod, events::pull_failed(&container.name, name, &text));
                    shared.tell(pod, events::present(&container.name, name));
                    Ok(image)
                }
                _ => Err(StartFailure::Pull { reason: REGISTRY_UNAVAILABLE, text, image: name.to_owned() }),
            };
        }
        Err(StartFailure::Pull { reason, text, .. }) => {
            return Err(StartFailure::Pull { reason, text, image: name.to_owned() });
        }
        pulled => pulled?,
    };
    let whole = shared.clock.now().mono.saturating_sub(begun);
    shared.tell(pod, events::pulled(&container.name, name, pull.min(whole), whole, image.size));
    Ok(image)
}

/// The node's own login data and the pod's. A secret that is missing or broken is only a warning; while
/// nobody can say what is in it, what it last held counts, and without that nothing is pulled.
async fn keyring(shared: &Shared, entry: &Entry, pod: &Pod) -> Result<Keyring, StartFailure> {
    let mut keyring = shared.keyring.clone();
    let (mut good, mut missing) = (Vec::new(), Vec::new());
    let namespace = pod.metadata.namespace.as_str();
    for reference in &pod.spec.image_pull_secrets {
        let kept = entry.state().kept.pull_secrets.is_some();
        let secret = shared.ask(kept, shared.api.secret(namespace, &reference.name)).await;
        let silent = || Err(ApiFailure::Unavailable("the API server does not answer".to_owned()));
        let secret = secret.unwrap_or_else(silent);
        if let Err(ApiFailure::Unavailable(error)) = &secret {
            let text = format!("couldn't get the image pull secret {namespace}/{}: {error}", reference.name);
            let Some(kept) = entry.state().kept.pull_secrets.clone() else {
                return Err(StartFailure::pull(text));
            };
            let mut keyring = shared.keyring.clone();
            for secret in kept.iter() {
                // It was good once.
                let _ = add_secret(&mut keyring, secret);
            }
            return Ok(keyring);
        }
        let added = secret.map_err(|error| error.to_string()).and_then(|secret| {
            add_secret(&mut keyring, &secret)?;
            good.push(Secret { data: secret.data, ..Secret::default() });
            Ok(())
        });
        if let Err(error) = added {
            log::warn!("pod {}: image pull secret {}: {error}", events::pod_label(pod), reference.name);
            missing.push(reference.name.as_str());
        }
    }
    if !missing.is_empty() {
        let message = format!(
            "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
            missing.join(", ")
        );
        shared.tell(pod, of_pod(EventKind::Warning, "FailedToRetrieveImagePullSecret", message));
    }
    if !pod.spec.image_pull_secrets.is_empty() {
        entry.state().kept.pull_secrets = Some(shared.given_secrets.alike(good));
    }
    Ok(keyring)
}

fn add_secret(keyring: &mut Keyring, secret: &Secret) -> Result<(), String> {
    if let Some(json) = secret.data.get(".dockerconfigjson") {
        keyring.add_docker_config_json(&json.0)
    } else if let Some(json) = secret.data.get(".dockercfg") {
        keyring.add_dockercfg(&json.0)
    } else {
        Err("it has neither .dockerconfigjson nor .dockercfg".to_owned())
    }
}

/// What a container's environment draws on, as it is now, or as it last was while the API server is away.
async fn sources(
    shared: &Shared,
    entry: &Entry,
    pod: &Pod,
    container: &Container,
) -> Result<Arc<Sources>, StartFailure> {
    let name = &container.name;
    let kept = entry.state().kept.sources_of(name);
    let fetched = shared.ask(kept.is_some(), Box::pin(fetch_sources(shared, pod, container))).await;
    let silent =
        || Err((ApiFailure::Unavailable("the API server does not answer".to_owned()), String::new()));
    match fetched.unwrap_or_else(silent) {
        Ok(sources) => {
            let sources = shared.given_sources.alike(sources.trimmed(container));
            entry.state().kept.keep_sources(name, sources.clone());
            Ok(sources)
        }
        Err((ApiFailure::Unavailable(error), what)) => {
            kept.ok_or_else(|| StartFailure::Config(format!("couldn't get {what}: {error}")))
        }
        Err((error, what)) => Err(StartFailure::Config(format!("couldn't get {what}: {error}"))),
    }
}

/// What is not there is left out: whether that is an error is decided later. An error comes with what was
/// to be fetched.
async fn fetch_sources(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
) -> Result<Sources, (ApiFailure, String)> {
    let namespace = pod.metadata.namespace.as_str();
    let (config_maps, secrets) = references(container);
    let mut sources = Sources::default();
    for name in config_maps {
        match shared.api.config_map(namespace, name).await {
            Ok(object) => drop(sources.config_maps.insert(name.to_owned(), object)),
            Err(ApiFailure::NotFound(_)) => {}
            Err(error) => return Err((error, format!("configMap {namespace}/{name}"))),
        }
    }
    for name in secrets {
        match shared.api.secret(namespace, name).await {
            Ok(object) => drop(sources.secrets.insert(name.to_owned(), object)),
            Err(ApiFailure::NotFound(_)) => {}
            Err(error) => return Err((error, format!("secret {namespace}/{name}"))),
        }
    }
    let links = pod.spec.enable_service_links.unwrap_or(true);
    let services = shared.api.services(namespace, links).await;
    sources.services = services.map_err(|error| (error, format!("the services of namespace {namespace}")))?;
    Ok(sources)
}
