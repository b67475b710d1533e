//! Each type of ours and k8s-openapi's read the same object, and give it back alike.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use k8s_openapi::api as upstream;
use serde::de::DeserializeOwned;
use serde_json::{json, Value};

use super::*;

/// Reads `sample` as ours and as k8s-openapi's, and wants it back from both without loss. So no
/// field name of ours can be one that the API does not have.
fn same<Ours, Theirs>(sample: &Value)
where
    Ours: Serialize + DeserializeOwned + Object,
    Theirs: Serialize + DeserializeOwned,
{
    let ours: Ours = serde_json::from_value(sample.clone()).unwrap();
    let theirs: Theirs = serde_json::from_value(sample.clone()).unwrap();
    let ours = serde_json::to_value(Typed::new(&ours)).unwrap();
    let theirs = serde_json::to_value(theirs).unwrap();
    assert_eq!(ours, *sample, "what ours keeps");
    assert_eq!(theirs, *sample, "what k8s-openapi keeps");
}

fn metadata() -> Value {
    json!({
        "name": "n", "generateName": "g", "namespace": "ns", "uid": "u", "resourceVersion": "12",
        "generation": 3, "creationTimestamp": "2026-01-02T03:04:05Z",
        "deletionTimestamp": "2026-01-02T03:05:05Z", "deletionGracePeriodSeconds": 30,
        "labels": {"a": "b"}, "annotations": {"c": "d"},
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "o",
            "controller": true, "blockOwnerDeletion": true}],
    })
}

fn container() -> Value {
    json!({
        "name": "c", "image": "i:1", "command": ["a"], "args": ["b"], "workingDir": "/w",
        "ports": [{"name": "p", "hostPort": 80, "protocol": "TCP", "hostIP": "1.2.3.4", "containerPort": 8080}],
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "m", "optional": true}},
            {"secretRef": {"name": "s", "optional": true}}],
        "env": [{"name": "A", "value": "1"},
            {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "C", "valueFrom": {"resourceFieldRef":
                {"containerName": "c", "divisor": "1m", "resource": "limits.cpu"}}},
            {"name": "D", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k", "optional": true}}},
            {"name": "E", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": true}}},
            {"name": "F", "valueFrom": {"fileKeyRef":
                {"key": "k", "path": "p", "volumeName": "v", "optional": true}}}],
        "resources": {"limits": {"cpu": "1", "memory": "64Mi"}, "requests": {"cpu": "500m"}},
        "restartPolicy": "Always",
        "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}],
        "volumeMounts": [{"name": "v", "mountPath": "/m", "readOnly": true, "subPath": "s", "subPathExpr": "e",
            "mountPropagation": "None", "recursiveReadOnly": "Enabled"}],
        "volumeDevices": [{"devicePath": "/dev/x", "name": "v"}],
        "livenessProbe": {"httpGet": {"port": "web", "path": "/p", "host": "h", "scheme": "HTTPS",
            "httpHeaders": [{"name": "A", "value": "b"}]}, "initialDelaySeconds": 1, "timeoutSeconds": 2,
            "periodSeconds": 3, "successThreshold": 4, "failureThreshold": 5, "terminationGracePeriodSeconds": 6},
        "readinessProbe": {"grpc": {"port": 1, "service": "s"}}, "startupProbe": {"exec": {"command": ["a"]}},
        "lifecycle": {"preStop": {"sleep": {"seconds": 1}}, "postStart": {"tcpSocket": {"port": 1, "host": "h"}}},
        "terminationMessagePath": "/m", "terminationMessagePolicy": "File",
        "imagePullPolicy": "Always", "securityContext": {"privileged": true}, "stdin": true,
        "stdinOnce": true, "tty": true,
    })
}

fn container_status() -> Value {
    json!({
        "name": "c", "ready": false, "restartCount": 2, "image": "i:1", "imageID": "r@sha256:0", "started": false,
        "containerID": "copepod://1", "allocatedResources": {"cpu": "1"}, "resources": {"limits": {"cpu": "1"}},
        "volumeMounts": [{"name": "v", "mountPath": "/m", "readOnly": true, "recursiveReadOnly": "Disabled"}],
        "state": {"waiting": {"reason": "R", "message": "M"}},
        "lastState": {"terminated": {"exitCode": 0, "signal": 9, "reason": "Completed", "message": "m",
            "startedAt": "2026-01-02T03:04:05Z", "finishedAt": "2026-01-02T03:04:06Z", "containerID": "copepod://0"}},
    })
}

fn volumes() -> Value {
    json!([
        {"name": "a", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "b", "configMap": {"name": "m", "items": [{"key": "k", "path": "p", "mode": 256}],
            "defaultMode": 420, "optional": true}},
        {"name": "c", "secret": {"secretName": "s", "items": [{"key": "k", "path": "p"}], "defaultMode": 420,
            "optional": true}},
        {"name": "d", "downwardAPI": {"defaultMode": 420, "items": [
            {"path": "p", "fieldRef": {"fieldPath": "metadata.name"}, "mode": 256},
            {"path": "q", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu", "divisor": "1"}}]}},
        {"name": "e", "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"audience": "a", "expirationSeconds": 3607, "path": "token"}},
            {"secret": {"name": "s", "items": [{"key": "k", "path": "p"}], "optional": true}},
            {"configMap": {"name": "kube-root-ca.crt"}}, {"downwardAPI": {"items": [{"path": "p"}]}},
            {"clusterTrustBundle": {"path": "p"}}, {"podCertificate": {"keyType": "ED25519", "signerName": "s"}}]}},
        {"name": "f", "hostPath": {"path": "/x", "type": "Directory"}},
        {"name": "g", "image": {"reference": "i", "pullPolicy": "Always"}},
    ])
}

#[test]
fn pods_read_and_write_as_k8s_openapi_does() {
    same::<Pod, upstream::core::v1::Pod>(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata(),
        "spec": {
            "volumes": volumes(), "initContainers": [container()], "containers": [container()],
            "ephemeralContainers": [{"name": "debug"}], "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 30, "activeDeadlineSeconds": 10, "nodeSelector": {"a": "b"},
            "serviceAccountName": "sa", "nodeName": "n", "hostNetwork": true, "hostPID": true, "hostIPC": true,
            "hostUsers": false, "shareProcessNamespace": true, "securityContext": {"runAsUser": 1},
            "imagePullSecrets": [{"name": "s"}], "hostname": "h", "subdomain": "d",
            "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a"]}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}],
                 "matchFields": [{"key": "metadata.name", "operator": "Exists"}]}]}}},
            "tolerations": [{"key": "k", "operator": "Equal", "value": "v", "effect": "NoExecute",
                "tolerationSeconds": 300}],
            "runtimeClassName": "r", "priority": 7, "priorityClassName": "c",
            "readinessGates": [{"conditionType": "x/y"}], "enableServiceLinks": false, "overhead": {"cpu": "1m"},
            "os": {"name": "linux"}, "resourceClaims": [{"name": "c"}], "resources": {"limits": {"cpu": "2"}},
        },
        "status": {
            "observedGeneration": 3, "phase": "Running", "message": "m", "reason": "r",
            "conditions": [{"type": "Ready", "status": "False", "reason": "R", "message": "M",
                "observedGeneration": 3, "lastProbeTime": "2026-01-02T03:04:05Z",
                "lastTransitionTime": "2026-01-02T03:04:05Z"}],
            "hostIP": "1.2.3.4", "hostIPs": [{"ip": "1.2.3.4"}], "podIP": "1.2.3.4", "podIPs": [{"ip": "1.2.3.4"}],
            "startTime": "2026-01-02T03:04:05Z", "initContainerStatuses": [container_status()],
            "containerStatuses": [container_status(), {"name": "r", "ready": true, "restartCount": 0, "image": "i",
                "imageID": "", "started": true, "state": {"running": {"startedAt": "2026-01-02T03:04:05Z"}}}],
            "qosClass": "BestEffort", "ephemeralContainerStatuses": [container_status()],
        },
    }));
}

#[test]
fn nodes_and_leases_read_and_write_as_k8s_openapi_does() {
    same::<Node, upstream::core::v1::Node>(&json!({
        "apiVersion": "v1", "kind": "Node", "metadata": metadata(),
        "spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"], "providerID": "p://x", "unschedulable": true,
            "taints": [{"key": "k", "value": "v", "effect": "NoExecute", "timeAdded": "2026-01-02T03:04:05Z"}]},
        "status": {
            "capacity": {"cpu": "4"}, "allocatable": {"cpu": "4"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "R", "message": "M",
                "lastHeartbeatTime": "2026-01-02T03:04:05Z", "lastTransitionTime": "2026-01-02T03:04:05Z"}],
            "addresses": [{"type": "InternalIP", "address": "1.2.3.4"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "nodeInfo": {"machineID": "m", "systemUUID": "s", "bootID": "b", "kernelVersion": "k", "osImage": "o",
                "containerRuntimeVersion": "c://1", "kubeletVersion": "v1", "kubeProxyVersion": "",
                "operatingSystem": "linux", "architecture": "arm64"},
            "images": [{"names": ["n"], "sizeBytes": 5}], "declaredFeatures": ["A"],
        },
    }));
    same::<Lease, upstream::coordination::v1::Lease>(&json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata(),
        "spec": {"holderIdentity": "n", "leaseDurationSeconds": 40, "renewTime": "2026-01-02T03:04:05.123456Z"},
    }));
}

#[test]
fn what_pods_refer_to_reads_and_writes_as_k8s_openapi_does() {
    same::<ConfigMap, upstream::core::v1::ConfigMap>(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(),
        "data": {"a": "b"}, "binaryData": {"c": "AAH/"}, "immutable": true,
    }));
    same::<Secret, upstream::core::v1::Secret>(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": metadata(),
        "data": {"a": "AAH/"}, "immutable": true, "type": "Opaque",
    }));
    same::<Service, upstream::core::v1::Service>(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata(),
        "spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1",
            "ports": [{"name": "http", "protocol": "TCP", "port": 80}]},
    }));
    same::<Event, upstream::core::v1::Event>(&json!({
        "apiVersion": "v1", "kind": "Event", "metadata": metadata(),
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": "ns", "name": "p", "uid": "u",
            "resourceVersion": "1", "fieldPath": "spec.containers{c}"},
        "reason": "R", "message": "M", "source": {"component": "kubelet", "host": "n"},
        "firstTimestamp": "2026-01-02T03:04:05Z", "lastTimestamp": "2026-01-02T03:04:05Z", "count": 2,
        "type": "Normal", "reportingComponent": "kubelet", "reportingInstance": "n",
    }));
}

#[test]
fn requests_and_reviews_read_and_write_as_k8s_openapi_does() {
    same::<CertificateSigningRequest, upstream::certificates::v1::CertificateSigningRequest>(&json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": metadata(),
        "spec": {"request": "AAH/", "signerName": "s", "expirationSeconds": 600, "usages": ["client auth"],
            "username": "u"},
        "status": {"certificate": "AAH/", "conditions": [{"type": "Approved", "status": "True", "reason": "R",
            "message": "M", "lastUpdateTime": "2026-01-02T03:04:05Z", "lastTransitionTime": "2026-01-02T03:04:05Z"}]},
    }));
    same::<TokenReview, upstream::authentication::v1::TokenReview>(&json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": metadata(),
        "spec": {"token": "t", "audiences": ["a"]},
        "status": {"authenticated": true, "audiences": ["a"], "error": "e",
            "user": {"username": "u", "uid": "1", "groups": ["g"], "extra": {"k": ["v"]}}},
    }));
    same::<SubjectAccessReview, upstream::authorization::v1::SubjectAccessReview>(&json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": metadata(),
        "spec": {"user": "u", "uid": "1", "groups": ["g"], "extra": {"k": ["v"]},
            "resourceAttributes": {"namespace": "ns", "verb": "get", "group": "apps", "version": "v1",
                "resource": "nodes", "subresource": "proxy", "name": "n"},
            "nonResourceAttributes": {"path": "/healthz", "verb": "get"}},
        "status": {"allowed": false, "denied": true, "reason": "r", "evaluationError": "e"},
    }));
}

#[test]
fn a_status_reads_and_writes_as_k8s_openapi_does() {
    let sample = json!({"status": "Failure", "message": "m", "reason": "NotFound", "code": 404,
        "details": {"name": "n", "kind": "pods", "uid": "u", "retryAfterSeconds": 1,
            "causes": [{"reason": "r", "message": "m", "field": "f"}]}});
    let ours: Status = serde_json::from_value(sample.clone()).unwrap();
    assert_eq!(serde_json::to_value(ours).unwrap(), sample);
    let theirs: k8s_openapi::apimachinery::pkg::apis::meta::v1::Status =
        serde_json::from_value(sample.clone()).unwrap();
    let theirs = serde_json::to_value(theirs).unwrap();
    for (key, value) in sample.as_object().unwrap() {
        assert_eq!(theirs.get(key), Some(value));
    }
}

#[test]
fn requests_for_tokens_are_written_as_k8s_openapi_does() {
    same::<TokenRequest, upstream::authentication::v1::TokenRequest>(&json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": metadata(),
        "spec": {"audiences": ["a"], "expirationSeconds": 600,
            "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": "u"}},
        "status": {"token": "t", "expirationTimestamp": "2026-01-02T03:04:05Z"},
    }));
}

#[test]
fn a_bookmark_with_null_containers_is_a_pod() {
    let pod: Pod = serde_json::from_value(json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"resourceVersion": "77", "creationTimestamp": null, "labels": null},
        "spec": {"containers": null}, "status": null,
    }))
    .unwrap();
    assert_eq!(pod.metadata.resource_version, "77");
    assert_eq!(pod.spec, PodSpec::default());
}

#[test]
fn other_volumes_are_known_by_their_kind_and_null_ones_are_not_there() {
    let read = |json: Value| serde_json::from_value::<Volume>(json).unwrap().source;
    assert_eq!(read(json!({"name": "v", "nfs": {"server": "s", "path": "/"}})).kind(), "nfs");
    assert_eq!(read(json!({"name": "v", "nfs": null, "emptyDir": {}})).kind(), "emptyDir");
    assert_eq!(read(json!({"name": "v"})).kind(), "");
}

#[test]
fn a_projected_secret_is_called_by_its_name() {
    let source: ProjectionSource = serde_json::from_value(json!({"secret": {"name": "s"}})).unwrap();
    assert_eq!(source.secret.unwrap().name, "s");
}

#[test]
fn times_are_written_in_seconds_and_microseconds_with_a_z() {
    let at: jiff::Timestamp = "2026-01-02T03:04:05.987654321Z".parse().unwrap();
    assert_eq!(Time::from(at).to_string(), "2026-01-02T03:04:05Z");
    assert_eq!(MicroTime::from(at).to_string(), "2026-01-02T03:04:05.987654Z");
    assert_eq!(serde_json::from_str::<Time>("\"2026-01-02T05:04:05+02:00\"").unwrap(), Time::from(at));
}

#[test]
fn paths_of_collections() {
    assert_eq!(Pod::collection(Some("ns")), "/api/v1/namespaces/ns/pods");
    assert_eq!(Node::collection(None), "/api/v1/nodes");
    assert_eq!(
        Lease::collection(Some("kube-node-lease")),
        "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
    );
}

#[test]
fn bytes_are_not_shown_in_debug_output_or_errors() {
    let secret: Secret = serde_json::from_value(json!({"data": {"k": "aHVudGVyMg=="}})).unwrap();
    assert!(!format!("{secret:?}").contains("hunter2"));
    let error = serde_json::from_value::<Secret>(json!({"data": {"k": "hunter2!"}})).unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
}
