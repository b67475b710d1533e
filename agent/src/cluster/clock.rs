//! The clock that TLS needs: before the cluster's authority began, no certificate of the cluster is valid,
//! and every try to reach it is in vain.

use std::path::Path;

use futures_lite::FutureExt;
use jiff::Timestamp;

use super::kubeconfig::{certificates, Kubeconfig};
use crate::durable::clock::NOT_SET_BEFORE;
use crate::durable::{ClockStep, FileState};
use crate::x509::Certificate;

/// Waits until the clock is late enough for the cluster of a kubeconfig, and says so if it has to. A file
/// that cannot be read is not waited for, and one that is replaced is read again.
pub async fn wait_for_clock(path: &Path, tell: &dyn Fn(&str)) {
    let mut told = None;
    loop {
        let seen = FileState::of(path);
        let Ok(kubeconfig) = Kubeconfig::load(path) else { return };
        let earliest = earliest(kubeconfig.authority.as_deref());
        let step = ClockStep::until(earliest);
        let now = Timestamp::now();
        let Some(problem) = too_early(now, earliest) else {
            if told.is_some() {
                log::info!("the clock was set: it says {now:.0}");
            }
            return;
        };
        if told.replace(earliest) != Some(earliest) {
            log::warn!("{problem}");
        }
        tell(&problem);
        step.wait().or(seen.replaced(path)).await;
    }
}

/// When the first of the authority's certificates begins. (Of several, any may be the one that counts.)
fn earliest(authority: Option<&str>) -> Timestamp {
    let floor = Timestamp::from_second(NOT_SET_BEFORE).unwrap_or_default();
    let begins = |der: &[u8]| Certificate::of(der).ok().map(|certificate| certificate.not_before);
    let all = authority.and_then(|pem| certificates(pem).ok()).unwrap_or_default();
    all.iter().filter_map(|der| begins(der)).min().map_or(floor, |first| first.max(floor))
}

/// What to say about a clock that is not set.
fn too_early(now: Timestamp, earliest: Timestamp) -> Option<String> {
    (now < earliest).then(|| {
        format!(
            "the clock says {now:.0}, before {earliest:.0}, when the cluster's certificates begin to be \
             valid: waiting for it to be set (NTP)"
        )
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn authority(year: i32) -> String {
        let mut params = rcgen::CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(year, 2, 3);
        params.not_after = rcgen::date_time_ymd(year + 10, 2, 3);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn the_clock_is_waited_for_until_the_authority_begins() {
        let both = format!("{}{}", authority(2031), authority(2029));
        for (authority, now, waits) in [
            (None, "1970-01-01T00:00:12Z", true),
            (None, "2024-12-31T23:59:59Z", true),
            (None, "2025-01-01T00:00:00Z", false),
            (Some("no certificate"), "2024-12-31T23:59:59Z", true),
            (Some("no certificate"), "2025-01-01T00:00:00Z", false),
            (Some(authority(2001).as_str()), "2001-02-03T00:00:00Z", true),
            (Some(authority(2001).as_str()), "2025-01-01T00:00:00Z", false),
            (Some(authority(2029).as_str()), "2029-02-02T23:59:59Z", true),
            (Some(authority(2029).as_str()), "2029-02-03T00:00:00Z", false),
            (Some(both.as_str()), "2029-02-02T23:59:59Z", true),
            (Some(both.as_str()), "2029-02-03T00:00:00Z", false),
        ] {
            let problem = too_early(now.parse().unwrap(), earliest(authority));
            assert_eq!(problem.is_some(), waits, "{now}: {problem:?}");
        }
    }

    #[test]
    fn what_is_waited_for_is_said_with_both_times() {
        let now = "1970-01-01T00:00:12.345Z".parse().unwrap();
        let text = too_early(now, earliest(Some(&authority(2029)))).unwrap();
        assert!(
            text.starts_with("the clock says 1970-01-01T00:00:12Z, before 2029-02-03T00:00:00Z, "),
            "{text}"
        );
    }
}
