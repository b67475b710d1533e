//! `copepod push FILE REFERENCE`: stores a module in a registry.

use std::cell::Cell;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use super::Failure;
use crate::config::agent::{INSECURE_REGISTRIES, LOG_LEVEL, REGISTRY_CERTS_DIR};
use crate::config::setting::{CommandLine, Setting, Takes};
use crate::config::{UsageError, Values};
use crate::image::{self, Digest, Format, PushError, Reference, Registries};

/// Columns of the bar itself; with the figures beside it a line of 80 is not filled.
const BAR: u64 = 40;

/// The command line.
pub const COMMAND: CommandLine = CommandLine {
    name: "copepod push",
    operands: "FILE REFERENCE",
    operand_count: (2, 2),
    about: "Pushes a WebAssembly module to a registry, with the logins of Docker's configuration\n\
            (DOCKER_CONFIG, else ~/.docker/config.json), and prints what it can be pulled by.",
    settings: &[
        Setting {
            name: "format",
            aliases: &[],
            takes: Takes::Value("FORMAT"),
            default: Some("wasm-to-oci"),
            help: "Layout in the registry: wasm-to-oci (what Krustlet runs), or cncf (the CNCF's Wasm \
                   artifact).",
            board: false,
        },
        INSECURE_REGISTRIES,
        REGISTRY_CERTS_DIR,
        Setting {
            name: "quiet",
            aliases: &[],
            takes: Takes::Switch,
            default: None,
            help: "No progress bar.",
            board: false,
        },
        LOG_LEVEL,
    ],
    configurable: false,
};

/// Pushes, and prints `registry/repository:tag@digest` on stdout. A bar is drawn on stderr while that is a
/// terminal.
///
/// # Errors
/// [`Failure`]: a reference or format that is none; as [`image::push`]; a login that cannot be read.
pub fn run(values: &Values) -> Result<(), Failure> {
    let format = values.parse("format", |text| match text {
        "wasm-to-oci" => Ok(Format::WasmToOci),
        "cncf" => Ok(Format::Cncf),
        _ => Err("neither wasm-to-oci nor cncf".into()),
    })?;
    let [file, reference] = values.operands.as_slice() else { return Ok(()) };
    let reference = reference.to_string_lossy();
    let reference: Reference = reference
        .parse()
        .map_err(|error| UsageError::Value { origin: reference.into_owned(), problem: format!("{error}") })?;
    let registries = Registries {
        insecure: values.list("insecure-registries").to_vec(),
        certs_dir: values.text("registry-certs-dir").map(PathBuf::from).unwrap_or_default(),
    };
    let format = format.unwrap_or(Format::WasmToOci);
    let failed = |error: &PushError| Failure::Failed(crate::error_chain(error));
    let pushed = push(&registries, file.as_ref(), &reference, format, values.is_on("quiet"))
        .map_err(|e| failed(&e))?;
    // Nobody to read it is no reason to fail: the push is done.
    let _ = writeln!(io::stdout(), "{reference}@{pushed}");
    Ok(())
}

fn push(
    registries: &Registries,
    file: &Path,
    reference: &Reference,
    format: Format,
    quiet: bool,
) -> Result<Digest, PushError> {
    let keyring = image::logins_of_docker(reference).map_err(PushError::Login)?;
    let bar = Bar { shown: !quiet && io::stderr().is_terminal(), percent: Cell::new(None) };
    let draw = |sent, total| bar.draw(sent, total);
    let pushed = image::push(registries, reference, &keyring, file, format, &draw);
    bar.end();
    pushed.map(|pushed| pushed.digest)
}

/// A progress bar: thirty lines instead of indicatif's 107 kB of binary.
struct Bar {
    shown: bool,
    /// As last drawn; a line is drawn again only when it changes.
    percent: Cell<Option<u64>>,
}

impl Bar {
    fn draw(&self, sent: u64, total: u64) {
        let percent = sent.saturating_mul(100).checked_div(total).unwrap_or(100).min(100);
        if self.shown && self.percent.replace(Some(percent)) != Some(percent) {
            let _ = write!(io::stderr(), "\r{}", line(percent, sent, total));
        }
    }

    fn end(&self) {
        if self.shown && self.percent.get().is_some() {
            let _ = writeln!(io::stderr());
        }
    }
}

fn line(percent: u64, sent: u64, total: u64) -> String {
    let full = percent * BAR / 100;
    let bar: String = (0..BAR).map(|column| if column < full { '=' } else { ' ' }).collect();
    let megabytes = |bytes: u64| format!("{}.{:02}", bytes / 1_000_000, bytes % 1_000_000 / 10_000);
    format!("[{bar}] {percent:3} %  {} of {} MB", megabytes(sent), megabytes(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills_with_what_is_sent() {
        assert_eq!(line(0, 0, 2_500_000), format!("[{}]   0 %  0.00 of 2.50 MB", " ".repeat(40)));
        assert_eq!(
            line(50, 1_254_321, 2_500_000),
            format!("[{}{}]  50 %  1.25 of 2.50 MB", "=".repeat(20), " ".repeat(20))
        );
        assert_eq!(line(100, 2_500_000, 2_500_000), format!("[{}] 100 %  2.50 of 2.50 MB", "=".repeat(40)));
    }

    #[test]
    fn an_empty_file_and_a_wrong_count_draw_no_nonsense() {
        let bar = Bar { shown: false, percent: Cell::new(None) };
        bar.draw(0, 0);
        bar.draw(u64::MAX, 1);
        assert_eq!(bar.percent.get(), None);
    }
}
