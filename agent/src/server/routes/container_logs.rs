//! `/containerLogs/{namespace}/{pod}/{container}`: what `kubectl logs` reads.

use std::io;
use std::sync::Arc;

use async_lock::{Semaphore, SemaphoreGuardArc};
use futures_lite::stream;
use http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};

use crate::durable::clock::Now;
use crate::log::{Logs, ReadOptions, Reader};
use crate::server::answer::{self, Body};
use crate::server::request::Query;
use crate::server::{LogRefusal, PodsView};

/// Logs being read at one time, followed or not. With a slow reader each costs some 100 KiB.
pub(in crate::server) const MAX_LOG_STREAMS: usize = 64;

/// The query, read and found in order: core/v1 PodLogOptions.
#[derive(Debug, Default)]
struct Options {
    previous: bool,
    /// `stream` was given, and is not `All`.
    stream: Option<String>,
    read: ReadOptions,
}

/// A query that cannot be served, with the answer that a kubelet gives.
#[derive(Debug, PartialEq, Eq)]
enum BadQuery {
    Undecodable,
    Invalid,
}

/// Where logs are, and how many may be read at a time.
pub struct Sources<'s> {
    /// The pods.
    pub pods: &'s dyn PodsView,
    /// Their logs.
    pub logs: &'s Logs,
    /// A turn for each that is read.
    pub turns: &'s Arc<Semaphore>,
}

/// The log of one container, as the query asks for it.
pub async fn get(
    sources: Sources<'_>,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &str,
) -> Response<Body> {
    let options = match Options::parse(query, Now::read().wall) {
        Ok(options) => options,
        Err(BadQuery::Undecodable) => {
            return answer::text(StatusCode::BAD_REQUEST, r#"{"message": "Unable to decode query."}"#)
        }
        Err(BadQuery::Invalid) => {
            return answer::text(StatusCode::UNPROCESSABLE_ENTITY, r#"{"message": "Invalid request."}"#)
        }
    };
    let target = match sources.pods.container_log(namespace, pod, container, options.previous) {
        Ok(target) => target,
        Err(refusal) => return refused(&refusal, pod, container),
    };
    if let Some(stream) = options.stream {
        let text =
            format!("unable to return the given log stream: {stream:?}. This node serves \"All\" only");
        return answer::text(StatusCode::BAD_REQUEST, text);
    }
    let Some(turn) = sources.turns.try_acquire_arc() else {
        let text = "as many logs as this node gives out are being read from it; try again when one has ended";
        return answer::text(StatusCode::TOO_MANY_REQUESTS, text);
    };
    match sources.logs.read(&target.pod, &target.container, target.restart, options.read).await {
        Ok(reader) => answer::stream(pieces(reader, turn)),
        Err(error) => {
            let missing = error.kind() == io::ErrorKind::NotFound;
            let status = if missing { StatusCode::NOT_FOUND } else { StatusCode::INTERNAL_SERVER_ERROR };
            answer::text(status, error.to_string())
        }
    }
}

/// The log, with its place among the streams held until the client has gone or everything is sent.
fn pieces(
    reader: Reader,
    turn: SemaphoreGuardArc,
) -> impl stream::Stream<Item = io::Result<bytes::Bytes>> + Send {
    stream::unfold((reader, turn), |(mut reader, turn)| async move {
        let piece = reader.next().await?;
        // The client sees a body that breaks off; the reason is told here.
        let piece = piece.inspect_err(|error| log::warn!("a log stream to a client broke off: {error}"));
        Some((piece, (reader, turn)))
    })
}

/// The kubelet's words and codes.
fn refused(refusal: &LogRefusal, pod: &str, container: &str) -> Response<Body> {
    let of = format!("container {container:?} in pod {pod:?}");
    let (status, text) = match refusal {
        LogRefusal::NoPod => (StatusCode::NOT_FOUND, format!("pod {pod:?} does not exist")),
        LogRefusal::NoContainer => {
            (StatusCode::NOT_FOUND, format!("container {container:?} not found in pod {pod:?}"))
        }
        LogRefusal::NoPrevious => (StatusCode::BAD_REQUEST, format!("previous terminated {of} not found")),
        LogRefusal::Waiting(reason) => {
            let reason = match reason.as_str() {
                "ErrImagePull" => "image can't be pulled",
                "ImagePullBackOff" => "trying and failing to pull image",
                other => other,
            };
            (StatusCode::BAD_REQUEST, format!("{of} is waiting to start: {reason}"))
        }
        LogRefusal::Terminated => (StatusCode::BAD_REQUEST, format!("{of} is terminated")),
        LogRefusal::NotAvailable => (StatusCode::BAD_REQUEST, format!("{of} is not available")),
    };
    answer::text(status, text)
}

impl Options {
    fn parse(query: &str, now: Timestamp) -> Result<Options, BadQuery> {
        let query = Query::parse(query).ok_or(BadQuery::Undecodable)?;
        let number = |text: Option<&str>| {
            text.map(|text| text.parse::<i64>().map_err(|_| BadQuery::Undecodable)).transpose()
        };
        // An old name of tailLines, whose value may be "all".
        let tail = match query.get("tail").filter(|tail| !tail.is_empty()) {
            Some("all") => None,
            Some(tail) => Some(tail),
            None => query.get("tailLines"),
        };
        let (tail, limit) = (number(tail)?, number(query.get("limitBytes"))?);
        let seconds = number(query.get("sinceSeconds"))?;
        let time = match query.get("sinceTime") {
            None => None,
            Some("" | "null") => Some(None),
            Some(text) => Some(Some(text.parse::<Timestamp>().map_err(|_| BadQuery::Undecodable)?)),
        };
        let stream = query.get("stream");
        let is_stream = stream.is_none_or(|stream| ["All", "Stdout", "Stderr"].contains(&stream));
        let stream = stream.filter(|stream| *stream != "All").map(str::to_owned);
        let both = seconds.is_some() && time.is_some();
        let too_small = tail.is_some_and(|n| n < 0) || [limit, seconds].into_iter().flatten().any(|n| n < 1);
        if both || too_small || !is_stream || (stream.is_some() && tail.is_some()) {
            return Err(BadQuery::Invalid);
        }
        // So long ago that no time stamp says it is the same as always.
        let ago = |seconds| now.checked_sub(SignedDuration::from_secs(seconds)).ok();
        let read = ReadOptions {
            follow: query.is_set("follow"),
            since: seconds.and_then(ago).or(time.flatten()),
            tail: tail.and_then(|lines| lines.try_into().ok()),
            timestamps: query.is_set("timestamps"),
            limit: limit.and_then(|bytes| bytes.try_into().ok()),
        };
        Ok(Options { previous: query.is_set("previous"), stream, read })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_refused_as_a_kubelet_does() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let parse = |query: &str| Options::parse(query, now);
        for (query, error) in [
            ("tailLines=x", BadQuery::Undecodable),
            ("tailLines=", BadQuery::Undecodable),
            ("tailLines=99999999999999999999", BadQuery::Undecodable),
            ("limitBytes=1.5", BadQuery::Undecodable),
            ("sinceTime=yesterday", BadQuery::Undecodable),
            ("follow=%", BadQuery::Undecodable),
            ("tailLines=-1", BadQuery::Invalid),
            ("tail=-1", BadQuery::Invalid),
            ("limitBytes=0", BadQuery::Invalid),
            ("sinceSeconds=0", BadQuery::Invalid),
            ("sinceSeconds=-3", BadQuery::Invalid),
            ("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z", BadQuery::Invalid),
            ("sinceSeconds=1&sinceTime=", BadQuery::Invalid),
            ("stream=Stdin", BadQuery::Invalid),
            ("stream=Stdout&tailLines=1", BadQuery::Invalid),
        ] {
            assert_eq!(parse(query).err(), Some(error), "{query}");
        }
        let all =
            parse("follow=true&previous&timestamps=1&tailLines=0&limitBytes=7&sinceSeconds=10&x=y").unwrap();
        assert!(all.previous && all.read.follow && all.read.timestamps);
        assert_eq!((all.read.tail, all.read.limit), (Some(0), Some(7)));
        assert_eq!(all.read.since, Some(Timestamp::from_second(999_990).unwrap()));
        let none = parse("follow=false&previous=0").unwrap();
        assert!(!none.previous && !none.read.follow && !none.read.timestamps);
        assert_eq!((none.read.tail, none.read.limit, none.read.since), (None, None, None));
        let time = parse("sinceTime=2026-01-01T02%3A00%3A00%2B02%3A00").unwrap();
        assert_eq!(time.read.since, Some("2026-01-01T00:00:00Z".parse().unwrap()));
        assert_eq!(parse("tail=5&tailLines=7").unwrap().read.tail, Some(5));
        assert_eq!(parse("tail=all&tailLines=7").unwrap().read.tail, None);
        assert_eq!(parse("sinceSeconds=9223372036854775807").unwrap().read.since, None);
        assert_eq!(parse("stream=Stderr").unwrap().stream.as_deref(), Some("Stderr"));
        assert_eq!(parse("stream=All&tailLines=1").unwrap().stream, None);
    }
}
