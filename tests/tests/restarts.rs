//! The agent is killed, the API server is away, or both: what ran goes on, and nothing runs that must not.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use serde_json::{json, Value};
use tests::{
    agent::data_dir,
    cluster::{pod, pod_spec},
    guests::Guest,
    Bed, Cluster,
};

/// How long a state may take to show on a busy machine, back-offs of 10 and 20 s included.
const SHOWN: Duration = Duration::from_secs(120);

/// The logs of a pod's runs, as they lie in the agent's data folder, by the runs' numbers. (Of those that ended the
/// last stays.)
fn runs(bed: &Bed, name: &str) -> BTreeMap<usize, PathBuf> {
    let folders = fs::read_dir(data_dir(bed, "pi").join("logs")).into_iter().flatten().flatten();
    let prefix = format!("default_{name}_");
    let of_pod = folders.filter(|folder| folder.file_name().to_string_lossy().starts_with(&prefix));
    let files = of_pod.flat_map(|pod| fs::read_dir(pod.path().join("main")).into_iter().flatten().flatten());
    let numbered = files.filter_map(|file| {
        let name = file.file_name().to_string_lossy().into_owned();
        Some((name.strip_suffix(".log")?.parse().ok()?, file.path()))
    });
    numbered.collect()
}

/// The number of the pod's last run, which is how often it was restarted.
fn last_run(bed: &Bed, name: &str) -> Option<usize> {
    runs(bed, name).into_keys().last()
}

/// Waits until a run of the pod from number `run` on has printed a line with `text`.
#[track_caller]
fn wait_for_print(bed: &Bed, name: &str, run: usize, text: &str) {
    bed.wait_for(&format!("run {run} of {name} to print {text:?}"), SHOWN, || {
        let later = runs(bed, name).split_off(&run);
        let printed = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|log| log.contains(text));
        later.values().any(printed).then_some(())
    });
}

fn container(bed: &Bed, name: &str) -> Value {
    bed.get(&["pod", name])["status"]["containerStatuses"][0].clone()
}

fn files_of_pods(bed: &Bed) -> usize {
    fs::read_dir(data_dir(bed, "pi").join("checkpoints")).map_or(0, Iterator::count)
}

#[test]
fn pods_outlive_their_agent_with_the_api_server_away() {
    let mut cluster = Cluster::start_with(&["--log-flush-interval", "0"]);
    let bed = &cluster.bed;
    bed.kubectl(&["create", "secret", "generic", "words", "--from-literal=greeting=ahoy"]).expect();
    for (name, policy, guest, arguments) in [
        ("runner", "Always", Guest::Hello, vec![]),
        ("once", "Never", Guest::Hello, vec![]),
        ("done", "Never", Guest::Exit, vec!["0"]),
        ("doomed", "Always", Guest::Hello, vec![]),
    ] {
        cluster.run(name, policy, guest, &arguments);
    }
    let mut spec = pod_spec("Always", &cluster.image(Guest::Exit), &["3"]);
    let key = json!({"secretKeyRef": {"name": "words", "key": "greeting"}});
    spec["containers"][0]["env"] = json!([{"name": "GREETING", "valueFrom": key}]);
    bed.apply_value(&pod("crash", spec));
    for name in ["runner", "once", "doomed"] {
        bed.wait_for_columns("default", name, SHOWN, |columns| columns.ready == "1/1");
    }
    bed.wait_for_columns("default", "done", SHOWN, |columns| columns.status == "Completed");
    bed.wait_for_columns("default", "crash", SHOWN, |columns| columns.restarts >= 2);
    assert_eq!(files_of_pods(bed), 5);

    cluster.agent.die();
    bed.kubectl(&["delete", "pod", "doomed", "--force", "--grace-period=0"]).expect();
    bed.api_server_away(true);
    cluster.agent.start_again(bed);
    wait_for_print(bed, "runner", 1, "hello 0");
    // Nobody has told that it was deleted.
    wait_for_print(bed, "doomed", 1, "hello 0");
    // The secret is the one that it was given last.
    wait_for_print(bed, "crash", 3, "greeting: ahoy");
    assert_eq!((last_run(bed, "once"), last_run(bed, "done")), (Some(0), Some(0)));

    bed.api_server_away(false);
    bed.wait_for_columns("default", "runner", SHOWN, |columns| {
        (columns.ready.as_str(), columns.restarts) == ("1/1", 1)
    });
    let last = container(bed, "runner")["lastState"]["terminated"].clone();
    assert_eq!(
        (&last["reason"], &last["exitCode"]),
        (&json!("ContainerStatusUnknown"), &json!(137)),
        "{last}"
    );
    let columns = bed.wait_for_columns("default", "once", SHOWN, |columns| columns.status != "Running");
    assert_eq!((columns.status.as_str(), columns.restarts), ("ContainerStatusUnknown", 1));
    let columns = bed.columns("default", "done").expect("the pod is there");
    assert_eq!((columns.status.as_str(), columns.restarts), ("Completed", 0));
    bed.wait_for_columns("default", "crash", SHOWN, |columns| columns.restarts >= 3);
    let last = container(bed, "crash")["lastState"]["terminated"].clone();
    assert_eq!((&last["reason"], &last["exitCode"]), (&json!("Error"), &json!(3)), "{last}");
    bed.wait_for("all of the deleted pod to go", SHOWN, || runs(bed, "doomed").is_empty().then_some(()));
    assert_eq!(files_of_pods(bed), 4);

    // A restart with the API server there: the same, and what is over stays so.
    cluster.agent.die();
    cluster.agent.start_again(bed);
    bed.wait_for_columns("default", "runner", SHOWN, |columns| {
        (columns.ready.as_str(), columns.restarts) == ("1/1", 2)
    });
    let printed = bed.kubectl(&["logs", "runner", "--previous"]).expect();
    assert!(printed.starts_with("hello 0\n"), "{printed}");
    assert_eq!((last_run(bed, "once"), last_run(bed, "done")), (Some(0), Some(0)));
    for name in ["runner", "once", "done", "crash"] {
        bed.kubectl(&["delete", "pod", name]).expect();
    }
    bed.wait_for("nothing to be left of the pods", SHOWN, || (files_of_pods(bed) == 0).then_some(()));
}

#[test]
fn pods_go_on_while_the_api_server_is_away_and_their_status_catches_up() {
    let cluster = Cluster::start_with(&["--log-flush-interval", "0"]);
    let bed = &cluster.bed;
    cluster.run("crash", "Always", Guest::Exit, &["3"]);
    cluster.run("job", "Never", Guest::Hello, &[]);
    let mut spec = pod_spec("Always", &cluster.image(Guest::Hello), &[]);
    spec["activeDeadlineSeconds"] = json!(30);
    bed.apply_value(&pod("deadline", spec));
    bed.wait_for_columns("default", "crash", SHOWN, |columns| columns.restarts >= 2);
    bed.wait_for_columns("default", "deadline", SHOWN, |columns| columns.ready == "1/1");
    bed.wait_for_columns("default", "job", SHOWN, |columns| columns.ready == "1/1");
    let before = last_run(bed, "crash");
    bed.api_server_away(true);
    bed.wait_for("restarts to go on", SHOWN, || (last_run(bed, "crash") > before).then_some(()));
    // The deadline comes and goes: its guest prints no more.
    bed.wait_for("the deadline to end its pod", SHOWN, || {
        let (_, log) = runs(bed, "deadline").pop_last()?;
        let size = fs::metadata(&log).ok()?.len();
        std::thread::sleep(Duration::from_secs(3));
        (fs::metadata(&log).ok()?.len() == size).then_some(())
    });
    bed.api_server_away(false);
    bed.wait_for("the deadline to be told", SHOWN, || {
        let status = bed.get(&["pod", "deadline"])["status"].clone();
        (status["phase"] == "Failed" && status["reason"] == "DeadlineExceeded").then_some(())
    });
    bed.wait_for("what happened meanwhile to be told", SHOWN, || {
        bed.kubectl(&["describe", "pod", "deadline"]).stdout.contains("DeadlineExceeded").then_some(())
    });
    bed.wait_for_columns("default", "crash", SHOWN, |columns| columns.restarts >= 3);
    let columns = bed.columns("default", "job").expect("the pod is there");
    assert_eq!((columns.status.as_str(), columns.restarts), ("Running", 0), "nothing happened to it");
}

/// A pod that prints a key of a ConfigMap and of a Secret that it mounts, and whether it has a token.
fn mounts_all(cluster: &Cluster) {
    let bed = &cluster.bed;
    bed.kubectl(&["create", "secret", "generic", "sealed", "--from-literal=key=of-the-secret"]).expect();
    bed.kubectl(&["create", "configmap", "open", "--from-literal=key=of-the-map"]).expect();
    let words = ["cat=/open/key", "cat=/sealed/key", "cat=/token/token", "sleep"];
    let mut spec = pod_spec("Always", &cluster.image(Guest::Look), &words);
    spec["volumes"] = json!([
        {"name": "open", "configMap": {"name": "open"}},
        {"name": "sealed", "secret": {"secretName": "sealed"}},
        {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
    ]);
    let mounts =
        ["open", "sealed", "token"].map(|name| json!({"name": name, "mountPath": format!("/{name}")}));
    spec["containers"][0]["volumeMounts"] = json!(mounts);
    bed.apply_value(&pod("mounts", spec));
    wait_for_print(bed, "mounts", 0, "cat /token/token: ey");
}

/// A power cut: what was in memory is gone, and there is no network.
fn cut_power(cluster: &mut Cluster) {
    let bed = &cluster.bed;
    cluster.agent.die();
    let memory = bed.folder().join("run-pi/pods");
    assert!(memory.is_dir(), "secrets were there");
    fs::remove_dir_all(memory).expect("it can be removed");
    bed.api_server_away(true);
    cluster.agent.start_again(bed);
}

#[test]
fn volumes_come_back_after_a_power_cut_with_their_secrets() {
    let mut cluster = Cluster::start_with(&["--log-flush-interval", "0"]);
    mounts_all(&cluster);
    cut_power(&mut cluster);
    let bed = &cluster.bed;
    for words in ["cat /open/key: of-the-map", "cat /sealed/key: of-the-secret", "cat /token/token: ey"] {
        wait_for_print(bed, "mounts", 1, words);
    }
    bed.api_server_away(false);
    bed.wait_for_columns("default", "mounts", SHOWN, |columns| columns.ready == "1/1");
    // What changed meanwhile is seen once the API server can be asked.
    let patch = json!({"data": {"key": "changed"}}).to_string();
    bed.kubectl(&["patch", "configmap", "open", "--patch", &patch]).expect();
    let uid = bed.get(&["pod", "mounts"])["metadata"]["uid"].as_str().expect("it is there").to_owned();
    let key = data_dir(bed, "pi").join("pods").join(&uid).join("volumes/kubernetes.io~configmap/open/key");
    bed.wait_for("the new value", SHOWN, || (fs::read_to_string(&key).ok()? == "changed").then_some(()));
    // A crash, and a pod that goes meanwhile: nothing of it is left.
    cluster.agent.die();
    let bed = &cluster.bed;
    bed.kubectl(&["delete", "pod", "mounts", "--force", "--grace-period=0"]).expect();
    cluster.agent.start_again(bed);
    let left = [data_dir(bed, "pi").join("pods").join(&uid), bed.folder().join("run-pi/pods").join(&uid)];
    bed.wait_for("its volumes to go", SHOWN, || left.iter().all(|folder| !folder.exists()).then_some(()));
}

#[test]
fn secrets_that_are_kept_in_memory_only_are_waited_for() {
    let mut cluster = Cluster::start_with(&["--log-flush-interval", "0", "--secrets-at-rest", "false"]);
    mounts_all(&cluster);
    let data = data_dir(&cluster.bed, "pi");
    let mut command = std::process::Command::new("grep");
    command.args(["-r", "-l", "of-the-secret"]).args([data.join("pods"), data.join("checkpoints")]);
    let found = command.output().expect("grep can be run");
    assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
    cut_power(&mut cluster);
    let bed = &cluster.bed;
    cluster.agent.wait_for_line(bed, SHOWN, &["mounts", "taken up where it was"]);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(last_run(bed, "mounts"), Some(0), "it waits");
    bed.api_server_away(false);
    wait_for_print(bed, "mounts", 1, "cat /sealed/key: of-the-secret");
}
