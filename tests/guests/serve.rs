//! An HTTP server on the first listener that it is given: answers each request with its number and its path.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::wasi::io::{FromRawFd, RawFd};

fn main() {
    let start = std::env::var("LISTEN_FDS_START").expect("LISTEN_FDS_START says where the listener is");
    let fd: RawFd = start.parse().expect("LISTEN_FDS_START is a number");
    // The descriptor is this program's own, and nobody else in it knows of it.
    let listener = unsafe { TcpListener::from_raw_fd(fd) };
    for served in 0.. {
        let (mut connection, _) = listener.accept().expect("a connection");
        let mut lines = BufReader::new(&connection).lines().map_while(Result::ok);
        let request = lines.next().unwrap_or_default();
        // The rest of its head.
        lines.find(|line| line.is_empty());
        let path = request.split(' ').nth(1).unwrap_or("");
        let body = format!("rust {served} {path}\n");
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        let _ = connection.write_all((head + &body).as_bytes());
    }
}
