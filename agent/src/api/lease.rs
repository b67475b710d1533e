//! `coordination.k8s.io/v1 Lease`: the node's heartbeat.

use super::{object, MicroTime, ObjectMeta};

object! {
    /// A lease.
    Lease {
        metadata: ObjectMeta,
        spec: LeaseSpec,
    }
}

object! {
    /// `spec` of a lease.
    LeaseSpec {
        holder_identity: Option<String>,
        lease_duration_seconds: Option<i32>,
        renew_time: Option<MicroTime>,
    }
}
