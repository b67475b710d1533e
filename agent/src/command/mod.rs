//! The command line: one file a sub-command; without one, the machine becomes a node.

pub mod agent;
pub mod board;
pub mod bootstrap;
pub mod console;
mod logging;
pub mod push;
pub mod run;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::config::agent::CONFIG_FILE;
use crate::config::board::DEVICE_TREE;
use crate::config::setting::CommandLine;
use crate::config::{help, Parsed, UsageError, Values, VERSION};

/// `EX_USAGE` of sysexits.h: the command line, a variable or the configuration file is wrong.
const EXIT_USAGE: u8 = 64;

/// Why a command ended without success.
pub enum Failure {
    /// The user asked for something that does not exist.
    Usage(UsageError),
    /// It did not work; the text says why and what to do.
    Failed(String),
    /// A guest's own exit code, passed on.
    Code(u8),
}

impl From<UsageError> for Failure {
    fn from(error: UsageError) -> Failure {
        Failure::Usage(error)
    }
}

struct Command {
    /// What the user types after `copepod`; nothing for the agent itself.
    word: &'static str,
    line: &'static CommandLine,
    run: fn(&Values) -> Result<(), Failure>,
}

const COMMANDS: [Command; 9] = [
    Command { word: "", line: &crate::config::agent::COMMAND, run: agent::run },
    Command { word: "board", line: &board::COMMAND, run: board::run },
    Command { word: "bootstrap", line: &bootstrap::COMMAND, run: bootstrap::run },
    Command { word: "console", line: &console::CONSOLE, run: console::console },
    Command { word: "logs", line: &console::LOGS, run: console::logs },
    Command { word: "pods", line: &console::PODS, run: console::pods },
    Command { word: "push", line: &push::COMMAND, run: push::run },
    Command { word: "run", line: &run::COMMAND, run: run::run },
    Command { word: "status", line: &console::STATUS, run: console::status },
];

/// Every command line, the agent's own first: what a manual has a page of.
pub fn lines() -> impl Iterator<Item = &'static CommandLine> {
    COMMANDS.iter().map(|command| command.line)
}

/// Runs the command that the arguments (without the program's name) ask for.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut arguments: Vec<OsString> = arguments.collect();
    let word = arguments.first().and_then(|first| first.to_str()).unwrap_or_default().to_owned();
    if word == "help" || word == "version" {
        arguments = vec![format!("--{word}").into()];
    }
    let found = COMMANDS.iter().skip(1).find(|command| command.word == word);
    let command = match found {
        Some(command) => {
            arguments.remove(0);
            command
        }
        None => &COMMANDS[0],
    };
    match start(command, arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(error)) => {
            complain(&error.to_string());
            ExitCode::from(EXIT_USAGE)
        }
        Err(Failure::Failed(text)) => {
            complain(&format!("{}: {text}", command.line.name));
            ExitCode::FAILURE
        }
        Err(Failure::Code(code)) => ExitCode::from(code),
    }
}

/// Prints on stdout, where nobody may be left to read.
fn say(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::Failed(format!("writing to stdout: {error}")))
}

/// Prints a line on stderr. Where that cannot be written to, there is nobody to tell.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// The environment. Where nothing else names a configuration file, the machine's is taken if it is there; an
/// empty `COPEPOD_CONFIG` means none.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
        .or_else(|| (name == "COPEPOD_CONFIG" && Path::new(CONFIG_FILE).exists()).then(|| CONFIG_FILE.into()))
}

fn start(command: &Command, arguments: Vec<OsString>) -> Result<(), Failure> {
    match Values::collect(command.line, arguments, variable, Path::new(DEVICE_TREE))? {
        Parsed::Help => say(&help::text(command.line))?,
        Parsed::Version => say(&format!("copepod {VERSION}\n"))?,
        Parsed::Run(values) => {
            logging::start(&values)?;
            (command.run)(&values)?;
        }
    }
    Ok(())
}
