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

/// What `copepod run` with these arguments printed, and its exit code.
#[track_caller]
fn outcome(bed: &Bed, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command: Command = bed.command(agent::provide(bed));
    command.arg("run").args(arguments).env("FROM_HERE", "from here, $(GREETING) and all");
    let output = command.output().expect("the agent starts");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn arguments_variables_and_the_exit_code_are_passed_through() {
    let bed = Bed::empty();
    let module = Guest::Exit.wasm();
    let module = module.to_string_lossy();
    for code in [0, 1, 126, 200, 255] {
        assert_eq!(outcome(&bed, &[&module, &code.to_string()]).0, Some(code));
    }
    let (code, said) =
        outcome(&bed, &["--env", "GREETING=a,b=$(HOME) $$", &module, "--", "-x", "$(GREETING)", "7"]);
    assert_eq!(code, Some(7), "{said}");
    for part in ["-x", "$(GREETING)", "a,b=$(HOME) $$"] {
        assert!(said.contains(part), "{part} as it was typed: {said}");
    }
    let (_, said) = outcome(&bed, &["--env", "FROM_HERE", "--env", "GREETING=x", &module, "0"]);
    assert!(!said.contains("no value"), "{said}");
    let (code, said) = outcome(&bed, &["--env", "NOT_SET_ANYWHERE", &module, "0"]);
    assert!(code == Some(64) && said.contains("NOT_SET_ANYWHERE"), "{code:?} {said}");
}

#[test]
fn a_guest_sees_the_folders_that_it_is_given_and_writes_where_it_may() {
    let bed = Bed::empty();
    let module = Guest::Write.wasm();
    let module = module.to_string_lossy();
    std::fs::create_dir(bed.folder().join("data")).expect("a folder");
    let write = |dir: &str, file: &str| outcome(&bed, &["--dir", dir, &module, file, "written"]);
    assert_eq!(write("data", "data/one").0, Some(0), "by the name that it was given by");
    assert_eq!(write("data::/var/lib", "/var/lib/two").0, Some(0));
    for file in ["one", "two"] {
        let text = std::fs::read_to_string(bed.folder().join("data").join(file));
        assert_eq!(text.expect("the guest has written it"), "written");
    }
    let (code, said) = write("data::/data:ro", "/data/three");
    assert_eq!(code, Some(69), "EROFS: {said}");
    assert!(!bed.folder().join("data/three").exists());
    // Nothing else is there for it: ENOTCAPABLE of wasi-libc, or what it makes of it.
    let (code, said) = write("data::/data", "/etc/three");
    assert!(code.is_some_and(|code| code > 0 && code < 128), "{code:?} {said}");
    let (code, said) = write("nowhere::/data", "/data/x");
    assert!(code == Some(128) && said.contains("nowhere"), "{code:?} {said}");
    assert_eq!(write("::", "x").0, Some(64));
}

#[test]
fn memory_and_fuel_are_limits_of_a_module() {
    let bed = Bed::empty();
    let module = Guest::Exit.wasm();
    let module = module.to_string_lossy();
    let (code, said) = outcome(&bed, &["--memory", "64Ki", &module, "0"]);
    assert!(code == Some(128) && said.contains("its limit is 65536"), "{code:?} {said}");
    assert_eq!(outcome(&bed, &["--memory", "64Mi", &module, "0"]).0, Some(0));
    let (code, said) = outcome(&bed, &["--fuel", "1000", &module, "0"]);
    assert!(code == Some(134) && said.contains("fuel of 1000"), "{code:?} {said}");
    assert_eq!(outcome(&bed, &["--fuel", "100000000", &module, "0"]).0, Some(0));
    for wrong in [["--memory", "much"], ["--memory", "0"], ["--fuel", "-1"]] {
        let (code, said) = outcome(&bed, &[wrong[0], wrong[1], &module, "0"]);
        assert!(code == Some(64) && said.starts_with(wrong[0]), "{code:?} {said}");
    }
    let text = format!("kind: Pod\nspec:\n  containers:\n  - name: a\n    image: {module}\n");
    let manifest = bed.write("pod.yaml", &text);
    let (code, said) = outcome(&bed, &["--memory", "1Mi", &manifest.to_string_lossy()]);
    assert!(code == Some(64) && said.contains("--memory: a manifest says it"), "{code:?} {said}");
}

#[test]
fn a_module_serves_on_the_port_that_it_is_given() {
    let bed = Bed::empty();
    let mut command: Command = bed.command(agent::provide(&bed));
    command.args(["run", "--listen", "http=8080", &Guest::ServeC.wasm().to_string_lossy()]);
    let mut process = bed.spawn("agent-listen", command);
    let answer = bed.wait_for("the guest to answer", PRINTED, || {
        let output = bed.command("curl").args(["--silent", "http://127.0.0.1:8080/a"]).output();
        output.ok().filter(|output| output.status.success()).map(|output| output.stdout)
    });
    assert_eq!(String::from_utf8_lossy(&answer), "c 0 /a\n");
    process.signal(Signal::INT);
    process.wait(ENDED);
    let module = Guest::ServeC.wasm();
    for wrong in ["http", "0", "127.0.0.1:0", "a.b:80", "70000"] {
        let (code, said) = outcome(&bed, &["--listen", wrong, &module.to_string_lossy()]);
        assert!(code == Some(64) && said.contains("not a port"), "{wrong}: {code:?} {said}");
    }
}

#[test]
fn standard_input_is_the_modules() {
    let bed = Bed::empty();
    let agent = agent::provide(&bed);
    let (agent, module) = (agent.to_string_lossy(), Guest::Cat.wasm());
    let run = format!("{agent} run {}", module.to_string_lossy());
    // A pipe that is slow, a file that is read from the middle, nothing.
    let piped = bed.shell(&format!("(echo one; sleep 1; echo two) | {run}")).expect();
    assert_eq!(piped, "one\ntwo\n");
    let file = bed.write("lines", "first\nsecond\nthird\n");
    let rest = bed.shell(&format!("(read -r first; {run}; echo \"$first\") <{}", file.display())).expect();
    // The shell reads a byte at a time, and leaves the rest to who comes after.
    assert_eq!(rest, "second\nthird\nfirst\n");
    assert_eq!(bed.shell(&format!("{run} </dev/null")).expect(), "");
    assert_eq!(bed.shell(&format!("{run} <&-")).expect(), "");
}

/// A large Go program, how long it runs, and how long it may take to be compiled and to end, under qemu too.
const LARGE: (Guest, u64, Duration) = (Guest::Large, 60, Duration::from_secs(400));
/// KiB of an interpreter thread's stack, on 64 bits, and of what a guest may touch of it however long it runs.
const STACK: (u64, u64) = (24 * 1024, 256);

/// KiB that are resident of each mapping that has the size of an interpreter thread's stack.
fn stacks(pid: u32) -> Vec<u64> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).expect("the agent's mappings");
    let figures = |name: &str| -> Vec<u64> {
        let lines = maps.lines().filter_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
        lines.filter_map(|kib| kib.parse().ok()).collect()
    };
    let sized = figures("Size:").into_iter().zip(figures("Rss:"));
    sized.filter(|(size, _)| *size == STACK.0).map(|(_, resident)| resident).collect()
}

/// Whatever the interpreter leaves on the native stack shows in a large program that runs for long: it would end the
/// whole agent.
#[test]
fn a_large_program_runs_for_a_minute_on_a_stack_that_does_not_grow() {
    let bed = Bed::empty();
    let agent = agent::provide(&bed);
    let (program, seconds, limit) = LARGE;
    let module = program.wasm();
    let size = std::fs::metadata(&module).expect("the module is there").len();
    assert!(size > 15_000_000, "{size} bytes are not a large program");
    let mut command: Command = bed.command(&agent);
    command.args(["run", &module.to_string_lossy(), &seconds.to_string()]);
    let mut process = bed.spawn("agent-large", command);
    // Under an emulator the threads that the kernel shows are the emulator's.
    if agent::emulated() {
        println!("emulated: that it ends well says that its stack was enough");
    } else {
        std::thread::sleep(Duration::from_secs(seconds * 3 / 4));
        let stacks = stacks(process.pid());
        assert!(!stacks.is_empty(), "there are interpreter threads");
        assert!(stacks.iter().all(|resident| *resident <= STACK.1), "KiB of their stacks: {stacks:?}");
    }
    assert!(process.wait(limit).success(), "{}", process.output());
    assert!(process.output().contains("rounds, all the same"), "{}", process.output());
}
