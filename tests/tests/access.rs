//! The kubelet API answers nobody whom the cluster does not know, and does nothing that it does not allow.

use std::{path::Path, sync::OnceLock, time::Duration};

use tests::{bed::NODE, guests::Guest, kubectl::Outcome, Cluster};

/// How long a pod may take to print on a busy machine.
const STEP: Duration = Duration::from_secs(60);

/// The routes of the issue, with the subresource that each asks for.
const ROUTES: [(&str, &str); 3] =
    [("/healthz", "healthz proxy"), ("/pods", "pods proxy"), ("/containerLogs/default/hello/main", "proxy")];

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let cluster = Cluster::start();
        cluster.run("hello", "Always", Guest::Hello, &[]);
        cluster.bed.wait_for("the pod to print", STEP, || {
            cluster.bed.kubectl(&["logs", "hello"]).stdout.contains("hello 1").then_some(())
        });
        cluster
    })
}

/// A request to the node, not by way of the API server: the status code and the body.
fn ask(path: &str, options: &[&str]) -> (u16, String) {
    let cluster = cluster();
    let mut curl = cluster.bed.command("curl");
    curl.args(["-s", "--max-time", "20", "-w", "\n%{http_code}", "--cacert"]);
    curl.arg(&cluster.bed.cluster().authority.certificate).args(options);
    curl.arg(format!("https://{NODE}:10250{path}"));
    let outcome = Outcome::of(format!("curl {options:?} {path}"), curl, "");
    let (body, code) = outcome.stdout.rsplit_once('\n').unwrap_or_default();
    (code.parse().unwrap_or_default(), body.to_owned())
}

/// A token of the service account `name` of the default namespace, made for this.
#[track_caller]
fn token(name: &str) -> String {
    let bed = &cluster().bed;
    bed.kubectl(&["create", "serviceaccount", name]).expect();
    let token = bed.kubectl(&["create", "token", name]).expect();
    format!("Authorization: Bearer {}", token.trim())
}

fn pair(certificate: &Path, key: &Path) -> Vec<String> {
    vec!["--cert".into(), certificate.display().to_string(), "--key".into(), key.display().to_string()]
}

fn ask_as(path: &str, options: &[String]) -> (u16, String) {
    ask(path, &options.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn without_credentials_every_route_is_401() {
    let every = ROUTES.iter().map(|(path, _)| *path).chain([
        "/",
        "/metrics",
        "/metrics/resource",
        "/stats/summary",
        "/runningpods/",
        "/configz",
        "/exec/default/hello/main?command=ls",
        "/run/default/hello/main",
        "/logs/",
        "/no/such/route",
    ]);
    for path in every {
        let (code, body) = ask(path, &[]);
        assert_eq!(code, 401, "GET {path} without credentials: {body}");
        assert!(!body.contains("hello 0"), "GET {path} gives nothing away: {body}");
        assert_eq!(ask(path, &["-X", "POST"]).0, 401, "POST {path} without credentials");
    }
}

#[test]
fn a_token_that_is_none_is_401() {
    for header in ["Authorization: Bearer nonsense", "Authorization: Basic YTpi", "Authorization: Bearer "] {
        assert_eq!(ask("/pods", &["-H", header]).0, 401, "{header}");
    }
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let bed = &cluster().bed;
    let authority = bed.certificates().authority("somebody-else");
    let admin = bed.certificates().client("impostor", &authority, "admin", &["system:masters"]);
    for (path, _) in ROUTES {
        let (code, body) = ask_as(path, &pair(&admin.certificate, &admin.key));
        // 0 is a TLS handshake that was broken off, which is as good an answer.
        assert!(code == 401 || code == 0, "GET {path}: {code} {body}");
    }
}

#[test]
fn a_token_without_rights_is_403_and_says_what_was_missing() {
    let header = token("stranger");
    for (path, subresources) in ROUTES {
        let (code, body) = ask(path, &["-H", &header]);
        assert_eq!(code, 403, "GET {path}: {body}");
        let wanted = format!(
            "Forbidden (user=system:serviceaccount:default:stranger, verb=get, resource=nodes, \
             subresource(s)=[{subresources}])"
        );
        assert!(body.contains(&wanted), "GET {path}: {body:?} is not {wanted:?}");
    }
}

#[test]
fn a_certificate_without_rights_is_403() {
    let bed = &cluster().bed;
    let user = bed.certificates().client("nobody", &bed.cluster().authority, "nobody", &["nothing"]);
    for (path, _) in ROUTES {
        let (code, body) = ask_as(path, &pair(&user.certificate, &user.key));
        assert_eq!(code, 403, "GET {path}: {body}");
    }
}

#[test]
fn the_right_to_proxy_opens_every_route() {
    let bed = &cluster().bed;
    let header = token("proxy");
    bed.kubectl(&["create", "clusterrole", "nodes-proxy", "--verb=get", "--resource=nodes/proxy"]).expect();
    bind(bed, "nodes-proxy", "proxy");
    for (path, wanted) in [(ROUTES[0].0, "ok"), (ROUTES[1].0, "PodList"), (ROUTES[2].0, "hello 0\nhello 1\n")]
    {
        let (code, body) = ask(path, &["-H", &header]);
        assert_eq!(code, 200, "GET {path}: {body}");
        assert!(body.contains(wanted), "GET {path}: {body}");
    }
    let (code, body) = ask("/containerLogs/default/hello/main", &["-X", "POST", "-H", &header]);
    assert_ne!(code, 200, "the right to get is not one to create: {body}");
}

#[test]
fn a_right_to_one_subresource_opens_that_one() {
    let bed = &cluster().bed;
    let header = token("pods");
    bed.kubectl(&["create", "clusterrole", "nodes-pods", "--verb=get", "--resource=nodes/pods"]).expect();
    bind(bed, "nodes-pods", "pods");
    assert_eq!(ask("/pods", &["-H", &header]).0, 200);
    assert_eq!(ask("/healthz", &["-H", &header]).0, 403);
    assert_eq!(ask("/containerLogs/default/hello/main", &["-H", &header]).0, 403);
}

#[test]
fn the_administrators_certificate_opens_every_route() {
    let bed = &cluster().bed;
    let admin =
        bed.certificates().client("admin-again", &bed.cluster().authority, "admin", &["system:masters"]);
    for (path, _) in ROUTES {
        let (code, body) = ask_as(path, &pair(&admin.certificate, &admin.key));
        assert_eq!(code, 200, "GET {path}: {body}");
    }
    let missing = [
        ("/containerLogs/default/none/main", "pod \"none\" does not exist"),
        ("/containerLogs/default/hello/none", "container \"none\" not found in pod \"hello\""),
    ];
    for (path, wanted) in missing {
        let (code, body) = ask_as(path, &pair(&admin.certificate, &admin.key));
        assert_eq!(code, 404, "GET {path}: {body}");
        assert!(body.contains(wanted), "GET {path}: {body:?} is not {wanted:?}");
    }
}

#[test]
fn logs_come_with_the_options_of_kubectl() {
    let bed = &cluster().bed;
    let tail = bed.kubectl(&["logs", "hello", "--tail=1"]).expect();
    assert_eq!(tail.lines().count(), 1, "{tail}");
    assert!(tail.starts_with("hello "), "{tail}");
    assert_eq!(bed.kubectl(&["logs", "hello", "--tail=0"]).expect(), "");
    let unknown = bed.kubectl(&["logs", "hello", "-c", "none"]).expect_failure();
    assert!(unknown.contains("none"), "{unknown}");
}

#[track_caller]
fn bind(bed: &tests::Bed, role: &str, account: &str) {
    bed.kubectl(&[
        "create",
        "clusterrolebinding",
        role,
        &format!("--clusterrole={role}"),
        &format!("--serviceaccount=default:{account}"),
    ])
    .expect();
}
