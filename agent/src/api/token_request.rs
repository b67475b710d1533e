//! `authentication.k8s.io/v1 TokenRequest`

use super::{object, ObjectMeta, Time};

object! {
    /// Asks for a token of a service account, at the service account's subresource `token`.
    TokenRequest {
        metadata: ObjectMeta,
        status: TokenRequestStatus,
    } always {
        spec: TokenRequestSpec,
    }
}

object! {
    /// What is asked for; the API server writes down what it gave.
    TokenRequestSpec {
        expiration_seconds: Option<i64>,
        bound_object_ref: Option<BoundObjectReference>,
    } always {
        audiences: Vec<String>,
    }
}

object! {
    /// The token holds as long as this object is there.
    BoundObjectReference {
        kind: String,
        api_version: String,
        name: String,
        uid: String,
    }
}

object! {
    /// What was given.
    TokenRequestStatus {
        expiration_timestamp: Option<Time>,
    } always {
        token: String,
    }
}
