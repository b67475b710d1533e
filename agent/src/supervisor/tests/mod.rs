//! Pods from the first sight to the final delete.

mod bed;
mod images;
mod reports;
mod restarts;
mod validation;
mod volumes;

use self::bed::{deleted, gone, play, Bed};
use super::*;
use crate::api::{ByteString, ConfigMap, Secret};
use crate::pod::happening::{KILLED, STOPPED};
use crate::pod::lifecycle::StartFailure;
use crate::pod::samples;
use crate::pod::storage::Exceeded;
use crate::runtime::Exit;
use serde_json::{json, Value};

#[test]
fn a_pod_is_pulled_started_reported_and_deleted() {
    play(|bed| async move {
        let pod =
            samples::pod(&json!({"containers": [{"name": "c", "image": "host/x/i:1", "args": ["$(FOO)"],
            "env": [{"name": "FOO", "value": "bar"}], "resources": {"limits": {"memory": "1Mi"}}}]}));
        bed.apply(pod.clone());
        bed.running(1).await;
        assert_eq!(
            bed.events(),
            [
                "spec.containers{c} Pulling: Pulling image \"host/x/i:1\"",
                "spec.containers{c} Pulled: Successfully pulled image \"host/x/i:1\" in 0s (0s including waiting). \
                    Image size: 42 bytes.",
                "spec.containers{c} Created: Container created",
                "spec.containers{c} Started: Container started",
            ]
        );
        let spec = lock(&bed.workshop.runs)[0].0.clone();
        assert_eq!(spec.args, ["i", "bar"]);
        assert_eq!(spec.env, [("FROM".to_owned(), "image".to_owned()), ("FOO".to_owned(), "bar".to_owned())]);
        assert_eq!((spec.memory, spec.run), (Some(1_048_576), 0));
        let shown = bed.supervisor.pods();
        let container = &shown[0].status.container_statuses[0];
        assert!(container.container_id.starts_with("copepod://"), "{}", container.container_id);
        assert_eq!(container.image_id, "r/i@sha256:1");
        assert_eq!(bed.supervisor.figures()[0].containers[0].used.memory, 65_536);

        bed.apply(deleted(pod, 30));
        bed.until("the final delete", |bed| !lock(&bed.api.deletes).is_empty()).await;
        let status = lock(&bed.api.statuses).last().cloned().unwrap();
        assert_eq!(status.phase, "Failed");
        let end = status.container_statuses[0].state.terminated.clone().unwrap();
        assert_eq!((end.exit_code, end.reason.as_str()), (STOPPED, "Error"));
        assert_eq!(bed.events(), ["spec.containers{c} Killing: Stopping container c"]);
        bed.rest().await;
        assert_eq!(lock(&bed.api.deletes).len(), 1, "a finalizer may keep the object: asked once");
        bed.supervisor.handle(gone());
        bed.until("the logs to go", |bed| lock(&bed.workshop.removed_logs).len() == 1).await;
        assert!(bed.supervisor.pods().is_empty());
    });
}

#[test]
fn a_job_that_succeeds_is_over_and_stays_so() {
    play(|bed| async move {
        bed.apply(samples::pod(&json!({"restartPolicy": "Never"})));
        let run = bed.running(1).await;
        run.end(Exit::Code(0));
        bed.until("the end", |bed| bed.phase() == "Succeeded").await;
        assert_eq!(bed.supervisor.outcome("u").await.unwrap().phase, "Succeeded");
        let patches = lock(&bed.api.patches).len();
        bed.clock.advance(100_000);
        bed.rest().await;
        assert_eq!((lock(&bed.workshop.runs).len(), lock(&bed.api.patches).len()), (1, patches));
    });
}

#[test]
fn a_crash_loop_waits_on_the_clock() {
    play(|bed| async move {
        bed.apply(samples::pod(&json!({})));
        bed.running(1).await.end(Exit::Code(1));
        bed.running(2).await.end(Exit::Trap("unreachable".to_owned()));
        bed.until("the back-off", |bed| bed.waiting() == "CrashLoopBackOff").await;
        bed.clock.advance(9);
        bed.rest().await;
        assert_eq!(lock(&bed.workshop.runs).len(), 2);
        bed.clock.advance(1);
        bed.running(3).await;
        let spec = lock(&bed.workshop.runs)[2].0.clone();
        assert_eq!(spec.run, 2, "each run has its own log");
        let status = bed.supervisor.pods()[0].status.clone();
        assert_eq!(status.container_statuses[0].restart_count, 2);
        let last = status.container_statuses[0].last_state.terminated.clone().unwrap();
        assert_eq!((last.exit_code, last.message.as_str()), (134, "unreachable"));
        let target = bed.supervisor.log("ns", "p", "c", true).unwrap();
        assert_eq!((target.pod.uid.as_str(), target.container.as_str(), target.run), ("u", "c", 1));
        let target = bed.supervisor.log("ns", "p", "c", false).unwrap();
        assert_eq!((target.run, target.running), (2, true));
        assert!(bed.supervisor.log("ns", "q", "c", false).is_err());
    });
}

#[test]
fn a_missing_config_map_is_waited_for() {
    play(|bed| async move {
        bed.apply(samples::pod(&json!({"containers": [{"name": "c", "image": "i:1",
            "envFrom": [{"configMapRef": {"name": "m"}}]}]})));
        bed.until("the reason", |bed| bed.waiting() == "CreateContainerConfigError").await;
        assert!(bed
            .events()
            .contains(&"spec.containers{c} Failed: Error: configmap \"m\" not found".to_owned()));
        let mut map = ConfigMap::default();
        map.data.insert("k".to_owned(), "v".to_owned());
        lock(&bed.api.config_maps).insert("m".to_owned(), map);
        bed.clock.advance(10);
        bed.running(1).await;
        assert!(lock(&bed.workshop.runs)[0].0.env.contains(&("k".to_owned(), "v".to_owned())));
    });
}

#[test]
fn a_module_that_cannot_run_fails_a_pod_that_never_restarts() {
    play(|bed| async move {
        lock(&bed.workshop.run_errors).push_back(StartFailure::Run("bad magic".to_owned()));
        bed.apply(samples::pod(&json!({"restartPolicy": "Never"})));
        bed.until("the end", |bed| bed.phase() == "Failed").await;
        assert!(bed.events().contains(&"spec.containers{c} Failed: Error: bad magic".to_owned()));
    });
}

#[test]
fn a_pod_missing_from_a_set_is_killed_and_one_not_yet_in_a_set_is_not() {
    play(|bed| async move {
        let mut pod = samples::pod(&json!({}));
        pod.metadata.annotations.insert("copepod/wait-for-grace".to_owned(), "true".to_owned());
        bed.apply(pod.clone());
        let run = bed.running(1).await;
        bed.supervisor.handle(PodEvent::Set(vec![pod]));
        bed.rest().await;
        assert!(!run.has_ended());
        let patches = lock(&bed.api.patches).len();
        bed.supervisor.handle(PodEvent::Set(Vec::new()));
        bed.until("the logs to go", |bed| lock(&bed.workshop.removed_logs).len() == 1).await;
        assert!(run.has_ended());
        assert_eq!(lock(&bed.api.patches).len(), patches, "nobody is there to be told");
        assert!(lock(&bed.api.deletes).is_empty());
    });
}

#[test]
fn a_start_that_is_given_up_leaves_no_run() {
    play(|bed| async move {
        let gate = bed.workshop.gate.lock().await;
        let pod = samples::pod(&json!({}));
        bed.apply(pod.clone());
        bed.until("the pull", |bed| *lock(&bed.workshop.pulls) == 1).await;
        bed.apply(deleted(pod, 30));
        bed.until("the final delete", |bed| lock(&bed.api.deletes).len() == 1).await;
        drop(gate);
        bed.rest().await;
        assert!(lock(&bed.workshop.runs).is_empty());
        assert_eq!(bed.phase(), "Failed");
    });
}

#[test]
fn an_annotated_pod_ends_at_the_end_of_its_grace() {
    play(|bed| async move {
        let mut pod = samples::pod(&json!({}));
        pod.metadata.annotations.insert("copepod/wait-for-grace".to_owned(), "true".to_owned());
        bed.apply(pod.clone());
        let run = bed.running(1).await;
        bed.apply(deleted(pod, 30));
        bed.until("the stop", |bed| bed.clock.is_awaited(30)).await;
        bed.clock.advance(29);
        bed.rest().await;
        assert!(!run.has_ended());
        bed.clock.advance(1);
        bed.until("the final delete", |bed| lock(&bed.api.deletes).len() == 1).await;
        let status = lock(&bed.api.statuses).last().cloned().unwrap();
        assert_eq!(status.container_statuses[0].state.terminated.as_ref().unwrap().exit_code, KILLED);
    });
}

#[test]
fn places_go_to_the_oldest_and_a_rejected_pod_is_told_why() {
    play(|bed| async move {
        let sized = |uid: &str, second: u64| {
            let mut pod = samples::pod(&json!({"containers": [{"name": "c", "image": "i:1",
                "resources": {"requests": {"cpu": "600m"}}}]}));
            uid.clone_into(&mut pod.metadata.uid);
            uid.clone_into(&mut pod.metadata.name);
            pod.metadata.creation_timestamp = Some(samples::at(second).wall.into());
            pod
        };
        bed.supervisor.handle(PodEvent::Set(vec![sized("young", 5), sized("old", 1)]));
        let reported = |bed: &Bed, phase: &str| lock(&bed.api.statuses).iter().any(|s| s.phase == phase);
        bed.until("both", |bed| reported(bed, "Running") && reported(bed, "Failed")).await;
        let runs: Vec<String> =
            lock(&bed.workshop.runs).iter().map(|(spec, _)| spec.pod.uid.clone()).collect();
        assert_eq!(runs, ["old"]);
        let rejected = bed.supervisor.pods().into_iter().find(|pod| pod.metadata.uid == "young").unwrap();
        assert_eq!((rejected.status.phase.as_str(), rejected.status.reason.as_str()), ("Failed", "OutOfcpu"));
        let message = "Node didn't have enough resource: cpu, requested: 600, used: 600, capacity: 1000";
        assert_eq!(rejected.status.message, format!("Pod was rejected: {message}"));
        assert!(bed.events().contains(&format!("OutOfcpu: {message}")));

        // A place that is free again goes to the next.
        lock(&bed.workshop.runs)[0].1.end(Exit::Code(0));
        bed.supervisor.handle(PodEvent::Deleted { uid: "old".to_owned() });
        bed.until("its end", |bed| bed.supervisor.pods().len() == 1).await;
        bed.apply(sized("next", 9));
        bed.until("a run", |bed| lock(&bed.workshop.runs).iter().any(|(spec, _)| spec.pod.uid == "next"))
            .await;
    });
}

#[test]
fn what_was_over_before_a_restart_of_the_agent_is_not_run_again() {
    play(|bed| async move {
        let mut pod = samples::pod(&json!({"restartPolicy": "Always"}));
        pod.status = serde_json::from_value(json!({"phase": "Failed", "reason": "Evicted"})).unwrap();
        bed.apply(pod.clone());
        bed.rest().await;
        assert!(lock(&bed.workshop.runs).is_empty());
        assert!(lock(&bed.api.patches).is_empty());
        bed.apply(deleted(pod, 30));
        bed.until("the final delete", |bed| lock(&bed.api.deletes).len() == 1).await;
    });
}

#[test]
fn a_lost_run_that_must_not_be_repeated_is_reported_as_lost() {
    play(|bed| async move {
        let mut pod = samples::pod(&json!({"restartPolicy": "Never"}));
        pod.status = serde_json::from_value(json!({"phase": "Running", "containerStatuses": [{"name": "c",
            "image": "i:1", "restartCount": 0, "containerID": "copepod://1", "state": {"running": {}}}]}))
        .unwrap();
        bed.apply(pod);
        bed.until("the end", |bed| bed.phase() == "Failed").await;
        assert!(lock(&bed.workshop.runs).is_empty());
        let status = lock(&bed.api.statuses).last().cloned().unwrap();
        let container = &status.container_statuses[0];
        let end = container.state.terminated.as_ref().unwrap();
        assert_eq!(
            (end.exit_code, end.reason.as_str(), container.restart_count),
            (137, "ContainerStatusUnknown", 1)
        );
    });
}

#[test]
fn mirror_pods_are_not_run() {
    play(|bed| async move {
        let mut pod = samples::pod(&json!({}));
        pod.metadata.annotations.insert(crate::pod::MIRROR.to_owned(), "hash".to_owned());
        bed.apply(pod);
        assert!(bed.supervisor.pods().is_empty());
    });
}

#[test]
fn shutdown_ends_guests_and_tells_nobody() {
    play(|bed| async move {
        bed.apply(samples::pod(&json!({})));
        let run = bed.running(1).await;
        let patches = lock(&bed.api.patches).len();
        assert!(bed.supervisor.shutdown(Duration::from_secs(5)).await);
        assert!(run.has_ended());
        bed.rest().await;
        assert_eq!(lock(&bed.api.patches).len(), patches);
        assert!(lock(&bed.api.deletes).is_empty());
        bed.apply(samples::pod(&json!({})));
        bed.rest().await;
        assert_eq!(lock(&bed.workshop.runs).len(), 1, "nothing is started any more");
    });
}

#[test]
fn shutdown_has_a_limit() {
    play(|bed| async move {
        *lock(&bed.workshop.stubborn) = true;
        bed.apply(samples::pod(&json!({})));
        bed.running(1).await;
        assert!(!bed.supervisor.shutdown(Duration::ZERO).await);
    });
}

#[test]
fn the_pod_list_has_our_status_and_the_conditions_of_others() {
    play(|bed| async move {
        let mut pod = samples::pod(&json!({}));
        pod.status =
            serde_json::from_value(json!({"conditions": [{"type": "x/y", "status": "True"}]})).unwrap();
        bed.apply(pod);
        bed.running(1).await;
        let list = serde_json::to_value(bed.supervisor.pods()).unwrap();
        let status = &list[0]["status"];
        assert_eq!(status["phase"], "Running");
        let kinds: Vec<&str> =
            status["conditions"].as_array().unwrap().iter().filter_map(|c| c["type"].as_str()).collect();
        assert!(kinds.contains(&"x/y") && kinds.contains(&"Ready"), "{kinds:?}");
    });
}

#[test]
fn a_manifest_from_a_file_gets_what_an_api_server_would_give_it() {
    let pod = crate::manifest::defaulted(Pod::default(), "board", samples::at(0));
    assert_eq!((pod.metadata.namespace.as_str(), pod.spec.restart_policy.as_str()), ("default", "Always"));
    assert_eq!(pod.spec.node_name, "board");
    assert_eq!(pod.metadata.uid.len(), 36);
}

#[test]
fn logs_of_pods_that_went_away_unseen_are_removed_once() {
    play(|bed| async move {
        bed.supervisor.handle(PodEvent::Set(vec![samples::pod(&json!({}))]));
        bed.until("a cleaning", |bed| *lock(&bed.workshop.cleanings) == 1).await;
        assert_eq!(*lock(&bed.workshop.kept_logs), ["u"]);
        bed.supervisor.handle(PodEvent::Set(Vec::new()));
        bed.rest().await;
        assert_eq!(*lock(&bed.workshop.cleanings), 1);
    });
}

#[test]
fn a_pod_that_comes_again_while_it_is_removed_begins_anew() {
    play(|bed| async move {
        *lock(&bed.workshop.stubborn) = true;
        let pod = samples::pod(&json!({}));
        bed.apply(pod.clone());
        let first = bed.running(1).await;
        bed.supervisor.handle(gone());
        bed.supervisor.handle(PodEvent::Set(vec![pod.clone()]));
        bed.rest().await;
        assert_eq!(lock(&bed.workshop.runs).len(), 1, "its guest still runs");
        first.end(Exit::Killed);
        bed.until("another run", |bed| lock(&bed.workshop.runs).len() == 2).await;
        assert_eq!(lock(&bed.workshop.removed_logs).len(), 1);

        bed.supervisor.handle(gone());
        bed.apply(pod);
        bed.supervisor.handle(gone());
        let second = lock(&bed.workshop.runs)[1].1.clone();
        second.end(Exit::Killed);
        bed.until("its end", |bed| bed.supervisor.pods().is_empty()).await;
        bed.rest().await;
        assert_eq!(lock(&bed.workshop.runs).len(), 2, "gone again before it began");
    });
}

#[test]
fn a_container_restarts_with_what_it_last_drew_on_while_the_api_server_is_away() {
    play(|bed| async move {
        let map = |value: &str| {
            let mut map = ConfigMap::default();
            map.data.extend([("k", value), ("unused", "x")].map(|(k, v)| (k.to_owned(), v.to_owned())));
            map
        };
        lock(&bed.api.config_maps).insert("m".to_owned(), map("first"));
        bed.apply(samples::pod(&json!({"containers": [{"name": "c", "image": "i:1", "env": [{"name": "K",
            "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}}]}]})));
        let run = bed.running(1).await;
        lock(&bed.api.config_maps).insert("m".to_owned(), map("second"));
        *lock(&bed.api.away) = true;
        run.end(Exit::Code(0));
        bed.running(2).await.end(Exit::Code(0));
        *lock(&bed.api.away) = false;
        bed.pass(10).await;
        bed.running(3).await;
        let values: Vec<String> =
            lock(&bed.workshop.runs).iter().map(|(spec, _)| spec.env.last().unwrap().1.clone()).collect();
        assert_eq!(values, ["first", "first", "second"]);
    });
}

#[test]
fn what_kubectl_apply_notes_for_itself_is_not_kept_unless_the_pod_is_shown_it() {
    play(|bed| async move {
        let key = "kubectl.kubernetes.io/last-applied-configuration";
        let from = json!({"fieldRef": {"fieldPath": format!("metadata.annotations['{key}']")}});
        for (uid, env, kept) in [("u", json!([]), 0), ("v", json!([{"name": "A", "valueFrom": from}]), 1)] {
            let mut pod = samples::pod(&json!({"containers": [{"name": "c", "image": "i:1", "env": env}]}));
            uid.clone_into(&mut pod.metadata.uid);
            pod.metadata.annotations.insert(key.to_owned(), "{}".to_owned());
            bed.apply(pod.clone());
            bed.apply(pod);
            let pods = bed.supervisor.pods();
            let shown = pods.iter().find(|pod| pod.metadata.uid == uid).unwrap();
            assert_eq!(shown.metadata.annotations.len(), kept, "{uid}");
        }
    });
}

#[test]
fn a_pod_that_fills_its_volume_is_evicted_and_its_room_given_back() {
    play(|bed| async move {
        let pod = samples::pod(&json!({
            "containers": [{"name": "c", "image": "i:1", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}],
        }));
        bed.apply(pod);
        bed.running(1).await;
        let told = lock(&bed.workshop.volumes)[0].1.clone();
        bed.events();
        told(Exceeded::Volume("v".to_owned()));
        let failed =
            |bed: &Bed| lock(&bed.api.statuses).last().is_some_and(|status| status.phase == "Failed");
        bed.until("the pod to be evicted", failed).await;
        let status = lock(&bed.api.statuses).last().cloned().unwrap();
        let message = "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ";
        assert_eq!((status.reason.as_str(), status.message.as_str()), ("Evicted", message));
        let disrupted = status.conditions.iter().find(|c| c.kind == "DisruptionTarget").unwrap();
        assert_eq!((&*disrupted.status, disrupted.reason.as_str()), ("True", "TerminationByKubelet"));
        assert_eq!(
            bed.events(),
            [
                &*format!("Evicted: {}", message.trim_end()),
                "spec.containers{c} Killing: Stopping container c"
            ]
        );
        bed.until("the volume to go", |bed| lock(&bed.workshop.volumes).is_empty()).await;
        assert!(!bed.supervisor.pods().is_empty(), "its object stays");
        let shown = &bed.supervisor.pods()[0];
        let count = shown.status.conditions.iter().filter(|c| c.kind == "DisruptionTarget").count();
        assert_eq!(count, 1);
        told(Exceeded::Pod);
        bed.rest().await;
        assert_eq!(bed.events(), [""; 0], "once is enough");
    });
}
