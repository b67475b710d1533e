//! Certificates that end within minutes, addresses that change: the node goes on, and nobody notices.

use std::{collections::BTreeSet, fs, path::Path, process::Command, time::Duration};

use tests::{
    agent::data_dir,
    bed::{CONTROL_PLANE, HOSTNAME, MORE_NODES, NODE},
    guests::Guest,
    Agent, Bed, Cluster,
};

/// The shortest life that the test waits through. The signer dates certificates back by five minutes, so that they
/// are renewed 36 to 132 seconds after they were signed.
const LIFE: &str = "--cluster-signing-duration=3m";
/// How long two renewals may take, and a pause between two tries of the agent's.
const RENEWED: Duration = Duration::from_secs(330);
/// How long a state may take to show on a busy machine.
const SHOWN: Duration = Duration::from_secs(90);

/// Approves every request for a serving certificate, as a cluster's own approver would.
fn approve_all(bed: &Bed) {
    let requests = bed.get(&["csr"]);
    for request in requests["items"].as_array().into_iter().flatten() {
        let serving = request["spec"]["signerName"] == "kubernetes.io/kubelet-serving";
        if serving && request["status"]["conditions"].is_null() {
            let name = request["metadata"]["name"].as_str().unwrap_or_default();
            bed.kubectl(&["certificate", "approve", name]).expect();
        }
    }
}

/// The certificate that a link of the agent's folder leads to now, whole with its key.
fn current(bed: &Bed, which: &str) -> String {
    let link = data_dir(bed, HOSTNAME).join(format!("pki/kubelet-{which}-current.pem"));
    fs::read_to_string(link).unwrap_or_default()
}

fn private_key(pem: &str) -> String {
    pem.split_once("-----BEGIN PRIVATE KEY-----").map(|(_, key)| key.to_owned()).unwrap_or_default()
}

/// Whether every file of the folder is the owner's alone and whole: a certificate with its key, or a key that waits.
fn folder_is_in_order(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let names: BTreeSet<String> = fs::read_dir(folder)
        .expect("the agent has a folder of keys")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let dated = names.iter().filter(|name| name.starts_with("kubelet-client-2")).count();
    assert_eq!(dated, 1, "those before the current one are removed: {names:?}");
    for name in &names {
        let path = folder.join(name);
        let mode = fs::metadata(&path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
        let text = fs::read_to_string(&path).expect("it can be read");
        assert!(text.contains("-----END PRIVATE KEY-----"), "{name}: {text}");
    }
}

#[test]
fn certificates_of_three_minutes_are_renewed_and_nobody_notices() {
    let cluster = Cluster::start_in(Bed::start_with(&[LIFE]), &[]);
    let bed = &cluster.bed;
    cluster.run("hello", "Always", Guest::Hello, &[]);
    let lines = |text: &str| text.lines().filter(|line| line.starts_with("hello ")).count();
    bed.wait_for("the pod to print", SHOWN, || {
        approve_all(bed);
        (lines(&bed.kubectl(&["logs", "hello"]).stdout) > 0).then_some(())
    });
    // Begins over the first serving certificate, and is to go on over the others.
    let mut follow = bed.command("kubectl");
    follow.args(["logs", "-f", "hello"]);
    let follower = bed.spawn("follower", follow);

    let mut seen = [(); 2].map(|()| BTreeSet::new());
    let mut keys = [(); 2].map(|()| BTreeSet::new());
    bed.wait_for("both certificates to be renewed twice", RENEWED * 2, || {
        approve_all(bed);
        for (index, which) in ["client", "server"].into_iter().enumerate() {
            let pem = current(bed, which);
            if !pem.is_empty() {
                keys[index].insert(private_key(&pem));
                seen[index].insert(pem);
            }
        }
        seen.iter().all(|seen| seen.len() >= 3).then_some(())
    });
    assert_eq!(
        seen.each_ref().map(BTreeSet::len),
        keys.each_ref().map(BTreeSet::len),
        "each has its own key"
    );
    folder_is_in_order(&data_dir(bed, HOSTNAME).join("pki"));

    cluster.agent.wait_until_ready(bed);
    let printed = lines(&follower.output());
    assert!(printed >= 100, "the follower saw {printed} lines, one a second");
    let before = lines(&bed.kubectl(&["logs", "hello"]).expect());
    bed.wait_for("the follower to go on", SHOWN, || (lines(&follower.output()) > before).then_some(()));
    let log = cluster.agent.log();
    assert!(!log.contains("trying again"), "{log}");
    let metrics = bed.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{HOSTNAME}/proxy/metrics")]).expect();
    for name in
        ["kubelet_certificate_manager_client_ttl_seconds", "kubelet_certificate_manager_server_ttl_seconds"]
    {
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        assert!(value.is_some_and(|left| left > 0.0 && left <= 180.0), "{name}: {value:?}");
    }
}

#[test]
fn a_client_certificate_that_has_expired_is_replaced_by_the_bootstrap_file() {
    let bed = Bed::start_with(&[LIFE]);
    let mut agent = Agent::join(&bed, &[]);
    agent.ready(&bed);
    let before = current(&bed, "client");
    // It expires while the API server is away.
    bed.api_server_away(true);
    std::thread::sleep(Duration::from_secs(190));
    bed.api_server_away(false);
    agent.wait_for_line(&bed, SHOWN, &["the client certificate has expired: asking for another with"]);
    bed.wait_for("another client certificate", SHOWN, || (current(&bed, "client") != before).then_some(()));
    agent.wait_until_ready(&bed);

    // And once more, the agent away: it starts with one that has expired.
    agent.die();
    let expired = bed.folder().join("expired.pem");
    fs::write(&expired, &before).expect("the bed's folder is writable");
    let link = data_dir(&bed, HOSTNAME).join("pki/kubelet-client-current.pem");
    fs::remove_file(&link).expect("the link is there");
    std::os::unix::fs::symlink(&expired, &link).expect("the folder is writable");
    agent.start_again(&bed);
    agent.wait_for_line(&bed, SHOWN, &["expired at", "joining anew with the bootstrap file"]);
    bed.wait_for("another client certificate", SHOWN, || (current(&bed, "client") != before).then_some(()));
    agent.wait_until_ready(&bed);
}

/// Lets connections of this machine to the API server have `address`.
fn leave_from(bed: &Bed, address: &str) {
    let mut ip = bed.command("ip");
    ip.args(["route", "replace", "table", "local", "local", CONTROL_PLANE, "dev", "lo", "src", address]);
    let done = ip.output().expect("ip is there");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn another_address_is_taken_up_and_asks_for_another_serving_certificate_at_once() {
    let bed = Bed::start();
    leave_from(&bed, NODE);
    let bootstrap = bed.bootstrap("bootstrap.conf", &[]);
    let data = data_dir(&bed, HOSTNAME);
    let (bootstrap, data) = (bootstrap.to_string_lossy(), data.to_string_lossy());
    let agent = Agent::start(
        &bed,
        HOSTNAME,
        &["--node-name", HOSTNAME, "--bootstrap-file", &bootstrap, "--data-dir", &data],
    );
    agent.ready(&bed);
    let address = || bed.get(&["node", HOSTNAME])["status"]["addresses"][0]["address"].clone();
    assert_eq!(address(), NODE);

    // The network gives it another one: its connection dies, and the next comes from there.
    let moved = MORE_NODES[0];
    leave_from(&bed, moved);
    bed.api_server_away(true);
    std::thread::sleep(Duration::from_secs(60));
    bed.api_server_away(false);
    bed.wait_for("the node's new address", SHOWN, || (address() == moved).then_some(()));
    agent.wait_for_line(&bed, SHOWN, &["this node's address was", NODE, moved]);
    bed.wait_for("a request for another serving certificate", SHOWN, || {
        approve_all(&bed);
        // By the new address, which the API server checks.
        bed.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{HOSTNAME}/proxy/healthz")])
            .success
            .then_some(())
    });
    let agreed = current(&bed, "server");
    let shown = bed.write("serving.pem", &agreed);
    let mut check = Command::new("openssl");
    check.args(["x509", "-noout", "-ext", "subjectAltName", "-in"]).arg(shown);
    let names = String::from_utf8_lossy(&check.output().expect("openssl is there").stdout).into_owned();
    assert!(names.contains(moved) && names.contains(&format!("DNS:{HOSTNAME}")), "{names}");
}
