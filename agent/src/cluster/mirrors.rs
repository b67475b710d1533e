//! Mirror pods: what the API server has of this node's static pods, so that people see them
//! (`pkg/kubelet/pod/mirror_client.go`). Deleting one deletes nothing but itself, and it comes again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_io::Timer;
use event_listener::Event;
use http::Method;
use serde_json::{json, Value};

use super::client::{Call, Client};
use super::error::{ApiError, Outage};
use crate::api::{Object, ObjectMeta, OwnerReference, Pod, PodStatus, Typed};
use crate::pod::MIRROR;
use crate::supervisor::PodEvent;

/// First and longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Namespace and name.
type Key = (String, String);

/// See the module.
#[derive(Debug, Default)]
pub struct Mirrors {
    state: Mutex<State>,
    changed: Event,
}

#[derive(Debug, Default)]
struct State {
    /// None: the folder of static pods has not been looked at yet.
    wanted: Option<BTreeMap<Key, Pod>>,
    /// None: the API server has not shown its pods yet.
    seen: Option<BTreeMap<Key, Seen>>,
}

/// A mirror pod, as the API server has it.
#[derive(Debug)]
struct Seen {
    uid: String,
    hash: String,
    deleting: bool,
    /// The supervisor was told of it.
    told: bool,
}

impl Seen {
    fn of(pod: &Pod, told: bool) -> Seen {
        let meta = &pod.metadata;
        Seen {
            uid: meta.uid.clone(),
            hash: meta.annotations.get(MIRROR).cloned().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
            told,
        }
    }
}

/// What is to be done about one mirror.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Create(Key),
    Delete(Key, String),
}

impl Mirrors {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are all static pods.
    pub fn want(&self, pods: &[Pod]) {
        let wanted = pods.iter().map(|pod| (key(&pod.metadata), pod.clone())).collect();
        self.state().wanted = Some(wanted);
        self.changed.notify(1);
    }

    /// Takes in what the API server shows. What the supervisor is to be told of static pods comes back.
    pub fn see(&self, event: &PodEvent) -> Vec<PodEvent> {
        let mut told = Vec::new();
        let mut state = self.state();
        match event {
            PodEvent::Set(pods) => {
                let mut before = state.seen.replace(BTreeMap::new()).unwrap_or_default();
                for pod in pods {
                    let known = before.remove(&key(&pod.metadata));
                    state.take(pod, known, &mut told);
                }
            }
            PodEvent::Applied(pod) => {
                let known = state.seen.as_mut().and_then(|seen| seen.remove(&key(&pod.metadata)));
                state.take(pod, known, &mut told);
            }
            PodEvent::Deleted { uid } => {
                if let Some(seen) = &mut state.seen {
                    seen.retain(|_, mirror| mirror.uid != *uid);
                }
            }
            PodEvent::Static(_) | PodEvent::Mirrored { .. } => {}
        }
        drop(state);
        self.changed.notify(1);
        told
    }

    /// The UID of the mirror of a static pod.
    #[must_use]
    pub fn uid_of(&self, pod: &Pod) -> Option<String> {
        let state = self.state();
        let seen = state.seen.as_ref()?.get(&key(&pod.metadata))?;
        (seen.hash == pod.metadata.uid && !seen.deleting).then(|| seen.uid.clone())
    }

    /// Makes and deletes mirrors for ever. `node` is the Node's name, `uid` its UID.
    pub async fn keep(&self, client: &Client, node: &str, uid: &str) {
        let mut pause = PAUSE.0;
        let mut outage = Outage::default();
        loop {
            let changed = self.changed.listen();
            let steps = self.state().steps();
            let mut failed = false;
            for step in &steps {
                if let Err(error) = self.perform(client, step, node, uid).await {
                    outage.report(&format!("keeping mirror pods ({step:?})"), &error);
                    failed = true;
                }
            }
            if failed {
                Timer::after(pause).await;
                pause = pause.saturating_mul(2).min(PAUSE.1);
                continue;
            }
            outage.over("keeping mirror pods");
            pause = PAUSE.0;
            changed.await;
        }
    }

    async fn perform(&self, client: &Client, step: &Step, node: &str, uid: &str) -> Result<(), ApiError> {
        let collection = |key: &Key| Pod::collection(Some(&key.0));
        match step {
            Step::Create(key) => {
                let pod = self.state().wanted.as_ref().and_then(|wanted| wanted.get(key).cloned());
                let Some(pod) = pod else { return Ok(()) };
                let what = format!("POST {}", collection(key));
                let body = serde_json::to_vec(&Typed::new(&mirror(pod, node, uid)));
                let body = body.map_err(|error| ApiError::Unusable { what, problem: error.to_string() })?;
                let made = client.read::<Pod>(Call::new(Method::POST, collection(key)).written(body)).await;
                let made = match made {
                    // The watch has not shown it yet.
                    Err(error) if error.is(409) => {
                        let path = format!("{}/{}", collection(key), key.1);
                        let found = client.read::<Pod>(Call::new(Method::GET, path)).await?;
                        if !found.metadata.annotations.contains_key(MIRROR) {
                            return Err(error);
                        }
                        found
                    }
                    made => made?,
                };
                // Known from here on, so that it is not made twice; the supervisor is told when the watch shows it.
                if let Some(seen) = &mut self.state().seen {
                    seen.entry(key.clone()).or_insert_with(|| Seen::of(&made, false));
                }
            }
            Step::Delete(key, uid) => {
                let options: Value = json!({
                    "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
                    "preconditions": {"uid": uid},
                });
                let path = format!("{}/{}", collection(key), key.1);
                match client.send(Call::new(Method::DELETE, path).json(&options).brief()).await {
                    Err(error) if !(error.is(404) || error.is(409)) => return Err(error),
                    _ => {}
                }
                if let Some(seen) = &mut self.state().seen {
                    seen.retain(|_, mirror| mirror.uid != *uid);
                }
            }
        }
        Ok(())
    }
}

impl State {
    /// Takes in one pod of the API server's; `known` is what was known of its name.
    fn take(&mut self, pod: &Pod, known: Option<Seen>, told: &mut Vec<PodEvent>) {
        let Some(hash) = pod.metadata.annotations.get(MIRROR) else { return };
        let Some(seen) = &mut self.seen else { return };
        // A new one has to be told all of the status; so has one that was found at the start.
        if known.is_none_or(|known| !known.told || known.uid != pod.metadata.uid) {
            let status: Box<PodStatus> = Box::new(pod.status.clone());
            told.push(PodEvent::Mirrored { uid: hash.clone(), status });
        }
        seen.insert(key(&pod.metadata), Seen::of(pod, true));
    }

    fn steps(&self) -> Vec<Step> {
        let (Some(wanted), Some(seen)) = (&self.wanted, &self.seen) else { return Vec::new() };
        let right = |key: &Key, mirror: &Seen| {
            !mirror.deleting && wanted.get(key).is_some_and(|pod| pod.metadata.uid == mirror.hash)
        };
        let wrong = seen.iter().filter(|(key, mirror)| !right(key, mirror));
        let deletes = wrong.map(|(key, mirror)| Step::Delete(key.clone(), mirror.uid.clone()));
        let missing = wanted.keys().filter(|key| seen.get(*key).is_none_or(|mirror| !right(key, mirror)));
        deletes.chain(missing.map(|key| Step::Create(key.clone()))).collect()
    }
}

fn key(meta: &ObjectMeta) -> Key {
    (meta.namespace.clone(), meta.name.clone())
}

/// What the API server is given of a static pod (NodeRestriction: it belongs to the Node, and to nothing else).
fn mirror(mut pod: Pod, node: &str, uid: &str) -> Pod {
    let meta = &mut pod.metadata;
    meta.annotations.insert(MIRROR.to_owned(), meta.uid.clone());
    meta.owner_references = vec![OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: node.to_owned(),
        uid: uid.to_owned(),
        controller: Some(true),
        ..OwnerReference::default()
    }];
    meta.uid = String::new();
    meta.creation_timestamp = None;
    meta.generation = 0;
    pod.spec.node_name = node.to_owned();
    pod.status = PodStatus::default();
    pod
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pod(name: &str, uid: &str, mirror: Option<&str>) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.namespace = "ns".into();
        pod.metadata.name = name.into();
        pod.metadata.uid = uid.into();
        pod.metadata.annotations =
            mirror.map(|hash| (MIRROR.to_owned(), hash.to_owned())).into_iter().collect();
        pod
    }

    fn name(name: &str) -> Key {
        ("ns".to_owned(), name.to_owned())
    }

    #[test]
    fn mirrors_are_made_deleted_and_made_again() {
        let mirrors = Mirrors::default();
        let steps = || mirrors.state().steps();
        mirrors.want(&[pod("a", "hash", None)]);
        assert!(steps().is_empty(), "the API server has shown nothing yet");
        let told = mirrors.see(&PodEvent::Set(vec![
            pod("orphan", "1", Some("old")),
            pod("a", "2", Some("other hash")),
            pod("ordinary", "3", None),
        ]));
        assert_eq!(told.len(), 2, "each image is new");
        let delete = |key, uid: &str| Step::Delete(name(key), uid.to_owned());
        assert_eq!(steps(), [delete("a", "2"), delete("orphan", "1"), Step::Create(name("a"))]);
        for uid in ["1", "2"] {
            mirrors.see(&PodEvent::Deleted { uid: uid.to_owned() });
        }
        assert_eq!(steps(), [Step::Create(name("a"))]);
        assert_eq!(mirrors.uid_of(&pod("a", "hash", None)), None);
        assert_eq!(mirrors.see(&PodEvent::Applied(Box::new(pod("a", "4", Some("hash"))))).len(), 1);
        assert_eq!(mirrors.uid_of(&pod("a", "hash", None)), Some("4".to_owned()));
        assert!(steps().is_empty());
        let again = mirrors.see(&PodEvent::Applied(Box::new(pod("a", "4", Some("hash")))));
        assert!(again.is_empty(), "its status is an echo of ours");
        // One that was made, and that the watch shows later.
        let made = Seen::of(&pod("a", "4", Some("hash")), false);
        mirrors.state().seen.as_mut().unwrap().insert(name("a"), made);
        assert!(steps().is_empty());
        assert_eq!(mirrors.see(&PodEvent::Applied(Box::new(pod("a", "4", Some("hash"))))).len(), 1);
        // Somebody deletes it: it goes at once, and comes again.
        let mut deleting = pod("a", "4", Some("hash"));
        deleting.metadata.deletion_timestamp = Some(crate::api::Time::from(jiff::Timestamp::UNIX_EPOCH));
        mirrors.see(&PodEvent::Applied(Box::new(deleting)));
        assert_eq!(steps(), [delete("a", "4"), Step::Create(name("a"))]);
        // The file goes.
        mirrors.see(&PodEvent::Applied(Box::new(pod("a", "5", Some("hash")))));
        mirrors.want(&[]);
        assert_eq!(steps(), [delete("a", "5")]);
    }

    #[test]
    fn a_mirror_belongs_to_its_node_alone() {
        let made = mirror(pod("a", "hash", None), "pi", "node-uid");
        assert_eq!(made.metadata.annotations.get(MIRROR).map(String::as_str), Some("hash"));
        let owner = made.metadata.owner_references.first().unwrap();
        assert_eq!(
            (owner.uid.as_str(), owner.controller, owner.block_owner_deletion),
            ("node-uid", Some(true), None)
        );
        assert!(made.metadata.uid.is_empty() && made.spec.node_name == "pi");
    }
}
