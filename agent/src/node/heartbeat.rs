//! The node's pulse: lease, conditions, status.
//!
//! One timer for all: every ten seconds the lease is renewed and the status computed; the status is sent
//! when it changed, and otherwise every five minutes.

use std::path::PathBuf;
use std::time::Duration;

use async_io::Timer;
use serde_json::json;

use super::host::{Host, Left};
use super::object::conditions;
use crate::api::{ContainerImage, Node, NodeCondition, ObjectReference};
use crate::cluster::events::Recorder;
use crate::cluster::lease::Lease;
use crate::cluster::registration::{patch_status, Registered};
use crate::cluster::Client;
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
}

/// What was reported last.
#[derive(Default)]
struct Reported {
    conditions: Vec<NodeCondition>,
    images: Vec<ContainerImage>,
    at: Option<Duration>,
}

impl Heartbeat {
    /// Beats for ever; errors are logged when they begin and when they end.
    pub async fn run(self) {
        self.tell_arrival();
        let mut lease = Lease::new(&self.node.metadata.name, &self.registered.uid);
        let mut reported = Reported { conditions: self.registered.conditions.clone(), ..Reported::default() };
        let mut failing = false;
        // The first report after the start comes at a random moment of its period.
        let mut period = REPORT.mul_f64(0.5 + fastrand::f64());
        loop {
            let now = Now::read();
            let renewed = lease.renew(&self.client, now.wall).await;
            let result = renewed.and(self.report(&mut reported, now, period).await);
            if reported.at == Some(now.mono) {
                period = REPORT;
            }
            match &result {
                Ok(()) if failing => log::info!("the API server answers again"),
                Err(error) if !failing => log::error!("heartbeat: {error}"),
                Ok(()) | Err(_) => {}
            }
            failing = result.is_err();
            Timer::after(PERIOD.saturating_sub(Now::read().mono.saturating_sub(now.mono))).await;
        }
    }

    async fn report(
        &self,
        reported: &mut Reported,
        now: Now,
        period: Duration,
    ) -> Result<(), crate::cluster::ApiError> {
        let left = Left::read(&self.data_dir);
        let conditions = conditions(&self.host, &left, &reported.conditions, now.wall);
        let images = images(&self.store);
        let due = reported.at.is_none_or(|at| now.mono.saturating_sub(at) >= period);
        let statuses = |list: &[NodeCondition]| -> Vec<(String, String)> {
            list.iter().map(|c| (c.kind.clone(), c.status.clone())).collect()
        };
        let changed = statuses(&conditions) != statuses(&reported.conditions) || images != reported.images;
        if !due && !changed {
            return Ok(());
        }
        let status = &self.node.status;
        // `addresses` merges by type in a strategic patch; a node that moved must not keep the old one.
        let mut addresses = vec![json!({"$patch": "replace"})];
        addresses.extend(status.addresses.iter().map(|address| json!(address)));
        let patch = json!({"status": {
            "addresses": addresses,
            "capacity": status.capacity,
            "allocatable": status.allocatable,
            "conditions": conditions,
            "daemonEndpoints": status.daemon_endpoints,
            "nodeInfo": status.node_info,
            "images": images,
        }});
        patch_status(&self.client, &self.node.metadata.name, &patch).await?;
        self.tell_changes(&reported.conditions, &conditions);
        *reported = Reported { conditions, images, at: Some(now.mono) };
        Ok(())
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
