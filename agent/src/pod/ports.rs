//! The ports that a container listens on: what its spec, or the pod's annotation, opens for it.
//!
//! A pod's address is its node's. A `containerPort` is opened there; a `hostPort` is opened on all of the node's
//! addresses, or on its `hostIP`, and leads to the same descriptor of the guest.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::api::{Container, ContainerPort, Pod};

/// Annotation: ports of a pod that declares none, `8080` or `http=8080,admin=9090`; its first container gets them.
pub const LISTEN: &str = "copepod/listen";

/// Ports of one container: each is a descriptor of its own.
pub const MAX_PORTS: usize = 64;

/// Longest name of a port (`IANA_SVC_NAME`).
const MAX_NAME: usize = 15;

/// A port that a container finds open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name, or its number where it has none.
    pub name: String,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
}

/// The TCP ports of a container, those of the annotation included. WASI preview 1 has no other sockets.
#[must_use]
pub fn declared(pod: &Pod, container: &Container) -> Vec<ContainerPort> {
    let is_first = pod.spec.containers.first().is_some_and(|first| first.name == container.name);
    match pod.metadata.annotations.get(LISTEN) {
        // A text that is wrong has refused the pod.
        Some(text) if is_first && declares_none(pod) => annotated(text).unwrap_or_default(),
        _ => container.ports.iter().filter(|port| is_tcp(port)).cloned().collect(),
    }
}

/// Whether a port is TCP, as it is when it does not say.
#[must_use]
pub fn is_tcp(port: &ContainerPort) -> bool {
    matches!(port.protocol.as_str(), "" | "TCP")
}

fn declares_none(pod: &Pod) -> bool {
    pod.spec.init_containers.iter().chain(&pod.spec.containers).all(|container| container.ports.is_empty())
}

/// Reads the annotation.
///
/// # Errors
/// What is wrong with it.
pub fn annotated(text: &str) -> Result<Vec<ContainerPort>, String> {
    let mut ports: Vec<ContainerPort> = Vec::new();
    for item in text.split(',').map(str::trim) {
        let (name, number) = item.split_once('=').unwrap_or(("", item));
        let number: u16 = number.parse().map_err(|_| format!("\"{item}\" is no port: PORT or NAME=PORT"))?;
        if number == 0 {
            return Err(format!("\"{item}\": there is no port 0"));
        }
        let well_named = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !well_named || name.len() > MAX_NAME {
            return Err(format!(
                "\"{item}\": a port's name has {MAX_NAME} letters, digits and dashes at most"
            ));
        }
        if ports.iter().any(|port| port.container_port == i32::from(number)) {
            return Err(format!("port {number} is named twice"));
        }
        let container_port = i32::from(number);
        ports.push(ContainerPort { name: name.to_owned(), container_port, ..ContainerPort::default() });
    }
    if ports.len() > MAX_PORTS {
        return Err(format!("it names {} ports, and {MAX_PORTS} are allowed", ports.len()));
    }
    Ok(ports)
}

/// Where a container listens, on a node with these addresses.
///
/// # Errors
/// Of more than [`MAX_PORTS`], and of a port or an address that is none.
pub fn listened(pod: &Pod, container: &Container, ips: &[String]) -> Result<Vec<Port>, String> {
    let declared = declared(pod, container);
    if declared.len() > MAX_PORTS {
        return Err(format!("it declares {} TCP ports, and {MAX_PORTS} are opened at most", declared.len()));
    }
    let ips: Vec<IpAddr> = ips.iter().filter_map(|ip| ip.parse().ok()).collect();
    if ips.is_empty() && !declared.is_empty() {
        return Err("this node does not know its own address yet".to_owned());
    }
    let mut ports: Vec<Port> = Vec::new();
    let mut numbers = Vec::new();
    for port in &declared {
        // Declared twice, which the API only warns of, it is one port.
        if numbers.contains(&port.container_port) {
            continue;
        }
        numbers.push(port.container_port);
        let number = port_number(port.container_port)?;
        let mut addresses = Vec::new();
        if port.host_port > 0 {
            let host_port = port_number(port.host_port)?;
            let of_host = host_addresses(port, &ips)?;
            addresses.extend(of_host.into_iter().map(|ip| SocketAddr::new(ip, host_port)));
        }
        for ip in &ips {
            let address = SocketAddr::new(*ip, number);
            if !addresses.iter().any(|other| covers(other, &address)) {
                addresses.push(address);
            }
        }
        let name = if port.name.is_empty() { number.to_string() } else { port.name.clone() };
        ports.push(Port { name, addresses });
    }
    Ok(ports)
}

fn port_number(number: i32) -> Result<u16, String> {
    match u16::try_from(number) {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("{number} is no port")),
    }
}

/// Where a hostPort is opened: its hostIP, or everywhere, in the families that the node has.
fn host_addresses(port: &ContainerPort, ips: &[IpAddr]) -> Result<Vec<IpAddr>, String> {
    if !port.host_ip.is_empty() {
        let ip = port.host_ip.parse().map_err(|_| format!("hostIP \"{}\" is no address", port.host_ip))?;
        return Ok(vec![ip]);
    }
    let everywhere = [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
    Ok(everywhere.into_iter().filter(|all| ips.iter().any(|ip| ip.is_ipv4() == all.is_ipv4())).collect())
}

/// Whether who listens at `a` has `b` too.
#[must_use]
pub fn covers(a: &SocketAddr, b: &SocketAddr) -> bool {
    a.port() == b.port() && a.is_ipv4() == b.is_ipv4() && (a.ip() == b.ip() || a.ip().is_unspecified())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
#[path = "ports_tests.rs"]
mod tests;
