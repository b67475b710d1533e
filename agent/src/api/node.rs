//! `v1 Node`.

use std::collections::BTreeMap;

use super::{object, ObjectMeta, Quantity, Time};

object! {
    /// A node.
    Node {
        metadata: ObjectMeta,
        spec: NodeSpec,
        status: NodeStatus,
    }
}

object! {
    /// `spec` of a node.
    NodeSpec {
        pod_cidr as "podCIDR": String,
        pod_cidrs as "podCIDRs": Vec<String>,
        provider_id as "providerID": String,
        unschedulable: bool,
        taints: Vec<Taint>,
    }
}

object! {
    /// What keeps pods away that do not tolerate it.
    Taint {
        value: String,
        time_added: Option<Time>,
    } always {
        key: String,
        effect: String,
    }
}

object! {
    /// `status` of a node.
    NodeStatus {
        capacity: BTreeMap<String, Quantity>,
        allocatable: BTreeMap<String, Quantity>,
        conditions: Vec<NodeCondition>,
        addresses: Vec<NodeAddress>,
        daemon_endpoints: NodeDaemonEndpoints,
        node_info: NodeSystemInfo,
        images: Vec<ContainerImage>,
        declared_features: Vec<String>,
    }
}

object! {
    /// One condition of a node.
    NodeCondition {
        last_heartbeat_time: Option<Time>,
        last_transition_time: Option<Time>,
        reason: String,
        message: String,
    } always {
        kind as "type": String,
        status: String,
    }
}

object! {
    /// One address of a node.
    NodeAddress {
    } always {
        kind as "type": String,
        address: String,
    }
}

object! {
    /// Where the node's own server listens.
    NodeDaemonEndpoints {
        kubelet_endpoint: DaemonEndpoint,
    }
}

object! {
    /// One port; the API's name for it is capitalised.
    DaemonEndpoint {
    } always {
        port as "Port": i32,
    }
}

object! {
    /// What the node is. All of it is required.
    NodeSystemInfo {
    } always {
        machine_id as "machineID": String,
        system_uuid as "systemUUID": String,
        boot_id as "bootID": String,
        kernel_version: String,
        os_image: String,
        container_runtime_version: String,
        kubelet_version: String,
        kube_proxy_version: String,
        operating_system: String,
        architecture: String,
    }
}

object! {
    /// An image in the node's store.
    ContainerImage {
        names: Vec<String>,
        size_bytes: i64,
    }
}
