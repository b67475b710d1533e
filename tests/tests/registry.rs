//! Images come from real registries, and only to whoever has the password.

use std::{sync::OnceLock, time::Duration};

use serde_json::json;
use tests::{
    cluster::{pod, pod_spec},
    guests::Guest,
    kubectl::Outcome,
    registry::Registry,
    Cluster,
};

/// How long a state may take to show on a busy machine.
const SHOWN: Duration = Duration::from_secs(90);

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::start)
}

/// A pod of this image ends well, having printed what the guest prints; gives its container's imageID.
#[track_caller]
fn completes(name: &str, image: &str) -> String {
    let bed = &cluster().bed;
    bed.apply_value(&pod(name, pod_spec("Never", image, &["carried", "0"])));
    bed.wait_for_columns("default", name, SHOWN, |columns| columns.status == "Completed");
    let printed = bed.kubectl(&["logs", name]).expect();
    assert!(printed.contains("argument 1: carried\n"), "{printed}");
    let id = bed.get(&["pod", name])["status"]["containerStatuses"][0]["imageID"].clone();
    id.as_str().unwrap_or_default().to_owned()
}

/// What the registry itself says of a reference: the digest of its manifest, and the manifest.
#[track_caller]
fn manifest(registry: &Registry, scheme: &str, name: &str, tag: &str) -> (String, serde_json::Value) {
    let mut curl = cluster().bed.command("curl");
    curl.args(["-sSf", "-D", "-", "-H", "Accept: application/vnd.oci.image.manifest.v1+json"]);
    curl.args(["-u", &format!("{}:{}", registry.user, registry.password)]);
    curl.args(["--cacert", &cluster().bed.registry_authority().to_string_lossy()]);
    curl.arg(format!("{scheme}://{}/v2/{name}/manifests/{tag}", registry.host));
    let answer = Outcome::of(format!("curl {name}:{tag}"), curl, "").expect();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let digest = head.lines().find_map(|line| {
        let (key, value) = line.split_once(": ")?;
        key.eq_ignore_ascii_case("docker-content-digest").then(|| value.trim().to_owned())
    });
    (digest.unwrap_or_default(), serde_json::from_str(body).unwrap_or_default())
}

/// Whether a text says that credentials are lacking, in the words of the registry or of containerd.
fn says_who_may_not(text: &str) -> bool {
    let text = text.to_lowercase();
    ["401", "unauthorized", "authorization", "authentication"].iter().any(|word| text.contains(word))
}

#[test]
fn a_tag_and_a_digest_name_the_same_module() {
    let cluster = cluster();
    let by_tag = cluster.image(Guest::Exit);
    let (digest, _) = manifest(&cluster.registry, "https", "test/exit", "v1");
    let by_digest = cluster.registry.image(&format!("test/exit@{digest}"));
    let wanted = format!("{}@{digest}", cluster.registry.image("test/exit"));
    assert_eq!(completes("by-tag", &by_tag), wanted);
    assert_eq!(completes("by-digest", &by_digest), wanted);
}

#[test]
fn a_digest_that_nothing_has_is_not_found() {
    let cluster = cluster();
    cluster.image(Guest::Exit);
    let image = cluster.registry.image(&format!("test/exit@sha256:{}", "0".repeat(64)));
    cluster.bed.apply_value(&pod("no-digest", pod_spec("Always", &image, &[])));
    cluster
        .bed
        .wait_for_columns("default", "no-digest", SHOWN, |columns| columns.status == "ImagePullBackOff");
    cluster.bed.kubectl(&["delete", "pod", "no-digest"]).expect();
}

#[test]
fn without_the_password_it_is_backed_off_from_until_the_password_comes() {
    let cluster = cluster();
    let bed = &cluster.bed;
    // An image of its own: one that is on the node already need not be asked for.
    let image = cluster.registry.image("test/guarded:v1");
    bed.wasm_to_oci(Guest::Exit, &image);
    bed.pull_secret("wrong", &cluster.registry, "not the password");
    for (name, secrets) in [("wrong-password", json!([{"name": "wrong"}])), ("no-secret", json!([]))] {
        let mut spec = pod_spec("Never", &image, &["0"]);
        spec["imagePullSecrets"] = secrets;
        bed.apply_value(&pod(name, spec));
    }
    for name in ["wrong-password", "no-secret"] {
        bed.wait_for_columns("default", name, SHOWN, |columns| {
            columns.status == "ErrImagePull" || columns.status == "ImagePullBackOff"
        });
        bed.wait_for_columns("default", name, SHOWN, |columns| columns.status == "ImagePullBackOff");
        let described = bed.kubectl(&["describe", "pod", name]).expect();
        assert!(
            described.contains("ErrImagePull"),
            "the reason of the first failure was shown:\n{described}"
        );
        assert!(
            described.contains("401") || described.to_lowercase().contains("unauthorized"),
            "{described}"
        );
    }
    bed.kubectl(&["delete", "secret", "wrong"]).expect();
    bed.pull_secret("wrong", &cluster.registry, &cluster.registry.password);
    bed.wait_for_columns("default", "wrong-password", SHOWN, |columns| columns.status == "Completed");
    bed.kubectl(&["delete", "pod", "no-secret"]).expect();
}

#[test]
fn both_formats_of_copepod_push_run() {
    let cluster = cluster();
    let module = Guest::Exit.wasm();
    let layouts = [
        ("wasm-to-oci", "application/vnd.wasm.config.v1+json", "application/vnd.wasm.content.layer.v1+wasm"),
        ("cncf", "application/vnd.wasm.config.v0+json", "application/wasm"),
    ];
    for (format, config, layer) in layouts {
        let name = format!("test/pushed-{format}");
        let image = cluster.registry.image(&format!("{name}:v1"));
        cluster.bed.copepod(&["push", &module.to_string_lossy(), &image, "--format", format]).expect();
        let (_, manifest) = manifest(&cluster.registry, "https", &name, "v1");
        assert_eq!(manifest["config"]["mediaType"], config, "{manifest}");
        assert_eq!(manifest["layers"][0]["mediaType"], layer, "{manifest}");
        completes(&format!("pushed-{format}"), &image);
    }
}

#[test]
fn a_registry_without_tls_must_be_named() {
    let cluster = cluster();
    let image = cluster.plain.image("test/plain:v1");
    let module = Guest::Exit.wasm();
    let module = module.to_string_lossy();
    cluster.bed.copepod(&["push", &module, &image]).expect_failure();
    cluster.bed.copepod(&["push", "--insecure-registries", &cluster.plain.host, &module, &image]).expect();
    let (digest, _) = manifest(&cluster.plain, "http", "test/plain", "v1");
    assert_eq!(completes("plain", &image), format!("{}@{digest}", cluster.plain.image("test/plain")));
}

#[test]
fn copepod_push_without_the_password_fails_and_says_so() {
    let cluster = cluster();
    let bed = &cluster.bed;
    let mut command = bed.command(tests::agent::provide(bed));
    command.arg("push").arg(Guest::Exit.wasm()).arg(cluster.registry.image("test/refused:v1"));
    command.env("DOCKER_CONFIG", bed.folder().join("home"));
    let refused = Outcome::of("copepod push without a password".into(), command, "").expect_failure();
    assert!(says_who_may_not(&refused), "{refused}");
    assert!(refused.contains("registry.test:5000"), "it names the registry: {refused}");
}

#[test]
fn pull_policies_are_kept() {
    let cluster = cluster();
    let bed = &cluster.bed;
    let image = cluster.registry.image("test/policy:v1");
    bed.wasm_to_oci(Guest::Exit, &image);
    let with_policy = |name: &str, policy: &str| {
        let mut spec = pod_spec("Never", &image, &["carried", "0"]);
        spec["containers"][0]["imagePullPolicy"] = json!(policy);
        bed.apply_value(&pod(name, spec));
    };
    with_policy("never-yet", "Never");
    bed.wait_for_columns("default", "never-yet", SHOWN, |columns| columns.status == "ErrImageNeverPull");
    bed.kubectl(&["delete", "pod", "never-yet"]).expect();
    with_policy("if-absent", "IfNotPresent");
    bed.wait_for_columns("default", "if-absent", SHOWN, |columns| columns.status == "Completed");
    with_policy("never-again", "Never");
    bed.wait_for_columns("default", "never-again", SHOWN, |columns| columns.status == "Completed");
    // The tag moves to another module, which only Always sees.
    bed.wasm_to_oci(Guest::Trap, &image);
    with_policy("if-absent-again", "IfNotPresent");
    bed.wait_for_columns("default", "if-absent-again", SHOWN, |columns| columns.status == "Completed");
    with_policy("always", "Always");
    bed.wait_for_columns("default", "always", SHOWN, |columns| columns.status == "Error");
}
