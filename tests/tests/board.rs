//! Board files: what a node makes of one, and what the service's drop-in means to systemd.

use std::{fs, process::Command, time::Duration};

use tests::{agent, bed::HOSTNAME, guests::Guest, kubectl::Outcome, tools, Bed, Cluster};

/// How long a state may take to show on a busy machine.
const SHOWN: Duration = Duration::from_secs(90);
/// MiB that the board of the first test keeps, and that its guests may have together.
const RESERVED: u64 = 100;
const GUESTS: u64 = 3;

/// The size of an amount that the agent writes (`1024Ki`) and the API server shows (`1Mi`), in KiB.
#[track_caller]
fn kib(amount: &serde_json::Value) -> u64 {
    let text = amount.as_str().unwrap_or_default();
    let number = |suffix| text.strip_suffix(suffix).and_then(|digits: &str| digits.parse::<u64>().ok());
    let found = number("Ki").or_else(|| number("Mi").map(|mib| mib * 1024));
    found.unwrap_or_else(|| panic!("{amount} is no amount in Ki or Mi"))
}

#[test]
fn a_node_keeps_what_its_board_file_reserves_and_no_guest_passes_the_ceiling() {
    let file = std::env::temp_dir().join(format!("copepod-test-board-{}.toml", std::process::id()));
    let text = format!(
        "description = \"a board of the tests\"\ncpu-features = [\"no-such-feature\"]\n\
         memory-reserved = {RESERVED}\nguest-memory = {GUESTS}\ndefault-memory = 2\n"
    );
    fs::write(&file, text).expect("the temporary folder is writable");
    let board = file.to_string_lossy();
    let cluster = Cluster::start_with(&["--board", &board]);
    fs::remove_file(&file).expect("the board file is still there");
    let (bed, agent) = (&cluster.bed, &cluster.agent);
    let log = agent.log();
    assert!(log.contains(&format!("board file {board}, as --board says")), "{log}");
    assert!(log.contains(&format!("board file {board} is for a processor with no-such-feature")), "{log}");

    let node = bed.get(&["node", HOSTNAME]);
    let (capacity, allocatable) = (&node["status"]["capacity"], &node["status"]["allocatable"]);
    assert!(kib(&capacity["memory"]) > (RESERVED + GUESTS) * 1024, "{node}");
    assert_eq!(kib(&allocatable["memory"]), GUESTS * 1024, "what guests can have: {node}");
    assert_eq!(capacity["cpu"], allocatable["cpu"]);

    // Each begins with 17 pages of 64 KiB: two of them have room below the ceiling, a third has not.
    for name in ["first", "second"] {
        cluster.run(name, "Never", Guest::Hello, &[]);
        bed.wait_for(&format!("pod {name} to print"), SHOWN, || {
            bed.kubectl(&["logs", name]).stdout.contains("hello 0").then_some(())
        });
    }
    cluster.run("third", "Never", Guest::Hello, &[]);
    bed.wait_for("the third pod to lack memory", SHOWN, || {
        bed.columns("default", "third").filter(|columns| columns.status == "OOMKilled").map(drop)
    });
    agent.wait_for_line(bed, SHOWN, &["is refused", "of 3072 KiB (--guest-memory)"]);
    // With one of them gone there is room again.
    bed.kubectl(&["delete", "pod", "first", "third"]).expect();
    cluster.run("fourth", "Never", Guest::Hello, &[]);
    bed.wait_for("the fourth pod to print", SHOWN, || {
        bed.kubectl(&["logs", "fourth"]).stdout.contains("hello 0").then_some(())
    });
}

/// `copepod board` with these arguments, with nothing in its environment that would beat a board file.
fn board(bed: &Bed, arguments: &[&str]) -> Outcome {
    let mut command = bed.command(agent::provide(bed));
    command.arg("board").args(arguments).env_remove("COPEPOD_DATA_DIR");
    Outcome::of(format!("copepod board {}", arguments.join(" ")), command, "")
}

/// The shipped unit, as systemd understands it with the drop-in for the board `name`.
#[track_caller]
fn understood(bed: &Bed, name: &str) -> String {
    let drop_in = board(bed, &["--systemd", name]).expect();
    let units = bed.folder().join("units");
    fs::create_dir_all(units.join("copepod.service.d")).expect("the folder of units");
    fs::write(units.join("copepod.service.d/board.conf"), drop_in).expect("the drop-in");
    let shipped = fs::read_to_string(tools::root().join("cross/systemd/copepod.service")).expect("the unit");
    // The program is not installed here, which systemd would say of the unit.
    let unit = shipped.replace("ExecStart=/usr/bin/copepod\n", "ExecStart=/bin/true\n");
    assert_ne!(unit, shipped);
    fs::write(units.join("copepod.service"), unit).expect("the unit");
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no"]).arg(units.join("copepod.service"));
    // At this level it prints each unit as it has read it.
    command.env("SYSTEMD_UNIT_PATH", format!("{}:", units.display())).env("SYSTEMD_LOG_LEVEL", "debug");
    let outcome = Outcome::of("systemd-analyze verify".into(), command, "");
    assert!(outcome.success, "{}{}", outcome.stdout, outcome.stderr);
    let said = outcome.stdout + &outcome.stderr;
    // The key came with systemd 254.
    let complaint = |line: &&str| line.contains("board.conf:") && !line.contains("'RestartSteps'");
    let complaints: Vec<&str> = said.lines().filter(complaint).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
    // What the drop-in opens may not undo the sandbox: it fails above an exposure of 2.0.
    let mut command = Command::new("systemd-analyze");
    command
        .args(["security", "--offline=true", "--no-pager", "--threshold=20"])
        .arg(units.join("copepod.service"));
    command.env("SYSTEMD_UNIT_PATH", format!("{}:", units.display()));
    Outcome::of("systemd-analyze security".into(), command, "").expect();
    said
}

#[test]
fn systemd_takes_the_drop_in_of_every_board_as_it_is_meant() {
    let bed = Bed::empty();
    let list = board(&bed, &["--list"]).expect();
    let names: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names.len(), 7, "{list}");
    for name in names {
        let unit = understood(&bed, name);
        assert!(unit.contains(&format!("\t\tEnvironment: COPEPOD_BOARD={name}\n")), "{unit}");
        let watched = unit.contains("\t\tDeviceAllow: /dev/watchdog rw\n");
        assert_eq!(watched, !["minimum-64mb", "x86-64-gateway"].contains(&name), "{unit}");
        assert_eq!(watched, unit.contains("\t\tPrivateDevices: no\n"), "{unit}");
    }

    let text =
        "interpreter-threads = 3\nmemory-reserved = 64\nguest-memory = 32\ndata-dir = \"/mnt/my disk%d\"\n\
                host-paths = [\"/srv/a b\", \"/tmp/x:y\", \"/home/pi/data\", \"/dev/null\"]\n";
    let file = bed.write("my board.toml", text);
    let unit = understood(&bed, &file.to_string_lossy());
    for line in [
        &format!("Environment: COPEPOD_BOARD={}", file.display()),
        "TasksMax: 19",
        &format!("MemoryMax: {}", (32 + 32) << 20),
        &format!("MemoryHigh: {}", (32 + 32 - 8) << 20),
        "RequiresMountsFor: /mnt/my disk%d (origin-file)",
        "ReadWritePaths: /mnt/my disk%d -/srv/a b",
        "BindPaths: -/tmp/x:y:/tmp/x:y:rbind",
        "BindPaths: -/home/pi/data:/home/pi/data:rbind",
        "ProtectHome: tmpfs",
        "DeviceAllow: /dev/null rw",
        "DevicePolicy: closed",
    ] {
        assert!(unit.contains(&format!("\t\t{line}\n")), "no {line:?} in\n{unit}");
    }
}

#[test]
fn a_board_file_that_is_wrong_is_a_usage_error_of_one_line() {
    let bed = Bed::empty();
    let file = bed.write("wrong.toml", "memory-reserved = 1\nmemory-limit = 2\n");
    let path = file.to_string_lossy();
    for arguments in [vec!["board", &path], vec!["--board", &path], vec!["board", "--systemd", &path]] {
        let outcome = bed.copepod(&arguments);
        assert_eq!(outcome.code, Some(64), "{outcome:?}");
        let line =
            format!("board file {path}: there is no field \"memory-limit\" (copepod board shows them)\n");
        assert_eq!(outcome.stderr, line);
    }
}
