//! What a container says of its own end (`kuberuntime_container.go`, getTerminationMessage).

use super::happening::bounded;
use crate::api::{Container, Pod};

/// Where a container writes it that names no other place (`TerminationMessagePathDefault`).
const DEFAULT_PATH: &str = "/dev/termination-log";
/// Bytes of the messages of all containers of a pod together (`MaxPodTerminationMessageLogLength`).
const MAX_OF_POD: usize = 12 * 1024;
/// Lines and bytes of a log that stand in for a message (`MaxContainerTerminationMessageLogLines`, `…LogLength`).
pub const LOG_LINES: usize = 80;
/// See [`LOG_LINES`].
pub const LOG_BYTES: usize = 2048;

/// Where the container writes its message: absolute.
#[must_use]
pub fn message_path(container: &Container) -> &str {
    match container.termination_message_path.as_str() {
        "" => DEFAULT_PATH,
        path => path,
    }
}

/// Does the container say of its message what holds for one that says nothing?
#[must_use]
pub fn is_default_message(container: &Container) -> bool {
    container.termination_message_path == DEFAULT_PATH && container.termination_message_policy == "File"
}

/// Does the end of the log stand in for a message that is not there?
#[must_use]
pub fn falls_back_to_log(container: &Container, exit_code: i32) -> bool {
    exit_code != 0 && container.termination_message_policy == "FallbackToLogsOnError"
}

/// `message` of a run that ended: what the guest has left, as far as there is room for it, else `own`.
#[must_use]
pub fn message(pod: &Pod, left: &[u8], own: String) -> String {
    let containers = pod.spec.init_containers.len().saturating_add(pod.spec.containers.len()).max(1);
    let share = MAX_OF_POD.checked_div(containers).unwrap_or(MAX_OF_POD);
    let text = if left.is_empty() { own } else { String::from_utf8_lossy(left).into_owned() };
    bounded(text, share)
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use serde_json::json;

    #[test]
    fn the_guests_word_comes_first_and_has_its_share() {
        let one = samples::pod(&json!({}));
        assert_eq!(message(&one, b"", "trap".into()), "trap");
        assert_eq!(message(&one, b"mine\xff", "trap".into()), "mine\u{fffd}");
        let many: Vec<_> = (0..6).map(|n| json!({"name": format!("c{n}"), "image": "i"})).collect();
        let many = samples::pod(&json!({"containers": many}));
        assert_eq!(message(&many, &[b'x'; 4096], String::new()).len(), 2048);
        let container = samples::container("c");
        assert_eq!(message_path(&container), "/dev/termination-log");
        let falls = Container { termination_message_policy: "FallbackToLogsOnError".into(), ..container };
        assert!(falls_back_to_log(&falls, 1) && !falls_back_to_log(&falls, 0));
    }
}
