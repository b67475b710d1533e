//! What an earlier life of the agent reported, taken up again.

use super::*;
use crate::pod::samples::{at, Story};
use crate::runtime::Exit;
use serde_json::json;

#[test]
fn a_crash_loop_goes_on_after_a_restart_of_the_agent() {
    // How long ago it crashed, in seconds; after how many restarts; what is left of the wait.
    for (passed, restarts, left) in [
        (0, 1, Some(10)),
        (4, 1, Some(6)),
        (4, 3, Some(36)),
        (10, 1, None),
        (5000, 2, None),
        (0, 6, Some(300)),
        (0, i32::MAX, Some(300)),
        (-1000, 2, Some(20)),
    ] {
        let mut story = Story::new(&json!({}));
        let crashed = jiff::Timestamp::from_second(at(0).wall.as_second() - passed).unwrap();
        story.pod.status = serde_json::from_value(json!({"phase": "Running", "containerStatuses": [{
            "name": "c", "image": "i:1", "restartCount": restarts,
            "state": {"waiting": {"reason": CRASH_LOOP, "message": "back-off 10s"}},
            "lastState": {"terminated": {"exitCode": 1, "containerID": "copepod://1",
                "finishedAt": crashed.to_string()}}}]}))
        .unwrap();
        story.record = PodRecord::begin(&story.pod, Admission::Admitted, at(0));
        match left {
            Some(_) => story.expect(&[], left),
            None => story.expect(&["start c"], None),
        }
        let status = story.status();
        let shown = status.pointer("/containerStatuses/0/state/waiting/message").cloned();
        assert_eq!(shown, Some(json!("back-off 10s")), "{passed} {restarts}");
    }
}

#[test]
fn the_wait_after_a_restored_crash_loop_is_the_next_one() {
    let mut story = Story::new(&json!({}));
    story.pod.status = serde_json::from_value(json!({"phase": "Running", "containerStatuses": [{
        "name": "c", "image": "i:1", "restartCount": 2, "state": {"waiting": {"reason": CRASH_LOOP}},
        "lastState": {"terminated": {"exitCode": 1, "finishedAt": at(0).wall.to_string()}}}]}))
    .unwrap();
    story.record = PodRecord::begin(&story.pod, Admission::Admitted, at(0));
    story.expect(&[], Some(20));
    story.now = 20;
    story.start("c");
    story.end("c", Exit::Code(1));
    story.expect(&[], Some(40));
}
