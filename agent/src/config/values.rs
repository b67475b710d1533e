//! Collects the values of a command's settings: flags beat environment beats file beats board file beats
//! default.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use serde_json::Value;

use super::board::{Board, Choice};
use super::setting::{CommandLine, Setting, Takes};
use super::{toml, yaml};

/// Bytes of a configuration file; ours have some twenty lines.
const MAX_CONFIG_FILE: u64 = 1024 * 1024;

/// Why a command line, an environment or a configuration file was refused. One line for the user.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// A flag that the command does not have.
    #[error("{command}: there is no flag {flag} (see {command} --help)")]
    UnknownFlag {
        /// The command.
        command: &'static str,
        /// The flag as typed.
        flag: String,
    },
    /// Too many or too few operands.
    #[error("{command}: {problem} (usage: {command} [FLAGS] {operands})")]
    Operands {
        /// The command.
        command: &'static str,
        /// What the help shows.
        operands: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A value that does not mean anything.
    #[error("{origin}: {problem}")]
    Value {
        /// The flag, variable or file key that the value came from.
        origin: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The configuration file cannot be used.
    #[error("configuration file {path}: {problem}")]
    File {
        /// Its path.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

/// What to do with a command line.
#[derive(Debug)]
pub enum Parsed {
    /// Run with these values.
    Run(Values),
    /// Print the help.
    Help,
    /// Print the version.
    Version,
}

/// The collected values, each with where it came from.
#[derive(Debug, Default)]
pub struct Values {
    values: BTreeMap<&'static str, (String, Vec<String>)>,
    /// What follows the flags.
    pub operands: Vec<OsString>,
    /// The board file that some values came from.
    pub board: Choice,
}

impl Values {
    /// Reads arguments (without the program's and the command's name), environment, configuration file, and
    /// the board file that these name or that knows this machine by `device_tree`
    /// ([`super::board::DEVICE_TREE`]).
    ///
    /// # Errors
    /// [`UsageError`], naming the flag, variable, key or field.
    pub fn collect(
        command: &CommandLine,
        arguments: impl IntoIterator<Item = OsString>,
        variable: impl Fn(&str) -> Option<OsString>,
        device_tree: &Path,
    ) -> Result<Parsed, UsageError> {
        let mut values = Values::default();
        match values.read_flags(command, arguments)? {
            Some(other) => return Ok(other),
            None => values.check_operands(command)?,
        }
        if command.configurable {
            for setting in command.settings {
                let name = setting.variable();
                // An empty list is a list; an empty value is a variable that somebody cleared.
                let cleared = |text: &OsString| text.is_empty() && !matches!(setting.takes, Takes::List(_));
                let Some(text) = variable(&name).filter(|text| !cleared(text)) else { continue };
                let text = text.into_string().map_err(|_| UsageError::Value {
                    origin: name.clone(),
                    problem: "the value is not valid UTF-8".into(),
                })?;
                values.offer(setting, name, text)?;
            }
            if let Some(path) = values.text("config").map(str::to_owned) {
                values.read_file(command, Path::new(&path))?;
            }
        }
        if command.settings.iter().any(|setting| setting.board) {
            let wanted = values.values.get("board");
            let wanted = wanted.and_then(|(origin, list)| Some((origin.as_str(), list.first()?.as_str())));
            values.board = Choice::of(wanted, device_tree, command.settings)?;
            if let Some(board) = &values.board.board {
                take_board(&mut values.values, command, board);
            }
        }
        for setting in command.settings {
            if let Some(default) = setting.default {
                values.offer(setting, format!("default of --{}", setting.name), default.to_owned())?;
            }
        }
        Ok(Parsed::Run(values))
    }

    fn read_flags(
        &mut self,
        command: &CommandLine,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Option<Parsed>, UsageError> {
        let mut parser = lexopt::Parser::from_args(arguments);
        let broken = |error: lexopt::Error| UsageError::Value {
            origin: command.name.to_owned(),
            problem: error.to_string(),
        };
        while let Some(argument) = parser.next().map_err(broken)? {
            let flag = match argument {
                lexopt::Arg::Value(operand) => {
                    self.operands.push(operand);
                    continue;
                }
                lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => return Ok(Some(Parsed::Help)),
                lexopt::Arg::Short('V') | lexopt::Arg::Long("version") => return Ok(Some(Parsed::Version)),
                lexopt::Arg::Long(flag) => flag.to_owned(),
                lexopt::Arg::Short(flag) => {
                    return Err(UsageError::UnknownFlag { command: command.name, flag: format!("-{flag}") })
                }
            };
            let origin = format!("--{flag}");
            let Some(setting) = command.settings.iter().find(|s| s.answers_to(&flag)) else {
                return Err(UsageError::UnknownFlag { command: command.name, flag: origin });
            };
            let text = match setting.takes {
                Takes::Switch => parser.optional_value().unwrap_or_else(|| "true".into()),
                Takes::Optional(_) => match parser.optional_value() {
                    Some(text) => text,
                    None => number_after(&mut parser).unwrap_or_else(|| "true".into()),
                },
                Takes::Value(_) | Takes::Number(_) | Takes::List(_) | Takes::Each(_) => {
                    parser.value().map_err(broken)?
                }
            };
            let text = text.into_string().map_err(|_| UsageError::Value {
                origin: origin.clone(),
                problem: "the value is not valid UTF-8".into(),
            })?;
            match (setting.takes, self.values.get_mut(setting.name)) {
                (Takes::List(_), Some((_, list))) => list.extend(split_list(&text)),
                (Takes::Each(_), Some((_, list))) => list.push(text),
                (_, Some(_)) => {
                    return Err(UsageError::Value { origin, problem: "given twice".into() });
                }
                (_, None) => self.offer(setting, origin, text)?,
            }
        }
        Ok(None)
    }

    fn check_operands(&self, command: &CommandLine) -> Result<(), UsageError> {
        let (least, most) = command.operand_count;
        let count = self.operands.len();
        let problem = if count < least {
            format!("{count} operand(s) given, {least} needed")
        } else if let Some(extra) = self.operands.get(most) {
            format!("unexpected operand {extra:?}")
        } else {
            return Ok(());
        };
        Err(UsageError::Operands { command: command.name, operands: command.operands, problem })
    }

    fn read_file(&mut self, command: &CommandLine, path: &Path) -> Result<(), UsageError> {
        let broken = |problem: String| UsageError::File { path: path.display().to_string(), problem };
        let text = super::read_bounded(path, MAX_CONFIG_FILE).map_err(|error| broken(error.to_string()))?;
        let map = match yaml::parse(&text).map_err(|error| broken(error.to_string()))? {
            Value::Object(map) => map,
            // Nothing, or nothing but comments.
            Value::Null => return Ok(()),
            _ => return Err(broken("it is not a mapping of settings to values".into())),
        };
        for (key, value) in map {
            let setting = command.settings.iter().find(|s| s.key() == key && s.name != "config");
            let Some(setting) = setting else {
                return Err(broken(format!("there is no setting {key:?} (see copepod --help)")));
            };
            let origin = format!("{key} in {}", path.display());
            if self.values.contains_key(setting.name) || value.is_null() {
                continue;
            }
            let list = file_value(setting, value)
                .ok_or_else(|| broken(format!("{key}: a list or a mapping where one value belongs")))?;
            self.values.insert(setting.name, (origin, list));
        }
        Ok(())
    }

    /// Takes a value unless a stronger source gave one.
    fn offer(&mut self, setting: &Setting, origin: String, text: String) -> Result<(), UsageError> {
        if setting.takes == Takes::Switch && !matches!(text.as_str(), "true" | "false") {
            return Err(UsageError::Value { origin, problem: format!("{text:?} is neither true nor false") });
        }
        let list = if let Takes::List(_) = setting.takes { split_list(&text) } else { vec![text] };
        self.values.entry(setting.name).or_insert((origin, list));
        Ok(())
    }

    /// Where the value of a setting comes from: a flag, a variable, a key of a file.
    #[must_use]
    pub fn origin(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|(origin, _)| origin.as_str())
    }

    /// The refusal of a setting's value, for a reason that is not in the value alone.
    #[must_use]
    pub fn refuse(&self, name: &str, problem: &str) -> UsageError {
        let origin = self.origin(name).unwrap_or(name);
        self.refuse_from(origin, self.text(name).unwrap_or_default(), problem)
    }

    /// The value of a setting that takes one.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).and_then(|(_, list)| list.first()).map(String::as_str)
    }

    /// The values of a setting that takes a list.
    #[must_use]
    pub fn list(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], |(_, list)| list)
    }

    /// Whether a switch is on.
    #[must_use]
    pub fn is_on(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    /// The value of a setting, understood by `read`, which says what would be right.
    ///
    /// # Errors
    /// [`UsageError::Value`] with the flag, variable or key, and the text of `read`.
    pub fn parse<T>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, UsageError> {
        let Some((origin, list)) = self.values.get(name) else { return Ok(None) };
        let Some(text) = list.first() else { return Ok(None) };
        match read(text) {
            Ok(value) => Ok(Some(value)),
            Err(problem) => Err(self.refuse_from(origin, text, &problem)),
        }
    }

    /// Each value of a list, understood by `read`.
    ///
    /// # Errors
    /// As [`Values::parse`].
    pub fn parse_list<T>(
        &self,
        name: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, UsageError> {
        let Some((origin, list)) = self.values.get(name) else { return Ok(Vec::new()) };
        list.iter()
            .map(|text| read(text).map_err(|problem| self.refuse_from(origin, text, &problem)))
            .collect()
    }

    fn refuse_from(&self, origin: &str, text: &str, problem: &str) -> UsageError {
        UsageError::Value { origin: origin.to_owned(), problem: format!("{text:?}: {problem}") }
    }
}

/// The settings among a board file's fields, where no stronger source gave one.
fn take_board(
    values: &mut BTreeMap<&'static str, (String, Vec<String>)>,
    command: &CommandLine,
    board: &Board,
) {
    for (field, value) in &board.fields {
        let Some(setting) = command.settings.iter().find(|s| s.board && s.name == field) else { continue };
        let list = match value.clone() {
            toml::Value::Text(text) | toml::Value::Number(text) => vec![text],
            toml::Value::Switch(on) => vec![on.to_string()],
            toml::Value::List(list) => list,
        };
        let origin = format!("{field} in board file {}", board.name);
        values.entry(setting.name).or_insert((origin, list));
    }
}

/// The next argument, if it is a number: no flag, and no operand of a command whose flag may have one.
fn number_after(parser: &mut lexopt::Parser) -> Option<OsString> {
    let mut left = parser.try_raw_args()?;
    let is_number = |text: &std::ffi::OsStr| text.to_str().is_some_and(|text| text.parse::<u64>().is_ok());
    left.peek().filter(|text| is_number(text))?;
    left.next()
}

fn split_list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn file_value(setting: &Setting, value: Value) -> Option<Vec<String>> {
    match (setting.takes, value) {
        (Takes::List(_), Value::String(text)) => Some(split_list(&text)),
        (Takes::List(_), Value::Array(items)) => items.into_iter().map(scalar).collect(),
        // `nodeLabels: {room: cellar}`, as a kubelet's configuration writes labels.
        (Takes::List(_), Value::Object(map)) => {
            map.into_iter().map(|(key, value)| scalar(value).map(|value| format!("{key}={value}"))).collect()
        }
        (_, value) => scalar(value).map(|text| vec![text]),
    }
}

/// A scalar as a user would type it on the command line.
fn scalar(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(on) => Some(on.to_string()),
        _ => None,
    }
}
