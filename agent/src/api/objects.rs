//! The objects that pods refer to: ConfigMap, Secret, Service.

use std::collections::BTreeMap;

use super::{object, ByteString, ObjectMeta};

object! {
    /// `v1 ConfigMap`
    ConfigMap {
        metadata: ObjectMeta,
        data: BTreeMap<String, String>,
        binary_data: BTreeMap<String, ByteString>,
        immutable: Option<bool>,
    }
}

object! {
    /// `v1 Secret`
    Secret {
        metadata: ObjectMeta,
        data: BTreeMap<String, ByteString>,
        immutable: Option<bool>,
        kind as "type": String,
    }
}

object! {
    /// `v1 Service`, as far as the variables of a container tell of it.
    Service {
        metadata: ObjectMeta,
        spec: ServiceSpec,
    }
}

object! {
    /// `spec` of a service.
    ServiceSpec {
        kind as "type": String,
        cluster_ip as "clusterIP": String,
        ports: Vec<ServicePort>,
    }
}

object! {
    /// One port of a service.
    ServicePort {
        name: String,
        protocol: String,
    } always {
        port: i32,
    }
}
