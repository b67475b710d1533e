//! Brings a pod's status to the API server, and its final delete: on change only, later when it is away,
//! never again what it refused.

use std::sync::Arc;
use std::time::Duration;

use super::api::ApiFailure;
use super::inbox::Message;
use super::{Entry, Shared};
use crate::api::{Pod, PodStatus};
use crate::control::{self, Task};
use crate::pod::conditions::is_owned;
use crate::pod::events::pod_label;
use crate::pod::patch::status_patch;
use crate::pod::status::is_final;

/// First wait after the API server did not answer.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Longest wait: what is to be reported is not older than this once the API server is back.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// Wait after a 403: somebody has to give this node a right, and 1000 pods may wait for it.
const FORBIDDEN_RETRY: Duration = Duration::from_secs(60);

/// How long the API server may show something else than it accepted before it is told again
/// (`status_manager.go`: `syncPeriod`): so long an older version may still be on its way here.
const DRIFT: Duration = Duration::from_secs(10);

/// When something may be tried again.
#[derive(Default)]
struct Retry {
    at: Duration,
    wait: Duration,
}

impl Retry {
    /// Puts it off; true when it is the first time in a row, which is worth a word in the log.
    fn put_off(&mut self, forbidden: bool, now: Duration) -> bool {
        let first = self.wait.is_zero();
        self.wait = match forbidden {
            true => FORBIDDEN_RETRY,
            false if first => FIRST_RETRY,
            false => self.wait.saturating_mul(2).min(LONGEST_RETRY),
        };
        // Half a wait of jitter, so that not all pods ask at once when the API server is back.
        self.at = now.saturating_add(self.wait.mul_f64(0.75 + fastrand::f64() / 2.0));
        first
    }

    fn due(&self, now: Duration) -> bool {
        now >= self.at
    }

    fn reset(&mut self) {
        *self = Retry::default();
    }
}

/// See the module.
pub struct Reporter {
    /// What the API server has.
    accepted: Arc<PodStatus>,
    /// What it will never take.
    refused: Option<Arc<PodStatus>>,
    /// On its way.
    sending: Option<(Arc<PodStatus>, Task<()>)>,
    deleting: Option<Task<()>>,
    /// The object is not there, or is another's, since this version of it: the watch will say more.
    gone: Option<String>,
    /// The version that was seen when the last patch was sent: only a later one tells of drift.
    sent_at: Option<String>,
    /// Since when the API server shows something else than it accepted.
    drift: Option<Duration>,
    retry: Retry,
    delete_retry: Retry,
}

/// What an answer means for the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing.
    None,
    /// The API server shows a final phase, or will never take one.
    Settled,
}

impl Reporter {
    /// Begins with what the API server shows.
    pub fn new(accepted: Arc<PodStatus>) -> Reporter {
        Reporter {
            accepted,
            refused: None,
            sending: None,
            deleting: None,
            gone: None,
            sent_at: None,
            drift: None,
            retry: Retry::default(),
            delete_retry: Retry::default(),
        }
    }

    /// Reports `status` if it is news. When to look again comes back, if time alone makes a difference.
    pub fn offer(
        &mut self,
        shared: &Arc<Shared>,
        pod: &Arc<Pod>,
        status: &Arc<PodStatus>,
        entry: &Arc<Entry>,
    ) -> Option<Duration> {
        let now = shared.clock.now().mono;
        let gone = self.gone.as_ref() == Some(&pod.metadata.resource_version);
        if gone || self.sending.is_some() || self.refused.as_ref() == Some(status) {
            return None;
        }
        let drift = self.check_drift(pod, now);
        let Some(patch) = status_patch(pod, &self.accepted, status) else { return drift };
        if !self.retry.due(now) {
            return Some(self.retry.at);
        }
        self.sent_at = Some(pod.metadata.resource_version.clone());
        self.drift = None;
        let (shared, pod, sent, entry) = (shared.clone(), pod.clone(), status.clone(), entry.clone());
        let task = control::spawn(async move {
            let answer = shared.api.patch_status(&pod, &sent, patch).await;
            entry.inbox.put(Message::Patched(answer));
        });
        self.sending = Some((status.clone(), task));
        None
    }

    /// Others write to a status too: the node controller sets Ready to False when it misses this node's
    /// heartbeat. What the API server goes on to show counts, not what it once accepted.
    fn check_drift(&mut self, pod: &Pod, now: Duration) -> Option<Duration> {
        let seen = self.sent_at.as_ref().is_some_and(|sent| *sent != pod.metadata.resource_version);
        let state = |status: &PodStatus, kind: &str| {
            status.conditions.iter().find(|condition| condition.kind == kind).map(|c| c.status.clone())
        };
        let differs = self
            .accepted
            .conditions
            .iter()
            .any(|accepted| state(&pod.status, &accepted.kind).as_ref() != Some(&accepted.status));
        if !seen || !differs {
            self.drift = None;
            return None;
        }
        let since = *self.drift.get_or_insert(now);
        let due = since.saturating_add(DRIFT);
        if now < due {
            return Some(due);
        }
        self.drift = None;
        Arc::make_mut(&mut self.accepted).conditions =
            pod.status.conditions.iter().filter(|c| is_owned(&c.kind)).cloned().collect();
        None
    }

    /// Takes the answer to a patch.
    pub fn patched(&mut self, pod: &Pod, answer: Result<(), ApiFailure>, now: Duration) -> Answer {
        let Some((sent, _)) = self.sending.take() else { return Answer::None };
        // A pod whose object is gone is not over for that: the watch will say so, and its guests end then.
        let settled = if is_final(&sent.phase) { Answer::Settled } else { Answer::None };
        match answer {
            Ok(()) => {
                self.accepted = sent;
                self.refused = None;
                self.retry.reset();
                settled
            }
            Err(error) if error.means_gone() => {
                log::debug!("pod {}: its status has nowhere to go: {error}", pod_label(pod));
                self.gone.clone_from(&self.sent_at);
                settled
            }
            Err(ApiFailure::Invalid(error)) => {
                log::error!("pod {}: the API server refuses its status: {error}", pod_label(pod));
                self.refused = Some(sent);
                settled
            }
            Err(ApiFailure::Forbidden(error)) => {
                if self.retry.put_off(true, now) {
                    log::error!(
                        "pod {}: this node may not write its status, trying again each minute: {error}",
                        pod_label(pod)
                    );
                }
                Answer::None
            }
            Err(error) => {
                if self.retry.put_off(false, now) {
                    log::debug!("pod {}: its status waits for the API server: {error}", pod_label(pod));
                }
                Answer::None
            }
        }
    }

    /// Deletes the pod's object, unless that is on its way. When to look again comes back.
    pub fn delete(&mut self, shared: &Arc<Shared>, pod: &Arc<Pod>, entry: &Arc<Entry>) -> Option<Duration> {
        if self.deleting.is_some() {
            return None;
        }
        if !self.delete_retry.due(shared.clock.now().mono) {
            return Some(self.delete_retry.at);
        }
        let (shared, pod, entry) = (shared.clone(), pod.clone(), entry.clone());
        self.deleting = Some(control::spawn(async move {
            // Nothing of it is left here when it is gone there.
            shared.remove_volumes(&entry, &pod).await;
            let answer = shared.api.delete(&pod).await;
            entry.inbox.put(Message::Deleted(answer));
        }));
        None
    }

    /// Takes the answer to the delete; true when there is nothing left to delete.
    pub fn deleted(&mut self, pod: &Pod, answer: Result<(), ApiFailure>, now: Duration) -> bool {
        self.deleting = None;
        match answer {
            Ok(()) => true,
            Err(error) if error.means_gone() => true,
            Err(error) => {
                let lasting = matches!(error, ApiFailure::Forbidden(_) | ApiFailure::Invalid(_));
                if self.delete_retry.put_off(lasting, now) {
                    log::warn!("pod {}: cannot delete it yet, trying again: {error}", pod_label(pod));
                }
                false
            }
        }
    }
}
