//! What the supervisor needs of an API server. `cluster/` has one; [`super::local`] does without.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use event_listener::Event;
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

/// A kind of object that volumes are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectKind {
    /// `v1 ConfigMap`
    ConfigMap,
    /// `v1 Secret`
    Secret,
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectName {
    /// Of which kind.
    pub kind: ObjectKind,
    /// In which namespace.
    pub namespace: String,
    /// metadata.name
    pub name: String,
}

/// Keeps an object followed.
pub type Followed = Arc<dyn Any + Send + Sync>;

/// Which token is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenAsked {
    /// Whom it is for; empty: the API server itself.
    pub audience: String,
    /// How long it is to hold, in seconds.
    pub seconds: Option<i64>,
}

/// A token. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The token itself.
    pub text: String,
    /// How long it holds.
    pub life: Duration,
}

/// Told that something changed; kept until somebody looks.
#[derive(Debug, Default)]
pub struct Signal {
    given: AtomicBool,
    event: Event,
}

impl Signal {
    /// Tells.
    pub fn give(&self) {
        self.given.store(true, Ordering::Release);
        self.event.notify(usize::MAX);
    }

    /// Waits until somebody told.
    pub async fn wait(&self) {
        loop {
            let event = self.event.listen();
            if self.given.swap(false, Ordering::AcqRel) {
                return;
            }
            event.await;
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

    /// A token of a service account of the pod's namespace, bound to the pod (`TokenRequest`).
    fn token<'a>(&'a self, pod: &'a Pod, asked: &'a TokenAsked) -> BoxFuture<'a, Result<Token, ApiFailure>> {
        let _ = (pod, asked);
        let text = "there is no cluster to ask for a token".to_owned();
        Box::pin(async { Err(ApiFailure::NotFound(text)) })
    }

    /// Follows an object as long as what comes back is kept: `changed` is told when there is another version of it,
    /// when it comes and when it goes. Of those who follow the same one, all are told by one watch.
    fn follow(&self, object: &ObjectName, changed: &Arc<Signal>) -> Option<Followed> {
        let _ = (object, changed);
        None
    }

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
