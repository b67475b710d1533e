//! What of a status is new, as a strategic merge patch of `pods/status` (`util/pod/pod.go`, PatchPodStatus).

use serde_json::{json, Map, Value};

use crate::api::{Pod, PodStatus};

/// The patch that turns the status `old` into `new`; `None` when they are alike. The UID is the
/// precondition: a pod of the same name that came later is not touched.
///
/// Lists of containers are whole, since the API replaces them; conditions merge by type, so that those of
/// others stay; addresses would merge too, so they are replaced explicitly.
#[must_use]
pub fn status_patch(pod: &Pod, old: &PodStatus, new: &PodStatus) -> Option<Value> {
    let (old, new) = (fields(old), fields(new));
    let mut status = Map::new();
    for (key, value) in &new {
        if old.get(key) == Some(value) {
            continue;
        }
        let change = match (key.as_str(), value) {
            ("conditions", Value::Array(list)) => {
                let changes = conditions(old.get(key), list);
                if changes.is_empty() {
                    // The same in another order.
                    continue;
                }
                Value::Array(changes)
            }
            ("podIPs" | "hostIPs", Value::Array(list)) => {
                std::iter::once(json!({"$patch": "replace"})).chain(list.iter().cloned()).collect()
            }
            _ => value.clone(),
        };
        status.insert(key.clone(), change);
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        let change = match key.as_str() {
            // A null would take away those of others as well.
            "conditions" => Value::Array(conditions(old.get(key), &[])),
            _ => Value::Null,
        };
        status.insert(key.clone(), change);
    }
    if status.is_empty() {
        return None;
    }
    Some(json!({"metadata": {"uid": pod.metadata.uid}, "status": status}))
}

fn fields(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// The conditions that changed, and those that are no more.
fn conditions(old: Option<&Value>, new: &[Value]) -> Vec<Value> {
    let old: &[Value] = old.and_then(Value::as_array).map_or(&[], Vec::as_slice);
    let kind = |condition: &Value| condition.get("type").cloned().unwrap_or_default();
    let changed = new.iter().filter(|condition| !old.contains(condition)).map(|condition| {
        let before = old.iter().find(|before| kind(before) == kind(condition));
        let mut condition = condition.clone();
        // A reason that is gone must be taken away: what a patch leaves out stays.
        let keys = before.and_then(Value::as_object).map(Map::keys);
        if let (Some(keys), Some(fields)) = (keys, condition.as_object_mut()) {
            for key in keys {
                fields.entry(key.clone()).or_insert(Value::Null);
            }
        }
        condition
    });
    let gone = old
        .iter()
        .filter(|before| !new.iter().any(|condition| kind(condition) == kind(before)))
        .map(|before| json!({"$patch": "delete", "type": kind(before)}));
    changed.chain(gone).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::pod::samples::pod;

    fn read(status: Value) -> PodStatus {
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn a_rejected_pod_loses_its_conditions_one_by_one_and_never_those_of_others() {
        let old = read(json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"},
            {"type": "Ready", "status": "False"}]}));
        let new = read(json!({"phase": "Failed", "reason": "OutOfcpu"}));
        let patch = status_patch(&pod(&json!({})), &old, &new).unwrap();
        let expected = json!({"phase": "Failed", "reason": "OutOfcpu", "conditions": [
            {"$patch": "delete", "type": "PodScheduled"}, {"$patch": "delete", "type": "Ready"}]});
        assert_eq!(patch.get("status"), Some(&expected));
    }

    #[test]
    fn only_what_changed_is_sent() {
        let old = read(json!({
            "phase": "Running", "reason": "R", "podIP": "1.1.1.1", "podIPs": [{"ip": "1.1.1.1"}],
            "conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "m"},
                {"type": "PodScheduled", "status": "True"}, {"type": "Gone", "status": "True"}],
            "containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "X"}}}],
        }));
        let new = read(json!({
            "phase": "Running", "podIP": "2.2.2.2", "podIPs": [{"ip": "2.2.2.2"}],
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}],
            "containerStatuses": [{"name": "c", "state": {"running": {}}, "ready": true}],
        }));
        let pod = pod(&json!({}));
        assert_eq!(
            status_patch(&pod, &old, &new).unwrap(),
            json!({
                "metadata": {"uid": "u"},
                "status": {
                    "reason": null, "podIP": "2.2.2.2", "podIPs": [{"$patch": "replace"}, {"ip": "2.2.2.2"}],
                    "conditions": [{"type": "Ready", "status": "True", "reason": null, "message": null},
                        {"$patch": "delete", "type": "Gone"}],
                    "containerStatuses": [{"name": "c", "ready": true, "restartCount": 0, "image": "", "imageID": "",
                        "state": {"running": {}}}],
                },
            })
        );
        assert_eq!(status_patch(&pod, &new, &new), None);
        let mut turned = new.clone();
        turned.conditions.reverse();
        assert_eq!(status_patch(&pod, &turned, &new), None, "order says nothing");
    }
}
