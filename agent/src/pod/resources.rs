//! What pods ask for, and their class of service (`component-helpers/resource`, `pkg/apis/core/v1/helper/qos`).

use std::collections::{BTreeMap, BTreeSet};

use super::policy::is_sidecar;
use crate::api::{Container, Pod, Quantity, ResourceRequirements};

/// CPU is counted in thousandths, everything else in units.
#[must_use]
pub fn amount(resource: &str, quantity: &Quantity) -> Option<i64> {
    if resource == "cpu" {
        quantity.milli()
    } else {
        quantity.value()
    }
}

/// What a pod asks of the node, as the scheduler reckons it: what [`most_at_once`] of its containers ask, or what
/// the pod says for itself; plus its overhead.
#[must_use]
pub fn requests(pod: &Pod) -> BTreeMap<String, i64> {
    let containers = pod.spec.init_containers.iter().chain(&pod.spec.containers);
    let asked = containers.flat_map(|container| amounts(&container.resources.requests));
    let names: BTreeSet<String> = asked.map(|(name, _)| name).collect();
    let most = |name: String| {
        let of = |container: &Container| {
            let quantity = container.resources.requests.get(&name);
            let amount = quantity.and_then(|quantity| amount(&name, quantity));
            amount.and_then(|amount| u64::try_from(amount).ok()).unwrap_or(0)
        };
        let most = most_at_once(pod, of);
        (name, i64::try_from(most).unwrap_or(i64::MAX))
    };
    let mut total: BTreeMap<String, i64> = names.into_iter().map(most).collect();
    if let Some(own) = &pod.spec.resources {
        total.extend(amounts(&own.requests));
    }
    for (name, value) in amounts(&pod.spec.overhead) {
        let sum = total.entry(name).or_insert(0_i64);
        *sum = sum.saturating_add(value);
    }
    total
}

/// The most that containers take together at any time: sidecars run beside all that comes after them, init
/// containers one after the other (`component-helpers/resource`, PodRequests).
#[must_use]
pub fn most_at_once(pod: &Pod, of: impl Fn(&Container) -> u64) -> u64 {
    let (mut sidecars, mut most) = (0_u64, 0_u64);
    for container in &pod.spec.init_containers {
        let with = sidecars.saturating_add(of(container));
        most = most.max(with);
        if is_sidecar(container) {
            sidecars = with;
        }
    }
    pod.spec.containers.iter().map(of).fold(sidecars, u64::saturating_add).max(most)
}

fn amounts(list: &BTreeMap<String, Quantity>) -> impl Iterator<Item = (String, i64)> + '_ {
    list.iter().filter_map(|(name, quantity)| Some((name.clone(), amount(name, quantity)?.max(0))))
}

/// The limit of a container's memory in bytes: its own, else its pod's, else none.
#[must_use]
pub fn memory_limit(pod: &Pod, container: &Container) -> Option<u64> {
    of_container(pod, container, "memory", |resources| &resources.limits)
}

/// What a container may take of the disk, in bytes; none where it does not say.
#[must_use]
pub fn storage_limit(pod: &Pod, container: &Container) -> Option<u64> {
    of_container(pod, container, "ephemeral-storage", |resources| &resources.limits)
}

/// The thousandths of a processor that a container may use: its own limit, else its pod's, else none.
#[must_use]
pub fn cpu_limit(pod: &Pod, container: &Container) -> Option<u32> {
    of_container(pod, container, "cpu", |resources| &resources.limits).map(narrow)
}

/// The thousandths of a processor that a container asks for: its own request, else its pod's, else its limit
/// (which the API server writes down as its request), else none.
#[must_use]
pub fn cpu_request(pod: &Pod, container: &Container) -> u32 {
    let asked = of_container(pod, container, "cpu", |resources| &resources.requests).map(narrow);
    asked.or_else(|| cpu_limit(pod, container)).unwrap_or(0)
}

fn narrow(milli: u64) -> u32 {
    u32::try_from(milli).unwrap_or(u32::MAX)
}

/// What a container says of `resource`, else its pod; 0 says nothing.
fn of_container(
    pod: &Pod,
    container: &Container,
    resource: &str,
    list: impl Fn(&ResourceRequirements) -> &BTreeMap<String, Quantity>,
) -> Option<u64> {
    let of = |resources: &ResourceRequirements| {
        let value = list(resources).get(resource).and_then(|quantity| amount(resource, quantity));
        value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0)
    };
    of(&container.resources).or_else(|| pod.spec.resources.as_ref().and_then(of))
}

/// `status.qosClass`: the one that the API shows, which never changes, else reckoned.
#[must_use]
pub fn qos_class(pod: &Pod) -> String {
    if !pod.status.qos_class.is_empty() {
        return pod.status.qos_class.clone();
    }
    let class = match &pod.spec.resources {
        Some(own) if !own.limits.is_empty() || !own.requests.is_empty() => requirements_class(own),
        _ => pod
            .spec
            .init_containers
            .iter()
            .chain(&pod.spec.containers)
            .map(|container| requirements_class(&container.resources))
            .reduce(combined)
            .unwrap_or(BEST_EFFORT),
    };
    class.to_owned()
}

const GUARANTEED: &str = "Guaranteed";
const BURSTABLE: &str = "Burstable";
const BEST_EFFORT: &str = "BestEffort";

fn combined(a: &'static str, b: &'static str) -> &'static str {
    if a == b {
        a
    } else {
        BURSTABLE
    }
}

fn requirements_class(resources: &ResourceRequirements) -> &'static str {
    let class = |name: &str| {
        let of =
            |list: &BTreeMap<String, Quantity>| list.get(name).and_then(|q| amount(name, q)).unwrap_or(0);
        match (of(&resources.requests), of(&resources.limits)) {
            (0, 0) => BEST_EFFORT,
            (request, limit) if request == limit => GUARANTEED,
            _ => BURSTABLE,
        }
    };
    combined(class("cpu"), class("memory"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::samples::pod;
    use serde_json::{json, Value};

    fn with(resources: &[Value]) -> Pod {
        let containers: Vec<Value> =
            resources.iter().map(|r| json!({"name": "c", "image": "i", "resources": r})).collect();
        pod(&json!({"containers": containers}))
    }

    #[test]
    fn classes_of_service() {
        let all =
            json!({"limits": {"cpu": "1", "memory": "1Mi"}, "requests": {"cpu": "1000m", "memory": "1Mi"}});
        for (containers, expected) in [
            (vec![json!({})], "BestEffort"),
            (vec![json!({"requests": {"ephemeral-storage": "1"}})], "BestEffort"),
            (vec![json!({"requests": {"cpu": "0"}})], "BestEffort"),
            (vec![all.clone()], "Guaranteed"),
            (vec![all.clone(), all.clone()], "Guaranteed"),
            (vec![all.clone(), json!({})], "Burstable"),
            (vec![json!({"requests": {"cpu": "1"}})], "Burstable"),
            (vec![json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}})], "Burstable"),
        ] {
            assert_eq!(qos_class(&with(&containers)), expected, "{containers:?}");
        }
        let own = pod(
            &json!({"resources": {"limits": {"cpu": "1", "memory": "1"}, "requests": {"cpu": "1", "memory": "1"}}}),
        );
        assert_eq!(qos_class(&own), "Guaranteed");
        let mut shown = with(&[all]);
        shown.status.qos_class = "Burstable".to_owned();
        assert_eq!(qos_class(&shown), "Burstable", "what the API shows never changes");
    }

    #[test]
    fn requests_are_summed_as_the_scheduler_does() {
        let pod = pod(&json!({
            "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "900m", "memory": "1Ki"}}}],
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "500m", "memory": "1Mi"}}},
                {"name": "b", "resources": {"requests": {"cpu": "250m", "x.io/y": "2"}}}],
            "overhead": {"cpu": "10m"},
        }));
        let expected = [("cpu", 910), ("memory", 1_048_576), ("x.io/y", 2)];
        assert_eq!(requests(&pod), expected.map(|(k, v)| (k.to_owned(), v)).into());
    }

    #[test]
    fn sidecars_count_beside_what_comes_after_them() {
        let init = |cpu: &str, sidecar: bool| {
            let policy = if sidecar { json!("Always") } else { Value::Null };
            json!({"name": "i", "restartPolicy": policy, "resources": {"requests": {"cpu": cpu}}})
        };
        for (inits, expected) in [
            (vec![init("200m", true)], 1200),
            (vec![init("1500m", false), init("200m", true)], 1500),
            (vec![init("200m", true), init("1500m", false)], 1700),
            (vec![init("200m", true), init("100m", false), init("300m", true)], 1500),
        ] {
            let pod = pod(&json!({
                "initContainers": inits,
                "containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}],
            }));
            assert_eq!(requests(&pod).get("cpu"), Some(&expected), "{inits:?}");
        }
    }

    #[test]
    fn the_pod_speaks_for_its_containers() {
        let pod = pod(&json!({
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "2"}}}],
            "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "2Mi"}},
        }));
        assert_eq!(requests(&pod).get("cpu"), Some(&1000));
        let container = pod.spec.containers.first().cloned().unwrap_or_default();
        assert_eq!(memory_limit(&pod, &container), Some(2_097_152));
    }

    #[test]
    fn the_cpu_of_a_container() {
        for (own, of_pod, expected) in [
            (json!({}), json!({}), (0, None)),
            (json!({"requests": {"cpu": "250m"}}), json!({}), (250, None)),
            (json!({"limits": {"cpu": "1500m"}}), json!({}), (1500, Some(1500))),
            (json!({"requests": {"cpu": "0"}, "limits": {"cpu": "0"}}), json!({}), (0, None)),
            (json!({}), json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}), (1000, Some(2000))),
            (json!({"limits": {"cpu": "100m"}}), json!({"limits": {"cpu": "2"}}), (100, Some(100))),
        ] {
            let pod = pod(&json!({"containers": [{"name": "a", "resources": own}], "resources": of_pod}));
            let container = pod.spec.containers.first().cloned().unwrap_or_default();
            assert_eq!(
                (cpu_request(&pod, &container), cpu_limit(&pod, &container)),
                expected,
                "{own} {of_pod}"
            );
        }
    }
}
