//! Whether they may: the API server is asked, with the attributes that a kubelet would send.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_io::Timer;
use futures_lite::future;
use http::Method;

use super::cache::{self, Cache, Key};
use super::review::{Attributes, ReviewError, Reviewer, User};
use crate::durable::clock::Now;

/// How long a yes is kept: the kubelet's default `authorization.webhook.cacheAuthorizedTTL`.
const YES_TIME: Duration = Duration::from_secs(5 * 60);
/// How long a no is kept: the kubelet's default `authorization.webhook.cacheUnauthorizedTTL`.
const NO_TIME: Duration = Duration::from_secs(30);
/// Answers remembered.
const MAX_ANSWERS: usize = 512;
/// How long a SubjectAccessReview may take.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Authorizer {
    node_name: String,
    reviewer: Arc<dyn Reviewer>,
    answers: Mutex<Cache<bool>>,
}

/// Why a request is refused: the text that the client reads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// 403
    Forbidden(String),
    /// 500: whether they may is not known, so they may not.
    Unknown(String),
}

impl Authorizer {
    pub fn new(node_name: String, reviewer: Arc<dyn Reviewer>) -> Authorizer {
        Authorizer { node_name, reviewer, answers: Mutex::new(Cache::new(MAX_ANSWERS)) }
    }

    /// Asks for each subresource in turn until one is allowed.
    pub async fn authorize(&self, user: &User, method: &Method, path: &str) -> Result<(), Refused> {
        let (verb, subresources) = (verb(method), subresources(path));
        let (name, resource) = (&user.name, "nodes");
        for &subresource in &subresources {
            let attributes = Attributes { verb, subresource, name: self.node_name.clone() };
            match self.ask(user, &attributes).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    log::warn!("whether {name} may {verb} nodes/{subresource} is not known, so no: {error}");
                    return Err(Refused::Unknown(format!(
                        "Authorization error (user={name}, verb={verb}, resource={resource}, subresource={subresource})"
                    )));
                }
            }
        }
        let subresources = subresources.join(" ");
        Err(Refused::Forbidden(format!(
            "Forbidden (user={name}, verb={verb}, resource={resource}, subresource(s)=[{subresources}])\n"
        )))
    }

    async fn ask(&self, user: &User, attributes: &Attributes) -> Result<bool, ReviewError> {
        let key = key(user, attributes);
        let known = self.answers.lock().unwrap_or_else(PoisonError::into_inner).get(&key, Now::read().mono);
        if let Some(answer) = known {
            return Ok(answer);
        }
        let late = async {
            Timer::after(REVIEW_TIMEOUT).await;
            Err(ReviewError(format!("no answer within {} s", REVIEW_TIMEOUT.as_secs())))
        };
        let answer = future::or(self.reviewer.review_access(user, attributes), late).await?;
        let time = if answer { YES_TIME } else { NO_TIME };
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.put(key, answer, Now::read().mono, time);
        Ok(answer)
    }
}

fn key(user: &User, attributes: &Attributes) -> Key {
    let counts = format!("{} {}", user.groups.len(), user.extra.len());
    let mut parts = vec![attributes.verb, attributes.subresource, &user.name, &user.uid, &counts];
    parts.extend(user.groups.iter().map(String::as_str));
    let lengths: Vec<String> = user.extra.values().map(|values| values.len().to_string()).collect();
    for ((name, values), length) in user.extra.iter().zip(&lengths) {
        parts.extend([name.as_str(), length]);
        parts.extend(values.iter().map(String::as_str));
    }
    cache::key(parts)
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

/// The subresources of `nodes` of which one must be allowed, the finer ones (1.33) first: the kubelet's
/// GetRequestAttributes.
fn subresources(path: &str) -> Vec<&'static str> {
    const FINE: [(&str, &str); 5] = [
        ("/allocatedPods", "pods"),
        ("/pods", "pods"),
        ("/healthz", "healthz"),
        ("/configz", "configz"),
        ("/runningpods", "pods"),
    ];
    const COARSE: [(&str, &str); 6] = [
        ("/stats", "stats"),
        ("/metrics", "metrics"),
        ("/logs", "log"),
        ("/checkpoint", "checkpoint"),
        ("/statusz", "statusz"),
        ("/flagz", "configz"),
    ];
    let under =
        |(of, _): &&(&str, &str)| path.strip_prefix(of).is_some_and(|r| r.is_empty() || r.starts_with('/'));
    let fine = FINE.iter().find(under).map(|(_, subresource)| *subresource);
    let coarse = COARSE.iter().find(under).map_or("proxy", |(_, subresource)| *subresource);
    fine.into_iter().chain([coarse]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_ask_for_the_subresources_that_a_kubelet_asks_for() {
        let cases: [(&str, &[&str]); 20] = [
            ("/healthz", &["healthz", "proxy"]),
            ("/healthz/ping", &["healthz", "proxy"]),
            ("/healthzz", &["proxy"]),
            ("/pods", &["pods", "proxy"]),
            ("/pods/", &["pods", "proxy"]),
            ("/runningpods/", &["pods", "proxy"]),
            ("/allocatedPods", &["pods", "proxy"]),
            ("/configz", &["configz", "proxy"]),
            ("/flagz", &["configz"]),
            ("/stats/summary", &["stats"]),
            ("/metrics", &["metrics"]),
            ("/metrics/cadvisor", &["metrics"]),
            ("/metricsx", &["proxy"]),
            ("/logs/", &["log"]),
            ("/checkpoint/a/b/c", &["checkpoint"]),
            ("/statusz", &["statusz"]),
            ("/containerLogs/a/b/c", &["proxy"]),
            ("/exec/a/b/c", &["proxy"]),
            ("/", &["proxy"]),
            ("//pods", &["proxy"]),
        ];
        for (path, expected) in cases {
            assert_eq!(subresources(path), expected, "{path}");
        }
    }

    #[test]
    fn methods_are_verbs() {
        let verbs = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD];
        assert_eq!(verbs.map(|m| verb(&m)), ["get", "create", "update", "patch", "delete", ""]);
    }

    #[test]
    fn different_people_have_different_keys() {
        let attributes = Attributes { verb: "get", subresource: "proxy", name: "n".to_owned() };
        let user = |groups: &[&str], extra: &[(&str, &[&str])]| User {
            name: "a".to_owned(),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            extra: extra
                .iter()
                .map(|(name, values)| ((*name).to_owned(), values.iter().map(|v| (*v).to_owned()).collect()))
                .collect(),
            ..User::default()
        };
        let users = [
            user(&[], &[]),
            user(&["x"], &[]),
            user(&["x", "y"], &[]),
            user(&["x"], &[("y", &[])]),
            user(&["x"], &[("y", &["z"])]),
            user(&["x", "y", "1", "z"], &[]),
        ];
        let keys: std::collections::HashSet<Key> = users.iter().map(|user| key(user, &attributes)).collect();
        assert_eq!(keys.len(), users.len());
    }
}
