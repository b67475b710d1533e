//! Time as decisions see it: what a person reads, and what has passed.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// One reading of both clocks. Deadlines and back-offs are reckoned on `mono`, which a step of the
/// wall clock (a board that starts in 1970 and then hears from NTP) does not touch; `wall` is only
/// for what people and the API server read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The wall clock, whole seconds being what the API shows.
    pub wall: Timestamp,
    /// Time since an arbitrary start of this process.
    pub mono: Duration,
}

impl Now {
    /// Reads both clocks.
    #[must_use]
    pub fn read() -> Now {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        Now { wall: wall(), mono: START.get_or_init(Instant::now).elapsed() }
    }
}

fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::try_from(SystemTime::UNIX_EPOCH + since).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        fs::File,
        time::{Duration, UNIX_EPOCH},
    };

    use rustix::fs::{memfd_create, MemfdFlags};

    /// With a 32-bit `time_t` in the C library, the standard library's clock panics from 2038 on, and
    /// on every board whose clock starts beyond it.
    #[test]
    fn the_c_library_knows_times_past_2038() {
        let in_2040 = UNIX_EPOCH + Duration::from_secs(2_208_988_800);
        let file = File::from(memfd_create("2040", MemfdFlags::CLOEXEC).unwrap());
        file.set_modified(in_2040).unwrap();
        assert_eq!(file.metadata().unwrap().modified().unwrap(), in_2040);
    }
}
