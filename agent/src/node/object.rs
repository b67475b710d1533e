//! The Node object of this machine: pure, from what the machine is and what the settings say.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::host::{architecture, Host, Left};
use crate::api::{
    DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec, NodeStatus,
    NodeSystemInfo, ObjectMeta, Quantity, Taint, Time,
};
use crate::config::{AgentConfig, KUBELET_VERSION, VERSION};
use crate::durable::clock::Now;
use crate::pod::node::NodeFacts;

/// Memory is short below a twentieth of it, at most this many bytes.
const LEAST_MEMORY: u64 = 16 * 1024 * 1024;
/// The disk is short below a twentieth of it, at most this many bytes: a module, its logs, a certificate.
const LEAST_STORAGE: u64 = 64 * 1024 * 1024;

/// What API servers ask a node for before they make use of it (`status.declaredFeatures`, from 1.36 on), in order.
const DECLARED_FEATURES: [&str; 1] = [
    // A client's WebSocket for exec, attach and port-forward is passed on as it is.
    "ExtendWebSocketsToKubelet",
];

/// The Node as it is registered, but for its conditions; before that its address may not be known yet.
#[must_use]
pub fn node(config: &AgentConfig, host: &Host, address: Option<IpAddr>) -> Node {
    let capacity = capacity(config.max_pods, host);
    // What guests can have is what may be scheduled.
    let left = host.memory.saturating_sub(config.memory_reserved).min(config.guest_memory);
    let rest = Host { memory: left, ..host.clone() };
    Node {
        metadata: ObjectMeta {
            name: config.node_name.clone(),
            labels: labels(config),
            ..ObjectMeta::default()
        },
        spec: NodeSpec { taints: taints(config), ..NodeSpec::default() },
        status: NodeStatus {
            allocatable: self::capacity(config.max_pods, &rest),
            capacity,
            addresses: address
                .map(|address| NodeAddress { kind: "InternalIP".into(), address: address.to_string() })
                .into_iter()
                .chain([NodeAddress { kind: "Hostname".into(), address: config.node_name.clone() }])
                .collect(),
            daemon_endpoints: NodeDaemonEndpoints {
                kubelet_endpoint: DaemonEndpoint { port: i32::from(config.port) },
            },
            node_info: NodeSystemInfo {
                machine_id: host.machine_id.clone(),
                system_uuid: host.system_uuid.clone(),
                boot_id: host.boot_id.clone(),
                kernel_version: host.kernel.clone(),
                os_image: host.os_image.clone(),
                container_runtime_version: format!("copepod://{VERSION}"),
                kubelet_version: KUBELET_VERSION.into(),
                kube_proxy_version: String::new(),
                operating_system: "linux".into(),
                architecture: architecture().into(),
            },
            declared_features: DECLARED_FEATURES.map(str::to_owned).to_vec(),
            ..NodeStatus::default()
        },
    }
}

/// Default labels, and those of the settings added or in their place.
#[must_use]
pub fn labels(config: &AgentConfig) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    labels.insert("kubernetes.io/hostname".into(), config.node_name.clone());
    labels.insert("kubernetes.io/os".into(), "wasi".into());
    labels.insert("kubernetes.io/arch".into(), "wasm32-wasi".into());
    labels.extend(config.node_labels.iter().cloned());
    for key in ["os", "arch"] {
        let stable = labels.get(&format!("kubernetes.io/{key}")).cloned().unwrap_or_default();
        labels.entry(format!("beta.kubernetes.io/{key}")).or_insert(stable);
    }
    labels
}

/// The taints that the node is registered with.
#[must_use]
pub fn taints(config: &AgentConfig) -> Vec<Taint> {
    let taint = |(key, value, effect): &(String, String, String)| Taint {
        key: key.clone(),
        value: value.clone(),
        effect: effect.clone(),
        time_added: None,
    };
    config.taints.iter().map(taint).collect()
}

/// What the node has to give.
#[must_use]
pub fn capacity(max_pods: u32, host: &Host) -> BTreeMap<String, Quantity> {
    [
        ("cpu", host.cores.to_string()),
        ("memory", format!("{}Ki", host.memory / 1024)),
        ("ephemeral-storage", format!("{}Ki", host.storage / 1024)),
        ("pods", max_pods.to_string()),
    ]
    .into_iter()
    .map(|(name, amount)| (name.to_owned(), Quantity(amount)))
    .collect()
}

/// The node as the supervisor needs to know it.
#[must_use]
pub fn facts(node: &Node, own_port: u16) -> NodeFacts {
    let ips = node.status.addresses.iter().filter(|address| address.kind == "InternalIP");
    NodeFacts {
        name: node.metadata.name.clone(),
        labels: node.metadata.labels.clone(),
        taints: node.spec.taints.clone(),
        ips: ips.map(|address| address.address.clone()).collect(),
        capacity: node.status.capacity.clone(),
        allocatable: node.status.allocatable.clone(),
        own_ports: vec![own_port],
    }
}

/// A node that belongs to no cluster and has room for one pod.
#[must_use]
pub fn standalone_facts(host: &Host) -> NodeFacts {
    let capacity = capacity(1, host);
    NodeFacts {
        name: host.name.clone(),
        ips: vec!["127.0.0.1".into()],
        allocatable: capacity.clone(),
        capacity,
        ..NodeFacts::default()
    }
}

/// When each pressure was last felt. It stays for [`HOLD`] after that: else a board at the threshold would
/// change its mind, and its taints, at each heartbeat.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pressures {
    memory: Felt,
    disk: Felt,
    tasks: Felt,
}

/// The kubelet's `evictionPressureTransitionPeriod`.
const HOLD: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, Default)]
struct Felt(Option<Duration>);

impl Felt {
    fn feel(&mut self, now_short: bool, now: Now) -> bool {
        if now_short {
            self.0 = Some(now.mono);
        }
        self.0.is_some_and(|at| now_short || now.mono.saturating_sub(at) < HOLD)
    }
}

/// The four conditions in a kubelet's order. What did not change keeps its time of transition.
#[must_use]
pub fn conditions(
    host: &Host,
    left: &Left,
    pressures: &mut Pressures,
    before: &[NodeCondition],
    now: Now,
) -> Vec<NodeCondition> {
    // What is not known is no pressure.
    let short = |left: u64, all: u64, least: u64| left > 0 && left < (all / 20).min(least);
    let memory = pressures.memory.feel(short(left.memory, host.memory, LEAST_MEMORY), now);
    let disk = pressures.disk.feel(short(left.storage, host.storage, LEAST_STORAGE), now);
    let tasks = left.tasks.saturating_add(left.max_tasks / 20) > left.max_tasks;
    let tasks = pressures.tasks.feel(tasks, now);
    let now = now.wall;
    let pressure = |kind: &str, on: bool, reasons: (&str, &str), messages: (&str, &str)| {
        let pick = |(yes, no): (&str, &str)| if on { yes.to_owned() } else { no.to_owned() };
        (kind.to_owned(), on, pick(reasons), pick(messages))
    };
    let missing: Vec<&str> =
        [("cpu", u64::from(host.cores)), ("memory", host.memory), ("ephemeral-storage", host.storage)]
            .into_iter()
            .filter_map(|(name, amount)| (amount == 0).then_some(name))
            .collect();
    let ready = if missing.is_empty() {
        ("Ready".into(), true, "KubeletReady".into(), "kubelet is posting ready status".into())
    } else {
        let message = format!("missing node capacity for resources: {}", missing.join(", "));
        ("Ready".into(), false, "KubeletNotReady".into(), message)
    };
    [
        pressure(
            "MemoryPressure",
            memory,
            ("KubeletHasInsufficientMemory", "KubeletHasSufficientMemory"),
            ("kubelet has insufficient memory available", "kubelet has sufficient memory available"),
        ),
        pressure(
            "DiskPressure",
            disk,
            ("KubeletHasDiskPressure", "KubeletHasNoDiskPressure"),
            ("kubelet has disk pressure", "kubelet has no disk pressure"),
        ),
        pressure(
            "PIDPressure",
            tasks,
            ("KubeletHasInsufficientPID", "KubeletHasSufficientPID"),
            ("kubelet has insufficient PID available", "kubelet has sufficient PID available"),
        ),
        ready,
    ]
    .into_iter()
    .map(|(kind, on, reason, message)| {
        let status = if on { "True" } else { "False" };
        let same = before.iter().find(|c| c.kind == kind && c.status == status);
        NodeCondition {
            last_heartbeat_time: Some(Time::from(now)),
            last_transition_time: same.and_then(|c| c.last_transition_time).or(Some(Time::from(now))),
            reason,
            message,
            kind,
            status: status.into(),
        }
    })
    .collect()
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{Parsed, Values};

    const MIB: u64 = 1024 * 1024;

    fn at(seconds: u32) -> Now {
        let wall = jiff::Timestamp::from_second(i64::from(seconds)).unwrap_or_default();
        Now { wall, mono: Duration::from_secs(u64::from(seconds)) }
    }

    #[test]
    fn what_is_reserved_or_beyond_the_guests_ceiling_is_not_for_pods() {
        let host = Host { cores: 4, memory: 427 * MIB, storage: 1000 * MIB, ..Host::default() };
        for (argument, left) in [("--memory-reserved=160", 267), ("--guest-memory=200", 200)] {
            let arguments = [argument, "--node-name=n"].map(std::ffi::OsString::from);
            let nowhere = std::path::Path::new("/nowhere");
            let command = &crate::config::agent::COMMAND;
            let Ok(Parsed::Run(values)) = Values::collect(command, arguments, |_| None, nowhere) else {
                panic!("the arguments are right")
            };
            let config = AgentConfig::from_values(&values, "", host.memory).unwrap();
            let status = node(&config, &host, Some(IpAddr::from([10, 0, 0, 2]))).status;
            assert_eq!(status.capacity["memory"].0, format!("{}Ki", 427 * 1024));
            assert_eq!(status.allocatable["memory"].0, format!("{}Ki", left * 1024), "{argument}");
            for same in ["cpu", "ephemeral-storage", "pods"] {
                assert_eq!(status.capacity[same], status.allocatable[same], "{same}");
            }
            assert_eq!(config.guest_memory, left * MIB);
        }
    }

    #[test]
    fn conditions_stand_in_a_kubelets_order_and_keep_their_transition() {
        let host = Host { cores: 1, memory: 64 * MIB, storage: 1000 * MIB, ..Host::default() };
        let plenty = Left { memory: 32 * MIB, storage: 500 * MIB, tasks: 10, max_tasks: 1000 };
        let mut felt = Pressures::default();
        let first = conditions(&host, &plenty, &mut felt, &[], at(100));
        let kinds: Vec<&str> = first.iter().map(|c| c.kind.as_str()).collect();
        assert_eq!(kinds, ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"]);
        assert_eq!(first[3].status, "True");
        assert!(first[..3].iter().all(|c| c.status == "False"));

        let short = Left { memory: 3 * MIB, ..plenty };
        let second = conditions(&host, &short, &mut felt, &first, at(200));
        assert_eq!(second[0].status, "True");
        assert_eq!(second[0].reason, "KubeletHasInsufficientMemory");
        assert_eq!(second[0].last_transition_time, Some(Time::from(at(200).wall)));
        assert_eq!(second[3].last_transition_time, Some(Time::from(at(100).wall)));
        assert_eq!(second[3].last_heartbeat_time, Some(Time::from(at(200).wall)));

        let soon = conditions(&host, &plenty, &mut felt, &second, at(499));
        assert_eq!(soon[0].status, "True", "a pressure stays for a while");
        let late = conditions(&host, &plenty, &mut felt, &soon, at(500));
        assert_eq!(late[0].status, "False");
        let unknown = Left { memory: 0, ..plenty };
        assert_eq!(conditions(&host, &unknown, &mut felt, &late, at(500))[0].status, "False");

        let blind = Host { cores: 0, storage: 0, ..host.clone() };
        let blind = conditions(&blind, &plenty, &mut felt, &second, at(600));
        assert_eq!(
            (blind[3].status.as_str(), blind[3].message.as_str()),
            ("False", "missing node capacity for resources: cpu, ephemeral-storage")
        );
        let full = Left { storage: 49 * MIB, tasks: 990, ..plenty };
        let full = conditions(&host, &full, &mut felt, &[], at(600));
        assert_eq!((full[1].status.as_str(), full[2].status.as_str()), ("True", "True"));
    }
}
