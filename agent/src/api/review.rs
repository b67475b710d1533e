//! `TokenReview` and `SubjectAccessReview`: who asks, and may they.

use std::collections::BTreeMap;

use super::{object, ObjectMeta};

object! {
    /// `authentication.k8s.io/v1 TokenReview`
    TokenReview {
        metadata: ObjectMeta,
        spec: TokenReviewSpec,
        status: TokenReviewStatus,
    }
}

object! {
    /// The token asked about.
    TokenReviewSpec {
        token: String,
        audiences: Vec<String>,
    }
}

object! {
    /// The answer about a token.
    TokenReviewStatus {
        authenticated: bool,
        user: UserInfo,
        audiences: Vec<String>,
        error: String,
    }
}

object! {
    /// Who a token belongs to.
    UserInfo {
        username: String,
        uid: String,
        groups: Vec<String>,
        extra: BTreeMap<String, Vec<String>>,
    }
}

object! {
    /// `authorization.k8s.io/v1 SubjectAccessReview`
    SubjectAccessReview {
        metadata: ObjectMeta,
        spec: SubjectAccessReviewSpec,
        status: SubjectAccessReviewStatus,
    }
}

object! {
    /// Who wants to do what.
    SubjectAccessReviewSpec {
        resource_attributes: Option<ResourceAttributes>,
        non_resource_attributes: Option<NonResourceAttributes>,
        user: String,
        groups: Vec<String>,
        extra: BTreeMap<String, Vec<String>>,
        uid: String,
    }
}

object! {
    /// A request for a resource.
    ResourceAttributes {
        namespace: String,
        verb: String,
        group: String,
        version: String,
        resource: String,
        subresource: String,
        name: String,
    }
}

object! {
    /// A request for a plain path.
    NonResourceAttributes {
        path: String,
        verb: String,
    }
}

object! {
    /// The answer.
    SubjectAccessReviewStatus {
        denied: bool,
        reason: String,
        evaluation_error: String,
    } always {
        allowed: bool,
    }
}
