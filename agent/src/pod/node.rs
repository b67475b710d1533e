//! What deciding about pods needs to know of the node.

use std::collections::BTreeMap;

use crate::api::{Quantity, Taint};

/// The node, as admission, environment and status see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// metadata.name
    pub name: String,
    /// metadata.labels
    pub labels: BTreeMap<String, String>,
    /// spec.taints
    pub taints: Vec<Taint>,
    /// The node's addresses, the primary first, at most one of each family. Empty: not known yet.
    pub ips: Vec<String>,
    /// status.capacity
    pub capacity: BTreeMap<String, Quantity>,
    /// status.allocatable; `pods` is the greatest number of pods.
    pub allocatable: BTreeMap<String, Quantity>,
    /// TCP ports of the agent's own, which no pod's hostPort may take.
    pub own_ports: Vec<u16>,
}
