//! A supervisor without an API server: pods from files, their events told to a person.

use std::sync::Arc;

use serde_json::Value;

use super::api::{Api, ApiFailure, BoxFuture};
use crate::api::{ConfigMap, ObjectReference, Pod, PodStatus, Secret};
use crate::pod::events::EventText;

/// Is given an event, and what it is about.
type Tell = dyn Fn(&ObjectReference, &EventText) + Send + Sync;

/// Stands in for an API server: takes every status, knows no objects, hands events to `tell`.
pub struct LocalApi {
    tell: Box<Tell>,
}

impl LocalApi {
    /// `tell` is given each event as it comes, and what it is about; it must not block.
    #[must_use]
    pub fn new(tell: impl Fn(&ObjectReference, &EventText) + Send + Sync + 'static) -> Arc<LocalApi> {
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

    fn event(&self, about: ObjectReference, event: EventText) {
        (self.tell)(&about, &event);
    }

    fn secret<'a>(&'a self, _: &'a str, name: &'a str) -> BoxFuture<'a, Result<Secret, ApiFailure>> {
        absent("secret", name)
    }

    fn config_map<'a>(&'a self, _: &'a str, name: &'a str) -> BoxFuture<'a, Result<ConfigMap, ApiFailure>> {
        absent("configmap", name)
    }
}
