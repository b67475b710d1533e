//! What can go wrong while a node joins, what the agent says about it, and that it goes on.

use std::time::Duration;

use tests::{
    agent::{self, JOIN},
    bed::{HOSTNAME, MORE_NODES, NODE},
    guests::Guest,
    Agent, Bed,
};

/// How long a line may take to be logged, or a next try to be made.
const STEP: Duration = Duration::from_secs(90);

/// The names of the certificate requests for clients that are still to be decided on.
fn pending_client_requests(bed: &Bed) -> Vec<String> {
    let requests = bed.get(&["csr"]);
    let items = requests["items"].as_array().cloned().unwrap_or_default();
    let undecided = items.iter().filter(|request| {
        request["spec"]["signerName"] == "kubernetes.io/kube-apiserver-client-kubelet"
            && request["status"]["conditions"].as_array().is_none_or(Vec::is_empty)
    });
    undecided.filter_map(|request| request["metadata"]["name"].as_str().map(str::to_owned)).collect()
}

/// Takes away the binding by which the controller manager approves the requests of new nodes, so that a
/// person must.
fn approve_by_hand(bed: &Bed) {
    let bindings = bed.get(&["clusterrolebindings"]);
    let items = bindings["items"].as_array().cloned().unwrap_or_default();
    let role = "system:certificates.k8s.io:certificatesigningrequests:nodeclient";
    let names: Vec<&str> = items
        .iter()
        .filter(|binding| binding["roleRef"]["name"] == role)
        .filter_map(|binding| binding["metadata"]["name"].as_str())
        .collect();
    assert!(!names.is_empty(), "`copepod bootstrap` has bound {role}");
    for name in names {
        bed.kubectl(&["delete", "clusterrolebinding", name]).expect();
    }
}

#[track_caller]
fn next_request(bed: &Bed) -> String {
    bed.wait_for("a certificate request to decide on", STEP, || {
        pending_client_requests(bed).into_iter().next()
    })
}

#[test]
fn a_request_that_is_denied_or_deleted_is_made_anew() {
    let bed = Bed::start();
    let bootstrap = bed.bootstrap("bootstrap.conf", &[]);
    approve_by_hand(&bed);
    let mut agent =
        Agent::start(&bed, HOSTNAME, &["--node-ip", NODE, "--bootstrap-file", &bootstrap.to_string_lossy()]);

    let denied = next_request(&bed);
    bed.kubectl(&["certificate", "deny", &denied]).expect();
    agent.wait_for_line(&bed, STEP, &[&denied, "denied"]);

    let deleted = next_request(&bed);
    assert_ne!(denied, deleted, "a denied request stays, so the next has another name");
    bed.kubectl(&["delete", "csr", &deleted]).expect();
    agent.wait_for_line(&bed, STEP, &[&deleted, "deleted"]);

    let approved = next_request(&bed);
    bed.kubectl(&["certificate", "approve", &approved]).expect();
    agent.wait_until_ready(&bed);
    assert!(agent.ended().is_none(), "the agent has not ended in between");
}

#[test]
fn a_denied_serving_certificate_leaves_the_node_ready() {
    let bed = Bed::start();
    let mut agent = Agent::join(&bed, &[]);
    agent.wait_until_ready(&bed);
    let name = format!("{HOSTNAME}-tls");
    bed.wait_for("the serving certificate request", JOIN, || {
        bed.kubectl(&["get", "csr", &name]).success.then_some(())
    });
    bed.kubectl(&["certificate", "deny", &name]).expect();
    agent.wait_for_line(&bed, STEP, &[&name, "denied"]);
    agent.wait_until_ready(&bed);
    assert!(agent.ended().is_none(), "the agent has not ended");
}

#[test]
fn an_expired_token_is_named_and_a_new_file_is_taken_up() {
    let bed = Bed::start();
    let bootstrap = bed.bootstrap("bootstrap.conf", &[]);
    let secrets =
        bed.get(&["-n", "kube-system", "secrets", "--field-selector", "type=bootstrap.kubernetes.io/token"]);
    let secret =
        secrets["items"][0]["metadata"]["name"].as_str().expect("bootstrap has made a token").to_owned();
    let past = r#"{"stringData":{"expiration":"2020-01-01T00:00:00Z"}}"#;
    bed.kubectl(&["-n", "kube-system", "patch", "secret", &secret, "-p", past]).expect();

    let mut agent =
        Agent::start(&bed, HOSTNAME, &["--node-ip", NODE, "--bootstrap-file", &bootstrap.to_string_lossy()]);
    let line = agent.wait_for_line(&bed, STEP, &["token", "expired"]);
    assert!(line.contains("copepod bootstrap"), "it says what to do: {line}");
    assert!(agent.ended().is_none(), "it goes on trying");

    bed.bootstrap("bootstrap.conf", &[]);
    agent.wait_until_ready(&bed);
}

#[test]
fn a_restart_keeps_the_certificate_and_evicts_nothing() {
    let bed = Bed::start();
    let plain = bed.registry_plain();
    let image = plain.image("test/hello:v1");
    let insecure = ["--insecure-registries", &plain.host];
    let agent = Agent::join(&bed, &insecure);
    agent.ready(&bed);
    bed.copepod(&[
        "push",
        "--insecure-registries",
        &plain.host,
        &Guest::Hello.wasm().to_string_lossy(),
        &image,
    ])
    .expect();
    bed.apply_value(&tests::cluster::pod("hello", tests::cluster::pod_spec("Always", &image, &[])));
    let running = |columns: &tests::kubectl::Columns| columns.status == "Running" && columns.ready == "1/1";
    bed.wait_for_columns("default", "hello", STEP, running);
    let uid = bed.get(&["pod", "hello"])["metadata"]["uid"].clone();
    let requests = bed.kubectl(&["get", "csr", "-o", "name"]).expect();
    let joined = agent.log().matches("asked").count();

    let status = agent.stop();
    assert!(status.success(), "after SIGTERM the agent ended with {status}");
    let pod = bed.get(&["pod", "hello"]);
    assert_eq!(pod["metadata"]["uid"], uid, "the pod is still there");
    assert!(pod["metadata"]["deletionTimestamp"].is_null(), "the pod is not being deleted");
    assert_eq!(pod["status"]["phase"], "Running", "a stopped agent fails no pod");

    // Without the bootstrap file: the certificate that it has must do.
    let data = agent::data_dir(&bed, HOSTNAME);
    let again = Agent::start(
        &bed,
        HOSTNAME,
        &["--node-ip", NODE, "--data-dir", &data.to_string_lossy(), insecure[0], insecure[1]],
    );
    let logs = bed.wait_for("the pod to run and print again", STEP, || {
        let logs = bed.kubectl(&["logs", "hello"]);
        logs.stdout.contains("hello 1").then_some(logs.stdout)
    });
    assert!(logs.starts_with("hello 0\n"), "{logs}");
    bed.wait_for_columns("default", "hello", STEP, running);
    assert_eq!(bed.get(&["pod", "hello"])["metadata"]["uid"], uid, "it is the same pod");
    assert_eq!(
        bed.kubectl(&["get", "csr", "-o", "name"]).expect(),
        requests,
        "no certificate was asked for again"
    );
    assert_eq!(again.log().matches("asked").count(), joined, "{}", again.log());
    again.kill9();
}

#[test]
fn two_nodes_join_side_by_side() {
    let bed = Bed::start();
    let one = Agent::join_as(&bed, "one", NODE, &["--port", "10250", "--address", NODE]);
    let two = Agent::join_as(&bed, "two", MORE_NODES[0], &["--port", "10250", "--address", MORE_NODES[0]]);
    one.ready(&bed);
    two.ready(&bed);
    for (node, address) in [("one", NODE), ("two", MORE_NODES[0])] {
        let wide = bed.kubectl(&["get", "node", node, "-o", "wide"]).expect();
        assert!(wide.contains(address), "{wide}");
        let healthz = format!("/api/v1/nodes/{node}/proxy/healthz");
        assert_eq!(bed.kubectl(&["get", "--raw", &healthz]).expect(), "ok", "the API server reaches {node}");
    }
}

#[test]
fn what_cannot_work_is_said_in_one_line() {
    let bed = Bed::empty();
    for (arguments, wanted) in [
        (&["--no-such-flag"][..], "--no-such-flag"),
        (&["--node-ip", "not an address"][..], "not an address"),
        (&["--port", "70000"][..], "70000"),
        (&["--node-labels", "kubernetes.io/role=master"][..], "kubernetes.io/role"),
    ] {
        let outcome = bed.copepod(arguments);
        assert_eq!(outcome.code, Some(64), "{arguments:?} ends with EX_USAGE: {}", outcome.stderr);
        assert!(outcome.stderr.contains(wanted), "{arguments:?}: {}", outcome.stderr);
        assert_eq!(outcome.stderr.trim_end().lines().count(), 1, "one line: {}", outcome.stderr);
    }
}
