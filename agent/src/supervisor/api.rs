//! What the supervisor needs of an API server. `cluster/` has one; [`super::local`] does without.

use std::future::Future;
use std::pin::Pin;

use serde_json::Value;

use crate::api::{ConfigMap, ObjectReference, Pod, PodStatus, Secret, Service};
use crate::pod::events::EventText;

/// A future that a trait can return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why the API server did not do what it was asked, as far as it decides what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiFailure {
    /// 404: there is no such object.
    #[error("{0}")]
    NotFound(String),
    /// 401 or 403: not allowed, perhaps not yet.
    #[error("{0}")]
    Forbidden(String),
    /// 409: the object is not the one that was meant (another UID), or changed meanwhile.
    #[error("{0}")]
    Conflict(String),
    /// 400 or 422: it will never do this.
    #[error("{0}")]
    Invalid(String),
    /// 429, 5xx, no answer: later perhaps.
    #[error("{0}")]
    Unavailable(String),
}

impl ApiFailure {
    /// The object that was meant is not there: nothing has its name, or what has is another.
    ///
    /// A 409 has many causes, and only the text tells this one (`apiserver/pkg/storage`, Preconditions.Check).
    #[must_use]
    pub fn means_gone(&self) -> bool {
        match self {
            ApiFailure::NotFound(_) => true,
            ApiFailure::Conflict(text) => text.contains("UID in precondition"),
            _ => false,
        }
    }
}

/// An API server, or something that stands in for it.
pub trait Api: Send + Sync {
    /// Patches `pods/status` with a strategic merge patch that has the UID as precondition.
    /// `status` is the whole of what the patch leads to.
    fn patch_status<'a>(
        &'a self,
        pod: &'a Pod,
        status: &'a PodStatus,
        patch: Value,
    ) -> BoxFuture<'a, Result<(), ApiFailure>>;

    /// Deletes the pod's object: grace 0, the UID as precondition.
    fn delete<'a>(&'a self, pod: &'a Pod) -> BoxFuture<'a, Result<(), ApiFailure>>;

    /// Queues an event. Never waits; what does not fit is lost.
    fn event(&self, about: ObjectReference, event: EventText);

    /// A Secret.
    fn secret<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<Secret, ApiFailure>>;

    /// A ConfigMap.
    fn config_map<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<ConfigMap, ApiFailure>>;

    /// The services that containers of this namespace are told of: `default/kubernetes`, and with `links`
    /// (`enableServiceLinks`) all of the namespace. None where nobody keeps them.
    fn services<'a>(
        &'a self,
        namespace: &'a str,
        links: bool,
    ) -> BoxFuture<'a, Result<Vec<Service>, ApiFailure>> {
        let _ = (namespace, links);
        Box::pin(async { Ok(Vec::new()) })
    }
}
