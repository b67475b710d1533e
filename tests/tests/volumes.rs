//! Volumes of objects and of the machine, on the real control plane: what guests see of them, how they change, and what
//! `kubectl describe` says when they cannot be had.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::OnceLock, time::Duration};

use serde_json::{json, Value};
use tests::{
    agent::data_dir,
    bed::HOSTNAME,
    cluster::{pod, pod_spec},
    guests::Guest,
    Cluster,
};

/// How long a state may take to show on a busy machine.
const SHOWN: Duration = Duration::from_secs(90);

/// The folder of the machine that pods may be given.
const SHARED: &str = "/tmp/copepod-volumes";

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let shared = format!("{SHARED}-{}", std::process::id());
        fs::create_dir_all(&shared).expect("a folder can be made");
        Cluster::start_with(&["--host-paths", &shared])
    })
}

fn shared() -> String {
    format!("{SHARED}-{}", std::process::id())
}

/// A spec of one container that does what these words say to what is mounted.
fn spec(policy: &str, volumes: Value, mounts: Value, words: &[&str]) -> Value {
    let mut spec = pod_spec(policy, &cluster().image(Guest::Look), words);
    spec["volumes"] = volumes;
    spec["containers"][0]["volumeMounts"] = mounts;
    spec
}

/// Runs such a pod to its end; what it printed.
#[track_caller]
fn printed(name: &str, volumes: Value, mounts: Value, words: &[&str]) -> String {
    let bed = &cluster().bed;
    bed.apply_value(&pod(name, spec("Never", volumes, mounts, words)));
    bed.wait_for_columns("default", name, SHOWN, |columns| columns.status == "Completed");
    bed.kubectl(&["logs", name]).expect()
}

/// Waits until a pod's log has these words.
#[track_caller]
fn wait_for_words(name: &str, words: &str) {
    let bed = &cluster().bed;
    bed.wait_for(&format!("{words:?} in the log of {name}"), SHOWN, || {
        bed.kubectl(&["logs", name]).stdout.contains(words).then_some(())
    });
}

/// Waits until `kubectl describe` of a pod has these words.
#[track_caller]
fn wait_for_description(name: &str, words: &str) {
    let bed = &cluster().bed;
    bed.wait_for(&format!("{words:?} in the description of {name}"), SHOWN, || {
        bed.kubectl(&["describe", "pod", name]).stdout.contains(words).then_some(())
    });
}

fn uid(name: &str) -> String {
    cluster().bed.get(&["pod", name])["metadata"]["uid"].as_str().expect("it is there").to_owned()
}

/// A pod's folder on the disk and in memory.
fn folders(uid: &str) -> [std::path::PathBuf; 2] {
    let bed = &cluster().bed;
    [
        data_dir(bed, HOSTNAME).join("pods").join(uid),
        bed.folder().join(format!("run-{HOSTNAME}/pods")).join(uid),
    ]
}

fn config_map(name: &str, data: Value) {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
    cluster().bed.apply_value(&object);
}

#[test]
fn keys_are_files_with_their_modes_and_change_within_a_minute() {
    config_map("settings", json!({"color": "red", "size": "1"}));
    let bed = &cluster().bed;
    let items = json!([{"key": "color", "path": "deep/color", "mode": 0o400}]);
    let volumes = json!([
        {"name": "all", "configMap": {"name": "settings"}},
        {"name": "some", "configMap": {"name": "settings", "items": items, "defaultMode": 0o640}},
    ]);
    let mounts = json!([{"name": "all", "mountPath": "/all"}, {"name": "some", "mountPath": "/some"}]);
    let words = ["ls=/all", "ls=/some", "cat=/some/deep/color", "write=/all/color=blue", "watch=/all/color"];
    bed.apply_value(&pod("settings", spec("Always", volumes, mounts, &words)));
    wait_for_words("settings", "now /all/color: red");
    let log = bed.kubectl(&["logs", "settings"]).expect();
    for line in [
        "ls /all: color size\n",
        "ls /some: deep\n",
        "cat /some/deep/color: red\n",
        "write /all/color: Read-only file system\n",
    ] {
        assert!(log.contains(line), "{line:?} in {log}");
    }
    let [disk, _] = folders(&uid("settings"));
    let mode = |path: &str| fs::metadata(disk.join(path)).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode("volumes/kubernetes.io~configmap/some/deep/color"), 0o400);
    assert_eq!(mode("volumes/kubernetes.io~configmap/all/color"), 0o644);
    let began = std::time::Instant::now();
    config_map("settings", json!({"color": "green", "size": "1"}));
    wait_for_words("settings", "now /all/color: green");
    println!("the new value was seen after {:?}", began.elapsed());
    // The status tells what is mounted.
    let status = bed.get(&["pod", "settings"])["status"]["containerStatuses"][0]["volumeMounts"].clone();
    assert_eq!(status[0]["name"], "all", "{status}");
    bed.kubectl(&["delete", "pod", "settings"]).expect();
    assert!(!disk.exists(), "it is gone before its object is");
}

#[test]
fn what_is_missing_is_told_and_waited_for() {
    let bed = &cluster().bed;
    let volumes =
        json!([{"name": "late", "configMap": {"name": "late", "items": [{"key": "k", "path": "k"}]}}]);
    let mounts = json!([{"name": "late", "mountPath": "/late"}]);
    bed.apply_value(&pod("waits", spec("Never", volumes, mounts, &["cat=/late/k"])));
    wait_for_description(
        "waits",
        "MountVolume.SetUp failed for volume \"late\" : configmap \"late\" not found",
    );
    let columns = bed.columns("default", "waits").expect("it is there");
    assert_eq!(columns.status, "ContainerCreating");
    let conditions = bed.get(&["pod", "waits"])["status"]["conditions"].clone();
    let ready = conditions.as_array().into_iter().flatten();
    let ready = ready.into_iter().find(|one| one["type"] == "PodReadyToStartContainers");
    assert_eq!(ready.expect("it is there")["status"], "False");
    config_map("late", json!({"other": "x"}));
    wait_for_description("waits", "references non-existent config key: k");
    config_map("late", json!({"k": "at last"}));
    bed.wait_for_columns("default", "waits", Duration::from_secs(200), |columns| {
        columns.status == "Completed"
    });
    assert_eq!(bed.kubectl(&["logs", "waits"]).expect(), "cat /late/k: at last\n");
}

#[test]
fn what_is_optional_may_come_later() {
    let bed = &cluster().bed;
    let volumes = json!([{"name": "maybe", "secret": {"secretName": "maybe", "optional": true}}]);
    let mounts = json!([{"name": "maybe", "mountPath": "/maybe"}]);
    bed.apply_value(&pod("maybe", spec("Always", volumes, mounts, &["ls=/maybe", "watch=/maybe/key"])));
    wait_for_words("maybe", "now /maybe/key: (No such file or directory)");
    bed.kubectl(&["create", "secret", "generic", "maybe", "--from-literal=key=came"]).expect();
    wait_for_words("maybe", "now /maybe/key: came");
    bed.kubectl(&["delete", "secret", "maybe"]).expect();
    bed.wait_for("the key to go again", SHOWN, || {
        let log = bed.kubectl(&["logs", "maybe"]).stdout;
        (log.matches("(No such file").count() == 2).then_some(())
    });
    bed.kubectl(&["delete", "pod", "maybe"]).expect();
}

#[test]
fn secrets_are_in_memory_and_tokens_are_real() {
    let bed = &cluster().bed;
    bed.kubectl(&["create", "secret", "generic", "hidden", "--from-literal=key=in-memory-only"]).expect();
    let sources = json!([
        {"secret": {"name": "hidden"}},
        {"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 600}},
        {"downwardAPI": {"items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            {"path": "cpu", "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu", "divisor": "1m"}},
        ]}},
    ]);
    let volumes = json!([{"name": "mixed", "projected": {"sources": sources}}]);
    let mounts = json!([{"name": "mixed", "mountPath": "/mixed"}]);
    let words = ["ls=/mixed", "cat=/mixed/key", "cat=/mixed/cpu", "cat=/mixed/token", "watch=/mixed/labels"];
    let mut spec = spec("Always", volumes, mounts, &words);
    // The node's policy lets it ask only for audiences that a pod names; the API server checks that.
    spec["containers"][0]["resources"] = json!({"limits": {"cpu": "250m"}});
    let mut mixed = pod("mixed", spec);
    mixed["metadata"]["labels"] = json!({"tier": "one"});
    bed.apply_value(&mixed);
    wait_for_words("mixed", "now /mixed/labels: tier=\"one\"");
    let log = bed.kubectl(&["logs", "mixed"]).expect();
    for line in
        ["ls /mixed: cpu key labels token\n", "cat /mixed/key: in-memory-only\n", "cat /mixed/cpu: 250\n"]
    {
        assert!(log.contains(line), "{line:?} in {log}");
    }
    let token = log.lines().find_map(|line| line.strip_prefix("cat /mixed/token: ")).expect("it was printed");
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": token, "audiences": ["vault"]}});
    let file = bed.write("review.json", &review.to_string());
    let answer = bed.kubectl(&["create", "-o", "json", "-f", &file.to_string_lossy()]).expect();
    let answer: Value = serde_json::from_str(&answer).expect("it is JSON");
    assert_eq!(answer["status"]["authenticated"], true, "{answer}");
    assert_eq!(answer["status"]["user"]["username"], "system:serviceaccount:default:default");
    let bound = &answer["status"]["user"]["extra"]["authentication.kubernetes.io/pod-uid"][0];
    assert_eq!(*bound, json!(uid("mixed")));
    bed.kubectl(&["label", "pod", "mixed", "tier=two", "--overwrite"]).expect();
    wait_for_words("mixed", "now /mixed/labels: tier=\"two\"");
    let [disk, memory] = folders(&uid("mixed"));
    let secret = memory.join("volumes/kubernetes.io~projected/mixed/key");
    assert_eq!(fs::read_to_string(secret).expect("it is there"), "in-memory-only");
    // What is kept for a start without the API server.
    let kept = disk.join("secrets/mixed/key");
    assert_eq!(fs::read_to_string(kept).expect("it is kept"), "in-memory-only");
    let of_all = fs::metadata(data_dir(bed, HOSTNAME).join("pods")).expect("it is there").permissions();
    assert_eq!(of_all.mode() & 0o777, 0o700);
    bed.kubectl(&["delete", "pod", "mixed"]).expect();
    assert!(!disk.exists() && !memory.exists(), "nothing of it is left");
}

#[test]
fn the_token_that_every_pod_is_given_is_made_when_it_is_looked_for() {
    let bed = &cluster().bed;
    let place = "/var/run/secrets/kubernetes.io/serviceaccount";
    let (list, token) = (format!("ls={place}"), format!("cat={place}/token"));
    let namespace = format!("cat={place}/namespace");
    bed.apply_value(&pod(
        "asks",
        spec("Always", json!([]), json!([]), &[&list, &namespace, &token, "sleep"]),
    ));
    bed.apply_value(&pod("does-not", spec("Always", json!([]), json!([]), &["sleep"])));
    wait_for_words("asks", &format!("cat {place}/token: ey"));
    bed.wait_for_columns("default", "does-not", SHOWN, |columns| columns.ready == "1/1");
    let log = bed.kubectl(&["logs", "asks"]).expect();
    assert!(log.contains(&format!("ls {place}: ca.crt namespace token\n")), "{log}");
    assert!(log.contains(&format!("cat {place}/namespace: default\n")), "{log}");
    let [_, asked] = folders(&uid("asks"));
    let [on_disk, in_memory] = folders(&uid("does-not"));
    assert!(asked.exists() && !in_memory.exists() && !on_disk.exists(), "only where it was looked for");
    bed.kubectl(&["delete", "pod", "asks", "does-not"]).expect();
}

#[test]
fn sub_paths_stay_in_their_volume() {
    let bed = &cluster().bed;
    config_map("parts", json!({"app.conf": "mode = fast"}));
    let volumes =
        json!([{"name": "work", "emptyDir": {}}, {"name": "parts", "configMap": {"name": "parts"}}]);
    let mounts = json!([
        {"name": "work", "mountPath": "/made", "subPath": "a/b"},
        {"name": "work", "mountPath": "/named", "subPathExpr": "of-$(POD)"},
        {"name": "work", "mountPath": "/whole"},
        {"name": "parts", "mountPath": "/etc/app.conf", "subPath": "app.conf"},
    ]);
    let words = [
        "write=/made/x=1",
        "write=/named/y=2",
        "ls=/whole",
        "cat=/whole/a/b/x",
        "cat=/whole/of-subs/y",
        "cat=/etc/app.conf",
        "write=/etc/app.conf=z",
        "remove=/etc/app.conf",
        "ls=/etc",
        "cat=/named/../../x",
    ];
    let mut of_subs = spec("Never", volumes.clone(), mounts, &words);
    of_subs["containers"][0]["env"] =
        json!([{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
    bed.apply_value(&pod("subs", of_subs));
    bed.wait_for_columns("default", "subs", SHOWN, |columns| columns.status == "Completed");
    let log = bed.kubectl(&["logs", "subs"]).expect();
    for line in [
        "ls /whole: a of-subs\n",
        "cat /whole/a/b/x: 1\n",
        "cat /whole/of-subs/y: 2\n",
        "cat /etc/app.conf: mode = fast\n",
        "write /etc/app.conf: Read-only file system\n",
        "remove /etc/app.conf: Resource busy\n",
        "ls /etc: app.conf hostname hosts\n",
    ] {
        assert!(log.contains(line), "{line:?} in {log}");
    }
    // A guest of the same pod that turns the folder into a link that leads out, again and again.
    let image = cluster().image(Guest::Look);
    let mut raced =
        spec("Always", volumes, json!([{"name": "work", "mountPath": "/m", "subPath": "trap"}]), &["ls=/m"]);
    raced["containers"][0]["restartPolicy"] = json!("Always");
    raced["initContainers"] = json!([{"name": "hostile", "image": image, "restartPolicy": "Always",
        "args": ["swap=/w/trap=../../../../.."], "volumeMounts": [{"name": "work", "mountPath": "/w"}]}]);
    bed.apply_value(&pod("raced", raced));
    bed.wait_for("some starts to be tried", SHOWN, || {
        let described = bed.kubectl(&["describe", "pod", "raced"]).stdout;
        let refused = described.contains("leads out of its volume");
        let restarts = bed.columns("default", "raced").is_some_and(|columns| columns.restarts >= 2);
        (refused || restarts).then_some(())
    });
    let seen = bed.kubectl(&["logs", "raced", "-c", "main"]).stdout;
    assert!(!seen.contains("etc") && !seen.contains("usr"), "{seen}");
    bed.kubectl(&["delete", "pod", "raced"]).expect();
}

#[test]
fn a_container_has_a_root_of_its_own_and_says_why_it_ended() {
    let bed = &cluster().bed;
    let words = [
        "ls=/",
        "cat=/etc/hostname",
        "cat=/etc/hosts",
        "write=/tmp/x=scratch",
        "cat=/tmp/x",
        "cat=/etc/passwd",
        "cat=/../../etc/passwd",
        "link=/tmp/out=../../../../etc/passwd",
        "cat=/tmp/out",
        "write=/dev/termination-log=it was me",
        "exit=3",
    ];
    let mut rooted = spec("Never", json!([]), json!([]), &words);
    rooted["hostAliases"] = json!([{"ip": "10.9.8.7", "hostnames": ["printer"]}]);
    bed.apply_value(&pod("rooted", rooted));
    bed.wait_for_columns("default", "rooted", SHOWN, |columns| columns.status == "Error");
    let log = bed.kubectl(&["logs", "rooted"]).expect();
    for line in [
        "ls /: dev etc tmp var\n",
        "cat /etc/hostname: rooted\n",
        "10.9.8.7\tprinter\n",
        "cat /tmp/x: scratch\n",
        "cat /etc/passwd: No such file or directory\n",
        "cat /../../etc/passwd: ",
    ] {
        assert!(log.contains(line), "{line:?} in {log}");
    }
    assert!(!log.contains("root:"), "{log}");
    let ended = bed.get(&["pod", "rooted"])["status"]["containerStatuses"][0]["state"]["terminated"].clone();
    assert_eq!((&ended["exitCode"], &ended["message"]), (&json!(3), &json!("it was me")));
    // Another path, one in a volume, the log, and too much of it.
    let volumes = json!([{"name": "data", "emptyDir": {}}]);
    let mounts = json!([{"name": "data", "mountPath": "/data"}]);
    let mut other = spec("Never", volumes, mounts, &["write=/data/why=in a volume", "ls=/data", "exit=1"]);
    other["containers"][0]["terminationMessagePath"] = json!("/data/why");
    let mut from_log = spec("Never", json!([]), json!([]), &["cat=/nothing", "exit=1"]);
    from_log["containers"][0]["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    let mut read_only = spec(
        "Never",
        json!([]),
        json!([]),
        &["write=/tmp/x=1", "write=/dev/termination-log=still", "exit=1"],
    );
    read_only["containers"][0]["securityContext"] = json!({"readOnlyRootFilesystem": true});
    for (name, spec, message) in [
        ("elsewhere", other, "in a volume"),
        ("from-log", from_log, "cat /nothing: No such file or directory\n"),
        ("read-only", read_only, "still"),
    ] {
        bed.apply_value(&pod(name, spec));
        bed.wait_for_columns("default", name, SHOWN, |columns| columns.status == "Error");
        let ended = bed.get(&["pod", name])["status"]["containerStatuses"][0]["state"]["terminated"].clone();
        assert_eq!(ended["message"], message, "{name}");
    }
    assert!(bed.kubectl(&["logs", "read-only"]).expect().contains("write /tmp/x: Read-only file system"));
}

#[test]
fn paths_of_the_machine_are_given_where_they_may_be() {
    let bed = &cluster().bed;
    let shared = shared();
    fs::write(Path::new(&shared).join("file"), "of the machine").expect("it can be written");
    let host_path =
        |name: &str, path: &str, kind: &str| json!({"name": name, "hostPath": {"path": path, "type": kind}});
    let volumes = json!([
        host_path("folder", &shared, "Directory"),
        host_path("file", &format!("{shared}/file"), "File"),
        host_path("made", &format!("{shared}/made/deep"), "DirectoryOrCreate"),
    ]);
    let mounts = json!([
        {"name": "folder", "mountPath": "/folder", "readOnly": true},
        {"name": "file", "mountPath": "/etc/machine"},
        {"name": "made", "mountPath": "/made"},
    ]);
    let log = printed(
        "machine",
        volumes,
        mounts,
        &[
            "cat=/folder/file",
            "write=/folder/file=no",
            "cat=/etc/machine",
            "write=/etc/machine=by the guest",
            "write=/made/x=1",
        ],
    );
    assert!(
        log.contains("cat /folder/file: of the machine\nwrite /folder/file: Read-only file system\n"),
        "{log}"
    );
    assert!(log.contains("cat /etc/machine: of the machine\nwrite /etc/machine: done\n"), "{log}");
    let read = |path: &str| fs::read_to_string(Path::new(&shared).join(path)).expect("it is there");
    assert_eq!((read("file"), read("made/deep/x")), ("by the guest".to_owned(), "1".to_owned()));
    for (name, path, kind, words) in [
        ("not-there", format!("{shared}/none"), "Directory", "hostPath type check failed"),
        ("not-that", format!("{shared}/made"), "File", "is not a file"),
        ("not-mine", "/etc".to_owned(), "", "not among the paths that this node lets pods have"),
    ] {
        let volumes = json!([host_path("v", &path, kind)]);
        bed.apply_value(&pod(
            name,
            spec("Never", volumes, json!([{"name": "v", "mountPath": "/v"}]), &["ls=/v"]),
        ));
        wait_for_description(name, words);
        assert_eq!(bed.columns("default", name).expect("it is there").status, "ContainerCreating");
        bed.kubectl(&["delete", "pod", name]).expect();
    }
}

#[test]
fn variables_come_from_files_that_an_init_container_wrote() {
    let bed = &cluster().bed;
    let image = cluster().image(Guest::Look);
    let from = |key: &str, optional: bool| {
        json!({"fileKeyRef":
        {"volumeName": "vars", "path": "vars.env", "key": key, "optional": optional}})
    };
    let mut spec = spec(
        "Never",
        json!([{"name": "vars", "emptyDir": {"medium": "Memory"}}]),
        json!([]),
        &["env=A", "env=B"],
    );
    spec["initContainers"] = json!([{"name": "writer", "image": image, "args": ["write=/vars/vars.env=A='first'"],
        "volumeMounts": [{"name": "vars", "mountPath": "/vars"}]}]);
    // The guest's words have one `=` for its own use: what follows it is the text.
    spec["containers"][0]["env"] =
        json!([{"name": "A", "valueFrom": from("A", false)}, {"name": "B", "valueFrom": from("B", true)}]);
    bed.apply_value(&pod("from-file", spec.clone()));
    bed.wait_for_columns("default", "from-file", SHOWN, |columns| columns.status == "Completed");
    assert_eq!(bed.kubectl(&["logs", "from-file"]).expect(), "env A: first\nenv B: (none)\n");
    spec["containers"][0]["env"] = json!([{"name": "B", "valueFrom": from("B", false)}]);
    bed.apply_value(&pod("lacks", spec));
    wait_for_description("lacks", "environment variable key \"B\" not found in file");
    bed.wait_for_columns("default", "lacks", SHOWN, |columns| columns.status == "CreateContainerConfigError");
}

/// How many requests to watch ConfigMaps the API server serves, by its metrics.
fn watches_in(metrics: &str) -> u64 {
    let is_watch = |line: &&str| {
        line.starts_with("apiserver_longrunning_requests{")
            && line.contains("resource=\"configmaps\"")
            && line.contains("verb=\"WATCH\"")
    };
    let counts =
        metrics.lines().filter(is_watch).filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    counts.sum()
}

#[test]
fn each_object_is_watched_once_and_only_while_it_is_mounted() {
    // A cluster of its own: other tests mount things as well.
    let own = Cluster::start();
    let bed = &own.bed;
    let count = || {
        let metrics = bed.kubectl(&["get", "--raw", "/metrics"]).expect();
        watches_in(&metrics)
    };
    let object = |name: &str, immutable: bool| {
        bed.apply_value(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
            "data": {"k": "v"}, "immutable": immutable}));
    };
    object("shared", false);
    object("fixed", true);
    let before = count();
    for name in ["one", "two", "three"] {
        let mut spec = pod_spec("Always", &own.image(Guest::SleepC), &[]);
        spec["volumes"] = json!([
            {"name": "shared", "configMap": {"name": "shared"}},
            {"name": "fixed", "configMap": {"name": "fixed"}},
        ]);
        spec["containers"][0]["volumeMounts"] =
            json!([{"name": "shared", "mountPath": "/shared"}, {"name": "fixed", "mountPath": "/fixed"}]);
        bed.apply_value(&pod(name, spec));
    }
    for name in ["one", "two", "three"] {
        bed.wait_for_columns("default", name, SHOWN, |columns| columns.ready == "1/1");
    }
    bed.wait_for("one watch more", SHOWN, || (count() == before + 1).then_some(()));
    bed.kubectl(&["delete", "pod", "one", "two"]).expect();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(count(), before + 1, "the last pod still mounts it");
    bed.kubectl(&["delete", "pod", "three"]).expect();
    bed.wait_for("the watch to end", SHOWN, || (count() == before).then_some(()));
}
