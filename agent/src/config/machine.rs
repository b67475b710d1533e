//! Whose what of the machine is: its memory, its folders and devices.

use std::path::{Component, PathBuf};

use super::agent::parse_number;
use super::values::{UsageError, Values};

/// Most memory that a setting can name, in MiB: 1 TiB, far from where the arithmetic would end.
const MAX_MEMORY: u64 = 1024 * 1024;
/// Folders and devices of the host in a list: each is some lines of the service's drop-in.
const MAX_HOST_PATHS: usize = 64;
/// Bytes of a MiB.
pub const MIB: u64 = 1024 * 1024;

/// What is reserved of the machine's `memory`, and the ceiling of all guests together, in bytes. A `memory`
/// of 0 is not known.
///
/// # Errors
/// A setting that is no number, or as much as the machine has.
pub fn share_memory(values: &Values, memory: u64) -> Result<(u64, u64), UsageError> {
    let read = |name: &str, least| {
        let number = values.parse(name, |text| parse_number(text, least, MAX_MEMORY))?;
        let bytes = number.map(|number| number.saturating_mul(MIB));
        if bytes.is_some_and(|bytes| memory != 0 && bytes >= memory) {
            let has = memory / MIB;
            return Err(values.refuse(name, &format!("this machine has {has} MiB of memory: name fewer MiB")));
        }
        Ok(bytes)
    };
    let reserved = read("memory-reserved", 0)?.unwrap_or(0);
    let rest = if memory == 0 { u64::MAX } else { memory.saturating_sub(reserved) };
    let guests = read("guest-memory", 1)?.unwrap_or(rest);
    if guests > rest {
        let problem = format!(
            "of this machine's {} MiB of memory {} MiB are reserved (--memory-reserved): name {} MiB or less",
            memory / MIB,
            reserved / MIB,
            rest / MIB
        );
        return Err(values.refuse("guest-memory", &problem));
    }
    Ok((reserved, guests))
}

/// `--host-paths`.
///
/// # Errors
/// The path that is none, or that they are too many.
pub fn parse_host_paths(values: &Values) -> Result<Vec<PathBuf>, UsageError> {
    let paths = values.parse_list("host-paths", parse_host_path)?;
    if paths.len() > MAX_HOST_PATHS {
        let origin = values.origin("host-paths").unwrap_or_default().to_owned();
        let problem = format!("{} paths, and {MAX_HOST_PATHS} are taken at most", paths.len());
        return Err(UsageError::Value { origin, problem });
    }
    Ok(paths)
}

/// A path as it stands on the host, that means the same to systemd and to a later check of a volume.
///
/// # Errors
/// What is wrong with it.
pub fn parse_host_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let named = path.components().skip(1).all(|part| matches!(part, Component::Normal(_)));
    if !path.is_absolute() || !named || path.parent().is_none() || text.contains(char::is_control) {
        return Err("not an absolute path below /, without .. and control characters".into());
    }
    // Without a slash at the end, and none twice.
    Ok(path.components().collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::config::agent::{AgentConfig, COMMAND};
    use crate::config::values::Parsed;
    use std::ffi::OsString;
    use std::path::Path;

    fn load(arguments: &[&str]) -> Result<AgentConfig, UsageError> {
        let arguments = arguments.iter().map(OsString::from);
        match Values::collect(&COMMAND, arguments, |_| None, Path::new("/nowhere"))? {
            Parsed::Run(values) => AgentConfig::from_values(&values, "n", 512 * MIB),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn memory_is_shared_between_the_system_and_the_guests() {
        for (arguments, reserved, guests) in [
            (vec!["--memory-reserved=112"], 112, 400),
            (vec!["--memory-reserved=112", "--guest-memory=300"], 112, 300),
            (vec!["--guest-memory", "511"], 0, 511),
        ] {
            let config = load(&arguments).unwrap();
            let expected = (reserved * MIB, guests * MIB);
            assert_eq!((config.memory_reserved, config.guest_memory), expected, "{arguments:?}");
            assert_eq!(config.runtime().guest_memory, guests * MIB);
        }
    }

    #[test]
    fn host_paths_stand_as_systemd_reads_them() {
        let config = load(&["--host-paths", "/dev//gpiochip0,/srv/data/", "--watchdog-device=none"]);
        let config = config.unwrap();
        assert_eq!(config.host_paths, [PathBuf::from("/dev/gpiochip0"), "/srv/data".into()]);
        assert_eq!(config.host_paths.iter().map(|p| p.as_os_str().len()).collect::<Vec<_>>(), [14, 9]);
        assert_eq!(config.watchdog_device, None);
        let watched = load(&["--watchdog-device", "/dev/watchdog"]).unwrap();
        assert_eq!(watched.watchdog_device, Some("/dev/watchdog".into()));
    }

    #[test]
    fn what_the_machine_has_not_is_refused() {
        let many = ["/x"; MAX_HOST_PATHS + 1].join(",");
        for (arguments, text) in [
            (["--memory-reserved", "512"], "--memory-reserved: \"512\": this machine has 512 MiB"),
            (["--memory-reserved", "-1"], "--memory-reserved: \"-1\": not a whole number"),
            (["--guest-memory", "600"], "--guest-memory: \"600\": this machine has 512 MiB"),
            (
                ["--memory-reserved=112", "--guest-memory=401"],
                "--guest-memory: \"401\": of this machine's 512 MiB of memory 112 MiB are reserved",
            ),
            (["--guest-memory", "0"], "--guest-memory: \"0\": not a whole number from 1"),
            (["--host-paths", "/srv,/"], "--host-paths: \"/\": not an absolute path"),
            (["--host-paths", "/srv/../etc"], "--host-paths: \"/srv/../etc\""),
            (["--host-paths", "/a\tb"], "--host-paths: \"/a\\tb\""),
            (["--host-paths", &many], "--host-paths: 65 paths, and 64 are taken at most"),
            (["--watchdog-device", "watchdog"], "--watchdog-device: \"watchdog\""),
        ] {
            let error = load(&arguments).unwrap_err().to_string();
            assert!(error.contains(text), "{arguments:?}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
