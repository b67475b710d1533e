//! The agent dies, and its next life takes up what was written down.

use super::bed::{deleted, gone, play_on, Bed};
use super::*;
use crate::image::REGISTRY_UNAVAILABLE;
use std::fs;
use std::path::PathBuf;

/// A folder of checkpoints that outlives the agents of a story.
struct Disk(PathBuf);

impl Disk {
    fn new() -> Disk {
        Disk(std::env::temp_dir().join(format!("copepod-restarts-{:x}", fastrand::u64(..))))
    }

    fn open(&self) -> Checkpoints {
        Checkpoints::open(&self.0).unwrap()
    }

    fn files(&self) -> usize {
        fs::read_dir(&self.0).unwrap().count()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The source of pods shows that there are these.
fn all(bed: &Bed, pods: &[Pod]) {
    bed.supervisor.handle(PodEvent::Set(pods.to_vec()));
}

fn restarts(bed: &Bed) -> i32 {
    bed.supervisor.pods()[0].status.container_statuses[0].restart_count
}

#[test]
fn what_ran_runs_again_without_an_api_server_and_tells_when_it_is_back() {
    let disk = Disk::new();
    let pod =
        samples::pod(&json!({"containers": [{"name": "c", "image": "i:1", "imagePullPolicy": "IfNotPresent",
        "envFrom": [{"secretRef": {"name": "s"}}]}], "imagePullSecrets": [{"name": "login"}]}));
    play_on(disk.open(), |bed| async move {
        let mut secret = Secret::default();
        secret.data.insert("KEY".to_owned(), ByteString(b"value".to_vec()));
        lock(&bed.api.secrets).insert("s".to_owned(), secret);
        let mut login = Secret::default();
        let config = br#"{"auths":{"docker.io":{"username":"u","password":"p"}}}"#;
        login.data.insert(".dockerconfigjson".to_owned(), ByteString(config.to_vec()));
        lock(&bed.api.secrets).insert("login".to_owned(), login);
        bed.apply(pod);
        bed.running(1).await;
    });
    assert_eq!(disk.files(), 1);
    let shown = samples::pod(&json!({}));
    play_on(disk.open(), |bed| async move {
        *lock(&bed.api.away) = true;
        *lock(&bed.workshop.present) = true;
        *lock(&bed.workshop.private) = true;
        bed.supervisor.resume().await;
        bed.until("a run", |bed| lock(&bed.workshop.runs).len() == 1).await;
        let spec = lock(&bed.workshop.runs)[0].0.clone();
        assert!(spec.env.contains(&("KEY".to_owned(), "value".to_owned())));
        assert_eq!(spec.run, 1, "its log is another one");
        bed.until("the count", |bed| restarts(bed) == 1).await;
        bed.rest().await;
        assert!(lock(&bed.api.patches).is_empty(), "nobody has shown it yet");
        all(&bed, &[shown]);
        bed.until("the report", |bed| bed.phase() == "Running").await;
        let last = lock(&bed.api.statuses).last().cloned().unwrap().container_statuses[0].last_state.clone();
        assert_eq!(last.terminated.unwrap().reason, "ContainerStatusUnknown");
    });
}

#[test]
fn an_image_that_ran_before_runs_again_when_its_registry_cannot_be_asked_for_a_newer_one() {
    let disk = Disk::new();
    let always = json!({"containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always"}]});
    let mut other = samples::pod(&always);
    "v".clone_into(&mut other.metadata.uid);
    let pod = samples::pod(&always);
    play_on(disk.open(), |bed| async move {
        bed.apply(pod);
        bed.running(1).await;
    });
    play_on(disk.open(), |bed| async move {
        *lock(&bed.workshop.present) = true;
        lock(&bed.workshop.pull_errors).extend(["503".to_owned(), "503".to_owned()]);
        bed.supervisor.resume().await;
        bed.until("a run", |bed| lock(&bed.workshop.runs).len() == 1).await;
        let told = bed.events();
        let expected = "spec.containers{c} Failed: Failed to pull image \"i\": 503";
        assert!(told.contains(&expected.to_owned()), "{told:?}");
        // A pod that never had it has to wait, whoever else has.
        bed.apply(other);
        bed.until("the reason", |bed| bed.waiting() == REGISTRY_UNAVAILABLE).await;
        assert_eq!(lock(&bed.workshop.runs).len(), 1);
    });
}

#[test]
fn what_was_deleted_meanwhile_ends_at_the_first_list_and_leaves_nothing() {
    let disk = Disk::new();
    play_on(disk.open(), |bed| async move {
        bed.apply(samples::pod(&json!({})));
        bed.running(1).await;
    });
    let folder = disk.0.clone();
    play_on(disk.open(), |bed| async move {
        bed.supervisor.resume().await;
        bed.until("a run", |bed| lock(&bed.workshop.runs).len() == 1).await;
        all(&bed, &[]);
        bed.until("its end", |bed| lock(&bed.workshop.runs)[0].1.has_ended()).await;
        bed.until("the logs to go", |bed| lock(&bed.workshop.removed_logs).len() == 1).await;
        bed.until("the file to go", |_| fs::read_dir(&folder).unwrap().count() == 0).await;
        assert!(lock(&bed.api.patches).is_empty() && lock(&bed.api.deletes).is_empty());
    });
}

#[test]
fn what_runs_once_is_written_down_before_it_runs_and_before_its_end_is_told() {
    let disk = Disk::new();
    let folder = disk.0.clone();
    let written = move || {
        let entry = fs::read_dir(&folder).unwrap().next();
        entry.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).unwrap_or_default()
    };
    let pod = samples::pod(&json!({"restartPolicy": "Never"}));
    play_on(disk.open(), |bed| async move {
        bed.apply(pod);
        let run = bed.running(1).await;
        assert!(written().contains("\"Running\":{"), "{}", written());
        run.end(Exit::Code(4));
        bed.until("the end", |bed| bed.phase() == "Failed").await;
        assert!(written().contains("\"exitCode\":4"), "{}", written());
    });
    // The API server never heard of the end: it shows a pod that runs.
    let shown = samples::pod(&json!({"restartPolicy": "Never"}));
    play_on(disk.open(), |bed| async move {
        bed.supervisor.resume().await;
        all(&bed, std::slice::from_ref(&shown));
        bed.until("the end", |bed| bed.phase() == "Failed").await;
        let status = lock(&bed.api.statuses).last().cloned().unwrap();
        assert_eq!(status.container_statuses[0].state.terminated.clone().unwrap().exit_code, 4);
        assert!(lock(&bed.workshop.runs).is_empty());
        bed.apply(deleted(shown, 30));
        bed.until("the final delete", |bed| !lock(&bed.api.deletes).is_empty()).await;
        bed.supervisor.handle(gone());
        bed.until("the pod to go", |bed| bed.supervisor.pods().is_empty()).await;
    });
    assert_eq!(disk.files(), 0);
}

#[test]
fn a_mirror_of_a_pod_that_is_no_static_one_says_nothing_of_it() {
    play_on(Checkpoints::default(), |bed| async move {
        bed.apply(samples::pod(&json!({})));
        bed.running(1).await;
        let status = PodStatus { phase: "Failed".to_owned(), ..PodStatus::default() };
        let patches = lock(&bed.api.patches).len();
        bed.supervisor.handle(PodEvent::Mirrored { uid: "u".to_owned(), status: Box::new(status) });
        bed.rest().await;
        assert_eq!(lock(&bed.api.patches).len(), patches, "nothing is told anew");
        assert_eq!(bed.supervisor.pods()[0].status.phase, "Running");
    });
}

#[test]
fn a_disk_that_takes_nothing_stops_no_pod() {
    let disk = Disk::new();
    let checkpoints = disk.open();
    fs::remove_dir(&disk.0).unwrap();
    play_on(checkpoints, |bed| async move {
        bed.apply(samples::pod(&json!({})));
        bed.running(1).await.end(Exit::Code(0));
        bed.running(2).await;
    });
}

#[test]
fn a_file_that_is_damaged_is_passed_over() {
    let disk = Disk::new();
    let checkpoints = disk.open();
    checkpoints.write("broken", b"{\"version\":1,\"at\"").unwrap();
    let folder = disk.0.clone();
    play_on(checkpoints, |bed| async move {
        bed.supervisor.resume().await;
        assert!(bed.supervisor.pods().is_empty());
        all(&bed, &[samples::pod(&json!({}))]);
        bed.running(1).await;
        bed.until("the file to go", |_| !folder.join("broken").exists()).await;
    });
}
