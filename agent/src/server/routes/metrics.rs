//! `/metrics`, its parts, and `/stats/summary`.

use http::{Response, StatusCode};

use crate::metrics::{self, Rates, CONTENT_TYPE};
use crate::server::answer::{self, Body};
use crate::server::request::Query;
use crate::server::PodsView;

pub(super) fn text(text: String) -> Response<Body> {
    answer::typed(StatusCode::OK, CONTENT_TYPE, text)
}

pub(super) fn summary(pods: &dyn PodsView, rates: &Rates, query: &str) -> Response<Body> {
    let brief = Query::parse(query).is_some_and(|query| query.is_set("only_cpu_and_memory"));
    answer::json(&metrics::summary(&pods.figures(), rates, brief))
}
