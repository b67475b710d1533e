//! Restart and pull policies, with the API's defaults for manifests that never passed through it.

use serde_json::Value;

use crate::api::{Container, Pod};

/// Is a container to run again after it ended with `exit_code`? (`podutil.ContainerShouldRestart`)
///
/// The container's own rules come first, then its own policy, then the pod's. An init container that
/// succeeded is done whatever the pod's policy says, unless it is a sidecar.
#[must_use]
pub fn restarts(pod: &Pod, container: &Container, init: bool, exit_code: i32) -> bool {
    if container.restart_policy_rules.iter().any(|rule| rule_restarts(rule, exit_code)) {
        return true;
    }
    let policy = container.restart_policy.as_deref().unwrap_or(&pod.spec.restart_policy);
    match policy {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => !init || exit_code != 0 || is_sidecar(container),
    }
}

/// Of an init container: does it run beside those that come after it, as long as the pod does?
/// (`podutil.IsRestartableInitContainer`)
#[must_use]
pub fn is_sidecar(init: &Container) -> bool {
    init.restart_policy.as_deref() == Some("Always")
}

fn rule_restarts(rule: &Value, exit_code: i32) -> bool {
    let is = |value: Option<&Value>, text: &str| value.and_then(Value::as_str) == Some(text);
    let listed = rule
        .pointer("/exitCodes/values")
        .and_then(Value::as_array)
        .is_some_and(|codes| codes.iter().any(|code| code.as_i64() == Some(i64::from(exit_code))));
    let operator = rule.pointer("/exitCodes/operator");
    is(rule.get("action"), "Restart")
        && ((is(operator, "In") && listed) || (is(operator, "NotIn") && !listed))
}

/// When an image is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// Before every start.
    Always,
    /// When it is not in the store.
    IfNotPresent,
    /// Never: it is in the store or the container waits.
    Never,
}

/// A container's pull policy; without one, `Always` for the tag `latest` (or no tag), else `IfNotPresent`.
#[must_use]
pub fn pull_policy(container: &Container) -> PullPolicy {
    pull_policy_of(&container.image_pull_policy, &container.image)
}

/// The pull policy of an image, a container's or a volume's, by its name.
#[must_use]
pub fn pull_policy_of(policy: &str, image: &str) -> PullPolicy {
    match policy {
        "Always" => PullPolicy::Always,
        "IfNotPresent" => PullPolicy::IfNotPresent,
        "Never" => PullPolicy::Never,
        _ => {
            let name = image.rsplit('/').next().unwrap_or_default();
            let latest = !image.contains('@') && name.split_once(':').is_none_or(|(_, tag)| tag == "latest");
            if latest {
                PullPolicy::Always
            } else {
                PullPolicy::IfNotPresent
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::samples::{container, pod};
    use serde_json::json;

    #[test]
    fn restart_decisions() {
        let rule =
            |operator: &str| json!({"action": "Restart", "exitCodes": {"operator": operator, "values": [3]}});
        for (pod_policy, own, rules, init, code, expected) in [
            ("Always", None, None, false, 0, true),
            ("Always", None, None, false, 1, true),
            ("Always", None, None, true, 0, false),
            ("Always", None, None, true, 1, true),
            ("OnFailure", None, None, false, 0, false),
            ("OnFailure", None, None, false, 1, true),
            ("OnFailure", None, None, true, 1, true),
            ("Never", None, None, false, 0, false),
            ("Never", None, None, false, 1, false),
            ("Never", None, None, true, 1, false),
            ("Never", Some("Always"), None, true, 0, true),
            ("Never", Some("Always"), None, true, 1, true),
            ("Always", Some("Never"), None, true, 1, false),
            ("Always", Some("Never"), None, false, 1, false),
            ("Never", Some("OnFailure"), None, false, 1, true),
            ("Never", None, Some(rule("In")), false, 3, true),
            ("Never", None, Some(rule("In")), false, 4, false),
            ("Never", None, Some(rule("NotIn")), false, 4, true),
            ("Never", None, Some(rule("NotIn")), false, 3, false),
        ] {
            let pod = pod(&json!({"restartPolicy": pod_policy}));
            let mut container = container("c");
            container.restart_policy = own.map(str::to_owned);
            container.restart_policy_rules = rules.clone().into_iter().collect();
            assert_eq!(
                restarts(&pod, &container, init, code),
                expected,
                "{pod_policy} {own:?} {rules:?} init={init} code={code}"
            );
        }
    }

    #[test]
    fn pull_policies_and_their_defaults() {
        for (given, image, expected) in [
            ("Always", "a:1", PullPolicy::Always),
            ("Never", "a", PullPolicy::Never),
            ("IfNotPresent", "a", PullPolicy::IfNotPresent),
            ("", "a", PullPolicy::Always),
            ("", "a:latest", PullPolicy::Always),
            ("", "host:5000/a", PullPolicy::Always),
            ("", "host:5000/a:v1", PullPolicy::IfNotPresent),
            ("", "a@sha256:0", PullPolicy::IfNotPresent),
        ] {
            let mut container = container("c");
            container.image = image.to_owned();
            container.image_pull_policy = given.to_owned();
            assert_eq!(pull_policy(&container), expected, "{given} {image}");
        }
    }
}
