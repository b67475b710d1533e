//! `kubectl describe pod` for each way in which a pod can fail: printed, and as it reads on a kubelet.

use std::time::Duration;

use serde_json::{json, Value};
use tests::{
    cluster::{pod, pod_spec},
    guests::Guest,
    Cluster,
};

/// How long a failure may take to show on a busy machine, one back-off included.
const SHOWN: Duration = Duration::from_secs(120);

/// A way to fail: the pod's spec, and what its description must say, in this order.
struct Failure {
    name: &'static str,
    spec: Value,
    says: Vec<&'static str>,
}

/// Runs of blanks as one, so that columns do not matter.
fn squeezed(text: &str) -> String {
    let lines: Vec<String> =
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    lines.join("\n")
}

/// Whether `parts` stand in `text`: in this order, but for the events, which kubectl sorts by whole seconds.
fn says(text: &str, parts: &[&str]) -> bool {
    let mut rest = text;
    let mut ordered = true;
    parts.iter().all(|part| {
        ordered &= *part != "Events:";
        match rest.find(part) {
            Some(at) if ordered => rest = &rest[at + part.len()..],
            Some(_) => {}
            None => return false,
        }
        true
    })
}

fn failures(cluster: &Cluster) -> Vec<Failure> {
    let spec = |policy: &str, guest: Guest, arguments: &[&str], overlay: Value| {
        let mut spec = pod_spec(policy, &cluster.image(guest), arguments);
        for (pointer, value) in overlay.as_object().into_iter().flatten() {
            let (parent, key) = pointer.rsplit_once('/').expect("a pointer has a slash");
            spec.pointer_mut(parent).expect("the parent is there")[key] = value.clone();
        }
        spec
    };
    let missing = cluster.registry.image("test/nobody:v1");
    let init = json!([{"name": "prepare", "image": cluster.image(Guest::Exit), "args": ["4"]}]);
    let from_map = json!([{"configMapRef": {"name": "nowhere"}}]);
    let volume = json!([{"name": "cache", "emptyDir": {"sizeLimit": "16"}}]);
    let mount = json!([{"name": "cache", "mountPath": "/cache"}]);
    vec![
        Failure {
            name: "exits",
            spec: spec("Never", Guest::Exit, &["3"], json!({})),
            says: vec![
                "Status: Failed", "State: Terminated", "Reason: Error", "Exit Code: 3", "Ready: False",
                "PodReadyToStartContainers False", "Initialized True", "Ready False", "ContainersReady False",
                "PodScheduled True", "Events:", "Normal Scheduled", "Normal Pulled", "Normal Created",
                "Container created", "Normal Started", "Container started",
            ],
        },
        Failure {
            name: "crash-loop",
            spec: spec("Always", Guest::Exit, &["3"], json!({})),
            says: vec![
                "Status: Running", "State: Waiting", "Reason: CrashLoopBackOff", "Last State: Terminated",
                "Reason: Error", "Exit Code: 3", "Restart Count:", "Events:", "Warning BackOff",
                "Back-off restarting failed container main in pod crash-loop_default(",
            ],
        },
        Failure {
            name: "trap",
            spec: spec("Never", Guest::Trap, &[], json!({})),
            says: vec!["Status: Failed", "Reason: Error", "Message:", "unreachable", "Exit Code: 134"],
        },
        Failure {
            name: "too-much-memory",
            spec: spec("Never", Guest::Hostile, &["memory", "/"], json!({"/containers/0/resources": {"limits": {"memory": "4Mi"}}})),
            says: vec!["State: Terminated", "Reason: OOMKilled", "Exit Code: 137", "Limits:", "memory: 4Mi", "QoS Class: Burstable"],
        },
        Failure {
            name: "no-image",
            spec: spec("Always", Guest::Exit, &[], json!({"/containers/0/image": missing})),
            says: vec![
                "Status: Pending", "State: Waiting", "Reason: ImagePullBackOff", "Ready: False", "Events:",
                "Failed to pull image", "Error: ErrImagePull", "Back-off pulling image", "Error: ImagePullBackOff",
            ],
        },
        Failure {
            name: "bad-name",
            spec: spec("Always", Guest::Exit, &[], json!({"/containers/0/image": "Not An Image"})),
            says: vec!["Status: Pending", "State: Waiting", "Reason: InvalidImageName", "Events:", "Warning InspectFailed"],
        },
        Failure {
            name: "never-pulled",
            spec: spec("Always", Guest::Exit, &[], json!({"/containers/0/image": missing, "/containers/0/imagePullPolicy": "Never"})),
            says: vec![
                "Status: Pending", "Reason: ErrImageNeverPull", "Events:", "Warning ErrImageNeverPull",
                "is not present with pull policy of Never",
            ],
        },
        Failure {
            name: "no-config",
            spec: spec("Always", Guest::Exit, &[], json!({"/containers/0/envFrom": from_map})),
            says: vec![
                "Status: Pending", "State: Waiting", "Reason: CreateContainerConfigError", "Events:", "Warning Failed",
                "Error: configmap \"nowhere\" not found",
            ],
        },
        Failure {
            name: "init-fails",
            spec: spec("Never", Guest::Exit, &["0"], json!({"/initContainers": init})),
            says: vec![
                "Status: Failed", "Init Containers:", "prepare:", "State: Terminated", "Reason: Error", "Exit Code: 4",
                "Containers:", "main:", "State: Waiting", "Reason: PodInitializing", "Initialized False",
            ],
        },
        Failure {
            name: "too-late",
            spec: spec("Always", Guest::Hello, &[], json!({"/activeDeadlineSeconds": 2})),
            says: vec![
                "Status: Failed", "Reason: DeadlineExceeded",
                "Message: Pod was active on the node longer than the specified deadline", "Events:",
                "Normal DeadlineExceeded", "Normal Killing", "Stopping container main",
            ],
        },
        Failure {
            name: "fills-disk",
            spec: spec("Never", Guest::Write, &["/cache/file", "more than sixteen bytes"],
                json!({"/volumes": volume, "/containers/0/volumeMounts": mount})),
            says: vec![
                "Status: Failed", "Reason: Evicted",
                "Message: Usage of EmptyDir volume \"cache\" exceeds the limit \"16\".", "DisruptionTarget True",
                "Warning Evicted",
            ],
        },
        Failure {
            name: "out-of-cpu",
            spec: spec("Always", Guest::Exit, &[], json!({
                "/nodeName": cluster.agent.node, "/containers/0/resources": {"requests": {"cpu": "900"}},
            })),
            says: vec![
                "Status: Failed", "Reason: OutOfcpu",
                "Message: Pod was rejected: Node didn't have enough resource: cpu, requested: 900000, used:", "Events:",
                "Warning OutOfcpu",
            ],
        },
        Failure {
            name: "no-affinity",
            spec: spec("Always", Guest::Exit, &[], json!({"/nodeName": cluster.agent.node, "/nodeSelector": {"a": "b"}})),
            says: vec![
                "Status: Failed", "Reason: NodeAffinity",
                "Message: Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
            ],
        },
        Failure {
            name: "host-pid",
            spec: spec("Always", Guest::Exit, &[], json!({"/hostPID": true})),
            says: vec!["Status: Failed", "Reason: HostPIDNotSupported", "Message: Pod was rejected: hostPID:", "Warning HostPIDNotSupported"],
        },
    ]
}

#[test]
fn each_failure_reads_as_on_a_kubelet() {
    let cluster = Cluster::start();
    let failures = failures(&cluster);
    for Failure { name, spec, .. } in &failures {
        cluster.bed.apply_value(&pod(name, spec.clone()));
    }
    let mut wrong = Vec::new();
    for Failure { name, says: parts, .. } in &failures {
        let end = std::time::Instant::now() + SHOWN;
        let described = loop {
            let described = cluster.bed.kubectl(&["describe", "pod", name]).expect();
            if says(&squeezed(&described), parts) || std::time::Instant::now() > end {
                break described;
            }
            std::thread::sleep(Duration::from_secs(1));
        };
        println!("--- {name}\n{described}");
        if !says(&squeezed(&described), parts) {
            wrong.push(*name);
        }
    }
    assert_eq!(wrong, Vec::<&str>::new(), "these do not say what they must, see above");
}
