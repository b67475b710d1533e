//! `kubectl logs` with all that it can be asked, of guests that print as guests do.

use std::{fs, sync::OnceLock, time::Duration};

use serde_json::json;
use tests::{
    agent::data_dir,
    bed::HOSTNAME,
    cluster::{pod, pod_spec},
    guests::Guest,
    Bed, Cluster,
};

/// How long a state may take to show on a busy machine.
const SHOWN: Duration = Duration::from_secs(90);
/// The pour of the test of rotation, in MiB; in the log, with what is before each line, it is half as much again.
const POURED: usize = 6;

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        Cluster::start_with(&["--container-log-max-size", "1Mi", "--container-log-max-files", "20"])
    })
}

fn bed() -> &'static Bed {
    &cluster().bed
}

/// A pod of a guest that says this, once.
fn speak(name: &str, words: &[&str]) {
    cluster().run(name, "Never", Guest::Speak, words);
    bed().wait_for_columns("default", name, SHOWN, |columns| columns.status == "Completed");
}

/// What `kubectl logs` of these arguments prints, byte for byte.
#[track_caller]
fn logged(arguments: &str) -> Vec<u8> {
    let file = format!("logged-{}", arguments.replace(|c: char| !c.is_alphanumeric(), "-"));
    bed().shell(&format!("kubectl logs {arguments} > {file}")).expect();
    fs::read(bed().folder().join(file)).expect("the shell has written it")
}

#[track_caller]
fn text(arguments: &str) -> String {
    String::from_utf8(logged(arguments)).expect("it prints UTF-8")
}

#[test]
fn every_option_of_kubectl_logs() {
    let mut spec = pod_spec("Always", &cluster().image(Guest::Hello), &[]);
    let mut side = spec["containers"][0].clone();
    (side["name"], side["image"]) = (json!("side"), json!(cluster().image(Guest::SleepC)));
    spec["containers"].as_array_mut().expect("it is one").push(side);
    let mut two = pod("two", spec);
    two["metadata"]["labels"] = json!({"app": "two"});
    bed().apply_value(&two);
    bed().wait_for("some lines", SHOWN, || {
        bed().kubectl(&["logs", "two", "-c", "main"]).stdout.contains("hello 5").then_some(())
    });
    assert_eq!(text("two -c main --tail=2").lines().count(), 2);
    assert_eq!(text("two -c main --limit-bytes=10"), "hello 0\nhe");
    let recent = text("two -c main --since=2s").lines().count();
    assert!((1..=4).contains(&recent), "one line a second: {recent}");
    let stamped = text("two -c main --timestamps --tail=3");
    let stamps: Vec<&str> = stamped.lines().filter_map(|line| Some(line.split_once(" hello ")?.0)).collect();
    assert_eq!(stamps.len(), 3, "{stamped}");
    for stamp in &stamps {
        let (seconds, fraction) = stamp.split_once('.').unwrap_or_default();
        assert!(seconds.len() == 19 && fraction.len() == 10 && fraction.ends_with('Z'), "{stamped}");
    }
    let later = text(&format!("two -c main --timestamps --since-time={}", stamps[1]));
    assert_eq!(later.lines().next().and_then(|line| line.split(' ').next()), Some(stamps[1]), "{later}");
    let all = text("two --all-containers --prefix");
    assert!(all.contains("[pod/two/main] hello 0\n") && all.contains("[pod/two/side] up\n"), "{all}");
    let selected = text("-l app=two --all-containers --prefix --tail=1");
    assert!(selected.starts_with("[pod/two/main] hello ") || selected.contains("\n[pod/two/main] hello "));
    assert_eq!(selected.lines().count(), 2, "{selected}");
    for (arguments, complaint) in [
        (
            vec!["two", "-c", "main", "--previous"],
            "previous terminated container \"main\" in pod \"two\" not found",
        ),
        (vec!["two", "-c", "none"], "container none is not valid for pod two"),
        (vec!["nobody"], "pods \"nobody\" not found"),
    ] {
        let mut typed = vec!["logs"];
        typed.extend(arguments);
        let error = bed().kubectl(&typed).expect_failure();
        assert!(error.contains(complaint), "{typed:?}: {error}");
    }
}

#[test]
fn what_guests_print_comes_back_byte_for_byte() {
    speak("bytes", &["b"]);
    let every: Vec<u8> = (0..=255).filter(|byte| *byte != b'\n').chain([b'\n']).collect();
    assert_eq!(logged("bytes"), every);

    speak("long", &["o=short\n", "l=100000", "o=without an end"]);
    let expected = format!("short\n{}\nwithout an end", "y".repeat(100_000));
    assert_eq!(text("long"), expected);
    assert_eq!(text("long --tail=2"), expected["short\n".len()..]);

    // A line that another output interrupts is whole all the same.
    speak("both", &["o=1 out\n", "e=2 err\n", "o=3 o", "e=4 err\n", "o=ut\n", "e=5 err\n"]);
    assert_eq!(text("both"), "1 out\n2 err\n4 err\n3 out\n5 err\n");
}

#[test]
fn a_follower_sees_rotation_through_and_ends_with_its_container() {
    let mib = POURED.to_string();
    let file = bed().folder().join("followed");
    let mut follow = bed().command("bash");
    let typed = "until kubectl logs -f pour; do sleep 0.1; done > followed 2> /dev/null";
    follow.args(["-c", typed]);
    let mut follower = bed().spawn("follower-of-pour", follow);
    cluster().run("pour", "Never", Guest::Pour, &["stdout", &mib]);
    bed().wait_for_columns("default", "pour", SHOWN, |columns| columns.status == "Completed");
    bed().wait_for("the follower to end", SHOWN, || follower.ended());
    let line = format!("{}\n", "x".repeat(79));
    // The guest writes 4096 bytes at a time, of a buffer of lines of 80.
    let block = line.repeat(52)[..4096].to_owned();
    assert_eq!(fs::read(&file).expect("it was followed").len(), POURED << 20, "everything, once");
    assert!(fs::read_to_string(&file).expect("it is text") == block.repeat(POURED * 256), "in order");
    assert!(logged("pour").len() == POURED << 20, "and it is still there");

    let logs = data_dir(bed(), HOSTNAME).join("logs");
    let folder = || {
        let all = fs::read_dir(&logs).expect("there are logs").flatten();
        all.map(|entry| entry.path()).find(|path| path.to_string_lossy().contains("default_pour_"))
    };
    let files = fs::read_dir(folder().expect("the pod's").join("main")).expect("the container's").flatten();
    let sizes: Vec<u64> = files.map(|file| file.metadata().map_or(0, |found| found.len())).collect();
    assert!(sizes.len() >= POURED && sizes.len() <= 20, "{sizes:?}");
    assert!(sizes.iter().all(|size| *size <= (1 << 20) + (32 << 10)), "{sizes:?}");
    bed().kubectl(&["delete", "pod", "pour"]).expect();
    bed().wait_for("the logs to go with the pod", SHOWN, || folder().is_none().then_some(()));
}

#[test]
fn a_container_that_starts_again_leaves_its_last_words() {
    cluster().run("again", "Always", Guest::Speak, &["o=ended\n"]);
    bed().wait_for_columns("default", "again", SHOWN, |columns| columns.restarts >= 1);
    assert_eq!(text("again --previous"), "ended\n");
}
