//! A card as cross/image makes it: flashed, booted, found in the cluster; its power cut, the network gone, its data lost.

use std::{fs, time::Duration};

use serde_json::json;
use tests::{
    bed::NODE,
    card::Card,
    cluster::{pod, pod_spec, PULL_SECRET},
    guests::Guest,
    Bed,
};

/// The hello pod's image, in the registry with TLS and a password.
const IMAGE: &str = "registry.test:5000/test/hello:v1";
/// How long joining, and each step after it, may take on an emulated core that is shared.
const STEP: Duration = Duration::from_secs(180);

#[test]
fn a_card_joins_runs_again_without_a_network_and_says_when_its_data_is_lost() {
    let bed = Bed::start();
    let registry = bed.registry_tls();
    bed.pull_secret(PULL_SECRET, &registry, &registry.password);
    bed.wasm_to_oci(Guest::Hello, IMAGE);

    // As flashed it belongs to no cluster, and says what to do.
    let mut card = Card::flashed(&bed, "card", NODE);
    card.boot(&bed);
    card.wait_for_line(&bed, STEP, &["copepod bootstrap --file copepod-bootstrap.conf"]);
    card.wait_for_line(&bed, STEP, &["the data partition has 383 MiB now"]);
    card.wait_for_line(&bed, STEP, &["static pods run here, in no cluster"]);
    card.cut_power();

    let settings = bed.folder().join("copepod.yaml");
    fs::write(&settings, format!("nodeName: carded\nnodeIp: {NODE}\n"))
        .expect("the bed's folder is writable");
    let bootstrap = bed.bootstrap("card-bootstrap.conf", &[]);
    let token = fs::read_to_string(&bootstrap).expect("it is there");
    let token = token
        .lines()
        .find_map(|line| line.trim().strip_prefix("token: "))
        .expect("it has a token")
        .to_owned();
    card.drop_file(&settings, "copepod.yaml");
    card.drop_file(&bootstrap, "copepod-bootstrap.conf");
    card.drop_file(bed.registry_authority(), "ca.crt");
    card.drop_file(&bed.folder().join("hosts"), "hosts");
    card.boot(&bed);
    card.wait_for_line(&bed, STEP, &["the bootstrap file was moved to the data partition"]);
    assert!(!card.console().contains("the data partition has"), "it has grown already");
    bed.wait_until_ready("carded", STEP);
    bed.approve("carded", STEP);
    let mut spec = pod_spec("Always", IMAGE, &[]);
    spec["nodeSelector"] = json!({"kubernetes.io/hostname": "carded"});
    bed.apply_value(&pod("hello", spec));
    bed.wait_for_columns("default", "hello", STEP, |columns| columns.ready == "1/1");
    bed.wait_for("its first lines", STEP, || {
        bed.kubectl(&["logs", "hello"]).stdout.starts_with("hello 0\nhello 1\n").then_some(())
    });
    // The system's own logs, without SSH.
    let logs = bed.kubectl(&["get", "--raw", "/api/v1/nodes/carded/proxy/logs/card"]).expect();
    assert!(logs.contains("card: starting copepod as carded"), "{logs}");
    card.cut_power();
    let left = card.dropped();
    assert!(left.contains("copepod.yaml") && !left.contains("copepod-bootstrap.conf"), "{left}");
    let in_boot = &card.bytes()[1 << 20..129 << 20];
    assert!(
        !in_boot.windows(token.len()).any(|bytes| bytes == token.as_bytes()),
        "the token is wiped from the partition that any computer reads"
    );

    // Without the API server it runs what it ran.
    bed.api_server_away(true);
    card.boot(&bed);
    card.wait_for_line(&bed, STEP, &["carded"]);
    std::thread::sleep(Duration::from_secs(30));
    let back = bed.shell("date -u +%Y-%m-%dT%H:%M:%S").expect();
    bed.api_server_away(false);
    bed.wait_for_columns("default", "hello", STEP, |columns| {
        (columns.ready.as_str(), columns.restarts) == ("1/1", 1)
    });
    bed.wait_until_ready("carded", STEP);
    let lines = bed.kubectl(&["logs", "hello", "--timestamps"]).expect();
    assert!(lines < back, "it ran before the API server was back at {back}: {lines}");
    card.cut_power();

    card.lose_data();
    card.boot(&bed);
    card.wait_for_line(&bed, STEP, &["the data partition is not there: making another"]);
    card.wait_for_line(&bed, STEP, &["this machine belongs to no cluster yet"]);
    assert!(!card.console().contains("running from memory"), "another was made: {}", card.console());
    card.cut_power();
}
