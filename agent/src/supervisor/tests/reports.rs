//! What the API server is told of a pod, and when.

use super::bed::{deleted, gone, play};
use super::*;

#[test]
fn everything_goes_on_while_the_api_server_is_away() {
    play(|bed| async move {
        let away = || ApiFailure::Unavailable("connection refused".to_owned());
        lock(&bed.api.answers).extend([away(), away(), away()]);
        bed.apply(samples::pod(&json!({"restartPolicy": "Never"})));
        bed.until("a run", |bed| lock(&bed.workshop.runs).len() == 1).await;
        lock(&bed.workshop.runs)[0].1.end(Exit::Code(0));
        bed.until("the end", |bed| bed.supervisor.pods()[0].status.phase == "Succeeded").await;
        assert_eq!(lock(&bed.api.patches).len(), 1, "not asked again at once");
        for count in 2..=4 {
            bed.pass(40).await;
            bed.until("a patch", |bed| lock(&bed.api.patches).len() == count).await;
        }
        bed.until("the report", |bed| bed.phase() == "Succeeded").await;
        assert_eq!(lock(&bed.api.patches).len(), 4);
    });
}

#[test]
fn a_status_that_is_refused_is_not_sent_again() {
    play(|bed| async move {
        lock(&bed.api.answers).push_back(ApiFailure::Invalid("no".to_owned()));
        *lock(&bed.workshop.present) = true;
        let gate = bed.workshop.gate.lock().await;
        bed.apply(samples::pod(
            &json!({"containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always"}]}),
        ));
        bed.until("the refusal", |bed| lock(&bed.api.patches).len() == 1).await;
        bed.clock.advance(1000);
        bed.rest().await;
        assert_eq!(lock(&bed.api.patches).len(), 1);
        drop(gate);
        bed.running(1).await;
        assert_eq!(lock(&bed.api.patches).len(), 2, "but what is new is");
    });
}

#[test]
fn a_forbidden_status_is_tried_each_minute() {
    play(|bed| async move {
        lock(&bed.api.answers).push_back(ApiFailure::Forbidden("no".to_owned()));
        bed.apply(samples::pod(&json!({})));
        bed.until("a run", |bed| lock(&bed.workshop.runs).len() == 1).await;
        bed.until("the wait", |bed| bed.clock.is_awaited(75)).await;
        bed.clock.advance(30);
        bed.rest().await;
        assert_eq!(lock(&bed.api.patches).len(), 1);
        bed.clock.advance(60);
        bed.until("the report", |bed| bed.phase() == "Running").await;
    });
}

#[test]
fn a_pod_that_the_api_server_does_not_know_is_not_patched_again_until_it_is_seen() {
    play(|bed| async move {
        lock(&bed.api.answers).push_back(ApiFailure::NotFound("gone".to_owned()));
        let mut pod = samples::pod(&json!({}));
        bed.apply(pod.clone());
        bed.until("a run", |bed| lock(&bed.workshop.runs).len() == 1).await;
        bed.clock.advance(1000);
        bed.rest().await;
        assert_eq!(lock(&bed.api.patches).len(), 1);
        "2".clone_into(&mut pod.metadata.resource_version);
        bed.apply(pod);
        bed.until("the report", |bed| bed.phase() == "Running").await;
    });
}

#[test]
fn a_conflict_of_writers_is_tried_again_and_settles_nothing() {
    play(|bed| async move {
        let changed = || ApiFailure::Conflict("409 the object has been modified".to_owned());
        let pod = samples::pod(&json!({"restartPolicy": "Never"}));
        bed.apply(pod.clone());
        let run = bed.running(1).await;
        let patches = lock(&bed.api.patches).len();
        lock(&bed.api.answers).push_back(changed());
        run.end(Exit::Code(0));
        bed.until("a patch", |bed| lock(&bed.api.patches).len() == patches + 1).await;
        bed.apply(deleted(pod, 30));
        bed.rest().await;
        assert!(lock(&bed.api.deletes).is_empty(), "the final phase has not been taken yet");
        lock(&bed.api.answers).push_back(changed());
        bed.pass(2).await;
        bed.until("another patch", |bed| lock(&bed.api.patches).len() == patches + 2).await;
        bed.pass(3).await;
        bed.until("the report", |bed| bed.phase() == "Succeeded").await;
        bed.until("the final delete", |bed| lock(&bed.api.deletes).len() == 1).await;
    });
}

#[test]
fn a_pod_whose_name_another_has_is_not_over_before_the_watch_says_so() {
    play(|bed| async move {
        let text = "409 Precondition failed: UID in precondition: u, UID in object meta: v";
        lock(&bed.api.answers).push_back(ApiFailure::Conflict(text.to_owned()));
        let mut pod = samples::pod(&json!({}));
        bed.apply(pod.clone());
        bed.until("a patch", |bed| lock(&bed.api.patches).len() == 1).await;
        bed.until("a run", |bed| lock(&bed.workshop.runs).len() == 1).await;
        "2".clone_into(&mut pod.metadata.resource_version);
        pod = deleted(pod, 30);
        lock(&bed.api.answers).push_back(ApiFailure::Unavailable("away".to_owned()));
        bed.apply(pod);
        bed.until("another patch", |bed| lock(&bed.api.patches).len() == 2).await;
        bed.rest().await;
        assert!(lock(&bed.api.deletes).is_empty(), "no final phase has been shown or refused");
        bed.supervisor.handle(gone());
        bed.until("the logs to go", |bed| lock(&bed.workshop.removed_logs).len() == 1).await;
    });
}

#[test]
fn the_final_delete_is_retried_while_the_api_server_is_away() {
    play(|bed| async move {
        let pod = samples::pod(&json!({"restartPolicy": "Never"}));
        bed.apply(pod.clone());
        bed.running(1).await.end(Exit::Code(0));
        bed.until("the end", |bed| bed.phase() == "Succeeded").await;
        lock(&bed.api.answers).push_back(ApiFailure::Unavailable("away".to_owned()));
        bed.apply(deleted(pod, 30));
        bed.until("a delete", |bed| lock(&bed.api.deletes).len() == 1).await;
        bed.rest().await;
        assert_eq!(lock(&bed.api.deletes).len(), 1);
        bed.pass(2).await;
        bed.until("another delete", |bed| lock(&bed.api.deletes).len() == 2).await;
        bed.clock.advance(1000);
        bed.rest().await;
        assert_eq!(lock(&bed.api.deletes).len(), 2);
    });
}

#[test]
fn a_condition_that_somebody_else_changed_is_set_right_after_a_while() {
    play(|bed| async move {
        let mut pod = samples::pod(&json!({}));
        "1".clone_into(&mut pod.metadata.resource_version);
        bed.apply(pod.clone());
        bed.running(1).await;
        let patches = lock(&bed.api.patches).len();
        pod.status = bed.supervisor.pods()[0].status.clone();
        "2".clone_into(&mut pod.metadata.resource_version);
        bed.apply(pod.clone());
        bed.clock.advance(100);
        bed.rest().await;
        assert_eq!(lock(&bed.api.patches).len(), patches, "its own echo is no news");

        let ready = pod.status.conditions.iter_mut().find(|condition| condition.kind == "Ready").unwrap();
        ready.status = "False".into();
        "3".clone_into(&mut pod.metadata.resource_version);
        bed.apply(pod);
        bed.until("the wait", |bed| bed.clock.is_awaited(10)).await;
        bed.clock.advance(9);
        bed.rest().await;
        assert_eq!(lock(&bed.api.patches).len(), patches, "an older version may only be late");
        bed.clock.advance(1);
        bed.until("a patch", |bed| lock(&bed.api.patches).len() == patches + 1).await;
        let patch = lock(&bed.api.patches).last().cloned().unwrap();
        assert_eq!(patch["status"]["conditions"][0]["type"], "Ready");
        assert_eq!(patch["status"]["conditions"][0]["status"], "True");
        assert_eq!(patch["status"].as_object().unwrap().len(), 1, "{patch}");
    });
}

#[test]
fn what_the_api_server_echoes_is_no_news() {
    play(|bed| async move {
        *lock(&bed.api.echo) = Some(bed.supervisor.clone());
        bed.apply(samples::pod(&json!({"restartPolicy": "OnFailure"})));
        bed.running(1).await.end(Exit::Code(1));
        bed.running(2).await.end(Exit::Code(0));
        bed.until("the end", |bed| bed.phase() == "Succeeded").await;
        bed.rest().await;
        let patches = lock(&bed.api.patches).len();
        let version = |bed: &Bed| bed.supervisor.pods()[0].metadata.resource_version.clone();
        assert_eq!(version(&bed), patches.to_string(), "each was taken and echoed");
        bed.clock.advance(1000);
        bed.rest().await;
        assert_eq!((lock(&bed.api.patches).len(), version(&bed)), (patches, patches.to_string()));
        let statuses = lock(&bed.api.statuses);
        assert!(statuses.windows(2).all(|pair| pair[0] != pair[1]), "none is told twice");
    });
}
