//! List, then watch: the objects of one collection as they are and as they change.
//!
//! Kubernetes API concepts, "Efficient detection of changes": a list gives a resource version, the watch
//! goes on from there, bookmarks move it forward, and 410 Gone means to list again. Where the API server can
//! ("Streaming lists"), the watch itself begins with what there is, one object after the other.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_io::Timer;
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{read_json, Call, Client, MAX_LIST, MAX_OBJECT};
use super::error::ApiError;
use crate::api::Status;
use crate::outgoing::within;

/// First and longest pause after a failure (client-go's reflector).
const PAUSE: (Duration, Duration) = (Duration::from_millis(800), Duration::from_secs(30));
/// A watch is asked to last this long, in seconds, chosen at random so that not all nodes come back at once.
const WATCH_SECONDS: std::ops::Range<u64> = 300..600;
/// A watch that ends in less time without an event is a failure: else a proxy that closes at once would be
/// asked again without a pause (client-go's VeryShortWatchError).
const SHORT: Duration = Duration::from_secs(1);
/// How much longer than asked for a silent watch is believed in.
const GRACE: Duration = Duration::from_secs(30);

/// What a [`Watcher`] reports.
#[derive(Debug)]
pub enum Change<T> {
    /// Everything there is; what is not in it is gone.
    All(Vec<T>),
    /// New or changed.
    Applied(T),
    /// Gone; its last state.
    Deleted(T),
}

/// Follows one collection. It never gives up: an error is reported once, and the next call pauses, tries
/// again, and goes on.
pub struct Watcher<T> {
    client: Client,
    path: String,
    selector: String,
    state: State<T>,
    pause: Option<Duration>,
    /// Whether the API server streams lists; none: it was not asked yet.
    streams: Option<bool>,
    /// Of each object its metadata alone is asked for.
    metadata: bool,
}

enum State<T> {
    /// List, at least as new as this version: `0` takes any age and is for the first time only, nothing
    /// means the newest.
    Unlisted { version: String },
    /// The collection was listed or a watch ended well: watch from here.
    Listed { version: String },
    /// A watch is under way.
    Watching {
        version: String,
        lines: Lines,
        patience: Duration,
        begun: Instant,
        initial: Option<Initial<T>>,
    },
}

/// What a streamed list has brought so far.
struct Initial<T> {
    /// By UID.
    items: BTreeMap<String, T>,
    bytes: usize,
}

/// Ends a streamed list (`metav1.InitialEventsAnnotationKey`).
const INITIAL_END: &str = "k8s.io/initial-events-end";
/// `1.27`: the first API server that knows of streamed lists, and refuses them where they are switched off. One
/// before it would take the request for an ordinary watch, and never say where the list ends.
const STREAMS_SINCE: u32 = 27;

impl<T: DeserializeOwned> Watcher<T> {
    /// `path` is the collection's (`/api/v1/pods`), `selector` its query (`fieldSelector=…`).
    #[must_use]
    pub fn new(client: Client, path: impl Into<String>, selector: impl Into<String>) -> Watcher<T> {
        Watcher {
            client,
            path: path.into(),
            selector: selector.into(),
            state: State::Unlisted { version: "0".into() },
            pause: None,
            streams: Some(false),
            metadata: false,
        }
    }

    /// The same, of each object its metadata alone.
    #[must_use]
    pub fn of_metadata(mut self) -> Watcher<T> {
        self.metadata = true;
        self
    }

    fn get(&self, path: String, list: bool) -> Call {
        let call = Call::new(Method::GET, path);
        if self.metadata {
            call.of_metadata(list)
        } else {
            call
        }
    }

    /// The same, by streamed lists where the API server has them: for what may be large.
    #[must_use]
    pub fn streaming(mut self) -> Watcher<T> {
        self.streams = None;
        self
    }

    /// The same, from the state of this resource version on.
    #[must_use]
    pub fn since(mut self, version: &str) -> Watcher<T> {
        self.state = State::Unlisted { version: version.to_owned() };
        self
    }

    /// The next change.
    ///
    /// # Errors
    /// [`ApiError`]; call again to go on.
    pub async fn next(&mut self) -> Result<Change<T>, ApiError> {
        if let Some(pause) = self.pause {
            let spread = pause.mul_f64(1.0 + fastrand::f64() * 0.2);
            Timer::after(spread).await;
        }
        let result = self.advance().await;
        self.pause = match &result {
            Ok(_) => None,
            Err(error) => {
                let longer = self.pause.map_or(PAUSE.0, |pause| pause.saturating_mul(2).min(PAUSE.1));
                Some(error.retry_after().map_or(longer, |asked| asked.max(longer)))
            }
        };
        result
    }

    async fn advance(&mut self) -> Result<Change<T>, ApiError> {
        loop {
            match &mut self.state {
                State::Unlisted { version } => {
                    let version = version.clone();
                    if self.can_stream().await {
                        match self.watch(version.clone(), true).await {
                            Ok(state) => {
                                self.state = state;
                                continue;
                            }
                            // It is switched off there.
                            Err(error) if error.is(400) || error.is(422) => self.streams = Some(false),
                            Err(error) => return Err(error),
                        }
                    }
                    let listed = self.list(&version).await;
                    if let Err(error) = &listed {
                        // Too old, or newer than this API server's cache: the next list asks etcd.
                        if error.is(410) || error.is(504) {
                            self.state = State::Unlisted { version: String::new() };
                        }
                    }
                    return listed;
                }
                State::Listed { version } => {
                    let version = version.clone();
                    self.state = self.watch(version, false).await?;
                }
                State::Watching { version, lines, patience, begun, initial } => {
                    let line = within(*patience, lines.next()).await;
                    let line = match line {
                        Ok(Ok(Some(line))) => line,
                        // The end of a watch is ordinary: go on from the last version.
                        Ok(Ok(None)) | Err(_) => {
                            let short = lines.count == 0 && begun.elapsed() < SHORT || initial.is_some();
                            self.state = after(version, initial.is_some());
                            if short {
                                let what = format!("watching {}", self.path);
                                return Err(ApiError::Broken { what, problem: "it ended at once".into() });
                            }
                            continue;
                        }
                        Ok(Err(problem)) => {
                            let what = format!("watching {}", self.path);
                            self.state = after(version, initial.is_some());
                            return Err(ApiError::Broken { what, problem });
                        }
                    };
                    if let Some(change) = self.read_event(&line)? {
                        return Ok(change);
                    }
                }
            }
        }
    }

    /// Whether lists come as streams.
    async fn can_stream(&mut self) -> bool {
        if self.streams.is_none() {
            let version: Result<ServerVersion, _> =
                self.client.read(Call::new(Method::GET, "/version")).await;
            // Not answered: it is asked again before the next list.
            self.streams = version.ok().map(|version| version.minor() >= STREAMS_SINCE);
        }
        self.streams == Some(true)
    }

    async fn list(&mut self, version: &str) -> Result<Change<T>, ApiError> {
        let path = format!("{}?{}&resourceVersion={version}", self.path, self.selector);
        let call = self.get(path, true).limit(MAX_LIST);
        let what = call.what();
        let body = self.client.send(call).await?;
        let unusable = |problem| ApiError::Unusable { what: what.clone(), problem };
        let list: List<'_> = read_json(&body).map_err(unusable)?;
        let mut items = Vec::new();
        for raw in list.items.unwrap_or_default() {
            // One object that cannot be read must not hide the others.
            match serde_json::from_str(raw.get()) {
                Ok(item) => items.push(item),
                Err(error) => log::error!("an object of {} cannot be read: {error}", self.path),
            }
        }
        self.state = State::Listed { version: list.metadata.resource_version };
        Ok(Change::All(items))
    }

    /// Watches from this version on; `whole`: what there is comes first, at least as new.
    async fn watch(&mut self, version: String, whole: bool) -> Result<State<T>, ApiError> {
        let seconds = fastrand::u64(WATCH_SECONDS);
        let mut path = format!(
            "{}?{}&watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={version}",
            self.path, self.selector
        );
        if whole {
            path.push_str("&sendInitialEvents=true&resourceVersionMatch=NotOlderThan");
        }
        match self.client.stream(self.get(path, false)).await {
            Ok(body) => Ok(State::Watching {
                version,
                lines: Lines::new(body),
                patience: Duration::from_secs(seconds).saturating_add(GRACE),
                begun: Instant::now(),
                initial: whole.then(|| Initial { items: BTreeMap::new(), bytes: 0 }),
            }),
            Err(error) => {
                if error.is(410) {
                    // Too old even for a list: the next asks for the newest.
                    let version = if whole { String::new() } else { version };
                    self.state = State::Unlisted { version };
                }
                Err(error)
            }
        }
    }

    /// Lists again, nothing older than what was seen.
    fn list_again(&mut self) {
        if let State::Watching { version, .. } = &mut self.state {
            self.state = State::Unlisted { version: std::mem::take(version) };
        }
    }

    fn read_event(&mut self, line: &[u8]) -> Result<Option<Change<T>>, ApiError> {
        let what = || format!("watching {}", self.path);
        let event: Event<'_> = match read_json(line) {
            Ok(event) => event,
            Err(problem) => {
                let error = ApiError::Unusable { what: what(), problem };
                self.list_again();
                return Err(error);
            }
        };
        if event.kind == "ERROR" {
            let status: Box<Status> = serde_json::from_str(event.object.get()).unwrap_or_default();
            let what = what();
            self.list_again();
            return Err(ApiError::Refused { what, status });
        }
        let meta = serde_json::from_str::<Versioned>(event.object.get()).map(|object| object.metadata);
        let meta = meta.unwrap_or_default();
        let ends = meta.annotations.get(INITIAL_END).is_some_and(|value| value == "true");
        if let State::Watching { version, initial, .. } = &mut self.state {
            // Within a streamed list versions come in no order: the bookmark at its end has the one that counts.
            if !meta.resource_version.is_empty() && (initial.is_none() || ends) {
                *version = meta.resource_version;
            }
            if initial.is_some() {
                return self.read_initial(event.kind, event.object, meta.uid, ends);
            }
        }
        let make: fn(T) -> Change<T> = match event.kind {
            "ADDED" | "MODIFIED" => Change::Applied,
            "DELETED" => Change::Deleted,
            _ => return Ok(None),
        };
        match serde_json::from_str(event.object.get()) {
            Ok(object) => Ok(Some(make(object))),
            Err(error) => {
                log::error!("an object of {} cannot be read: {error}", self.path);
                Ok(None)
            }
        }
    }

    /// Takes one event of a streamed list; all of it at its end.
    fn read_initial(
        &mut self,
        kind: &str,
        object: &RawValue,
        uid: String,
        ends: bool,
    ) -> Result<Option<Change<T>>, ApiError> {
        let State::Watching { initial, .. } = &mut self.state else { return Ok(None) };
        if ends {
            return Ok(initial.take().map(|initial| Change::All(initial.items.into_values().collect())));
        }
        let Some(held) = initial else { return Ok(None) };
        held.bytes = held.bytes.saturating_add(object.get().len());
        if held.bytes > MAX_LIST {
            let problem = format!("more than {MAX_LIST} bytes");
            self.state = State::Unlisted { version: String::new() };
            return Err(ApiError::Unusable { what: format!("listing {}", self.path), problem });
        }
        match kind {
            "ADDED" | "MODIFIED" => match serde_json::from_str(object.get()) {
                Ok(item) => drop(held.items.insert(uid, item)),
                Err(error) => log::error!("an object of {} cannot be read: {error}", self.path),
            },
            "DELETED" => drop(held.items.remove(&uid)),
            _ => {}
        }
        Ok(None)
    }
}

/// Where to go on after a watch that ended: at its version, or at its beginning if not even the list was whole.
fn after<T>(version: &mut String, listing: bool) -> State<T> {
    let version = std::mem::take(version);
    if listing {
        State::Unlisted { version }
    } else {
        State::Listed { version }
    }
}

/// `/version`
#[derive(Deserialize)]
struct ServerVersion {
    minor: String,
}

impl ServerVersion {
    /// Without what some distributions add (`27+`).
    fn minor(&self) -> u32 {
        let digits: String = self.minor.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(0)
    }
}

#[derive(Deserialize)]
struct List<'a> {
    #[serde(default)]
    metadata: Meta,
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Versioned {
    metadata: Meta,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// The lines of a body, each of at most [`MAX_OBJECT`] bytes.
struct Lines {
    body: Incoming,
    held: Vec<u8>,
    searched: usize,
    /// How many came out.
    count: usize,
}

impl Lines {
    fn new(body: Incoming) -> Lines {
        Lines { body, held: Vec::new(), searched: 0, count: 0 }
    }

    /// The next line, or nothing at the end. Safe to be dropped while waiting: what came stays.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, String> {
        loop {
            if let Some(line) = take_line(&mut self.held, &mut self.searched) {
                self.count = self.count.saturating_add(1);
                return Ok(Some(line));
            }
            if self.held.len() > MAX_OBJECT {
                return Err(format!("an event larger than {MAX_OBJECT} bytes"));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(crate::error_chain(&error)),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.held.extend_from_slice(data);
                    }
                }
            }
        }
    }
}

fn take_line(held: &mut Vec<u8>, searched: &mut usize) -> Option<Vec<u8>> {
    let found = held.get(*searched..)?.iter().position(|byte| *byte == b'\n');
    let Some(found) = found else {
        *searched = held.len();
        return None;
    };
    let end = searched.saturating_add(found).saturating_add(1);
    *searched = 0;
    let rest = held.split_off(end);
    // The rest is often nothing, and a large event's buffer must not stay for the life of the watch.
    let line = std::mem::replace(held, rest);
    Some(line)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_however_they_arrive() {
        let (mut held, mut searched, mut lines) = (Vec::new(), 0, Vec::new());
        for piece in ["{\"a", "\":1}\n{", "}\n\n", "x"] {
            held.extend_from_slice(piece.as_bytes());
            while let Some(line) = take_line(&mut held, &mut searched) {
                lines.push(String::from_utf8(line).unwrap());
            }
        }
        assert_eq!(lines, ["{\"a\":1}\n", "{}\n", "\n"]);
        assert_eq!(held, b"x");
    }

    #[test]
    fn a_bookmark_with_null_containers_is_an_event_with_a_version() {
        let line = br#"{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1","metadata":
            {"resourceVersion":"12"},"spec":{"containers":null},"status":{}}}"#;
        let event: Event<'_> = read_json(line).unwrap();
        assert_eq!(event.kind, "BOOKMARK");
        let object: Versioned = serde_json::from_str(event.object.get()).unwrap();
        assert_eq!(object.metadata.resource_version, "12");
    }
}
