#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::PathBuf;
use std::time::Duration;

use super::drop_in::{access, Access, Found};
use super::*;

const MIB: u64 = 1024 * 1024;

fn agent_values(arguments: &[&str]) -> Values {
    let arguments = arguments.iter().map(OsString::from);
    match Values::collect(&agent::COMMAND, arguments, |_| None, Path::new("/nowhere")).unwrap() {
        Parsed::Run(values) => values,
        other => panic!("{other:?}"),
    }
}

/// A drop-in for a machine with 427 MiB, whose devices are those of a Raspberry Pi.
fn drop_in(arguments: &[&str], board: Option<&str>) -> Result<String, String> {
    let values = agent_values(arguments);
    let memory = 427 * MIB;
    let config = AgentConfig::from_values(&values, "n", memory).unwrap();
    let look = |path: &Path| match path.to_str().unwrap() {
        "/dev/gpiochip0" => Found::Device(Access::Group("gpio".into())),
        "/dev/watchdog" => Found::Device(Access::Root),
        "/dev/null" => Found::Device(Access::Everybody),
        "/dev/i2c-1" | "/srv/missing" => Found::Missing,
        _ => Found::Plain,
    };
    let board = board.map(str::to_owned);
    let watchdog_timeout = &|_: &Path| Duration::from_secs(15);
    DropIn { why: &values.board.why, board, config: &config, memory, look: &look, watchdog_timeout }.text()
}

/// The lines that are no comments.
fn settings(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

#[test]
fn a_boards_drop_in_has_its_limits_and_its_devices() {
    let text = drop_in(&["--board", "raspberry-pi-zero-2-w"], Some("raspberry-pi-zero-2-w")).unwrap();
    let expected = [
        "[Service]",
        "Environment=COPEPOD_BOARD=raspberry-pi-zero-2-w",
        // 2 interpreters, 4 of its own, 12 to spare.
        "TasksMax=18",
        // 427 - 160 for guests, and 80 for the agent; 20 less where the kernel begins to take back.
        "MemoryHigh=327M",
        "MemoryMax=347M",
        "PrivateDevices=no",
        "DeviceAllow=/dev/gpiochip0 rw",
        "SupplementaryGroups=gpio",
        "DeviceAllow=/dev/i2c-1 rw",
        "DeviceAllow=/dev/watchdog rw",
        "ExecStartPre=-+chgrp -- copepod /dev/watchdog",
        "ExecStartPre=-+chmod -- g+rw /dev/watchdog",
        // The device waits for 15 s: until then the agent has been ended and started again.
        "WatchdogSec=7",
        "RestartSec=2",
        "RestartSteps=0",
    ];
    assert_eq!(settings(&text), expected, "{text}");
    for field in ["interpreter-threads", "guest-memory", "memory-reserved", "host-paths", "watchdog-device"] {
        assert!(text.lines().any(|line| line.starts_with('#') && line.contains(field)), "{field}: {text}");
    }
}

#[test]
fn folders_are_opened_and_said_as_systemd_reads_them() {
    let paths = ["/srv/a b%c", "/srv/missing", "/home/pi/x:y", "/tmp/z", "/dev/snd", "/dev/null"];
    let text = drop_in(
        &["--data-dir", "/mnt/my disk", "--host-paths", &paths.join(","), "--interpreter-threads=1"],
        None,
    );
    let text = text.unwrap();
    let expected = [
        "[Unit]",
        "RequiresMountsFor=\"/mnt/my disk\"",
        "[Service]",
        "TasksMax=17",
        "ReadWritePaths=\"/mnt/my disk\"",
        "ReadWritePaths=\"-/srv/a b%%c\"",
        "ReadWritePaths=-/srv/missing",
        "ProtectHome=tmpfs",
        "BindPaths=\"-/home/pi/x:y\"",
        "BindPaths=-/tmp/z",
        "PrivateDevices=no",
        "DeviceAllow=/dev/null rw",
    ];
    assert_eq!(settings(&text), expected, "{text}");
    assert!(text.contains("# host-paths: /dev/snd is no device"), "{text}");
    assert!(text.contains("no limit"), "nothing is reserved: {text}");
}

#[test]
fn what_the_shipped_unit_allows_needs_no_line() {
    for (flag, folder) in [
        ("--data-dir", "/var/lib/copepod"),
        ("--data-dir", "/var/lib/copepod/x"),
        ("--log-dir", "/var/lib/copepod/pods"),
    ] {
        let text = drop_in(&[flag, folder, "--interpreter-threads=1"], None).unwrap();
        assert_eq!(settings(&text), ["[Service]", "TasksMax=17"], "{text}");
    }
    // It may be written to, and need only stay when the service is started anew.
    let text = drop_in(&["--log-dir", "/run/copepod/logs", "--interpreter-threads=1"], None).unwrap();
    assert_eq!(settings(&text), ["[Service]", "TasksMax=17", "RuntimeDirectoryPreserve=yes"], "{text}");
    for flag in ["--data-dir", "--log-dir"] {
        let text = drop_in(&[flag, "/var/lib/copepod2"], None).unwrap();
        assert_eq!(text.matches("\nRequiresMountsFor=/var/lib/copepod2\n").count(), 1, "{text}");
        assert_eq!(text.matches("\nReadWritePaths=/var/lib/copepod2\n").count(), 1, "{text}");
    }
}

#[test]
fn what_systemd_cannot_be_told_is_refused() {
    for path in ["/srv/a\"b", "/srv/a\\", "/srv/$HOME", "/srv/it's"] {
        let error = drop_in(&["--host-paths", path], None).unwrap_err();
        assert!(error.contains("nothing that systemd can be told") && !error.contains('\n'), "{error}");
    }
    assert!(drop_in(&["--data-dir", "/srv/a\nb"], None).is_err());
    // A comment stays one.
    let text = drop_in(&["--host-paths", "/dev/a\\"], None);
    assert!(text.unwrap().contains("# host-paths: /dev/a/ is no device"));
}

#[test]
fn who_may_open_a_device() {
    let groups = "root:x:0:\ndialout:x:20:pi\nbroken\ngpio:x:986:pi,copepod\n";
    for (mode, gid, expected) in [
        (0o20666, 0, Access::Everybody),
        (0o20660, 986, Access::Group("gpio".into())),
        (0o20660, 20, Access::Group("dialout".into())),
        (0o20660, 77, Access::Group("77".into())),
        (0o20660, 0, Access::Root),
        (0o20640, 986, Access::Root),
        (0o20600, 0, Access::Root),
    ] {
        assert_eq!(access(mode, gid, groups), expected, "{mode:o} {gid}");
    }
    assert_eq!(look(Path::new("/nowhere")), Found::Missing);
    assert_eq!(look(Path::new("/")), Found::Plain);
    assert_eq!(look(Path::new("/dev/null")), Found::Device(Access::Everybody));
}

#[test]
fn what_is_shown_is_a_board_file_again() {
    let file = std::env::temp_dir().join(format!("copepod-shown-{:x}.toml", fastrand::u64(..)));
    for (name, _) in EMBEDDED {
        let values = agent_values(&["--board", name, "--default-memory", "3"]);
        let text = shown(&values, 427 * MIB);
        assert!(text.contains("\n# From: --default-memory.\ndefault-memory = 3\n"), "{text}");
        assert!(text.contains("\n# guest-memory is not set: "), "{text}");
        std::fs::write(&file, &text).unwrap();
        let again = agent_values(&["--board", file.to_str().unwrap()]);
        for setting in agent::COMMAND.settings.iter().filter(|setting| setting.board) {
            assert_eq!(again.list(setting.name), values.list(setting.name), "{name}: {}", setting.name);
        }
        let (board, again) = (values.board.board.unwrap(), again.board.board.unwrap());
        for field in FIELDS {
            assert_eq!(again.field(field.name), board.field(field.name), "{name}: {}", field.name);
        }
    }
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn the_service_is_told_of_a_file_by_its_whole_path() {
    let here = std::env::current_dir().unwrap();
    for (said, told) in [
        ("raspberry-pi-4", PathBuf::from("raspberry-pi-4")),
        ("none", "none".into()),
        ("my.toml", here.join("my.toml")),
        ("/srv/board", "/srv/board".into()),
    ] {
        let Ok(board) = service_board(said) else { panic!("{said}") };
        assert_eq!(PathBuf::from(board), told);
    }
}
