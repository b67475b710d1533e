//! The node's Lease: the heartbeat that keeps it Ready.

use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::{json, Value};

use super::client::{Call, Client, Patch};
use super::error::ApiError;
use crate::api;

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
/// Seconds after which a node that says nothing is taken for lost (the kubelet's default).
pub const LEASE_SECONDS: u32 = 40;
/// The controller counts only a renewal that is later than the last.
const LEAST_STEP: SignedDuration = SignedDuration::from_millis(1);

/// This node's Lease.
pub struct Lease {
    node: String,
    uid: String,
    /// Known to be there, and when it was renewed last.
    last: Option<Timestamp>,
    /// It says nothing but what it must; see [`Lease::patch`].
    lean: bool,
}

impl Lease {
    /// The Lease of the Node with this name and uid.
    #[must_use]
    pub fn new(node: &str, uid: &str) -> Lease {
        Lease { node: node.to_owned(), uid: uid.to_owned(), last: None, lean: false }
    }

    /// Renews it; makes it first if need be.
    ///
    /// A merge-patch needs no resource version, so it is never in conflict, and the answer is asked for
    /// in its shortest form.
    ///
    /// # Errors
    /// [`ApiError`]; the next heartbeat tries again.
    pub async fn renew(&mut self, client: &Client, now: Timestamp) -> Result<(), ApiError> {
        let path = format!("{LEASES}/{}", self.node);
        let last = match self.last {
            Some(last) => last,
            None => match client.read::<api::Lease>(Call::new(Method::GET, &*path).hasty()).await {
                Ok(found) => found.spec.renew_time.map_or(Timestamp::MIN, api::MicroTime::timestamp),
                Err(error) if error.is(404) => return self.create(client, now).await,
                Err(error) => return Err(error),
            },
        };
        let renewed = later_than(last, now);
        let patch = self.patch(renewed);
        match client.send(Call::patch(&*path, Patch::Merge, &patch).brief().hasty()).await {
            Ok(_) => {
                self.last = Some(renewed);
                self.lean = true;
                Ok(())
            }
            Err(error) if error.is(404) => {
                (self.last, self.lean) = (None, false);
                self.create(client, now).await
            }
            Err(error) => Err(error),
        }
    }

    async fn create(&mut self, client: &Client, now: Timestamp) -> Result<(), ApiError> {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self.node,
                "namespace": "kube-node-lease",
                "ownerReferences":
                    [{"apiVersion": "v1", "kind": "Node", "name": self.node, "uid": self.uid}],
            },
            "spec": self.spec(now),
        });
        client.send(Call::new(Method::POST, LEASES).json(&lease).brief().hasty()).await?;
        self.last = Some(now);
        Ok(())
    }

    /// The time alone. Each answer carries the whole Lease, so the first patch also takes away what the
    /// API server has noted of who set which field (`managedFields`, reset by a list of one empty entry):
    /// after that it notes one field, and a renewal costs a third less.
    fn patch(&self, renewed: Timestamp) -> Value {
        if self.lean {
            return json!({"spec": {"renewTime": micro_time(renewed)}});
        }
        json!({"metadata": {"managedFields": [{}]}, "spec": self.spec(renewed)})
    }

    fn spec(&self, renewed: Timestamp) -> Value {
        json!({
            "holderIdentity": self.node,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": micro_time(renewed),
        })
    }
}

/// `metav1.MicroTime`
fn micro_time(time: Timestamp) -> String {
    format!("{time:.6}")
}

/// `now`, or the next moment after `last` when the clock was set back.
fn later_than(last: Timestamp, now: Timestamp) -> Timestamp {
    if now > last {
        now
    } else {
        last.checked_add(LEAST_STEP).unwrap_or(last)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_set_back_still_moves_the_lease_forward() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (early, late) = (at("1970-01-01T00:00:10Z"), at("2026-01-01T00:00:00Z"));
        assert_eq!(later_than(early, late), late);
        assert!(later_than(late, early) > late);
        assert!(later_than(late, late) > late);
        assert_eq!(later_than(Timestamp::MIN, early), early);
    }

    #[test]
    fn times_are_written_as_micro_time() {
        let lease = Lease::new("n", "u");
        let spec = lease.spec("2026-01-02T03:04:05Z".parse().unwrap());
        assert_eq!(spec["renewTime"], "2026-01-02T03:04:05.000000Z");
    }

    #[test]
    fn after_the_first_only_the_time_is_sent() {
        let mut lease = Lease::new("n", "u");
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        assert_eq!(lease.patch(now)["metadata"]["managedFields"], json!([{}]));
        lease.lean = true;
        assert_eq!(lease.patch(now), json!({"spec": {"renewTime": "2026-01-02T03:04:05.000000Z"}}));
    }
}
