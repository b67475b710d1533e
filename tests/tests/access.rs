//! The kubelet API answers nobody whom the cluster does not know, and does nothing that it does not allow.

use std::{path::Path, sync::OnceLock, time::Duration};

use tests::{
    bed::{certificates::Pair, NODE},
    guests::Guest,
    kubectl::Outcome,
    Cluster,
};

/// How long a pod may take to print on a busy machine.
const STEP: Duration = Duration::from_secs(60);

const ROUTES: [&str; 3] = ["/healthz", "/pods", "/containerLogs/default/hello/main"];

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

fn pair_options(pair: &Pair) -> Vec<String> {
    let file = |path: &Path| path.display().to_string();
    vec!["--cert".into(), file(&pair.certificate), "--key".into(), file(&pair.key)]
}

fn ask_as(path: &str, options: &[String]) -> (u16, String) {
    ask(path, &options.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Every route: method, path, the subresources that it asks for, and what it answers to whoever may.
const TABLE: [(&str, &str, &str, u16); 30] = [
    ("GET", "/", "proxy", 404),
    ("GET", "/healthz", "healthz proxy", 200),
    ("GET", "/healthz/ping", "healthz proxy", 200),
    ("GET", "/healthz/log", "healthz proxy", 200),
    ("GET", "/healthz/syncloop", "healthz proxy", 200),
    ("GET", "/pods", "pods proxy", 200),
    ("GET", "/runningpods/", "pods proxy", 200),
    ("GET", "/configz", "configz proxy", 200),
    ("GET", "/metrics", "metrics", 200),
    ("GET", "/metrics/resource", "metrics", 200),
    ("GET", "/metrics/cadvisor", "metrics", 200),
    ("GET", "/metrics/probes", "metrics", 200),
    ("GET", "/stats/summary", "stats", 200),
    ("GET", "/logs/", "log", 200),
    ("GET", "/logs/no-such-log", "log", 404),
    ("GET", "/logs/../../etc/passwd", "log", 403),
    ("GET", "/containerLogs/default/hello/main", "proxy", 200),
    ("POST", "/containerLogs/default/hello/main", "proxy", 405),
    ("POST", "/exec/default/hello/main?command=ls", "proxy", 400),
    ("GET", "/exec/default/hello/main?command=ls", "proxy", 400),
    ("POST", "/attach/default/hello/main", "proxy", 400),
    ("GET", "/attach/default/hello/main", "proxy", 400),
    ("POST", "/portForward/default/hello", "proxy", 400),
    ("GET", "/portForward/default/hello", "proxy", 400),
    ("POST", "/run/default/hello/main", "proxy", 501),
    ("GET", "/checkpoint/default/hello/main", "checkpoint", 404),
    ("GET", "/statusz", "statusz", 404),
    ("GET", "/flagz", "configz", 404),
    ("GET", "/debug/pprof/", "proxy", 404),
    ("GET", "/no/such/route", "proxy", 404),
];

#[test]
fn every_route_answers_those_who_may_and_nobody_else() {
    let bed = &cluster().bed;
    let (certificates, cluster_authority) = (bed.certificates(), &bed.cluster().authority);
    let groups = ["system:masters"];
    let name = "kubernetes";
    let elsewhere = certificates.authority("another-kubernetes");
    let impostor = certificates.client("wrong-authority", &elsewhere, name, &groups);
    let expired = certificates.expired_client("expired", cluster_authority, name, &groups);
    let unknown = certificates.authority("unknown");
    let powerless = format!("-H|{}", token("powerless"));
    let admin = certificates.client("table-admin", cluster_authority, name, &groups);
    let of = |pair: &Pair| pair_options(pair).join("|");
    for (method, path, subresources, answer) in TABLE {
        for (who, options, expected) in [
            ("no credentials", String::new(), 401),
            ("an unknown certificate", of(&unknown), 401),
            ("an expired certificate", of(&expired), 401),
            ("a certificate of another authority", of(&impostor), 401),
            ("a token without rights", powerless.clone(), 403),
            ("an administrator", of(&admin), answer),
        ] {
            let mut all = vec!["--path-as-is", "-X", method];
            all.extend(options.split('|').filter(|option| !option.is_empty()));
            let (code, body) = ask(path, &all);
            assert_eq!(code, expected, "{method} {path} as {who}: {body}");
            if expected == 401 {
                assert_eq!(body, "Unauthorized", "{method} {path} as {who}");
            }
            if expected == 403 && who == "a token without rights" {
                let verb = if method == "GET" { "get" } else { "create" };
                let wanted = format!("verb={verb}, resource=nodes, subresource(s)=[{subresources}]");
                assert!(body.contains(&wanted), "{method} {path}: {body:?} is not {wanted:?}");
            }
        }
    }
}

#[test]
fn another_client_authority_in_the_cluster_is_believed_and_forgotten_without_a_restart() {
    let bed = &cluster().bed;
    let newcomer = bed.certificates().authority("newcomer");
    let admin = bed.certificates().client("newcomers-admin", &newcomer, "admin", &["system:masters"]);
    let asked = || ask_as("/pods", &pair_options(&admin)).0;
    assert_eq!(asked(), 401);
    // The API server adds its own authority to what is there, and takes nothing away.
    let map = ["-n", "kube-system", "configmap", "extension-apiserver-authentication"];
    let before = bed.get(&map)["data"]["client-ca-file"].as_str().expect("it is published").to_owned();
    let set = |pem: &str| {
        let patch = serde_json::json!({"data": {"client-ca-file": pem}}).to_string();
        let mut all = vec!["patch", "-p", &patch];
        all.extend(map);
        bed.kubectl(&all).expect();
    };
    let pem = std::fs::read_to_string(&newcomer.certificate).expect("it can be read");
    set(&format!("{before}{pem}"));
    bed.wait_for("the newcomer to be believed", STEP, || (asked() == 200).then_some(()));
    set(&before);
    bed.wait_for("the newcomer to be forgotten", STEP, || (asked() == 401).then_some(()));
}

#[test]
fn a_token_that_is_none_is_401() {
    for header in ["Authorization: Bearer nonsense", "Authorization: Basic YTpi", "Authorization: Bearer "] {
        assert_eq!(ask("/pods", &["-H", header]).0, 401, "{header}");
    }
}

#[test]
fn a_certificate_without_rights_is_403() {
    let bed = &cluster().bed;
    let user = bed.certificates().client("nobody", &bed.cluster().authority, "nobody", &["nothing"]);
    for path in ROUTES {
        let (code, body) = ask_as(path, &pair_options(&user));
        assert_eq!(code, 403, "GET {path}: {body}");
    }
}

#[test]
fn the_right_to_proxy_opens_every_route() {
    let bed = &cluster().bed;
    let header = token("proxy");
    bed.kubectl(&["create", "clusterrole", "nodes-proxy", "--verb=get", "--resource=nodes/proxy"]).expect();
    bind(bed, "nodes-proxy", "proxy");
    for (path, wanted) in [(ROUTES[0], "ok"), (ROUTES[1], "PodList"), (ROUTES[2], "hello 0\nhello 1\n")] {
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
    for path in ROUTES {
        let (code, body) = ask_as(path, &pair_options(&admin));
        assert_eq!(code, 200, "GET {path}: {body}");
    }
    let missing = [
        ("/containerLogs/default/none/main", "pod \"none\" does not exist"),
        ("/containerLogs/default/hello/none", "container \"none\" not found in pod \"hello\""),
    ];
    for (path, wanted) in missing {
        let (code, body) = ask_as(path, &pair_options(&admin));
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
