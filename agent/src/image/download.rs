//! Streams a blob from a registry to the disk, hashed on its way, and taken up again where the connection breaks.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::digest::{Digest, Hasher};
use super::error::{PullCause, RegistryError};
use super::formats::{self, MAGIC};
use super::http::Reply;
use super::registry::Session;
use super::store::Ingest;

/// A module is written and hashed in pieces of this size.
const CHUNK: usize = 64 << 10;
/// A whole pull; a 20 MB module over 50 kbit/s takes 54 minutes.
const LONGEST_PULL: Duration = Duration::from_secs(3600);
const TOO_LONG: &str = "not done after 60 minutes";
/// Waits before a broken download is taken up again; after as many tries without a byte it has
/// failed, and the back-off of image pulls takes over.
const RESUME_WAITS: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(3)];

/// Least that must come of a module in each [`PACE_TIME`], in bytes: a tenth of what a modem brings. One pull
/// runs at a time, and one registry that trickles must not keep all others waiting.
const PACE_BYTES: u64 = 64 << 10;
const PACE_TIME: Duration = Duration::from_secs(60);

/// How far a pull may go.
#[derive(Clone, Copy)]
pub(super) struct Limits<'a> {
    deadline: Instant,
    cancelled: &'a AtomicBool,
}

impl<'a> Limits<'a> {
    /// Of a pull that begins now.
    pub(super) fn new(cancelled: &'a AtomicBool) -> Limits<'a> {
        Limits { deadline: Instant::now() + LONGEST_PULL, cancelled }
    }

    /// To be asked before each request and each read.
    pub(super) fn check(&self) -> Result<(), PullCause> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(PullCause::GivenUp("nobody waits for it any more"));
        }
        if Instant::now() >= self.deadline {
            return Err(PullCause::GivenUp(TOO_LONG));
        }
        Ok(())
    }
}

/// Streams a layer of so many bytes to the disk, taking it up again where the connection breaks. What must be a
/// module is looked at as it comes.
pub(super) fn download(
    session: &mut Session,
    ingest: Ingest,
    (digest, size): (&Digest, u64),
    is_module: bool,
    limits: Limits<'_>,
) -> Result<Ingest, PullCause> {
    let what = format!("layer {digest}");
    let mut target = Target {
        ingest,
        hasher: Hasher::new(digest.algorithm()),
        head: is_module.then(Vec::new),
        size,
        limits,
        pace: Pace { since: Instant::now(), from: 0, furthest: 0 },
    };
    let mut waits = RESUME_WAITS.iter();
    loop {
        let before = target.ingest.written();
        limits.check()?;
        let broken = match session.blob(digest, before) {
            Ok(reply) => match target.fill(reply)? {
                None => break,
                Some(why) => RegistryError::Unavailable(why),
            },
            Err(error @ RegistryError::Unavailable(_)) => error,
            Err(error) => return Err(PullCause::Fetch { what, error }),
        };
        if target.ingest.written() > before {
            waits = RESUME_WAITS.iter();
        }
        match waits.next() {
            Some(wait) => thread::sleep(*wait),
            None => return Err(PullCause::Fetch { what, error: broken }),
        }
    }
    if let Some(head) = &target.head {
        formats::check_magic(head).map_err(PullCause::Unrunnable)?;
    }
    let found = target.hasher.finish();
    if found != *digest {
        return Err(PullCause::Corrupt(format!(
            "the layer has the digest {found}, and should have {digest}"
        )));
    }
    Ok(target.ingest)
}

/// How fast a module comes.
struct Pace {
    /// Since when it is watched, and how far it had come then.
    since: Instant,
    from: u64,
    furthest: u64,
}

impl Pace {
    /// Whether it comes fast enough, `written` bytes being here at `now`. What is sent again does not count.
    fn is_kept(&mut self, written: u64, now: Instant) -> bool {
        self.furthest = self.furthest.max(written);
        if now.saturating_duration_since(self.since) < PACE_TIME {
            return true;
        }
        let come = self.furthest.saturating_sub(self.from);
        (self.since, self.from) = (now, self.furthest);
        come >= PACE_BYTES
    }
}

/// A module on its way to the disk.
struct Target<'a> {
    ingest: Ingest,
    hasher: Hasher,
    /// The first [`MAGIC`] bytes, of what must be a module.
    head: Option<Vec<u8>>,
    size: u64,
    limits: Limits<'a>,
    pace: Pace,
}

impl Target<'_> {
    /// Takes in an answer. None when all is there, else why it broke off.
    fn fill(&mut self, reply: Reply) -> Result<Option<String>, PullCause> {
        if !self.continues(&reply) {
            self.restart()?;
        }
        let mut reader = reply.into_body().into_with_config().limit(u64::MAX).reader();
        let mut chunk = vec![0; CHUNK];
        loop {
            self.limits.check()?;
            if !self.pace.is_kept(self.ingest.written(), Instant::now()) {
                // Not taken up again: this registry is as slow the next moment.
                let why = format!("less than {PACE_BYTES} bytes came in {} s", PACE_TIME.as_secs());
                let error = RegistryError::Unavailable(why);
                return Err(PullCause::Fetch { what: "layer".to_owned(), error });
            }
            match reader.read(&mut chunk) {
                Ok(0) if self.ingest.written() == self.size => return Ok(None),
                Ok(0) => {
                    return Ok(Some(format!("ended after {} of {} bytes", self.ingest.written(), self.size)))
                }
                Ok(read) => self.append(chunk.get(..read).unwrap_or_default())?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Ok(Some(error.to_string())),
            }
        }
    }

    /// Whether an answer goes on where the file ends: 206 with that very start.
    fn continues(&self, reply: &Reply) -> bool {
        let range = reply.headers().get("content-range").and_then(|value| value.to_str().ok());
        let start =
            range.and_then(|r| r.strip_prefix("bytes ")?.split('-').next()?.trim().parse::<u64>().ok());
        reply.status() == 206 && start == Some(self.ingest.written())
    }

    fn restart(&mut self) -> Result<(), PullCause> {
        if self.ingest.written() > 0 {
            self.ingest.restart().map_err(PullCause::Store)?;
            self.hasher = Hasher::new(self.hasher.algorithm());
            self.head.iter_mut().for_each(Vec::clear);
        }
        Ok(())
    }

    fn append(&mut self, data: &[u8]) -> Result<(), PullCause> {
        if data.len() as u64 > self.size.saturating_sub(self.ingest.written()) {
            return Err(PullCause::Corrupt(format!(
                "the layer is longer than the {} bytes it should have",
                self.size
            )));
        }
        if let Some(head) = self.head.as_mut().filter(|head| head.len() < MAGIC) {
            head.extend(data.iter().take(MAGIC.saturating_sub(head.len())));
            if head.len() == MAGIC {
                // Now, and not after twenty megabytes.
                formats::check_magic(head).map_err(PullCause::Unrunnable)?;
            }
        }
        self.hasher.update(data);
        self.ingest.append(data).map_err(PullCause::Store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_that_trickles_is_told_from_one_that_is_slow() {
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let mut pace = Pace { since: begun, from: 0, furthest: 0 };
        let (least, mut come) = (PACE_BYTES, 0);
        assert!(pace.is_kept(0, after(59)), "a minute is not over");
        for minute in 1..5 {
            come += least;
            assert!(pace.is_kept(come, after(minute * 60)));
        }
        assert!(pace.is_kept(come, after(299)));
        assert!(!pace.is_kept(come + least - 1, after(300)));

        let mut again = Pace { since: begun, from: 0, furthest: 0 };
        assert!(again.is_kept(least, after(60)));
        assert!(again.is_kept(0, after(61)), "it begins anew");
        assert!(!again.is_kept(least, after(120)), "what was here before is no news");
    }
}
