//! `copepod board`: the board file in effect, those inside, and the drop-in that opens the service for it.

mod drop_in;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::Path;

use self::drop_in::{look, DropIn};
use super::Failure;
use crate::config::agent::{self, LOG_LEVEL};
use crate::config::board::{Board, DEVICE_TREE, EMBEDDED, FIELDS};
use crate::config::setting::{CommandLine, Setting, Takes};
use crate::config::toml::{self, Value};
use crate::config::{help, AgentConfig, Parsed, UsageError, Values};
use crate::node::host;
use crate::node::watchdog::timeout;

/// The command line.
pub const COMMAND: CommandLine = CommandLine {
    name: "copepod board",
    operands: "[NAME|FILE]",
    operand_count: (0, 1),
    about:
        "Shows the board file that the agent takes on this machine, or the one that is named, and what it\n\
            sets: a board file again, to begin one of your own with. What the environment and the\n\
            configuration file set is shown in its place.\n\
            \n\
            With --systemd it writes what the board needs of the service, to be kept and read:\n  \
            copepod board --systemd | sudo tee /etc/systemd/system/copepod.service.d/board.conf",
    settings: &[
        Setting {
            name: "list",
            aliases: &[],
            takes: Takes::Switch,
            default: None,
            help: "Name the board files inside this program.",
            board: false,
        },
        Setting {
            name: "systemd",
            aliases: &[],
            takes: Takes::Switch,
            default: None,
            help:
                "Write a drop-in for copepod.service: memory and task limits, folders and devices. It is for \
                   the machine that it is written on.",
            board: false,
        },
        Setting {
            name: "config",
            aliases: &[],
            takes: Takes::Value("FILE"),
            default: None,
            help: "Configuration file (YAML) of the agent.",
            board: false,
        },
        LOG_LEVEL,
    ],
    configurable: false,
};

/// Runs it.
///
/// # Errors
/// [`Failure`]: as the agent itself would refuse its settings; a path that systemd cannot be told.
pub fn run(values: &Values) -> Result<(), Failure> {
    if values.is_on("list") {
        return super::say(&list()?);
    }
    let named = values.operands.first();
    let settings = settings_of_the_agent(named, values.text("config"))?;
    // A board file that is named may be for another machine than this one.
    let memory = if named.is_some() && !values.is_on("systemd") { 0 } else { host::memory() };
    let config = AgentConfig::from_values(&settings, "localhost", memory)?;
    if !values.is_on("systemd") {
        return super::say(&shown(&settings, memory));
    }
    // What the device tree or the configuration says, the service is told by these.
    let board = match named {
        Some(_) => settings.text("board").map(service_board).transpose()?,
        None => None,
    };
    let drop_in = DropIn {
        why: &settings.board.why,
        board,
        config: &config,
        memory,
        look: &look,
        watchdog_timeout: &timeout,
    };
    super::say(&drop_in.text().map_err(Failure::Failed)?)
}

/// What the agent would be set to, were it started here with this board and this configuration file.
fn settings_of_the_agent(board: Option<&OsString>, config: Option<&str>) -> Result<Values, UsageError> {
    let mut arguments: Vec<OsString> = Vec::new();
    for (flag, value) in [("--board", board.cloned()), ("--config", config.map(OsString::from))] {
        if let Some(value) = value {
            arguments.extend([flag.into(), value]);
        }
    }
    let command = &agent::COMMAND;
    match Values::collect(command, arguments, super::variable, Path::new(DEVICE_TREE))? {
        Parsed::Run(values) => Ok(values),
        // No argument of these asks for anything else.
        Parsed::Help | Parsed::Version => Ok(Values::default()),
    }
}

/// A board as the service is to be told of it: it runs in another folder.
fn service_board(board: &str) -> Result<String, Failure> {
    if !board.contains('/') && !board.ends_with(".toml") {
        return Ok(board.to_owned());
    }
    let path = std::path::absolute(board).map_err(|error| Failure::Failed(format!("{board}: {error}")))?;
    Ok(path.to_string_lossy().into_owned())
}

fn list() -> Result<String, Failure> {
    let width = EMBEDDED.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, file) in EMBEDDED {
        let board = Board::parse(name, file, agent::COMMAND.settings)?;
        let Some(Value::Text(description)) = board.field("description") else { continue };
        text.push_str(&format!("{name:width$}  {description}\n"));
    }
    Ok(text)
}

/// The board file in effect, as a board file: what each field means, its value, and where that comes from
/// when it is not from there.
fn shown(values: &Values, memory: u64) -> String {
    let mut text = format!("# {}.\n", one_line(&values.board.why));
    if let Some(board) = &values.board.board {
        for field in FIELDS {
            let Some(value) = board.field(field.name) else { continue };
            meaning(&mut text, field.help);
            text.push_str(&format!("{} = {}\n", field.name, toml::written(value)));
        }
    }
    for setting in agent::COMMAND.settings.iter().filter(|setting| setting.board) {
        meaning(&mut text, setting.help);
        let Some(origin) = values.origin(setting.name) else {
            let here = match setting.name {
                "guest-memory" if memory != 0 => {
                    let reserved = values.text("memory-reserved").and_then(|text| text.parse::<u64>().ok());
                    let left = (memory / 1024 / 1024).saturating_sub(reserved.unwrap_or(0));
                    format!(": {left} MiB on this machine")
                }
                _ => String::new(),
            };
            text.push_str(&format!("# {} is not set{here}.\n", setting.name));
            continue;
        };
        let one = values.text(setting.name).unwrap_or_default().to_owned();
        let value = match setting.takes {
            Takes::List(_) | Takes::Each(_) => Value::List(values.list(setting.name).to_vec()),
            Takes::Switch => Value::Switch(one == "true"),
            Takes::Number(_) => Value::Number(one),
            Takes::Optional(_) if matches!(one.as_str(), "true" | "false") => Value::Switch(one == "true"),
            Takes::Optional(_) => Value::Number(one),
            Takes::Value(_) => Value::Text(one),
        };
        if !origin.starts_with(&format!("{} in board file", setting.name)) {
            text.push_str(&format!("# From: {}.\n", one_line(origin)));
        }
        text.push_str(&format!("{} = {}\n", setting.name, toml::written(&value)));
    }
    text
}

fn meaning(text: &mut String, help: &str) {
    text.push('\n');
    help::wrap(text, "# ", help);
}

/// What may come from a file's or a variable's name, where one line is one line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
