//! The node's pulse: lease, conditions, status.
//!
//! One timer for all: every ten seconds the lease is renewed and the status computed; the status is sent
//! when it changed, and otherwise every five minutes.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_io::Timer;
use serde_json::{json, Value};

use super::host::{Host, Left};
use super::object::{conditions, Pressures};
use crate::api::{ContainerImage, Node, NodeAddress, NodeCondition, ObjectReference};
use crate::cluster::contact::{Contact, Standing};
use crate::cluster::error::{ApiError, Outage};
use crate::cluster::events::Recorder;
use crate::cluster::lease::Lease;
use crate::cluster::registration::{patch_status, register, Registered};
use crate::cluster::Client;
use crate::control;
use crate::durable::clock::Now;
use crate::image::Store;
use crate::pod::events::EventKind;

/// Between two renewals: a quarter of the lease's life.
const PERIOD: Duration = Duration::from_secs(10);
/// A status that did not change is sent again after this long; ± half for the first.
const REPORT: Duration = Duration::from_secs(300);
/// Images and names of each that a status lists (the kubelet's figures).
const MAX_IMAGES: (usize, usize) = (50, 5);

/// What beats.
pub struct Heartbeat {
    /// The API.
    pub client: Client,
    /// The Node as it was registered.
    pub node: Node,
    /// What the API server said then.
    pub registered: Registered,
    /// The machine.
    pub host: Host,
    /// Where the data is, whose free space is told.
    pub data_dir: PathBuf,
    /// The images to list.
    pub store: Store,
    /// For the node's own events.
    pub recorder: Recorder,
    /// Told whether the lease is renewed.
    pub contact: Arc<Contact>,
    /// Told when the node is at another address, if it is to follow its connections.
    pub moved: Option<Moved>,
}

/// Hears of the node as it is at another address.
pub type Moved = Box<dyn Fn(&Node, IpAddr) + Send + Sync>;

/// What was reported last, and what was seen since.
#[derive(Default)]
struct Reported {
    conditions: Vec<NodeCondition>,
    images: Vec<ContainerImage>,
    /// When, on the monotonic clock; nothing yet: never.
    at: Option<Duration>,
    /// The store's count of changes when `images` were listed.
    store_changes: Option<usize>,
    /// When each pressure was last felt.
    pressures: Pressures,
}

impl Heartbeat {
    /// Beats for ever; errors are logged when they begin, change and end.
    pub async fn run(mut self) {
        self.tell_arrival();
        let mut lease = Lease::new(&self.node.metadata.name, &self.registered.uid);
        let mut reported = self.begin();
        let (mut lease_outage, mut status_outage) = (Outage::default(), Outage::default());
        // After the first report the next comes at a random moment of its period, so that a site that lost
        // power does not report in step for ever.
        let mut period = REPORT.mul_f64(0.5 + fastrand::f64());
        let (mut first, mut again) = (true, false);
        loop {
            let now = Now::read();
            if self.move_on() | std::mem::take(&mut again) {
                reported.at = None;
            }
            let due = reported.at.is_none_or(|at| now.mono.saturating_sub(at) >= period);
            // Side by side: a status that hangs must not keep the lease waiting.
            let (renewed, told) = futures_lite::future::zip(
                lease.renew(&self.client, now.wall),
                self.report(&mut reported, now, due),
            )
            .await;
            match renewed {
                // Meanwhile a controller has called the node's conditions unknown, perhaps: said anew, they hold.
                Ok(()) => {
                    self.contact.set(Standing::Connected);
                    again = lease_outage.over("renewing the node's lease");
                }
                Err(error) => {
                    self.contact.set(Standing::Away(error.to_string()));
                    lease_outage.report("renewing the node's lease", &error);
                }
            }
            match told {
                Ok(false) => {}
                Ok(true) => {
                    status_outage.over("reporting the node's status");
                    if !std::mem::take(&mut first) {
                        period = REPORT;
                    }
                }
                Err(error) if error.is(404) => {
                    log::warn!("node {} was deleted: registering it anew", self.node.metadata.name);
                    self.registered = register(&self.client, &self.node).await;
                    lease = Lease::new(&self.node.metadata.name, &self.registered.uid);
                    reported = self.begin();
                    continue;
                }
                Err(error) => status_outage.report("reporting the node's status", &error),
            }
            Timer::after(PERIOD.saturating_sub(Now::read().mono.saturating_sub(now.mono))).await;
        }
    }

    /// Takes up the address that leads to the API server, if it is another one: the network has given this machine
    /// a new one.
    fn move_on(&mut self) -> bool {
        let (Some(moved), Some(address)) = (&self.moved, self.client.own_address()) else { return false };
        if address.is_loopback() {
            return false;
        }
        let text = address.to_string();
        let internal = |known: &&mut NodeAddress| known.kind == "InternalIP";
        let Some(known) = self.node.status.addresses.iter_mut().find(internal) else { return false };
        if known.address == text {
            return false;
        }
        log::warn!("this node's address was {}, and is {text} now", known.address);
        known.address = text;
        moved(&self.node, address);
        true
    }

    fn begin(&self) -> Reported {
        Reported { conditions: self.registered.conditions.clone(), ..Reported::default() }
    }

    /// Sends the status when it is due or has changed; whether it was sent.
    async fn report(&self, reported: &mut Reported, now: Now, due: bool) -> Result<bool, ApiError> {
        let left = Left::read(&self.data_dir);
        let conditions = conditions(&self.host, &left, &mut reported.pressures, &reported.conditions, now);
        let (changes, images) = self.images(reported).await;
        let statuses = |list: &[NodeCondition]| -> Vec<(String, String)> {
            list.iter().map(|c| (c.kind.clone(), c.status.clone())).collect()
        };
        let changed = reported.at.is_none()
            || statuses(&conditions) != statuses(&reported.conditions)
            || images != reported.images;
        if !due && !changed {
            return Ok(false);
        }
        let patch = if changed {
            self.whole(&conditions, &images)
        } else {
            // Nothing new but the time: no more than that is said.
            let beat =
                |c: &NodeCondition| json!({"type": c.kind, "lastHeartbeatTime": c.last_heartbeat_time});
            json!({"status": {"conditions": conditions.iter().map(beat).collect::<Vec<_>>()}})
        };
        patch_status(&self.client, &self.node.metadata.name, &patch).await?;
        self.tell_changes(&reported.conditions, &conditions);
        reported.conditions = conditions;
        reported.images = images;
        reported.store_changes = Some(changes);
        reported.at = Some(now.mono);
        Ok(true)
    }

    fn whole(&self, conditions: &[NodeCondition], images: &[ContainerImage]) -> Value {
        let status = &self.node.status;
        // `addresses` merges by type in a strategic patch; a node that moved must not keep the old one.
        let mut addresses = vec![json!({"$patch": "replace"})];
        addresses.extend(status.addresses.iter().map(|address| json!(address)));
        json!({"status": {
            "addresses": addresses,
            "capacity": status.capacity,
            "allocatable": status.allocatable,
            "conditions": conditions,
            "daemonEndpoints": status.daemon_endpoints,
            "nodeInfo": status.node_info,
            "images": images,
            "declaredFeatures": status.declared_features,
        }})
    }

    /// The images, read from the disk only when the store has changed.
    async fn images(&self, reported: &Reported) -> (usize, Vec<ContainerImage>) {
        let changes = self.store.changes();
        if reported.store_changes == Some(changes) {
            return (changes, reported.images.clone());
        }
        let store = self.store.clone();
        (changes, control::blocking(move || images(&store)).await)
    }

    fn reference(&self) -> ObjectReference {
        ObjectReference {
            kind: "Node".into(),
            name: self.node.metadata.name.clone(),
            uid: self.registered.uid.clone(),
            ..ObjectReference::default()
        }
    }

    fn tell(&self, kind: EventKind, reason: &str, message: &str) {
        self.recorder.record(self.reference(), kind, reason, message);
    }

    fn tell_arrival(&self) {
        self.tell(EventKind::Normal, "Starting", "Starting kubelet.");
        let boot = &self.node.status.node_info.boot_id;
        if let Some(before) = self.registered.boot_id.as_ref().filter(|before| *before != boot) {
            log::info!("this machine was booted since the node was last here ({before})");
            let message = format!("Node {} has been rebooted, boot id: {boot}", self.node.metadata.name);
            self.tell(EventKind::Warning, "Rebooted", &message);
        }
    }

    /// The kubelet's events for conditions that changed.
    fn tell_changes(&self, before: &[NodeCondition], now: &[NodeCondition]) {
        let name = &self.node.metadata.name;
        for condition in now {
            let same = before.iter().any(|c| c.kind == condition.kind && c.status == condition.status);
            let reason = match (condition.kind.as_str(), condition.status.as_str()) {
                _ if same => continue,
                ("Ready", "True") => "NodeReady",
                ("Ready", _) => "NodeNotReady",
                ("MemoryPressure", "True") => "NodeHasInsufficientMemory",
                ("MemoryPressure", _) => "NodeHasSufficientMemory",
                ("DiskPressure", "True") => "NodeHasDiskPressure",
                ("DiskPressure", _) => "NodeHasNoDiskPressure",
                ("PIDPressure", "True") => "NodeHasInsufficientPID",
                _ => "NodeHasSufficientPID",
            };
            self.tell(EventKind::Normal, reason, &format!("Node {name} status is now: {reason}"));
        }
    }
}

/// The largest images first.
fn images(store: &Store) -> Vec<ContainerImage> {
    let mut images: Vec<ContainerImage> = store
        .list()
        .into_iter()
        .map(|(mut names, size)| {
            names.truncate(MAX_IMAGES.1);
            ContainerImage { names, size_bytes: i64::try_from(size).unwrap_or(i64::MAX) }
        })
        .collect();
    images.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.names.cmp(&b.names)));
    images.truncate(MAX_IMAGES.0);
    images
}
