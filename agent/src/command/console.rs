//! `copepod console`, `status`, `pods` and `logs`: what the agent on this machine says of itself, whether its cluster
//! answers or not. They ask it by its socket ([`crate::console`]), and so work for whoever may open its data folder.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::{say, variable, Failure};
use crate::config::agent::{self, parse_console};
use crate::config::board::DEVICE_TREE;
use crate::config::setting::{CommandLine, Setting, Takes};
use crate::config::{Parsed, UsageError, Values};
use crate::console::{client, token};

const DATA_DIR: Setting = Setting {
    name: "data-dir",
    aliases: &[],
    takes: Takes::Value("DIR"),
    default: None,
    help: "The agent's data folder [default: as for copepod, by its variables and its configuration file].",
    board: false,
};
const OUTPUT: Setting = Setting {
    name: "output",
    aliases: &[],
    takes: Takes::Value("FORMAT"),
    default: Some("text"),
    help: "text or json.",
    board: false,
};

/// `copepod console`
pub const CONSOLE: CommandLine = CommandLine {
    name: "copepod console",
    operands: "",
    operand_count: (0, 0),
    about: "Prints the address of this node's page, the token in it. From another machine: \n\
            ssh -L 10248:localhost:10248 NODE, and the same address there.",
    settings: &[DATA_DIR],
    configurable: false,
};

/// `copepod status`
pub const STATUS: CommandLine = CommandLine {
    name: "copepod status",
    operands: "",
    operand_count: (0, 0),
    about: "Says how this node is: its cluster, its certificates, memory, disk and pods.",
    settings: &[OUTPUT, DATA_DIR],
    configurable: false,
};

/// `copepod pods`
pub const PODS: CommandLine = CommandLine {
    name: "copepod pods",
    operands: "",
    operand_count: (0, 0),
    about: "Lists the pods that are bound to this node, as it knows them; with --output json, whole.",
    settings: &[OUTPUT, DATA_DIR],
    configurable: false,
};

/// `copepod logs`
pub const LOGS: CommandLine = CommandLine {
    name: "copepod logs",
    operands: "[NAMESPACE/]POD CONTAINER",
    operand_count: (2, 2),
    about: "Prints what a container on this node has printed.",
    settings: &[
        Setting {
            name: "follow",
            aliases: &[],
            takes: Takes::Switch,
            default: None,
            help: "Wait for more until the container has ended.",
            board: false,
        },
        Setting {
            name: "previous",
            aliases: &[],
            takes: Takes::Switch,
            default: None,
            help: "Of the run before this one.",
            board: false,
        },
        Setting {
            name: "tail",
            aliases: &[],
            takes: Takes::Number("LINES"),
            default: None,
            help: "The last lines alone.",
            board: false,
        },
        Setting {
            name: "timestamps",
            aliases: &[],
            takes: Takes::Switch,
            default: None,
            help: "The time before each line.",
            board: false,
        },
        DATA_DIR,
    ],
    configurable: false,
};

/// Prints the page's address.
///
/// # Errors
/// [`Failure`]
pub fn console(values: &Values) -> Result<(), Failure> {
    let agent = agent_values()?;
    let port = agent.parse("console", parse_console)?.flatten();
    let Some(port) = port else {
        return Err(Failure::Failed(
            "it is off: start copepod with --console, or put console: true into its \
                                    configuration file"
                .to_owned(),
        ));
    };
    let token = token::read(&data_dir(values)?).map_err(|error| Failure::Failed(error.to_string()))?;
    say(&format!("http://localhost:{port}/?token={token}\n"))
}

/// Prints how the node is.
///
/// # Errors
/// [`Failure`]
pub fn status(values: &Values) -> Result<(), Failure> {
    ask(values, &formatted("/status", values)?)
}

/// Prints the pods.
///
/// # Errors
/// [`Failure`]
pub fn pods(values: &Values) -> Result<(), Failure> {
    ask(values, &formatted("/pods", values)?)
}

/// Prints a log.
///
/// # Errors
/// [`Failure`]
pub fn logs(values: &Values) -> Result<(), Failure> {
    let [pod, container] = values.operands.as_slice() else { return Ok(()) };
    let (pod, container) = (pod.to_string_lossy(), container.to_string_lossy());
    let (namespace, pod) = pod.split_once('/').unwrap_or(("default", &pod));
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    if ![namespace, pod, &container].into_iter().all(plain) {
        let problem = "it is no name of a pod and a container".to_owned();
        return Err(UsageError::Value { origin: format!("{namespace}/{pod} {container}"), problem }.into());
    }
    let mut path = format!("/logs/{namespace}/{pod}/{container}?");
    for switch in ["follow", "previous", "timestamps"] {
        if values.is_on(switch) {
            path.push_str(&format!("{switch}=true&"));
        }
    }
    if let Some(lines) =
        values.parse("tail", |text| text.parse::<u64>().map_err(|error| error.to_string()))?
    {
        path.push_str(&format!("tailLines={lines}"));
    }
    ask(values, &path)
}

fn formatted(path: &str, values: &Values) -> Result<String, UsageError> {
    let format = values.parse("output", |text| match text {
        "text" => Ok("text"),
        "json" => Ok("json"),
        _ => Err("neither text nor json".to_owned()),
    })?;
    Ok(format!("{path}?format={}", format.unwrap_or("text")))
}

fn ask(values: &Values, path: &str) -> Result<(), Failure> {
    client::ask(&data_dir(values)?, path, &mut io::stdout().lock()).map_err(Failure::Failed)
}

fn data_dir(values: &Values) -> Result<PathBuf, UsageError> {
    let given = values.text("data-dir").map(str::to_owned);
    let folder = match given {
        Some(folder) => folder,
        None => agent_values()?.text("data-dir").unwrap_or_default().to_owned(),
    };
    Ok(PathBuf::from(folder))
}

/// The agent's own settings, as it would find them without a flag.
fn agent_values() -> Result<Values, UsageError> {
    match Values::collect(&agent::COMMAND, Vec::<OsString>::new(), variable, Path::new(DEVICE_TREE))? {
        Parsed::Run(values) => Ok(values),
        Parsed::Help | Parsed::Version => Ok(Values::default()),
    }
}
