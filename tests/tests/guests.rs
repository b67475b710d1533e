//! Programs of three languages print through `kubectl logs`.

use std::{fs, process::Command, sync::OnceLock, time::Duration};

use tests::{
    guests::Guest,
    tools::{root, target},
    Cluster,
};

/// How long a pod may take to have printed three lines; Go's module is compiled for some seconds.
const PRINTED: Duration = Duration::from_secs(90);

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::start)
}

#[track_caller]
fn prints(guest: Guest, pod: &str) {
    let cluster = cluster();
    cluster.run(pod, "Always", guest, &[]);
    let lines = cluster.bed.wait_for(&format!("three lines of pod {pod}"), PRINTED, || {
        let printed = cluster.bed.kubectl(&["logs", pod, "--tail=-1"]);
        let lines: Vec<String> = printed.stdout.lines().take(3).map(str::to_owned).collect();
        (lines.len() == 3).then_some(lines)
    });
    assert_eq!(lines, ["hello 0", "hello 1", "hello 2"]);
    let columns = cluster.bed.columns("default", pod).expect("the pod is there");
    assert_eq!((columns.ready.as_str(), columns.status.as_str(), columns.restarts), ("1/1", "Running", 0));
    cluster.bed.kubectl(&["delete", "pod", pod]).expect();
}

#[test]
fn rust_with_a_main_prints() {
    prints(Guest::Hello, "rust-main");
}

#[test]
fn rust_as_a_cdylib_prints() {
    prints(Guest::HelloCdylib, "rust-cdylib");
}

#[test]
fn c_prints() {
    prints(Guest::HelloC, "c");
}

#[test]
fn go_prints() {
    prints(Guest::HelloGo, "go");
}

#[test]
fn the_tools_of_cp_are_what_their_source_compiles_to() {
    let folder = root().join("agent/src/supervisor/tools");
    let made = target().join(format!("tools-{}.wasm.gz", std::process::id()));
    let built = Command::new(folder.join("build")).arg(&made).status().expect("tools/build runs");
    assert!(built.success(), "tools/build: {built}");
    let (made, kept) =
        (fs::read(&made).expect("made"), fs::read(folder.join("tools.wasm.gz")).expect("kept"));
    assert!(made == kept, "tools.c was changed: run agent/src/supervisor/tools/build");
}
