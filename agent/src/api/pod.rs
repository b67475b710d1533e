//! `v1 Pod`: its spec.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{object, Lifecycle, ObjectMeta, PodStatus, Probe, Quantity, Volume, Word};

object! {
    /// A pod.
    Pod {
        metadata: ObjectMeta,
        spec: PodSpec,
        status: PodStatus,
    }
}

object! {
    /// `spec` of a pod. Security contexts are kept as they came: they are only looked at to say what cannot be
    /// honoured.
    PodSpec {
        volumes: Vec<Volume>,
        init_containers: Vec<Container>,
        containers: Vec<Container>,
        ephemeral_containers: Vec<Container>,
        restart_policy: String,
        termination_grace_period_seconds: Option<i64>,
        active_deadline_seconds: Option<i64>,
        node_selector: BTreeMap<String, String>,
        service_account_name: String,
        node_name: String,
        host_network: bool,
        host_pid as "hostPID": bool,
        host_ipc as "hostIPC": bool,
        host_users: Option<bool>,
        share_process_namespace: Option<bool>,
        security_context: Option<Value>,
        image_pull_secrets: Vec<LocalObjectReference>,
        hostname: String,
        subdomain: String,
        host_aliases: Vec<HostAlias>,
        affinity: Option<Affinity>,
        tolerations: Vec<Toleration>,
        runtime_class_name: Option<String>,
        priority: Option<i32>,
        priority_class_name: String,
        readiness_gates: Vec<PodReadinessGate>,
        enable_service_links: Option<bool>,
        overhead: BTreeMap<String, Quantity>,
        os: Option<PodOs>,
        resource_claims: Vec<Value>,
        resources: Option<ResourceRequirements>,
    }
}

object! {
    /// A container, an init container or an ephemeral one.
    Container {
        name: String,
        image: String,
        command: Vec<String>,
        args: Vec<String>,
        working_dir: String,
        ports: Vec<ContainerPort>,
        env_from: Vec<EnvFromSource>,
        env: Vec<EnvVar>,
        resources: ResourceRequirements,
        restart_policy: Option<String>,
        restart_policy_rules: Vec<Value>,
        volume_mounts: Vec<VolumeMount>,
        volume_devices: Vec<Value>,
        liveness_probe: Option<Box<Probe>>,
        readiness_probe: Option<Box<Probe>>,
        startup_probe: Option<Box<Probe>>,
        lifecycle: Option<Box<Lifecycle>>,
        termination_message_path: String,
        termination_message_policy: String,
        image_pull_policy: String,
        security_context: Option<Value>,
        stdin: bool,
        stdin_once: bool,
        tty: bool,
    }
}

object! {
    /// A port that a container says it listens on.
    ContainerPort {
        name: String,
        host_port: i32,
        protocol: String,
        host_ip as "hostIP": String,
    } always {
        container_port: i32,
    }
}

object! {
    /// All of an object's keys as variables.
    EnvFromSource {
        prefix: String,
        config_map_ref: Option<ConfigMapEnvSource>,
        secret_ref: Option<ConfigMapEnvSource>,
    }
}

object! {
    /// A ConfigMap or Secret by name.
    ConfigMapEnvSource {
        name: String,
        optional: bool,
    }
}

object! {
    /// One variable.
    EnvVar {
        value: String,
        value_from: Option<EnvVarSource>,
    } always {
        name: String,
    }
}

object! {
    /// Where a variable's value comes from.
    EnvVarSource {
        field_ref: Option<ObjectFieldSelector>,
        resource_field_ref: Option<ResourceFieldSelector>,
        config_map_key_ref: Option<ObjectKeySelector>,
        secret_key_ref: Option<ObjectKeySelector>,
        file_key_ref: Option<FileKeySelector>,
    }
}

object! {
    /// A variable in a file of an `emptyDir` volume.
    FileKeySelector {
        optional: bool,
    } always {
        volume_name: String,
        path: String,
        key: String,
    }
}

object! {
    /// A field of the pod.
    ObjectFieldSelector {
    } always {
        field_path: String,
    }
}

object! {
    /// A resource of a container.
    ResourceFieldSelector {
        container_name: String,
        divisor: Option<Quantity>,
    } always {
        resource: String,
    }
}

object! {
    /// A key of a ConfigMap or Secret.
    ObjectKeySelector {
        name: String,
        optional: bool,
    } always {
        key: String,
    }
}

object! {
    /// What a container asks for, and what it may have.
    ResourceRequirements {
        limits: BTreeMap<String, Quantity>,
        requests: BTreeMap<String, Quantity>,
    }
}

object! {
    /// A volume in a container's tree.
    VolumeMount {
        read_only: bool,
        sub_path: String,
        sub_path_expr: String,
        mount_propagation: Option<String>,
        recursive_read_only: Option<String>,
    } always {
        name: String,
        mount_path: Word,
    }
}

object! {
    /// More lines of `/etc/hosts`.
    HostAlias {
        hostnames: Vec<String>,
    } always {
        ip: String,
    }
}

object! {
    /// An object of the pod's namespace.
    LocalObjectReference {
        name: String,
    }
}

object! {
    /// Which operating system the pod is for.
    PodOs {
        name: String,
    }
}

object! {
    /// A condition that the pod also needs to be ready.
    PodReadinessGate {
    } always {
        condition_type: String,
    }
}

object! {
    /// Which taints a pod bears.
    Toleration {
        key: Word,
        operator: Word,
        value: String,
        effect: Word,
        toleration_seconds: Option<i64>,
    }
}

object! {
    /// Where a pod wants to be. Only what a node checks again is read.
    Affinity {
        node_affinity: Option<NodeAffinity>,
    }
}

object! {
    /// Which nodes a pod wants.
    NodeAffinity {
        required as "requiredDuringSchedulingIgnoredDuringExecution": Option<NodeSelector>,
    }
}

object! {
    /// Terms of which one must match.
    NodeSelector {
        node_selector_terms: Vec<NodeSelectorTerm>,
    }
}

object! {
    /// Requirements that must all match; none matches nothing.
    NodeSelectorTerm {
        match_expressions: Vec<NodeSelectorRequirement>,
        match_fields: Vec<NodeSelectorRequirement>,
    }
}

object! {
    /// One requirement on a label or field.
    NodeSelectorRequirement {
        values: Vec<String>,
    } always {
        key: String,
        operator: String,
    }
}
