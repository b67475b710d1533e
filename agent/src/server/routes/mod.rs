//! Which route answers, once it is settled that the client may ask.

mod configz;
mod container_logs;
mod healthz;
mod metrics;
mod pods;
mod streams;
mod system_logs;

use http::{Method, Response};

use super::answer::{method_not_allowed, not_found, Body};
use super::Server;

pub(super) use container_logs::MAX_LOG_STREAMS;

pub(super) async fn answer(
    server: &Server,
    method: &Method,
    path: &str,
    query: Option<&str>,
) -> Response<Body> {
    let query = query.unwrap_or_default();
    let is_folder = path.ends_with('/');
    let path = path.strip_suffix('/').unwrap_or(path).strip_prefix('/').unwrap_or_default();
    let segments: Vec<&str> = path.split('/').collect();
    let pods = server.context.pods.as_ref();
    match (segments.as_slice(), method) {
        (["containerLogs", namespace, pod, container], &Method::GET) => {
            container_logs::get(server, namespace, pod, container, query).await
        }
        (["healthz"], &Method::GET) => healthz::all(query),
        (["healthz", check], &Method::GET) => healthz::one(check),
        (["pods"], &Method::GET) => pods::get(pods),
        (["runningpods"], &Method::GET) => pods::running(pods),
        (["configz"], &Method::GET) => configz::get(&server.context.configz),
        (["metrics"], &Method::GET) => metrics::text(crate::metrics::agent(&pods.figures())),
        (["metrics", "resource"], &Method::GET) => metrics::text(crate::metrics::resource(&pods.figures())),
        (["metrics", "cadvisor"], &Method::GET) => metrics::text(crate::metrics::cadvisor(&pods.figures())),
        (["metrics", "probes"], &Method::GET) => metrics::text(crate::metrics::probes(&pods.figures())),
        (["stats", "summary"], &Method::GET) => metrics::summary(pods, &server.rates, query),
        (["logs", below @ ..], &Method::GET) => system_logs::get(server, below, is_folder).await,
        (["exec" | "attach", _, _, _] | ["exec" | "attach", _, _, _, _], &Method::GET | &Method::POST) => {
            streams::not_yet(segments.first().copied().unwrap_or_default())
        }
        (["portForward", _, _] | ["portForward", _, _, _], &Method::GET | &Method::POST) => {
            streams::not_yet("portForward")
        }
        (["run", _, _, _] | ["run", _, _, _, _], &Method::POST) => streams::not_yet("run"),
        (["healthz" | "pods" | "runningpods" | "configz" | "metrics"], _)
        | (["healthz", _] | ["metrics", "resource" | "cadvisor" | "probes"] | ["stats", "summary"], _) => {
            method_not_allowed("GET")
        }
        (["containerLogs", _, _, _] | ["logs", ..], _) => method_not_allowed("GET"),
        _ => not_found(),
    }
}
