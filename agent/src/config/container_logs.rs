//! The settings of containers' logs: what they may take of a medium, and of its life.

use std::time::Duration;

use super::agent::{number, parse_number, value};
use super::setting::Setting;
use super::values::{UsageError, Values};
use crate::api::Quantity;
use crate::log;

/// Bytes of a log file, least and most: some entries of the longest kind, and what a reader goes through
/// in seconds.
const LOG_SIZES: (u64, u64) = (64 * 1024, 1024 * 1024 * 1024);
/// Files of a run's log: as for a kubelet, one that is full and one that is written; and so many that
/// a folder can still be listed.
const LOG_FILES: (u32, u32) = (2, 1000);
/// Most KiB that a container's log can be set to take each second: more than any medium does.
const MAX_LOG_RATE: u64 = 1024 * 1024;
/// Longest time that log entries can wait in memory, in seconds: a day.
const MAX_LOG_INTERVAL: u64 = 24 * 60 * 60;

/// `--log-dir`
pub(super) const LOG_DIR: Setting = value(
    "log-dir",
    &[],
    "DIR",
    None,
    "Where containers' logs are kept, by this agent alone [default: DATA-DIR/logs]. In a tmpfs \
     (/run/copepod/logs) they are gone with the next boot, and nothing of them is written to flash.",
)
.of_the_board();

/// `--container-log-max-size`
pub(super) const LOG_MAX_SIZE: Setting = value(
    "container-log-max-size",
    &[],
    "QUANTITY",
    Some("10Mi"),
    "Size at which a container's log goes on in a new file.",
)
.of_the_board();

/// `--container-log-max-files`
pub(super) const LOG_MAX_FILES: Setting = number(
    "container-log-max-files",
    "N",
    Some("5"),
    "Files kept of each run of a container, the one being written included.",
)
.of_the_board();

/// `--log-rate`
pub(super) const LOG_RATE: Setting = number(
    "log-rate",
    "KIB",
    Some("0"),
    "KiB that a container may log each second, averaged over ten seconds. Lines beyond it are dropped, \
     and the log says how many. 0 means no limit.",
)
.of_the_board();

/// `--log-flush-interval`
pub(super) const LOG_FLUSH_INTERVAL: Setting = number(
    "log-flush-interval",
    "SECONDS",
    Some("0"),
    "How long log entries may wait in memory (16 KiB of each container at most), so that flash is \
     written less often; whoever reads a log sees all of it. A power cut loses what waited. 0 means \
     that they do not wait.",
)
.of_the_board();

/// What the values say.
pub(super) fn settings(values: &Values) -> Result<log::Settings, UsageError> {
    let default = log::Settings::default();
    let files = |text: &str| parse_number(text, LOG_FILES.0, LOG_FILES.1);
    let seconds = |text: &str| parse_number(text, 0, MAX_LOG_INTERVAL);
    let rate = values.parse("log-rate", |text| parse_number(text, 0, MAX_LOG_RATE))?;
    Ok(log::Settings {
        max_size: values.parse("container-log-max-size", parse_log_size)?.unwrap_or(default.max_size),
        max_files: values.parse("container-log-max-files", files)?.unwrap_or(default.max_files),
        rate: rate.map_or(default.rate, |rate| rate.saturating_mul(1024)),
        flush_interval: values
            .parse("log-flush-interval", seconds)?
            .map_or(default.flush_interval, Duration::from_secs),
    })
}

fn parse_log_size(text: &str) -> Result<u64, String> {
    let (least, most) = LOG_SIZES;
    let size = Quantity::from(text).value().and_then(|size| u64::try_from(size).ok());
    size.filter(|size| (least..=most).contains(size))
        .ok_or_else(|| "not a size from 64Ki to 1Gi, such as 10Mi".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::PathBuf;

    use super::super::agent::tests::load;
    use super::*;

    #[test]
    fn the_flash_habits_of_logs_come_from_flags_variables_and_file() {
        let file = std::env::temp_dir().join(format!("copepod-config-{:x}.yaml", fastrand::u64(..)));
        std::fs::write(&file, "containerLogMaxSize: 1e6\nlogFlushInterval: 30\nlogDir: /var/log/c\n")
            .unwrap();
        let config = load(
            &["--config", file.to_str().unwrap(), "--log-dir", "/run/copepod/logs", "--data-dir", "/d"],
            &[("COPEPOD_CONTAINER_LOG_MAX_FILES", "2"), ("COPEPOD_LOG_RATE", "64")],
        )
        .unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(config.log_dir, PathBuf::from("/run/copepod/logs"));
        let flush_interval = Duration::from_secs(30);
        let logs = log::Settings { max_size: 1_000_000, max_files: 2, rate: 64 * 1024, flush_interval };
        assert_eq!(config.logs, logs);
        assert_eq!(load(&["--data-dir", "/d"], &[]).unwrap().log_dir, PathBuf::from("/d/logs"));
    }

    #[test]
    fn what_would_harm_or_mean_nothing_is_refused() {
        for (arguments, variables, text) in [
            (vec!["--log-dir", ""], vec![], "--log-dir: \"\""),
            (vec!["--container-log-max-size", "1Ki"], vec![], "from 64Ki to 1Gi"),
            (vec!["--container-log-max-size", "2Gi"], vec![], "from 64Ki to 1Gi"),
            (vec!["--container-log-max-size", "-1"], vec![], "from 64Ki to 1Gi"),
            (vec!["--container-log-max-size", "ten"], vec![], "--container-log-max-size: \"ten\""),
            (vec!["--container-log-max-files", "1"], vec![], "from 2 to 1000"),
            (vec!["--log-rate", "-1"], vec![], "from 0 to 1048576"),
            (vec![], vec![("COPEPOD_LOG_FLUSH_INTERVAL", "1h")], "COPEPOD_LOG_FLUSH_INTERVAL: \"1h\""),
            (vec!["--log-flush-interval", "86401"], vec![], "from 0 to 86400"),
        ] {
            let error = load(&arguments, &variables).unwrap_err().to_string();
            assert!(error.contains(text), "{arguments:?}: {error}");
        }
    }
}
