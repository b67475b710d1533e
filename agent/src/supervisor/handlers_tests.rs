//! Against servers on loopback that answer as they are told.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use super::*;
use crate::control;
use crate::runtime::stdio::{Ends, Wanted};
use crate::runtime::{Outlet, Usage};
use crate::supervisor::api::BoxFuture;
use crate::supervisor::SystemClock;

/// A run whose second instance says something and ends so.
struct FakeRun(Exit, &'static str);

impl Running for FakeRun {
    fn kill(&self) {}
    fn wait(&self) -> BoxFuture<'_, Exit> {
        let exit = self.0.clone();
        Box::pin(async move { exit })
    }
    fn usage(&self) -> Usage {
        Usage::default()
    }
    fn command(&self, args: Vec<String>, stdio: Stdio) -> BoxFuture<'_, Result<Box<dyn Running>, String>> {
        Box::pin(async move { self.exec(args, stdio) })
    }
    fn attach(&self, _: Wanted) -> io::Result<Ends> {
        Ok(Ends::default())
    }
    fn exec(&self, args: Vec<String>, stdio: Stdio) -> Result<Box<dyn Running>, String> {
        if args == ["none"] {
            return Err("there is none".to_owned());
        }
        let Outlet::Taken(output) = stdio.stdout else { panic!("probes take all output") };
        output.write(self.1.as_bytes()).unwrap();
        Ok(Box::new(FakeRun(self.0.clone(), "")))
    }
}

/// Answers requests with these, one after the other; what was asked comes back.
fn server(answers: &'static [&'static [u8]]) -> (u16, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = thread::spawn(move || answers.iter().map(|answer| serve(&listener, answer)).collect());
    (port, served)
}

fn serve(listener: &TcpListener, answer: &[u8]) -> String {
    let (mut stream, _): (TcpStream, _) = listener.accept().unwrap();
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        asked.extend(byte);
    }
    stream.write_all(answer).unwrap();
    String::from_utf8(asked).unwrap()
}

fn get(port: u16) -> Handler {
    let headers = vec![("X-Why".to_owned(), "stop".to_owned())];
    Handler::Get(Get { secure: false, host: None, port, path: "/bye".to_owned(), headers })
}

fn closed() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn means(run: &FakeRun) -> Means<'_> {
    Means { own: Some("127.0.0.1".to_owned()), run, clock: &SystemClock }
}

fn hooked(handler: &Handler) -> Result<(), String> {
    let run = FakeRun(Exit::Code(0), "");
    control::run(hook(handler, &means(&run)))
}

fn probed(handler: &Handler, run: &FakeRun) -> Result<Outcome, String> {
    control::run(probe(handler, Duration::from_secs(5), &means(run)))
}

#[test]
fn any_answer_will_do_for_a_hook_and_none_will_not() {
    let (port, served) = server(&[b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n"]);
    assert_eq!(hooked(&get(port)), Ok(()));
    let asked = served.join().unwrap().remove(0);
    assert!(asked.starts_with("GET /bye HTTP/1.1\r\n") && asked.contains("x-why: stop\r\n"), "{asked}");
    assert!(asked.contains(&format!("host: 127.0.0.1:{port}\r\n")), "{asked}");
    assert!(asked.contains("user-agent: kube-lifecycle/1.37\r\n"), "{asked}");
    let (port, served) = server(&[b"220 mail.example\r\n"]);
    assert!(hooked(&get(port)).is_err());
    served.join().unwrap();
    assert!(hooked(&get(closed())).unwrap_err().ends_with("connect: connection refused"));
    let begun = std::time::Instant::now();
    assert_eq!(hooked(&Handler::Sleep(Duration::from_millis(20))), Ok(()));
    assert!(begun.elapsed().as_millis() >= 20);
}

#[test]
fn answers_are_judged_and_redirects_followed() {
    let ended = FakeRun(Exit::Code(0), "");
    let failed = |text: &str| Ok(Outcome::Failure(text.to_owned()));
    for (answers, expected) in [
        (&[b"HTTP/1.1 204 Fine\r\n\r\n" as &[u8]] as &'static [&'static [u8]], Ok(Outcome::Success)),
        (
            &[b"HTTP/1.1 503 Oh\r\ncontent-length: 6\r\n\r\nsecret"],
            failed("HTTP probe failed with statuscode: 503"),
        ),
        (
            &[
                b"HTTP/1.1 302 There\r\nlocation: /in?a\r\ncontent-length: 0\r\n\r\n",
                b"HTTP/1.1 200 Fine\r\n\r\n",
            ],
            Ok(Outcome::Success),
        ),
        (
            &[b"HTTP/1.1 301 There\r\nlocation: http://example.org/\r\ncontent-length: 4\r\n\r\naway"],
            Ok(Outcome::Warning("Probe terminated redirects, Response body: away".to_owned())),
        ),
    ] {
        let (port, served) = server(answers);
        assert_eq!(probed(&get(port), &ended), expected);
        let asked = served.join().unwrap();
        assert!(asked.iter().skip(1).all(|asked| asked.starts_with("GET /in?a HTTP/1.1\r\n")), "{asked:?}");
    }
    let port = closed();
    let refused = format!(
        "Get \"http://127.0.0.1:{port}/bye\": dial tcp 127.0.0.1:{port}: connect: connection refused"
    );
    assert_eq!(probed(&get(port), &ended), failed(&refused));
}

#[test]
fn connections_commands_and_silence() {
    let ended = FakeRun(Exit::Code(0), "");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect = |port| Handler::Connect { host: None, port };
    assert_eq!(probed(&connect(port), &ended), Ok(Outcome::Success));
    let refused = closed();
    let text = format!("dial tcp 127.0.0.1:{refused}: connect: connection refused");
    assert_eq!(probed(&connect(refused), &ended), Ok(Outcome::Failure(text)));
    // It is accepted, and nobody answers.
    let (handler, means) = (get(port), means(&ended));
    let silent = probe(&handler, Duration::from_millis(50), &means);
    let Ok(Outcome::Failure(text)) = control::run(silent) else { panic!("it did not fail") };
    assert!(
        text.ends_with("context deadline exceeded (Client.Timeout exceeded while awaiting headers)"),
        "{text}"
    );
    let exec = Handler::Exec(vec!["check".to_owned()]);
    for (exit, said, expected) in [
        (Exit::Code(0), "fine", Outcome::Success),
        (Exit::Code(3), "not fine", Outcome::Failure("not fine".into())),
        (Exit::Code(3), "", Outcome::Failure("exit code 3".into())),
        (Exit::Trap("unreachable".into()), "so: ", Outcome::Failure("so: unreachable".into())),
        (Exit::OutOfMemory, "", Outcome::Failure("it ran out of memory".into())),
    ] {
        assert_eq!(probed(&exec, &FakeRun(exit, said)), Ok(expected));
    }
    let none = Handler::Exec(vec!["none".to_owned()]);
    assert_eq!(probed(&none, &ended), Err("there is none".to_owned()));
}

#[test]
fn grpc_messages_are_read_and_written() {
    assert_eq!(check_request(""), [0, 0, 0, 0, 0]);
    assert_eq!(check_request("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
    let long = check_request(&"x".repeat(300));
    assert_eq!(long.get(..8), Some(&[0, 0, 0, 1, 47, 0x0a, 0xac, 0x02][..]));
    for (bytes, status) in [
        (&[0, 0, 0, 0, 2, 8, 1][..], Some(1)),
        (&[0, 0, 0, 0, 2, 8, 2], Some(2)),
        (&[0, 0, 0, 0, 0], Some(0)),
        (&[0, 0, 0, 0, 1, 9], None),
        (&[], None),
    ] {
        assert_eq!(check_response(bytes), status);
    }
    let refused = closed();
    let grpc = Handler::Grpc { port: refused, service: String::new(), secure: false };
    let Ok(Outcome::Failure(text)) = probed(&grpc, &FakeRun(Exit::Code(0), "")) else {
        panic!("it did not fail")
    };
    assert!(text.starts_with("error: failed to connect service at"), "{text}");
}
