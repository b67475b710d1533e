//! An API server, a workshop and a clock that do as they are told, with a supervisor between them.

use async_channel::{Receiver, Sender};

use super::super::*;
use super::validation::refusal;
use crate::api::{ConfigMap, ObjectReference, Secret};
use crate::control;
use crate::durable::clock::Now;
use crate::image::{Found, Image, Reference, Use, REGISTRY_UNAVAILABLE};
use crate::log::PodKey;
use crate::pod::lifecycle::StartFailure;
use crate::pod::payload::Payload;
use crate::pod::samples;
use crate::pod::storage::{Defaults, Storage};
use crate::runtime::quota::Account;
use crate::runtime::stdio::{Ends, Stdio, Wanted};
use crate::runtime::{Exit, Place, Preopen, Usage};
use crate::volume::{HostPath, MountError, ObjectVolume, PodVolumes, RootFiles, Told};
use futures_lite::future::yield_now;
use serde_json::Value;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// The executor is one for the whole process: one story at a time.
static ONE: Mutex<()> = Mutex::new(());

/// After this long a story that waits for something gives up. Other tests share the executor and the machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct FakeApi {
    /// Answers to come, `Ok` when there are none left.
    pub answers: Mutex<VecDeque<ApiFailure>>,
    pub patches: Mutex<Vec<Value>>,
    pub statuses: Mutex<Vec<PodStatus>>,
    /// What is shown of each pod, by UID.
    pub shown: Mutex<BTreeMap<String, PodStatus>>,
    /// Who is shown each status that is taken, under a new resourceVersion.
    pub echo: Mutex<Option<Supervisor>>,
    /// Why statuses were refused: none may be that no story asked for.
    pub refused: Mutex<Vec<String>>,
    pub deletes: Mutex<Vec<String>>,
    pub events: Mutex<Vec<String>>,
    pub config_maps: Mutex<BTreeMap<String, ConfigMap>>,
    pub secrets: Mutex<BTreeMap<String, Secret>>,
    /// Secrets and ConfigMaps cannot be had.
    pub away: Mutex<bool>,
    /// Names of the Secrets and ConfigMaps that were asked for.
    pub asked: Mutex<Vec<String>>,
    /// Tokens to come, none when there are none left.
    pub tokens: Mutex<VecDeque<Result<Token, ApiFailure>>>,
    /// Service accounts and audiences of the tokens that were asked for.
    pub asked_tokens: Mutex<Vec<String>>,
    /// Who follows something, each with what keeps it followed.
    pub following: Mutex<Vec<(Arc<Signal>, std::sync::Weak<()>)>>,
}

impl FakeApi {
    /// Things that are followed.
    pub fn followed(&self) -> usize {
        lock(&self.following).iter().filter(|(_, kept)| kept.strong_count() > 0).count()
    }

    /// Something of what was ever followed changed.
    pub fn signal(&self) {
        lock(&self.following).iter().for_each(|(signal, _)| signal.give());
    }

    fn read<T: Clone>(
        &self,
        kind: &str,
        objects: &Mutex<BTreeMap<String, T>>,
        name: &str,
    ) -> Result<T, ApiFailure> {
        lock(&self.asked).push(name.to_owned());
        if *lock(&self.away) {
            return Err(ApiFailure::Unavailable("connection refused".to_owned()));
        }
        let found = lock(objects).get(name).cloned();
        found.ok_or_else(|| ApiFailure::NotFound(format!("{kind} \"{name}\" not found")))
    }

    fn answer(&self) -> Result<(), ApiFailure> {
        lock(&self.answers).pop_front().map_or(Ok(()), Err)
    }
}

impl Api for FakeApi {
    fn patch_status<'a>(
        &'a self,
        pod: &'a Pod,
        status: &'a PodStatus,
        patch: Value,
    ) -> BoxFuture<'a, Result<(), ApiFailure>> {
        Box::pin(async move {
            lock(&self.patches).push(patch);
            self.answer()?;
            let mut shown = lock(&self.shown);
            let old = shown.entry(pod.metadata.uid.clone()).or_insert_with(|| pod.status.clone());
            if let Some(why) = refusal(pod, old, status) {
                lock(&self.refused).push(why.clone());
                return Err(ApiFailure::Invalid(why));
            }
            old.clone_from(status);
            lock(&self.statuses).push(status.clone());
            if let Some(supervisor) = &*lock(&self.echo) {
                let mut pod = pod.clone();
                let version: u64 = pod.metadata.resource_version.parse().unwrap_or(0);
                pod.metadata.resource_version = (version + 1).to_string();
                pod.status = status.clone();
                supervisor.handle(PodEvent::Applied(Box::new(pod)));
            }
            Ok(())
        })
    }
    fn delete<'a>(&'a self, pod: &'a Pod) -> BoxFuture<'a, Result<(), ApiFailure>> {
        Box::pin(async move {
            lock(&self.deletes).push(pod.metadata.uid.clone());
            self.answer()
        })
    }
    fn token<'a>(&'a self, pod: &'a Pod, asked: &'a TokenAsked) -> BoxFuture<'a, Result<Token, ApiFailure>> {
        lock(&self.asked_tokens).push(format!("{} {}", pod.spec.service_account_name, asked.audience));
        let next = lock(&self.tokens).pop_front();
        Box::pin(async { next.unwrap_or_else(|| Err(ApiFailure::NotFound("no more tokens".to_owned()))) })
    }
    fn follow(&self, _: &ObjectName, changed: &Arc<Signal>) -> Option<Followed> {
        let kept = Arc::new(());
        lock(&self.following).push((changed.clone(), Arc::downgrade(&kept)));
        Some(kept)
    }
    fn event(&self, about: ObjectReference, event: EventText) {
        lock(&self.events)
            .push(format!("{} {}: {}", about.field_path, event.reason, event.message).trim().to_owned());
    }
    fn secret<'a>(&'a self, _: &'a str, name: &'a str) -> BoxFuture<'a, Result<Secret, ApiFailure>> {
        let found = self.read("secrets", &self.secrets, name);
        Box::pin(async move { found })
    }
    fn config_map<'a>(&'a self, _: &'a str, name: &'a str) -> BoxFuture<'a, Result<ConfigMap, ApiFailure>> {
        let found = self.read("configmaps", &self.config_maps, name);
        Box::pin(async move { found })
    }
}

#[derive(Clone)]
pub struct FakeRun {
    pub exit: Arc<Mutex<Option<Exit>>>,
    pub ended: Sender<()>,
    pub seen: Receiver<()>,
    /// Does not end when it is killed.
    pub stubborn: bool,
    /// How its next second instances end; well, when there are none left.
    pub checks: Arc<Mutex<VecDeque<Exit>>>,
}

impl FakeRun {
    fn new(stubborn: bool) -> FakeRun {
        let (ended, seen) = async_channel::bounded(1);
        FakeRun { exit: Arc::default(), ended, seen, stubborn, checks: Arc::default() }
    }
    pub fn end(&self, exit: Exit) {
        lock(&self.exit).get_or_insert(exit);
        self.ended.close();
    }
    pub fn has_ended(&self) -> bool {
        self.ended.is_closed()
    }
}

impl Running for FakeRun {
    fn kill(&self) {
        if !self.stubborn {
            self.end(Exit::Killed);
        }
    }
    fn wait(&self) -> BoxFuture<'_, Exit> {
        Box::pin(async move {
            let _ = self.seen.recv().await;
            lock(&self.exit).clone().unwrap_or(Exit::Killed)
        })
    }
    fn usage(&self) -> Usage {
        Usage { memory: 65_536, ..Usage::default() }
    }
    fn command(&self, args: Vec<String>, stdio: Stdio) -> BoxFuture<'_, Result<Box<dyn Running>, String>> {
        Box::pin(async move { self.exec(args, stdio) })
    }
    fn attach(&self, _: Wanted) -> io::Result<Ends> {
        Ok(Ends::default())
    }
    fn exec(&self, _: Vec<String>, _: Stdio) -> Result<Box<dyn Running>, String> {
        let exit = lock(&self.checks).pop_front().unwrap_or(Exit::Code(0));
        let second = FakeRun::new(false);
        second.end(exit);
        Ok(Box::new(second))
    }
}

#[derive(Default)]
pub struct FakeWorkshop {
    pub present: Mutex<bool>,
    /// What is present is only for those who have a login.
    pub private: Mutex<bool>,
    pub pulls: Mutex<usize>,
    /// What pulls were given.
    pub keyrings: Mutex<Vec<String>>,
    pub pull_errors: Mutex<VecDeque<String>>,
    /// Pulls wait while this is held.
    pub gate: async_lock::Mutex<()>,
    pub run_errors: Mutex<VecDeque<StartFailure>>,
    pub runs: Mutex<Vec<(RunSpec, FakeRun)>>,
    pub stubborn: Mutex<bool>,
    /// What is laid out for which pod, and who is told of what is refused there.
    pub volumes: Mutex<Vec<(String, Told)>>,
    /// The volumes of objects, each time that one was written.
    pub written: Mutex<Vec<String>>,
    /// Those that are there as they were last.
    pub kept_volumes: Mutex<Vec<String>>,
    /// Who was told to stop.
    pub notices: Mutex<Vec<String>>,
    pub removed_logs: Mutex<Vec<PodKey>>,
    pub kept_logs: Mutex<Vec<String>>,
    pub cleanings: Mutex<usize>,
}

fn image() -> Image {
    Image {
        id: "r/i@sha256:1".to_owned(),
        module_digest: "sha256:2".to_owned(),
        module: "/nowhere".into(),
        size: 42,
        entrypoint: Vec::new(),
        cmd: Vec::new(),
        env: vec!["FROM=image".to_owned()],
    }
}

impl Workshop for FakeWorkshop {
    fn find<'a>(
        &'a self,
        _: &'a str,
        _: &'a Reference,
        _: Use,
        keyring: &'a Keyring,
    ) -> BoxFuture<'a, Found> {
        let found = match *lock(&self.present) {
            true if *lock(&self.private) && format!("{keyring:?}") == "Keyring(0 entries)" => Found::Locked,
            true => Found::Here(image()),
            false => Found::Absent,
        };
        Box::pin(async move { found })
    }
    fn pull(
        &self,
        _: Reference,
        _: Use,
        keyring: Keyring,
    ) -> BoxFuture<'_, Result<(Image, Duration), StartFailure>> {
        Box::pin(async move {
            lock(&self.keyrings).push(format!("{keyring:?}"));
            *lock(&self.pulls) += 1;
            let _open = self.gate.lock().await;
            match lock(&self.pull_errors).pop_front() {
                Some(text) if text == "503" => {
                    Err(StartFailure::Pull { reason: REGISTRY_UNAVAILABLE, text, image: String::new() })
                }
                Some(error) => Err(StartFailure::pull(error)),
                None => Ok((image(), Duration::ZERO)),
            }
        })
    }
    fn run(&self, _: Image, spec: RunSpec) -> BoxFuture<'_, Result<Box<dyn Running>, StartFailure>> {
        Box::pin(async move {
            if let Some(error) = lock(&self.run_errors).pop_front() {
                return Err(error);
            }
            let run = FakeRun::new(*lock(&self.stubborn));
            lock(&self.runs).push((spec, run.clone()));
            let run: Box<dyn Running> = Box::new(run);
            Ok(run)
        })
    }
    fn lay_volumes(
        &self,
        uid: String,
        _: Storage,
        _: Vec<HostPath>,
        told: Told,
    ) -> BoxFuture<'_, Result<PodVolumes, MountError>> {
        lock(&self.volumes).push((uid, told));
        Box::pin(async { Ok(PodVolumes::none()) })
    }
    fn write_volume(
        &self,
        volume: ObjectVolume,
        payload: Payload,
        _: bool,
    ) -> BoxFuture<'_, io::Result<PathBuf>> {
        let text = |data: &[u8]| String::from_utf8_lossy(data).into_owned();
        let files = payload.iter().map(|(path, file)| format!("{path}={}", text(&file.data)));
        lock(&self.written).push(format!("{} {}", volume.name, files.collect::<Vec<_>>().join(" ")));
        Box::pin(async { Ok("/".into()) })
    }
    fn take_up(&self, volume: ObjectVolume) -> BoxFuture<'_, io::Result<Option<PathBuf>>> {
        let kept = lock(&self.kept_volumes).contains(&volume.name).then(|| "/".into());
        Box::pin(async { Ok(kept) })
    }
    fn lay_root(
        &self,
        _: String,
        _: String,
        _: RootFiles,
        _: Arc<PodVolumes>,
    ) -> BoxFuture<'_, io::Result<(OwnedFd, Arc<Account>)>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
    fn end_of_log(&self, _: PodKey, container: String, run: u32) -> BoxFuture<'_, Vec<u8>> {
        Box::pin(async move { format!("last lines of {container}'s run {run}").into_bytes() })
    }
    fn lay_notice(&self, _: String, _: String) -> BoxFuture<'_, io::Result<Preopen>> {
        let preopen = Preopen {
            guest: "/run/copepod".into(),
            place: Place::Folder("/".into()),
            read_only: true,
            account: None,
        };
        Box::pin(async { Ok(preopen) })
    }
    fn give_notice(&self, uid: String, container: String) -> BoxFuture<'_, io::Result<()>> {
        lock(&self.notices).push(format!("{uid} {container}"));
        Box::pin(async { Ok(()) })
    }
    fn remove_volumes(&self, uid: String) -> BoxFuture<'_, io::Result<()>> {
        lock(&self.volumes).retain(|(laid, _)| *laid != uid);
        Box::pin(async { Ok(()) })
    }
    fn remove_logs(&self, pod: PodKey) -> BoxFuture<'_, io::Result<()>> {
        lock(&self.removed_logs).push(pod);
        Box::pin(async { Ok(()) })
    }
    fn remove_others(&self, keep: Keep) -> BoxFuture<'_, io::Result<()>> {
        *lock(&self.kept_logs) =
            ["u", "long-gone"].into_iter().filter(|uid| keep(uid)).map(str::to_owned).collect();
        *lock(&self.cleanings) += 1;
        Box::pin(async { Ok(()) })
    }
}

#[derive(Default)]
pub struct FakeClock {
    pub seconds: Mutex<u64>,
    pub waiting: Mutex<Vec<(Duration, Sender<()>)>>,
}

impl FakeClock {
    pub fn advance(&self, seconds: u64) {
        *lock(&self.seconds) += seconds;
        let now = self.now().mono;
        lock(&self.waiting).retain(|(at, sender)| *at > now || !sender.close());
    }
    /// Somebody waits for a moment to come within so many seconds.
    pub fn is_awaited(&self, seconds: u64) -> bool {
        let now = self.now().mono;
        let soon = now + Duration::from_secs(seconds);
        lock(&self.waiting).iter().any(|(at, sender)| *at > now && *at <= soon && !sender.is_closed())
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Now {
        samples::at(*lock(&self.seconds))
    }
    fn until(&self, mono: Duration) -> BoxFuture<'static, ()> {
        let (sender, receiver) = async_channel::bounded(1);
        if mono <= self.now().mono {
            sender.close();
        }
        lock(&self.waiting).push((mono, sender));
        Box::pin(async move {
            let _ = receiver.recv().await;
        })
    }
}

pub struct Bed {
    pub api: Arc<FakeApi>,
    pub workshop: Arc<FakeWorkshop>,
    pub clock: Arc<FakeClock>,
    pub supervisor: Supervisor,
}

impl Bed {
    fn new(checkpoints: Checkpoints) -> Bed {
        let (api, workshop, clock) =
            (Arc::<FakeApi>::default(), Arc::<FakeWorkshop>::default(), Arc::<FakeClock>::default());
        let supervisor = Supervisor::new(Setup {
            deaths: Arc::default(),
            storage: Defaults { bytes: 1 << 20, files: 100, memory: 1 << 20 },
            secrets_at_rest: true,
            checkpoints,
            awaited: Awaited { cluster: true, folder: false },
            api: api.clone(),
            workshop: workshop.clone(),
            clock: clock.clone(),
            node: samples::node(),
            keyring: Keyring::default(),
        });
        Bed { api, workshop, clock, supervisor }
    }

    pub fn apply(&self, pod: Pod) {
        self.supervisor.handle(PodEvent::Applied(Box::new(pod)));
    }

    /// Lets all tasks go on until this holds.
    pub async fn until(&self, what: &str, holds: impl Fn(&Bed) -> bool) {
        let begun = std::time::Instant::now();
        while begun.elapsed() < PATIENCE {
            if holds(self) {
                return;
            }
            yield_now().await;
        }
        let (events, status) = (lock(&self.api.events).clone(), lock(&self.api.statuses).last().cloned());
        panic!("never came: {what}; events {events:#?}, last status {status:#?}");
    }

    /// Lets all tasks go on until somebody waits for a moment within so many seconds, and lets them pass.
    pub async fn pass(&self, seconds: u64) {
        self.until("a wait", |bed| bed.clock.is_awaited(seconds)).await;
        self.clock.advance(seconds);
    }

    /// Lets all tasks go on, most likely until there is nothing left to do.
    pub async fn rest(&self) {
        for _ in 0..1000 {
            yield_now().await;
        }
    }

    pub fn phase(&self) -> String {
        lock(&self.api.statuses).last().map(|status| status.phase.clone()).unwrap_or_default()
    }

    pub fn waiting(&self) -> String {
        let statuses = lock(&self.api.statuses);
        let state = statuses.last().and_then(|s| s.container_statuses.first()).map(|c| c.state.clone());
        state.and_then(|state| state.waiting).map(|waiting| waiting.reason).unwrap_or_default()
    }

    /// Waits until run number `count`, counted from 1, is reported as running.
    pub async fn running(&self, count: usize) -> FakeRun {
        let runs = |status: &PodStatus| {
            let container = status.container_statuses.first();
            container.is_some_and(|c| c.state.running.is_some() && c.restart_count as usize + 1 == count)
        };
        self.until("a run", |bed| lock(&bed.api.statuses).last().is_some_and(runs)).await;
        lock(&self.workshop.runs).last().unwrap().1.clone()
    }

    pub fn events(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.api.events))
    }
}

pub fn play<F: Future<Output = ()>>(story: impl FnOnce(Bed) -> F) {
    play_on(Checkpoints::default(), story);
}

/// On a node that writes its pods down.
pub fn play_on<F: Future<Output = ()>>(checkpoints: Checkpoints, story: impl FnOnce(Bed) -> F) {
    let _one = lock(&ONE);
    control::run(async {
        let bed = Bed::new(checkpoints);
        let (supervisor, api) = (bed.supervisor.clone(), bed.api.clone());
        story(bed).await;
        *lock(&api.echo) = None;
        assert!(lock(&api.refused).is_empty(), "422: {:?}", lock(&api.refused));
        supervisor.shutdown(Duration::ZERO).await;
    });
}

pub fn deleted(mut pod: Pod, grace: i64) -> Pod {
    pod.metadata.deletion_timestamp = Some(samples::at(0).wall.into());
    pod.metadata.deletion_grace_period_seconds = Some(grace);
    pod
}

pub fn gone() -> PodEvent {
    PodEvent::Deleted { uid: "u".to_owned() }
}
