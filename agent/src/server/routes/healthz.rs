//! `/healthz` and its parts `ping`, `log` and `syncloop`, in the form of the API server's own.

use std::fmt::Write;

use http::{Response, StatusCode};

use crate::server::answer::{self, not_found, Body};
use crate::server::request::Query;

/// In the kubelet's order. That they are answered at all is what they tell: the pods' lifecycles and this
/// server share one thread, and where that hangs there is no answer.
const CHECKS: [&str; 3] = ["ping", "log", "syncloop"];

pub(super) fn all(query: &str) -> Response<Body> {
    let verbose = Query::parse(query).is_some_and(|query| query.get("verbose").is_some());
    if !verbose {
        return answer::text(StatusCode::OK, "ok");
    }
    let mut lines = String::new();
    for check in CHECKS {
        let _ = writeln!(lines, "[+]{check} ok");
    }
    answer::text(StatusCode::OK, lines + "healthz check passed\n")
}

pub(super) fn one(check: &str) -> Response<Body> {
    match CHECKS.contains(&check) {
        true => answer::text(StatusCode::OK, "ok"),
        false => not_found(),
    }
}
