//! Which route answers, once it is settled that the client may ask.

mod configz;
pub mod container_logs;
mod healthz;
mod metrics;
pub mod pods;
mod streams;
mod system_logs;

use http::{Method, Response};

use super::answer::{method_not_allowed, not_found, Body};
use super::connection::Asking;
use super::view::PodName;
use super::Server;

pub(super) use container_logs::MAX_LOG_STREAMS;

pub(super) async fn answer(server: &Server, asking: &mut Asking<'_>, path: &str) -> Response<Body> {
    let (method, uri) = (asking.request.method().clone(), asking.request.uri().clone());
    let query = uri.query().unwrap_or_default();
    let is_folder = path.ends_with('/');
    let path = path.strip_suffix('/').unwrap_or(path).strip_prefix('/').unwrap_or_default();
    let segments: Vec<&str> = path.split('/').collect();
    let pods = server.context.pods.as_ref();
    match (segments.as_slice(), &method) {
        (["containerLogs", namespace, pod, container], &Method::GET) => {
            let sources =
                container_logs::Sources { pods, logs: &server.context.logs, turns: &server.log_streams };
            container_logs::get(sources, namespace, pod, container, query).await
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
        (["exec", pod @ .., container], &Method::GET | &Method::POST) if is_pod(pod) => {
            streams::exec(server, asking, &name(pod), container, query)
        }
        (["attach", pod @ .., container], &Method::GET | &Method::POST) if is_pod(pod) => {
            streams::attach(server, asking, &name(pod), container, query)
        }
        (["portForward", pod @ ..], &Method::GET | &Method::POST) if is_pod(pod) => {
            streams::port_forward(server, asking, name(pod), query)
        }
        (["run", _, _, _] | ["run", _, _, _, _], &Method::POST) => streams::not_offered("run"),
        (["healthz" | "pods" | "runningpods" | "configz" | "metrics"], _)
        | (["healthz", _] | ["metrics", "resource" | "cadvisor" | "probes"] | ["stats", "summary"], _) => {
            method_not_allowed("GET")
        }
        (["containerLogs", _, _, _] | ["logs", ..], _) => method_not_allowed("GET"),
        (["exec" | "attach", pod @ .., _], _) if is_pod(pod) => method_not_allowed("GET, POST"),
        (["portForward", pod @ ..], _) if is_pod(pod) => method_not_allowed("GET, POST"),
        _ => not_found(),
    }
}

/// `{namespace}/{pod}`, and perhaps `/{uid}`.
fn is_pod(segments: &[&str]) -> bool {
    (2..=3).contains(&segments.len())
}

fn name(segments: &[&str]) -> PodName {
    let segment = |at: usize| segments.get(at).map(|segment| (*segment).to_owned());
    let part = |at| segment(at).unwrap_or_default();
    PodName { namespace: part(0), name: part(1), uid: segment(2) }
}
