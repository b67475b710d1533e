#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::*;
use crate::config::agent::{AgentConfig, COMMAND};
use crate::config::values::{Parsed, Values};

const SETTINGS: &[Setting] = COMMAND.settings;
const MIB: u64 = 1024 * 1024;

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let path = std::env::temp_dir().join(format!("copepod-board-{:x}", fastrand::u64(..)));
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn collect(arguments: &[&str], variables: &[(&str, &str)], device_tree: &str) -> Result<Values, UsageError> {
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    let arguments = arguments.iter().map(OsString::from);
    let variable = |name: &str| variables.get(name).map(OsString::from);
    match Values::collect(&COMMAND, arguments, variable, Path::new(device_tree))? {
        Parsed::Run(values) => Ok(values),
        other => panic!("{other:?}"),
    }
}

fn load(arguments: &[&str]) -> Result<AgentConfig, UsageError> {
    AgentConfig::from_values(&collect(arguments, &[], "/nowhere")?, "n", 512 * MIB)
}

#[test]
fn every_board_inside_parses_and_its_values_are_in_range() {
    // Bytes of memory that Linux has on the smallest variant.
    let smallest = [
        ("raspberry-pi-zero-2-w", 416),
        ("raspberry-pi-3", 890),
        ("raspberry-pi-4", 890),
        ("raspberry-pi-5", 890),
        ("armv7-gateway", 480),
        ("x86-64-gateway", 1900),
        ("minimum-64mb", 35),
    ];
    assert_eq!(smallest.map(|(name, _)| name).as_slice(), EMBEDDED.iter().map(|b| b.0).collect::<Vec<_>>());
    let targets =
        ["aarch64-unknown-linux-musl", "armv7-unknown-linux-musleabihf", "x86_64-unknown-linux-musl"];
    for (name, memory) in smallest {
        let values = collect(&["--board", name], &[], "/nowhere").unwrap();
        let config = AgentConfig::from_values(&values, "n", memory * MIB).unwrap();
        let left = memory * MIB - config.memory_reserved;
        assert_eq!(config.guest_memory, left, "{name}: nothing that is not reserved is wasted");
        assert!(config.default_memory * 2 <= left, "{name}: room for two containers at least");
        let board = values.board.board.unwrap();
        let Some(Value::Text(target)) = board.field("target") else { panic!("{name}: no target") };
        assert!(targets.contains(&target.as_str()), "{name}: {target}");
        for wanted in ["description", "cpu", "cpu-features"] {
            assert!(board.field(wanted).is_some(), "{name}: no {wanted}");
        }
        // All that a board decides stands in its file, but for what follows from the machine or the data-dir.
        let follows = ["guest-memory", "log-dir"];
        for setting in SETTINGS.iter().filter(|s| s.board && !follows.contains(&s.name)) {
            assert!(board.field(setting.name).is_some(), "{name}: no {}", setting.name);
        }
    }
}

#[test]
fn every_field_is_documented() {
    let page = include_str!("../../../../board-configs/README.md");
    let settings = SETTINGS.iter().filter(|setting| setting.board).map(|setting| setting.name);
    for field in FIELDS.iter().map(|field| field.name).chain(settings) {
        assert!(page.contains(&format!("\n| `{field}` |")), "board-configs/README.md has no row for {field}");
    }
    for (name, _) in EMBEDDED {
        assert!(page.contains(&format!("`{name}`")), "board-configs/README.md does not name {name}");
    }
}

#[test]
fn flags_beat_environment_beats_file_beats_board_file_beats_default() {
    let folder = Folder::new();
    let fields = "interpreter-threads = 11\ndefault-memory = 12\nmemory-reserved = 13\nguest-memory = 14\n";
    let board = folder.file("board.toml", fields);
    let keys = "interpreterThreads: 21\ndefaultMemory: 22\nmemoryReserved: 23\n";
    let keys = folder.file("config.yaml", &format!("{keys}board: {board}\n"));
    let variables = [("COPEPOD_INTERPRETER_THREADS", "31"), ("COPEPOD_DEFAULT_MEMORY", "32")];
    let values =
        collect(&["--interpreter-threads", "41", "--config", &keys], &variables, "/nowhere").unwrap();
    let figures = ["interpreter-threads", "default-memory", "memory-reserved", "guest-memory", "port"];
    assert_eq!(figures.map(|name| values.text(name).unwrap()), ["41", "32", "23", "14", "10250"]);
    assert_eq!(values.origin("guest-memory"), Some(format!("guest-memory in board file {board}").as_str()));
    assert_eq!(
        values.board.why,
        format!("board file {board}, as board in {} says", folder.0.join("config.yaml").display())
    );

    // The name of the board itself goes the same way.
    let variables = [("COPEPOD_BOARD", "raspberry-pi-4")];
    let values = collect(&["--config", &keys], &variables, "/nowhere").unwrap();
    assert_eq!(values.board.why, "board file raspberry-pi-4, as COPEPOD_BOARD says");
    let values = collect(&["--config", &keys, "--board=none"], &variables, "/nowhere").unwrap();
    assert_eq!(values.board.why, "no board file, as --board says");
    assert_eq!(values.text("guest-memory"), None);
}

#[test]
fn a_board_is_known_by_its_device_tree() {
    let folder = Folder::new();
    for (tree, board) in [
        ("raspberrypi,model-zero-2-w\0brcm,bcm2837\0", "raspberry-pi-zero-2-w"),
        ("raspberrypi,3-model-a-plus\0brcm,bcm2837\0", "raspberry-pi-zero-2-w"),
        ("raspberrypi,3-model-b\0brcm,bcm2837\0", "raspberry-pi-3"),
        ("raspberrypi,3-model-b-plus\0brcm,bcm2837\0", "raspberry-pi-3"),
        ("raspberrypi,3-compute-module\0brcm,bcm2837\0", "raspberry-pi-3"),
        ("raspberrypi,4-model-b\0brcm,bcm2711\0", "raspberry-pi-4"),
        ("raspberrypi,400\0brcm,bcm2711\0", "raspberry-pi-4"),
        ("raspberrypi,4-compute-module\0brcm,bcm2711\0", "raspberry-pi-4"),
        ("raspberrypi,5-model-b\0brcm,bcm2712\0", "raspberry-pi-5"),
        ("raspberrypi,5-compute-module\0brcm,bcm2712\0", "raspberry-pi-5"),
        // A carrier's own name first: the next says what is on it.
        ("kunbus,revpi-connect-4\0raspberrypi,4-compute-module\0brcm,bcm2711\0", "raspberry-pi-4"),
        ("raspberrypi,5-model-b\0raspberrypi,4-model-b", "raspberry-pi-5"),
    ] {
        let values = collect(&[], &[], &folder.file("compatible", tree)).unwrap();
        assert_eq!(values.board.board.unwrap().name, board, "{tree:?}");
        assert!(values.board.why.starts_with(&format!("board file {board}: the device tree says raspb")));
    }
    for (tree, why) in [
        (
            "raspberrypi,model-zero-w\0brcm,bcm2835\0",
            "for this machine, raspberrypi,model-zero-w, brcm,bcm2835 (",
        ),
        ("linux,dummy-virt\0", "for this machine, linux,dummy-virt ("),
        ("x\ny\0", "for this machine, x\\ny ("),
        (&"x".repeat(5000), "larger than 4096 bytes ("),
    ] {
        let values = collect(&[], &[], &folder.file("compatible", tree)).unwrap();
        assert!(values.board.board.is_none() && values.board.why.contains(why), "{}", values.board.why);
    }
    let values = collect(&[], &[], "/nowhere").unwrap();
    assert!(values.board.why.contains("no device tree"), "{}", values.board.why);
    // What somebody says is stronger.
    let tree = folder.file("compatible", "raspberrypi,5-model-b\0brcm,bcm2712\0");
    for (said, name) in [("armv7-gateway", Some("armv7-gateway")), ("none", None), ("", None)] {
        let values = collect(&["--board", said], &[], &tree).unwrap();
        assert_eq!(values.board.board.map(|board| board.name).as_deref(), name);
    }
}

#[test]
fn a_wrong_board_file_is_refused_in_one_line() {
    let folder = Folder::new();
    for (text, problem) in [
        ("memory = 64\n", "there is no field \"memory\""),
        ("port = 64\n", "there is no field \"port\""),
        ("memoryReserved = 64\n", "there is no field \"memoryReserved\""),
        ("memory-reserved = \"64\"\n", "memory-reserved: a string where a whole number belongs"),
        ("data-dir = 5\n", "data-dir: a whole number where a string belongs"),
        ("host-paths = \"/srv\"\n", "host-paths: a string where a list of strings belongs"),
        ("compatible = true\n", "compatible: true or false where a list of strings belongs"),
        ("description = []\n", "description: a list where a string belongs"),
        ("[memory]\nreserved = 1\n", "line 1: a table"),
        ("memory-reserved = 1\nmemory-reserved = 2\n", "line 2: memory-reserved stands there twice"),
        ("memory-reserved = 512\n", "memory-reserved in board file PATH: \"512\": this machine has 512 MiB"),
        (
            "default-memory = 0\n",
            "default-memory in board file PATH: \"0\": not a whole number from 1 to 4096",
        ),
        ("interpreter-threads = -1\n", "interpreter-threads in board file PATH: \"-1\": not a whole"),
        ("host-paths = [\"dev\"]\n", "host-paths in board file PATH: \"dev\": not an absolute path"),
        (&format!("# {}", "x".repeat(16 * 1024)), "larger than 16384 bytes"),
    ] {
        let path = folder.file("board.toml", text);
        let error = load(&["--board", &path]).unwrap_err().to_string();
        assert!(error.contains(&problem.replace("PATH", &path)), "{text:.60}: {error}");
        assert!(error.contains(&format!("board file {path}")), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn the_processor_is_compared_with_the_file() {
    let board = Board::parse("b", "cpu-features = ['crc32', 'aes']\n", SETTINGS).unwrap();
    for (cpuinfo, lacking) in [
        ("processor\t: 0\nFeatures\t: fp asimd crc32 cpuid\n", vec!["aes"]),
        ("flags\t\t: fpu aes sse4_2 crc32\nvmx flags\t: x\n", vec![]),
        ("Features\t: half crc32aes\n\nFeatures\t: crc32 aes\n", vec!["crc32", "aes"]),
        ("system type : mips\n", vec![]),
    ] {
        assert_eq!(board.lacking(cpuinfo), lacking, "{cpuinfo}");
    }
}
