//! Connections that guests make, by the extension beside preview 1.
//!
//! No guest reaches loopback, so what succeeds is tried against an address of this machine's that is none of it, and
//! where the machine has none, by the scenarios only: there are refusals here.

use futures_lite::future::block_on;

use super::{guests, runtime, spec, Collected};
use crate::runtime::{Exit, GuestSpec};

fn ends(destinations: &[&str], body: &str) -> Exit {
    let runtime = runtime(1);
    let wasm = guests::connections(body);
    let module = runtime.compile(&format!("{wasm:x?}"), &wasm).unwrap();
    let destinations = destinations.iter().map(|text| text.parse().unwrap()).collect();
    let out = Collected::new();
    let guest = runtime.spawn(&module, GuestSpec { destinations, ..spec(&out) }).unwrap();
    block_on(guest.wait())
}

const OPEN: &str = "(call $must (call $sock_open (i32.const 1) (i32.const 2) (i32.const 512)))";

#[test]
fn a_guest_without_destinations_opens_no_socket() {
    let body = "(call $sock_open (i32.const 1) (i32.const 2) (i32.const 512))";
    assert_eq!(ends(&[], body), Exit::Code(2));
    assert_eq!(ends(&["192.0.2.1:80"], body), Exit::Code(0));
}

#[test]
fn what_is_not_allowed_is_eacces() {
    // 192.0.2.1 is allowed at one port; loopback never, whatever is allowed. The address lies at 1024.
    for (destinations, ip, port) in [
        (&["192.0.2.1:80"][..], [192, 0, 2, 1], 81),
        (&["192.0.2.1:80"], [192, 0, 2, 2], 80),
        (&["0.0.0.0/0:*"], [127, 0, 0, 1], 80),
        (&["0.0.0.0/0:*"], [169, 254, 169, 254], 80),
        (&["broker.test:80"], [192, 0, 2, 1], 80),
    ] {
        let body =
            format!("{OPEN} (call $connect (i32.const {}) (i32.const {port}))", i32::from_le_bytes(ip));
        assert_eq!(ends(destinations, &body), Exit::Code(2), "{destinations:?} {ip:?}");
    }
}

#[test]
fn calls_that_are_not_offered_say_so() {
    for (body, errno) in [
        // ENOTSUP: datagrams, and ports of its own choice.
        ("(call $sock_open (i32.const 1) (i32.const 1) (i32.const 512))", 58),
        ("(call $sock_bind (call $open) (i32.const 1024) (i32.const 80))", 58),
        ("(call $sock_listen (call $open) (i32.const 1))", 58),
        // EAFNOSUPPORT
        ("(call $sock_open (i32.const 0) (i32.const 2) (i32.const 512))", 5),
        // EBADF, ENOTSOCK
        ("(call $sock_bind (i32.const 99) (i32.const 1024) (i32.const 80))", 8),
        ("(call $sock_connect (i32.const 1) (i32.const 1024) (i32.const 80))", 57),
        // An address of no known size, a port of no known number: EINVAL
        ("(i32.store (i32.const 1028) (i32.const 5)) (call $sock_connect (call $open) (i32.const 1024) (i32.const 80))", 28),
        ("(drop (call $open)) (call $connect (i32.const 1) (i32.const 65536))", 28),
        // Not connected: ENOTCONN
        ("(call $sock_getpeeraddr (call $open) (i32.const 1024) (i32.const 16) (i32.const 20))", 53),
        // ENOPROTOOPT: a time limit
        ("(call $sock_setsockopt (call $open) (i32.const 0) (i32.const 11) (i32.const 16) (i32.const 16))", 50),
        ("(call $sock_setsockopt (call $open) (i32.const 0) (i32.const 7) (i32.const 16) (i32.const 4))", 0),
        ("(i32.store (i32.const 20) (i32.const 4)) (call $sock_getsockopt (call $open) (i32.const 0) (i32.const 2) (i32.const 16) (i32.const 20))", 0),
    ] {
        assert_eq!(ends(&["192.0.2.1:80"], body), Exit::Code(errno), "{body}");
    }
}

#[test]
fn names_that_are_not_allowed_are_not_asked_for_and_addresses_need_no_asking() {
    assert_eq!(ends(&["broker.test:80"], "(call $lookup_other)"), Exit::Code(2));
    // 192.0.2.7 as a text: found at once, with its port in front.
    let body = "(call $must (call $lookup_address))
        (i32.or (i32.ne (i32.load (i32.const 2050)) (i32.const 0x070200c0))
            (i32.ne (i32.load16_u (i32.const 2048)) (i32.const 0x5b07)))";
    assert_eq!(ends(&["192.0.2.1:80"], body), Exit::Code(0));
}

#[test]
fn localhost_is_found_where_it_is_allowed_and_still_not_reached() {
    let body = "(call $must (call $lookup_localhost))
        (i32.store (i32.const 512) (call $open))
        (call $connect (i32.load (i32.const 2050)) (i32.const 1883))";
    assert_eq!(ends(&["localhost:1883"], body), Exit::Code(2));
}
