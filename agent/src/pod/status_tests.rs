//! What is reported at each stage of a pod's life.

use super::*;
use crate::pod::admission::Rejection;
use crate::pod::lifecycle::StartFailure;
use crate::pod::samples::{at, node, Story};
use crate::runtime::Exit;
use serde_json::{json, Value};

fn conditions_of(status: &Value) -> Vec<String> {
    let text = |condition: &Value, key: &str| condition[key].as_str().unwrap_or_default().to_owned();
    let all = status["conditions"].as_array().unwrap().iter();
    all.map(|c| {
        format!("{}={} {} {}", text(c, "type"), text(c, "status"), text(c, "reason"), text(c, "message"))
            .trim()
            .to_owned()
    })
    .collect()
}

#[test]
fn a_new_pod_waits_to_be_created() {
    let mut story = Story::new(&json!({}));
    let status = story.status();
    assert_eq!(
        status["containerStatuses"],
        json!([{"name": "c", "image": "i:1", "imageID": "", "ready": false, "restartCount": 0, "started": false,
            "state": {"waiting": {"reason": "ContainerCreating"}}}])
    );
    for (key, value) in [
        ("phase", json!("Pending")),
        ("qosClass", json!("BestEffort")),
        ("hostIP", json!("10.0.0.5")),
        ("hostIPs", json!([{"ip": "10.0.0.5"}])),
        ("podIP", json!("10.0.0.5")),
        ("podIPs", json!([{"ip": "10.0.0.5"}])),
        ("observedGeneration", json!(1)),
        ("startTime", json!("2026-01-01T00:00:00Z")),
    ] {
        assert_eq!(status[key], value, "{key}");
    }
    assert_eq!(
        conditions_of(&status),
        [
            "PodReadyToStartContainers=True",
            "Initialized=True",
            "Ready=False ContainersNotReady containers with unready status: [c]",
            "ContainersReady=False ContainersNotReady containers with unready status: [c]",
            "PodScheduled=True",
        ]
    );
    assert_eq!(status["conditions"][0]["observedGeneration"], 1);
}

#[test]
fn a_running_pod_is_ready() {
    let mut story = Story::new(&json!({"containers": [{"name": "c", "image": "i:1",
        "resources": {"limits": {"memory": "8Mi"}, "requests": {"memory": "4Mi"}}}]}));
    story.status();
    story.now += 2;
    story.start("c");
    let status = story.status();
    assert_eq!(
        status["containerStatuses"],
        json!([{"name": "c", "image": "i:1", "imageID": "i@sha256:1", "containerID": "copepod://0", "ready": true,
            "started": true, "restartCount": 0, "state": {"running": {"startedAt": "2026-01-01T00:00:02Z"}},
            "resources": {"limits": {"memory": "8Mi"}, "requests": {"memory": "4Mi"}},
            "allocatedResources": {"memory": "4Mi"}}])
    );
    assert_eq!(status["phase"], "Running");
    assert_eq!(
        conditions_of(&status),
        [
            "PodReadyToStartContainers=True",
            "Initialized=True",
            "Ready=True",
            "ContainersReady=True",
            "PodScheduled=True"
        ]
    );
    let times: Vec<&Value> =
        status["conditions"].as_array().unwrap().iter().map(|c| &c["lastTransitionTime"]).collect();
    let (first, then) = (json!("2026-01-01T00:00:00Z"), json!("2026-01-01T00:00:02Z"));
    assert_eq!(times, [&first, &first, &then, &then, &first], "only what changed has a new time");
}

#[test]
fn how_a_guest_ended_is_told() {
    for (exit, code, reason, message) in [
        (Exit::Code(0), 0, "Completed", None),
        (Exit::Code(3), 3, "Error", None),
        (Exit::Code(u32::MAX), i32::MAX, "Error", None),
        (Exit::Trap("wasm trap: unreachable".to_owned()), 134, "Error", Some("wasm trap: unreachable")),
        (Exit::OutOfMemory, 137, "OOMKilled", None),
        (Exit::Killed, 137, "Error", None),
        (Exit::Panic("oops".to_owned()), 134, "Error", Some("oops")),
    ] {
        let mut story = Story::new(&json!({"restartPolicy": "Never"}));
        story.start("c");
        story.now += 5;
        story.end("c", exit.clone());
        let end = story.status()["containerStatuses"][0]["state"]["terminated"].clone();
        let mut expected = json!({"exitCode": code, "reason": reason, "startedAt": "2026-01-01T00:00:00Z",
            "finishedAt": "2026-01-01T00:00:05Z", "containerID": "copepod://0"});
        if let Some(message) = message {
            expected["message"] = json!(message);
        }
        assert_eq!(end, expected, "{exit:?}");
    }
}

#[test]
fn a_finished_pod_is_completed_or_failed() {
    for (code, phase, reason) in [(0, "Succeeded", "PodCompleted"), (1, "Failed", "PodFailed")] {
        let mut story = Story::new(&json!({"restartPolicy": "Never"}));
        story.start("c");
        story.status();
        story.end("c", Exit::Code(code));
        let status = story.status();
        assert_eq!(status["phase"], phase);
        let initialized = if code == 0 { "Initialized=True PodCompleted" } else { "Initialized=True" };
        assert_eq!(
            conditions_of(&status),
            [
                "PodReadyToStartContainers=False PodSandboxNotReady".to_owned(),
                initialized.to_owned(),
                format!("Ready=False {reason}"),
                format!("ContainersReady=False {reason}"),
                "PodScheduled=True".to_owned(),
            ]
        );
    }
}

#[test]
fn init_containers_hold_back_the_others() {
    let mut story = Story::new(
        &json!({"initContainers": [{"name": "z", "image": "i:1"}, {"name": "a", "image": "i:1"}]}),
    );
    story.start("z");
    let status = story.status();
    assert_eq!(status["phase"], "Pending");
    assert_eq!(status["initContainerStatuses"][0]["name"], "z", "in the order of the spec");
    assert_eq!(status["initContainerStatuses"][0]["ready"], false);
    assert_eq!(status["initContainerStatuses"][1]["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(
        conditions_of(&status)[1],
        "Initialized=False ContainersNotInitialized containers with incomplete status: [z a]"
    );
    story.end("z", Exit::Code(0));
    let status = story.status();
    assert_eq!(status["initContainerStatuses"][0]["ready"], true);
    assert_eq!(
        conditions_of(&status)[1],
        "Initialized=False ContainersNotInitialized containers with incomplete status: [a]"
    );
    story.start("a");
    story.end("a", Exit::Code(0));
    story.start("c");
    assert_eq!(conditions_of(&story.status())[1], "Initialized=True");
}

#[test]
fn containers_are_sorted_by_name() {
    let mut story =
        Story::new(&json!({"containers": [{"name": "z", "image": "i:1"}, {"name": "a", "image": "i:1"}]}));
    let status = story.status();
    assert_eq!(status["containerStatuses"][0]["name"], "a");
    assert_eq!(
        conditions_of(&status)[2],
        "Ready=False ContainersNotReady containers with unready status: [z a]"
    );
}

#[test]
fn a_rejected_pod_says_only_why() {
    let mut story = Story::new(&json!({}));
    story.record.admission =
        Admission::Rejected(Rejection::new("NodeName", "Predicate NodeName failed: x".to_owned()));
    assert_eq!(
        story.status(),
        json!({"phase": "Failed", "reason": "NodeName", "message": "Pod was rejected: Predicate NodeName failed: x",
            "qosClass": "BestEffort", "startTime": "2026-01-01T00:00:00Z", "observedGeneration": 1})
    );
}

#[test]
fn readiness_gates_are_asked_for() {
    let mut story =
        Story::new(&json!({"readinessGates": [{"conditionType": "x/y"}, {"conditionType": "x/z"}]}));
    story.pod.status =
        serde_json::from_value(json!({"conditions": [{"type": "x/z", "status": "False"}]})).unwrap();
    story.start("c");
    let expected =
        "Ready=False ReadinessGatesNotReady corresponding condition of pod readiness gate \"x/y\" does not \
        exist., the status of pod readiness gate \"x/z\" is not \"True\", but False";
    let conditions = conditions_of(&story.status());
    assert_eq!(conditions[2], expected);
    assert_eq!(conditions[3], "ContainersReady=True");
    let good = json!({"conditions": [{"type": "x/z", "status": "True"}, {"type": "x/y", "status": "True"}]});
    story.pod.status = serde_json::from_value(good).unwrap();
    assert_eq!(conditions_of(&story.status())[2], "Ready=True");
}

#[test]
fn a_wall_clock_that_is_set_back_ends_no_run_before_it_began() {
    let mut story = Story::new(&json!({"restartPolicy": "Never"}));
    story.now = 100;
    story.start("c");
    story.now = 50;
    story.end("c", Exit::Code(0));
    let end = story.status()["containerStatuses"][0]["state"]["terminated"].clone();
    assert_eq!(end["startedAt"], end["finishedAt"]);
}

#[test]
fn a_deleted_pod_with_a_crash_loop_shows_the_last_crash() {
    let mut story = Story::new(&json!({}));
    for _ in 0..2 {
        story.start("c");
        story.end("c", Exit::Code(4));
    }
    assert_eq!(story.status()["phase"], "Running");
    story.delete(30);
    story.plan();
    let status = story.status();
    assert_eq!(status["phase"], "Failed");
    assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["exitCode"], 4);
    assert_eq!(status["containerStatuses"][0]["lastState"]["terminated"]["containerID"], "copepod://0");
}

#[test]
fn a_deleted_pod_that_never_got_past_its_init_containers_leaves_the_others_waiting() {
    let mut story = Story::new(
        &json!({"initContainers": [{"name": "a", "image": "i:1"}, {"name": "b", "image": "i:1"}]}),
    );
    story.fail("a", StartFailure::pull("x".to_owned()));
    story.delete(30);
    story.plan();
    let status = story.status();
    assert_eq!(status["phase"], "Failed");
    assert_eq!(status["initContainerStatuses"][0]["state"]["terminated"]["reason"], "ContainerStatusUnknown");
    assert_eq!(status["initContainerStatuses"][1]["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
}

#[test]
fn kubectl_debug_is_answered() {
    let mut story = Story::new(&json!({"ephemeralContainers": [{"name": "debugger", "image": "busybox"}]}));
    story.start("c");
    let status = story.status();
    let debugger = &status["ephemeralContainerStatuses"][0];
    assert_eq!(debugger["state"]["terminated"]["reason"], "ContainerCannotRun");
    assert_eq!(status["phase"], "Running");
}

#[test]
fn an_address_that_was_shown_stays_the_pods() {
    let mut story = Story::new(&json!({}));
    story.status();
    let moved = NodeFacts { ips: vec!["10.0.0.6".to_owned()], ..node() };
    let status = report(&story.pod, &story.record, &moved, at(0));
    assert_eq!((status.host_ip.as_str(), status.pod_ip.as_str()), ("10.0.0.6", "10.0.0.5"));
    let unknown = report(&story.pod, &story.record, &NodeFacts::default(), at(0));
    assert_eq!(unknown.host_ip, "10.0.0.5");
}
