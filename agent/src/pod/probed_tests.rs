//! Stories of containers that are probed, and of hooks at their start and end.

use serde_json::{json, Value};

use super::*;
use crate::pod::samples::Story;

fn story(policy: &str, more: Value) -> Story {
    let mut container = json!({"name": "c", "image": "i:1"});
    container.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    Story::new(&json!({"restartPolicy": policy, "containers": [container]}))
}

fn says(story: &mut Story, kind: ProbeKind, well: bool) {
    story.happening(Happening::Probed { container: "c".to_owned(), kind, well });
}

fn probe() -> Value {
    json!({"tcpSocket": {"port": 1}})
}

/// `started`, `ready`, and the pod's condition Ready.
fn states(story: &mut Story) -> (bool, bool, bool) {
    let status = story.status();
    let container = &status["containerStatuses"][0];
    let ready = status["conditions"].as_array().unwrap().iter().find(|one| one["type"] == "Ready").unwrap();
    (container["started"] == true, container["ready"] == true, ready["status"] == "True")
}

#[test]
fn a_container_is_ready_when_its_probes_say_so() {
    let mut plain = story("Always", json!({}));
    plain.start("c");
    assert_eq!(states(&mut plain), (true, true, true));
    let mut probed = story("Always", json!({"startupProbe": probe(), "readinessProbe": probe()}));
    probed.start("c");
    assert_eq!(states(&mut probed), (false, false, false));
    says(&mut probed, ProbeKind::Startup, true);
    assert_eq!(states(&mut probed), (true, false, false));
    says(&mut probed, ProbeKind::Readiness, true);
    assert_eq!(states(&mut probed), (true, true, true));
    says(&mut probed, ProbeKind::Readiness, false);
    assert_eq!(states(&mut probed), (true, false, false));
    says(&mut probed, ProbeKind::Readiness, true);
    probed.expect(&[], None);
    // It goes on to be probed while it is being stopped.
    probed.delete(30);
    probed.pod.metadata.annotations.insert("copepod/wait-for-grace".to_owned(), "true".to_owned());
    probed.expect(&["ask c"], Some(30));
    says(&mut probed, ProbeKind::Readiness, false);
    assert_eq!(states(&mut probed), (true, false, false));
}

#[test]
fn one_that_is_not_alive_is_started_anew_as_its_policy_says() {
    for (policy, kind, tail, again) in [
        ("Always", ProbeKind::Liveness, "liveness probe, will be restarted", true),
        ("OnFailure", ProbeKind::Startup, "startup probe, will be restarted", true),
        ("Never", ProbeKind::Liveness, "liveness probe", false),
    ] {
        let mut story = story(policy, json!({"livenessProbe": probe()}));
        story.start("c");
        story.told();
        says(&mut story, ProbeKind::Liveness, true);
        story.expect(&[], None);
        says(&mut story, kind, false);
        assert_eq!(story.told(), [format!("Killing: Container c failed {tail}")]);
        story.expect(&["kill c 143"], None);
        says(&mut story, kind, false);
        assert_eq!(story.told(), [""; 0], "once");
        story.kill("c", STOPPED);
        let next: &[&str] = if again { &["start c"] } else { &[] };
        story.expect(next, None);
        assert_eq!(story.status()["phase"], if again { "Running" } else { "Failed" }, "{policy}");
    }
}

#[test]
fn such_a_stop_has_its_hook_and_the_probes_own_grace() {
    let mut liveness = probe();
    liveness["terminationGracePeriodSeconds"] = json!(7);
    let hook = json!({"preStop": {"sleep": {"seconds": 5}}});
    let mut story = story("Always", json!({"livenessProbe": liveness, "lifecycle": hook}));
    story.start("c");
    says(&mut story, ProbeKind::Liveness, false);
    story.expect(&["prestop c"], Some(7));
    story.happening(Happening::PreStopping("c".to_owned()));
    story.now += 6;
    story.expect(&[], Some(1));
    story.now += 1;
    story.expect(&["kill c 143"], None);
    // A pod that is being deleted has another stop, and no probe ends it.
    let mut story = self::story("Always", json!({"livenessProbe": probe()}));
    story.start("c");
    story.delete(30);
    story.told();
    story.expect(&["kill c 143"], Some(30));
    says(&mut story, ProbeKind::Liveness, false);
    assert_eq!(story.told(), ["Killing: Stopping container c"]);
}

#[test]
fn another_image_waits_for_the_hook_too() {
    let mut story = story("Always", json!({"lifecycle": {"preStop": {"sleep": {"seconds": 5}}}}));
    story.start("c");
    story.pod.spec.containers.first_mut().unwrap().image = "i:2".to_owned();
    story.expect(&["prestop c"], Some(30));
    story.happening(Happening::PreStopping("c".to_owned()));
    story.happening(Happening::PreStopped { container: "c".to_owned(), well: true });
    story.expect(&["kill c 143"], None);
}

#[test]
fn a_sidecar_holds_up_the_others_until_it_has_started() {
    let sidecar = json!({"name": "s", "image": "i:1", "restartPolicy": "Always", "startupProbe": probe()});
    let mut story = Story::new(&json!({"initContainers": [sidecar]}));
    story.expect(&["start s"], None);
    story.start("s");
    story.expect(&[], None);
    assert_eq!(story.status()["phase"], "Pending");
    story.happening(Happening::Probed { container: "s".to_owned(), kind: ProbeKind::Startup, well: true });
    story.expect(&["start c"], None);
    story.start("c");
    // It is started anew beside the others.
    story.end("s", Exit::Code(1));
    story.expect(&["start s"], None);
}

#[test]
fn a_hook_at_the_start_that_fails_ends_the_container() {
    let mut story = story("Always", json!({}));
    let fail = |story: &mut Story| {
        story.starting("c");
        story.happening(Happening::Launching {
            container: "c".to_owned(),
            id: "copepod://x".to_owned(),
            image_id: "i@sha256:1".to_owned(),
        });
        story.happening(Happening::Failed("c".to_owned(), StartFailure::PostStart("refused".to_owned())));
    };
    fail(&mut story);
    assert_eq!(story.told(), ["FailedPostStartHook: PostStartHook failed"]);
    let status = story.status()["containerStatuses"][0].clone();
    assert_eq!(status["state"]["waiting"], json!({"reason": "PostStartHookError", "message": "refused"}));
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 143);
    assert_eq!(status["lastState"]["terminated"]["containerID"], "copepod://x");
    story.expect(&["start c"], None);
    fail(&mut story);
    assert_eq!(story.status()["containerStatuses"][0]["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert_eq!(story.status()["containerStatuses"][0]["restartCount"], 1);
    story.expect(&[], Some(10));
}

#[test]
fn volumes_that_cannot_be_made_are_waited_for() {
    let mut story = story("Always", json!({}));
    let until = crate::pod::samples::at(4).mono;
    story.fail("c", StartFailure::Mount(until));
    story.expect(&[], Some(4));
    let status = story.status();
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "ContainerCreating");
    let of = |status: &Value| {
        let conditions = status["conditions"].as_array().unwrap();
        conditions.iter().find(|one| one["type"] == "PodReadyToStartContainers").unwrap()["status"].clone()
    };
    assert_eq!(of(&status), "False");
    story.now += 4;
    story.expect(&["start c"], None);
    story.starting("c");
    story.happening(Happening::Launching {
        container: "c".to_owned(),
        id: "copepod://x".to_owned(),
        image_id: "i@sha256:1".to_owned(),
    });
    assert_eq!(of(&story.status()), "True");
}
