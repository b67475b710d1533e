//! Pods from a folder, in a cluster and without one.

use std::{fs, path::Path, time::Duration};

use serde_json::json;
use tests::{agent::data_dir, guests::Guest, Agent, Bed, Cluster};

/// How long a state may take to show on a busy machine.
const SHOWN: Duration = Duration::from_secs(60);

/// A manifest of the pod `name` that runs `image`.
fn manifest(name: &str, image: &str, argument: &str) -> String {
    let container = json!({"name": "main", "image": image, "args": [argument]});
    let spec = json!({"terminationGracePeriodSeconds": 2, "containers": [container]});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string()
}

/// What all runs of the pod `name` have printed so far.
fn printed(bed: &Bed, name: &str) -> String {
    let folders = fs::read_dir(data_dir(bed, "pi").join("logs")).into_iter().flatten().flatten();
    let of_pod = folders
        .filter(|folder| folder.file_name().to_string_lossy().starts_with(&format!("default_{name}_")));
    let files =
        of_pod.flat_map(|folder| fs::read_dir(folder.path().join("main")).into_iter().flatten().flatten());
    let mut paths: Vec<_> = files.map(|file| file.path()).collect();
    paths.sort();
    paths.iter().filter_map(|path| fs::read_to_string(path).ok()).collect()
}

/// Pushes the guest that says hello to a registry without TLS.
#[track_caller]
fn push(bed: &Bed, host: &str, image: &str) {
    bed.copepod(&["push", "--insecure-registries", host, &Guest::Hello.wasm().to_string_lossy(), image])
        .expect();
}

fn put(folder: &Path, file: &str, text: &str) {
    fs::write(folder.join(file), text).expect("the folder is writable");
}

#[test]
fn a_node_in_no_cluster_runs_what_is_in_its_folder() {
    let bed = Bed::empty();
    let registry = bed.registry_plain();
    let image = registry.image("test/hello:v1");
    push(&bed, &registry.host, &image);
    let (folder, data) = (bed.folder().join("pods"), data_dir(&bed, "pi"));
    fs::create_dir(&folder).expect("the bed's folder is writable");
    put(&folder, "hello.yaml", &manifest("hello", &image, "a"));
    let (folder_text, data_text) = (folder.to_string_lossy(), data.to_string_lossy());
    let mut agent = Agent::start(
        &bed,
        "pi",
        &[
            "--node-name",
            "pi",
            "--data-dir",
            &data_text,
            "--pod-manifest-path",
            &folder_text,
            "--insecure-registries",
            &registry.host,
            "--log-flush-interval",
            "0",
        ],
    );
    agent.wait_for_line(&bed, SHOWN, &["pod default/hello-pi", "Started", "Container started"]);
    bed.wait_for("the pod to print", SHOWN, || printed(&bed, "hello-pi").contains("hello 1").then_some(()));

    // A file that makes no sense is told of, and its pod goes on.
    put(&folder, "hello.yaml", "kind: Pod\nmetadata: {");
    agent.wait_for_line(&bed, SHOWN, &["static pod", "hello.yaml", "not valid YAML"]);
    put(
        &folder,
        "secret.json",
        &manifest("other", &image, "")
            .replace("\"args\"", "\"envFrom\":[{\"secretRef\":{\"name\":\"s\"}}],\"args\""),
    );
    agent.wait_for_line(&bed, SHOWN, &["static pod", "secret.json", "may not refer to secrets"]);
    let before = printed(&bed, "hello-pi").len();
    bed.wait_for("the pod to go on", SHOWN, || (printed(&bed, "hello-pi").len() > before).then_some(()));
    put(&folder, "hello.yaml", &manifest("hello", &image, "a"));

    // The agent dies, and the registry is gone: the pod comes back.
    let count = |bed: &Bed| printed(bed, "hello-pi").matches("hello 0\n").count();
    assert_eq!(count(&bed), 1);
    agent.die();
    agent.start_again(&bed);
    bed.wait_for("a second run", SHOWN, || (count(&bed) == 2).then_some(()));

    // Another manifest is another pod of the same name.
    put(&folder, "hello.yaml", &manifest("hello", &image, "b"));
    bed.wait_for("the old pod to go and the new one to run", SHOWN, || (count(&bed) == 1).then_some(()));
    fs::remove_file(folder.join("hello.yaml")).expect("the file is there");
    bed.wait_for("all of it to go", SHOWN, || printed(&bed, "hello-pi").is_empty().then_some(()));
    assert!(agent.stop().success());
}

#[test]
fn static_pods_are_mirrored() {
    let cluster = {
        // The folder need not be there when the agent starts.
        let folder = std::env::temp_dir().join(format!("copepod-static-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        (Cluster::start_with(&["--pod-manifest-path", &folder.to_string_lossy()]), folder)
    };
    let (cluster, folder) = cluster;
    let bed = &cluster.bed;
    let image = cluster.plain.image("test/hello:v1");
    push(bed, &cluster.plain.host, &image);
    fs::create_dir(&folder).expect("the folder can be made");
    put(&folder, "hello.yaml", &manifest("hello", &image, "a"));
    // A folder that was not there is looked for now and then.
    bed.wait_for_columns("default", "hello-pi", SHOWN, |columns| columns.ready == "1/1");
    let mirror = bed.get(&["pod", "hello-pi"]);
    let annotations = &mirror["metadata"]["annotations"];
    assert_eq!(annotations["kubernetes.io/config.source"], "file");
    assert_eq!(annotations["kubernetes.io/config.mirror"], annotations["kubernetes.io/config.hash"]);
    assert_eq!(mirror["metadata"]["ownerReferences"][0]["kind"], "Node");
    assert!(bed.kubectl(&["logs", "hello-pi"]).expect().starts_with("hello 0\n"));
    let described = bed.kubectl(&["describe", "pod", "hello-pi"]).expect();
    assert!(described.contains("Container started"), "events are found by the pod's hash:\n{described}");

    // Deleting the mirror deletes nothing but the mirror.
    let uid = |bed: &Bed| bed.get(&["pod", "hello-pi"])["metadata"]["uid"].clone();
    let before = uid(bed);
    bed.kubectl(&["delete", "pod", "hello-pi", "--wait=false"]).expect();
    bed.wait_for("another mirror", SHOWN, || {
        let now = uid(bed);
        (now.is_string() && now != before).then_some(())
    });
    let columns = bed.wait_for_columns("default", "hello-pi", SHOWN, |columns| columns.ready == "1/1");
    assert_eq!(columns.restarts, 0, "the pod itself went on");

    // Another manifest, another mirror; a restart of the agent takes both up.
    put(&folder, "hello.yaml", &manifest("hello", &image, "b"));
    bed.wait_for("the new arguments to show", SHOWN, || {
        let args = bed.get(&["pod", "hello-pi"])["spec"]["containers"][0]["args"].clone();
        (args == json!(["b"])).then_some(())
    });
    bed.wait_for_columns("default", "hello-pi", SHOWN, |columns| columns.ready == "1/1");
    fs::remove_file(folder.join("hello.yaml")).expect("the file is there");
    bed.wait_for("the mirror to go", SHOWN, || bed.columns("default", "hello-pi").is_none().then_some(()));
    let _ = fs::remove_dir_all(&folder);
}
