//! Certificates come to an end. Each is renewed in the last third of its life, with a new key, and at once when what
//! it says is not so any more (`client-go/util/certificate/certificate_manager.go`).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_io::Timer;
use futures_lite::future::or;
use jiff::{SignedDuration, Timestamp};

use super::certificates::{Facts, Identity};
use super::csr::ObtainError;
use crate::durable::ClockStep;
use crate::supervisor::BoxFuture;

/// Shares of its life after which a certificate is renewed, in thousandths: at a random moment between them, so that
/// a site that was set up in one day does not ask for all of its certificates in one minute.
const RENEWAL: (i64, i64) = (700, 900);
/// First and longest pause after a request that led to nothing (a kubelet's: 2 s, doubled, 32 s).
const PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(32));
/// The longest after a refusal: the next request writes a new key, and is another object in the cluster.
const REFUSED_PAUSE: Duration = Duration::from_secs(300);

/// Why there is no certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// For a person.
    pub text: String,
    /// Somebody said no.
    pub refused: bool,
}

impl From<String> for Trouble {
    fn from(text: String) -> Trouble {
        Trouble { text, refused: false }
    }
}

impl From<ObtainError> for Trouble {
    fn from(error: ObtainError) -> Trouble {
        Trouble { text: error.to_string(), refused: error.is_refusal() }
    }
}

/// A certificate as it is renewed.
pub trait Renewal: Sync {
    /// What it is, for messages.
    fn what(&self) -> &'static str;
    /// Whether a certificate says what it has to.
    fn is_right(&self, facts: &Facts) -> bool;
    /// Done when [`Renewal::is_right`] may have another answer.
    fn changed(&self) -> BoxFuture<'_, ()>;
    /// Asks for one with a new key and waits until it is signed. `expired`: with the old one nobody can ask any more.
    fn sign(&self, expired: bool) -> BoxFuture<'_, Result<Identity, Trouble>>;
    /// Uses it from now on.
    fn adopt<'a>(&'a self, identity: &'a Identity) -> BoxFuture<'a, Result<(), String>>;
}

/// The time by which certificates are reckoned.
pub trait Calendar: Sync {
    /// What it is.
    fn now(&self) -> Timestamp;
    /// Waits until then, or until the clock is set.
    fn until(&self, at: Timestamp) -> BoxFuture<'_, ()>;
    /// Waits for so long.
    fn pause(&self, time: Duration) -> BoxFuture<'_, ()>;
    /// A random number below `limit`.
    fn random(&self, limit: i64) -> i64;
}

/// The machine's own clock.
pub struct WallClock;

impl Calendar for WallClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
    fn until(&self, at: Timestamp) -> BoxFuture<'_, ()> {
        Box::pin(async move { ClockStep::until(at).wait().await })
    }
    fn pause(&self, time: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            Timer::after(time).await;
        })
    }
    fn random(&self, limit: i64) -> i64 {
        fastrand::i64(0..limit.max(1))
    }
}

/// When a certificate is to be renewed.
fn renew_at(facts: &Facts, calendar: &dyn Calendar) -> Timestamp {
    let life = facts.not_after.duration_since(facts.not_before).as_secs().max(0);
    let share = RENEWAL.0.saturating_add(calendar.random(RENEWAL.1 - RENEWAL.0));
    let after = life.saturating_mul(share) / 1000;
    facts.not_before.checked_add(SignedDuration::from_secs(after)).unwrap_or(facts.not_after)
}

/// Keeps a certificate renewed, for ever. `current` is in use already, if there is one.
pub async fn keep(renewal: &dyn Renewal, calendar: &dyn Calendar, mut current: Option<Identity>) {
    let what = renewal.what();
    let mut pause = PAUSE.0;
    let mut told = String::new();
    loop {
        if let Some(identity) = &current {
            rest(renewal, calendar, &identity.facts).await;
        }
        let expired = current.as_ref().is_none_or(|identity| identity.facts.expired(calendar.now()));
        let signed = async { Some(renewal.sign(expired).await) };
        let changed = async {
            renewal.changed().await;
            None
        };
        let problem = match or(signed, changed).await {
            // What was asked for is not what is needed any more.
            None => continue,
            Some(Err(problem)) => problem,
            Some(Ok(identity)) => {
                let adopted = renewal.adopt(&identity).await;
                let ends = identity.facts.not_after;
                current = Some(identity);
                match adopted {
                    Ok(()) => {
                        log::info!("the {what} is new, and holds until {ends:.0}");
                        (pause, told) = (PAUSE.0, String::new());
                        continue;
                    }
                    Err(problem) => Trouble::from(problem),
                }
            }
        };
        if problem.text != told {
            log::error!("the {what}: {}; trying again", problem.text);
            told = problem.text;
        }
        let longest = if problem.refused { REFUSED_PAUSE } else { PAUSE.1 };
        pause = pause.min(longest);
        let jitter = u32::try_from(calendar.random(100)).unwrap_or(0);
        calendar.pause(pause.saturating_add(pause.saturating_mul(jitter) / 1000)).await;
        pause = pause.saturating_mul(2).min(REFUSED_PAUSE);
    }
}

/// Waits until a certificate is due to be renewed.
async fn rest(renewal: &dyn Renewal, calendar: &dyn Calendar, facts: &Facts) {
    let what = renewal.what();
    let due = renew_at(facts, calendar);
    log::debug!("the {what} holds until {:.0}, and is renewed at {due:.0}", facts.not_after);
    while renewal.is_right(facts) && calendar.now() < due {
        or(calendar.until(due), renewal.changed()).await;
    }
}

/// When the certificates that are used now end.
#[derive(Debug, Default)]
pub struct CertificateEnds(Mutex<[Option<Timestamp>; 2]>);

impl CertificateEnds {
    fn ends(&self) -> [Option<Timestamp>; 2] {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of the client certificate, if the node has one.
    #[must_use]
    pub fn client(&self) -> Option<Timestamp> {
        let [client, _] = self.ends();
        client
    }

    /// Of the serving certificate, if somebody signed it.
    #[must_use]
    pub fn serving(&self) -> Option<Timestamp> {
        let [_, serving] = self.ends();
        serving
    }

    /// Another client certificate.
    pub fn set_client(&self, facts: &Facts) {
        let [client, _] = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *client = Some(facts.not_after);
    }

    /// Another serving certificate.
    pub fn set_serving(&self, facts: &Facts) {
        let [_, serving] = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *serving = Some(facts.not_after);
    }
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;
