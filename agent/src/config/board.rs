//! Board files: what a machine has, and how it is to be treated. One more source of settings, weaker than
//! the configuration file and stronger than the defaults.
//!
//! A board file's fields are those of [`FIELDS`], which only describe the board, and every setting of the
//! agent that is marked as the board's, under its flag's name. `board-configs/README.md` documents them all.

use std::io;
use std::path::Path;

use super::setting::{Setting, Takes};
use super::toml::{self, Value};
use super::{read_bounded, UsageError};

/// What the firmware says this machine is: NUL-separated names, the most specific first.
pub const DEVICE_TREE: &str = "/proc/device-tree/compatible";
/// Bytes of it that are read; a Raspberry Pi has some thirty.
const MAX_DEVICE_TREE: u64 = 4096;
/// Bytes of a board file; ours have some two thousand, most of them comments.
const MAX_BOARD_FILE: u64 = 16 * 1024;
/// The name that means no board file.
const NONE: &str = "none";

/// A field of a board file that is no setting.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub takes: Takes,
    /// What it means, for a person.
    pub help: &'static str,
}

/// The fields that only describe a board.
pub const FIELDS: &[Field] = &[
    Field { name: "description", takes: Takes::Value("TEXT"), help: "What the board is, for a person." },
    Field {
        name: "compatible",
        takes: Takes::List("NAME"),
        help: "Names in /proc/device-tree/compatible by which the agent knows the board. Without any, it is \
               taken only where --board says so.",
    },
    Field {
        name: "target",
        takes: Takes::Value("TARGET"),
        help: "The Rust target that is built for the board.",
    },
    Field { name: "cpu", takes: Takes::Value("TEXT"), help: "The board's processor, for a person." },
    Field {
        name: "cpu-features",
        takes: Takes::List("NAME"),
        help: "What the processor has beyond the target's least, as /proc/cpuinfo calls it. The agent warns \
               when this machine's lacks one: then the board file is for another board.",
    },
];

/// The board files inside this program: name and text.
pub const EMBEDDED: &[(&str, &str)] = &[
    ("raspberry-pi-zero-2-w", include_str!("../../../board-configs/raspberry-pi-zero-2-w.toml")),
    ("raspberry-pi-3", include_str!("../../../board-configs/raspberry-pi-3.toml")),
    ("raspberry-pi-4", include_str!("../../../board-configs/raspberry-pi-4.toml")),
    ("raspberry-pi-5", include_str!("../../../board-configs/raspberry-pi-5.toml")),
    ("armv7-gateway", include_str!("../../../board-configs/armv7-gateway.toml")),
    ("x86-64-gateway", include_str!("../../../board-configs/x86-64-gateway.toml")),
    ("minimum-64mb", include_str!("../../../board-configs/minimum-64mb.toml")),
];

/// A board file, its fields known and of the right kind.
#[derive(Debug)]
pub struct Board {
    /// Its name, or the file's path.
    pub name: String,
    /// The fields in the file's order.
    pub fields: Vec<(String, Value)>,
}

impl Board {
    /// Reads the text of a board file, whose fields may be `settings`, too.
    ///
    /// # Errors
    /// The file, and the line or field that is wrong.
    pub fn parse(name: &str, text: &str, settings: &[Setting]) -> Result<Board, UsageError> {
        let broken = |problem: String| UsageError::Value { origin: format!("board file {name}"), problem };
        let fields = toml::parse(text).map_err(broken)?;
        for (field, value) in &fields {
            let described = FIELDS.iter().map(|field| (field.name, field.takes));
            let of_the_board = settings.iter().filter(|setting| setting.board).map(|s| (s.name, s.takes));
            let Some((_, takes)) = described.chain(of_the_board).find(|(name, _)| name == field) else {
                return Err(broken(format!("there is no field {field:?} (copepod board shows them)")));
            };
            let belongs = match (takes, value) {
                (Takes::Value(_), Value::Text(_))
                | (Takes::Number(_) | Takes::Optional(_), Value::Number(_))
                | (Takes::Optional(_), Value::Switch(_))
                | (Takes::Switch, Value::Switch(_))
                | (Takes::List(_), Value::List(_)) => continue,
                (Takes::Value(_), _) => "a string",
                (Takes::Number(_), _) => "a whole number",
                (Takes::Optional(_), _) => "a whole number, true or false",
                (Takes::Switch, _) => "true or false",
                (Takes::List(_) | Takes::Each(_), _) => "a list of strings",
            };
            return Err(broken(format!("{field}: {} where {belongs} belongs", value.kind())));
        }
        Ok(Board { name: name.to_owned(), fields })
    }

    /// A list among the fields.
    #[must_use]
    pub fn list(&self, name: &str) -> &[String] {
        match self.field(name) {
            Some(Value::List(list)) => list,
            _ => &[],
        }
    }

    /// A field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value)
    }

    /// The `cpu-features` that the processor lacks, by the text of `/proc/cpuinfo`: its first line of
    /// `Features` (ARM) or `flags` (x86). None where there is no such line.
    #[must_use]
    pub fn lacking(&self, cpuinfo: &str) -> Vec<&str> {
        let line = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        let mut line = line.filter(|(name, _)| matches!(name.trim(), "Features" | "flags"));
        let Some((_, has)) = line.next() else { return Vec::new() };
        let wanted = self.list("cpu-features").iter().map(String::as_str);
        wanted.filter(|feature| !has.split_whitespace().any(|word| word == *feature)).collect()
    }
}

/// Which board file was taken, and why.
#[derive(Debug, Default)]
pub struct Choice {
    /// The board file, if any.
    pub board: Option<Board>,
    /// Why this one, or why none: for the log.
    pub why: String,
}

impl Choice {
    /// The board file that somebody `wanted` (where it was said, and what), else the one that is for the
    /// machine that the file `device_tree` names.
    ///
    /// # Errors
    /// The board file is not there, or it is wrong.
    pub fn of(
        wanted: Option<(&str, &str)>,
        device_tree: &Path,
        settings: &[Setting],
    ) -> Result<Choice, UsageError> {
        let (origin, name) = match wanted {
            None => return Choice::by_device_tree(device_tree, settings),
            Some((origin, "" | NONE)) => {
                return Ok(Choice { board: None, why: format!("no board file, as {origin} says") });
            }
            Some(wanted) => wanted,
        };
        let board = if name.contains('/') || name.ends_with(".toml") {
            // In a configuration file it would be a path from the agent's folder, which for a service is /.
            if !matches!(origin, "--board" | "COPEPOD_BOARD") && !name.starts_with('/') {
                let problem = format!("{name:?}: from where? Name the board file by its path from /");
                return Err(UsageError::Value { origin: origin.to_owned(), problem });
            }
            let text = read_bounded(Path::new(name), MAX_BOARD_FILE).map_err(|error| {
                let origin = format!("{origin}: board file {name}");
                UsageError::Value { origin, problem: error.to_string() }
            })?;
            Board::parse(name, &text, settings)?
        } else {
            let Some((name, text)) = EMBEDDED.iter().find(|(known, _)| *known == name) else {
                let names: Vec<&str> = EMBEDDED.iter().map(|(name, _)| *name).collect();
                let problem = format!(
                    "{name:?}: there is no such board, but {} and {NONE}; the path of a board file of your own \
                     has a / in it or ends in .toml",
                    names.join(", ")
                );
                return Err(UsageError::Value { origin: origin.to_owned(), problem });
            };
            Board::parse(name, text, settings)?
        };
        let why = format!("board file {name}, as {origin} says");
        Ok(Choice { board: Some(board), why })
    }

    fn by_device_tree(path: &Path, settings: &[Setting]) -> Result<Choice, UsageError> {
        const HOW: &str = "(--board names one, copepod board --list shows them)";
        let names = match read_bounded(path, MAX_DEVICE_TREE) {
            Ok(names) => names,
            Err(error) => {
                let problem = match error.kind() {
                    io::ErrorKind::NotFound => "this machine has no device tree to be known by".to_owned(),
                    _ => format!("{}: {error}", path.display()),
                };
                return Ok(Choice { board: None, why: format!("no board file: {problem} {HOW}") });
            }
        };
        // The machine's first name is the most specific one.
        for compatible in names.split('\0').filter(|name| !name.is_empty()) {
            for (name, text) in EMBEDDED {
                let board = Board::parse(name, text, settings)?;
                if board.list("compatible").iter().any(|known| known == compatible) {
                    let why = format!("board file {name}: the device tree says {compatible}");
                    return Ok(Choice { board: Some(board), why });
                }
            }
        }
        let names = names.trim_end_matches('\0').replace('\0', ", ");
        let why = format!("no board file is for this machine, {} {HOW}", names.escape_debug());
        Ok(Choice { board: None, why })
    }
}

#[cfg(test)]
mod tests;
