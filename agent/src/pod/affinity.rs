//! Does a node match a pod's selector and required affinity, and does the pod bear the node's taints?
//! (`component-helpers/scheduling/corev1`)

use std::collections::BTreeMap;

use super::node::NodeFacts;
use crate::api::{NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration};

/// nodeSelector and the required node affinity, both.
pub fn matches(pod: &Pod, node: &NodeFacts) -> bool {
    let selected = pod.spec.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
    let required = pod
        .spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| affinity.required.as_ref());
    selected && required.is_none_or(|r| r.node_selector_terms.iter().any(|term| term_matches(term, node)))
}

fn term_matches(term: &NodeSelectorTerm, node: &NodeFacts) -> bool {
    if term.match_expressions.is_empty() && term.match_fields.is_empty() {
        return false;
    }
    let fields = BTreeMap::from([("metadata.name".to_owned(), node.name.clone())]);
    term.match_expressions.iter().all(|r| requirement_matches(r, &node.labels))
        && term.match_fields.iter().all(|r| requirement_matches(r, &fields))
}

fn requirement_matches(requirement: &NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&requirement.key);
    let listed = value.is_some_and(|value| requirement.values.contains(value));
    let numbers = || {
        let own: i64 = value?.parse().ok()?;
        let bound: i64 = requirement.values.first()?.parse().ok()?;
        Some((own, bound))
    };
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(own, bound)| own > bound),
        "Lt" => numbers().is_some_and(|(own, bound)| own < bound),
        _ => false,
    }
}

/// The first NoExecute taint that the pod does not bear.
pub fn untolerated<'n>(pod: &Pod, node: &'n NodeFacts) -> Option<&'n Taint> {
    node.taints
        .iter()
        .filter(|taint| taint.effect == "NoExecute")
        .find(|taint| !pod.spec.tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    if !toleration.effect.is_empty() && *toleration.effect != *taint.effect {
        return false;
    }
    if !toleration.key.is_empty() && *toleration.key != *taint.key {
        return false;
    }
    let numbers = || Some((taint.value.parse::<i64>().ok()?, toleration.value.parse::<i64>().ok()?));
    match &*toleration.operator {
        "" | "Equal" => !toleration.key.is_empty() && toleration.value == taint.value,
        "Exists" => true,
        "Gt" => numbers().is_some_and(|(taint, bound)| taint > bound),
        "Lt" => numbers().is_some_and(|(taint, bound)| taint < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::samples::{node, pod};
    use serde_json::{json, Value};

    #[test]
    fn selectors_and_required_affinity() {
        let mut node = node();
        node.labels.insert("size".to_owned(), "5".to_owned());
        let term = |expression: Value| {
            json!({"affinity": {"nodeAffinity":
            {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [expression]}}}})
        };
        let label = |operator: &str, values: Value| {
            term(json!({"matchExpressions": [{"key": "size", "operator": operator, "values": values}]}))
        };
        let none = json!({"matchExpressions": [{"key": "no", "operator": "DoesNotExist"}]});
        let field = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]});
        for (spec, expected) in [
            (json!({}), true),
            (json!({"nodeSelector": {"size": "5"}}), true),
            (json!({"nodeSelector": {"size": "6"}}), false),
            (json!({"nodeSelector": {"kubernetes.io/os": "linux"}}), false),
            (label("In", json!(["5"])), true),
            (label("In", json!(["6"])), false),
            (label("NotIn", json!(["6"])), true),
            (label("Exists", json!([])), true),
            (label("DoesNotExist", json!([])), false),
            (label("Gt", json!(["4"])), true),
            (label("Gt", json!(["5"])), false),
            (label("Lt", json!(["6"])), true),
            (label("Lt", json!(["x"])), false),
            (label("Odd", json!(["5"])), false),
            (term(none), true),
            (term(field), true),
            (term(json!({})), false),
        ] {
            assert_eq!(matches(&pod(&spec), &node), expected, "{spec}");
        }
    }

    #[test]
    fn tolerations() {
        let mut node = node();
        let taint = |effect: &str| Taint {
            key: "krustlet/arch".to_owned(),
            value: "wasm32-wasi".to_owned(),
            effect: effect.to_owned(),
            ..Taint::default()
        };
        node.taints = vec![taint("NoSchedule"), taint("NoExecute")];
        for (toleration, expected) in [
            (
                json!({"key": "krustlet/arch", "operator": "Equal", "value": "wasm32-wasi", "effect": "NoExecute"}),
                true,
            ),
            (json!({"key": "krustlet/arch", "value": "wasm32-wasi"}), true),
            (json!({"key": "krustlet/arch", "operator": "Exists"}), true),
            (json!({"operator": "Exists"}), true),
            (json!({"operator": "Exists", "effect": "NoSchedule"}), false),
            (json!({"key": "krustlet/arch", "value": "other"}), false),
            (json!({"key": "other", "operator": "Exists"}), false),
        ] {
            let pod = pod(&json!({"tolerations": [toleration]}));
            assert_eq!(untolerated(&pod, &node).is_none(), expected, "{toleration}");
        }
        node.taints.truncate(1);
        assert!(untolerated(&pod(&json!({})), &node).is_none(), "only NoExecute is the node's business");
    }
}
