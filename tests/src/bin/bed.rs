//! Runs a command in a fresh bed and ends with its exit code; without one, an interactive shell.
//!
//! ```text
//! tests/bed                         a shell in a cluster of its own
//! tests/bed -- kubectl get ns       one command
//! tests/bed --registries -- bash -c 'wasm-to-oci push x.wasm registry.test:5000/x:v1'
//! ```
//!
//! What the command finds, besides what [`tests::Bed::command`] says: `BED_DIR` (the bed's folder,
//! which goes with it, logs in `logs/`), `BED_CA` (the cluster's authority), `SERVER` (the API
//! server's URL), and it starts where `tests/bed` was typed.

use std::process::ExitCode;

use tests::{agent, tools, Bed};

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let registries = arguments.first().is_some_and(|argument| argument == "--registries");
    if registries {
        arguments.remove(0);
    }
    if arguments.first().is_some_and(|argument| argument == "--") {
        arguments.remove(0);
    }
    if arguments.is_empty() {
        arguments.push("bash".into());
    }
    let bed = Bed::start();
    if registries {
        bed.registry_tls();
        bed.registry_plain();
    }
    if tools::target().join("release/copepod").exists() || std::env::var_os("COPEPOD_BIN").is_some() {
        agent::provide(&bed);
    }
    let here = std::env::current_dir().unwrap_or_else(|_| tools::root());
    let mut command = bed.command_in(&arguments[0], &here);
    command.args(&arguments[1..]);
    command.env("BED_DIR", bed.folder()).env("SERVER", bed.server());
    command.env("BED_CA", &bed.cluster().authority.certificate);
    match command.status() {
        Ok(status) => ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
        Err(e) => {
            eprintln!("cannot run {} by nsenter: {e}", arguments[0]);
            ExitCode::FAILURE
        }
    }
}
