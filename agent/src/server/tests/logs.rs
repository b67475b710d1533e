//! `/containerLogs` as the API server calls it.

use super::*;
use crate::log::Stream::{Stderr, Stdout};

const MAIN: &str = "/containerLogs/default/hello/main";

#[test]
fn refusals_have_the_kubelets_codes_and_words() {
    control::run(async {
        let bed = Bed::start();
        let admin = bed.admin();
        bed.logs.open(&key(), "main", 0).unwrap();
        let bad = StatusCode::BAD_REQUEST;
        for (path, status, body) in [
            ("default/gone/main", StatusCode::NOT_FOUND, "pod \"gone\" does not exist"),
            ("other/hello/main", StatusCode::NOT_FOUND, "pod \"hello\" does not exist"),
            ("default/hello/side", StatusCode::NOT_FOUND, "container \"side\" not found in pod \"hello\""),
            ("default/hello/main?previous=true", bad, "previous terminated container \"main\" in pod \"hello\" not found"),
            ("default/hello/creating", bad, "container \"creating\" in pod \"hello\" is waiting to start: ContainerCreating"),
            ("default/hello/pulling", bad, "container \"pulling\" in pod \"hello\" is waiting to start: trying and failing to pull image"),
            ("default/hello/never", bad, "container \"never\" in pod \"hello\" is terminated"),
            ("default/hello/unknown", bad, "container \"unknown\" in pod \"hello\" is not available"),
            ("default/hello/main?tailLines=x", bad, "{\"message\": \"Unable to decode query.\"}"),
            ("default/gone/main?limitBytes=0", StatusCode::UNPROCESSABLE_ENTITY, "{\"message\": \"Invalid request.\"}"),
            ("default/gone/main?stream=Stdout", StatusCode::NOT_FOUND, "pod \"gone\" does not exist"),
        ] {
            let answer = bed.get(&admin, &format!("/containerLogs/{path}")).await;
            assert_eq!(answer, (status, body.to_owned()), "{path}");
        }
        let (status, text) = bed.get(&admin, &format!("{MAIN}?stream=Stdout")).await;
        assert!(
            status == bad && text.contains("unable to return the given log stream: \"Stdout\""),
            "{text}"
        );
        let (status, text) = bed.get(&admin, "/containerLogs/default/hello/unwritten").await;
        assert!(status == StatusCode::NOT_FOUND && text.contains("cannot read the log"), "{text}");
    });
}

#[test]
fn a_log_is_chunked_text_with_the_options_of_kubectl_logs() {
    control::run(async {
        let bed = Bed::start();
        let admin = bed.admin();
        let writer = bed.logs.open(&key(), "main", 0).unwrap();
        writer.write(Stdout, b"one\ntwo\n").unwrap();
        writer.write(Stderr, b"three\n").unwrap();
        writer.write(Stdout, b"not ended").unwrap();
        for (query, body) in [
            ("", "one\ntwo\nthree\n"),
            ("?tailLines=2", "two\nthree\n"),
            ("?tail=1", "three\n"),
            ("?tailLines=0", ""),
            ("?limitBytes=5", "one\nt"),
            ("?tailLines=1&limitBytes=3", "thr"),
            ("?sinceSeconds=3600", "one\ntwo\nthree\n"),
            ("?sinceTime=2999-01-01T00:00:00Z", ""),
        ] {
            let response = bed.send(Some(&admin), Method::GET, &format!("{MAIN}{query}"), None).await;
            assert_eq!(header(response.headers(), "content-type"), "text/plain; charset=utf-8");
            assert_eq!(header(response.headers(), "transfer-encoding"), "chunked");
            assert_eq!(text(response).await, (StatusCode::OK, body.to_owned()), "{query}");
        }
        let (_, timed) = bed.get(&admin, &format!("{MAIN}?timestamps=true&tailLines=1")).await;
        assert!(timed.len() == 37 && timed.ends_with("Z three\n"), "{timed}");
    });
}

#[test]
fn a_follower_has_the_headers_at_once_each_line_as_it_comes_and_the_end_with_the_container() {
    control::run(async {
        let bed = Bed::start();
        let admin = bed.admin();
        let writer = bed.logs.open(&key(), "main", 0).unwrap();
        let response = bed.send(Some(&admin), Method::GET, &format!("{MAIN}?follow=true"), None).await;
        assert_eq!(response.status(), StatusCode::OK, "before there is a line");
        let mut body = response.into_body();
        for i in 0..5 {
            let line = format!("hello {i}\n");
            writer.write(Stdout, line.as_bytes()).unwrap();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), line);
        }
        writer.close();
        assert!(body.frame().await.is_none());
    });
}

#[test]
fn more_readers_than_the_limit_are_told_so_and_a_place_is_free_again_when_one_leaves() {
    control::run(async {
        let bed = Bed::start();
        let admin = bed.admin();
        let writer = bed.logs.open(&key(), "main", 0).unwrap();
        let follow = format!("{MAIN}?follow=true");
        let mut followers = Vec::new();
        for _ in 0..routes::MAX_LOG_STREAMS {
            let mut client = Client::new(bed.tunnel(Some(&admin)).await.unwrap()).await;
            let response = client.send(Method::GET, &follow, None).await;
            assert_eq!(response.status(), StatusCode::OK);
            followers.push((client, response));
        }
        assert_eq!(bed.get(&admin, &follow).await.0, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(bed.get(&admin, "/healthz").await.0, StatusCode::OK);
        let (client, response) = followers.pop().unwrap();
        drop(response);
        drop(client);
        // The server learns of it as soon as it looks at the connection.
        while bed.get(&admin, MAIN).await.0 != StatusCode::OK {}
        writer.close();
        for (_, response) in followers {
            assert_eq!(text(response).await.1, "");
        }
    });
}

#[test]
fn a_reader_that_reads_nothing_stops_the_reading_and_not_the_writer() {
    control::run(async {
        let bed = Bed::start();
        let admin = bed.admin();
        let writer = bed.logs.open(&key(), "main", 0).unwrap();
        let mut slow = bed.tunnel(Some(&admin)).await.unwrap();
        let request = format!("GET {MAIN}?follow=true HTTP/1.1\r\nHost: {NODE}\r\n\r\n");
        futures_lite::AsyncWriteExt::write_all(&mut slow, request.as_bytes()).await.unwrap();
        let line = [vec![b'x'; 1023], vec![b'\n']].concat();
        (0..4000).for_each(|_| writer.write(Stdout, &line).unwrap());
        assert_eq!(bed.get(&admin, &format!("{MAIN}?tailLines=1")).await.1.len(), line.len());
        writer.close();
        let mut all = Vec::new();
        let read = futures_lite::io::AsyncReadExt::take(&mut slow, 4_000_000);
        futures_lite::AsyncReadExt::read_to_end(&mut { read }, &mut all).await.unwrap();
        assert_eq!(all.iter().filter(|byte| **byte == b'x').count() / 100_000, 39);
    });
}
