use super::*;
use serde_json::json;

fn pod(ports: serde_json::Value, listen: Option<&str>) -> Pod {
    let mut pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "a", "ports": ports}, {"name": "b"}]},
    }))
    .unwrap();
    pod.metadata.annotations.extend(listen.map(|text| (LISTEN.to_owned(), text.to_owned())));
    pod
}

fn opened(ports: serde_json::Value, ips: &[&str]) -> Result<Vec<(String, Vec<String>)>, String> {
    let pod = pod(ports, None);
    let ips: Vec<String> = ips.iter().map(|ip| (*ip).to_owned()).collect();
    let ports = listened(&pod, &pod.spec.containers[0], &ips)?;
    Ok(ports.into_iter().map(|p| (p.name, p.addresses.iter().map(ToString::to_string).collect())).collect())
}

fn one(port: serde_json::Value, ips: &[&str]) -> Vec<String> {
    opened(json!([port]), ips).unwrap().remove(0).1
}

#[test]
fn a_container_port_is_opened_at_the_pods_addresses() {
    assert_eq!(one(json!({"containerPort": 80}), &["10.0.0.1", "fd00::1"]), ["10.0.0.1:80", "[fd00::1]:80"]);
}

#[test]
fn a_host_port_is_opened_on_the_host_and_leads_to_the_same_descriptor() {
    let ip = &["10.0.0.1"];
    // The same number everywhere is one socket.
    assert_eq!(one(json!({"containerPort": 80, "hostPort": 80}), ip), ["0.0.0.0:80"]);
    assert_eq!(one(json!({"containerPort": 80, "hostPort": 8080}), ip), ["0.0.0.0:8080", "10.0.0.1:80"]);
    let local = json!({"containerPort": 80, "hostPort": 80, "hostIP": "127.0.0.1"});
    assert_eq!(one(local, ip), ["127.0.0.1:80", "10.0.0.1:80"]);
    let both = &["10.0.0.1", "fd00::1"];
    assert_eq!(one(json!({"containerPort": 80, "hostPort": 80}), both), ["0.0.0.0:80", "[::]:80"]);
}

#[test]
fn names_are_the_ports_own_or_their_numbers() {
    let ports = json!([{"containerPort": 80, "name": "http"}, {"containerPort": 81}]);
    let names: Vec<String> =
        opened(ports, &["10.0.0.1"]).unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["http", "81"]);
}

#[test]
fn only_tcp_is_opened_and_each_number_once() {
    let ports = json!([
        {"containerPort": 53, "protocol": "UDP"},
        {"containerPort": 80, "protocol": "TCP"},
        {"containerPort": 80, "name": "again"},
    ]);
    assert_eq!(opened(ports, &["10.0.0.1"]).unwrap(), [("80".to_owned(), vec!["10.0.0.1:80".to_owned()])]);
}

#[test]
fn what_cannot_be_opened_is_said() {
    for (ports, ips, said) in [
        (json!([{"containerPort": 80}]), &[][..], "does not know its own address"),
        (json!([{"containerPort": 0}]), &["10.0.0.1"], "0 is no port"),
        (json!([{"containerPort": 70000}]), &["10.0.0.1"], "70000 is no port"),
        (json!([{"containerPort": 80, "hostPort": 80, "hostIP": "x"}]), &["10.0.0.1"], "\"x\" is no address"),
    ] {
        let error = opened(ports, ips).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
    let many: Vec<_> = (1..=65).map(|n| json!({"containerPort": n})).collect();
    assert!(opened(many.into(), &["10.0.0.1"]).unwrap_err().contains("65 TCP ports, and 64"));
    assert!(opened(json!([]), &[]).unwrap().is_empty());
}

#[test]
fn the_annotation_is_for_the_first_container_of_a_pod_that_declares_none() {
    let numbers = |pod: &Pod, container: usize| -> Vec<i32> {
        declared(pod, &pod.spec.containers[container]).iter().map(|port| port.container_port).collect()
    };
    let annotated = pod(json!([]), Some("http=8080, 9090"));
    assert_eq!(numbers(&annotated, 0), [8080, 9090]);
    assert!(numbers(&annotated, 1).is_empty());
    assert_eq!(numbers(&pod(json!([{"containerPort": 1}]), Some("8080")), 0), [1]);
}

#[test]
fn an_annotation_that_is_wrong_is_told() {
    for text in ["", "x", "0", "65536", "a=b=1", "8080,8080", "a_b=1", "sixteen-letters-=1", "-1"] {
        assert!(annotated(text).is_err(), "{text}");
    }
    let many: Vec<String> = (1..=65).map(|n| n.to_string()).collect();
    assert!(annotated(&many.join(",")).is_err());
}
