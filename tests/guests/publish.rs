//! Publishes a message by MQTT 3.1.1: HOST PORT TOPIC MESSAGE. Connects by the calls that WasmEdge's toolchains
//! import (`wasmedge_wasi_socket`), and waits for the broker's word (QoS 1).

use std::io;

#[repr(C)]
struct Address {
    bytes: *const u8,
    size: usize,
}

#[repr(C)]
struct Sockaddr {
    family: u8,
    len: u32,
    data: *mut u8,
}

#[repr(C, packed(4))]
struct Addrinfo {
    flags: u16,
    family: u8,
    kind: u8,
    protocol: u8,
    address_len: u32,
    address: *mut Sockaddr,
    name: *mut u8,
    name_len: u32,
    next: *mut Addrinfo,
}

#[repr(C)]
struct Buffer {
    bytes: *mut u8,
    len: usize,
}

#[link(wasm_import_module = "wasi_snapshot_preview1")]
extern "C" {
    fn sock_open(family: u8, kind: u8, fd: *mut u32) -> u32;
    fn sock_connect(fd: u32, address: *mut Address, port: u32) -> u32;
    fn sock_send(fd: u32, buffers: *const Buffer, count: u32, flags: u16, sent: *mut u32) -> u32;
    fn sock_recv(fd: u32, buffers: *mut Buffer, count: usize, flags: u16, got: *mut usize, out: *mut usize) -> u32;
    fn sock_shutdown(fd: u32, how: u8) -> u32;
    fn sock_getaddrinfo(
        node: *const u8,
        node_len: u32,
        service: *const u8,
        service_len: u32,
        hint: *const Addrinfo,
        result: *mut u32,
        most: u32,
        found: *mut u32,
    ) -> u32;
}

const INET4: u8 = 1;
const STREAM: u8 = 2;

fn check(what: &str, errno: u32) {
    if errno != 0 {
        eprintln!("{}: {}", what, io::Error::from_raw_os_error(errno as i32));
        std::process::exit(errno as i32);
    }
}

/// The first IPv4 address of a name.
fn lookup(host: &str, port: &str) -> [u8; 4] {
    let (host, port) = (format!("{}\0", host), format!("{}\0", port));
    let mut data = [0_u8; 26];
    let mut sockaddr = Sockaddr { family: 0, len: 26, data: data.as_mut_ptr() };
    let info = |address| Addrinfo {
        flags: 0,
        family: INET4,
        kind: STREAM,
        protocol: 0,
        address_len: 0,
        address,
        name: std::ptr::null_mut(),
        name_len: 0,
        next: std::ptr::null_mut(),
    };
    let hint = info(std::ptr::null_mut());
    let mut answer = info(&mut sockaddr);
    let mut result = &mut answer as *mut Addrinfo as u32;
    let mut found = 0;
    let errno = unsafe {
        let (node, service) = (host.as_ptr(), port.as_ptr());
        let (node_len, service_len) = (host.len() as u32, port.len() as u32);
        sock_getaddrinfo(node, node_len, service, service_len, &hint, &mut result, 1, &mut found)
    };
    check("the address of the broker", errno);
    [data[2], data[3], data[4], data[5]]
}

fn send(fd: u32, packet: &[u8]) {
    let buffer = Buffer { bytes: packet.as_ptr() as *mut u8, len: packet.len() };
    let mut sent = 0;
    check("sending", unsafe { sock_send(fd, &buffer, 1, 0, &mut sent) });
    assert_eq!(sent as usize, packet.len());
}

/// Receives exactly this.
fn expect(fd: u32, wanted: &[u8]) {
    let mut got = vec![0; wanted.len()];
    let mut at = 0;
    while at < got.len() {
        let mut buffer = Buffer { bytes: got[at..].as_mut_ptr(), len: got.len() - at };
        let (mut more, mut out) = (0, 0);
        check("receiving", unsafe { sock_recv(fd, &mut buffer, 1, 0, &mut more, &mut out) });
        assert_ne!(more, 0, "the broker has ended the connection");
        at += more;
    }
    assert_eq!(got, wanted);
}

fn text(packet: &mut Vec<u8>, text: &str) {
    packet.extend((text.len() as u16).to_be_bytes());
    packet.extend(text.bytes());
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 128, "one byte of length is enough here");
    let mut packet = vec![kind, body.len() as u8];
    packet.extend(body);
    packet
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let (host, port, topic, message) = (&args[1], &args[2], &args[3], &args[4]);
    let ip = lookup(host, port);
    let mut fd = 0;
    check("a socket", unsafe { sock_open(INET4, STREAM, &mut fd) });
    let mut address = Address { bytes: ip.as_ptr(), size: ip.len() };
    let port: u32 = port.parse().expect("a port");
    check("connecting", unsafe { sock_connect(fd, &mut address, port) });

    let mut connect = Vec::new();
    text(&mut connect, "MQTT");
    // Version 4, a clean session, a minute between signs of life.
    connect.extend([4, 2, 0, 60]);
    text(&mut connect, "copepod-guest");
    send(fd, &packet(0x10, &connect));
    expect(fd, &[0x20, 2, 0, 0]);

    let mut publish = Vec::new();
    text(&mut publish, topic);
    publish.extend([0, 1]);
    publish.extend(message.bytes());
    send(fd, &packet(0x32, &publish));
    expect(fd, &[0x40, 2, 0, 1]);
    send(fd, &packet(0xe0, &[]));
    check("ending", unsafe { sock_shutdown(fd, 3) });
    println!("published");
}
