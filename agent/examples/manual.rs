//! Writes what packages carry beside the binary, from the tables that the flags are read by: a manual page a
//! command, the defaults file of the systemd unit, and an example configuration.
//!
//! `cargo run --example manual -- FOLDER` writes FOLDER/man/*.1, FOLDER/default, FOLDER/copepod.yaml.
//! `SOURCE_DATE_EPOCH` is the date on the pages.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use copepod::config::setting::{CommandLine, Setting, Takes};
use copepod::config::VERSION;
use jiff::Timestamp;

/// Columns of a comment in a configuration file.
const WIDTH: usize = 100;
/// Columns of a manual page's source, which is what `mandoc -T lint` asks for.
const SOURCE_WIDTH: usize = 78;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: manual FOLDER")?);
    let epoch = std::env::var("SOURCE_DATE_EPOCH").map_err(|error| format!("SOURCE_DATE_EPOCH: {error}"))?;
    let date = Timestamp::from_second(epoch.trim().parse()?)?.strftime("%Y-%m-%d").to_string();

    let pages = folder.join("man");
    fs::create_dir_all(&pages)?;
    let all: Vec<&CommandLine> = copepod::command::lines().collect();
    for line in &all {
        fs::write(pages.join(format!("{}.1", page_name(line))), page(line, &all, &date)?)?;
    }
    let agent = all.first().ok_or("there is no command")?;
    fs::write(folder.join("default"), defaults(agent)?)?;
    fs::write(folder.join("copepod.yaml"), example(agent)?)?;
    check(&folder)
}

/// `copepod run` is on the page copepod-run(1).
fn page_name(line: &CommandLine) -> String {
    line.name.replace(' ', "-")
}

/// A text for troff: nothing in it is a request or an escape.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            '\'' => out.push_str("\\(aq"),
            '^' => out.push_str("\\(ha"),
            '~' => out.push_str("\\(ti"),
            '`' => out.push_str("\\(ga"),
            c if c.is_ascii() => out.push(c),
            c => {
                let _ = write!(out, "\\[u{:04X}]", u32::from(c));
            }
        }
    }
    out
}

/// Running text for troff, in lines of its source that are no longer than people like them.
fn filled(text: &str) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let word = escaped(word);
        if column > 0 && column + word.len() + 1 > SOURCE_WIDTH {
            out.push('\n');
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        if column == 0 && word.starts_with('.') {
            out.push_str("\\&");
        }
        out.push_str(&word);
        column += word.len();
    }
    out
}

fn page(line: &CommandLine, all: &[&CommandLine], date: &str) -> Result<String, std::fmt::Error> {
    let name = page_name(line);
    let mut out = String::new();
    writeln!(out, ".TH {} 1 \"{date}\" \"copepod {VERSION}\" \"User Commands\"", name.to_uppercase())?;
    let first = line.about.split("\n\n").next().unwrap_or_default().replace('\n', " ");
    let summary = first.split([':', ';']).next().and_then(|part| part.split(". ").next()).unwrap_or_default();
    writeln!(out, ".SH NAME\n{} \\-\n{}", escaped(&name), filled(summary.trim_end_matches('.')))?;
    writeln!(out, ".SH SYNOPSIS\n.B {}\n[\\fIFLAGS\\fR]", escaped(line.name))?;
    if !line.operands.is_empty() {
        writeln!(out, "{}", escaped(line.operands))?;
    }
    out.push_str(".SH DESCRIPTION\n");
    description(&mut out, line.about)?;
    out.push_str(".SH OPTIONS\n");
    for setting in line.settings {
        option(&mut out, setting, line.configurable)?;
    }
    out.push_str(".TP\n.BR \\-h \", \" \\-\\-help\nPrint the flags.\n");
    out.push_str(".TP\n.BR \\-V \", \" \\-\\-version\nPrint the version.\n");
    if line.configurable {
        out.push_str(AGENT_SECTIONS);
    }
    out.push_str(
        ".SH EXIT STATUS\n0 on success; 64 when a flag, a variable or the configuration file is wrong;\n",
    );
    out.push_str("1 when something else went wrong. The reason is on the standard error stream.\n");
    let others = all
        .iter()
        .filter(|other| other.name != line.name)
        .map(|other| format!(".BR {} (1)", escaped(&page_name(other))));
    writeln!(out, ".SH SEE ALSO\n{}", others.collect::<Vec<_>>().join(",\n"))?;
    Ok(out)
}

/// Paragraphs stay paragraphs; indented lines are a table that is left as it is.
fn description(out: &mut String, about: &str) -> std::fmt::Result {
    let mut table = false;
    let mut begun = false;
    for line in about.lines() {
        if line.starts_with("  ") != table {
            table = !table;
            out.push_str(if table { ".PP\n.nf\n" } else { ".fi\n" });
        }
        if line.is_empty() {
            if begun {
                out.push_str(".PP\n");
            }
            continue;
        }
        begun = true;
        writeln!(out, "{}", if table { escaped(line) } else { filled(line) })?;
    }
    if table {
        out.push_str(".fi\n");
    }
    // A paragraph that another follows at once is one too many.
    *out = out.replace(".PP\n.PP\n", ".PP\n");
    Ok(())
}

fn option(out: &mut String, setting: &Setting, configurable: bool) -> std::fmt::Result {
    let value = match setting.takes {
        Takes::Switch => String::new(),
        Takes::Value(shown) | Takes::Number(shown) => format!(" \\fI{}\\fR", escaped(shown)),
        Takes::Optional(shown) => format!(" [\\fI{}\\fR]", escaped(shown)),
        Takes::List(shown) => format!(" \\fI{}\\fR,\\[u2026]", escaped(shown)),
        Takes::Each(shown) => format!(" \\fI{}\\fR \\[u2026]", escaped(shown)),
    };
    let names: Vec<String> = std::iter::once(&setting.name)
        .chain(setting.aliases)
        .map(|name| format!("\\fB\\-\\-{}\\fR", escaped(name)))
        .collect();
    writeln!(out, ".TP\n{}{value}", names.join(", "))?;
    writeln!(out, "{}", filled(setting.help))?;
    if let Some(default) = setting.default.filter(|default| !default.is_empty()) {
        writeln!(out, "The default is {}.", escaped(default))?;
    }
    if configurable {
        write!(out, ".br\nVariable: {}", escaped(&setting.variable()))?;
        if setting.name != "config" {
            write!(out, "; key: {}", escaped(&setting.key()))?;
        }
        out.push_str(".\n");
    }
    Ok(())
}

/// What only the agent's own page has.
const AGENT_SECTIONS: &str = r#".SH CONFIGURATION
Every flag is also a variable of the environment and a key of the configuration
file.
Flags beat the environment, the environment beats the file, the file beats the
board file
.RB ( copepod\-board (1)),
and that beats the defaults.
A list is written with commas, in the file also as a YAML list.
.SH FILES
.TP
.I /etc/copepod/bootstrap.conf
What a new node joins with, when the agent is a service;
.BR copepod\-bootstrap (1)
makes it.
It may be copied there at any time, with mode 0600.
.TP
.I /etc/copepod/copepod.yaml
The configuration file, if it is there.
.TP
.I /etc/copepod/certs.d
Certificate authorities of private registries.
.TP
.I /etc/default/copepod
Variables for the service.
.TP
.I /var/lib/copepod
The data folder: the node\(aqs key and certificates, its kubeconfig, images,
logs of containers.
.SH ENVIRONMENT
.TP
.BR NOTIFY_SOCKET ", " WATCHDOG_USEC ", " WATCHDOG_PID
Set by systemd: the agent tells it when it is ready, what it waits for, and that
it is alive.
.TP
.B SSL_CERT_FILE
The certificate authorities of public registries, in place of the system\(aqs.
.SH SIGNALS
SIGTERM and SIGINT end the agent: its containers stop, and its pods stay bound
to the node.
"#;

/// `/etc/default/copepod`
fn defaults(agent: &CommandLine) -> Result<String, std::fmt::Error> {
    let mut out = String::from(
        "# Settings of the service copepod, as NAME=value; read at its start (systemctl restart copepod).\n\
         # They beat /etc/copepod/copepod.yaml. Lists are written with commas. man copepod tells more.\n",
    );
    for setting in agent.settings {
        let value = match setting.name {
            // What the unit sets.
            "bootstrap-file" => "/etc/copepod/bootstrap.conf",
            _ => setting.default.unwrap_or(shown(setting)),
        };
        comment(&mut out, setting)?;
        writeln!(out, "#{}={value}", setting.variable())?;
    }
    Ok(out)
}

/// An example of `/etc/copepod/copepod.yaml`
fn example(agent: &CommandLine) -> Result<String, std::fmt::Error> {
    let mut out = String::from(
        "# Settings of the agent, every one of them: what is commented out has the value that it has anyway (its\n\
         # default, or the board file's: copepod board shows it), or none. As /etc/copepod/copepod.yaml the file is read at the agent's start. (As a service, the agent has\n\
         # the bootstrap file from its unit: another one is named in /etc/default/copepod.)\n",
    );
    for setting in agent.settings.iter().filter(|setting| setting.name != "config") {
        comment(&mut out, setting)?;
        let value = setting.default.unwrap_or(shown(setting));
        match setting.takes {
            Takes::List(_) => writeln!(out, "#{}: [{value:?}]", setting.key())?,
            _ => writeln!(out, "#{}: {value}", setting.key())?,
        }
    }
    Ok(out)
}

fn shown(setting: &Setting) -> &'static str {
    match setting.takes {
        Takes::Switch => "false",
        Takes::Optional(_) => "true",
        Takes::Value(shown) | Takes::Number(shown) | Takes::List(shown) | Takes::Each(shown) => shown,
    }
}

fn comment(out: &mut String, setting: &Setting) -> std::fmt::Result {
    out.push_str("\n#");
    let mut column = 1;
    for word in setting.help.split_whitespace() {
        if column + word.chars().count() + 1 > WIDTH {
            out.push_str("\n#");
            column = 1;
        }
        write!(out, " {word}")?;
        column += word.chars().count() + 1;
    }
    out.push('\n');
    Ok(())
}

/// The example must be one that the agent takes: with every key that has a default uncommented.
fn check(folder: &Path) -> Result<(), Box<dyn Error>> {
    let text = fs::read_to_string(folder.join("copepod.yaml"))?;
    let agent = copepod::command::lines().next().ok_or("there is no command")?;
    let has_default = |line: &str| {
        let named = agent.settings.iter().find(|setting| line.starts_with(&format!("#{}: ", setting.key())));
        named.is_some_and(|setting| setting.default.is_some())
    };
    let active: String = text
        .lines()
        .map(|line| if has_default(line) { line.trim_start_matches('#') } else { line })
        .flat_map(|line| [line, "\n"])
        .collect();
    let file = folder.join("checked.yaml");
    fs::write(&file, active)?;
    let arguments = ["--config".into(), file.clone().into_os_string()];
    // Of no board, with a GiB of memory.
    let parsed = copepod::config::Values::collect(agent, arguments, |_| None, Path::new("/nowhere"));
    fs::remove_file(&file)?;
    match parsed? {
        copepod::config::Parsed::Run(values) => {
            copepod::config::AgentConfig::from_values(&values, "example", 1 << 30)?;
            Ok(())
        }
        _ => Err("the example is no configuration".into()),
    }
}
