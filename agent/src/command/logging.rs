//! The agent's own log: to stderr, one line a record.

use std::io::Write;

use log::{Level, LevelFilter};

use crate::config::{UsageError, Values};

/// Starts the log at `--log-level`. Other crates speak one level less, and never at trace, where a registry
/// client would tell its logins.
pub fn start(values: &Values) -> Result<(), UsageError> {
    let level = values.parse("log-level", |text| {
        text.parse::<LevelFilter>().map_err(|_| "none of error, warn, info, debug, trace".to_owned())
    })?;
    let level = level.unwrap_or(LevelFilter::Warn);
    let others = match level {
        LevelFilter::Trace => LevelFilter::Debug,
        LevelFilter::Debug => LevelFilter::Info,
        _ => LevelFilter::Warn,
    };
    // systemd sets this when stderr is the journal, which then reads a level from each line.
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let started = env_logger::Builder::new()
        .filter_level(others)
        .filter_module("copepod", level)
        .format(move |line, record| {
            if journal {
                writeln!(line, "<{}>{}", journal_level(record.level()), record.args())
            } else {
                let now = jiff::Timestamp::now();
                writeln!(line, "{now:.3} {:5} {}", record.level(), record.args())
            }
        })
        .try_init();
    // A second start (tests in one process) keeps the first one's level.
    drop(started);
    Ok(())
}

/// sd-daemon(3)
fn journal_level(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}
