//! `/healthz` and its parts `ping`, `log` and `syncloop`, in the form of the API server's own.

use std::fmt::Write;

use http::{Response, StatusCode};

use crate::server::answer::{self, not_found, Body};
use crate::server::request::Query;
use crate::server::PodsView;

/// In the kubelet's order. That `ping` and `log` are answered at all is what they tell.
const CHECKS: [&str; 3] = ["ping", "log", "syncloop"];

pub(super) fn all(pods: &dyn PodsView, query: &str) -> Response<Body> {
    let mut lines = String::new();
    let mut healthy = true;
    for check in CHECKS {
        let passed = passes(pods, check);
        healthy &= passed;
        let _ = match passed {
            true => writeln!(lines, "[+]{check} ok"),
            false => writeln!(lines, "[-]{check} failed: reason withheld"),
        };
    }
    let verbose = Query::parse(query).is_some_and(|query| query.get("verbose").is_some());
    match (healthy, verbose) {
        (false, _) => answer::text(StatusCode::INTERNAL_SERVER_ERROR, lines + "healthz check failed\n"),
        (true, true) => answer::text(StatusCode::OK, lines + "healthz check passed\n"),
        (true, false) => answer::text(StatusCode::OK, "ok"),
    }
}

pub(super) fn one(pods: &dyn PodsView, check: &str) -> Response<Body> {
    match CHECKS.contains(&check) {
        false => not_found(),
        true if passes(pods, check) => answer::text(StatusCode::OK, "ok"),
        true => answer::text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("internal server error: the {check} check failed\n"),
        ),
    }
}

fn passes(pods: &dyn PodsView, check: &str) -> bool {
    let outcome = if check == "syncloop" { pods.healthy() } else { Ok(()) };
    outcome.inspect_err(|reason| log::debug!("the {check} check of /healthz failed: {reason}")).is_ok()
}
