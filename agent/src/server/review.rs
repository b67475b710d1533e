//! What the server asks the API server: whose token this is, and what they may do.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;

/// Who asks, as authentication/v1 UserInfo says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// `username`, or the common name of a certificate.
    pub name: String,
    /// `uid`; empty when there is none.
    pub uid: String,
    /// `groups`, or the organizations of a certificate.
    pub groups: Vec<String>,
    /// `extra`.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What they want: the resourceAttributes of an authorization/v1 SubjectAccessReview. Group and
/// namespace are empty, the version is `v1`, the resource `nodes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// `get`, `create`, `update`, `patch`, `delete`; empty for any other method, as a kubelet sends it.
    pub verb: &'static str,
    /// `proxy`, `pods`, `healthz`, `configz`, `stats`, `metrics`, `log`, `checkpoint` or `statusz`.
    pub subresource: &'static str,
    /// The node's name.
    pub name: String,
}

/// Why the API server could not be asked, or gave no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ReviewError(pub String);

/// Asks the API server. Answers are kept by the server, errors are not.
pub trait Reviewer: Send + Sync {
    /// TokenReview (authentication/v1). Nothing when the token is nobody's.
    ///
    /// # Errors
    /// When no answer came; the request is refused then.
    fn review_token<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<User>, ReviewError>>;

    /// SubjectAccessReview (authorization/v1): true only for `status.allowed` without `status.denied`.
    ///
    /// # Errors
    /// When no answer came; the request is refused then.
    fn review_access<'a>(
        &'a self,
        user: &'a User,
        attributes: &'a Attributes,
    ) -> BoxFuture<'a, Result<bool, ReviewError>>;
}
