//! Servers in three languages on their pods' ports, as a Service finds them; ports that are taken; and a guest that
//! connects to a broker.

use std::{sync::OnceLock, time::Duration};

use serde_json::{json, Value};
use tests::{
    bed::{NODE, PLAIN_REGISTRY},
    cluster::{pod, pod_spec},
    guests::Guest,
    tools::tool,
    Cluster,
};

/// How long a state may take to show; Go's module is compiled for some seconds.
const SHOWN: Duration = Duration::from_secs(120);

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::start)
}

/// A pod spec with these ports.
fn with_ports(guest: Guest, ports: Value) -> Value {
    let mut spec = pod_spec("Always", &cluster().image(guest), &[]);
    spec["containers"][0]["ports"] = ports;
    spec
}

/// What an HTTP server answers; none: it does not.
fn curl(url: &str) -> Option<String> {
    let mut command = cluster().bed.command("curl");
    let output = command.args(["--silent", "--show-error", "--max-time", "20", url]).output();
    let output = output.expect("curl starts");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[track_caller]
fn running(name: &str) {
    let columns =
        cluster().bed.wait_for_columns("default", name, SHOWN, |columns| columns.status == "Running");
    assert_eq!((columns.ready.as_str(), columns.restarts), ("1/1", 0));
}

/// A pod with a port is reached at its address, and where a Service's endpoints say.
#[track_caller]
fn serves(guest: Guest, language: &str, port: u16) {
    let bed = &cluster().bed;
    let name = format!("serve-{language}");
    let mut object = pod(&name, with_ports(guest, json!([{"name": "http", "containerPort": port}])));
    object["metadata"]["labels"] = json!({"app": name});
    bed.apply_value(&object);
    bed.apply_value(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": "http"}]},
    }));
    running(&name);
    let ip = bed.get(&["pod", &name])["status"]["podIP"].as_str().map(str::to_owned).expect("an address");
    for served in 0..3 {
        let answer = curl(&format!("http://{ip}:{port}/path/{served}"));
        assert_eq!(answer.as_deref(), Some(&*format!("{language} {served} /path/{served}\n")));
    }
    let selector = format!("kubernetes.io/service-name={name}");
    let endpoint = bed.wait_for("the service to have an endpoint", SHOWN, || {
        let slices = bed.get(&["endpointslices", "-l", &selector]);
        let slice = &slices["items"][0];
        let ready = slice["endpoints"][0]["conditions"]["ready"] == true;
        let address = slice["endpoints"][0]["addresses"][0].as_str().filter(|_| ready)?;
        Some(format!("http://{address}:{}/service", slice["ports"][0]["port"]))
    });
    assert_eq!(curl(&endpoint), Some(format!("{language} 3 /service\n")));
    // At no other address of this machine.
    assert_eq!(curl(&format!("http://127.0.0.1:{port}/")), None);
    // Many at once.
    let urls = format!("http://{ip}:{port}/[1-200]");
    let all = curl_many(&urls);
    assert_eq!(all.lines().filter(|line| line.starts_with(language)).count(), 200, "{all}");
    bed.kubectl(&["delete", "pod", &name]).expect();
    assert_eq!(curl(&format!("http://{ip}:{port}/")), None, "its port goes with it");
}

fn curl_many(urls: &str) -> String {
    let mut command = cluster().bed.command("curl");
    command.args([
        "--silent",
        "--show-error",
        "--max-time",
        "60",
        "--parallel",
        "--parallel-max",
        "20",
        urls,
    ]);
    let output = command.output().expect("curl starts");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn a_c_program_serves() {
    serves(Guest::ServeC, "c", 8081);
}

#[test]
fn a_rust_program_serves() {
    serves(Guest::Serve, "rust", 8082);
}

#[test]
fn gos_own_http_server_serves() {
    serves(Guest::ServeGo, "go", 8083);
}

#[test]
fn a_host_port_leads_to_the_container_port() {
    let bed = &cluster().bed;
    let ports = json!([{"containerPort": 8084, "hostPort": 9084}]);
    bed.apply_value(&pod("host-port", with_ports(Guest::ServeC, ports)));
    running("host-port");
    assert_eq!(curl("http://127.0.0.1:9084/a").as_deref(), Some("c 0 /a\n"));
    assert_eq!(curl(&format!("http://{NODE}:9084/b")).as_deref(), Some("c 1 /b\n"));
    assert_eq!(curl(&format!("http://{NODE}:8084/c")).as_deref(), Some("c 2 /c\n"));
    // Another pod with that hostPort is refused.
    let ports = json!([{"containerPort": 1, "hostPort": 9084}]);
    let mut second = pod("host-port-again", with_ports(Guest::ServeC, ports));
    // Past the scheduler, which would not choose this node.
    second["spec"]["nodeName"] = json!(bed.get(&["nodes"])["items"][0]["metadata"]["name"]);
    bed.apply_value(&second);
    bed.wait_for_columns("default", "host-port-again", SHOWN, |columns| columns.status == "NodePorts");
    bed.kubectl(&["delete", "pod", "host-port", "host-port-again"]).expect();
}

#[test]
fn an_annotation_opens_a_port_for_a_pod_that_declares_none() {
    let bed = &cluster().bed;
    let mut object = pod("annotated", with_ports(Guest::ServeC, json!([])));
    object["metadata"]["annotations"] = json!({"copepod/listen": "http=8085"});
    bed.apply_value(&object);
    running("annotated");
    assert_eq!(curl(&format!("http://{NODE}:8085/")).as_deref(), Some("c 0 /\n"));
    object["metadata"] = json!({"name": "wrong", "annotations": {"copepod/listen": "eighty"}});
    bed.apply_value(&object);
    bed.wait_for_columns("default", "wrong", SHOWN, |columns| columns.status == "AnnotationInvalid");
    let message = bed.get(&["pod", "wrong"])["status"]["message"].to_string();
    assert!(message.contains("copepod/listen") && message.contains("eighty"), "{message}");
    bed.kubectl(&["delete", "pod", "annotated", "wrong"]).expect();
}

#[test]
fn a_port_of_the_agents_own_is_refused() {
    let bed = &cluster().bed;
    bed.apply_value(&pod("kubelet-port", with_ports(Guest::ServeC, json!([{"containerPort": 10250}]))));
    bed.wait_for_columns("default", "kubelet-port", SHOWN, |columns| columns.status == "NodePorts");
    bed.kubectl(&["delete", "pod", "kubelet-port"]).expect();
}

#[test]
fn of_two_replicas_with_one_port_the_second_waits_for_the_first() {
    let bed = &cluster().bed;
    let template = json!({
        "metadata": {"labels": {"app": "twins"}},
        "spec": with_ports(Guest::ServeC, json!([{"name": "http", "containerPort": 8086}])),
    });
    bed.apply_value(&json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "twins"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "twins"}}, "template": template},
    }));
    // By status: the names of the pods.
    let twins = |status: &str| -> Vec<String> {
        let pods = bed.get(&["pods", "-l", "app=twins"]);
        let names = pods["items"].as_array().into_iter().flatten().filter_map(|pod| {
            let name = pod["metadata"]["name"].as_str()?;
            let columns = bed.columns("default", name)?;
            (columns.status == status).then(|| name.to_owned())
        });
        names.collect()
    };
    let pair = || {
        let (up, waiting) = (twins("Running"), twins("CreateContainerError"));
        (up.len() == 1 && waiting.len() == 1).then(|| (up[0].clone(), waiting[0].clone()))
    };
    let (first, second) = bed.wait_for("one to run and one to wait", SHOWN, pair);
    let described = bed.kubectl(&["describe", "pod", &second]).expect();
    let holder = format!("container \"main\" of pod default/{first} holds it");
    assert!(described.contains(&holder), "{described}");
    assert_eq!(bed.get(&["pod", &second])["status"]["phase"], "Pending", "never Failed");
    assert_eq!(curl(&format!("http://{NODE}:8086/")).as_deref(), Some("c 0 /\n"));
    // The one that waits takes over; who comes in place of the first waits in turn.
    bed.kubectl(&["delete", "pod", &first]).expect();
    let (up, _) = bed.wait_for("the other to run", SHOWN, pair);
    assert_ne!(up, first);
    assert!(curl(&format!("http://{NODE}:8086/")).is_some());
    bed.kubectl(&["delete", "deployment", "twins"]).expect();
}

/// Runs a guest that publishes to a broker; how it ended.
#[track_caller]
fn publishes(name: &str, connect: Option<&str>, arguments: &[&str]) -> (i64, String) {
    let bed = &cluster().bed;
    let mut object = pod(name, pod_spec("Never", &cluster().image(Guest::Publish), arguments));
    if let Some(connect) = connect {
        object["metadata"]["annotations"] = json!({"copepod/connect": connect});
    }
    bed.apply_value(&object);
    let code = bed.wait_for("the guest to end", SHOWN, || {
        let pod = bed.get(&["pod", name]);
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"].as_i64()
    });
    let log = bed.kubectl(&["logs", name]).expect();
    bed.kubectl(&["delete", "pod", name]).expect();
    (code, log)
}

#[test]
fn a_guest_publishes_to_a_broker_that_its_pod_may_reach() {
    let bed = &cluster().bed;
    let config = bed.write(
        "mosquitto.conf",
        &format!(
            "listener 1883 {PLAIN_REGISTRY}\nlistener 1883 127.0.0.1\nallow_anonymous true\nuser root\n"
        ),
    );
    let mut broker = bed.command(tool("mosquitto"));
    broker.arg("-v").arg("-c").arg(config);
    bed.house("mosquitto", broker);
    let mut subscriber = bed.command(tool("mosquitto_sub"));
    subscriber.args(["-h", PLAIN_REGISTRY, "-t", "gateway/#", "-v", "-C", "1"]);
    // It may be started before the broker listens.
    let broker_log = bed.log("mosquitto");
    bed.wait_for("the broker to listen", SHOWN, || {
        std::fs::read_to_string(&broker_log).ok().filter(|log| log.contains("running"))
    });
    let mut subscriber = bed.spawn("mosquitto_sub", subscriber);
    bed.wait_for("the subscription", SHOWN, || {
        std::fs::read_to_string(&broker_log).ok().filter(|log| log.contains("gateway/#"))
    });

    let arguments = &["plain.test", "1883", "gateway/temperature", "21.5"];
    // Off by default: EACCES of the name, and of a socket.
    let (code, log) = publishes("publish-off", None, arguments);
    assert_eq!((code, log.contains("the address of the broker")), (2, true), "{log}");
    // Another destination, another port; and never this machine.
    let by_address = &[PLAIN_REGISTRY, "1883", "gateway/temperature", "0"];
    for (name, connect, arguments) in [
        ("publish-elsewhere", "198.51.100.0/24:1883".to_owned(), by_address),
        ("publish-port", format!("{PLAIN_REGISTRY}:1884"), by_address),
        (
            "publish-loopback",
            "127.0.0.1:1883, 0.0.0.0/0:*".to_owned(),
            &["127.0.0.1", "1883", "gateway/x", "0"],
        ),
    ] {
        let (code, log) = publishes(name, Some(&connect), arguments);
        assert_eq!((code, log.contains("connecting")), (2, true), "{name}: {log}");
    }
    let (code, log) = publishes("publish", Some("plain.test:1883"), arguments);
    assert_eq!((code, log.as_str()), (0, "published\n"));
    assert!(subscriber.wait(SHOWN).success());
    assert_eq!(subscriber.output().trim_end(), "gateway/temperature 21.5");
}
