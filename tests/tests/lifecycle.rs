//! The life of pods between their start and their end: sidecars, services, resizes, image changes, graces.

use std::{sync::OnceLock, time::Duration};

use serde_json::{json, Value};
use tests::{
    bed::NODE,
    cluster::{pod, pod_spec},
    guests::Guest,
    kubectl::Outcome,
    Cluster,
};

/// How long a state may take to show on a busy machine.
const SHOWN: Duration = Duration::from_secs(90);

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::start)
}

fn status(name: &str) -> Value {
    cluster().bed.get(&["pod", name])["status"].clone()
}

/// A pod's condition of this type.
fn condition(name: &str, kind: &str) -> Option<Value> {
    let conditions = status(name)["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == kind)
}

/// The sidecar of a pod's spec.
fn with_sidecar(mut spec: Value, guest: Guest) -> Value {
    let image = cluster().image(guest);
    spec["initContainers"] = json!([{"name": "proxy", "image": image, "restartPolicy": "Always"}]);
    spec
}

#[test]
fn a_sidecar_serves_a_job_and_does_not_keep_it() {
    let cluster = cluster();
    let bed = &cluster.bed;
    let spec = with_sidecar(pod_spec("Never", &cluster.image(Guest::Exit), &["0"]), Guest::Hello);
    bed.apply_value(&json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "served"},
        "spec": {"backoffLimit": 0, "template": {"spec": spec}},
    }));
    bed.kubectl(&["wait", "--for=condition=complete", "job/served", "--timeout=90s"]).expect();
    let pods = bed.get(&["pods", "-l", "job-name=served"]);
    let status = &pods["items"][0]["status"];
    assert_eq!(status["phase"], "Succeeded");
    let (sidecar, main) = (&status["initContainerStatuses"][0], &status["containerStatuses"][0]);
    let (began, ended) =
        (&sidecar["state"]["terminated"]["startedAt"], &main["state"]["terminated"]["startedAt"]);
    assert!(began.as_str() <= ended.as_str(), "the sidecar began first: {status}");
    assert_eq!(sidecar["state"]["terminated"]["exitCode"], 143);
    let pod = pods["items"][0]["metadata"]["name"].as_str().expect("it has a name");
    let described = bed.kubectl(&["describe", "pod", pod]).expect();
    assert!(described.contains("Stopping container proxy"), "{described}");
}

#[test]
fn a_sidecar_counts_as_a_container_that_is_ready_and_is_restarted() {
    let cluster = cluster();
    let spec = with_sidecar(pod_spec("Always", &cluster.image(Guest::Hello), &[]), Guest::Exit);
    cluster.bed.apply_value(&pod("beside", spec));
    // The sidecar ends with 0 again and again; the pod goes on, and is not ready meanwhile.
    cluster.bed.wait_for("the sidecar to be restarted", SHOWN, || {
        let status = status("beside");
        let restarts = status["initContainerStatuses"][0]["restartCount"].as_u64().unwrap_or(0);
        let runs = status["containerStatuses"][0]["state"]["running"].is_object();
        (restarts >= 2 && runs && status["phase"] == "Running").then_some(())
    });
    let unready = condition("beside", "ContainersReady").expect("it is there");
    assert_eq!(
        (&unready["status"], &unready["message"]),
        (&json!("False"), &json!("containers with unready status: [proxy]"))
    );
    assert_eq!(condition("beside", "Initialized").expect("it is there")["status"], "True");
    cluster.bed.kubectl(&["delete", "pod", "beside"]).expect();
}

#[test]
fn services_are_told_of_in_the_environment() {
    let cluster = cluster();
    let bed = &cluster.bed;
    bed.apply_value(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web-site"},
        "spec": {"clusterIP": "10.96.0.77", "ports": [{"name": "http", "port": 8080}]},
    }));
    let mut spec = pod_spec("Never", &cluster.image(Guest::Exit), &["0"]);
    let greeting = "$(KUBERNETES_SERVICE_HOST) $(WEB_SITE_SERVICE_HOST):$(WEB_SITE_SERVICE_PORT_HTTP)";
    spec["containers"][0]["env"] = json!([{"name": "GREETING", "value": greeting}]);
    bed.apply_value(&pod("told", spec.clone()));
    spec["enableServiceLinks"] = json!(false);
    bed.apply_value(&pod("not-told", spec));
    for (name, expected) in [
        ("told", "greeting: 10.96.0.1 10.96.0.77:8080\n"),
        ("not-told", "greeting: 10.96.0.1 $(WEB_SITE_SERVICE_HOST):$(WEB_SITE_SERVICE_PORT_HTTP)\n"),
    ] {
        bed.wait_for_columns("default", name, SHOWN, |columns| columns.status == "Completed");
        let printed = bed.kubectl(&["logs", name]).expect();
        assert!(printed.contains(expected), "{name}: {printed}");
    }
}

#[test]
fn another_image_takes_the_place_of_the_old_one_whatever_the_policy() {
    let cluster = cluster();
    let bed = &cluster.bed;
    cluster.run("changed", "Never", Guest::Hello, &["0"]);
    bed.wait_for_columns("default", "changed", SHOWN, |columns| columns.ready == "1/1");
    let image = cluster.image(Guest::SleepC);
    bed.kubectl(&["set", "image", "pod/changed", &format!("main={image}")]).expect();
    bed.wait_for_columns("default", "changed", SHOWN, |columns| {
        columns.restarts == 1 && columns.ready == "1/1"
    });
    bed.wait_for("the new program to print", SHOWN, || {
        (bed.kubectl(&["logs", "changed"]).stdout == "up\n").then_some(())
    });
    let described = bed.kubectl(&["describe", "pod", "changed"]).expect();
    assert!(described.contains("Container main definition changed, will be restarted"), "{described}");
    bed.kubectl(&["delete", "pod", "changed"]).expect();
}

/// A pod that asks for some CPU, and its resize.
fn sized(cluster: &Cluster, name: &str) {
    let mut spec = pod_spec("Always", &cluster.image(Guest::SleepC), &[]);
    spec["containers"][0]["resources"] = json!({"requests": {"cpu": "10m"}});
    cluster.bed.apply_value(&pod(name, spec));
    cluster.bed.wait_for_columns("default", name, SHOWN, |columns| columns.ready == "1/1");
}

fn resize(cluster: &Cluster, name: &str, cpu: &str) -> Outcome {
    let container = json!({"name": "main", "resources": {"requests": {"cpu": cpu}}});
    let patch = json!({"spec": {"containers": [container]}}).to_string();
    cluster.bed.kubectl(&["patch", "pod", name, "--subresource", "resize", "--patch", &patch])
}

#[test]
fn nobody_resizes_pods_of_a_node_that_is_not_linux() {
    sized(cluster(), "kept");
    let refused = resize(cluster(), "kept", "20m").expect_failure();
    assert!(refused.contains("Invalid value") || refused.contains("Forbidden"), "{refused}");
}

#[test]
fn a_resize_is_infeasible_and_told_so() {
    // Where the node says that it is what the API server lets be resized.
    let cluster = Cluster::start_with(&["--node-labels", "kubernetes.io/os=linux"]);
    let bed = &cluster.bed;
    let pending = || {
        let conditions =
            bed.get(&["pod", "grown"])["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|condition| condition["type"] == "PodResizePending")
    };
    sized(&cluster, "grown");
    resize(&cluster, "grown", "20m").expect();
    let told = bed.wait_for("the resize to be answered", SHOWN, pending);
    assert_eq!((&told["status"], &told["reason"]), (&json!("True"), &json!("Infeasible")), "{told}");
    let now = bed.get(&["pod", "grown"]);
    assert_eq!(now["status"]["containerStatuses"][0]["resources"]["requests"]["cpu"], "10m", "what it has");
    assert_eq!(now["spec"]["containers"][0]["resources"]["requests"]["cpu"], "20m", "what it asks for");
    assert_eq!(told["observedGeneration"], now["metadata"]["generation"]);
    bed.wait_for("the event", SHOWN, || {
        bed.kubectl(&["describe", "pod", "grown"]).stdout.contains("ResizeInfeasible").then_some(())
    });
    // Taken back, it is as it was.
    resize(&cluster, "grown", "10m").expect();
    bed.wait_for("the condition to go", SHOWN, || pending().is_none().then_some(()));
    assert_eq!(bed.columns("default", "grown").expect("it is there").restarts, 0);
}

#[test]
fn a_grace_is_kept_shortened_and_skipped() {
    let cluster = cluster();
    let bed = &cluster.bed;
    let mut spec = pod_spec("Always", &cluster.image(Guest::Hello), &[]);
    spec["terminationGracePeriodSeconds"] = json!(600);
    for name in ["shortened", "forced"] {
        let mut patient = pod(name, spec.clone());
        patient["metadata"]["annotations"] = json!({"copepod/wait-for-grace": "true"});
        bed.apply_value(&patient);
    }
    for name in ["shortened", "forced"] {
        bed.wait_for_columns("default", name, SHOWN, |columns| columns.ready == "1/1");
        bed.kubectl(&["delete", "pod", name, "--wait=false"]).expect();
        bed.wait_for_columns("default", name, SHOWN, |columns| {
            columns.status == "Terminating" && columns.ready == "1/1"
        });
    }
    bed.kubectl(&["delete", "pod", "shortened", "--grace-period=3"]).expect();
    bed.kubectl(&["delete", "pod", "forced", "--force", "--grace-period=0"]).expect();
    // The name is free again at once, and its next pod another.
    cluster.run("forced", "Always", Guest::Hello, &[]);
    bed.wait_for_columns("default", "forced", SHOWN, |columns| {
        columns.ready == "1/1" && columns.restarts == 0
    });
    bed.kubectl(&["delete", "pod", "forced"]).expect();
}

#[test]
fn a_program_that_asks_for_it_is_told_to_stop_and_has_its_grace() {
    let cluster = cluster();
    let bed = &cluster.bed;
    let mut spec = pod_spec("Always", &cluster.image(Guest::Patient), &[]);
    spec["terminationGracePeriodSeconds"] = json!(600);
    let mut patient = pod("patient", spec);
    patient["metadata"]["annotations"] = json!({"copepod/wait-for-grace": "true"});
    bed.apply_value(&patient);
    bed.wait_for_columns("default", "patient", SHOWN, |columns| columns.ready == "1/1");
    let follower = bed.kubectl_spawn("follow-patient", &["logs", "-f", "patient"]);
    bed.wait_for("the follower to hear of it", SHOWN, || follower.output().contains("at work").then_some(()));
    // Long before its grace is over.
    bed.kubectl(&["delete", "pod", "patient"]).expect();
    bed.wait_for("its last words", SHOWN, || follower.output().contains("told to stop").then_some(()));
}

#[test]
fn what_a_container_wants_done_before_its_stop_is_done() {
    let cluster = cluster();
    let bed = &cluster.bed;
    let mut bell = pod_spec("Always", &cluster.image(Guest::Serve), &[]);
    bell["containers"][0]["ports"] = json!([{"containerPort": 8090}]);
    bed.apply_value(&pod("bell", bell));
    let ringer = |name: &str, port: u16| {
        let mut spec = pod_spec("Always", &cluster.image(Guest::SleepC), &[]);
        let get = json!({"host": NODE, "port": port, "path": "/rung"});
        spec["containers"][0]["lifecycle"] = json!({"preStop": {"httpGet": get}});
        bed.apply_value(&pod(name, spec));
    };
    ringer("ringer", 8090);
    ringer("deaf", 8099);
    let mut sleeper = pod_spec("Always", &cluster.image(Guest::SleepC), &[]);
    sleeper["terminationGracePeriodSeconds"] = json!(30);
    sleeper["containers"][0]["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 4}}});
    bed.apply_value(&pod("sleeper", sleeper));
    for name in ["bell", "ringer", "deaf", "sleeper"] {
        bed.wait_for_columns("default", name, SHOWN, |columns| columns.ready == "1/1");
    }
    bed.kubectl(&["delete", "pod", "ringer", "deaf"]).expect();
    let mut curl = bed.command("curl");
    let answer = curl.args(["--silent", &format!("http://{NODE}:8090/asked")]).output().expect("curl starts");
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "rust 1 /asked\n", "the bell was rung once before");
    bed.wait_for("the hook that failed to be told", SHOWN, || {
        let told = bed.kubectl(&["get", "events", "--field-selector", "reason=FailedPreStopHook"]).stdout;
        told.contains("pod/deaf").then_some(())
    });
    let begun = std::time::Instant::now();
    bed.kubectl(&["delete", "pod", "sleeper"]).expect();
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(4), "it slept before it was stopped: {took:?}");
}

#[test]
fn kubectl_debug_is_answered_and_does_not_hang() {
    let cluster = cluster();
    cluster.run("debugged", "Always", Guest::Hello, &[]);
    cluster.bed.wait_for_columns("default", "debugged", SHOWN, |columns| columns.ready == "1/1");
    let image = cluster.image(Guest::Exit);
    let debug =
        ["debug", "debugged", "--image", &image, "--container", "look", "--profile", "general", "--", "true"];
    cluster.bed.kubectl(&debug).expect();
    let told = cluster.bed.wait_for("the ephemeral container to be answered", SHOWN, || {
        let look = status("debugged")["ephemeralContainerStatuses"][0]["state"]["terminated"].clone();
        look.is_object().then_some(look)
    });
    assert_eq!(told["reason"], "ContainerCannotRun", "{told}");
    cluster.bed.kubectl(&["delete", "pod", "debugged"]).expect();
}
