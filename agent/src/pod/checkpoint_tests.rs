//! Pods that are written down and taken up again.

use super::*;
use crate::api::ConfigMap;
use crate::pod::happening::Happening;
use crate::pod::samples::{at, Story};
use crate::runtime::Exit;
use serde_json::{json, Value};

/// What the agent's next life makes of the story, `later` seconds on, after a restart or a reboot.
fn next_life(story: &Story, later: u64, rebooted: bool) -> Story {
    let written = checkpoint(&story.pod, &story.record, &Kept::default(), at(story.now), true).unwrap();
    let mut json: Value = serde_json::from_slice(&written.bytes).unwrap();
    let mut now = at(story.now + later);
    if rebooted {
        json["at"]["boot"] = json!("another");
        // The monotonic clock began anew.
        now.mono = std::time::Duration::from_secs(500_000);
    }
    let Resumed { pod, record, .. } = resume(json.to_string().as_bytes(), now).unwrap();
    let mut next = Story::new(&json!({}));
    if rebooted {
        next.mono_at(now);
    }
    next.now = story.now + later;
    next.pod = pod;
    next.record = record;
    next
}

fn fingerprint(story: &Story) -> u64 {
    checkpoint(&story.pod, &story.record, &Kept::default(), at(story.now), true).unwrap().fingerprint
}

#[test]
fn what_ran_runs_again_and_its_end_is_unknown() {
    for rebooted in [false, true] {
        let mut story = Story::new(&json!({}));
        story.start("c");
        story.end("c", Exit::Code(3));
        story.start("c");
        story.status();
        let mut next = next_life(&story, 100, rebooted);
        next.expect(&["start c"], None);
        next.start("c");
        let container = &next.status()["containerStatuses"][0];
        assert_eq!(container["restartCount"], 2);
        let last = &container["lastState"]["terminated"];
        assert_eq!((&last["exitCode"], &last["reason"]), (&json!(137), &json!("ContainerStatusUnknown")));
        assert_eq!(last["containerID"], "copepod://1");
        assert!(last["startedAt"].is_string());
    }
}

#[test]
fn what_must_not_run_again_does_not_and_what_has_finished_stays_so() {
    let spec = json!({
        "restartPolicy": "Never",
        "containers": [{"name": "c", "image": "i:1"}, {"name": "d", "image": "i:1"}],
    });
    let mut story = Story::new(&spec);
    story.start("c");
    story.start("d");
    story.end("d", Exit::Code(0));
    let mut next = next_life(&story, 1, true);
    next.expect(&[], None);
    let status = next.status();
    assert_eq!(status["phase"], "Failed");
    let (lost, finished) = (&status["containerStatuses"][0], &status["containerStatuses"][1]);
    assert_eq!(lost["state"]["terminated"]["reason"], "ContainerStatusUnknown");
    assert_eq!((&lost["restartCount"], &finished["restartCount"]), (&json!(1), &json!(0)));
    assert_eq!(finished["state"]["terminated"]["exitCode"], 0);
    assert_eq!(finished["state"]["terminated"]["reason"], "Completed");
}

#[test]
fn a_run_counts_from_the_moment_that_it_is_given_to_the_runtime() {
    let mut story = Story::new(&json!({"restartPolicy": "Never"}));
    story.starting("c");
    assert!(!story.record.is_worth_keeping(), "nothing has begun");
    let launching = Happening::Launching {
        container: "c".into(),
        id: "copepod://x".into(),
        image_id: "i@sha256:1".into(),
    };
    story.happening(launching);
    assert!(story.record.is_worth_keeping());
    let before = fingerprint(&story);
    let mut next = next_life(&story, 1, false);
    next.expect(&[], None);
    let container = &next.status()["containerStatuses"][0];
    assert_eq!(container["state"]["terminated"]["containerID"], "copepod://x");
    assert_eq!(container["imageID"], "i@sha256:1");
    // That it runs then is no news for the disk, however long the module took to compile.
    story.now += 5;
    let started =
        Happening::Started { container: "c".into(), id: "copepod://x".into(), image_id: "i@sha256:1".into() };
    story.happening(started);
    assert_eq!(fingerprint(&story), before);
    story.end("c", Exit::Code(0));
    assert_ne!(fingerprint(&story), before);
}

#[test]
fn what_only_waits_or_was_only_reported_is_not_written_anew() {
    let spec = json!({"containers": [{"name": "c", "image": "i:1"}, {"name": "d", "image": "i:1"}]});
    let mut story = Story::new(&spec);
    story.start("c");
    let before = fingerprint(&story);
    for _ in 0..3 {
        story.fail("d", super::super::lifecycle::StartFailure::Config("no such key".into()));
        story.status();
        story.pod.metadata.resource_version += "1";
        story.now += 10;
        story.starting("d");
    }
    story.fail("d", super::super::lifecycle::StartFailure::pull("no such host".into()));
    assert_eq!(fingerprint(&story), before);
}

#[test]
fn back_offs_go_on() {
    for (rebooted, left) in [(false, 13), (true, 13)] {
        let mut story = Story::new(&json!({}));
        for _ in 0..2 {
            story.start("c");
            story.end("c", Exit::Code(1));
        }
        story.now += 10;
        story.start("c");
        story.end("c", Exit::Code(1));
        story.expect(&[], Some(20));
        let mut next = next_life(&story, 7, rebooted);
        next.expect(&[], Some(left));
        assert_eq!(next.status()["containerStatuses"][0]["state"]["waiting"]["reason"], "CrashLoopBackOff");
        next.now += left;
        next.start("c");
        next.end("c", Exit::Code(1));
        next.expect(&[], Some(40));
    }
}

#[test]
fn deadlines_and_graces_go_on() {
    let mut story = Story::new(&json!({"activeDeadlineSeconds": 100}));
    story.start("c");
    story.now += 30;
    next_life(&story, 20, false).expect(&["start c"], Some(50));
    next_life(&story, 20, true).expect(&["start c"], Some(50));
    let mut late = next_life(&story, 90, true);
    late.expect(&[], None);
    assert_eq!(late.status()["reason"], "DeadlineExceeded");
    story.delete(30);
    story.expect(&["kill c 143"], Some(30));
    let mut next = next_life(&story, 10, false);
    next.expect(&[], None);
    assert_eq!(next.status()["phase"], "Failed");
}

#[test]
fn what_is_damaged_or_of_a_later_version_is_not_taken_up() {
    let mut story = Story::new(&json!({}));
    story.start("c");
    let written = checkpoint(&story.pod, &story.record, &Kept::default(), at(0), true).unwrap().bytes;
    let refused = |bytes: &[u8]| resume(bytes, at(0)).unwrap_err();
    assert!(refused(&written[..written.len() / 2]).contains("EOF"));
    assert!(refused(b"").contains("EOF"));
    let text = String::from_utf8(written).unwrap();
    let later = text.replace("\"version\":1", "\"version\":2");
    assert_eq!(refused(later.as_bytes()), "it is of form 2, and this version of copepod reads form 1");
    let mut other: Value = serde_json::from_str(&text).unwrap();
    other["state"]["record"]["containers"] = json!([]);
    assert!(refused(other.to_string().as_bytes()).contains("other containers"));
}

#[test]
fn what_starts_were_given_comes_back() {
    let story = Story::new(&json!({}));
    let mut map = ConfigMap::default();
    map.data.insert("k".into(), "v".into());
    let sources = Sources { config_maps: [("m".to_owned(), map)].into(), ..Sources::default() };
    let mut secret = Secret::default();
    secret.data.insert(".dockerconfigjson".into(), crate::api::ByteString(b"{}".to_vec()));
    let kept = Kept {
        sources: vec![("c".to_owned(), Arc::new(sources))],
        pull_secrets: Some(Arc::new(vec![secret.clone()])),
    };
    let written = checkpoint(&story.pod, &story.record, &kept, at(0), true).unwrap();
    let kept = resume(&written.bytes, at(0)).unwrap().kept;
    assert_eq!(kept.sources_of("c").unwrap().config_maps["m"].data["k"], "v");
    assert_eq!(kept.pull_secrets, Some(Arc::new(vec![secret])));
}
