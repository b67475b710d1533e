//! Listeners and their connections.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use futures_lite::future::block_on;
use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};

use super::{guests, runtime, spec, Collected};
use crate::runtime::{Exit, GuestSpec, Listener, Runtime};

fn listener(name: &str) -> (Listener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (Listener { name: name.into(), sockets: vec![socket.into()] }, address)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// Starts a guest of socket calls with listeners; its end, and the address of each.
fn serve(runtime: &Runtime, body: &str, names: &[&str]) -> (crate::runtime::Guest, Vec<SocketAddr>) {
    let wasm = guests::sockets(body);
    let module = runtime.compile(&format!("{wasm:x?}"), &wasm).unwrap();
    let (listeners, addresses) = names.iter().map(|name| listener(name)).unzip();
    let out = Collected::new();
    let guest = runtime.spawn(&module, GuestSpec { listeners, ..spec(&out) }).unwrap();
    (guest, addresses)
}

/// What such a guest ends with, once `client` has spoken with its only listener.
fn answers(body: &str, client: impl FnOnce(SocketAddr)) -> Exit {
    let runtime = runtime(1);
    let (guest, addresses) = serve(&runtime, body, &["http"]);
    client(addresses[0]);
    block_on(guest.wait())
}

#[test]
fn a_connection_is_accepted_read_and_answered() {
    let echo = "(call $must (call $accept (i32.const 0)))
        (call $must (call $recv (i32.const 64) (i32.const 0)))
        (call $must (call $send (i32.load (i32.const 16))))
        (call $sock_shutdown (call $fd) (i32.const 2))";
    let exit = answers(echo, |address| {
        let mut stream = connect(address);
        stream.write_all(b"hello").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "hello");
    });
    assert_eq!(exit, Exit::Code(0));
}

#[test]
fn a_listener_that_is_not_to_wait_answers_eagain() {
    let body = "(call $must (call $fd_fdstat_set_flags (i32.const 3) (i32.const 4)))
        (call $accept (i32.const 0))";
    assert_eq!(answers(body, |_| {}), Exit::Code(6));
}

#[test]
fn a_listener_is_non_blocking_for_who_looks_and_waits_for_who_does_not() {
    let look = "(call $must (call $fd_fdstat_get (i32.const 3) (i32.const 64)))";
    let accept = "(call $accept (i32.const 0))";
    let mut kept = None;
    // Nobody looks: it waits for the connection.
    assert_eq!(answers(accept, |address| kept = Some(connect(address))), Exit::Code(0));
    // It is told so, and so it is: EAGAIN.
    assert_eq!(answers(&format!("{look} {accept}"), |_| {}), Exit::Code(6));
    assert_eq!(
        answers(&format!("{look} (i32.sub (i32.load16_u (i32.const 66)) (i32.const 4))"), |_| {}),
        Exit::Code(0)
    );
    // What was set stays, looked at or not.
    let waits = "(call $must (call $fd_fdstat_set_flags (i32.const 3) (i32.const 0)))";
    assert_eq!(
        answers(&format!("{waits} {look} {accept}"), |address| kept = Some(connect(address))),
        Exit::Code(0)
    );
}

#[test]
fn a_connection_that_is_not_to_wait_answers_eagain() {
    let body = "(call $must (call $accept (i32.const 4))) (call $recv (i32.const 64) (i32.const 0))";
    let mut kept = None;
    let exit = answers(body, |address| kept = Some(connect(address)));
    assert_eq!(exit, Exit::Code(6));
}

#[test]
fn waitall_waits_for_all_and_peek_takes_nothing() {
    let body = "(call $must (call $accept (i32.const 0)))
        (call $must (call $recv (i32.const 64) (i32.const 1)))
        (if (i32.eqz (i32.load (i32.const 16))) (then (call $proc_exit (i32.const 90))))
        (call $must (call $recv (i32.const 10) (i32.const 2)))
        (i32.sub (i32.load (i32.const 16)) (i32.const 10))";
    let exit = answers(body, |address| {
        let mut stream = connect(address);
        for part in [&b"0123"[..], b"456", b"789"] {
            stream.write_all(part).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    assert_eq!(exit, Exit::Code(0));
}

#[test]
fn a_send_that_may_wait_sends_all_of_it() {
    // Two megabytes: more than sockets hold, and than one host call moves.
    let body = "(call $must (call $accept (i32.const 0)))
        (call $must (call $send (i32.const 2000000)))
        (i32.ne (i32.load (i32.const 16)) (i32.const 2000000))";
    let exit = answers(body, |address| {
        let mut stream = connect(address);
        std::thread::sleep(Duration::from_millis(100));
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 2_000_000);
    });
    assert_eq!(exit, Exit::Code(0));
}

#[test]
fn a_peer_that_is_gone_is_an_errno_and_no_signal() {
    // Sends until the peer's reset is seen; EPIPE is 64, ECONNRESET 15.
    let body = "(call $must (call $accept (i32.const 0)))
        (loop $again (local.set $errno (call $send (i32.const 65536))) (br_if $again (i32.eqz (local.get $errno))))
        (i32.and (i32.ne (local.get $errno) (i32.const 64)) (i32.ne (local.get $errno) (i32.const 15)))";
    assert_eq!(answers(body, |address| drop(connect(address))), Exit::Code(0));
}

#[test]
fn polls_wait_for_connections_and_their_bytes() {
    let body = "(call $must (call $poll (i32.const 3)))
        (call $must (call $accept (i32.const 4)))
        (call $must (call $poll (call $fd)))
        (call $must (call $recv (i32.const 64) (i32.const 0)))
        ;; The bytes that the event told of are those that came.
        (i32.sub (i32.load (i32.const 16)) (i32.load (i32.const 144)))";
    let exit = answers(body, |address| {
        std::thread::sleep(Duration::from_millis(50));
        let mut stream = connect(address);
        std::thread::sleep(Duration::from_millis(50));
        stream.write_all(b"hello").unwrap();
    });
    assert_eq!(exit, Exit::Code(0));
}

#[test]
fn socket_calls_on_what_they_are_not_for() {
    for (body, errno) in [
        // ENOTSOCK, EBADF
        ("(call $sock_accept (i32.const 1) (i32.const 0) (i32.const 512))", 57),
        ("(call $sock_accept (i32.const 9) (i32.const 0) (i32.const 512))", 8),
        // A flag that no socket has; EINVAL
        ("(call $sock_accept (i32.const 3) (i32.const 1) (i32.const 512))", 28),
        // A listener is no connection: ENOTCONN
        ("(call $sock_shutdown (i32.const 3) (i32.const 3))", 53),
        ("(i32.store (i32.const 512) (i32.const 3)) (call $recv (i32.const 1) (i32.const 0))", 53),
        // A connection does not listen: EINVAL
        ("(call $must (call $accept (i32.const 0))) (call $sock_accept (call $fd) (i32.const 0) (i32.const 512))", 28),
        ("(call $must (call $accept (i32.const 0))) (call $sock_shutdown (call $fd) (i32.const 0))", 28),
        ("(call $must (call $accept (i32.const 0))) (call $recv (i32.const 1) (i32.const 4))", 28),
        // No position: ESPIPE
        ("(call $must (call $accept (i32.const 0))) (call $fd_tell (call $fd) (i32.const 16))", 70),
    ] {
        let mut kept = None;
        let exit = answers(body, |address| kept = Some(connect(address)));
        assert_eq!(exit, Exit::Code(errno), "{body}");
    }
}

#[test]
fn a_guest_with_all_its_descriptors_taken_answers_emfile_and_keeps_the_connection_waiting() {
    // Renumbering has no use here: it accepts until the table is full (EMFILE is 33), closes one, accepts again.
    let body = "(loop $again (local.set $errno (call $accept (i32.const 0))) (br_if $again (i32.eqz (local.get $errno))))
        (if (i32.ne (local.get $errno) (i32.const 33)) (then (call $proc_exit (i32.const 91))))
        (call $must (call $fd_close (call $fd)))
        (call $accept (i32.const 0))";
    // Both ends of each connection are this process's.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let mut kept = Vec::new();
    let exit = answers(body, |address| {
        // 1024 of which the first four are taken, and one for the end.
        kept.extend((0..1021).map(|_| connect(address)));
    });
    assert_eq!(exit, Exit::Code(0));
}

#[test]
fn the_environment_says_where_listeners_are() {
    let runtime = runtime(1);
    let folder = std::env::temp_dir();
    for (opens_files, start) in [(true, "4"), (false, "3")] {
        let wasm = guests::environment(opens_files);
        let module = runtime.compile(&format!("environment {opens_files}"), &wasm).unwrap();
        let (first, second) = (listener("http").0, listener("8080").0);
        let out = Collected::new();
        let preopen = crate::runtime::Preopen {
            guest: "/".into(),
            place: crate::runtime::Place::Folder(folder.clone()),
            read_only: true,
            account: None,
        };
        let spec = GuestSpec {
            listeners: vec![first, second],
            preopens: std::sync::Arc::new([preopen]),
            // What somebody wrote by hand gives way.
            env: std::sync::Arc::new(["A=1".into(), "LISTEN_FDS=7".into()]),
            ..spec(&out)
        };
        let guest = runtime.spawn(&module, spec).unwrap();
        assert_eq!(block_on(guest.wait()), Exit::Code(0));
        let wanted = format!("A=1\0LISTEN_FDS=2\0LISTEN_FDNAMES=http:8080\0LISTEN_FDS_START={start}\0");
        assert_eq!(out.text(), wanted);
    }
}

#[test]
fn a_killed_guest_gives_its_port_back() {
    let runtime = runtime(1);
    let (guest, addresses) = serve(&runtime, "(call $accept (i32.const 0))", &["http"]);
    drop(connect(addresses[0]));
    assert_eq!(block_on(guest.wait()), Exit::Code(0));
    let (guest, addresses) = serve(&runtime, "(call $accept (i32.const 0))", &["http"]);
    guest.kill();
    assert_eq!(block_on(guest.wait()), Exit::Killed);
    // Its descriptors go when its turn comes.
    let again = (0..500).find_map(|_| {
        std::thread::sleep(Duration::from_millis(10));
        TcpListener::bind(addresses[0]).ok()
    });
    assert!(again.is_some());
}
