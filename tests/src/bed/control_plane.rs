//! etcd, kube-apiserver, kube-controller-manager and kube-scheduler of a bed, as the documents of
//! kubeadm would set them up, with small caches and no care for what a power cut would leave.

use std::{process::Command, time::Duration};

use super::{
    certificates::{base64, Pair},
    Bed, CONTROL_PLANE,
};
use crate::tools::tool;

/// The API server's port.
pub const PORT: u16 = 6443;
/// The first address of the services' range is the API server's own service.
const SERVICES: &str = "10.96.0.0/24";
const FIRST_SERVICE: &str = "10.96.0.1";
/// How long a component may take to come up: some 12 s on two idle cores, and test machines are slow.
const READY: Duration = Duration::from_secs(180);

/// The cluster of a bed.
#[derive(Debug)]
pub struct ControlPlane {
    /// Signs clients, kubelets and the API server.
    pub authority: Pair,
}

impl ControlPlane {
    /// Starts the components in `bed`, the controller manager with further arguments, and waits until pods can be
    /// made.
    pub(super) fn start(bed: &Bed, arguments: &[&str]) -> ControlPlane {
        let certificates = bed.certificates();
        let authority = certificates.authority("kubernetes");
        let admin = certificates.client("admin", &authority, "admin", &["system:masters"]);
        bed.write("admin.conf", &kubeconfig(&bed.server(), &authority, &admin));

        bed.house("etcd", etcd(bed));
        bed.house("kube-apiserver", api_server(bed, &authority));
        bed.wait_for("the API server to be ready", READY, || {
            let ready = bed.kubectl(&["get", "--raw", "/readyz"]);
            ready.success.then_some(())
        });
        let mut controller_manager = controller_manager(bed, &authority);
        controller_manager.args(arguments);
        bed.house("kube-controller-manager", controller_manager);
        bed.house("kube-scheduler", scheduler(bed));
        // The API server is a client of the nodes like any other: this is the role for it.
        bed.kubectl(&[
            "create",
            "clusterrolebinding",
            "api-server-to-nodes",
            "--clusterrole=system:kubelet-api-admin",
            "--user=kube-apiserver",
        ])
        .expect();
        bed.wait_for("the controller manager to make the default service account", READY, || {
            bed.kubectl(&["get", "serviceaccount", "default"]).success.then_some(())
        });
        ControlPlane { authority }
    }
}

fn etcd(bed: &Bed) -> Command {
    let mut command = bed.command(tool("etcd"));
    command.arg("--data-dir").arg(bed.folder().join("etcd"));
    command.args(["--unsafe-no-fsync", "--log-level=warn", "--snapshot-count=100000"]);
    command
}

fn api_server(bed: &Bed, authority: &Pair) -> Command {
    let certificates = bed.certificates();
    let names = [
        "DNS:control-plane",
        "DNS:kubernetes",
        "DNS:kubernetes.default",
        "DNS:kubernetes.default.svc",
        // By these, a user outside reaches it through the demo's relay.
        "DNS:localhost",
        "IP:127.0.0.1",
        &format!("IP:{CONTROL_PLANE}"),
        &format!("IP:{FIRST_SERVICE}"),
    ];
    let serving = certificates.server("kube-apiserver", authority, &names);
    let to_kubelets = certificates.client("kube-apiserver-kubelet-client", authority, "kube-apiserver", &[]);
    let front = certificates.authority("front-proxy");
    let front_client = certificates.client("front-proxy-client", &front, "front-proxy-client", &[]);
    let accounts = certificates.authority("service-accounts");

    let mut command = bed.command(tool("kube-apiserver"));
    command.args([
        "--etcd-servers=http://127.0.0.1:2379",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--enable-bootstrap-token-auth",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        // As kubeadm sets it. The default, host name first, rests on a DNS that knows the nodes.
        "--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
        "--endpoint-reconciler-type=none",
        "--profiling=false",
    ]);
    command.arg(format!("--advertise-address={CONTROL_PLANE}"));
    command.arg(format!("--bind-address={CONTROL_PLANE}"));
    command.arg(format!("--secure-port={PORT}"));
    command.arg(format!("--service-cluster-ip-range={SERVICES}"));
    for (flag, file) in [
        ("--client-ca-file", &authority.certificate),
        ("--tls-cert-file", &serving.certificate),
        ("--tls-private-key-file", &serving.key),
        ("--kubelet-certificate-authority", &authority.certificate),
        ("--kubelet-client-certificate", &to_kubelets.certificate),
        ("--kubelet-client-key", &to_kubelets.key),
        ("--requestheader-client-ca-file", &front.certificate),
        ("--proxy-client-cert-file", &front_client.certificate),
        ("--proxy-client-key-file", &front_client.key),
        ("--service-account-key-file", &accounts.certificate),
        ("--service-account-signing-key-file", &accounts.key),
    ] {
        command.arg(flag).arg(file);
    }
    command
}

fn controller_manager(bed: &Bed, authority: &Pair) -> Command {
    let mut command = bed.command(tool("kube-controller-manager"));
    command.args([
        "--leader-elect=false",
        "--controllers=*,bootstrap-signer-controller,token-cleaner-controller",
        "--bind-address=127.0.0.1",
        "--profiling=false",
    ]);
    for (flag, file) in [
        ("--kubeconfig", &bed.admin_kubeconfig()),
        ("--cluster-signing-cert-file", &authority.certificate),
        ("--cluster-signing-key-file", &authority.key),
        ("--root-ca-file", &authority.certificate),
        ("--service-account-private-key-file", &bed.folder().join("certificates/service-accounts.key")),
    ] {
        command.arg(flag).arg(file);
    }
    command
}

fn scheduler(bed: &Bed) -> Command {
    let mut command = bed.command(tool("kube-scheduler"));
    command.arg("--kubeconfig").arg(bed.admin_kubeconfig());
    command.args(["--leader-elect=false", "--bind-address=127.0.0.1", "--profiling=false"]);
    command
}

/// A kubeconfig with everything inline, as `kind` writes them.
pub fn kubeconfig(server: &str, authority: &Pair, client: &Pair) -> String {
    let authority = base64(&authority.certificate);
    let certificate = base64(&client.certificate);
    let key = base64(&client.key);
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: test
  cluster:
    server: {server}
    certificate-authority-data: {authority}
users:
- name: admin
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
contexts:
- name: test
  context:
    cluster: test
    user: admin
current-context: test
"
    )
}
