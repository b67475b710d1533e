//! `/pods` and `/runningpods/`: v1 PodLists.

use http::Response;

use crate::server::answer::{self, Body};
use crate::server::PodsView;

pub(super) fn get(pods: &dyn PodsView) -> Response<Body> {
    answer::json(&pods.pods())
}

pub(super) fn running(pods: &dyn PodsView) -> Response<Body> {
    answer::json(&pods.running_pods())
}
