//! `v1 Pod`: its status.

use std::collections::BTreeMap;

use super::{object, Quantity, ResourceRequirements, Time, Word};

object! {
    /// `status` of a pod.
    PodStatus {
        observed_generation: i64,
        phase: String,
        conditions: Vec<PodCondition>,
        message: String,
        reason: String,
        #[serde(rename = "hostIP")]
        host_ip: String,
        #[serde(rename = "hostIPs")]
        host_ips: Vec<HostIp>,
        #[serde(rename = "podIP")]
        pod_ip: String,
        #[serde(rename = "podIPs")]
        pod_ips: Vec<PodIp>,
        start_time: Option<Time>,
        init_container_statuses: Vec<ContainerStatus>,
        container_statuses: Vec<ContainerStatus>,
        qos_class: String,
        ephemeral_container_statuses: Vec<ContainerStatus>,
    }
}

object! {
    /// One condition of a pod.
    PodCondition {
        observed_generation: i64,
        last_probe_time: Option<Time>,
        last_transition_time: Option<Time>,
        reason: String,
        message: String,
    } always {
        #[serde(rename = "type")]
        kind: Word,
        status: Word,
    }
}

object! {
    /// An address of the node.
    HostIp {
        ip: String,
    }
}

object! {
    /// An address of the pod.
    PodIp {
        ip: String,
    }
}

object! {
    /// How one container is.
    ContainerStatus {
        state: ContainerState,
        last_state: ContainerState,
        #[serde(rename = "containerID")]
        container_id: String,
        started: Option<bool>,
        allocated_resources: BTreeMap<String, Quantity>,
        resources: Option<ResourceRequirements>,
        volume_mounts: Vec<VolumeMountStatus>,
    } always {
        name: String,
        ready: bool,
        restart_count: i32,
        image: String,
        #[serde(rename = "imageID")]
        image_id: String,
    }
}

object! {
    /// A volume as a container has it.
    VolumeMountStatus {
        read_only: bool,
        recursive_read_only: Option<String>,
    } always {
        name: String,
        mount_path: String,
    }
}

object! {
    /// One of three; none means waiting.
    ContainerState {
        waiting: Option<ContainerStateWaiting>,
        running: Option<ContainerStateRunning>,
        terminated: Option<ContainerStateTerminated>,
    }
}

object! {
    /// Not started yet, or not again yet.
    ContainerStateWaiting {
        reason: String,
        message: String,
    }
}

object! {
    /// Running.
    ContainerStateRunning {
        started_at: Option<Time>,
    }
}

object! {
    /// Ended.
    ContainerStateTerminated {
        signal: i32,
        reason: String,
        message: String,
        started_at: Option<Time>,
        finished_at: Option<Time>,
        #[serde(rename = "containerID")]
        container_id: String,
    } always {
        exit_code: i32,
    }
}
