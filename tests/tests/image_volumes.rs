//! Volumes that are images: the files of their layers, read-only, for who may have them.

use std::{sync::OnceLock, time::Duration};

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

/// A pod that mounts this image at /image, and does there what these words say.
fn apply(name: &str, reference: &str, more: Value, words: &[&str]) {
    let mut spec = pod_spec("Never", &cluster().image(Guest::Look), words);
    let mut image = json!({"reference": reference});
    image.as_object_mut().expect("it is one").extend(more.as_object().cloned().unwrap_or_default());
    spec["volumes"] = json!([{"name": "image", "image": image}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "image", "mountPath": "/image"}]);
    cluster().bed.apply_value(&pod(name, spec));
}

#[track_caller]
fn printed(name: &str) -> String {
    let bed = &cluster().bed;
    bed.wait_for_columns("default", name, SHOWN, |columns| columns.status == "Completed");
    bed.kubectl(&["logs", name]).expect()
}

#[test]
fn layers_lie_over_each_other_and_are_read_only() {
    let cluster = cluster();
    let layers = [
        "mkdir -p etc data; echo one > etc/a; echo low > data/x; ln -s ../etc/a data/link; ln -s /etc/passwd data/out",
        "mkdir -p etc data; touch etc/.wh.a; echo two > etc/b; echo high > data/x; rm -f data/link",
    ];
    let image = cluster.bed.push_layers(&cluster.registry, "test/data", "v1", &layers);
    let words = [
        "ls=/image",
        "ls=/image/etc",
        "cat=/image/etc/b",
        "cat=/image/data/x",
        "cat=/image/data/out",
        "write=/image/etc/b=mine",
        "remove=/image/etc/b",
    ];
    apply("data", &image, json!({}), &words);
    let log = printed("data");
    for line in [
        "ls /image: data etc\n",
        "ls /image/etc: b\n",
        "cat /image/etc/b: two\n",
        "cat /image/data/x: high\n",
        "write /image/etc/b: Read-only file system\n",
        "remove /image/etc/b: Read-only file system\n",
    ] {
        assert!(log.contains(line), "{line:?} in {log}");
    }
    assert!(!log.contains("root:"), "{log}");
    // It is here now: another pod is not made to wait for a registry.
    apply("again", &image, json!({"pullPolicy": "Never"}), &["cat=/image/etc/b"]);
    assert_eq!(printed("again"), "cat /image/etc/b: two\n\n");
    // A part of it.
    let mut part = pod_spec("Never", &cluster.image(Guest::Look), &["ls=/part"]);
    part["volumes"] = json!([{"name": "image", "image": {"reference": image}}]);
    part["containers"][0]["volumeMounts"] =
        json!([{"name": "image", "mountPath": "/part", "subPath": "etc"}]);
    cluster.bed.apply_value(&pod("part", part));
    assert_eq!(printed("part"), "ls /part: b\n");
}

#[test]
fn an_artifact_is_its_files() {
    let cluster = cluster();
    apply("artifact", &cluster.image(Guest::Exit), json!({}), &["ls=/image"]);
    let log = printed("artifact");
    assert!(log.starts_with("ls /image: ") && log.trim_end().len() > "ls /image:".len(), "{log}");
}

#[test]
fn one_that_cannot_be_had_is_told_of_by_who_mounts_it() {
    let cluster = cluster();
    let bed = &cluster.bed;
    let missing = cluster.registry.image("test/nothing:v1");
    let mut spec = pod_spec("Always", &cluster.image(Guest::SleepC), &[]);
    spec["volumes"] = json!([{"name": "image", "image": {"reference": missing}}]);
    let image = spec["containers"][0]["image"].clone();
    spec["containers"] = json!([
        {"name": "main", "image": image, "volumeMounts": [{"name": "image", "mountPath": "/image"}]},
        {"name": "other", "image": image},
    ]);
    bed.apply_value(&pod("missing", spec));
    bed.wait_for_columns("default", "missing", SHOWN, |columns| {
        columns.ready == "1/2" && columns.status == "ImagePullBackOff"
    });
    let described = bed.kubectl(&["describe", "pod", "missing"]).expect();
    assert!(described.contains(&format!("Failed to pull image \"{missing}\"")), "{described}");
    bed.kubectl(&["delete", "pod", "missing"]).expect();
    apply("never", &missing, json!({"pullPolicy": "Never"}), &["ls=/image"]);
    bed.wait_for_columns("default", "never", SHOWN, |columns| columns.status == "ErrImageNeverPull");
}
