//! The agent as it is shipped, on emulated boards that join a real control plane.
//!
//! The boards of this file share one bed; each has an address and pods of its own.

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::json;

use tests::{
    bed::{MORE_NODES, NODE},
    board::{say, Machine, Plan, STEP},
    cluster::{pod, pod_spec, PULL_SECRET},
    guests::Guest,
    Bed, Board,
};

/// The hello pod's image, in the registry with TLS and a password.
const IMAGE: &str = "registry.test:5000/test/hello:v1";
/// How long the board's clock stays in 1970, as until a time server has answered.
const UNTIL_NTP: Duration = Duration::from_secs(10);

fn bed() -> &'static Bed {
    static BED: OnceLock<Bed> = OnceLock::new();
    BED.get_or_init(|| {
        let bed = Bed::start();
        let registry = bed.registry_tls();
        bed.pull_secret(PULL_SECRET, &registry, &registry.password);
        bed.wasm_to_oci(Guest::Hello, IMAGE);
        bed
    })
}

/// The tutorial's pod on the board, its logs by `kubectl logs -f`, and its end by `kubectl delete`.
#[track_caller]
fn runs_the_hello_pod(bed: &Bed, board: &mut Board) {
    let name = &format!("hello-{}", board.name);
    let mut spec = pod_spec("Always", IMAGE, &[]);
    spec["nodeSelector"] = json!({"kubernetes.io/hostname": board.name});
    bed.apply_value(&pod(name, spec));
    bed.wait_for_columns("default", name, STEP, |columns| {
        columns.status == "Running" && columns.ready == "1/1"
    });
    board.report("pod Running");
    let logs = bed.kubectl_spawn(&format!("logs-{name}"), &["logs", name, "-f"]);
    let lines = bed.wait_for(&format!("three lines of `kubectl logs {name} -f`"), STEP, || {
        let lines: Vec<String> = logs.output().lines().take(3).map(str::to_owned).collect();
        (lines.len() == 3).then_some(lines)
    });
    assert_eq!(lines, ["hello 0", "hello 1", "hello 2"]);
    board.report("three lines of logs -f");
    let memory = board.memory();
    say(&format!(
        "{}: agent with a pod {} KiB resident (at most {}), {} KiB of the board available",
        board.name, memory.agent, memory.most, memory.available
    ));
    bed.kubectl(&["delete", "pod", name, "--timeout=120s"]).expect();
    board.report("pod deleted");
    drop(logs);
}

#[test]
fn a_board_of_64_bits_and_64_megabytes_is_a_node() {
    let bed = bed();
    let mut board = Board::join(bed, Plan::new(Machine::Arm64, "pi-64", NODE), &[]);
    board.ready(bed);
    runs_the_hello_pod(bed, &mut board);
    board.power_off();
}

#[test]
fn a_board_of_32_bits_and_64_megabytes_is_a_node() {
    let bed = bed();
    let mut board = Board::join(bed, Plan::new(Machine::Armhf, "pi-32", MORE_NODES[0]), &[]);
    board.ready(bed);
    runs_the_hello_pod(bed, &mut board);
    board.power_off();
}

#[test]
fn a_board_whose_clock_begins_in_1970_waits_for_the_time_and_says_so() {
    let bed = bed();
    let mut plan = Plan::new(Machine::Arm64, "pi-1970", MORE_NODES[1]);
    plan.clock = Some("1970-01-02T00:00:00");
    let mut board = Board::join(bed, plan, &[]);
    assert!(board.run("date -u +%Y").starts_with("1970"), "the board believes its real-time clock");
    board.wait_for_line(bed, STEP, &["clock", "wait"]);
    std::thread::sleep(UNTIL_NTP);
    assert!(
        bed.get(&["node", board.name]).is_null()
            && bed.get(&["csr", &format!("{}-tls", board.name)]).is_null(),
        "a certificate that is not yet valid for the board proves nothing to it, so it cannot have joined"
    );
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970 here");
    board.run(&format!("date -u -s @{}", now.as_secs()));
    board.report("the clock set right");
    board.ready(bed);
    runs_the_hello_pod(bed, &mut board);
    board.power_off();
}
