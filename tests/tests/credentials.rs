//! Who may have which image: every form of secret, all of them tried, and what was pulled with one is not another's.

use std::{sync::OnceLock, time::Duration};

use base64::Engine;
use serde_json::{json, Value};
use tests::{
    cluster::{pod, pod_spec},
    guests::Guest,
    Cluster,
};

/// How long a state may take to show on a busy machine.
const SHOWN: Duration = Duration::from_secs(90);

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::start)
}

/// An image of its own, which nobody has pulled yet.
fn image(name: &str) -> String {
    let image = cluster().registry.image(&format!("private/{name}:v1"));
    cluster().bed.wasm_to_oci(Guest::Exit, &image);
    image
}

/// A pod of this image with these secrets.
fn apply(name: &str, image: &str, secrets: &[&str], more: Value) {
    let mut spec = pod_spec("Never", image, &["0"]);
    spec["imagePullSecrets"] = secrets.iter().map(|secret| json!({"name": secret})).collect();
    spec["containers"][0]
        .as_object_mut()
        .expect("it is one")
        .extend(more.as_object().cloned().unwrap_or_default());
    cluster().bed.apply_value(&pod(name, spec));
}

#[track_caller]
fn wait_for_status(name: &str, status: &str) {
    cluster().bed.wait_for_columns("default", name, SHOWN, |columns| columns.status == status);
}

/// Makes a secret of this type whose one key holds this text.
fn secret(name: &str, kind: &str, key: &str, text: &str) {
    cluster().bed.apply_value(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
        "type": kind, "stringData": {key: text}}));
}

/// `{"SERVER": {...}}` with the right user and password.
fn login(server: &str) -> Value {
    let registry = &cluster().registry;
    json!({server: {"username": registry.user, "password": registry.password}})
}

#[test]
fn every_form_and_match_rule_lets_in() {
    let host = cluster().registry.host.clone();
    let (name, port) = host.split_once(':').expect("it has a port");
    let auth = format!("{}:{}", cluster().registry.user, cluster().registry.password);
    let auth = base64::engine::general_purpose::STANDARD.encode(auth);
    let glob = format!("*.{}:{port}", name.split_once('.').expect("it has a domain").1);
    let forms = [
        ("of-json", "kubernetes.io/dockerconfigjson", ".dockerconfigjson", json!({"auths": login(&host)})),
        (
            "of-auth",
            "kubernetes.io/dockerconfigjson",
            ".dockerconfigjson",
            json!({"auths": {&host: {"auth": auth}}}),
        ),
        (
            "of-url",
            "kubernetes.io/dockerconfigjson",
            ".dockerconfigjson",
            json!({"auths": login(&format!("https://{host}/v2/"))}),
        ),
        (
            "of-path",
            "kubernetes.io/dockerconfigjson",
            ".dockerconfigjson",
            json!({"auths": login(&format!("{host}/private"))}),
        ),
        ("of-glob", "kubernetes.io/dockerconfigjson", ".dockerconfigjson", json!({"auths": login(&glob)})),
        ("of-dockercfg", "kubernetes.io/dockercfg", ".dockercfg", login(&host)),
    ];
    for (name, kind, key, config) in &forms {
        secret(name, kind, key, &config.to_string());
        apply(name, &image(name), &[name], json!({}));
    }
    for (name, ..) in &forms {
        wait_for_status(name, "Completed");
    }
}

#[test]
fn all_are_tried_and_one_that_is_missing_is_only_a_warning() {
    let bed = &cluster().bed;
    let host = &cluster().registry.host;
    let wrong = json!({"auths": {host: {"username": "somebody", "password": "wrong"}}});
    secret("bad", "kubernetes.io/dockerconfigjson", ".dockerconfigjson", &wrong.to_string());
    apply("tries", &image("tries"), &["nowhere", "bad", "registry"], json!({}));
    wait_for_status("tries", "Completed");
    bed.wait_for("the warning", SHOWN, || {
        let described = bed.kubectl(&["describe", "pod", "tries"]).stdout;
        let told = described.contains("FailedToRetrieveImagePullSecret")
            && described.contains("Unable to retrieve some image pull secrets (nowhere)");
        told.then_some(())
    });
}

#[test]
fn those_of_a_service_account_arrive_in_the_pod() {
    let bed = &cluster().bed;
    bed.apply_value(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "puller"},
        "imagePullSecrets": [{"name": "registry"}]}));
    let mut spec = pod_spec("Never", &image("account"), &["0"]);
    spec.as_object_mut().expect("it is one").remove("imagePullSecrets");
    spec["serviceAccountName"] = json!("puller");
    bed.apply_value(&pod("account", spec));
    wait_for_status("account", "Completed");
}

#[test]
fn what_was_pulled_with_a_secret_is_not_for_a_pod_without_it() {
    let bed = &cluster().bed;
    let image = image("cached");
    apply("has-it", &image, &["registry"], json!({}));
    wait_for_status("has-it", "Completed");
    // It is on the node now; yet these may not have it.
    apply("lacks-it", &image, &[], json!({}));
    apply("never-has-it", &image, &[], json!({"imagePullPolicy": "Never"}));
    wait_for_status("never-has-it", "ErrImageNeverPull");
    bed.wait_for_columns("default", "lacks-it", SHOWN, |columns| columns.status == "ImagePullBackOff");
    let described = bed.kubectl(&["describe", "pod", "lacks-it"]).expect();
    assert!(described.contains("401") || described.to_lowercase().contains("unauthorized"), "{described}");
    // Another secret of the same login may, and nothing is pulled.
    let config = json!({"auths": login(&cluster().registry.host)});
    secret("same", "kubernetes.io/dockerconfigjson", ".dockerconfigjson", &config.to_string());
    apply("may-have-it", &image, &["same"], json!({"imagePullPolicy": "Never"}));
    wait_for_status("may-have-it", "Completed");
    let events =
        bed.kubectl(&["get", "events", "--field-selector", "involvedObject.name=may-have-it"]).expect();
    assert!(events.contains("already present on machine") && !events.contains("Pulling"), "{events}");
}
