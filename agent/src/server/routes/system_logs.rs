//! `/logs/`: the machine's own log files, which this agent hands to nobody.

use http::{Response, StatusCode};

use crate::server::answer::{self, Body};

/// What a kubelet answers whose `enableSystemLogHandler` is off.
pub(super) fn disabled() -> Response<Body> {
    answer::text(StatusCode::METHOD_NOT_ALLOWED, "logs endpoint is disabled.\n")
}
