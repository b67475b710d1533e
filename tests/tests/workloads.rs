//! Pods that end, fail, crash, cannot be pulled or cannot be run look as they do on any node.

use std::{sync::OnceLock, time::Duration};

use serde_json::json;
use tests::{
    cluster::{pod, pod_spec},
    guests::Guest,
    Cluster,
};

/// How long a state may take to show on a busy machine, back-offs of 10 and 20 s included.
const SHOWN: Duration = Duration::from_secs(120);
/// How long nothing may happen to a pod that is refused for good.
const QUIET: Duration = Duration::from_secs(12);

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::start)
}

#[track_caller]
fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "there is no {part:?} in\n{text}");
    }
}

/// `kubectl describe` with its runs of blanks made one, so that columns do not matter.
fn describe(name: &str) -> String {
    let text = cluster().bed.kubectl(&["describe", "pod", name]).expect();
    let lines: Vec<String> =
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    lines.join("\n")
}

/// A Job whose pods run the guest that exits with `code`, and the name of its first pod.
#[track_caller]
fn run_job(name: &str, code: &str) -> String {
    let cluster = cluster();
    let spec = pod_spec("Never", &cluster.image(Guest::Exit), &["carry", code]);
    cluster.bed.apply_value(&json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": {"spec": spec}},
    }));
    cluster.bed.wait_for(&format!("job {name} to have a pod"), SHOWN, || {
        let pods = cluster.bed.get(&["pods", "-l", &format!("job-name={name}")]);
        pods["items"][0]["metadata"]["name"].as_str().map(str::to_owned)
    })
}

#[test]
fn a_job_that_succeeds_is_complete() {
    let bed = &cluster().bed;
    let pod = run_job("carrier", "0");
    bed.kubectl(&["wait", "--for=condition=complete", "job/carrier", "--timeout=120s"]).expect();
    let columns = bed.columns("default", &pod).expect("the pod is there");
    assert_eq!((columns.ready.as_str(), columns.status.as_str(), columns.restarts), ("0/1", "Completed", 0));
    contains(
        &bed.kubectl(&["logs", &pod]).expect(),
        &["argument 1: carry\n", "argument 2: 0\n", "about to exit\n"],
    );
    let described = describe(&pod);
    contains(&described, &["Status: Succeeded", "State: Terminated", "Reason: Completed", "Exit Code: 0"]);
    contains(&described, &["Normal Scheduled", "Normal Pulled", "Normal Created", "Normal Started"]);
    contains(&described, &["kubelet", "Container created", "Container started", "Container ID: copepod://"]);
}

#[test]
fn a_job_that_fails_is_failed() {
    let bed = &cluster().bed;
    let pod = run_job("dropper", "3");
    bed.kubectl(&["wait", "--for=condition=failed", "job/dropper", "--timeout=120s"]).expect();
    let columns = bed.columns("default", &pod).expect("the pod is there");
    assert_eq!((columns.ready.as_str(), columns.status.as_str(), columns.restarts), ("0/1", "Error", 0));
    contains(&describe(&pod), &["Status: Failed", "State: Terminated", "Reason: Error", "Exit Code: 3"]);
}

#[test]
fn a_trap_is_an_error_that_names_the_trap() {
    let cluster = cluster();
    cluster.run("trap", "Never", Guest::Trap, &[]);
    let columns = cluster.bed.wait_for_columns("default", "trap", SHOWN, |columns| columns.status == "Error");
    assert_eq!((columns.ready.as_str(), columns.restarts), ("0/1", 0));
    contains(&describe("trap"), &["Status: Failed", "Reason: Error", "Exit Code: 134", "unreachable"]);
    assert_eq!(cluster.bed.kubectl(&["logs", "trap"]).expect(), "about to trap\n");
}

#[test]
fn a_pod_that_crashes_backs_off() {
    let cluster = cluster();
    cluster.run("crash", "Always", Guest::Exit, &["3"]);
    cluster.bed.wait_for_columns("default", "crash", SHOWN, |columns| {
        columns.status == "CrashLoopBackOff" && columns.ready == "0/1" && columns.restarts >= 1
    });
    let described = describe("crash");
    contains(&described, &["Status: Running", "State: Waiting", "Reason: CrashLoopBackOff"]);
    contains(&described, &["Last State: Terminated", "Reason: Error", "Exit Code: 3"]);
    contains(&described, &["Back-off restarting failed container main in pod crash_default("]);
    cluster.bed.wait_for_columns("default", "crash", SHOWN, |columns| columns.restarts >= 2);
    let previous = cluster.bed.kubectl(&["logs", "crash", "--previous"]);
    contains(&previous.expect(), &["about to exit"]);
    cluster.bed.kubectl(&["delete", "pod", "crash"]).expect();
}

#[test]
fn a_missing_image_is_backed_off_from() {
    let cluster = cluster();
    let image = cluster.registry.image("test/missing:v1");
    cluster.bed.apply_value(&pod("missing", pod_spec("Always", &image, &[])));
    cluster.bed.wait_for_columns("default", "missing", SHOWN, |columns| columns.status == "ErrImagePull");
    let columns = cluster
        .bed
        .wait_for_columns("default", "missing", SHOWN, |columns| columns.status == "ImagePullBackOff");
    assert_eq!((columns.ready.as_str(), columns.restarts), ("0/1", 0));
    let described = describe("missing");
    contains(&described, &["Status: Pending", "State: Waiting"]);
    contains(
        &described,
        &[&format!("Pulling image \"{image}\""), &format!("Failed to pull image \"{image}\"")],
    );
    contains(&described, &["Error: ErrImagePull", &format!("Back-off pulling image \"{image}\"")]);
    // It can be deleted all the same.
    cluster.bed.kubectl(&["delete", "pod", "missing"]).expect();
}

/// Waits until the pod has failed, and then that nothing more is done about it; gives its message.
#[track_caller]
fn is_refused_once(name: &str) -> String {
    let bed = &cluster().bed;
    let refused = bed.wait_for(&format!("pod {name} to be refused"), SHOWN, || {
        let pod = bed.get(&["pod", name]);
        (pod["status"]["phase"] == "Failed").then_some(pod)
    });
    std::thread::sleep(QUIET);
    let later = bed.get(&["pod", name]);
    assert_eq!(
        refused["metadata"]["resourceVersion"], later["metadata"]["resourceVersion"],
        "a pod that was refused is left alone"
    );
    let reason = refused["status"]["reason"].as_str().unwrap_or_default();
    assert!(!reason.is_empty(), "a refusal has a reason: {}", refused["status"]);
    let columns = bed.columns("default", name).expect("the pod is there");
    assert_eq!((columns.status.as_str(), columns.restarts), (reason, 0));
    let selector = format!("involvedObject.name={name},type=Warning");
    let events = bed.get(&["events", "--field-selector", &selector]);
    let items = events["items"].as_array().cloned().unwrap_or_default();
    let counts: Vec<u64> = items.iter().map(|event| event["count"].as_u64().unwrap_or(1)).collect();
    assert_eq!(counts, [1], "one warning, once: {events}");
    refused["status"]["message"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_pod_that_wants_the_hosts_processes_is_refused() {
    let cluster = cluster();
    let mut spec = pod_spec("Always", &cluster.image(Guest::Hello), &[]);
    spec["hostPID"] = json!(true);
    cluster.bed.apply_value(&pod("host-pid", spec));
    contains(&is_refused_once("host-pid"), &["Pod was rejected: ", "hostPID"]);
}

#[test]
fn a_label_given_by_the_operator_counts_at_once() {
    let cluster = cluster();
    cluster.bed.kubectl(&["label", "node", &cluster.agent.node, "room=cellar"]).expect();
    let mut spec = pod_spec("Always", &cluster.image(Guest::Hello), &[]);
    spec["nodeSelector"] = json!({"room": "cellar"});
    cluster.bed.apply_value(&pod("in-the-cellar", spec));
    cluster.bed.wait_for_columns("default", "in-the-cellar", SHOWN, |columns| columns.status == "Running");
}

#[test]
fn a_status_that_somebody_else_wrote_is_set_right() {
    let cluster = cluster();
    cluster.run("slandered", "Always", Guest::Hello, &[]);
    cluster.bed.wait_for_columns("default", "slandered", SHOWN, |columns| columns.ready == "1/1");
    // What the node controller does to the pods of a node that it takes for lost.
    let patch = r#"{"status":{"conditions":[{"type":"Ready","status":"False"}]}}"#;
    cluster.bed.kubectl(&["patch", "pod", "slandered", "--subresource=status", "-p", patch]).expect();
    let ready = || {
        let status = cluster.bed.get(&["pod", "slandered"])["status"].clone();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    assert!(!ready(), "the patch was taken");
    cluster.bed.wait_for("the pod to be Ready again", SHOWN, || ready().then_some(()));
}

#[test]
fn a_pod_that_says_it_is_for_linux_is_refused() {
    let cluster = cluster();
    let mut spec = pod_spec("Always", &cluster.image(Guest::Hello), &[]);
    spec["os"] = json!({"name": "linux"});
    cluster.bed.apply_value(&pod("for-linux", spec));
    contains(&is_refused_once("for-linux"), &["Pod was rejected: "]);
}

#[test]
fn an_image_for_linux_does_not_run_and_says_why() {
    let cluster = cluster();
    let image = cluster.bed.push_linux_image(&cluster.registry, "test/linux", "v1");
    cluster.bed.apply_value(&pod("linux-image", pod_spec("Always", &image, &[])));
    let waiting = cluster.bed.wait_for("the image to be refused with a reason", SHOWN, || {
        let status = cluster.bed.get(&["pod", "linux-image"])["status"].clone();
        let waiting = status["containerStatuses"][0]["state"]["waiting"].clone();
        let told = [&waiting["message"], &status["message"]];
        told.iter().find_map(|text| text.as_str()).filter(|text| text.contains("linux")).map(str::to_owned)
    });
    contains(&waiting, &["linux"]);
    let count = |reason: &str| {
        let selector = format!("involvedObject.name=linux-image,reason={reason}");
        let events = cluster.bed.get(&["events", "--field-selector", &selector]);
        let items = events["items"].as_array().cloned().unwrap_or_default();
        items.iter().map(|event| event["count"].as_u64().unwrap_or(1)).sum::<u64>()
    };
    let before = count("Pulling");
    std::thread::sleep(QUIET);
    assert!(count("Pulling") <= before + 2, "it is tried again with back-off, not in a hot loop");
    let columns = cluster.bed.columns("default", "linux-image").expect("the pod is there");
    assert_eq!((columns.ready.as_str(), columns.restarts), ("0/1", 0));
}

#[test]
fn a_daemon_set_for_linux_does_not_land() {
    let cluster = cluster();
    let mut spec = pod_spec("Always", &cluster.image(Guest::Hello), &[]);
    spec["nodeSelector"] = json!({"kubernetes.io/os": "linux"});
    spec["tolerations"] = json!([{"operator": "Exists"}]);
    let mut template = json!({"metadata": {"labels": {"app": "proxy"}}, "spec": spec});
    let daemon_set = |name: &str, template: &serde_json::Value| {
        json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": name},
            "spec": {"selector": {"matchLabels": {"app": "proxy"}}, "template": template},
        })
    };
    cluster.bed.apply_value(&daemon_set("proxy", &template));
    // One without the selector lands, which shows that the other could have.
    template["metadata"]["labels"]["app"] = json!("any");
    template["spec"]["nodeSelector"] = json!({});
    let mut any = daemon_set("any", &template);
    any["spec"]["selector"]["matchLabels"]["app"] = json!("any");
    cluster.bed.apply_value(&any);
    cluster.bed.wait_for("the DaemonSet without a selector to land", SHOWN, || {
        (cluster.bed.get(&["daemonset", "any"])["status"]["numberReady"] == 1).then_some(())
    });
    let proxy = cluster.bed.get(&["daemonset", "proxy"]);
    assert_eq!(proxy["status"]["desiredNumberScheduled"], 0, "{}", proxy["status"]);
    assert_eq!(cluster.bed.get(&["pods", "-l", "app=proxy"])["items"], json!([]));
    cluster.bed.kubectl(&["delete", "daemonset", "any", "proxy"]).expect();
}

#[test]
fn environment_and_arguments_reach_the_guest() {
    let cluster = cluster();
    let mut spec = pod_spec("Never", &cluster.image(Guest::Exit), &["to $(GREETING)", "0"]);
    spec["containers"][0]["env"] = json!([{"name": "GREETING", "value": "ahoy"}]);
    cluster.bed.apply_value(&pod("environment", spec));
    cluster.bed.wait_for_columns("default", "environment", SHOWN, |columns| columns.status == "Completed");
    let printed = cluster.bed.kubectl(&["logs", "environment"]).expect();
    contains(&printed, &["argument 1: to ahoy\n", "greeting: ahoy\n"]);
}
