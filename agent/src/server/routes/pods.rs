//! `/pods` and `/runningpods/`: v1 PodLists.

use http::Response;
use serde::Serialize;

use crate::api::Pod;
use crate::server::answer::{self, Body};
use crate::server::PodsView;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PodList<'p> {
    kind: &'static str,
    api_version: &'static str,
    metadata: Metadata,
    items: &'p [Pod],
}

#[derive(Serialize)]
struct Metadata {}

/// All pods of the node.
pub fn get(pods: &dyn PodsView) -> Response<Body> {
    list(&pods.pods())
}

pub(super) fn running(pods: &dyn PodsView) -> Response<Body> {
    let mut pods = pods.pods();
    pods.retain(|pod| pod.status.phase == "Running");
    list(&pods)
}

fn list(items: &[Pod]) -> Response<Body> {
    answer::json(&PodList { kind: "PodList", api_version: "v1", metadata: Metadata {}, items })
}
