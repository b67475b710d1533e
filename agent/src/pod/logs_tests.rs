//! Which log is meant, and the words when there is none.

use super::*;
use crate::pod::lifecycle::StartFailure;
use crate::pod::samples::Story;
use crate::runtime::Exit;
use serde_json::json;

fn log(story: &mut Story, container: &str, previous: bool) -> Result<(u32, bool), String> {
    story.plan();
    story.status();
    let found = find("p", &story.record, container, previous);
    found.map(|log| (log.run, log.running)).map_err(|refusal| match refusal {
        LogRefusal::NotFound(text) => format!("404 {text}"),
        LogRefusal::BadRequest(text) => format!("400 {text}"),
    })
}

#[test]
fn each_stage_has_its_log_or_its_words() {
    let mut story = Story::new(&json!({}));
    let refused = |text: &str| Err(text.to_owned());
    assert_eq!(log(&mut story, "x", false), refused("404 container \"x\" not found in pod \"p\""));
    assert_eq!(
        log(&mut story, "c", false),
        refused("400 container \"c\" in pod \"p\" is waiting to start: ContainerCreating")
    );
    story.fail("c", StartFailure::Pull("x".to_owned()));
    assert_eq!(
        log(&mut story, "c", false),
        refused("400 container \"c\" in pod \"p\" is waiting to start: image can't be pulled")
    );
    story.now += 5;
    assert_eq!(
        log(&mut story, "c", false),
        refused("400 container \"c\" in pod \"p\" is waiting to start: trying and failing to pull image")
    );
    story.start("c");
    assert_eq!(log(&mut story, "c", false), Ok((0, true)));
    assert_eq!(
        log(&mut story, "c", true),
        refused("400 previous terminated container \"c\" in pod \"p\" not found")
    );
    story.end("c", Exit::Code(1));
    assert_eq!(log(&mut story, "c", false), Ok((0, false)));
    story.start("c");
    assert_eq!(log(&mut story, "c", true), Ok((0, false)));
    story.end("c", Exit::Code(1));
    assert_eq!(log(&mut story, "c", false), Ok((1, false)), "the run before the back-off");
    assert_eq!(log(&mut story, "c", true), Ok((1, false)), "which is lastState then");
    story.start("c");
    assert_eq!(log(&mut story, "c", false), Ok((2, true)));
    assert_eq!(log(&mut story, "c", true), Ok((1, false)));
}

#[test]
fn a_container_that_never_ran_has_no_log() {
    let mut story = Story::new(&json!({"restartPolicy": "Never"}));
    story.fail("c", StartFailure::Run("not a module".to_owned()));
    assert_eq!(log(&mut story, "c", false), Err("400 container \"c\" in pod \"p\" is terminated".to_owned()));
}

#[test]
fn a_pod_that_is_not_there_is_said_so() {
    assert_eq!(no_pod("p"), LogRefusal::NotFound("pod \"p\" does not exist".to_owned()));
}
