//! `/exec`, `/attach`, `/portForward` and `/run`.

use http::{Response, StatusCode};

use crate::server::answer::{self, Body};

pub(super) fn not_yet(what: &str) -> Response<Body> {
    let text = format!("{what} is not implemented by this node agent\n");
    answer::text(StatusCode::NOT_IMPLEMENTED, text)
}
