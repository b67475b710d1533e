//! Probes and hooks on the real control plane: what they make of a pod, and what `kubectl describe` says of them.

use std::{sync::OnceLock, time::Duration};

use serde_json::{json, Value};
use tests::{
    bed::NODE,
    cluster::{pod, pod_spec},
    guests::Guest,
    Cluster,
};

/// How long a state may take to show on a busy machine.
const SHOWN: Duration = Duration::from_secs(90);

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::start)
}

/// A server on this port, with these fields of its container.
fn serve(name: &str, port: u16, more: Value) {
    let cluster = cluster();
    let mut spec = pod_spec("Always", &cluster.image(Guest::Health), &["/state/ok"]);
    let container = &mut spec["containers"][0];
    container["ports"] = json!([{"name": "web", "containerPort": port}]);
    container["volumeMounts"] = json!([{"name": "state", "mountPath": "/state"}]);
    container.as_object_mut().expect("it is one").extend(more.as_object().cloned().expect("it is one"));
    spec["volumes"] = json!([{"name": "state", "emptyDir": {}}]);
    cluster.bed.apply_value(&pod(name, spec));
}

/// Asks the server on this port.
fn ask(port: u16, path: &str) {
    cluster().bed.shell(&format!("curl -sS --max-time 10 http://{NODE}:{port}{path}")).expect();
}

#[track_caller]
fn wait_until_ready(name: &str, ready: &str) {
    cluster().bed.wait_for_columns("default", name, SHOWN, |columns| columns.ready == ready);
}

/// Waits until `kubectl describe` of a pod has these words.
#[track_caller]
fn wait_for_description(name: &str, words: &str) {
    let bed = &cluster().bed;
    bed.wait_for(&format!("{words:?} in the description of {name}"), SHOWN, || {
        bed.kubectl(&["describe", "pod", name]).stdout.contains(words).then_some(())
    });
}

#[track_caller]
fn wait_for_restart(name: &str) {
    cluster().bed.wait_for_columns("default", name, SHOWN, |columns| columns.restarts >= 1);
}

#[track_caller]
fn remove(name: &str) {
    cluster().bed.kubectl(&["delete", "pod", name, "--wait=false"]).expect();
}

/// A probe of this handler, once a second, whose word counts at once.
fn each_second(handler: Value) -> Value {
    let mut probe = json!({"periodSeconds": 1, "failureThreshold": 1});
    probe.as_object_mut().expect("it is one").extend(handler.as_object().cloned().expect("it is one"));
    probe
}

#[test]
fn readiness_comes_and_goes_with_what_the_server_answers() {
    let http = json!({"httpGet": {"port": "web", "path": "/moved"}});
    serve("moody", 8101, json!({"readinessProbe": each_second(http)}));
    cluster().bed.apply_value(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "moody"},
        "spec": {"selector": {"app": "moody"}, "ports": [{"port": 80, "targetPort": 8101}]},
    }));
    cluster().bed.kubectl(&["label", "pod", "moody", "app=moody"]).expect();
    wait_until_ready("moody", "1/1");
    let endpoint = |ready: bool| {
        let slices = cluster().bed.get(&["endpointslices", "-l", "kubernetes.io/service-name=moody"]);
        (slices["items"][0]["endpoints"][0]["conditions"]["ready"] == ready).then_some(())
    };
    cluster().bed.wait_for("its endpoint to be ready", SHOWN, || endpoint(true));
    ask(8101, "/set/503");
    wait_until_ready("moody", "0/1");
    wait_for_description("moody", "Readiness probe failed: HTTP probe failed with statuscode: 503");
    cluster().bed.wait_for("its endpoint to be unready", SHOWN, || endpoint(false));
    ask(8101, "/set/200");
    wait_until_ready("moody", "1/1");
    assert_eq!(cluster().bed.columns("default", "moody").expect("it is there").restarts, 0);
    remove("moody");
}

#[test]
fn what_is_not_alive_is_started_anew() {
    let http = json!({"httpGet": {"port": 8102, "path": "/healthz"}});
    serve("ill", 8102, json!({"livenessProbe": each_second(http)}));
    wait_until_ready("ill", "1/1");
    ask(8102, "/set/500");
    wait_for_restart("ill");
    wait_for_description("ill", "Container main failed liveness probe, will be restarted");
    wait_until_ready("ill", "1/1");
    let status = cluster().bed.get(&["pod", "ill"])["status"]["containerStatuses"][0].clone();
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 143, "{status}");
    remove("ill");
}

#[test]
fn nothing_is_asked_of_what_has_not_started() {
    let closed = each_second(json!({"tcpSocket": {"port": 8199}}));
    let http = each_second(json!({"httpGet": {"port": 8103, "path": "/nowhere"}}));
    serve("slow-to-start", 8103, json!({"startupProbe": closed, "livenessProbe": http}));
    wait_for_restart("slow-to-start");
    wait_for_description(
        "slow-to-start",
        &format!("Startup probe failed: dial tcp {NODE}:8199: connect: connection refused"),
    );
    wait_for_description("slow-to-start", "Container main failed startup probe, will be restarted");
    let described = cluster().bed.kubectl(&["describe", "pod", "slow-to-start"]).expect();
    assert!(!described.contains("Liveness probe failed"), "{described}");
    remove("slow-to-start");
    let open = each_second(json!({"tcpSocket": {"port": "web"}}));
    serve("starts", 8104, json!({"startupProbe": open}));
    wait_until_ready("starts", "1/1");
    let status = cluster().bed.get(&["pod", "starts"])["status"]["containerStatuses"][0].clone();
    assert_eq!(status["started"], true);
    remove("starts");
}

#[test]
fn grpc_is_asked_for_a_service() {
    serve(
        "caller",
        8105,
        json!({"readinessProbe": each_second(json!({"grpc": {"port": 8105, "service": "some"}}))}),
    );
    wait_until_ready("caller", "1/1");
    ask(8105, "/set/503");
    wait_until_ready("caller", "0/1");
    wait_for_description(
        "caller",
        "Readiness probe failed: service unhealthy (responded with \"NOT_SERVING\")",
    );
    remove("caller");
    serve(
        "unknown",
        8106,
        json!({"readinessProbe": each_second(json!({"grpc": {"port": 8106, "service": "none"}}))}),
    );
    wait_for_description("unknown", "health rpc probe failed: rpc error: code = 5 desc = unknown service");
    remove("unknown");
}

#[test]
fn a_command_is_a_second_instance_on_the_same_volumes() {
    let check =
        each_second(json!({"exec": {"command": ["health", "check", "/state/ok"]}, "timeoutSeconds": 20}));
    serve("checked", 8107, json!({"readinessProbe": check}));
    wait_for_description("checked", "Readiness probe failed: not yet: open /state/ok");
    assert_eq!(cluster().bed.columns("default", "checked").expect("it is there").ready, "0/1");
    ask(8107, "/write");
    wait_until_ready("checked", "1/1");
    // What the second instance prints is not in the log of the first.
    assert_eq!(cluster().bed.kubectl(&["logs", "checked"]).expect(), "up\n");
    remove("checked");
}

#[test]
fn https_redirects_and_silence() {
    let cluster = cluster();
    let mut spec = pod_spec("Always", &cluster.image(Guest::Health), &["/x"]);
    let ports = json!([{"name": "web", "containerPort": 8108}, {"name": "tls", "containerPort": 8109}]);
    let container = &mut spec["containers"][0];
    container["ports"] = ports;
    container["readinessProbe"] = each_second(
        json!({"httpGet": {"port": "tls", "path": "/healthz", "scheme": "HTTPS"}, "timeoutSeconds": 30}),
    );
    container["livenessProbe"] = each_second(json!({"httpGet": {"port": "web", "path": "/away"}}));
    cluster.bed.apply_value(&pod("secure", spec));
    wait_until_ready("secure", "1/1");
    wait_for_description("secure", "ProbeWarning");
    wait_for_description("secure", "Liveness probe warning: Probe terminated redirects");
    assert_eq!(cluster.bed.columns("default", "secure").expect("it is there").restarts, 0);
    remove("secure");
    serve(
        "silent",
        8110,
        json!({"readinessProbe": each_second(json!({"httpGet": {"port": 8110, "path": "/slow"}}))}),
    );
    wait_for_description(
        "silent",
        "context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
    );
    remove("silent");
}

#[test]
fn hooks_are_done_at_the_start_and_before_the_end() {
    let cluster = cluster();
    let bed = &cluster.bed;
    // The second container's readiness shows that the first one's hook has been done.
    let leave = |file: &str| json!({"exec": {"command": ["health", "leave", file]}});
    let check =
        each_second(json!({"exec": {"command": ["health", "check", "/state/begun"]}, "timeoutSeconds": 20}));
    serve(
        "hooked",
        8111,
        json!({"lifecycle": {"postStart": leave("/state/begun")}, "readinessProbe": check}),
    );
    wait_until_ready("hooked", "1/1");
    remove("hooked");
    serve("hookless", 8112, json!({"lifecycle": {"postStart": {"httpGet": {"port": 8198, "path": "/"}}}}));
    wait_for_description("hookless", "PostStartHook failed");
    bed.wait_for_columns("default", "hookless", SHOWN, |columns| {
        columns.restarts >= 1 && columns.status == "CrashLoopBackOff"
            || columns.status == "PostStartHookError"
    });
    remove("hookless");
    serve(
        "unhooked",
        8113,
        json!({"lifecycle": {"preStop": {"exec": {"command": ["health", "check", "/state/nothing"]}}}}),
    );
    wait_until_ready("unhooked", "1/1");
    remove("unhooked");
    bed.wait_for("the event of the hook that failed", SHOWN, || {
        let events =
            bed.kubectl(&["get", "events", "--field-selector", "involvedObject.name=unhooked"]).stdout;
        events.contains("PreStopHook failed").then_some(())
    });
}
