//! The Node object: made once, then kept true.

use std::collections::BTreeMap;
use std::time::Duration;

use async_io::Timer;
use http::Method;
use serde_json::{json, Value};

use super::client::{Call, Client, Patch};
use super::error::{ApiError, Outage};
use crate::api::{Node, NodeCondition, Object, Taint, Typed};

/// First and longest pause between two tries to register (the kubelet's own figures).
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(7));

/// What the API server knew of this node when it registered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registered {
    /// metadata.uid of the Node.
    pub uid: String,
    /// The boot that it knew last, if the node was there before.
    pub boot_id: Option<String>,
    /// Its conditions then, whose times of transition go on.
    pub conditions: Vec<NodeCondition>,
    /// Its labels: an operator's own beside the node's.
    pub labels: BTreeMap<String, String>,
    /// Its taints: what the operator has made of them since.
    pub taints: Vec<Taint>,
}

impl From<Node> for Registered {
    fn from(node: Node) -> Registered {
        let status = node.status;
        Registered {
            uid: node.metadata.uid,
            labels: node.metadata.labels,
            taints: node.spec.taints,
            conditions: status.conditions,
            boot_id: Some(status.node_info.boot_id).filter(|id| !id.is_empty()),
        }
    }
}

/// Makes the Node, or takes up the one that is there: its labels are set right, its taints are left as
/// they are (only a new Node may have its own set). Tries for ever.
pub async fn register(client: &Client, node: &Node) -> Registered {
    let mut pause = PAUSE.0;
    let mut outage = Outage::default();
    loop {
        match try_register(client, node).await {
            Ok(registered) => return registered,
            Err(error) if error.is(403) || error.is(422) => outage.report(
                "registering the node (--node-labels, --register-with-taints and --node-name must be such as \
                 the API server takes)",
                &error,
            ),
            Err(error) => outage.report("registering the node", &error),
        }
        Timer::after(pause).await;
        pause = pause.saturating_mul(2).min(PAUSE.1);
    }
}

async fn try_register(client: &Client, node: &Node) -> Result<Registered, ApiError> {
    let (name, nodes) = (&node.metadata.name, Node::collection(None));
    let body = json!(Typed::new(node));
    match client.read::<Node>(Call::new(Method::POST, &*nodes).json(&body)).await {
        Ok(made) => {
            log::info!("registered node {name}");
            Ok(Registered { boot_id: None, conditions: Vec::new(), ..made.into() })
        }
        // 403 as well: since 1.32 a create that would be a conflict can be refused first.
        Err(error) if error.is(409) || error.is(403) => {
            let before = match read(client, name).await {
                Err(second) if second.is(404) => return Err(error),
                read => read?,
            };
            let labels = json!({"metadata": {"labels": node.metadata.labels}});
            patch_status(client, name, &labels).await?;
            log::info!("node {name} was registered before");
            let mut registered = before;
            registered.labels.extend(node.metadata.labels.clone());
            Ok(registered)
        }
        Err(error) => Err(error),
    }
}

/// The Node as it is now.
///
/// # Errors
/// [`ApiError`]
pub async fn read(client: &Client, node: &str) -> Result<Registered, ApiError> {
    let path = format!("{}/{node}", Node::collection(None));
    client.read::<Node>(Call::new(Method::GET, path)).await.map(Registered::from)
}

/// Patches `/status` of the Node: the one place where labels and status may both be changed. Lists merge
/// by their keys; `addresses` must carry its own `$patch: replace`.
///
/// # Errors
/// [`ApiError`]
pub async fn patch_status(client: &Client, node: &str, patch: &Value) -> Result<(), ApiError> {
    let path = format!("{}/{node}/status", Node::collection(None));
    client.send(Call::patch(path, Patch::Strategic, patch).metadata_only().hasty()).await.map(drop)
}
