//! `/configz`: the settings that this node runs with.

use http::Response;
use serde_json::Value;

use crate::server::answer::{self, Body};

pub(super) fn get(configz: &Value) -> Response<Body> {
    answer::json(configz)
}
