//! Does what a container wants done before it is stopped.

use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};

use async_io::Async;
use futures_lite::{AsyncReadExt, AsyncWriteExt};

use super::clock::Clock;
use crate::control;
use crate::pod::hooks::Hook;

/// Bytes of an answer that are looked at: that it is one.
const HEAD: usize = 8;

/// Does it; `own` is the pod's address. The grace bounds how long it takes: who waits no longer drops this.
///
/// # Errors
/// Why it could not be done.
pub async fn perform(hook: &Hook, own: Option<String>, clock: &dyn Clock) -> Result<(), String> {
    match hook {
        Hook::Sleep(time) => {
            clock.until(clock.now().mono.saturating_add(*time)).await;
            Ok(())
        }
        Hook::Get { host, port, path, headers } => {
            let host = host.clone().or(own).ok_or("the pod's address is not known")?;
            let mut request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n", authority(&host, *port));
            request.push_str("User-Agent: kube-lifecycle/copepod\r\nAccept: */*\r\nConnection: close\r\n");
            for (name, value) in headers {
                request.push_str(&format!("{name}: {value}\r\n"));
            }
            request.push_str("\r\n");
            get(host, *port, request.as_bytes()).await.map_err(|error| error.to_string())
        }
    }
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Sends a request, and waits for an answer of whatever kind.
async fn get(host: String, port: u16, request: &[u8]) -> std::io::Result<()> {
    let failed = |text: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, text.to_owned());
    let address = match host.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, port),
        Err(_) => {
            let found = control::blocking(move || (host.as_str(), port).to_socket_addrs()).await?.next();
            found.ok_or_else(|| failed("the host has no address"))?
        }
    };
    let mut stream = Async::<TcpStream>::connect(address).await?;
    stream.write_all(request).await?;
    let mut head = [0; HEAD];
    stream.read_exact(&mut head).await?;
    if head.starts_with(b"HTTP/1.") {
        Ok(())
    } else {
        Err(failed("what answered does not speak HTTP"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::supervisor::SystemClock;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    /// Answers one request with `answer`; what was asked comes back.
    fn server(answer: &'static [u8]) -> (u16, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                asked.extend(byte);
            }
            stream.write_all(answer).unwrap();
            String::from_utf8(asked).unwrap()
        });
        (port, served)
    }

    fn hook(port: u16) -> Hook {
        let headers = vec![("X-Why".to_owned(), "stop".to_owned())];
        Hook::Get { host: None, port, path: "/bye".to_owned(), headers }
    }

    fn done(hook: &Hook) -> Result<(), String> {
        control::run(perform(hook, Some("127.0.0.1".to_owned()), &SystemClock))
    }

    #[test]
    fn any_answer_will_do_and_none_will_not() {
        let (port, served) = server(b"HTTP/1.1 500 Oh\r\n\r\n");
        assert_eq!(done(&hook(port)), Ok(()));
        let asked = served.join().unwrap();
        let expected = format!("GET /bye HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n");
        assert!(asked.starts_with(&expected) && asked.contains("\r\nX-Why: stop\r\n"), "{asked}");
        let (port, served) = server(b"220 mail.example\r\n");
        assert!(done(&hook(port)).unwrap_err().contains("does not speak HTTP"));
        served.join().unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        assert!(done(&hook(closed)).unwrap_err().contains("refused"));
    }

    #[test]
    fn a_sleep_sleeps_and_addresses_are_written_as_urls_have_them() {
        let begun = std::time::Instant::now();
        assert_eq!(done(&Hook::Sleep(std::time::Duration::from_millis(20))), Ok(()));
        assert!(begun.elapsed().as_millis() >= 20);
        assert_eq!(authority("::1", 80), "[::1]:80");
    }
}
