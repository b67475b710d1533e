//! Clients that are too much, and ends of connections.

use super::*;
use futures_lite::{AsyncReadExt, AsyncWriteExt};

async fn raw(bed: &Bed, identity: &Identity, request: &[u8]) -> String {
    let mut tunnel = bed.tunnel(Some(identity)).await.unwrap();
    let mut answer = Vec::new();
    // The server may answer and close before everything is sent.
    let _ = tunnel.write_all(request).await;
    let _ = tunnel.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[test]
fn requests_of_absurd_size_are_refused() {
    control::run(async {
        let bed = Bed::start();
        let admin = bed.admin();
        let line = format!("GET /pods?{} HTTP/1.1\r\nHost: pi\r\n\r\n", "x".repeat(100_000));
        let header = format!("GET /pods HTTP/1.1\r\nHost: pi\r\nX: {}\r\n\r\n", "x".repeat(100_000));
        let headers = format!("GET /pods HTTP/1.1\r\nHost: pi\r\n{}\r\n", "X: y\r\n".repeat(100));
        for request in [line, header, headers] {
            let answer = raw(&bed, &admin, request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        }
        let answer = raw(&bed, &admin, b"nonsense\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert_eq!(bed.cluster.asked(), Vec::<String>::new());
    });
}

#[test]
fn what_is_not_tls_is_closed_and_others_are_served() {
    control::run(async {
        let bed = Bed::start();
        let mut stream = bed.stream().await;
        stream.write_all(b"GET /pods HTTP/1.1\r\nHost: pi\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!String::from_utf8_lossy(&answer).contains("HTTP"), "at most a TLS alert: {answer:?}");
        // Half-open connections take places, not the server.
        let mut open = Vec::new();
        for _ in 0..MAX_CONNECTIONS - 1 {
            open.push(bed.stream().await);
        }
        assert_eq!(bed.get(&bed.admin(), "/healthz").await.0, StatusCode::OK);
    });
}

#[test]
fn strangers_cannot_shut_out_who_is_known() {
    control::run(async {
        let bed = Bed::start();
        let admin = bed.admin();
        let mut known = Client::new(bed.tunnel(Some(&admin)).await.unwrap()).await;
        text(known.send(Method::GET, "/healthz", None).await).await;
        let mut strangers = Vec::new();
        for _ in 0..MAX_CONNECTIONS * 2 {
            strangers.push(bed.stream().await);
        }
        assert_eq!(bed.get(&admin, "/healthz").await.0, StatusCode::OK);
        text(known.send(Method::GET, "/healthz", None).await).await;
        let mut byte = [0];
        assert_eq!(strangers[0].read(&mut byte).await.unwrap(), 0, "the oldest had to leave");
    });
}

#[test]
fn a_full_house_waits_until_somebody_leaves() {
    control::run(async {
        let bed = Bed::start();
        let admin = bed.admin();
        let mut open = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            let mut client = Client::new(bed.tunnel(Some(&admin)).await.unwrap()).await;
            text(client.send(Method::GET, "/healthz", None).await).await;
            open.push(client);
        }
        let mut waiting = Box::pin(bed.get(&admin, "/healthz"));
        for _ in 0..100 {
            assert!(future::poll_once(&mut waiting).await.is_none());
            future::yield_now().await;
        }
        open.truncate(10);
        assert_eq!(waiting.await.0, StatusCode::OK);
    });
}

#[test]
fn the_server_ends_with_its_connections_when_it_is_dropped_and_by_itself_when_no_more_can_come() {
    control::run(async {
        let mut bed = Bed::start();
        let admin = bed.admin();
        let mut client = Client::new(bed.tunnel(Some(&admin)).await.unwrap()).await;
        text(client.send(Method::GET, "/healthz", None).await).await;
        let server = std::mem::replace(&mut bed.server, control::spawn(async {}));
        drop(server);
        let _ = client.connection.await;

        let other = Bed::start();
        other.connect.close();
        let mut other = other;
        std::mem::replace(&mut other.server, control::spawn(async {})).await;
    });
}

#[test]
fn a_port_is_served_as_any_stream_is() {
    control::run(async {
        let listener = listen::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.get_ref().local_addr().unwrap();
        assert!(listen::bind(address).unwrap_err().to_string().contains("cannot listen on"));
        let connections = listen::connections(listener);
        let mut connections = connections;
        let client = Async::<std::net::TcpStream>::connect(address);
        let (client, accepted) = future::zip(client, connections.next()).await;
        let (mut client, mut accepted) = (client.unwrap(), accepted.unwrap().unwrap());
        client.write_all(b"x").await.unwrap();
        let mut byte = [0];
        accepted.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"x");
    });
}
