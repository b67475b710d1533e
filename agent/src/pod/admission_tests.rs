//! Who may run here.

use super::*;
use crate::api::{Quantity, Taint};
use crate::pod::samples::{node, pod};
use serde_json::{json, Value};

fn verdict(spec: Value) -> String {
    match admit(&pod(&spec), &node(), &[]) {
        Ok(_) => "admitted".to_owned(),
        Err(rejection) => format!("{}: {}", rejection.reason, rejection.message),
    }
}

fn container(extra: Value) -> Value {
    let mut container = json!({"name": "c", "image": "i"});
    for (key, value) in extra.as_object().unwrap() {
        container.as_object_mut().unwrap().insert(key.clone(), value.clone());
    }
    json!({"containers": [container]})
}

#[test]
fn what_a_kubelet_refuses_is_refused_in_its_words() {
    let ports =
        "NodePorts: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
    let requests = |requests: Value| container(json!({"resources": {"requests": requests}}));
    for (spec, expected) in [
        (json!({}), "admitted"),
        (json!({"hostNetwork": true}), "admitted"),
        (
            requests(json!({"cpu": "900"})),
            "OutOfcpu: Node didn't have enough resource: cpu, requested: 900000, used: 0, capacity: 1000",
        ),
        (
            requests(json!({"memory": "2Gi"})),
            "OutOfmemory: Node didn't have enough resource: memory, requested: 2147483648, used: 0, capacity: 1073741824",
        ),
        (
            requests(json!({"ephemeral-storage": "1Ki"})),
            "OutOfephemeral-storage: Node didn't have enough resource: ephemeral-storage, requested: 1024, used: 0, capacity: 0",
        ),
        (
            requests(json!({"hugepages-2Mi": "2Mi"})),
            "OutOfhugepages-2Mi: Node didn't have enough resource: hugepages-2Mi, requested: 2097152, used: 0, capacity: 0",
        ),
        (requests(json!({"example.com/widget": "2"})), "admitted"),
        (
            json!({"nodeSelector": {"kubernetes.io/os": "linux"}}),
            "NodeAffinity: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        ),
        (
            json!({"nodeName": "other"}),
            "NodeName: Predicate NodeName failed: node(s) didn't match the requested node name",
        ),
        (
            container(json!({"ports": [{"containerPort": 10250, "hostPort": 10250, "protocol": "TCP"}]})),
            ports,
        ),
        (container(json!({"ports": [{"containerPort": 10250, "hostPort": 10250, "protocol": "UDP"}]})), "admitted"),
        (container(json!({"ports": [{"containerPort": 10250}]})), ports),
        (container(json!({"ports": [{"containerPort": 10251}]})), "admitted"),
        (
            json!({"os": {"name": "linux"}}),
            "PodOSNotSupported: Failed to admit pod as the OS field doesn't match node OS",
        ),
        (json!({"os": {"name": "windows"}}), "PodOSNotSupported: Failed to admit pod as the OS field doesn't match node OS"),
        (
            json!({"securityContext": {"supplementalGroupsPolicy": "Strict"}}),
            "SupplementalGroupsPolicyNotSupported: SupplementalGroupsPolicy=Strict is not supported in this node",
        ),
        (
            container(json!({"restartPolicyRules": [{"action": "RestartAllContainers"}]})),
            "PodFeatureUnsupported: Pod requires node features that are not available: RestartAllContainersOnContainerExits",
        ),
    ] {
        assert_eq!(verdict(spec.clone()), expected, "{spec}");
    }
}

#[test]
fn what_this_node_cannot_give_is_refused_by_its_own_reason() {
    let mount = |volume: Value| {
        let mut spec = container(json!({"volumeMounts": [{"name": "v", "mountPath": "/m"}]}));
        spec.as_object_mut().unwrap().insert("volumes".to_owned(), json!([volume]));
        spec
    };
    for (spec, reason) in [
        (json!({"hostPID": true}), "HostPIDNotSupported"),
        (json!({"hostIPC": true}), "HostIPCNotSupported"),
        (json!({"resourceClaims": [{"name": "g"}]}), "ResourceClaimsNotSupported"),
        (json!({"runtimeClassName": "gvisor"}), "RuntimeClassNotSupported"),
        (json!({"securityContext": {"sysctls": [{"name": "a", "value": "b"}]}}), "SysctlForbidden"),
        (container(json!({"livenessProbe": {}})), "HandlerNotSupported"),
        (container(json!({"readinessProbe": {}})), "HandlerNotSupported"),
        (container(json!({"startupProbe": {}})), "HandlerNotSupported"),
        (container(json!({"lifecycle": {"preStop": {}}})), "HandlerNotSupported"),
        (
            container(json!({"volumeDevices": [{"name": "v", "devicePath": "/d"}]})),
            "VolumeDevicesNotSupported",
        ),
        (mount(json!({"name": "v", "nfs": {}})), "VolumeNotSupported"),
        (mount(json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}})), "VolumeNotSupported"),
        (mount(json!({"name": "v", "csi": {"driver": "d"}})), "VolumeNotSupported"),
        (
            mount(json!({"name": "v", "projected": {"sources": [{"clusterTrustBundle": {"path": "p"}}]}})),
            "VolumeNotSupported",
        ),
        (
            mount(json!({"name": "v", "projected": {"sources": [{"podCertificate": {"keyType": "k"}}]}})),
            "VolumeNotSupported",
        ),
        (mount(json!({"name": "w", "emptyDir": {}})), "VolumeNotSupported"),
        (mount(json!({"name": "v", "emptyDir": {"medium": "HugePages"}})), "VolumeNotSupported"),
    ] {
        let rejection = admit(&pod(&spec), &node(), &[]).expect_err(reason);
        assert_eq!(rejection.reason, reason, "{spec}");
    }
}

#[test]
fn a_pod_needs_a_place_that_is_free() {
    let small = pod(&container(json!({
        "resources": {"requests": {"cpu": "600m"}},
        "ports": [{"containerPort": 80, "hostPort": 8080, "hostIP": "10.0.0.5", "protocol": "TCP"}],
    })));
    let reason = |candidate: &Pod, others: &[&Pod]| admit(candidate, &node(), others).map_err(|r| r.message);
    assert!(reason(&small, &[]).is_ok());
    assert_eq!(
        reason(&small, &[&small]).unwrap_err(),
        "Node didn't have enough resource: cpu, requested: 600, used: 600, capacity: 1000"
    );
    let port = |ip: &str| {
        pod(&container(
            json!({"ports": [{"containerPort": 1, "hostPort": 8080, "hostIP": ip, "protocol": "TCP"}]}),
        ))
    };
    assert!(reason(&port("10.0.0.9"), &[&small]).is_ok(), "another address of the host");
    assert!(reason(&port("10.0.0.5"), &[&small]).is_err());
    assert!(reason(&port(""), &[&small]).is_err());
    let plain = pod(&json!({}));
    let full = vec![&plain; 10];
    assert_eq!(
        reason(&plain, &full).unwrap_err(),
        "Node didn't have enough resource: pods, requested: 1, used: 10, capacity: 10"
    );
}

#[test]
fn a_taint_that_is_not_borne_refuses() {
    let mut node = node();
    node.taints = vec![Taint { key: "k".to_owned(), effect: "NoExecute".to_owned(), ..Taint::default() }];
    let rejection = admit(&pod(&json!({})), &node, &[]).unwrap_err();
    assert_eq!(rejection.reason, "TaintToleration");
    assert_eq!(
        rejection.status_message(),
        "Pod was rejected: Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate"
    );
}

#[test]
fn a_node_that_says_linux_takes_pods_for_linux() {
    let mut node = node();
    node.labels.insert("kubernetes.io/os".to_owned(), "linux".to_owned());
    assert!(admit(&pod(&json!({"os": {"name": "linux"}})), &node, &[]).is_ok());
}

#[test]
fn a_cpu_limit_that_is_no_number_counts_as_nothing() {
    let mut pod = pod(&json!({}));
    for container in &mut pod.spec.containers {
        container.resources.requests.insert("cpu".to_owned(), Quantity::from("lots"));
    }
    assert!(admit(&pod, &node(), &[]).is_ok());
}

#[test]
fn what_changes_nothing_is_said_in_an_event() {
    let notes = |spec: Value| -> Vec<String> {
        admit(&pod(&spec), &node(), &[]).unwrap().into_iter().map(|note| note.message).collect()
    };
    assert_eq!(notes(json!({})), Vec::<String>::new());
    let restricted = json!({"allowPrivilegeEscalation": false, "privileged": false});
    assert_eq!(notes(container(json!({"securityContext": restricted}))), Vec::<String>::new());
    let ignored = notes(container(json!({"securityContext": {"privileged": true, "runAsUser": 0}})));
    assert_eq!(ignored.len(), 1);
    assert!(ignored.first().unwrap().starts_with("Ignored privileged, runAsUser:"), "{ignored:?}");
}
