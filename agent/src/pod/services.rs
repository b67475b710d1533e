//! The variables that tell a container of the services in its namespace (`pkg/kubelet/envvars`).

use crate::api::Service;

/// Namespace of the `kubernetes` service, which every pod is told of.
pub const MASTER_NAMESPACE: &str = "default";
/// Name of that service.
pub const MASTER_SERVICE: &str = "kubernetes";

/// The variables of the services that a pod in `namespace` is told of: all of its namespace if `links`
/// (`enableServiceLinks`), and always `default/kubernetes` unless its own namespace has one of that name.
#[must_use]
pub fn variables(services: &[Service], namespace: &str, links: bool) -> Vec<(String, String)> {
    let own = |service: &&Service| links && service.metadata.namespace == namespace;
    let shadowed = services.iter().filter(own).any(|s| s.metadata.name == MASTER_SERVICE);
    let told = |service: &&Service| {
        own(service)
            || (!shadowed
                && service.metadata.namespace == MASTER_NAMESPACE
                && service.metadata.name == MASTER_SERVICE)
    };
    let mut result = Vec::new();
    for service in services.iter().filter(told) {
        of_service(service, &mut result);
    }
    result
}

fn of_service(service: &Service, result: &mut Vec<(String, String)>) {
    let ip = service.spec.cluster_ip.as_str();
    let Some(first) = service.spec.ports.first().filter(|_| !ip.is_empty() && ip != "None") else { return };
    let name = variable_name(&service.metadata.name);
    result.push((format!("{name}_SERVICE_HOST"), ip.to_owned()));
    result.push((format!("{name}_SERVICE_PORT"), first.port.to_string()));
    for port in service.spec.ports.iter().filter(|port| !port.name.is_empty()) {
        result.push((format!("{name}_SERVICE_PORT_{}", variable_name(&port.name)), port.port.to_string()));
    }
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    for (index, port) in service.spec.ports.iter().enumerate() {
        let protocol = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
        let lower = protocol.to_lowercase();
        let url = format!("{lower}://{host}:{}", port.port);
        if index == 0 {
            result.push((format!("{name}_PORT"), url.clone()));
        }
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        result.push((prefix.clone(), url));
        result.push((format!("{prefix}_PROTO"), lower));
        result.push((format!("{prefix}_PORT"), port.port.to_string()));
        result.push((format!("{prefix}_ADDR"), ip.to_owned()));
    }
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(namespace: &str, name: &str, ip: &str, ports: serde_json::Value) -> Service {
        serde_json::from_value(json!({
            "metadata": {"namespace": namespace, "name": name}, "spec": {"clusterIP": ip, "ports": ports},
        }))
        .unwrap()
    }

    #[test]
    fn a_service_is_told_in_both_styles() {
        let services = [
            service(
                "ns",
                "my-db",
                "10.0.0.1",
                json!([{"name": "sql-x", "port": 5432}, {"port": 9, "protocol": "UDP"}]),
            ),
            service("ns", "headless", "None", json!([{"port": 1}])),
            service("other", "far", "10.0.0.2", json!([{"port": 1}])),
        ];
        let expected = [
            ("MY_DB_SERVICE_HOST", "10.0.0.1"),
            ("MY_DB_SERVICE_PORT", "5432"),
            ("MY_DB_SERVICE_PORT_SQL_X", "5432"),
            ("MY_DB_PORT", "tcp://10.0.0.1:5432"),
            ("MY_DB_PORT_5432_TCP", "tcp://10.0.0.1:5432"),
            ("MY_DB_PORT_5432_TCP_PROTO", "tcp"),
            ("MY_DB_PORT_5432_TCP_PORT", "5432"),
            ("MY_DB_PORT_5432_TCP_ADDR", "10.0.0.1"),
            ("MY_DB_PORT_9_UDP", "udp://10.0.0.1:9"),
            ("MY_DB_PORT_9_UDP_PROTO", "udp"),
            ("MY_DB_PORT_9_UDP_PORT", "9"),
            ("MY_DB_PORT_9_UDP_ADDR", "10.0.0.1"),
        ];
        let got = variables(&services, "ns", true);
        let got: Vec<_> = got.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(got, expected);
        assert_eq!(variables(&services, "ns", false), []);
    }

    #[test]
    fn the_api_server_is_always_told_of() {
        let services = [service("default", "kubernetes", "fd00::1", json!([{"name": "https", "port": 443}]))];
        let got = variables(&services, "ns", false);
        assert_eq!(got.first().unwrap(), &("KUBERNETES_SERVICE_HOST".to_owned(), "fd00::1".to_owned()));
        assert!(got.contains(&("KUBERNETES_PORT".to_owned(), "tcp://[fd00::1]:443".to_owned())));
    }
}
