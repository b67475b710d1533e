//! Volumes of objects: made before the first start, kept as their objects are, and probes beside them.

use super::bed::{play, Bed};
use super::*;
use crate::pod::happening::STOPPED;

/// A pod whose one container mounts this volume.
fn mounts(volume: serde_json::Value) -> Pod {
    let mut volume = volume;
    volume["name"] = json!("v");
    samples::pod(&json!({
        "serviceAccountName": "sa",
        "containers": [{"name": "c", "image": "i:1", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [volume],
    }))
}

fn put_map(bed: &Bed, name: &str, value: &str, immutable: bool) {
    let map = json!({"data": {"key": value}, "immutable": immutable});
    lock(&bed.api.config_maps).insert(name.to_owned(), serde_json::from_value(map).unwrap());
}

fn written(bed: &Bed) -> Vec<String> {
    lock(&bed.workshop.written).clone()
}

fn token(text: &str) -> Result<Token, ApiFailure> {
    Ok(Token { text: text.to_owned(), life: Duration::from_secs(1000) })
}

fn away() -> ApiFailure {
    ApiFailure::Unavailable("connection refused".to_owned())
}

#[test]
fn a_volume_that_cannot_be_made_is_told_of_and_tried_again() {
    play(|bed| async move {
        bed.apply(mounts(json!({"configMap": {"name": "m"}})));
        let told = "FailedMount: MountVolume.SetUp failed for volume \"v\" : configmap \"m\" not found";
        bed.until("the event", |bed| lock(&bed.api.events).iter().any(|event| event == told)).await;
        bed.until("the status", |bed| bed.waiting() == "ContainerCreating").await;
        assert!(lock(&bed.workshop.runs).is_empty());
        put_map(&bed, "m", "1", false);
        bed.pass(1).await;
        bed.running(1).await;
        assert_eq!(written(&bed), ["v key=1"]);
    });
}

#[test]
fn a_change_is_written_once_and_what_never_changes_is_not_followed() {
    play(|bed| async move {
        put_map(&bed, "m", "1", false);
        bed.apply(mounts(json!({"configMap": {"name": "m"}})));
        bed.running(1).await;
        assert_eq!(bed.api.followed(), 1);
        bed.api.signal();
        bed.rest().await;
        put_map(&bed, "m", "2", false);
        bed.api.signal();
        bed.until("the new value", |bed| written(bed) == ["v key=1", "v key=2"]).await;
        // While it cannot be read, it stays as it is.
        *lock(&bed.api.away) = true;
        bed.api.signal();
        bed.rest().await;
        *lock(&bed.api.away) = false;
        put_map(&bed, "m", "3", true);
        bed.api.signal();
        bed.until("the last value", |bed| written(bed).len() == 3).await;
        assert_eq!(bed.api.followed(), 0, "it is immutable by now");
    });
}

#[test]
fn a_pod_that_goes_follows_nothing_any_more() {
    play(|bed| async move {
        put_map(&bed, "m", "1", false);
        bed.apply(mounts(json!({"configMap": {"name": "m"}})));
        bed.running(1).await;
        bed.supervisor.handle(PodEvent::Deleted { uid: "u".to_owned() });
        bed.until("the end", |bed| bed.supervisor.pods().is_empty()).await;
        bed.until("nothing to be followed", |bed| bed.api.followed() == 0).await;
    });
}

#[test]
fn a_token_is_renewed_in_time_and_kept_while_nobody_gives_another() {
    let volume =
        json!({"projected": {"sources": [{"serviceAccountToken": {"path": "token", "audience": "a"}}]}});
    play(|bed| async move {
        lock(&bed.api.tokens).extend([token("first"), token("second"), Err(away()), token("third")]);
        bed.apply(mounts(volume));
        bed.running(1).await;
        assert_eq!(written(&bed), ["v token=first"]);
        assert_eq!(*lock(&bed.api.asked_tokens), ["sa a"]);
        // At four fifths of its life, or ten seconds earlier.
        bed.clock.advance(789);
        bed.rest().await;
        assert_eq!(written(&bed).len(), 1);
        bed.pass(11).await;
        bed.until("the second", |bed| written(bed).last().is_some_and(|last| last == "v token=second")).await;
        bed.pass(800).await;
        bed.until("a third question", |bed| lock(&bed.api.asked_tokens).len() == 3).await;
        bed.rest().await;
        assert_eq!(written(&bed).len(), 2, "the old one holds");
        bed.pass(60).await;
        bed.until("the third", |bed| written(bed).last().is_some_and(|last| last == "v token=third")).await;
    });
}

#[test]
fn without_an_api_server_a_volume_is_as_it_was_last() {
    play(|bed| async move {
        *lock(&bed.api.away) = true;
        let kept = mounts(json!({"secret": {"secretName": "s"}}));
        lock(&bed.workshop.kept_volumes).push("v".to_owned());
        bed.apply(kept);
        bed.running(1).await;
        assert!(written(&bed).is_empty());
        // Nothing of it was kept of this one.
        let mut other = mounts(json!({"secret": {"secretName": "s"}}));
        other.metadata.uid = "other".to_owned();
        lock(&bed.workshop.kept_volumes).clear();
        bed.apply(other);
        bed.until("the event", |bed| {
            let events = lock(&bed.api.events);
            events.iter().any(|event| event.ends_with("couldn't get secret ns/s: connection refused"))
        })
        .await;
        *lock(&bed.api.away) = false;
        lock(&bed.api.secrets).insert("s".to_owned(), Secret::default());
        bed.pass(1).await;
        bed.until("both", |bed| lock(&bed.workshop.runs).len() == 2).await;
    });
}

#[test]
fn the_end_of_a_log_stands_in_for_a_message_if_the_container_says_so() {
    let container =
        json!([{"name": "c", "image": "i:1", "terminationMessagePolicy": "FallbackToLogsOnError"}]);
    for (code, message) in [(0, ""), (3, "last lines of c's run 0")] {
        let pod = samples::pod(&json!({"restartPolicy": "Never", "containers": container}));
        play(|bed| async move {
            bed.apply(pod);
            bed.running(1).await.end(Exit::Code(code));
            bed.until("its end", |bed| bed.phase() == if code == 0 { "Succeeded" } else { "Failed" }).await;
            let status = lock(&bed.api.statuses).last().cloned().unwrap();
            assert_eq!(status.container_statuses[0].state.terminated.clone().unwrap().message, message);
        });
    }
}

#[test]
fn a_container_is_probed_while_it_runs_and_ended_when_its_probe_says_so() {
    let probe = json!({"exec": {"command": ["check"]}, "periodSeconds": 5, "failureThreshold": 2});
    let pod = samples::pod(&json!({"containers": [{"name": "c", "image": "i:1", "livenessProbe": probe}]}));
    play(|bed| async move {
        bed.apply(pod);
        let run = bed.running(1).await;
        lock(&run.checks).extend([Exit::Code(0), Exit::Code(1), Exit::Code(1)]);
        // The first comes within a second and, as the agent has just begun, a period.
        for left in [2, 1, 0] {
            bed.pass(6).await;
            bed.until("a probe", |_| lock(&run.checks).len() <= left).await;
        }
        bed.until("its end", |_| run.has_ended()).await;
        let events = lock(&bed.api.events).clone();
        let failed =
            events.iter().filter(|event| event.contains("Unhealthy: Liveness probe failed: exit code 1"));
        assert_eq!(failed.count(), 2, "{events:#?}");
        bed.running(2).await;
        let status = lock(&bed.api.statuses).last().cloned().unwrap().container_statuses[0].clone();
        assert_eq!(status.last_state.terminated.unwrap().exit_code, STOPPED);
    });
}
