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
        host_ip as "hostIP": String,
        host_ips as "hostIPs": Vec<HostIp>,
        pod_ip as "podIP": String,
        pod_ips as "podIPs": Vec<PodIp>,
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
        kind as "type": Word,
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
        container_id as "containerID": String,
        started: Option<bool>,
        allocated_resources: BTreeMap<String, Quantity>,
        resources: Option<ResourceRequirements>,
        volume_mounts: Vec<VolumeMountStatus>,
    } always {
        name: String,
        ready: bool,
        restart_count: i32,
        image: String,
        image_id as "imageID": String,
    }
}

object! {
    /// A volume as a container has it.
    VolumeMountStatus {
        read_only: bool,
        recursive_read_only: Option<Word>,
    } always {
        name: String,
        mount_path: Word,
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
        container_id as "containerID": String,
    } always {
        exit_code: i32,
    }
}
