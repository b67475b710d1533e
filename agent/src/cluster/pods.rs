//! The pods bound to this node: followed, and what becomes of them reported.

use futures_util::future::BoxFuture;
use http::Method;
use serde_json::{json, Value};

use super::client::{Call, Client, Patch};
use super::error::ApiError;
use super::events::Recorder;
use super::watch::{Change, Watcher};
use crate::api::{ConfigMap, Object, ObjectReference, Pod, PodStatus, Secret};
use crate::pod::events::EventText;
use crate::supervisor::{Api, ApiFailure, PodEvent, Supervisor};

/// Tells the supervisor of every pod bound to this node, for ever.
pub async fn follow(client: Client, node: String, supervisor: Supervisor) {
    // A node may list and watch pods with this selector only (Node authorizer, since 1.32).
    let selector = format!("fieldSelector=spec.nodeName%3D{node}");
    let mut watcher: Watcher<Pod> = Watcher::new(client, Pod::collection(None), selector);
    let mut failing = false;
    loop {
        let event = match watcher.next().await {
            Ok(Change::All(pods)) => PodEvent::Set(pods),
            Ok(Change::Applied(pod)) => PodEvent::Applied(Box::new(pod)),
            Ok(Change::Deleted(pod)) => PodEvent::Deleted { uid: pod.metadata.uid },
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    log::error!("following the pods of this node: {error}; trying again, the pods go on");
                }
                continue;
            }
        };
        if std::mem::replace(&mut failing, false) {
            log::info!("following the pods of this node again");
        }
        supervisor.handle(event);
    }
}

/// The API server, as the supervisor uses it.
pub struct PodApi {
    client: Client,
    recorder: Recorder,
}

impl PodApi {
    /// Over this client; events by way of `recorder`.
    #[must_use]
    pub fn new(client: Client, recorder: Recorder) -> PodApi {
        PodApi { client, recorder }
    }
}

impl From<ApiError> for ApiFailure {
    fn from(error: ApiError) -> ApiFailure {
        let text = error.to_string();
        match error.code() {
            Some(404) => ApiFailure::NotFound(text),
            Some(401 | 403) => ApiFailure::Forbidden(text),
            Some(409) => ApiFailure::Conflict(text),
            Some(400 | 422) => ApiFailure::Invalid(text),
            _ => ApiFailure::Unavailable(text),
        }
    }
}

fn path<T: Object>(namespace: &str, name: &str) -> String {
    format!("{}/{name}", T::collection(Some(namespace)))
}

impl Api for PodApi {
    fn patch_status<'a>(
        &'a self,
        pod: &'a Pod,
        _: &'a PodStatus,
        patch: Value,
    ) -> BoxFuture<'a, Result<(), ApiFailure>> {
        let path = format!("{}/status", path::<Pod>(&pod.metadata.namespace, &pod.metadata.name));
        let call = Call::patch(path, Patch::Strategic, &patch).brief();
        Box::pin(async move { Ok(self.client.send(call).await.map(drop)?) })
    }

    fn delete<'a>(&'a self, pod: &'a Pod) -> BoxFuture<'a, Result<(), ApiFailure>> {
        let path = path::<Pod>(&pod.metadata.namespace, &pod.metadata.name);
        let options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": pod.metadata.uid},
        });
        let call = Call::new(Method::DELETE, path).json(&options).brief();
        Box::pin(async move { Ok(self.client.send(call).await.map(drop)?) })
    }

    fn event(&self, about: ObjectReference, event: EventText) {
        self.recorder.record(about, event.kind, &event.reason, &event.message);
    }

    fn secret<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<Secret, ApiFailure>> {
        let call = Call::new(Method::GET, path::<Secret>(namespace, name));
        Box::pin(async move { Ok(self.client.read(call).await?) })
    }

    fn config_map<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<ConfigMap, ApiFailure>> {
        let call = Call::new(Method::GET, path::<ConfigMap>(namespace, name));
        Box::pin(async move { Ok(self.client.read(call).await?) })
    }
}
