//! Stories of pods: what is to be done at each moment, and what people hear of it.

use super::*;
use crate::pod::samples::{at, Story};
use crate::pod::WAIT_FOR_GRACE;
use crate::runtime::Exit;
use serde_json::json;

#[test]
fn a_container_starts_once_and_runs() {
    let mut story = Story::new(&json!({}));
    story.expect(&["start c"], None);
    story.starting("c");
    story.expect(&[], None);
    story.start("c");
    story.expect(&[], None);
    assert_eq!(story.told(), ["Started: Container started"]);
}

#[test]
fn a_crashing_container_restarts_at_once_and_then_ever_later_up_to_five_minutes() {
    let mut story = Story::new(&json!({}));
    story.start("c");
    story.told();
    story.end("c", Exit::Code(1));
    story.expect(&["start c"], None);
    assert!(story.told().is_empty(), "the first restart waits for nothing");
    for (wait, text) in
        [(10, "10s"), (20, "20s"), (40, "40s"), (80, "1m20s"), (160, "2m40s"), (300, "5m0s"), (300, "5m0s")]
    {
        story.start("c");
        story.now += 1;
        story.end("c", Exit::Code(1));
        story.expect(&[], Some(wait));
        let container = &story.status()["containerStatuses"][0];
        assert_eq!(container["state"]["waiting"]["reason"], "CrashLoopBackOff");
        let message = format!("back-off {text} restarting failed container=c pod=p_ns(u)");
        assert_eq!(container["state"]["waiting"]["message"], message.as_str());
        assert_eq!(container["lastState"]["terminated"]["exitCode"], 1);
        assert!(story
            .told()
            .contains(&"BackOff: Back-off restarting failed container c in pod p_ns(u)".to_owned()));
        story.now += wait - 1;
        story.expect(&[], Some(1));
        story.now += 1;
        story.expect(&["start c"], None);
    }
    assert_eq!(story.status()["containerStatuses"][0]["restartCount"], 7);
}

#[test]
fn ten_minutes_of_running_forgive_the_crashes_before() {
    let mut story = Story::new(&json!({}));
    for _ in 0..3 {
        story.start("c");
        story.end("c", Exit::Code(1));
    }
    story.now += 40;
    story.start("c");
    story.now += 601;
    story.end("c", Exit::Code(1));
    story.expect(&["start c"], None);
    story.start("c");
    story.end("c", Exit::Code(1));
    story.expect(&[], Some(10));
}

#[test]
fn restart_policies_decide_what_runs_again() {
    for (policy, exit, restarts, phase) in [
        ("Always", Exit::Code(0), true, "Running"),
        ("Always", Exit::Code(1), true, "Running"),
        ("OnFailure", Exit::Code(0), false, "Succeeded"),
        ("OnFailure", Exit::Code(1), true, "Running"),
        ("OnFailure", Exit::Trap("unreachable".to_owned()), true, "Running"),
        ("Never", Exit::Code(0), false, "Succeeded"),
        ("Never", Exit::Code(7), false, "Failed"),
        ("Never", Exit::OutOfMemory, false, "Failed"),
    ] {
        let mut story = Story::new(&json!({"restartPolicy": policy}));
        story.start("c");
        story.end("c", exit.clone());
        let expected: &[&str] = if restarts { &["start c"] } else { &[] };
        story.expect(expected, None);
        assert_eq!(story.status()["phase"], phase, "{policy} {exit:?}");
    }
}

#[test]
fn init_containers_run_one_after_the_other_before_the_others() {
    let mut story = Story::new(&json!({
        "initContainers": [{"name": "a", "image": "i:1"}, {"name": "b", "image": "i:1"}],
        "containers": [{"name": "c", "image": "i:1"}, {"name": "d", "image": "i:1"}],
    }));
    story.expect(&["start a"], None);
    story.start("a");
    story.expect(&[], None);
    story.end("a", Exit::Code(0));
    story.expect(&["start b"], None);
    story.start("b");
    story.end("b", Exit::Code(1));
    story.expect(&["start b"], None);
    story.start("b");
    story.end("b", Exit::Code(1));
    story.expect(&[], Some(10));
    story.now += 10;
    story.start("b");
    story.end("b", Exit::Code(0));
    story.expect(&["start c", "start d"], None);
    story.start("c");
    story.expect(&["start d"], None);
}

/// Two sidecars around an init container, and two containers.
fn with_sidecars(policy: &str) -> Story {
    Story::new(&json!({
        "restartPolicy": policy,
        "initContainers": [
            {"name": "s", "image": "i:1", "restartPolicy": "Always"},
            {"name": "i", "image": "i:1"},
            {"name": "t", "image": "i:1", "restartPolicy": "Always"},
        ],
        "containers": [{"name": "c", "image": "i:1"}, {"name": "d", "image": "i:1"}],
    }))
}

fn all_running(policy: &str) -> Story {
    let mut story = with_sidecars(policy);
    story.start("s");
    story.start("i");
    story.end("i", Exit::Code(0));
    for name in ["t", "c", "d"] {
        story.start(name);
    }
    story.told();
    story
}

#[test]
fn a_sidecar_runs_before_what_comes_after_it_and_beside_it() {
    let mut story = with_sidecars("Never");
    story.expect(&["start s"], None);
    story.starting("s");
    story.expect(&[], None);
    story.start("s");
    assert_eq!(story.status()["conditions"][1]["message"], "containers with incomplete status: [i t]");
    story.expect(&["start i"], None);
    story.start("i");
    // It ends while the next still runs: it comes again, and the next goes on.
    story.end("s", Exit::Code(0));
    story.expect(&["start s"], None);
    story.end("i", Exit::Code(0));
    story.expect(&["start s", "start t"], None);
    story.start("t");
    story.expect(&["start s", "start c", "start d"], None);
    story.start("c");
    story.start("d");
    let status = story.status();
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["conditions"][2]["message"], "containers with unready status: [s]");
    story.start("s");
    assert_eq!(story.status()["conditions"][2]["status"], "True");
    story.expect(&[], None);
}

#[test]
fn a_sidecar_that_never_ran_holds_up_the_rest() {
    let mut story = with_sidecars("Never");
    story.fail("s", StartFailure::Config("no such key".to_owned()));
    story.expect(&[], Some(10));
    assert_eq!(story.status()["phase"], "Pending");
}

#[test]
fn sidecars_end_with_the_containers_the_last_first_and_count_for_nothing() {
    for (codes, phase) in [((0, 0), "Succeeded"), ((0, 1), "Failed")] {
        let mut story = all_running("Never");
        story.end("c", Exit::Code(codes.0));
        story.expect(&[], None);
        story.end("d", Exit::Code(codes.1));
        story.expect(&["kill t 143"], Some(30));
        assert_eq!(story.told(), ["Killing: Stopping container s", "Killing: Stopping container t"]);
        assert_eq!(story.status()["phase"], "Running", "until nothing runs");
        story.kill("t", 143);
        story.expect(&["kill s 143"], Some(30));
        story.kill("s", 143);
        story.expect(&[], None);
        let status = story.status();
        assert_eq!(status["phase"], phase);
        assert_eq!(status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"], 143);
    }
}

#[test]
fn sidecars_of_a_pod_that_is_deleted_end_after_its_containers() {
    let mut story = all_running("Always");
    story.delete(30);
    story.expect(&["kill d 143", "kill c 143"], Some(30));
    story.kill("c", 143);
    story.expect(&["kill d 143"], Some(30));
    story.kill("d", 143);
    story.expect(&["kill t 143"], Some(30));
    story.happening(Happening::Killed("t".to_owned(), 143));
    story.expect(&[], Some(30));
    // When the grace is over, nobody waits for anybody.
    story.now += 30;
    story.expect(&["kill s 143"], None);
}

#[test]
fn what_a_container_wants_done_before_its_stop_is_done_within_its_grace() {
    let hook = json!({"preStop": {"sleep": {"seconds": 5}}});
    let spec = json!({"containers": [{"name": "c", "image": "i:1", "lifecycle": hook}, {"name": "d", "image": "i:1"}]});
    let stopping = || {
        let mut story = Story::new(&spec);
        story.start("c");
        story.start("d");
        story.told();
        story.delete(30);
        story.expect(&["kill d 143", "prestop c"], Some(30));
        story.happening(Happening::PreStopping("c".to_owned()));
        story.kill("d", STOPPED);
        story.expect(&[], Some(30));
        story.told();
        story
    };
    let mut story = stopping();
    story.happening(Happening::PreStopped { container: "c".to_owned(), well: true });
    story.expect(&["kill c 143"], Some(30));
    assert!(story.told().is_empty());
    let mut story = stopping();
    story.happening(Happening::PreStopped { container: "c".to_owned(), well: false });
    story.expect(&["kill c 143"], Some(30));
    assert_eq!(story.told(), ["FailedPreStopHook: PreStopHook failed"]);
    let mut story = stopping();
    story.now += 30;
    story.expect(&["kill c 143"], None);
    // Without a grace there is nothing to do it in.
    let mut story = Story::new(&spec);
    story.start("c");
    story.delete(0);
    assert_eq!(story.plan().0, ["kill c 137"]);
}

#[test]
fn sidecars_are_told_to_stop_when_it_is_their_turn() {
    let mut story = all_running("Always");
    story.pod.metadata.annotations.insert(WAIT_FOR_GRACE.to_owned(), "true".to_owned());
    story.delete(30);
    story.expect(&["ask d", "ask c"], Some(30));
    for name in ["d", "c"] {
        story.happening(Happening::Asked(name.to_owned()));
    }
    story.end("d", Exit::Code(0));
    story.expect(&[], Some(30));
    story.end("c", Exit::Code(0));
    story.expect(&["ask t"], Some(30));
    story.end("t", Exit::Code(0));
    story.expect(&["ask s"], Some(30));
    story.now += 30;
    story.expect(&["kill s 137"], None);
}

#[test]
fn an_init_container_that_fails_for_good_ends_the_sidecars_before_it() {
    let mut story = with_sidecars("Never");
    story.start("s");
    story.start("i");
    story.end("i", Exit::Code(1));
    story.expect(&["kill s 143"], Some(30));
    story.kill("s", 143);
    story.expect(&[], None);
    let status = story.status();
    assert_eq!(status["phase"], "Failed");
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
}

#[test]
fn sidecars_that_wait_to_come_again_do_not_keep_a_pod() {
    let mut story = all_running("OnFailure");
    for _ in 0..2 {
        story.end("s", Exit::Code(1));
        story.start("s");
    }
    story.end("s", Exit::Code(1));
    story.end("t", Exit::Code(1));
    story.end("c", Exit::Code(0));
    story.end("d", Exit::Code(0));
    story.expect(&[], None);
    let status = story.status();
    assert_eq!(status["phase"], "Succeeded");
    assert_eq!(status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"], 1);
}

#[test]
fn an_init_container_that_fails_for_good_fails_the_pod() {
    let mut story =
        Story::new(&json!({"restartPolicy": "Never", "initContainers": [{"name": "a", "image": "i:1"}]}));
    story.start("a");
    story.end("a", Exit::Code(3));
    story.expect(&[], None);
    assert_eq!(story.status()["phase"], "Failed");
}

#[test]
fn a_failing_pull_shows_its_error_and_then_the_waiting() {
    let mut story = Story::new(&json!({}));
    story.fail("c", StartFailure::pull("no such host".to_owned()));
    assert_eq!(
        story.told(),
        ["Failed: Failed to pull image \"i:1\": no such host", "Failed: Error: ErrImagePull"]
    );
    let waiting = |story: &mut Story| story.status()["containerStatuses"][0]["state"]["waiting"].clone();
    assert_eq!(waiting(&mut story), json!({"reason": "ErrImagePull", "message": "no such host"}));
    story.expect(&[], Some(3));
    story.now += 3;
    story.expect(&[], Some(7));
    assert_eq!(
        waiting(&mut story),
        json!({"reason": "ImagePullBackOff",
            "message": "Back-off pulling image \"i:1\": ErrImagePull: no such host"})
    );
    assert_eq!(story.told(), ["BackOff: Back-off pulling image \"i:1\"", "Failed: Error: ImagePullBackOff"]);
    story.now += 7;
    story.expect(&["start c"], None);
    story.starting("c");
    assert_eq!(waiting(&mut story)["reason"], "ImagePullBackOff", "still said while it is tried again");
    story.fail("c", StartFailure::pull("no such host".to_owned()));
    story.now += 3;
    story.expect(&[], Some(17));
    story.now += 17;
    story.start("c");
    assert_eq!(story.status()["containerStatuses"][0]["restartCount"], 0);
}

#[test]
fn a_registry_that_is_away_is_said_to_be() {
    let mut story = Story::new(&json!({}));
    story.fail(
        "c",
        StartFailure::Pull { reason: "RegistryUnavailable", text: "503".to_owned(), image: String::new() },
    );
    let waiting = |story: &mut Story| story.status()["containerStatuses"][0]["state"]["waiting"].clone();
    assert_eq!(waiting(&mut story), json!({"reason": "RegistryUnavailable", "message": "503"}));
    assert!(story.told().contains(&"Failed: Error: RegistryUnavailable".to_owned()));
    story.now += 3;
    story.expect(&[], Some(7));
    let message = "Back-off pulling image \"i:1\": RegistryUnavailable: 503";
    assert_eq!(waiting(&mut story), json!({"reason": "ImagePullBackOff", "message": message}));
}

#[test]
fn what_somebody_must_set_right_is_tried_again_and_said_once() {
    for (failure, reason, events) in [
        (
            StartFailure::Config("configmap \"x\" not found".to_owned()),
            "CreateContainerConfigError",
            vec!["Failed: Error: configmap \"x\" not found"],
        ),
        (
            StartFailure::Create("no space".to_owned()),
            "CreateContainerError",
            vec!["Failed: Error: no space"],
        ),
        (
            StartFailure::NeverPull("i:1".to_owned()),
            "ErrImageNeverPull",
            vec![
                "ErrImageNeverPull: Container image \"i:1\" is not present with pull policy of Never",
                "Failed: Error: ErrImageNeverPull",
            ],
        ),
    ] {
        let mut story = Story::new(&json!({"restartPolicy": "Never"}));
        story.fail("c", failure.clone());
        assert_eq!(story.told(), events);
        assert_eq!(story.status()["containerStatuses"][0]["state"]["waiting"]["reason"], reason);
        assert_eq!(story.status()["phase"], "Pending");
        story.expect(&[], Some(10));
        story.now += 10;
        story.expect(&["start c"], None);
        story.fail("c", failure);
        assert!(story.told().is_empty(), "{reason}: nothing new");
    }
}

#[test]
fn a_name_that_is_none_waits_for_another_one() {
    let mut story = Story::new(&json!({}));
    let message = "Failed to apply default image tag \"A B\"";
    story.fail("c", StartFailure::InvalidImageName(message.to_owned()));
    assert_eq!(
        story.told(),
        [format!("InspectFailed: {message}"), "Failed: Error: InvalidImageName".to_owned()]
    );
    story.expect(&[], None);
    story.now += 100_000;
    story.expect(&[], None);
    story.pod.spec.containers[0].image = "i:2".to_owned();
    story.expect(&["start c"], None);
}

#[test]
fn a_module_that_cannot_run_ends_like_a_program_that_cannot() {
    let mut story = Story::new(&json!({"restartPolicy": "Never"}));
    story.fail("c", StartFailure::Run("not a module".to_owned()));
    assert_eq!(story.told(), ["Created: Container created", "Failed: Error: not a module"]);
    let status = story.status();
    assert_eq!(status["phase"], "Failed");
    let end = &status["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(
        (&end["exitCode"], &end["reason"], &end["message"]),
        (&json!(128), &json!("StartError"), &json!("not a module"))
    );

    let mut story = Story::new(&json!({}));
    story.fail("c", StartFailure::Run("not a module".to_owned()));
    assert_eq!(story.status()["containerStatuses"][0]["state"]["waiting"]["reason"], "RunContainerError");
    story.expect(&["start c"], None);
    story.fail("c", StartFailure::Run("not a module".to_owned()));
    assert_eq!(story.status()["containerStatuses"][0]["state"]["waiting"]["reason"], "CrashLoopBackOff");
    story.expect(&[], Some(10));
}

#[test]
fn a_changed_image_replaces_the_container_whatever_its_policy() {
    let mut story = Story::new(&json!({"restartPolicy": "Never"}));
    story.start("c");
    story.told();
    story.pod.spec.containers[0].image = "i:2".to_owned();
    story.expect(&["kill c 143"], None);
    assert_eq!(story.told(), ["Killing: Container c definition changed, will be restarted"]);
    story.kill("c", STOPPED);
    story.expect(&["start c"], None);
    let status = story.status();
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "ContainerCreating");
    assert_eq!(status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 143);
    story.start("c");
    story.expect(&[], None);
    assert_eq!(story.status()["containerStatuses"][0]["restartCount"], 1);
    story.end("c", Exit::Code(0));
    story.expect(&[], None);
}

#[test]
fn a_changed_image_ends_the_wait_for_the_old_one() {
    let mut story = Story::new(&json!({}));
    story.fail("c", StartFailure::pull("not found".to_owned()));
    story.now += 3;
    story.expect(&[], Some(7));
    story.pod.spec.containers[0].image = "i:2".to_owned();
    story.expect(&["start c"], None);
}

#[test]
fn deletion_ends_guests_at_once_and_the_object_after_the_status() {
    let mut story = Story::new(&json!({}));
    story.start("c");
    story.told();
    story.delete(30);
    story.expect(&["kill c 143"], Some(32 - 2));
    assert_eq!(story.told(), ["Killing: Stopping container c"]);
    story.happening(Happening::Killed("c".to_owned(), STOPPED));
    story.expect(&[], Some(30));
    assert_eq!(story.status()["phase"], "Running");
    story.end("c", Exit::Killed);
    story.expect(&[], None);
    let status = story.status();
    assert_eq!(status["phase"], "Failed");
    assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["exitCode"], 143);
    story.happening(Happening::Settled);
    story.expect(&["delete"], None);
    story.happening(Happening::Deleted);
    story.expect(&[], None);
    story.happening(Happening::Removed);
    story.expect(&["forget"], None);
}

#[test]
fn an_annotated_pod_has_its_grace() {
    let mut story = Story::new(&json!({}));
    story.pod.metadata.annotations.insert(WAIT_FOR_GRACE.to_owned(), "true".to_owned());
    story.start("c");
    story.delete(30);
    story.expect(&["ask c"], Some(30));
    story.happening(Happening::Asked("c".to_owned()));
    story.expect(&[], Some(30));
    story.now += 29;
    story.expect(&[], Some(1));
    story.now += 1;
    story.expect(&["kill c 137"], None);
    story.kill("c", KILLED);
    assert_eq!(story.status()["containerStatuses"][0]["state"]["terminated"]["exitCode"], 137);
}

#[test]
fn a_guest_that_ends_within_its_grace_keeps_its_exit_code() {
    let mut story = Story::new(&json!({}));
    story.pod.metadata.annotations.insert(WAIT_FOR_GRACE.to_owned(), "true".to_owned());
    story.start("c");
    story.delete(30);
    story.expect(&["ask c"], Some(30));
    story.now += 5;
    story.end("c", Exit::Code(0));
    story.expect(&[], None);
    assert_eq!(story.status()["phase"], "Succeeded");
}

#[test]
fn a_shorter_grace_shortens_the_wait_and_a_longer_one_does_not_lengthen_it() {
    let mut story = Story::new(&json!({}));
    story.pod.metadata.annotations.insert(WAIT_FOR_GRACE.to_owned(), "true".to_owned());
    story.start("c");
    story.delete(30);
    story.expect(&["ask c"], Some(30));
    story.happening(Happening::Asked("c".to_owned()));
    story.now += 10;
    story.delete(5);
    story.expect(&[], Some(5));
    story.delete(60);
    story.expect(&[], Some(5));
}

#[test]
fn deletion_gives_up_what_is_being_started_and_what_waits() {
    let mut story =
        Story::new(&json!({"containers": [{"name": "c", "image": "i:1"}, {"name": "d", "image": "i:1"}]}));
    story.starting("c");
    story.fail("d", StartFailure::pull("x".to_owned()));
    story.delete(30);
    assert_eq!(story.plan().0, ["abort c"]);
    story.happening(Happening::Aborted("c".to_owned()));
    story.expect(&[], None);
    let status = story.status();
    assert_eq!(status["phase"], "Failed");
    for container in status["containerStatuses"].as_array().unwrap() {
        assert_eq!(container["state"]["terminated"]["reason"], "ContainerStatusUnknown");
        assert_eq!(container["state"]["terminated"]["exitCode"], 137);
    }
}

#[test]
fn a_forced_deletion_kills_at_once_whatever_the_annotation_says() {
    let mut story = Story::new(&json!({}));
    story.pod.metadata.annotations.insert(WAIT_FOR_GRACE.to_owned(), "true".to_owned());
    story.start("c");
    story.happening(Happening::Removed);
    story.expect(&["kill c 137"], None);
    story.kill("c", KILLED);
    story.expect(&["forget"], None);
}

#[test]
fn the_active_deadline_fails_the_pod_after_its_containers_ended() {
    let mut story = Story::new(&json!({"activeDeadlineSeconds": 60}));
    story.start("c");
    story.told();
    story.now += 20;
    story.expect(&[], Some(40));
    story.now += 40;
    story.expect(&["kill c 143"], Some(30));
    assert_eq!(
        story.told(),
        [
            "DeadlineExceeded: Pod was active on the node longer than the specified deadline",
            "Killing: Stopping container c"
        ]
    );
    let status = story.status();
    assert_eq!(status["phase"], "Running");
    assert_eq!(status.get("reason"), None);
    story.kill("c", STOPPED);
    story.expect(&[], None);
    let status = story.status();
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &json!("DeadlineExceeded")));
    assert_eq!(status["message"], "Pod was active on the node longer than the specified deadline");
}

#[test]
fn a_pod_that_wants_more_of_the_disk_than_it_may_have_is_evicted() {
    let mut story = Story::new(&json!({}));
    story.pod.metadata.annotations.insert(WAIT_FOR_GRACE.to_owned(), "true".to_owned());
    story.start("c");
    story.told();
    let message = "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ";
    story.happening(Happening::StorageExceeded(message.to_owned()));
    story.expect(&["ask c"], Some(2));
    story.happening(Happening::StorageExceeded("and more".to_owned()));
    assert_eq!(story.told(), [&*format!("Evicted: {message}"), "Killing: Stopping container c"]);
    story.now += 2;
    story.expect(&["kill c 137"], None);
    story.kill("c", KILLED);
    story.expect(&[], None);
    let status = story.status();
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &json!("Evicted")));
    assert_eq!(status["message"], message);
    let conditions = status["conditions"].as_array().unwrap();
    let disrupted = conditions.iter().find(|condition| condition["type"] == "DisruptionTarget").unwrap();
    assert_eq!(
        (&disrupted["status"], &disrupted["reason"], &disrupted["message"]),
        (&json!("True"), &json!("TerminationByKubelet"), &json!(message))
    );
}

#[test]
fn a_pod_that_is_over_is_not_evicted_any_more() {
    let mut story = Story::new(&json!({"restartPolicy": "Never"}));
    story.start("c");
    story.end("c", Exit::Code(0));
    story.told();
    story.happening(Happening::StorageExceeded("too late".to_owned()));
    assert!(story.told().is_empty());
    assert_eq!(story.status()["phase"], "Succeeded");
}

#[test]
fn a_deadline_counts_from_the_start_time_that_the_api_shows_but_not_by_an_unset_clock() {
    let mut story = Story::new(&json!({"activeDeadlineSeconds": 60}));
    story.pod.status.start_time = Some(at(0).wall.into());
    story.record = PodRecord::begin(&story.pod, Admission::Admitted, at(50));
    story.now = 50;
    story.record.container_mut("c").unwrap().activity = Activity::Starting;
    story.expect(&[], Some(10));
    let unset = Now { wall: jiff::Timestamp::UNIX_EPOCH, mono: at(50).mono };
    story.record = PodRecord::begin(&story.pod, Admission::Admitted, unset);
    assert_eq!(story.record.active(at(50)), Duration::ZERO);
}

#[test]
fn a_pod_that_is_over_is_left_alone_by_its_deadline() {
    let mut story = Story::new(&json!({"activeDeadlineSeconds": 60, "restartPolicy": "Never"}));
    story.start("c");
    story.end("c", Exit::Code(0));
    story.now += 100;
    story.expect(&[], None);
    assert_eq!(story.status()["phase"], "Succeeded");
}

#[test]
fn a_pod_that_somebody_else_declared_over_is_ended() {
    let mut story = Story::new(&json!({}));
    story.start("c");
    assert_eq!(story.status()["phase"], "Running");
    story.pod.status = serde_json::from_value(json!({"phase": "Failed", "reason": "Lost"})).unwrap();
    story.expect(&["kill c 143"], Some(30));
    story.kill("c", STOPPED);
    story.expect(&[], None);
    let status = story.status();
    assert_eq!(status["phase"], "Failed");
    assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["exitCode"], 143);
}

#[test]
fn a_rejected_pod_is_only_reported_and_deleted() {
    let mut story = Story::new(&json!({}));
    let rejection = crate::pod::admission::Rejection::new("OutOfpods", "full".to_owned());
    story.record.admission = Admission::Rejected(rejection);
    story.expect(&[], None);
    story.happening(Happening::Settled);
    story.expect(&[], None);
    story.delete(30);
    story.expect(&["delete"], None);
}

#[test]
fn after_a_restart_of_the_agent_history_goes_on() {
    let container = |state: serde_json::Value| {
        json!([{"name": "c", "image": "i:1", "restartCount": 3, "containerID": "copepod://x", "state": state,
            "lastState": {"terminated": {"exitCode": 9, "containerID": "copepod://w"}}}])
    };
    let running = || container(json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}}));
    let ended =
        |code: i32| container(json!({"terminated": {"exitCode": code, "containerID": "copepod://x"}}));
    for (policy, phase, statuses, expected, shown_phase, exit, count) in [
        ("Always", "Running", running(), vec!["start c"], "Running", 137, 3),
        ("Never", "Running", running(), vec![], "Failed", 137, 4),
        ("OnFailure", "Running", running(), vec!["start c"], "Running", 137, 3),
        ("OnFailure", "Running", ended(0), vec![], "Succeeded", 0, 3),
        ("Always", "Running", ended(0), vec!["start c"], "Running", 0, 3),
        ("Never", "Failed", ended(5), vec![], "Failed", 5, 3),
        ("Always", "Succeeded", ended(0), vec![], "Succeeded", 0, 3),
    ] {
        let mut story = Story::new(&json!({"restartPolicy": policy}));
        story.pod.status =
            serde_json::from_value(json!({"phase": phase, "containerStatuses": statuses})).unwrap();
        story.record = PodRecord::begin(&story.pod, Admission::Admitted, at(0));
        story.expect(&expected, None);
        let status = story.status();
        let case = format!("{policy} {phase} {statuses}");
        assert_eq!(status["phase"], shown_phase, "{case}");
        let container = &status["containerStatuses"][0];
        assert_eq!(container["state"]["terminated"]["exitCode"], exit, "{case}");
        assert_eq!(container["restartCount"], count, "{case}");
        if !expected.is_empty() {
            story.start("c");
            let container = &story.status()["containerStatuses"][0];
            assert_eq!(container["restartCount"], 4, "{case}");
            assert_eq!(container["lastState"]["terminated"]["exitCode"], exit, "{case}");
        }
    }
}

#[test]
fn texts_from_outside_are_cut() {
    let mut story = Story::new(&json!({}));
    story.fail("c", StartFailure::pull("é".repeat(5000)));
    let message = story.status()["containerStatuses"][0]["state"]["waiting"]["message"].clone();
    assert_eq!(message.as_str().unwrap().len(), crate::pod::happening::MAX_MESSAGE);
}
