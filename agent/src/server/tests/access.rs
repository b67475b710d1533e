//! Every route, for everybody.

use super::*;

const ROUTES: [(Method, &str, StatusCode, &str, &[&str]); 35] = [
    (Method::GET, "/healthz", StatusCode::OK, "ok", &["healthz", "proxy"]),
    (
        Method::GET,
        "/healthz?verbose",
        StatusCode::OK,
        "[+]ping ok\n[+]log ok\n[+]syncloop ok\nhealthz check passed\n",
        &["healthz", "proxy"],
    ),
    (Method::GET, "/healthz/ping", StatusCode::OK, "ok", &["healthz", "proxy"]),
    (Method::GET, "/healthz/log", StatusCode::OK, "ok", &["healthz", "proxy"]),
    (Method::GET, "/healthz/syncloop", StatusCode::OK, "ok", &["healthz", "proxy"]),
    (Method::GET, "/healthz/other", StatusCode::NOT_FOUND, "404: Page Not Found", &["healthz", "proxy"]),
    (
        Method::POST,
        "/healthz",
        StatusCode::METHOD_NOT_ALLOWED,
        "405: Method Not Allowed",
        &["healthz", "proxy"],
    ),
    (Method::GET, "/pods", StatusCode::OK, "\"Succeeded\"", &["pods", "proxy"]),
    (Method::GET, "/%70ods/", StatusCode::OK, "\"Succeeded\"", &["pods", "proxy"]),
    (Method::GET, "/runningpods/", StatusCode::OK, "\"Running\"", &["pods", "proxy"]),
    (Method::GET, "/configz", StatusCode::OK, "{\"kubeletconfig\":{}}", &["configz", "proxy"]),
    (Method::GET, "/containerLogs/default/hello/main", StatusCode::OK, "hello\n", &["proxy"]),
    (Method::DELETE, "/containerLogs/default/hello/main", StatusCode::METHOD_NOT_ALLOWED, "405", &["proxy"]),
    (
        Method::POST,
        "/exec/default/hello/main?command=ls",
        StatusCode::BAD_REQUEST,
        "at least 1 of",
        &["proxy"],
    ),
    (Method::GET, "/exec/default/hello/u1/main", StatusCode::BAD_REQUEST, "at least 1 of", &["proxy"]),
    (Method::POST, "/attach/default/hello/main", StatusCode::BAD_REQUEST, "at least 1 of", &["proxy"]),
    (Method::GET, "/attach/default/hello/main?output=1", StatusCode::BAD_REQUEST, "SPDY/3.1", &["proxy"]),
    (Method::DELETE, "/exec/default/hello/main", StatusCode::METHOD_NOT_ALLOWED, "405", &["proxy"]),
    (Method::POST, "/portForward/default/hello", StatusCode::BAD_REQUEST, "SPDY/3.1", &["proxy"]),
    (Method::PUT, "/portForward/default/hello", StatusCode::METHOD_NOT_ALLOWED, "405", &["proxy"]),
    (Method::POST, "/run/default/hello/main", StatusCode::NOT_IMPLEMENTED, "run", &["proxy"]),
    (Method::GET, "/logs/syslog", StatusCode::NOT_FOUND, "404 page not found\n", &["log"]),
    (Method::GET, "/logs/", StatusCode::OK, "<pre>\n<a href=", &["log"]),
    (Method::POST, "/logs/", StatusCode::METHOD_NOT_ALLOWED, "405", &["log"]),
    (Method::GET, "/metrics", StatusCode::OK, "# TYPE kubelet_node_name gauge\n", &["metrics"]),
    (Method::GET, "/metrics/resource", StatusCode::OK, "node_cpu_usage_seconds_total ", &["metrics"]),
    (Method::GET, "/metrics/cadvisor", StatusCode::OK, "machine_memory_bytes ", &["metrics"]),
    (Method::GET, "/metrics/probes", StatusCode::OK, "", &["metrics"]),
    (Method::GET, "/metrics/other", StatusCode::NOT_FOUND, "404: Page Not Found", &["metrics"]),
    (Method::POST, "/metrics", StatusCode::METHOD_NOT_ALLOWED, "405", &["metrics"]),
    (Method::GET, "/stats/summary", StatusCode::OK, "\"nodeName\":\"\"", &["stats"]),
    (Method::GET, "/stats", StatusCode::NOT_FOUND, "404: Page Not Found", &["stats"]),
    (Method::GET, "/metrics/../pods", StatusCode::NOT_FOUND, "404: Page Not Found", &["metrics"]),
    (Method::PUT, "/checkpoint/a/b/c", StatusCode::NOT_FOUND, "404: Page Not Found", &["checkpoint"]),
    (Method::GET, "/nothing/here", StatusCode::NOT_FOUND, "404: Page Not Found", &["proxy"]),
];

fn verb(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "get",
        "POST" => "create",
        "PUT" => "update",
        _ => "delete",
    }
}

/// Who comes: a certificate, and an Authorization header.
type Visitor<'a> = (&'a str, Option<&'a Identity>, Option<&'a str>);

#[test]
fn every_route_refuses_strangers_and_those_without_rights_and_answers_the_others() {
    control::run(async {
        let bed = Bed::start();
        bed.logs.open(&key(), "main", 0).unwrap().write(crate::log::Stream::Stdout, b"hello\n").unwrap();
        bed.cluster.allow("admin", &["*"]);
        bed.cluster.allow("unlucky", &["unknown"]);
        let plain = |_: &mut CertificateParams| ();
        let [admin, nobody, unlucky] =
            ["admin", "nobody", "unlucky"].map(|name| bed.authority.client(name, plain));
        let unknown = Authority::new().client("admin", plain);
        let expired = bed.authority.client("admin", |c| c.not_after = rcgen::date_time_ymd(2020, 1, 1));
        let early = bed.authority.client("admin", |c| c.not_before = rcgen::date_time_ymd(4000, 1, 1));
        let serving = bed
            .authority
            .client("admin", |c| c.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
        let nameless = bed.authority.client("", plain);

        let strangers: [Visitor; 12] = [
            ("no credentials", None, None),
            ("unknown CA", Some(&unknown), None),
            ("expired", Some(&expired), None),
            ("not valid yet", Some(&early), None),
            ("a server's certificate", Some(&serving), None),
            ("no common name", Some(&nameless), None),
            ("unknown token", None, Some("Bearer wrong")),
            ("token that cannot be reviewed", None, Some("Bearer broken")),
            ("token of somebody without a name", None, Some("Bearer nameless")),
            ("empty token", None, Some("Bearer ")),
            ("another scheme", None, Some("Basic token-of-admin")),
            ("unknown CA and token", Some(&unknown), Some("Bearer wrong")),
        ];
        let unentitled: [Visitor; 3] = [
            ("nobody", Some(&nobody), None),
            ("nobody", None, Some("Bearer token-of-nobody")),
            // A certificate that counts is who asks, whatever token comes with it.
            ("nobody", Some(&nobody), Some("Bearer token-of-admin")),
        ];
        let entitled: [Visitor; 4] = [
            ("admin", Some(&admin), None),
            ("admin", None, Some("bearer token-of-admin")),
            ("unknown CA, but a token", Some(&unknown), Some("Bearer token-of-admin")),
            ("expired, but a token", Some(&expired), Some("Bearer token-of-admin")),
        ];
        for (method, path, status, body, subresources) in ROUTES {
            let verb = verb(&method);
            for (who, identity, token) in strangers {
                let response = bed.send(identity, method.clone(), path, token).await;
                assert_eq!(header(response.headers(), "connection"), "close");
                assert_eq!(
                    text(response).await,
                    (StatusCode::UNAUTHORIZED, "Unauthorized".into()),
                    "{path}: {who}"
                );
            }
            for (who, identity, token) in unentitled {
                let answer = text(bed.send(identity, method.clone(), path, token).await).await;
                let asked = subresources.join(" ");
                let refusal = format!(
                    "Forbidden (user={who}, verb={verb}, resource=nodes, subresource(s)=[{asked}])\n"
                );
                assert_eq!(answer, (StatusCode::FORBIDDEN, refusal), "{path}");
            }
            let answer = text(bed.send(Some(&unlucky), method.clone(), path, None).await).await;
            let first = subresources[0];
            let refusal = format!(
                "Authorization error (user=unlucky, verb={verb}, resource=nodes, subresource={first})"
            );
            assert_eq!(answer, (StatusCode::INTERNAL_SERVER_ERROR, refusal), "{path}");
            for (who, identity, token) in entitled {
                let answer = text(bed.send(identity, method.clone(), path, token).await).await;
                assert!(answer.0 == status && answer.1.contains(body), "{method} {path}: {who}: {answer:?}");
            }
        }
        assert!(!bed.get(&admin, "/runningpods/").await.1.contains("Succeeded"));
        let broken = bed.get(&admin, "/pods%zz").await;
        assert_eq!(broken.0, StatusCode::BAD_REQUEST);
    });
}

#[test]
fn a_finer_right_opens_its_own_routes_and_no_others() {
    control::run(async {
        let bed = Bed::start();
        bed.cluster.allow("prober", &["get nodes/healthz"]);
        bed.cluster.allow("old", &["get nodes/proxy"]);
        let [prober, old] = ["prober", "old"].map(|name| bed.authority.client(name, |_| ()));
        for (identity, path, status) in [
            (&prober, "/healthz", StatusCode::OK),
            (&prober, "/healthz/ping", StatusCode::OK),
            (&prober, "/pods", StatusCode::FORBIDDEN),
            (&prober, "/containerLogs/default/hello/main", StatusCode::FORBIDDEN),
            (&old, "/healthz", StatusCode::OK),
            (&old, "/pods", StatusCode::OK),
            (&old, "/metrics", StatusCode::FORBIDDEN),
        ] {
            assert_eq!(bed.get(identity, path).await.0, status, "{path}");
        }
    });
}

#[test]
fn answers_are_asked_for_once_and_errors_again() {
    control::run(async {
        let bed = Bed::start();
        bed.cluster.allow("admin", &["*"]);
        bed.cluster.allow("unlucky", &["unknown"]);
        for (token, asked) in [
            ("token-of-admin", vec!["token token-of-admin", "admin get nodes/pods"]),
            (
                "token-of-nobody",
                vec!["token token-of-nobody", "nobody get nodes/pods", "nobody get nodes/proxy"],
            ),
            ("wrong", vec!["token wrong"]),
            ("broken", vec!["token broken"; 3]),
            (
                "token-of-unlucky",
                [vec!["token token-of-unlucky"], vec!["unlucky get nodes/pods"; 3]].concat(),
            ),
        ] {
            for _ in 0..3 {
                bed.send(None, Method::GET, "/pods", Some(&format!("Bearer {token}"))).await;
            }
            assert_eq!(bed.cluster.asked(), asked, "{token}");
        }
    });
}

#[test]
fn a_connection_that_is_known_stays_open_for_further_requests() {
    control::run(async {
        let bed = Bed::start();
        let mut client = Client::new(bed.tunnel(Some(&bed.admin())).await.unwrap()).await;
        for path in ["/healthz", "/pods", "/nothing"] {
            let response = client.send(Method::GET, path, None).await;
            assert_eq!(header(response.headers(), "connection"), "");
            text(response).await;
        }
        drop(client.requests);
        client.connection.await;
        assert!(client.closed_well.load(Ordering::Relaxed));
    });
}
