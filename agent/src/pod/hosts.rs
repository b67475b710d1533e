//! `/etc/hosts` and `/etc/hostname` of a container (`kubelet_pods.go`, managedHostsFileContent).

use super::node::NodeFacts;
use crate::api::Pod;

/// Longest host name (`GetPodHostname`: a longer pod's name is cut).
const MAX_HOSTNAME: usize = 63;

/// What begins the file, and what comes before the pod's own lines.
const HEAD: &str = "# Kubernetes-managed hosts file.\n\
    127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::0\tip6-localnet\n\
    fe00::0\tip6-mcastprefix\n\
    fe00::1\tip6-allnodes\n\
    fe00::2\tip6-allrouters\n";

/// The host name of a pod.
#[must_use]
pub fn hostname(pod: &Pod) -> String {
    if !pod.spec.hostname.is_empty() {
        return pod.spec.hostname.clone();
    }
    let cut: String = pod.metadata.name.chars().take(MAX_HOSTNAME).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// `/etc/hosts`: the pod's address, which is the node's, by its own name, and `hostAliases`.
#[must_use]
pub fn hosts(pod: &Pod, node: &NodeFacts) -> String {
    let mut text = HEAD.to_owned();
    let name = hostname(pod);
    for ip in &node.ips {
        text.push_str(&format!("{ip}\t{name}\n"));
    }
    if !pod.spec.host_aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in &pod.spec.host_aliases {
            text.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.join("\t")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use serde_json::json;

    #[test]
    fn names_and_lines() {
        let mut pod =
            samples::pod(&json!({"hostAliases": [{"ip": "10.1.2.3", "hostnames": ["a", "b.example"]}]}));
        let text = hosts(&pod, &samples::node());
        assert!(
            text.contains("\n10.0.0.5\tp\n\n# Entries added by HostAliases.\n10.1.2.3\ta\tb.example\n"),
            "{text}"
        );
        pod.metadata.name = format!("{}-tail", "n".repeat(62));
        assert_eq!(hostname(&pod), "n".repeat(62));
        pod.spec.hostname = "own".into();
        assert_eq!(hostname(&pod), "own");
    }
}
