//! The whole calendar of certificates, on a clock that jumps to whatever is waited for.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::VecDeque;
use std::sync::Arc;

use super::*;
use crate::supervisor::Signal;

const DAY: i64 = 86_400;

fn facts(not_before: Timestamp, life: i64) -> Facts {
    Facts {
        common_name: "system:node:n".to_owned(),
        not_before,
        not_after: not_before + SignedDuration::from_secs(life),
        dns_names: vec![],
        addresses: vec![],
    }
}

fn identity(not_before: Timestamp, life: i64) -> Identity {
    Identity { certificate: String::new(), key: String::new(), facts: facts(not_before, life) }
}

/// A clock, a signer and a user of certificates.
struct World {
    now: Mutex<Timestamp>,
    /// What the signer does next: signs for so many seconds, or not.
    script: Mutex<VecDeque<Result<i64, &'static str>>>,
    /// When it was asked, and whether with an expired certificate.
    asked: Mutex<Vec<(Timestamp, bool)>>,
    adopted: Mutex<Vec<Timestamp>>,
    pauses: Mutex<Vec<Duration>>,
    /// The clock is set to this during the next wait.
    set: Mutex<Option<Timestamp>>,
    right: std::sync::atomic::AtomicBool,
    changed: Signal,
    over: Signal,
}

fn start() -> Timestamp {
    "2026-03-01T00:00:00Z".parse().unwrap()
}

impl World {
    fn new(script: &[Result<i64, &'static str>]) -> Arc<World> {
        Arc::new(World {
            now: Mutex::new(start()),
            script: Mutex::new(script.iter().copied().collect()),
            asked: Mutex::default(),
            adopted: Mutex::default(),
            pauses: Mutex::default(),
            set: Mutex::default(),
            right: true.into(),
            changed: Signal::default(),
            over: Signal::default(),
        })
    }

    fn play(&self, current: Option<Identity>) {
        async_io::block_on(or(
            async {
                keep(self, self, current).await;
            },
            self.over.wait(),
        ));
    }

    fn asked(&self) -> Vec<(Timestamp, bool)> {
        self.asked.lock().unwrap().clone()
    }
}

impl Calendar for World {
    fn now(&self) -> Timestamp {
        *self.now.lock().unwrap()
    }
    fn until(&self, at: Timestamp) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // Whatever else can happen, happens first.
            futures_lite::future::yield_now().await;
            let set = self.set.lock().unwrap().take();
            *self.now.lock().unwrap() = set.unwrap_or(at);
        })
    }
    fn pause(&self, time: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.pauses.lock().unwrap().push(time);
            let mut now = self.now.lock().unwrap();
            *now += SignedDuration::try_from(time).unwrap();
        })
    }
    fn random(&self, limit: i64) -> i64 {
        fastrand::i64(0..limit)
    }
}

impl Renewal for World {
    fn what(&self) -> &'static str {
        "certificate"
    }
    fn is_right(&self, _facts: &Facts) -> bool {
        self.right.load(std::sync::atomic::Ordering::Relaxed)
    }
    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.changed.wait())
    }
    fn sign(&self, expired: bool) -> BoxFuture<'_, Result<Identity, Trouble>> {
        Box::pin(async move {
            let now = Calendar::now(self);
            self.asked.lock().unwrap().push((now, expired));
            let next = self.script.lock().unwrap().pop_front();
            match next {
                None => {
                    self.over.give();
                    std::future::pending().await
                }
                Some(Err("hangs")) => std::future::pending().await,
                Some(Err(problem)) => Err(Trouble { text: problem.to_owned(), refused: problem == "denied" }),
                Some(Ok(life)) => {
                    self.right.store(true, std::sync::atomic::Ordering::Relaxed);
                    Ok(identity(now, life))
                }
            }
        })
    }
    fn adopt<'a>(&'a self, identity: &'a Identity) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            self.adopted.lock().unwrap().push(identity.facts.not_before);
            Ok(())
        })
    }
}

#[test]
fn ten_years_of_certificates_of_a_year_are_each_renewed_between_seven_and_nine_tenths() {
    let world = World::new(&[Ok(365 * DAY); 12]);
    world.play(Some(identity(start(), 365 * DAY)));
    let asked = world.asked();
    assert_eq!(world.adopted.lock().unwrap().len(), 12);
    let mut before = start();
    let mut shares = Vec::new();
    for (at, expired) in &asked {
        let share = at.duration_since(before).as_secs() * 1000 / (365 * DAY);
        assert!((699..900).contains(&share) && !expired, "{share} ‰");
        shares.push(share);
        before = *at;
    }
    shares.dedup();
    assert!(shares.len() > 6, "each at a moment of its own: {shares:?}");
    assert!(world.pauses.lock().unwrap().is_empty());
}

#[test]
fn what_has_expired_or_is_not_there_is_asked_for_at_once() {
    let long_ago = start() - SignedDuration::from_secs(10 * DAY);
    for current in [None, Some(identity(long_ago, DAY))] {
        let world = World::new(&[Ok(DAY)]);
        world.play(current);
        assert_eq!(world.asked()[0], (start(), true));
        assert!(!world.asked()[1].1, "the new one is renewed before its end");
    }
}

#[test]
fn refusals_and_silence_are_tried_again_later_and_later_and_the_end_changes_how() {
    let mut script = vec![Err("denied"); 12];
    script.push(Ok(DAY));
    script.push(Err("denied"));
    let world = World::new(&script);
    // Twenty minutes: it expires while nobody signs.
    world.play(Some(identity(start(), 1200)));
    let pauses: Vec<u64> = world.pauses.lock().unwrap().iter().map(Duration::as_secs).collect();
    for (pause, wanted) in pauses.iter().zip([2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]) {
        assert!((wanted..=wanted * 11 / 10).contains(pause), "{pauses:?}");
    }
    assert_eq!(pauses[12], 2, "after one that was signed it begins anew: {pauses:?}");
    let expired: Vec<bool> = world.asked().iter().map(|(_, expired)| *expired).collect();
    assert!(!expired[0] && expired[11] && expired[12], "{expired:?}");
    assert!(!expired[13], "the new one has not");
}

#[test]
fn an_api_server_that_is_away_is_asked_every_half_minute() {
    let world = World::new(&[Err("away"); 9]);
    world.play(None);
    let pauses: Vec<u64> = world.pauses.lock().unwrap().iter().map(Duration::as_secs).collect();
    for (pause, wanted) in pauses.iter().zip([2, 4, 8, 16, 32, 32, 32, 32, 32]) {
        assert!((wanted..=wanted * 11 / 10).contains(pause), "{pauses:?}");
    }
}

#[test]
fn a_change_of_what_it_must_say_asks_at_once_also_in_place_of_what_is_asked_for() {
    let world = World::new(&[Err("hangs"), Ok(365 * DAY)]);
    let teller = world.clone();
    world.right.store(false, std::sync::atomic::Ordering::Relaxed);
    let told = std::thread::spawn(move || {
        // The first request hangs: nobody approves it. Then the address changes again.
        while teller.asked().is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
        teller.changed.give();
    });
    world.play(Some(identity(start(), 365 * DAY)));
    told.join().unwrap();
    let asked = world.asked();
    assert_eq!((asked[0], asked[1]), ((start(), false), (start(), false)));
    assert!(asked[2].0 > start() + SignedDuration::from_secs(200 * DAY), "{asked:?}");
}

#[test]
fn a_clock_that_is_set_back_renews_nothing_early() {
    let world = World::new(&[Ok(365 * DAY)]);
    *world.set.lock().unwrap() = Some("1970-01-01T00:00:10Z".parse().unwrap());
    world.play(Some(identity(start(), 365 * DAY)));
    let (at, expired) = world.asked()[0];
    assert!(at > start() + SignedDuration::from_secs(250 * DAY) && !expired, "{at}");
    // And one that is set past its end finds it expired.
    let world = World::new(&[Ok(365 * DAY)]);
    *world.set.lock().unwrap() = Some(start() + SignedDuration::from_secs(400 * DAY));
    world.play(Some(identity(start(), 365 * DAY)));
    assert_eq!(world.asked()[0], (start() + SignedDuration::from_secs(400 * DAY), true));
}
