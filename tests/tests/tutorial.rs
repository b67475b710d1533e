//! The tutorial, typed line by line: what Krustlet's users type, with `copepod` in its place.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use tests::{
    agent::{self, JOIN},
    bed::NODE,
    cluster::TUTORIAL_POD,
    Agent, Bed,
};

/// How long a step may take on a busy machine.
const STEP: Duration = Duration::from_secs(60);

#[test]
fn every_line_of_the_tutorial_works() {
    let bed = Bed::start();
    let registry = bed.registry_tls();
    agent::provide(&bed);

    joins(&bed);
    let agent = Agent::start(&bed, "pi", &["--node-ip", NODE, "--bootstrap-file", "bootstrap.conf"]);
    is_ready_before_it_is_approved(&bed, &agent);
    looks_like_a_node(&bed);

    compiles(&bed);
    bed.shell("wasm-to-oci push target/wasm32-wasi/release/hello.wasm registry.test:5000/test/hello:v1")
        .expect();
    bed.shell(
        "copepod push target/wasm32-wasi/release/hello_cdylib.wasm registry.test:5000/test/hello-cdylib:v1",
    )
    .expect();
    bed.pull_secret("registry", &registry, &registry.password);

    runs(&bed, "hello", TUTORIAL_POD);
    let cdylib = TUTORIAL_POD
        .replace("name: hello\n", "name: hello-cdylib\n")
        .replace("test/hello:v1", "test/hello-cdylib:v1");
    runs(&bed, "hello-cdylib", &cdylib);

    let status = agent.stop();
    assert!(status.success(), "after SIGTERM the agent ended with {status}");
}

fn joins(bed: &Bed) {
    bed.shell("copepod bootstrap --kubeconfig admin.conf --output bootstrap.conf").expect();
    let written = fs::metadata(bed.folder().join("bootstrap.conf")).expect("bootstrap has written the file");
    assert_eq!(written.permissions().mode() & 0o777, 0o600, "the token is for its owner alone");
    let printed = bed.shell("copepod bootstrap --kubeconfig admin.conf").expect();
    assert!(
        printed.contains("kind: Config") && printed.contains("token:"),
        "without --output, stdout:\n{printed}"
    );
}

fn is_ready_before_it_is_approved(bed: &Bed, agent: &Agent) {
    agent.wait_until_ready(bed);
    bed.wait_for("the serving certificate request", JOIN, || {
        let line = bed.shell("kubectl get csr pi-tls --no-headers").stdout;
        line.contains("Pending").then_some(())
    });
    agent.wait_for_line(bed, STEP, &["kubectl certificate approve pi-tls"]);
    bed.shell("kubectl certificate approve pi-tls").expect();
    bed.wait_for("the certificate to be issued", STEP, || {
        bed.shell("kubectl get csr pi-tls --no-headers").stdout.contains("Approved,Issued").then_some(())
    });
}

fn looks_like_a_node(bed: &Bed) {
    let wide = bed.shell("kubectl get nodes -o wide --no-headers").expect();
    for word in ["pi", "Ready", "v1.37.0+copepod", NODE] {
        assert!(wide.contains(word), "`kubectl get nodes -o wide` lacks {word}:\n{wide}");
    }
    assert!(!wide.contains("unknown"), "a column is unknown:\n{wide}");
    let taints = bed.shell("kubectl get node pi -o json | jq -c .spec.taints").expect();
    assert_eq!(
        taints.trim(),
        r#"[{"effect":"NoExecute","key":"krustlet/arch","value":"wasm32-wasi"}]"#,
        "the node has this one taint"
    );
}

fn compiles(bed: &Bed) {
    let sources = tests::tools::root().join("tests/guests");
    bed.shell(&format!(
        "mkdir -p target/wasm32-wasi/release && cp {0}/hello.rs {0}/hello_cdylib.rs .",
        sources.display()
    ))
    .expect();
    for form in ["hello", "hello_cdylib"] {
        bed.shell(&format!("rustc-wasi -O {form}.rs -o target/wasm32-wasi/release/{form}.wasm")).expect();
    }
}

/// Apply, `get pods -w`, `logs -f`, delete.
fn runs(bed: &Bed, name: &str, manifest: &str) {
    let watch = bed.kubectl_spawn(&format!("watch-{name}"), &["get", "pods", "-w", "--no-headers"]);
    // The watch must have begun before the pod is there, or it may see Running only.
    std::thread::sleep(Duration::from_secs(1));
    bed.write("pod.yaml", manifest);
    bed.shell("kubectl apply -f pod.yaml").expect();
    bed.wait_for(&format!("`kubectl get pods -w` to show {name} Running, 1/1"), STEP, || {
        let shown = watch.output();
        let lines: Vec<Vec<&str>> = shown
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|words| words.first() == Some(&name))
            .collect();
        let pending = lines.iter().position(|words| words.get(1..3) == Some(&["0/1", "Pending"][..]));
        let running = lines.iter().position(|words| words.get(1..3) == Some(&["1/1", "Running"][..]));
        running.map(|running| {
            assert!(pending.is_some_and(|pending| pending < running), "Pending first:\n{shown}")
        })
    });
    drop(watch);

    let logs = bed.kubectl_spawn(&format!("logs-{name}"), &["logs", name, "-f"]);
    let lines = bed.wait_for(&format!("five lines of `kubectl logs {name} -f`"), STEP, || {
        let lines: Vec<String> = logs.output().lines().take(5).map(str::to_owned).collect();
        (lines.len() == 5).then_some(lines)
    });
    assert_eq!(lines, ["hello 0", "hello 1", "hello 2", "hello 3", "hello 4"]);
    drop(logs);

    bed.shell(&format!("kubectl delete pod {name}")).expect();
    let gone = bed.shell(&format!("kubectl get pod {name}")).expect_failure();
    assert!(gone.contains("not found"), "{gone}");
}
