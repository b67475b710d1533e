//! The pods bound to this node: followed, and what becomes of them reported.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_lock::OnceCell;
use futures_util::future::BoxFuture;
use http::Method;
use serde::Deserialize;
use serde_json::{json, Value};

use super::client::{Call, Client, Patch, MAX_LIST};
use super::error::{ApiError, Outage};
use super::events::Recorder;
use super::mirrors::Mirrors;
use super::objects::Objects;
use super::registration::{self, Registered};
use super::watch::{Change, Watcher};
use crate::api::{
    BoundObjectReference, ConfigMap, ListMeta, Object, ObjectReference, Pod, PodStatus, Secret, Service,
    TokenRequest, TokenRequestSpec, Typed,
};
use crate::durable::clock::Now;
use crate::pod::admission::admit;
use crate::pod::events::EventText;
use crate::pod::is_static;
use crate::pod::node::NodeFacts;
use crate::pod::services::{MASTER_NAMESPACE, MASTER_SERVICE};
use crate::supervisor::{
    Api, ApiFailure, Followed, ObjectName, PodEvent, Signal, Supervisor, Token, TokenAsked,
};

/// Tells the supervisor of every pod bound to this node, for ever.
///
/// Before a pod that this node would refuse, the Node is read: the scheduler went by the labels and taints
/// that it has by now. (A kubelet does the same before it rejects a pod.) They are not watched: a watch would
/// say each status of our own back to us.
pub async fn follow(client: Client, mut facts: NodeFacts, supervisor: Supervisor, mirrors: Arc<Mirrors>) {
    // A node may list and watch pods with this selector only (Node authorizer, since 1.32).
    let selector = format!("fieldSelector=spec.nodeName%3D{}", facts.name);
    let mut watcher: Watcher<Pod> = Watcher::new(client.clone(), Pod::collection(None), selector).streaming();
    let mut outage = Outage::default();
    loop {
        let event = match watcher.next().await {
            Ok(Change::All(pods)) => PodEvent::Set(pods),
            Ok(Change::Applied(pod)) => PodEvent::Applied(Box::new(pod)),
            Ok(Change::Deleted(pod)) => PodEvent::Deleted { uid: pod.metadata.uid },
            // Too old a version, after an outage: the next call lists.
            Err(error) if error.is(410) => continue,
            Err(error) => {
                outage.report("following the pods of this node (those that run go on)", &error);
                continue;
            }
        };
        outage.over("following the pods of this node");
        if brings_misfit(&event, &facts) {
            match registration::read(&client, &facts.name).await {
                Ok(Registered { labels, taints, .. }) => {
                    facts = NodeFacts { labels, taints, ..facts };
                    supervisor.set_node(facts.clone());
                }
                Err(error) => {
                    log::warn!("reading this node's labels and taints: {error}; the last known hold")
                }
            }
        }
        for told in mirrors.see(&event) {
            supervisor.handle(told);
        }
        supervisor.handle(event);
    }
}

/// Whether there is a pod that this node has not accepted yet, and would not.
fn brings_misfit(event: &PodEvent, facts: &NodeFacts) -> bool {
    let misfit = |pod: &Pod| {
        pod.status.start_time.is_none()
            && pod.metadata.deletion_timestamp.is_none()
            && admit(pod, facts, &[]).is_err()
    };
    match event {
        PodEvent::Set(pods) => pods.iter().any(misfit),
        PodEvent::Applied(pod) => misfit(pod),
        _ => false,
    }
}

/// Events that wait until the cluster is joined.
const MAX_EARLY: usize = 256;

/// The API server, as the supervisor uses it: away until the cluster is joined, as pods may run before that.
#[derive(Default)]
pub struct PodApi {
    recorder: OnceLock<Recorder>,
    client: Arc<OnceCell<Client>>,
    objects: Objects,
    /// Events from before that, the first of them.
    early: Mutex<Vec<(Now, ObjectReference, EventText)>>,
    mirrors: Arc<Mirrors>,
}

impl PodApi {
    /// What the API server has of this node's static pods.
    #[must_use]
    pub fn mirrors(&self) -> Arc<Mirrors> {
        self.mirrors.clone()
    }

    /// The cluster is joined: it is spoken to by this client, and told of events by way of `recorder`.
    pub fn join(&self, client: Client, recorder: Recorder) {
        let late = recorder.clone();
        let _joined_once = self.client.set_blocking(client).is_ok() && self.recorder.set(recorder).is_ok();
        let early = std::mem::take(&mut *self.early.lock().unwrap_or_else(PoisonError::into_inner));
        for (at, about, event) in early {
            late.record_at(at, about, event.kind, &event.reason, &event.message);
        }
    }

    fn client(&self) -> Result<&Client, ApiFailure> {
        let not_yet = || ApiFailure::Unavailable("the cluster is not joined yet".to_owned());
        self.client.get().ok_or_else(not_yet)
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
        mut patch: Value,
    ) -> BoxFuture<'a, Result<(), ApiFailure>> {
        if is_static(pod) {
            let Some(uid) = self.mirrors.uid_of(pod) else {
                let text = "the API server has no mirror of this static pod yet".to_owned();
                return Box::pin(async { Err(ApiFailure::Unavailable(text)) });
            };
            if let Some(precondition) = patch.pointer_mut("/metadata/uid") {
                *precondition = Value::String(uid);
            }
        }
        let path = format!("{}/status", path::<Pod>(&pod.metadata.namespace, &pod.metadata.name));
        let call = Call::patch(path, Patch::Strategic, &patch).brief();
        Box::pin(async move { Ok(self.client()?.send(call).await.map(drop)?) })
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
        Box::pin(async move { Ok(self.client()?.send(call).await.map(drop)?) })
    }

    fn event(&self, about: ObjectReference, event: EventText) {
        if let Some(recorder) = self.recorder.get() {
            recorder.record(about, event.kind, &event.reason, &event.message);
            return;
        }
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        if early.len() < MAX_EARLY {
            early.push((Now::read(), about, event));
        }
    }

    fn secret<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<Secret, ApiFailure>> {
        let call = Call::new(Method::GET, path::<Secret>(namespace, name));
        Box::pin(async move { Ok(self.client()?.read(call).await?) })
    }

    fn config_map<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<ConfigMap, ApiFailure>> {
        let call = Call::new(Method::GET, path::<ConfigMap>(namespace, name));
        Box::pin(async move { Ok(self.client()?.read(call).await?) })
    }

    fn token<'a>(&'a self, pod: &'a Pod, asked: &'a TokenAsked) -> BoxFuture<'a, Result<Token, ApiFailure>> {
        Box::pin(async move { token(self.client()?, pod, asked).await })
    }

    fn follow(&self, object: &ObjectName, changed: &Arc<Signal>) -> Option<Followed> {
        Some(self.objects.follow(&self.client, object, changed))
    }

    fn services<'a>(
        &'a self,
        namespace: &'a str,
        links: bool,
    ) -> BoxFuture<'a, Result<Vec<Service>, ApiFailure>> {
        Box::pin(async move { Ok(services(self.client()?, namespace, links).await?) })
    }
}

/// Life of a token that the API server does not tell, in seconds (`DefaultExpirationSeconds`).
const TOKEN_SECONDS: i64 = 3600;

/// Asks for a token, bound to the pod: the API server gives a node no other (NodeRestriction).
async fn token(client: &Client, pod: &Pod, asked: &TokenAsked) -> Result<Token, ApiFailure> {
    let account = match pod.spec.service_account_name.as_str() {
        "" => "default",
        name => name,
    };
    let meta = &pod.metadata;
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: Some(asked.audience.clone())
                .filter(|audience| !audience.is_empty())
                .into_iter()
                .collect(),
            expiration_seconds: asked.seconds,
            bound_object_ref: Some(BoundObjectReference {
                kind: Pod::KIND.to_owned(),
                api_version: Pod::API_VERSION.to_owned(),
                name: meta.name.clone(),
                uid: meta.uid.clone(),
            }),
        },
        ..TokenRequest::default()
    };
    let path = format!("/api/v1/namespaces/{}/serviceaccounts/{account}/token", meta.namespace);
    let body = serde_json::to_vec(&Typed::new(&request))
        .map_err(|error| ApiFailure::Invalid(format!("a request for a token: {error}")))?;
    let given: TokenRequest = client.read(Call::new(Method::POST, path).written(body)).await?;
    let seconds = given.spec.expiration_seconds.unwrap_or(TOKEN_SECONDS).max(1);
    let life = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    if given.status.token.is_empty() {
        return Err(ApiFailure::Invalid("the API server gave an empty token".to_owned()));
    }
    Ok(Token { text: given.status.token, life })
}

/// Services of one namespace that containers are told of: more have no place in the environment of one.
const MAX_SERVICES: usize = 4096;
/// Services of one page.
const PAGE: usize = 200;

/// They are asked for when a container starts, and not watched: a node that starts a container now and then would be
/// sent every change of every service for it.
async fn services(client: &Client, namespace: &str, links: bool) -> Result<Vec<Service>, ApiError> {
    #[derive(Deserialize)]
    struct Page {
        metadata: ListMeta,
        items: Option<Vec<Service>>,
    }
    let mut services: Vec<Service> = Vec::new();
    let mut next = String::new();
    while links && services.len() < MAX_SERVICES {
        let path = format!("{}?limit={PAGE}&continue={next}", Service::collection(Some(namespace)));
        let page: Page = client.read(Call::new(Method::GET, path).limit(MAX_LIST)).await?;
        services.extend(page.items.unwrap_or_default());
        next = page.metadata.continue_token;
        if next.is_empty() {
            break;
        }
    }
    if !(links && namespace == MASTER_NAMESPACE) {
        let master =
            client.read(Call::new(Method::GET, path::<Service>(MASTER_NAMESPACE, MASTER_SERVICE))).await;
        match master {
            Err(error) if error.is(404) => {}
            master => services.push(master?),
        }
    }
    Ok(services)
}
