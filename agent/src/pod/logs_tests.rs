//! Which log is meant, and the words when there is none.

use super::*;
use crate::pod::lifecycle::StartFailure;
use crate::pod::samples::Story;
use crate::runtime::Exit;
use serde_json::json;

fn log(story: &mut Story, container: &str, previous: bool) -> Result<(u32, bool), LogRefusal> {
    story.plan();
    story.status();
    find(&story.record, container, previous).map(|log| (log.run, log.running))
}

#[test]
fn each_stage_has_its_log_or_its_reason() {
    let mut story = Story::new(&json!({}));
    let waiting = |reason: &str| Err(LogRefusal::Waiting(reason.to_owned()));
    assert_eq!(log(&mut story, "x", false), Err(LogRefusal::NoContainer));
    assert_eq!(log(&mut story, "c", false), waiting("ContainerCreating"));
    story.fail("c", StartFailure::pull("x".to_owned()));
    assert_eq!(log(&mut story, "c", false), waiting("ErrImagePull"));
    story.now += 5;
    assert_eq!(log(&mut story, "c", false), waiting("ImagePullBackOff"));
    story.start("c");
    assert_eq!(log(&mut story, "c", false), Ok((0, true)));
    assert_eq!(log(&mut story, "c", true), Err(LogRefusal::NoPrevious));
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
    assert_eq!(log(&mut story, "c", false), Err(LogRefusal::Terminated));
}
