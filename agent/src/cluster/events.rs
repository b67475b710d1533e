//! Events: what `kubectl describe` shows of what happened (core/v1).
//!
//! As a kubelet's recorder does it: the same event again raises the count of the one that is there; more
//! than ten that differ only in their message become one "(combined from similar events)"; an
//! object that makes too many is cut short. Recording never waits. While the API server is away events wait for
//! it, the oldest of them, as long as it would have kept them; what has no room then is dropped.

use std::collections::VecDeque;
use std::time::Duration;

use async_channel::{Receiver, Sender, TrySendError};
use async_io::Timer;
use http::Method;
use jiff::Timestamp;
use serde_json::json;

use super::client::{Call, Client, Patch};
use super::error::ApiError;
use crate::api::{Event, EventSource, Object, ObjectMeta, ObjectReference, Time, Typed};
use crate::control;
use crate::durable::clock::Now;
use crate::pod::events::EventKind;

/// Events that wait to be sent.
const QUEUE: usize = 256;
/// How long the API server keeps an event (`--event-ttl`): later nobody would be told any more.
const LIFE: Duration = Duration::from_secs(3600);
/// Tries that are answered, and in vain, until an event is given up (client-go: `maxTriesPerEvent`).
const TRIES: u32 = 12;
/// Between two tries to send the same event (client-go).
const PAUSE: Duration = Duration::from_secs(10);
/// Events that are remembered, so that the same again is counted.
const REMEMBERED: usize = 128;
/// So many alike but for their message, within [`WINDOW`], before they are combined (client-go).
const SIMILAR: usize = 10;
/// An event that was not seen for so long counts as new (client-go).
const WINDOW: Duration = Duration::from_secs(600);
/// Events about one object at once, and how long until one more may follow (client-go's spam filter).
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);
/// Characters of a message; the API server takes 1024.
const MAX_MESSAGE: usize = 1024;

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
struct Note {
    object: ObjectReference,
    kind: &'static str,
    reason: String,
    message: String,
    at: Now,
}

/// Records events. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    queue: Sender<Note>,
}

impl Recorder {
    /// A recorder for this node, and the task that sends what it records.
    #[must_use]
    pub fn start(client: Client, node: &str) -> Recorder {
        let (queue, notes) = async_channel::bounded(QUEUE);
        let source = EventSource { component: "kubelet".into(), host: node.to_owned() };
        control::spawn(send_all(client, source, notes)).detach();
        Recorder { queue }
    }

    /// Records an event. Never waits.
    pub fn record(&self, object: ObjectReference, kind: EventKind, reason: &str, message: &str) {
        self.record_at(Now::read(), object, kind, reason, message);
    }

    /// Records an event of some time before. Never waits.
    pub fn record_at(&self, at: Now, object: ObjectReference, kind: EventKind, reason: &str, message: &str) {
        let note = Note {
            object,
            kind: kind.as_str(),
            reason: reason.to_owned(),
            message: message.chars().take(MAX_MESSAGE).collect(),
            at,
        };
        if let Err(TrySendError::Full(note)) = self.queue.try_send(note) {
            log::debug!("an event is dropped, {QUEUE} wait already: {} {}", note.reason, note.message);
        }
    }
}

async fn send_all(client: Client, source: EventSource, notes: Receiver<Note>) {
    let mut memory = Memory::default();
    while let Ok(note) = notes.recv().await {
        let Some(step) = memory.step(&note) else { continue };
        let mut sent = send(&client, &source, &note, &step).await;
        let mut answers = 0;
        while sent.as_ref().is_err_and(may_work_later) && age(&note) < LIFE && answers < TRIES {
            // One event that the API server chokes on must not hold up the others for long.
            answers += u32::from(sent.as_ref().is_err_and(|error| error.code().is_some()));
            Timer::after(PAUSE.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
            sent = send(&client, &source, &note, &step).await;
        }
        match sent {
            // A try whose answer was lost has made it.
            Err(error) if error.is(409) => {}
            Err(error) => {
                log::debug!("event {} {}: {error}", note.reason, note.object.name);
                if !error.is(403) {
                    memory.forget(&step.name);
                }
            }
            Ok(()) => {}
        }
    }
}

/// The API server was not reached, or had no time.
fn may_work_later(error: &ApiError) -> bool {
    error.code().is_none_or(|code| code == 429 || code >= 500)
}

fn age(note: &Note) -> Duration {
    Now::read().mono.saturating_sub(note.at.mono)
}

async fn send(client: &Client, source: &EventSource, note: &Note, step: &Step) -> Result<(), ApiError> {
    // An event of an object without a namespace lives in `default`.
    let namespace = match note.object.namespace.as_str() {
        "" => "default",
        namespace => namespace,
    };
    let events = Event::collection(Some(namespace));
    let now = Time::from(note.at.wall);
    if step.count > 1 {
        let patch = json!({"count": step.count, "lastTimestamp": now, "message": step.message});
        let call = Call::patch(format!("{events}/{}", step.name), Patch::Strategic, &patch);
        match client.send(call).await {
            // It lives an hour; then it is made anew.
            Err(error) if error.is(404) => {}
            other => return other.map(drop),
        }
    }
    let event = Event {
        metadata: ObjectMeta {
            name: step.name.clone(),
            namespace: namespace.to_owned(),
            ..ObjectMeta::default()
        },
        involved_object: note.object.clone(),
        reason: note.reason.clone(),
        message: step.message.clone(),
        source: source.clone(),
        first_timestamp: Some(Time::from(step.first)),
        last_timestamp: Some(now),
        count: i32::try_from(step.count).unwrap_or(i32::MAX),
        kind: note.kind.to_owned(),
        reporting_component: source.component.clone(),
        reporting_instance: source.host.clone(),
    };
    client.send(Call::new(Method::POST, events).json(&json!(Typed::new(&event)))).await.map(drop)
}

/// What to send for a note.
#[derive(Clone, Debug, PartialEq)]
struct Step {
    name: String,
    count: u32,
    first: Timestamp,
    message: String,
}

/// What was sent lately. Pure: time comes with the notes.
#[derive(Default)]
struct Memory {
    seen: VecDeque<Seen>,
    similar: VecDeque<Similar>,
    budgets: VecDeque<Budget>,
}

struct Seen {
    note: Note,
    step: Step,
}

struct Similar {
    note: Note,
    /// Different ones, at most [`SIMILAR`].
    messages: Vec<String>,
    last: Duration,
}

struct Budget {
    uid: String,
    tokens: f64,
    at: Duration,
}

impl Note {
    fn similar_to(&self, other: &Note) -> bool {
        self.object.uid == other.object.uid
            && self.object.field_path == other.object.field_path
            && self.kind == other.kind
            && self.reason == other.reason
    }
}

impl Memory {
    fn step(&mut self, note: &Note) -> Option<Step> {
        let message = self.combine(note);
        if !self.afford(note) {
            return None;
        }
        let fresh = |at: Duration| note.at.mono.saturating_sub(at) < WINDOW;
        let known = self.seen.iter().position(|seen| {
            seen.note.similar_to(note) && seen.step.message == message && fresh(seen.note.at.mono)
                // All that are combined are one event, whatever their own words.
                || message.starts_with(COMBINED)
                    && seen.step.message.starts_with(COMBINED)
                    && seen.note.similar_to(note)
        });
        let step = match known.and_then(|at| self.seen.remove(at)) {
            Some(seen) => Step { count: seen.step.count.saturating_add(1), message, ..seen.step },
            None => Step {
                name: format!("{}.{:016x}", event_stem(&note.object.name), fastrand::u64(..)),
                count: 1,
                first: note.at.wall,
                message,
            },
        };
        push_bounded(&mut self.seen, Seen { note: note.clone(), step: step.clone() });
        Some(step)
    }

    /// The message, or that of the combined event when there have been too many alike.
    fn combine(&mut self, note: &Note) -> String {
        let known = self.similar.iter().position(|similar| similar.note.similar_to(note));
        let mut similar = match known.and_then(|at| self.similar.remove(at)) {
            Some(similar) if note.at.mono.saturating_sub(similar.last) < WINDOW => similar,
            _ => Similar { note: note.clone(), messages: Vec::new(), last: note.at.mono },
        };
        similar.last = note.at.mono;
        let known = similar.messages.contains(&note.message);
        let combined = !known && similar.messages.len() >= SIMILAR;
        if !known && !combined {
            similar.messages.push(note.message.clone());
        }
        push_bounded(&mut self.similar, similar);
        if combined {
            format!("{COMBINED}{}", note.message).chars().take(MAX_MESSAGE).collect()
        } else {
            note.message.clone()
        }
    }

    fn afford(&mut self, note: &Note) -> bool {
        let known = self.budgets.iter().position(|budget| budget.uid == note.object.uid);
        let mut budget = known.and_then(|at| self.budgets.remove(at)).unwrap_or_else(|| Budget {
            uid: note.object.uid.clone(),
            tokens: BURST,
            at: note.at.mono,
        });
        let passed = note.at.mono.saturating_sub(budget.at).as_secs_f64();
        budget.tokens = (budget.tokens + passed / REFILL.as_secs_f64()).min(BURST);
        budget.at = note.at.mono;
        let affordable = budget.tokens >= 1.0;
        if affordable {
            budget.tokens -= 1.0;
        }
        push_bounded(&mut self.budgets, budget);
        affordable
    }

    fn forget(&mut self, name: &str) {
        self.seen.retain(|seen| seen.step.name != name);
    }
}

const COMBINED: &str = "(combined from similar events): ";

fn push_bounded<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.len() >= REMEMBERED {
        queue.pop_front();
    }
    queue.push_back(item);
}

/// An event's name is the object's and 17 characters more, 253 in all.
fn event_stem(name: &str) -> String {
    name.chars().take(236).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn note(message: &str, seconds: u64) -> Note {
        Note {
            object: ObjectReference { uid: "u".into(), name: "p".into(), ..ObjectReference::default() },
            kind: "Normal",
            reason: "Pulled".into(),
            message: message.into(),
            at: Now { wall: Timestamp::UNIX_EPOCH, mono: Duration::from_secs(seconds) },
        }
    }

    #[test]
    fn the_same_again_is_counted() {
        let mut memory = Memory::default();
        let first = memory.step(&note("a", 0)).unwrap();
        let again = memory.step(&note("a", 1)).unwrap();
        assert_eq!((first.count, again.count), (1, 2));
        assert_eq!(first.name, again.name);
        let other = memory.step(&note("b", 1)).unwrap();
        assert_eq!(other.count, 1);
        let late = memory.step(&note("a", 2000)).unwrap();
        assert_eq!(late.count, 1);
    }

    #[test]
    fn many_alike_become_one() {
        let mut memory = Memory::default();
        let steps: Vec<Step> = (0..14).filter_map(|n| memory.step(&note(&format!("try {n}"), n))).collect();
        let last = steps.last().unwrap();
        assert_eq!(last.message, "(combined from similar events): try 13");
        assert_eq!(last.count, 4);
        assert_eq!(steps[9].message, "try 9");
    }

    #[test]
    fn the_same_few_in_turn_stay_themselves() {
        let mut memory = Memory::default();
        for n in 0..20 {
            for message in ["a", "b"] {
                if let Some(step) = memory.step(&note(message, n * 400)) {
                    assert_eq!(step.message, message);
                }
            }
        }
    }

    #[test]
    fn one_object_cannot_flood() {
        let mut memory = Memory::default();
        let sent = (0..100).filter(|_| memory.step(&note("a", 0)).is_some()).count();
        assert_eq!(sent, 25);
        assert!(memory.step(&note("a", 299)).is_none());
        assert!(memory.step(&note("a", 601)).is_some());
    }

    #[test]
    fn memory_is_bounded() {
        let mut memory = Memory::default();
        for n in 0..1000 {
            let mut note = note("a", n);
            note.object.uid = n.to_string();
            memory.step(&note);
        }
        assert!(memory.seen.len() <= REMEMBERED && memory.budgets.len() <= REMEMBERED);
    }
}
