//! `copepod run`: guests with no cluster.

use std::{process::Command, time::Duration};

use rustix::process::Signal;
use tests::{agent, guests::Guest, Bed};

/// How long a guest may take to print on a busy machine.
const PRINTED: Duration = Duration::from_secs(60);
/// How long the command may take to end after Ctrl-C.
const ENDED: Duration = Duration::from_secs(30);

/// `copepod run` with these arguments prints `hello 0`, `hello 1`, `hello 2`, each once and in order, and
/// ends at Ctrl-C.
#[track_caller]
fn prints_until_interrupted(bed: &Bed, log: &str, arguments: &[&str]) {
    let mut command: Command = bed.command(agent::provide(bed));
    command.arg("run").args(arguments);
    let mut process = bed.spawn(log, command);
    let lines = bed.wait_for("three lines of the guest", PRINTED, || {
        let printed = process.output();
        let lines: Vec<String> =
            printed.lines().filter(|line| line.contains("hello ")).map(str::to_owned).collect();
        (lines.len() >= 3).then_some(lines)
    });
    for (line, wanted) in lines.iter().zip(["hello 0", "hello 1", "hello 2"]) {
        assert!(line.ends_with(wanted), "{line:?} is not {wanted:?}");
    }
    process.signal(Signal::INT);
    process.wait(ENDED);
}

#[test]
fn without_a_file_the_built_in_hello_runs() {
    prints_until_interrupted(&Bed::empty(), "agent-run", &[]);
}

#[test]
fn a_module_runs() {
    let bed = Bed::empty();
    prints_until_interrupted(&bed, "agent-rust", &[&Guest::Hello.wasm().to_string_lossy()]);
    prints_until_interrupted(&bed, "agent-c", &[&Guest::HelloC.wasm().to_string_lossy()]);
}

#[test]
fn a_manifest_runs_with_an_image_of_a_registry() {
    let bed = Bed::empty();
    let plain = bed.registry_plain();
    let image = plain.image("test/hello:v1");
    let module = Guest::Hello.wasm();
    bed.copepod(&["push", "--insecure-registries", &plain.host, &module.to_string_lossy(), &image]).expect();
    let manifest = bed.write(
        "pod.yaml",
        &format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: hello\nspec:\n  containers:\n  - name: hello\n    \
             image: {image}\n"
        ),
    );
    let arguments = ["--insecure-registries", &plain.host, &manifest.to_string_lossy()];
    prints_until_interrupted(&bed, "agent-manifest", &arguments);
}

#[test]
fn a_file_that_is_no_module_is_refused_by_name() {
    let bed = Bed::empty();
    let file = bed.write("broken.wasm", "this is no module");
    let refused = bed.copepod(&["run", &file.to_string_lossy()]).expect_failure();
    assert!(refused.contains("broken.wasm"), "{refused}");
    let missing = bed.copepod(&["run", "missing.wasm"]).expect_failure();
    assert!(missing.contains("missing.wasm"), "{missing}");
}
