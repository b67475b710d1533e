//! `/exec`, `/attach` and `/portForward`: who is to be connected to what, and by which protocol.

use std::sync::Arc;

use http::{Response, StatusCode};

use crate::runtime::stdio::Wanted;
use crate::server::answer::{self, Body};
use crate::server::connection::Asking;
use crate::server::request::Query;
use crate::server::streams::port_forward::{serve_channels, serve_streams, serve_tunnel, Find};
use crate::server::streams::remote_command::{serve, Protocol};
use crate::server::streams::{upgrade, Asked, Session, MAX_SESSIONS};
use crate::server::view::{NotThere, PodName, Start};
use crate::server::Server;

/// What a client names as the protocol of its SPDY streams, and of a WebSocket's messages.
const SPDY_COMMAND: &str = "v4.channel.k8s.io";
const COMMANDS: &str = "v5.channel.k8s.io, v4.channel.k8s.io, channel.k8s.io";
const FORWARD: &str = "portforward.k8s.io";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const FORWARD_CHANNELS: &str = "v4.channel.k8s.io";
const UNDECODABLE: &str = "the query is not percent-encoded UTF-8";
/// Ports that a WebSocket's client may name beforehand.
const MAX_PORTS: usize = 32;

/// `/exec/{namespace}/{pod}[/{uid}]/{container}?command=…`
pub(super) fn exec(
    server: &Server,
    asking: &mut Asking<'_>,
    pod: &PodName,
    container: &str,
    query: &str,
) -> Response<Body> {
    let (query, wanted) = match options(query) {
        Ok(options) => options,
        Err(text) => return bad(text),
    };
    let command: Vec<String> = query.all("command").map(str::to_owned).collect();
    if command.is_empty() {
        return bad("there is no command to run");
    }
    match server.context.pods.exec(pod, container, command, wanted) {
        Ok(start) => command_session(server, asking, wanted, start),
        Err(refusal) => not_there(refusal, container),
    }
}

/// `/attach/{namespace}/{pod}[/{uid}]/{container}`
pub(super) fn attach(
    server: &Server,
    asking: &mut Asking<'_>,
    pod: &PodName,
    container: &str,
    query: &str,
) -> Response<Body> {
    let wanted = match options(query) {
        Ok((_, wanted)) => wanted,
        Err(text) => return bad(text),
    };
    match server.context.pods.attach(pod, container, wanted) {
        Ok((wanted, start)) => command_session(server, asking, wanted, start),
        Err(refusal) => not_there(refusal, container),
    }
}

/// `/portForward/{namespace}/{pod}[/{uid}]`
pub(super) fn port_forward(
    server: &Server,
    asking: &mut Asking<'_>,
    pod: PodName,
    query: &str,
) -> Response<Body> {
    if !server.context.pods.has_pod(&pod) {
        return not_there(NotThere::Pod, "");
    }
    let Some(query) = Query::parse(query) else { return bad(UNDECODABLE) };
    let named = query.all("port").flat_map(|ports| ports.split(',')).map(str::parse);
    let Ok(ports) = named.collect::<Result<Vec<u16>, _>>() else {
        return bad("query parameter \"port\" holds what is no port");
    };
    let asked = match Asked::of(asking.request.headers()) {
        Ok(asked) => asked,
        Err(text) => return bad(text),
    };
    let by_messages = matches!(asked, Asked::WebSocket { .. });
    let (pods, pod) = (server.context.pods.clone(), Arc::new(pod));
    let known = |protocol: &str| -> Option<Session> {
        let (pods, pod, ports) = (pods.clone(), pod.clone(), ports.clone());
        let find: Find = Box::new(move |port| pods.listener(&pod, port));
        match (by_messages, protocol) {
            (false, FORWARD) => Some(Box::new(|source, sink| Box::pin(serve_streams(source, sink, find)))),
            (true, TUNNEL) => Some(Box::new(|source, sink| Box::pin(serve_tunnel(source, sink, find)))),
            (true, FORWARD_CHANNELS | "") if (1..=MAX_PORTS).contains(&ports.len()) => {
                Some(Box::new(|source, sink| Box::pin(serve_channels(source, sink, ports, find))))
            }
            _ => None,
        }
    };
    let names =
        if by_messages { "SPDY/3.1+portforward.k8s.io, v4.channel.k8s.io (with ?port=)" } else { FORWARD };
    session(server, asking, &asked, known, names)
}

fn command_session(server: &Server, asking: &mut Asking<'_>, wanted: Wanted, start: Start) -> Response<Body> {
    let asked = match Asked::of(asking.request.headers()) {
        Ok(asked) => asked,
        Err(text) => return bad(text),
    };
    let by_messages = matches!(asked, Asked::WebSocket { .. });
    let start = std::cell::Cell::new(Some(start));
    let known = |protocol: &str| -> Option<Session> {
        let protocol = match (by_messages, protocol) {
            (false, SPDY_COMMAND) => Protocol::Spdy,
            (true, "v5.channel.k8s.io" | "v4.channel.k8s.io") => Protocol::WebSocket { status: true },
            (true, "channel.k8s.io" | "") => Protocol::WebSocket { status: false },
            _ => return None,
        };
        let start = start.take()?;
        Some(Box::new(move |source, sink| Box::pin(serve(source, sink, protocol, wanted, start))))
    };
    session(server, asking, &asked, known, if by_messages { COMMANDS } else { SPDY_COMMAND })
}

/// Upgrades, if there is room for one more.
fn session(
    server: &Server,
    asking: &mut Asking<'_>,
    asked: &Asked,
    known: impl Fn(&str) -> Option<Session>,
    names: &'static str,
) -> Response<Body> {
    let Some(turn) = server.sessions.try_acquire_arc() else {
        let text = format!(
            "{MAX_SESSIONS} clients of exec, attach and port-forward are connected to this node; try again when one \
             has ended"
        );
        return answer::text(StatusCode::TOO_MANY_REQUESTS, text);
    };
    let turn = std::cell::Cell::new(Some(turn));
    let known = |protocol: &str| -> Option<Session> {
        let (session, turn) = (known(protocol)?, turn.take());
        Some(Box::new(move |source, sink| {
            let session = session(source, sink);
            Box::pin(async move {
                session.await;
                drop(turn);
            })
        }))
    };
    upgrade(asking, asked, known, names)
}

/// Which streams a client wants (`remotecommand.NewOptions`).
fn options(query: &str) -> Result<(Query, Wanted), &'static str> {
    let query = Query::parse(query).ok_or(UNDECODABLE)?;
    let set = |name| query.is_set(name);
    let tty = set("tty");
    // A terminal has no stderr of its own.
    let wanted = Wanted { stdin: set("input"), stdout: set("output"), stderr: set("error") && !tty, tty };
    if !wanted.stdin && !wanted.stdout && !wanted.stderr {
        return Err("you must specify at least 1 of stdin, stdout, stderr");
    }
    Ok((query, wanted))
}

fn bad(text: &'static str) -> Response<Body> {
    answer::text(StatusCode::BAD_REQUEST, text)
}

/// The kubelet's words.
fn not_there(refusal: NotThere, container: &str) -> Response<Body> {
    match refusal {
        NotThere::Pod => answer::text(StatusCode::NOT_FOUND, "pod does not exist"),
        NotThere::Container => {
            let text = format!("container not found (\"{container}\")");
            answer::text(StatusCode::INTERNAL_SERVER_ERROR, text)
        }
    }
}

/// `/run`, which no client of today's asks for.
pub(super) fn not_offered(what: &str) -> Response<Body> {
    let text = format!("{what} is not offered by this node agent; see exec\n");
    answer::text(StatusCode::NOT_IMPLEMENTED, text)
}
