//! The Node object: made once, then kept true.

use std::time::Duration;

use async_io::Timer;
use http::Method;
use serde::Deserialize;
use serde_json::{json, Value};

use super::client::{Call, Client, Patch};
use super::error::ApiError;

/// First and longest pause between two tries to register (the kubelet's own figures).
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(7));

/// The Node as the API server knows it.
#[derive(Debug, Deserialize)]
struct Node {
    metadata: NodeMeta,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Debug, Deserialize)]
struct NodeMeta {
    uid: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NodeStatus {
    node_info: Option<NodeInfo>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NodeInfo {
    #[serde(rename = "bootID")]
    boot_id: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

/// What the API server knew of this node when it registered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registered {
    /// metadata.uid of the Node.
    pub uid: String,
    /// The boot that it knew last, if the node was there before.
    pub boot_id: Option<String>,
    /// Whether it was Ready then.
    pub ready: bool,
}

impl From<Node> for Registered {
    fn from(node: Node) -> Registered {
        let ready = node.status.conditions.iter().flatten().any(|c| c.kind == "Ready" && c.status == "True");
        Registered {
            uid: node.metadata.uid,
            boot_id: node.status.node_info.and_then(|info| info.boot_id),
            ready,
        }
    }
}

/// Makes the Node, or takes up the one that is there: its labels are set right, its taints are left as
/// they are (only a new Node may have its own set). Tries for ever.
pub async fn register(client: &Client, node: &Value) -> Registered {
    let mut pause = PAUSE.0;
    let mut reported = false;
    loop {
        match try_register(client, node).await {
            Ok(registered) => return registered,
            Err(error) => {
                if !std::mem::replace(&mut reported, true) {
                    log::error!("registering the node: {error}; trying until it works");
                }
            }
        }
        Timer::after(pause).await;
        pause = pause.saturating_mul(2).min(PAUSE.1);
    }
}

async fn try_register(client: &Client, node: &Value) -> Result<Registered, ApiError> {
    let name = node.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    match client.read::<Node>(Call::new(Method::POST, "/api/v1/nodes").json(node)).await {
        Ok(made) => {
            log::info!("registered node {name}");
            Ok(Registered { uid: made.metadata.uid, ..Registered::default() })
        }
        // 403 as well: since 1.32 a create that would be a conflict can be refused first.
        Err(error) if error.is(409) || error.is(403) => {
            let found = client.read::<Node>(Call::new(Method::GET, format!("/api/v1/nodes/{name}"))).await;
            let found = match found {
                Ok(found) => found,
                Err(second) if second.is(404) => return Err(error),
                Err(second) => return Err(second),
            };
            let labels = node.pointer("/metadata/labels").cloned().unwrap_or_default();
            patch_status(client, name, &json!({"metadata": {"labels": labels}})).await?;
            log::info!("node {name} was registered before");
            Ok(found.into())
        }
        Err(error) => Err(error),
    }
}

/// Patches `/status` of the Node: the one place where labels and status may both be changed. Lists merge
/// by their keys; `addresses` must carry its own `$patch: replace`.
///
/// # Errors
/// [`ApiError`]
pub async fn patch_status(client: &Client, node: &str, patch: &Value) -> Result<(), ApiError> {
    let path = format!("/api/v1/nodes/{node}/status");
    client.send(Call::patch(path, Patch::Strategic, patch).heartbeat()).await.map(drop)
}
