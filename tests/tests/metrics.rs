//! What the node tells of itself, read by those whom it is for: metrics-server, and so `kubectl top`, Prometheus, and
//! whoever asks for the kubelet's summary.

use std::{fs, sync::OnceLock, time::Duration};

use serde_json::{json, Value};
use tests::{
    bed::{HOSTNAME, NODE},
    cluster::{pod, pod_spec},
    guests::Guest,
    kubectl::Outcome,
    tools::tool,
    Bed, Cluster,
};

/// How long a figure may take to show: metrics-server looks every ten seconds, and needs two looks.
const SHOWN: Duration = Duration::from_secs(120);

const PATHS: [&str; 4] = ["/metrics", "/metrics/resource", "/metrics/cadvisor", "/metrics/probes"];

/// The roles and the registration of metrics-server's own manifest, its service being a name of the bed's.
const METRICS_SERVER: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: metrics-server, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "system:metrics-server"}
rules:
- {apiGroups: [""], resources: [nodes/metrics], verbs: [get]}
- {apiGroups: [""], resources: [pods, nodes], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: metrics-server-auth-reader, namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: extension-apiserver-authentication-reader}
subjects: [{kind: ServiceAccount, name: metrics-server, namespace: kube-system}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "metrics-server:system:auth-delegator"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:auth-delegator"}
subjects: [{kind: ServiceAccount, name: metrics-server, namespace: kube-system}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "system:metrics-server"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:metrics-server"}
subjects: [{kind: ServiceAccount, name: metrics-server, namespace: kube-system}]
---
apiVersion: v1
kind: Service
metadata: {name: metrics-server, namespace: kube-system}
spec:
  type: ExternalName
  externalName: control-plane
  ports: [{name: https, port: 4443}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.metrics.k8s.io}
spec:
  group: metrics.k8s.io
  version: v1beta1
  groupPriorityMinimum: 100
  versionPriority: 100
  insecureSkipTLSVerify: true
  service: {name: metrics-server, namespace: kube-system, port: 4443}
"#;

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let cluster = Cluster::start();
        let bed = &cluster.bed;
        cluster.run("hello", "Always", Guest::Hello, &[]);
        cluster.run("spinner", "Always", Guest::Hostile, &["spin", "/tmp"]);
        let mut spec = pod_spec("Always", &cluster.image(Guest::Health), &["/state/ok"]);
        let container = &mut spec["containers"][0];
        container["ports"] = json!([{"name": "web", "containerPort": 8080}]);
        container["volumeMounts"] = json!([{"name": "state", "mountPath": "/state"}]);
        container["resources"] = json!({"limits": {"cpu": "500m", "memory": "64Mi"}});
        container["livenessProbe"] =
            json!({"httpGet": {"path": "/healthz", "port": "web"}, "periodSeconds": 1});
        container["readinessProbe"] = json!({"tcpSocket": {"port": 9}, "periodSeconds": 1});
        spec["volumes"] = json!([{"name": "state", "emptyDir": {}}]);
        bed.apply_value(&pod("probed", spec));
        for name in ["hello", "spinner", "probed"] {
            bed.wait_for_columns("default", name, SHOWN, |columns| columns.status == "Running");
        }
        cluster
    })
}

/// A service account's token, and in the file of this name a kubeconfig with it.
fn kubeconfig(bed: &Bed, namespace: &str, account: &str) -> (std::path::PathBuf, String) {
    let token = bed.kubectl(&["-n", namespace, "create", "token", account]).expect();
    let token = token.trim().to_owned();
    let mut config: Value = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c"});
    config["clusters"] = json!([{"name": "c", "cluster": {
        "server": bed.server(), "certificate-authority": bed.cluster().authority.certificate,
    }}]);
    config["users"] = json!([{"name": "c", "user": {"token": token}}]);
    config["contexts"] = json!([{"name": "c", "context": {"cluster": "c", "user": "c"}}]);
    (bed.write(&format!("{account}.conf"), &config.to_string()), token)
}

fn by_way_of_the_api_server(path: &str) -> String {
    let path = format!("/api/v1/nodes/{HOSTNAME}/proxy{path}");
    cluster().bed.kubectl(&["get", "--raw", &path]).expect()
}

#[test]
fn kubectl_top_shows_nodes_and_pods() {
    let bed = &cluster().bed;
    bed.apply(METRICS_SERVER);
    let (file, _) = kubeconfig(bed, "kube-system", "metrics-server");
    let file = file.display();
    let mut server = bed.command(tool("metrics-server"));
    server.args([
        "--secure-port=4443",
        "--metric-resolution=10s",
        "--kubelet-request-timeout=5s",
        "--cert-dir=metrics-server",
    ]);
    server.arg("--kubelet-preferred-address-types=InternalIP");
    server.arg(format!("--kubelet-certificate-authority={}", bed.cluster().authority.certificate.display()));
    for flag in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
        server.arg(format!("--{flag}={file}"));
    }
    bed.house("metrics-server", server);

    let amount = |text: &str, unit: &str| text.strip_suffix(unit).and_then(|n| n.parse::<u64>().ok());
    let pods = bed.wait_for("kubectl top to show all pods", SHOWN, || {
        let shown = bed.kubectl(&["top", "pods", "--no-headers"]).stdout;
        ["hello", "spinner", "probed"].iter().all(|name| shown.contains(name)).then_some(shown)
    });
    let of = |name: &str| -> (u64, u64) {
        let line = pods.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        let found = (words.get(1).and_then(|w| amount(w, "m")), words.get(2).and_then(|w| amount(w, "Mi")));
        let (Some(cpu), Some(memory)) = found else { panic!("no figures of {name} in\n{pods}") };
        (cpu, memory)
    };
    let ((hello, hello_memory), (spinner, _)) = (of("hello"), of("spinner"));
    assert!(hello < 20 && (1..=4).contains(&hello_memory), "hello prints a line a second:\n{pods}");
    assert!(spinner > 200, "it never waits:\n{pods}");
    let (_, probed_memory) = of("probed");
    assert!((2..=64).contains(&probed_memory), "a server in Go:\n{pods}");

    let node = bed.kubectl(&["top", "node", "--no-headers"]).expect();
    let words: Vec<&str> = node.split_whitespace().collect();
    assert_eq!(words.first(), Some(&HOSTNAME), "{node}");
    assert!(words.get(1).and_then(|w| amount(w, "m")).is_some_and(|cpu| cpu > 100), "{node}");
    let containers = bed.kubectl(&["top", "pod", "hello", "--containers", "--no-headers"]).expect();
    assert!(containers.contains("main"), "{containers}");
}

#[test]
fn prometheus_scrapes_every_page_and_promtool_finds_no_fault() {
    let bed = &cluster().bed;
    bed.kubectl(&["create", "serviceaccount", "prometheus"]).expect();
    bed.kubectl(&["create", "clusterrole", "scraper", "--verb=get", "--resource=nodes/metrics"]).expect();
    bed.kubectl(&[
        "create",
        "clusterrolebinding",
        "scraper",
        "--clusterrole=scraper",
        "--serviceaccount=default:prometheus",
    ])
    .expect();
    let (_, token) = kubeconfig(bed, "default", "prometheus");
    let authority = bed.cluster().authority.certificate.clone();
    let jobs: Vec<Value> = PATHS
        .iter()
        .map(|path| {
            json!({
                "job_name": path, "scheme": "https", "metrics_path": path, "scrape_interval": "2s",
                "tls_config": {"ca_file": authority}, "authorization": {"credentials": token},
                "static_configs": [{"targets": [format!("{NODE}:10250")]}],
            })
        })
        .collect();
    let config = bed.write("prometheus.yml", &json!({"scrape_configs": jobs}).to_string());
    let mut server = bed.command(tool("prometheus"));
    server.arg("--config.file").arg(config).arg("--storage.tsdb.path").arg(bed.folder().join("prometheus"));
    server.args(["--web.listen-address=127.0.0.1:9090", "--log.level=warn"]);
    bed.house("prometheus", server);
    let query = |text: &str| -> Vec<Value> {
        let asked = bed.shell(&format!(
            "curl -sS --max-time 10 -G http://127.0.0.1:9090/api/v1/query --data-urlencode 'query={text}'"
        ));
        let answer: Value = serde_json::from_str(&asked.stdout).unwrap_or_default();
        answer["data"]["result"].as_array().cloned().unwrap_or_default()
    };
    let wait = |text: &str, count: usize| {
        bed.wait_for(&format!("{count} results of {text}"), SHOWN, || {
            let found = query(text);
            (found.len() == count).then_some(found)
        })
    };
    wait("up == 1", PATHS.len());
    // What dashboards of Kubernetes ask.
    for (text, count) in [
        (r#"sum by (pod) (rate(container_cpu_usage_seconds_total{container!="",image!=""}[30s])) > 0"#, 3),
        (r#"container_memory_working_set_bytes{job="/metrics/cadvisor",container!="",image!=""} > 65536"#, 3),
        (r#"container_spec_cpu_quota{pod="probed"} == 50000"#, 1),
        (r#"container_spec_memory_limit_bytes{pod="probed"} == 67108864"#, 1),
        (r#"rate(container_network_receive_bytes_total{pod="probed"}[30s]) > 0"#, 1),
        (r#"prober_probe_total{probe_type="Liveness",result="successful",container="main"} > 2"#, 1),
        (r#"prober_probe_total{probe_type="Readiness",result="failed"} > 2"#, 1),
        (r#"kubelet_running_pods == 3"#, 1),
        (r#"kubelet_node_name{node="pi"}"#, 1),
        (r#"rate(process_cpu_seconds_total{job="/metrics"}[30s]) > 0.1"#, 1),
        (r#"process_resident_memory_bytes{job="/metrics"} > 1000000"#, 1),
        (r#"rest_client_requests_total{code="200",method="PATCH"} > 0"#, 1),
        (r#"machine_cpu_cores > 0"#, 1),
    ] {
        wait(text, count);
    }

    for path in PATHS {
        let text = by_way_of_the_api_server(path);
        assert!(!text.is_empty(), "{path}");
        let mut check = bed.command(tool("promtool"));
        check.args(["check", "metrics"]);
        let checked = Outcome::of(format!("promtool check metrics < {path}"), check, &text);
        assert_eq!(
            (checked.code, checked.stdout.as_str(), checked.stderr.as_str()),
            (Some(0), "", ""),
            "{path}"
        );
    }
}

#[test]
fn the_figures_are_the_runtimes_own_and_those_of_the_kernel() {
    let bed = &cluster().bed;
    let summary: Value =
        serde_json::from_str(&by_way_of_the_api_server("/stats/summary")).expect("the summary is JSON");
    let node = &summary["node"];
    assert_eq!(node["nodeName"], HOSTNAME);
    let kernel = fs::read_to_string("/proc/meminfo").expect("there is one");
    let total = kernel
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().trim_end_matches(" kB").parse::<u64>().ok());
    let told = ["workingSetBytes", "availableBytes"].map(|name| node["memory"][name].as_u64());
    assert_eq!(told[0].zip(told[1]).map(|(used, left)| (used + left) / 1024), total, "{node}");
    let status = fs::read_to_string(format!("/proc/{}/status", cluster().agent.pid())).expect("it runs");
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().trim_end_matches(" kB").parse::<u64>().ok());
    let told = node["systemContainers"][0]["memory"]["rssBytes"].as_u64().unwrap_or(0) / 1024;
    assert!(resident.is_some_and(|kib| told > kib / 2 && told < kib * 2), "{told} KiB, {resident:?}");

    let of = |name: &str| {
        let pods = summary["pods"].as_array().expect("there are pods");
        pods.iter().find(|pod| pod["podRef"]["name"] == name).cloned().unwrap_or_default()
    };
    let spinner = of("spinner");
    let uid = bed.get(&["pod", "spinner"])["metadata"]["uid"].clone();
    assert_eq!(spinner["podRef"]["uid"], uid);
    let used = |pod: &Value| pod["containers"][0]["cpu"]["usageCoreNanoSeconds"].as_u64().unwrap_or(0);
    assert!(used(&spinner) > 100 * used(&of("hello")), "{spinner}");
    let memory = of("hello")["containers"][0]["memory"]["workingSetBytes"].as_u64().unwrap_or(0);
    assert!(memory > 0 && memory % 65_536 == 0, "linear memory comes in pages of 64 KiB: {memory}");
    // It listens and says so in its log; its only file is a folder.
    assert!(of("probed")["ephemeral-storage"]["usedBytes"].as_u64().is_some(), "{summary}");

    let brief: Value =
        serde_json::from_str(&by_way_of_the_api_server("/stats/summary?only_cpu_and_memory=true"))
            .expect("the summary is JSON");
    // The API server's proxy keeps the query of a plain request.
    assert!(brief["node"]["fs"].is_null() && brief["node"]["cpu"].is_object(), "{brief}");
}
