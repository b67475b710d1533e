//! A bed whose node is Ready and whose registries stand: what most tests begin with.
//!
//! It costs some ten seconds, so the tests of one file share one (a `OnceLock` of the file's own), each
//! with pods of its own names. It ends with the test's process, as every bed does.

use std::{collections::HashMap, sync::Mutex};

use serde_json::{json, Value};

use crate::{guests::Guest, kubectl::Outcome, registry::Registry, tools::tool, Agent, Bed};

/// The secret of the default namespace that holds the password of the registry.
pub const PULL_SECRET: &str = "registry";

/// The tutorial's Pod, for the demo and for the test that types the tutorial.
pub const TUTORIAL_POD: &str = r#"apiVersion: v1
kind: Pod
metadata:
  name: hello
spec:
  imagePullSecrets:
    - name: registry
  containers:
    - name: hello
      image: registry.test:5000/test/hello:v1
  tolerations:
    - key: krustlet/arch
      operator: Equal
      value: wasm32-wasi
      effect: NoExecute
"#;

/// A bed, its registries, and an agent that has joined and whose serving certificate is approved.
#[derive(Debug)]
pub struct Cluster {
    /// The agent.
    pub agent: Agent,
    /// The registry with TLS and a password.
    pub registry: Registry,
    /// The registry without; the agent is told that it is insecure.
    pub plain: Registry,
    /// What has been pushed so far.
    pushed: Mutex<HashMap<Guest, String>>,
    /// The bed.
    pub bed: Bed,
}

impl Cluster {
    /// Starts everything.
    pub fn start() -> Cluster {
        Cluster::start_with(&[])
    }

    /// Starts everything, the agent with further arguments.
    pub fn start_with(arguments: &[&str]) -> Cluster {
        Cluster::start_in(Bed::start(), arguments)
    }

    /// Starts everything but the control plane, which is there.
    pub fn start_in(bed: Bed, arguments: &[&str]) -> Cluster {
        let registry = bed.registry_tls();
        let plain = bed.registry_plain();
        bed.pull_secret(PULL_SECRET, &registry, &registry.password);
        let mut all = vec!["--insecure-registries", &plain.host];
        all.extend(arguments);
        let agent = Agent::join(&bed, &all);
        agent.ready(&bed);
        Cluster { agent, registry, plain, pushed: Mutex::default(), bed }
    }

    /// The image of `guest` in the registry with TLS, pushed by wasm-to-oci when it is first asked for.
    #[track_caller]
    pub fn image(&self, guest: Guest) -> String {
        let mut pushed = self.pushed.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(image) = pushed.get(&guest) {
            return image.clone();
        }
        let image = self.registry.image(&format!("test/{}:v1", format!("{guest:?}").to_lowercase()));
        self.bed.wasm_to_oci(guest, &image);
        pushed.insert(guest, image.clone());
        image
    }

    /// Makes the pod `name` of one container, which runs `guest` with these arguments.
    #[track_caller]
    pub fn run(&self, name: &str, restart_policy: &str, guest: Guest, arguments: &[&str]) {
        let spec = pod_spec(restart_policy, &self.image(guest), arguments);
        self.bed.apply_value(&pod(name, spec));
    }
}

/// A Pod of the default namespace.
pub fn pod(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
}

/// The spec of a pod with one container, `main`, that tolerates the node's taint and may pull from the
/// registry with TLS.
pub fn pod_spec(restart_policy: &str, image: &str, arguments: &[&str]) -> Value {
    json!({
        "restartPolicy": restart_policy,
        "terminationGracePeriodSeconds": 5,
        "imagePullSecrets": [{"name": PULL_SECRET}],
        "tolerations": [
            {"key": "krustlet/arch", "operator": "Equal", "value": "wasm32-wasi", "effect": "NoExecute"}
        ],
        "containers": [{"name": "main", "image": image, "args": arguments}],
    })
}

impl Bed {
    /// Applies one object.
    #[track_caller]
    pub fn apply_value(&self, object: &Value) {
        self.apply(&format!("{object}\n"));
    }

    /// Makes a secret of the default namespace with which to pull from `registry`.
    #[track_caller]
    pub fn pull_secret(&self, name: &str, registry: &Registry, password: &str) {
        self.kubectl(&[
            "create",
            "secret",
            "docker-registry",
            name,
            &format!("--docker-server={}", registry.host),
            &format!("--docker-username={}", registry.user),
            &format!("--docker-password={password}"),
        ])
        .expect();
    }

    /// Pushes `guest` by wasm-to-oci.
    #[track_caller]
    pub fn wasm_to_oci(&self, guest: Guest, image: &str) {
        let mut command = self.command(tool("wasm-to-oci"));
        command.arg("push").arg(guest.wasm()).arg(image);
        Outcome::of(format!("wasm-to-oci push {guest:?} {image}"), command, "").expect();
    }
}
