//! `v1 Event`.

use super::{object, ObjectMeta, ObjectReference, Time};

object! {
    /// Something that happened to an object, as `kubectl describe` shows it.
    Event {
        metadata: ObjectMeta,
        involved_object: ObjectReference,
        reason: String,
        message: String,
        source: EventSource,
        first_timestamp: Option<Time>,
        last_timestamp: Option<Time>,
        count: i32,
        /// `Normal` or `Warning`
        kind as "type": String,
    } always {
        reporting_component: String,
        reporting_instance: String,
    }
}

object! {
    /// Who says so.
    EventSource {
        component: String,
        host: String,
    }
}
