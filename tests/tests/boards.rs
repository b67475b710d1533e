//! The agent as it is shipped, on emulated boards that join a real control plane.
//!
//! The boards of this file share one bed; each has an address and pods of its own.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::json;

use tests::{
    bed::{MORE_NODES, NODE},
    board::{say, script, Machine, Plan, ON_BOARD, STEP},
    cluster::{pod, pod_spec, PULL_SECRET},
    guests::Guest,
    kubectl::Columns,
    Bed, Board,
};

/// The hello pod's image, in the registry with TLS and a password.
const IMAGE: &str = "registry.test:5000/test/hello:v1";
/// How long the board's clock stays in 1970, as until a time server has answered.
const UNTIL_NTP: Duration = Duration::from_secs(10);

/// Seconds without the agent until a watchdog acts; the unit's own minute would make a long test.
const WATCHDOG: u64 = 10;

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

/// Makes the tutorial's pod on the board, and gives its name.
#[track_caller]
fn hello_pod(bed: &Bed, board: &mut Board) -> String {
    let name = format!("hello-{}", board.name);
    let mut spec = pod_spec("Always", IMAGE, &[]);
    spec["nodeSelector"] = json!({"kubernetes.io/hostname": board.name});
    bed.apply_value(&pod(&name, spec));
    bed.wait_for_columns("default", &name, STEP, |columns| {
        columns.status == "Running" && columns.ready == "1/1"
    });
    board.report("pod Running");
    name
}

/// The first lines of the pod's container, by `kubectl logs -f`.
#[track_caller]
fn logs_follow(bed: &Bed, board: &mut Board, pod: &str) {
    let logs = bed.kubectl_spawn(&format!("logs-{pod}"), &["logs", pod, "-f"]);
    let lines = bed.wait_for(&format!("three lines of `kubectl logs {pod} -f`"), STEP, || {
        let lines: Vec<String> = logs.output().lines().take(3).map(str::to_owned).collect();
        (lines.len() == 3).then_some(lines)
    });
    assert_eq!(lines, ["hello 0", "hello 1", "hello 2"]);
    board.report("three lines of logs -f");
}

/// The tutorial's pod on the board, its logs, what the agent takes with it, and its end by `kubectl delete`.
#[track_caller]
fn runs_the_hello_pod(bed: &Bed, board: &mut Board) {
    let name = hello_pod(bed, board);
    logs_follow(bed, board, &name);
    print_memory(board);
    bed.kubectl(&["delete", "pod", &name, "--timeout=120s"]).expect();
    board.report("pod deleted");
}

#[track_caller]
fn print_memory(board: &mut Board) {
    let memory = board.memory();
    say(&format!(
        "{}: agent with a pod {} KiB resident (at most {}), {} KiB of the board available",
        board.name, memory.agent, memory.most, memory.available
    ));
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

/// A board whose clock begins in 1970 says that it waits for it, and joins once it is set.
#[track_caller]
fn waits_for_the_clock(machine: Machine, name: &'static str, address: &'static str) {
    let bed = bed();
    let mut plan = Plan::new(machine, name, address);
    plan.clock = Some("1970-01-02T00:00:00");
    let mut board = Board::join(bed, plan, &[]);
    assert!(board.run("date -u +%Y").starts_with("1970"), "the board believes its real-time clock");
    board.wait_for_line(bed, STEP, &["the clock says 1970-", "wait"]);
    board.report("says that it waits for the clock");
    std::thread::sleep(UNTIL_NTP);
    assert!(
        !bed.kubectl(&["get", "nodes,csr", "-o", "name"]).expect().contains(board.name),
        "a certificate that is not yet valid for the board proves nothing to it, so it cannot have joined"
    );
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970 here");
    board.run(&format!("date -u -s @{}", now.as_secs()));
    board.report("the clock set right");
    board.ready(bed);
    runs_the_hello_pod(bed, &mut board);
    board.power_off();
}

#[test]
fn a_board_of_64_bits_waits_for_its_clock_and_says_so() {
    waits_for_the_clock(Machine::Arm64, "pi-64-1970", MORE_NODES[1]);
}

#[test]
fn a_board_of_32_bits_waits_for_its_clock_and_says_so() {
    waits_for_the_clock(Machine::Armhf, "pi-32-1970", MORE_NODES[3]);
}

#[test]
fn a_board_whose_agent_hangs_is_restarted_by_its_watchdog() {
    let bed = bed();
    let mut plan = Plan::new(Machine::Arm64, "pi-watched", MORE_NODES[4]);
    let seconds = u32::try_from(WATCHDOG).expect("a few seconds");
    plan.watchdog = Some(seconds);
    let mut board = Board::join(bed, plan, &["--watchdog-device", "/dev/watchdog"]);
    board.wait_for_line(bed, STEP, &["/dev/watchdog", &format!("restarts after {seconds} s")]);
    bed.wait_until_ready(board.name, STEP);
    // It was fed: otherwise the board would be gone by now.
    std::thread::sleep(Duration::from_secs(2 * WATCHDOG));
    board.run("kill -STOP $(pidof copepod)");
    board.report("the agent frozen");
    board.wait_for_restart(STEP);
}

/// The memory of the board with systemd, in MiB. systemd and its journal take some 60.
const SYSTEM_MEMORY: u32 = 256;
/// Seconds without the agent until the board's own watchdog restarts it: more than systemd takes to restart the agent.
const DEVICE_TIMEOUT: u32 = 120;
/// How long dpkg may take to unpack the package and run its scripts.
const DPKG: Duration = Duration::from_secs(120);

/// The Debian package of the agent, and the next version of it.
fn packages(bed: &Bed, machine: Machine) -> (PathBuf, PathBuf) {
    // Says how the agent is built, where it is not.
    machine.agent();
    let folder = bed.folder().join("packages");
    script("cross/package", &["--no-build", "--output", &folder.to_string_lossy(), machine.target()]);
    let packed = bed.shell(
        "cd packages && mkdir next && dpkg-deb -R copepod_*.deb tree && \
         sed -i 's/^Version: .*/&+next1/' tree/DEBIAN/control && \
         dpkg-deb --root-owner-group -b tree next >&2 && ls copepod_*.deb next/copepod_*.deb",
    );
    let packed = packed.expect();
    let mut files = packed.lines().map(|file| folder.join(file));
    match (files.next(), files.next()) {
        (Some(first), Some(second)) => (first, second),
        _ => panic!("there are not two packages: {packed}"),
    }
}

/// A property of the service, by systemd.
#[track_caller]
fn property(board: &mut Board, name: &str) -> String {
    board.run(&format!("systemctl show -p {name} --value copepod.service"))
}

/// What `copepod board --systemd` writes: its limits are systemd's, the device is opened by who is not root.
#[track_caller]
fn takes_the_boards_drop_in(bed: &Bed, board: &mut Board, pod: &str, restarts: u32) -> u32 {
    let drop_in = "/etc/systemd/system/copepod.service.d/board.conf";
    board.run(&format!("copepod board raspberry-pi-3 --systemd >{drop_in}"));
    board.run("systemctl daemon-reload && systemctl restart copepod");
    board.wait_for_line(bed, STEP, &["/dev/watchdog", &format!("restarts after {DEVICE_TIMEOUT} s")]);
    for (name, unlimited) in [("TasksMax", "infinity"), ("MemoryMax", "infinity"), ("MemoryHigh", "infinity")]
    {
        let limit = property(board, name);
        assert!(limit != unlimited && limit.parse::<u64>().is_ok_and(|limit| limit > 0), "{name}={limit}");
    }
    assert_eq!(property(board, "PrivateDevices"), "no");
    let restarts = comes_back(bed, pod, restarts);
    board.report("the board's drop-in, pod back");
    restarts
}

/// The drop-ins for a read-only root, by what their README says to type; the same node, its data elsewhere.
#[track_caller]
fn lives_on_a_read_only_root(bed: &Bed, board: &mut Board, pod: &str, restarts: u32) {
    let data = format!("{ON_BOARD}/persistent");
    board.run("systemctl stop copepod");
    board.run(&format!(
        "mkdir -p {data}/copepod && cp -a /var/lib/copepod {data}/copepod/lib && \
         cp -a /etc/copepod/bootstrap.conf {data}/copepod/"
    ));
    board.run("cd /usr/share/doc/copepod/examples/read-only-root && cp -r systemd tmpfiles.d /etc/");
    board.run(&format!(
        "grep -rl /data /etc/systemd/system/copepod* /etc/tmpfiles.d/copepod.conf | xargs sed -i 's|/data|{data}|g'"
    ));
    board.run("systemctl daemon-reload && mount -o remount,ro /");
    assert_ne!(board.try_run("touch /var/lib/copepod/file", STEP).0, 0, "the root is read-only");
    board.run("systemctl start copepod");
    assert_eq!(property(board, "ActiveState"), "active");
    comes_back(bed, pod, restarts);
    board.run("systemctl stop copepod");
    board.run("mount -o remount,rw / && rm -r /etc/systemd/system/copepod*.d /etc/tmpfiles.d/copepod.conf");
    board.run("systemctl daemon-reload && systemctl start copepod");
    board.report("on a read-only root, pod back");
}

/// Waits until the service runs, by another process than `before`.
#[track_caller]
fn wait_for_another_process(bed: &Bed, board: &mut Board, before: &str) {
    bed.wait_for("the service to be active by another process", STEP, || {
        // Both in one answer: asked one after the other, "active" may be the old process and 0 what follows it.
        let now = board.run("systemctl show -p ActiveState -p MainPID copepod.service");
        let is = |line: &str| now.lines().any(|l| l == line);
        (is("ActiveState=active") && !is(&format!("MainPID={before}"))).then_some(())
    });
}

/// Waits until the pod has been started anew, after `before` restarts, and runs.
#[track_caller]
fn comes_back(bed: &Bed, pod: &str, before: u32) -> u32 {
    let running = |columns: &Columns| columns.status == "Running" && columns.ready == "1/1";
    let columns =
        bed.wait_for_columns("default", pod, STEP, |columns| running(columns) && columns.restarts > before);
    columns.restarts
}

#[test]
fn a_debian_package_lives_under_a_real_systemd() {
    let bed = bed();
    let mut plan = Plan::new(Machine::Arm64, "pi-systemd", MORE_NODES[2]);
    plan.memory = SYSTEM_MEMORY;
    plan.watchdog = Some(DEVICE_TIMEOUT);
    let (package, next) = packages(bed, plan.machine);
    let mut board = Board::system(bed, plan, &[&package, &next]);
    let on_board =
        |file: &Path| format!("{ON_BOARD}/{}", file.file_name().unwrap_or_default().to_string_lossy());

    installs(&mut board, &on_board(&package));
    joins(bed, &mut board);
    let pod = hello_pod(bed, &mut board);
    logs_follow(bed, &mut board, &pod);
    print_memory(&mut board);

    let restarts = the_watchdog_bites(bed, &mut board, &pod);
    let restarts = takes_the_boards_drop_in(bed, &mut board, &pod, restarts);

    board.run("systemctl stop copepod");
    assert_eq!(property(&mut board, "ActiveState"), "inactive");
    assert_eq!(property(&mut board, "ExecMainStatus"), "0", "it ends by itself when it is stopped");
    board.run("systemctl start copepod");
    let restarts = comes_back(bed, &pod, restarts);
    board.report("stopped, started, pod back");

    let before = property(&mut board, "MainPID");
    board.run_within(&format!("dpkg -i {}", on_board(&next)), DPKG);
    wait_for_another_process(bed, &mut board, &before);
    assert!(board.run("dpkg-query -W -f '${Version}' copepod").ends_with("+next1"));
    let restarts = comes_back(bed, &pod, restarts);
    board.report("upgraded, pod back");

    lives_on_a_read_only_root(bed, &mut board, &pod, restarts);

    board.run_within("dpkg -r copepod", DPKG);
    assert_eq!(property(&mut board, "ActiveState"), "inactive");
    assert_eq!(board.try_run("pidof copepod", STEP).0, 1, "nothing of it runs");
    board.run("test -s /var/lib/copepod/kubeconfig");
    board.run_within("dpkg -P copepod", DPKG);
    board.run("test ! -e /var/lib/copepod && test ! -e /etc/copepod && test ! -e /etc/default/copepod");
    board.report("removed and purged");
    bed.kubectl(&["delete", "pod", &pod, "--force", "--grace-period=0"]).expect();
    board.power_off();
}

/// Installed, the service is up at once, though nothing tells it of a cluster yet.
#[track_caller]
fn installs(board: &mut Board, package: &str) {
    board.run_within(&format!("dpkg -i {package}"), DPKG);
    board.report("installed");
    assert_eq!(board.run("systemctl is-active copepod"), "active", "it is ready before it has joined");
    assert_eq!(board.run("systemctl is-enabled copepod"), "enabled");
    for (name, value) in [("Type", "notify"), ("WatchdogUSec", "1min"), ("User", "copepod")] {
        assert_eq!(property(board, name), value, "{name}");
    }
    let verdict = board.run(
        "systemd-analyze security --no-pager --threshold=20 copepod.service >/tmp/exposure; code=$?; \
         tail -n 1 /tmp/exposure; exit $code",
    );
    say(&format!("{}: {verdict}", board.name));
}

/// A registry's authority, the node's address and a drop-in; then the bootstrap file, as root copies it.
#[track_caller]
fn joins(bed: &Bed, board: &mut Board) {
    board.run("mkdir /etc/copepod/certs.d/registry.test:5000");
    board.run(&format!("cp {ON_BOARD}/authority.crt /etc/copepod/certs.d/registry.test:5000/ca.crt"));
    board.run(&format!("echo COPEPOD_NODE_IP={} >>/etc/default/copepod", board.plan.address));
    board.run("mkdir /etc/systemd/system/copepod.service.d");
    let drop_in = "/etc/systemd/system/copepod.service.d/watchdog.conf";
    board.run(&format!("printf '[Service]\\nWatchdogSec={WATCHDOG}\\n' >{drop_in}"));
    board.run("systemctl daemon-reload && systemctl restart copepod");
    board.run(&format!("cp {ON_BOARD}/bootstrap.conf /etc/copepod/bootstrap.conf"));
    board.ready(bed);
}

/// systemd hears from the agent, and kills and restarts it when it is frozen; the pod comes back. Gives the
/// restarts of its container.
#[track_caller]
fn the_watchdog_bites(bed: &Bed, board: &mut Board, pod: &str) -> u32 {
    let fed = |board: &mut Board| property(board, "WatchdogTimestampMonotonic").parse::<u64>().unwrap_or(0);
    let first = fed(board);
    assert!(first > 0, "the watchdog was fed");
    bed.wait_for("the watchdog to be fed again", Duration::from_secs(2 * WATCHDOG), || {
        (fed(board) > first).then_some(())
    });
    assert_eq!(property(board, "NRestarts"), "0", "it has run since it was started");

    let frozen = property(board, "MainPID");
    board.run(&format!("kill -STOP {frozen}"));
    wait_for_another_process(bed, board, &frozen);
    assert_eq!(property(board, "NRestarts"), "1");
    board.wait_for_line(bed, STEP, &["copepod.service", "Watchdog timeout"]);
    board.report("frozen, killed by the watchdog, started again");
    let restarts = comes_back(bed, pod, 0);
    board.report("pod back");
    restarts
}
