//! The help text, from the same table that flags are read by.

use std::fmt::Write;

use super::setting::{CommandLine, Takes};

/// Columns of a terminal that help is written for.
const WIDTH: usize = 100;
/// What descriptions begin with.
const INDENT: &str = "        ";

/// The text of `--help`.
#[must_use]
pub fn text(command: &CommandLine) -> String {
    let mut text = format!(
        "{}\n\nUsage: {} [FLAGS]{}{}\n\nFlags:\n",
        command.about,
        command.name,
        if command.operands.is_empty() { "" } else { " " },
        command.operands
    );
    for setting in command.settings {
        let value = match setting.takes {
            Takes::Switch => String::new(),
            Takes::Value(name) | Takes::Number(name) => format!(" {name}"),
            Takes::Optional(name) => format!(" [{name}]"),
            Takes::List(name) => format!(" {name},…"),
            Takes::Each(name) => format!(" {name} …"),
        };
        let aliases: String = setting.aliases.iter().map(|alias| format!(", --{alias}")).collect();
        let _ = writeln!(text, "  --{}{aliases}{value}", setting.name);
        let mut help = setting.help.to_owned();
        if let Some(default) = setting.default.filter(|default| !default.is_empty()) {
            let _ = write!(help, " [default: {default}]");
        }
        wrap(&mut text, INDENT, &help);
    }
    text.push_str("  -h, --help\n        Print this.\n  -V, --version\n        Print the version.\n");
    if command.configurable {
        text.push_str(
            "\nEvery flag can also be set by an environment variable (--data-dir: COPEPOD_DATA_DIR) and by a \
             key of\nthe configuration file (dataDir). Flags beat the environment, the environment beats the \
             file, the file\nbeats the board file, and that beats the defaults.\n",
        );
    }
    text
}

/// Appends some words in lines that are not too long, each beginning with `indent`.
pub fn wrap(text: &mut String, indent: &str, help: &str) {
    let mut column = WIDTH;
    for word in help.split(' ') {
        let width = word.chars().count();
        if column.saturating_add(width).saturating_add(1) > WIDTH {
            if !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(indent);
            column = indent.len();
        } else {
            text.push(' ');
            column = column.saturating_add(1);
        }
        text.push_str(word);
        column = column.saturating_add(width);
    }
    text.push('\n');
}
