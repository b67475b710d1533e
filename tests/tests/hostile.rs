//! Strangers that spin, grow, recurse, flood, fill the disk, lie or try to get out, side by side on one node: each
//! is stopped by a limit that its status names, the agent stays up, and a neighbour keeps its pace.

use std::{fs, path::Path, sync::OnceLock, time::Duration};

use serde_json::{json, Value};
use tests::{
    agent::data_dir,
    bed::HOSTNAME,
    cluster::{pod, pod_spec},
    guests::Guest,
    kubectl::Outcome,
    tools::tool,
    Cluster,
};

/// How long a state may take to show, with all the others at work on the same two cores.
const SHOWN: Duration = Duration::from_secs(180);

/// A cluster whose limits are low enough to be met soon.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        Cluster::start_with(&["--log-rate", "16", "--default-storage", "1", "--container-max-files", "200"])
    })
}

/// A pod of one container, which does `how` in a volume at /data.
fn stranger(how: &str, volume: &Value) -> Value {
    let mut spec = pod_spec("Never", &cluster().image(Guest::Hostile), &[how, "/data"]);
    spec["volumes"] = json!([{"name": "data", "emptyDir": volume}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    spec["containers"][0]["resources"] = json!({"limits": {"memory": "8Mi"}});
    let mut object = pod(how, spec);
    // One that is stopped can still say what stopped it.
    object["metadata"]["annotations"] = json!({"copepod/wait-for-grace": "true"});
    object
}

fn describe(name: &str) -> String {
    let text = cluster().bed.kubectl(&["describe", "pod", name]).expect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn logs(name: &str) -> String {
    cluster().bed.kubectl(&["logs", name]).expect()
}

#[track_caller]
fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "there is no {part:?} in\n{text}");
    }
}

#[track_caller]
fn shows(name: &str, status: &str) {
    cluster().bed.wait_for_columns("default", name, SHOWN, |columns| columns.status == status);
}

#[track_caller]
fn is_evicted(name: &str) {
    let bed = &cluster().bed;
    bed.wait_for(&format!("{name} to be evicted"), SHOWN, || {
        let status = bed.get(&["pod", name])["status"].clone();
        (status["phase"] == "Failed" && status["reason"] == "Evicted").then_some(())
    });
}

/// How many lines the neighbour has printed.
fn lines(neighbour: &str) -> usize {
    logs(neighbour).lines().count()
}

/// The folder of a pod's volumes on the node.
fn volumes(name: &str) -> std::path::PathBuf {
    let bed = &cluster().bed;
    let uid = bed.get(&["pod", name])["metadata"]["uid"].as_str().map(str::to_owned).expect("a UID");
    data_dir(bed, HOSTNAME).join("pods").join(uid)
}

/// Pushed as they are: nobody on the way looks at what they hold.
fn pushed(name: &str, bytes: &[u8]) -> String {
    let cluster = cluster();
    let file = cluster.bed.folder().join(format!("{name}.wasm"));
    fs::write(&file, bytes).expect("the module is written");
    let image = cluster.registry.image(&format!("test/{name}:v1"));
    let mut command = cluster.bed.command(tool("wasm-to-oci"));
    command.arg("push").arg(&file).arg(&image);
    Outcome::of(format!("wasm-to-oci push {name}"), command, "").expect();
    image
}

#[test]
fn strangers_at_work_do_not_harm_the_node_or_a_neighbour() {
    let Cluster { bed, agent, .. } = cluster();
    cluster().run("neighbour", "Always", Guest::HelloC, &[]);
    shows("neighbour", "Running");
    let at_work = ["spin", "spin-calling", "flood"];
    for how in at_work {
        bed.apply_value(&stranger(how, &json!({})));
    }
    for how in at_work {
        shows(how, "Running");
    }
    let before = lines("neighbour");

    let unlimited = json!({});
    for (how, volume) in [
        ("memory", &unlimited),
        ("recursion", &unlimited),
        ("descriptors", &unlimited),
        ("escape", &unlimited),
        ("names", &unlimited),
        ("fill", &json!({"sizeLimit": "100Ki"})),
    ] {
        bed.apply_value(&stranger(how, volume));
    }
    shows("memory", "OOMKilled");
    contains(&describe("memory"), &["Reason: OOMKilled", "Exit Code: 137"]);
    shows("recursion", "Error");
    contains(&describe("recursion"), &["Exit Code: 134", "call stack exhausted"]);
    shows("descriptors", "Error");
    contains(&describe("descriptors"), &["Exit Code: 33"]);
    // Of 1024, less the standard streams, the volume, the folder of the notice to stop, the token's, and the root.
    contains(&logs("descriptors"), &["descriptors: 1017, then errno 33"]);
    shows("escape", "Completed");
    contains(&logs("escape"), &["escapes: 0"]);

    is_evicted("names");
    contains(
        &describe("names"),
        &["200 a container (--container-max-files)", "Warning Evicted", "Exit Code: 51"],
    );
    contains(&logs("names"), &["names: 200, then errno 51"]);
    is_evicted("fill");
    let described = describe("fill");
    contains(&described, &["Status: Failed", "Reason: Evicted", "Exit Code: 51"]);
    contains(&described, &["Usage of EmptyDir volume \"data\" exceeds the limit \"100Ki\"."]);
    // As many whole blocks as there is room for.
    contains(&logs("fill"), &["bytes: 102400, then errno 51"]);
    let evicted = bed.get(&["pod", "fill"]);
    let conditions = evicted["status"]["conditions"].as_array().expect("conditions");
    let disrupted = conditions.iter().find(|condition| condition["type"] == "DisruptionTarget");
    assert_eq!(disrupted.expect("it was disrupted")["reason"], "TerminationByKubelet");
    bed.wait_for("the room to be given back", SHOWN, || (!volumes("fill").exists()).then_some(()));

    // All the while, the neighbour ran, the node was seen, and the flood was held back.
    bed.wait_for("the neighbour to print", SHOWN, || (lines("neighbour") >= before + 5).then_some(()));
    let columns = bed.columns("default", "neighbour").expect("the neighbour is there");
    assert_eq!((columns.status.as_str(), columns.restarts), ("Running", 0));
    bed.wait_until_ready(HOSTNAME, SHOWN);
    let flooded = bed.wait_for("the flood to be held back", SHOWN, || {
        let printed = bed.kubectl(&["logs", "flood", "--tail=2000"]).stdout;
        printed.lines().find(|line| line.contains("--log-rate")).map(str::to_owned)
    });
    contains(&flooded, &["line(s)", "are missing here: more than 16384 bytes a second"]);
    for how in at_work {
        bed.kubectl(&["delete", "pod", how, "--timeout=60s"]).expect();
    }
    assert!(agent.log().lines().all(|line| !line.contains("panicked")), "{}", agent.log());
}

#[test]
fn no_race_of_two_containers_leads_out_of_their_volume() {
    let bed = &cluster().bed;
    let mut object = stranger("swap", &json!({}));
    object["metadata"]["name"] = json!("race");
    let mut passing = object["spec"]["containers"][0].clone();
    passing["name"] = json!("passing");
    passing["args"] = json!(["pass", "/data"]);
    object["spec"]["containers"].as_array_mut().expect("containers").push(passing);
    bed.apply_value(&object);
    shows("race", "Completed");
    assert_eq!(bed.kubectl(&["logs", "race", "-c", "main"]).expect(), "swapped\n");
    assert_eq!(bed.kubectl(&["logs", "race", "-c", "passing"]).expect(), "passed\n");
    assert!(Path::new("/etc/passwd").exists(), "there was something to open");
}

#[test]
fn all_volumes_of_a_pod_together_have_a_limit() {
    let bed = &cluster().bed;
    let mut object = stranger("fill", &json!({}));
    object["metadata"]["name"] = json!("together");
    object["spec"]["containers"][0]["resources"] = json!({"limits": {"ephemeral-storage": "200Ki"}});
    object["spec"]["restartPolicy"] = json!("Always");
    bed.apply_value(&object);
    is_evicted("together");
    let described = describe("together");
    contains(&described, &["Pod ephemeral local storage usage exceeds the total limit of containers 200Ki."]);
    bed.kubectl(&["delete", "pod", "together"]).expect();
    assert!(!data_dir(bed, HOSTNAME).join("pods").read_dir().is_ok_and(|pods| {
        pods.flatten().any(|pod| pod.path().join("volumes/kubernetes.io~empty-dir/data/filled").exists())
    }));
}

/// An unsigned number as modules have it.
fn leb128(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        bytes.push(if value == 0 { low } else { low | 0x80 });
        if value == 0 {
            return bytes;
        }
    }
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id], &leb128(content.len())[..], content].concat()
}

/// A module of one function, `_start`, of this code; with `starts` it is the module's start function as well.
fn module(code: &[u8], starts: bool) -> Vec<u8> {
    let body = [&[0][..], code].concat();
    let code = [&[1][..], &leb128(body.len()), &body].concat();
    let start = if starts { section(8, &[0]) } else { Vec::new() };
    [
        &b"\0asm\x01\0\0\0"[..],
        &section(1, &[1, 0x60, 0, 0]),
        &section(3, &[1, 0]),
        &section(7, b"\x01\x06_start\0\0"),
        &start,
        &section(10, &code),
    ]
    .concat()
}

#[test]
fn what_is_no_module_for_this_node_is_refused_and_says_why() {
    let bed = &cluster().bed;
    let nested = [&[0x02, 0x40].repeat(3_300_000)[..], &[0x0b].repeat(3_300_001)].concat();
    // It says that it has four billion functions.
    let mut lying = module(&[0x0b], false);
    let at = lying.windows(4).position(|bytes| bytes == [3, 2, 1, 0]).expect("the function section");
    lying.splice(at..at + 4, [3, 6, 0xff, 0xff, 0xff, 0xff, 0x0f, 0]);
    let mut cut = module(&[0x0b], false);
    cut.truncate(cut.len() - 2);
    for (name, bytes, reason) in [
        ("nested", module(&nested, false), "nest"),
        ("lying", lying, "4294967295 functions"),
        ("cut", cut, "not a valid module"),
    ] {
        bed.apply_value(&pod(name, pod_spec("Never", &pushed(name, &bytes), &[])));
        let message = bed.wait_for(&format!("{name} to be refused"), SHOWN, || {
            let status = bed.get(&["pod", name])["status"].clone();
            (status["phase"] == "Failed").then(|| status["containerStatuses"][0]["state"].to_string())
        });
        contains(&message, &[reason, "has no module that can run here"]);
    }
    // What is seen by its first bytes is not even kept.
    for (name, bytes, reason) in [
        ("component", &b"\0asm\x0d\0\x01\0"[..], "a WebAssembly component (WASI 0.2 or later); this node runs core modules of WASI preview 1: build it for wasm32-wasip1"),
        ("text", b"(module)", "not a WebAssembly module"),
    ] {
        bed.apply_value(&pod(name, pod_spec("Never", &pushed(name, bytes), &[])));
        shows(name, "ImagePullBackOff");
        contains(&describe(name), &[reason]);
    }
}

#[test]
fn a_start_function_that_never_ends_runs_like_any_other_and_can_be_stopped() {
    let bed = &cluster().bed;
    let image = pushed("endless", &module(&[0x03, 0x40, 0x0c, 0, 0x0b, 0x0b], true));
    bed.apply_value(&pod("endless", pod_spec("Always", &image, &[])));
    shows("endless", "Running");
    bed.kubectl(&["delete", "pod", "endless", "--timeout=60s"]).expect();
}
