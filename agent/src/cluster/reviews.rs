//! Who may use the kubelet API: the API server is asked (`authentication.k8s.io/v1 TokenReview`,
//! `authorization.k8s.io/v1 SubjectAccessReview`).

use futures_util::future::BoxFuture;
use http::Method;
use serde_json::json;

use super::client::{Call, Client};
use crate::api::{
    Object, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec, TokenReview, TokenReviewSpec,
    Typed,
};
use crate::server::{Attributes, ReviewError, Reviewer, User};

/// Asks on behalf of the kubelet API.
pub struct Reviews {
    client: Client,
}

impl Reviews {
    /// Asks over this client.
    #[must_use]
    pub fn new(client: Client) -> Reviews {
        Reviews { client }
    }

    async fn ask<T: Object + serde::Serialize + serde::de::DeserializeOwned>(
        &self,
        review: &T,
    ) -> Result<T, ReviewError> {
        let call = Call::new(Method::POST, T::collection(None)).json(&json!(Typed::new(review)));
        self.client.read(call).await.map_err(|error| ReviewError(error.to_string()))
    }
}

impl Reviewer for Reviews {
    fn review_token<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<User>, ReviewError>> {
        Box::pin(async move {
            let spec = TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() };
            let status = self.ask(&TokenReview { spec, ..TokenReview::default() }).await?.status;
            if !status.error.is_empty() {
                log::debug!("token review: {}", status.error);
            }
            let user = status.user;
            Ok(status.authenticated.then_some(User {
                name: user.username,
                uid: user.uid,
                groups: user.groups,
                extra: user.extra,
            }))
        })
    }

    fn review_access<'a>(
        &'a self,
        user: &'a User,
        attributes: &'a Attributes,
    ) -> BoxFuture<'a, Result<bool, ReviewError>> {
        Box::pin(async move {
            let spec = SubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    verb: attributes.verb.to_owned(),
                    version: "v1".into(),
                    resource: "nodes".into(),
                    subresource: attributes.subresource.to_owned(),
                    name: attributes.name.clone(),
                    ..ResourceAttributes::default()
                }),
                user: user.name.clone(),
                groups: user.groups.clone(),
                extra: user.extra.clone(),
                uid: user.uid.clone(),
                ..SubjectAccessReviewSpec::default()
            };
            let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
            let status = self.ask(&review).await?.status;
            Ok(status.allowed && !status.denied)
        })
    }
}
