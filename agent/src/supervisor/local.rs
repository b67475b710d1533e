//! A supervisor without an API server: one pod from a file, its events told to a person.

use std::sync::Arc;

use serde_json::Value;

use super::api::{Api, ApiFailure, BoxFuture};
use crate::api::{ConfigMap, ObjectReference, Pod, PodStatus, Secret, Time};
use crate::durable::clock::Now;
use crate::pod::events::EventText;

/// Namespace of a pod whose manifest names none.
const NAMESPACE: &str = "default";

/// Stands in for an API server: takes every status, knows no objects, hands events to `tell`.
pub struct LocalApi {
    tell: Box<dyn Fn(&EventText) + Send + Sync>,
}

impl LocalApi {
    /// `tell` is given each event as it comes; it must not block.
    #[must_use]
    pub fn new(tell: impl Fn(&EventText) + Send + Sync + 'static) -> Arc<LocalApi> {
        Arc::new(LocalApi { tell: Box::new(tell) })
    }
}

fn absent<T: Send + 'static>(kind: &str, name: &str) -> BoxFuture<'static, Result<T, ApiFailure>> {
    let text = format!("{kind} \"{name}\" not found: there is no cluster to ask");
    Box::pin(async move { Err(ApiFailure::NotFound(text)) })
}

impl Api for LocalApi {
    fn patch_status<'a>(
        &'a self,
        _: &'a Pod,
        _: &'a PodStatus,
        _: Value,
    ) -> BoxFuture<'a, Result<(), ApiFailure>> {
        Box::pin(async { Ok(()) })
    }

    fn delete<'a>(&'a self, _: &'a Pod) -> BoxFuture<'a, Result<(), ApiFailure>> {
        Box::pin(async { Ok(()) })
    }

    fn event(&self, _: ObjectReference, event: EventText) {
        (self.tell)(&event);
    }

    fn secret<'a>(&'a self, _: &'a str, name: &'a str) -> BoxFuture<'a, Result<Secret, ApiFailure>> {
        absent("secret", name)
    }

    fn config_map<'a>(&'a self, _: &'a str, name: &'a str) -> BoxFuture<'a, Result<ConfigMap, ApiFailure>> {
        absent("configmap", name)
    }
}

/// Gives a pod from a manifest what an API server would have given it.
#[must_use]
pub fn defaulted(mut pod: Pod, node: &str, now: Now) -> Pod {
    let meta = &mut pod.metadata;
    if meta.name.is_empty() {
        meta.name = if meta.generate_name.is_empty() { "pod".to_owned() } else { meta.generate_name.clone() };
    }
    if meta.namespace.is_empty() {
        NAMESPACE.clone_into(&mut meta.namespace);
    }
    if meta.uid.is_empty() {
        let random = format!("{:032x}", fastrand::u128(..));
        let part = |from: usize, to: usize| random.get(from..to).unwrap_or_default();
        meta.uid = [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-");
    }
    meta.generation = meta.generation.max(1);
    meta.creation_timestamp.get_or_insert_with(|| Time::from(now.wall));
    if pod.spec.restart_policy.is_empty() {
        "Always".clone_into(&mut pod.spec.restart_policy);
    }
    // It was given to this node by hand, whatever it says of others.
    node.clone_into(&mut pod.spec.node_name);
    pod.status = PodStatus::default();
    pod
}
