//! exec, attach, port-forward and cp, by the real kubectl through the real API server: by WebSocket to the node, which
//! declares that it takes it, by SPDY where it does not, and by SPDY from kubectl itself.

use std::{
    fs,
    os::unix::fs::symlink,
    sync::{
        atomic::{AtomicUsize, Ordering},
        Mutex, MutexGuard, OnceLock, PoisonError,
    },
    time::Duration,
};

use serde_json::{json, Value};
use tests::{
    cluster::{pod, pod_spec},
    guests::Guest,
    Bed, Cluster,
};

/// How long a state may take to show on a busy machine.
const SHOWN: Duration = Duration::from_secs(90);

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let cluster = Cluster::start();
        cluster.run("speaks", "Never", Guest::Speak, &["s=3600"]);
        running_in(&cluster.bed, "speaks");
        cluster
    })
}

fn bed() -> &'static Bed {
    &cluster().bed
}

fn running_in(bed: &Bed, name: &str) {
    bed.wait_for_columns("default", name, SHOWN, |columns| columns.status == "Running");
}

/// A pod that runs and is ready to be told things, with an emptyDir at /data.
fn with_folder(name: &str, guest: Guest, arguments: &[&str], change: impl Fn(&mut Value)) {
    let mut spec = pod_spec("Never", &cluster().image(guest), arguments);
    spec["volumes"] = json!([{"name": "data", "emptyDir": {"sizeLimit": "4Mi"}}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    change(&mut spec);
    bed().apply_value(&pod(name, spec));
    running_in(bed(), name);
}

/// Held by tests that change what the node declares, and by those that care.
fn declaring(features: Value) -> MutexGuard<'static, ()> {
    static DECLARED: Mutex<()> = Mutex::new(());
    let held = DECLARED.lock().unwrap_or_else(PoisonError::into_inner);
    let patch = json!({"status": {"declaredFeatures": features}}).to_string();
    let name = &bed().get(&["nodes"])["items"][0]["metadata"]["name"];
    let node = name.as_str().expect("there is a node").to_owned();
    bed().kubectl(&["patch", "node", &node, "--subresource=status", "--type=merge", "-p", &patch]).expect();
    held
}

fn declared() -> Value {
    json!(["ExtendWebSocketsToKubelet"])
}

/// By each way that kubectl's request can take to the node.
fn by_every_way(check: impl Fn(&str)) {
    {
        let _held = declaring(declared());
        check("kubectl");
        check("env KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false KUBECTL_PORT_FORWARD_WEBSOCKETS=false kubectl");
    }
    let _held = declaring(Value::Null);
    check("kubectl");
    drop(_held);
    drop(declaring(declared()));
}

#[test]
fn the_node_declares_that_it_takes_websockets() {
    let _held = declaring(declared());
    let nodes = bed().get(&["nodes"]);
    assert_eq!(nodes["items"][0]["status"]["declaredFeatures"], declared());
}

#[test]
fn exec_by_every_way_moves_streams_and_exit_codes() {
    with_folder("cats", Guest::Cat, &[], |spec| spec["containers"][0]["stdin"] = json!(true));
    by_every_way(|kubectl| {
        let said = bed().shell(&format!("{kubectl} exec speaks -- speak o=out n e=err"));
        assert!(said.success && said.stdout == "out\n" && said.stderr == "err", "{said:?}");
        // A megabyte there and back.
        let script = format!(
            "head -c 1000000 /dev/urandom >sent-$$; {kubectl} exec -i cats -- cat <sent-$$ >back-$$; cmp sent-$$ back-$$"
        );
        bed().shell(&script).expect();
        let refused = bed().shell(&format!("{kubectl} exec speaks -- sh -c true")).expect_failure();
        assert!(refused.contains("executable file not found") && refused.contains("\"speak\""), "{refused}");
        let gone = bed().shell(&format!("{kubectl} exec speaks -c other -- speak")).expect_failure();
        assert!(gone.contains("container other"), "{gone}");
    });
}

#[test]
fn another_module_of_the_containers_files_runs_and_its_exit_code_is_kubectls() {
    with_folder("brings", Guest::SleepC, &[], |_| ());
    let (exit, trap) = (Guest::Exit.wasm(), Guest::Trap.wasm());
    for (wasm, name) in [(&exit, "exit"), (&trap, "trap")] {
        bed().kubectl(&["cp", &wasm.display().to_string(), &format!("brings:/data/{name}.wasm")]).expect();
    }
    by_every_way(|kubectl| {
        let ran = bed().shell(&format!("{kubectl} exec brings -- /data/exit.wasm one 3 || test $? = 3"));
        assert!(ran.success && ran.stdout == "argument 1: one\nargument 2: 3\n", "{ran:?}");
        assert!(ran.stderr.contains("command terminated with exit code 3"), "{ran:?}");
        let ran = bed().shell(&format!("{kubectl} exec brings -- data/trap.wasm || test $? = 134"));
        assert!(ran.success && ran.stderr.contains("unreachable"), "{ran:?}");
    });
    for (path, why) in
        [("/data/none.wasm", "not found"), ("/data", "no regular file"), ("/../etc/passwd", "not found")]
    {
        let refused = bed().kubectl(&["exec", "brings", "--", path]).expect_failure();
        assert!(refused.contains(why) && refused.contains(path), "{refused}");
    }
    bed().shell("echo text >text; kubectl cp text brings:/data/text").expect();
    let refused = bed().kubectl(&["exec", "brings", "--", "/data/text"]).expect_failure();
    assert!(refused.contains("not a WebAssembly module"), "{refused}");
}

/// What kubectl prints at a terminal where `typed` is typed, with pauses at `|`, and its exit code.
fn at_terminal(kubectl: &str, typed: &[u8]) -> (String, i32) {
    let python = r#"
import os, pty, select, sys, time
pid, master = pty.fork()
if pid == 0:
    os.execvp("sh", ["sh", "-c", sys.argv[1]])
said, typed = b"", [part for part in sys.argv[2].encode().decode("unicode_escape").encode().split(b"|")]
deadline, quiet = time.time() + 60, time.time() + 2
while time.time() < deadline:
    if select.select([master], [], [], 0.1)[0]:
        try:
            piece = os.read(master, 4096)
        except OSError:
            break
        if not piece:
            break
        said += piece
        quiet = time.time() + 1
    elif typed and time.time() > quiet:
        os.write(master, typed.pop(0))
        quiet = time.time() + 1
_, status = os.waitpid(pid, 0)
sys.stdout.buffer.write(said)
sys.exit(os.waitstatus_to_exitcode(status))
"#;
    let typed = String::from_utf8_lossy(typed).escape_default().to_string();
    let script = format!(
        "set +e; python3 -c '{python}' '{kubectl}' '{}'; echo \"exit $?\"",
        typed.replace("\\u{", "\\x0").replace('}', "")
    );
    let said = bed().shell(&script).expect();
    let (said, code) = said.rsplit_once("exit ").expect("the code");
    (said.to_owned(), code.trim().parse().expect("a number"))
}

#[test]
fn a_terminal_echoes_gives_lines_and_is_interrupted() {
    with_folder("typed", Guest::Cat, &[], |spec| spec["containers"][0]["stdin"] = json!(true));
    by_every_way(|kubectl| {
        let (said, code) = at_terminal(&format!("{kubectl} exec -it typed -- cat"), b"hello\r|\x04");
        assert_eq!((said.as_str(), code), ("hello\r\nhello\r\n", 0));
        let (said, code) = at_terminal(&format!("{kubectl} exec -it typed -- cat"), b"hel|\x03");
        assert!(said.starts_with("hel") && code == 130, "{said} {code}");
    });
}

#[test]
fn attach_reads_along_and_gives_input() {
    with_folder("attached", Guest::Cat, &[], |spec| spec["containers"][0]["stdin"] = json!(true));
    cluster().run("prints", "Never", Guest::HelloC, &[]);
    running_in(bed(), "prints");
    by_every_way(|kubectl| {
        let said = bed()
            .shell(&format!("(echo hello; sleep 3) | timeout 20 {kubectl} attach -i attached | head -1"));
        assert_eq!(said.stdout, "hello\n", "{said:?}");
        let said = bed().shell(&format!("{kubectl} attach prints | head -3 || true")).stdout;
        assert_eq!(said.lines().filter(|line| line.starts_with("hello ")).count(), 3, "{said}");
    });
    // It goes on, whoever was attached; and its log has everything.
    running_in(bed(), "attached");
    assert_eq!(bed().kubectl(&["logs", "attached"]).expect(), "hello\nhello\nhello\n");
}

#[test]
fn run_it_talks_to_a_program_until_its_input_ends() {
    let image = cluster().image(Guest::Cat);
    let overrides = |once: bool, tty: bool| {
        let mut spec = pod_spec("Never", &image, &[]);
        let container = &mut spec["containers"][0];
        (container["stdin"], container["stdinOnce"], container["tty"]) =
            (json!(true), json!(once), json!(tty));
        container["name"] = json!("talks");
        json!({"spec": spec}).to_string()
    };
    let run = |once, tty, flags: &str| {
        format!(
            "kubectl run talks --rm {flags} --restart=Never --image {image} --pod-running-timeout=90s --overrides={}",
            format!("'{}'", overrides(once, tty)).replace('\'', "'\"'\"'")
        )
    };
    let typed = run(true, false, "-i --quiet").replace("'\"'\"'", "'");
    let said = bed().shell(&format!("(sleep 5; echo hello) | {typed}"));
    assert!(said.stdout.contains("hello\n"), "{said:?}");
    bed().wait_for("the pod to go", SHOWN, || bed().get(&["pod", "talks"]).is_null().then_some(()));
    let (said, code) = at_terminal(&run(true, true, "-it"), b"||||||hello\r|\x04");
    assert!(said.contains("hello\r\nhello\r\n") && code == 0, "{said} {code}");
}

#[test]
fn ports_are_forwarded_by_every_way() {
    let mut spec = pod_spec("Never", &cluster().image(Guest::ServeC), &[]);
    spec["containers"][0]["ports"] = json!([{"containerPort": 8085}]);
    bed().apply_value(&pod("serves", spec));
    running_in(bed(), "serves");
    by_every_way(|kubectl| {
        let script = format!(
            "{kubectl} port-forward pod/serves 0:8085 >forwarded & forward=$!; trap 'kill $forward' EXIT
             until port=$(grep -o '127.0.0.1:[0-9]*' forwarded); do sleep 0.1; done
             for n in 1 2 3 4 5 6 7 8; do curl -sS --max-time 20 http://$port/$n & curls+=($!); done; wait ${{curls[@]}}"
        );
        let said = bed().shell(&script).expect();
        for number in 1..=8 {
            assert!(said.lines().any(|line| line.ends_with(&format!("/{number}"))), "{said}");
        }
    });
    let script = "kubectl port-forward pod/serves 0:8086 >forwarded-none 2>&1 & forward=$!
        until port=$(grep -o '127.0.0.1:[0-9]*' forwarded-none); do sleep 0.1; done
        curl -sS --max-time 20 http://$port/ || true; sleep 1; kill $forward || true; cat forwarded-none";
    let said = bed().shell(script).expect();
    assert!(said.contains("listens on port 8086"), "{said}");
}

#[test]
fn files_are_copied_in_and_out() {
    with_folder("copies", Guest::SleepC, &[], |_| ());
    let folder = bed().folder().join("tree");
    fs::create_dir_all(folder.join("deep/er")).expect("a folder");
    fs::create_dir_all(folder.join("empty")).expect("a folder");
    let long = "n".repeat(120);
    fs::write(folder.join("deep/er").join(&long), "of a long name").expect("a file");
    fs::write(folder.join("big"), vec![7; 1_000_000]).expect("a file");
    symlink("big", folder.join("link")).expect("a link");
    let ways = AtomicUsize::new(0);
    by_every_way(|kubectl| {
        let there = format!("tree-{}", ways.fetch_add(1, Ordering::Relaxed));
        let script = format!(
            "rm -rf back; {kubectl} exec copies -- test -d /data; ! {kubectl} exec copies -- test -d /data/none
             {kubectl} cp tree copies:/data/{there}; {kubectl} cp copies:/data/{there} back
             rm tree/link; diff -r tree back; ln -s big tree/link"
        );
        bed().shell(&script).expect();
        // kubectl leaves links out where it unpacks; that it came and goes out again is seen before.
        let listed =
            bed().shell(&format!("{kubectl} exec copies -- tar cf - /data/{there} | tar tvf -")).expect();
        assert!(listed.contains(&format!(" data/{there}/link -> big\n")), "{listed}");
        let typed = format!(
            "{kubectl} cp tree/big copies:data/one; {kubectl} exec copies -- tar cf - data/one | tar tvf -"
        );
        let listed = bed().shell(&typed).expect();
        assert!(listed.contains(" 1000000 ") && listed.ends_with("data/one\n"), "{listed}");
    });
    let missing = bed().kubectl(&["exec", "copies", "--", "tar", "cf", "-", "/data/none"]).expect_failure();
    assert!(missing.contains("/data/none: Cannot stat: No such file or directory"), "{missing}");
    assert!(missing.contains("exit code 2"), "{missing}");
    // More than the volume may have, for which the pod is evicted, as on any node.
    let full =
        bed().shell("head -c 9000000 /dev/zero >huge; kubectl cp huge copies:/data/huge").expect_failure();
    assert!(full.contains("/data/huge: Cannot write: No space left on device"), "{full}");
}

#[test]
fn hostile_archives_stay_where_they_are_unpacked() {
    with_folder("unpacks", Guest::SleepC, &[], |spec| {
        spec["volumes"][0]["emptyDir"] = json!({});
        let secret = json!({"name": "only-read", "configMap": {"name": "kube-root-ca.crt"}});
        spec["volumes"].as_array_mut().expect("a list").push(secret);
        let mount = json!({"name": "only-read", "mountPath": "/read"});
        spec["containers"][0]["volumeMounts"].as_array_mut().expect("a list").push(mount);
    });
    let python = r#"
import io, sys, tarfile
def member(tar, name, data=b"x", **more):
    info = tarfile.TarInfo(name)
    info.size = len(data) if info.type == tarfile.REGTYPE and not more.get("linkname") else 0
    for key, value in more.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))
out = io.BytesIO()
with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
    member(tar, "../above")
    member(tar, "/absolute")
    member(tar, "a/../../b")
    member(tar, "outside", type=tarfile.SYMTYPE, linkname="../../../../etc")
    member(tar, "outside/passwd", b"pwned")
    member(tar, "slash", type=tarfile.SYMTYPE, linkname="/etc")
    member(tar, "hard", type=tarfile.LNKTYPE, linkname="../../etc/passwd")
    member(tar, "device", type=tarfile.CHRTYPE)
    member(tar, "x" * 5000)
    member(tar, "good", b"good")
sys.stdout.buffer.write(out.getvalue())
"#;
    let unpack = format!(
        "python3 -c '{python}' >hostile.tar; kubectl exec -i unpacks -- tar -xmf - -C /data <hostile.tar"
    );
    let said = bed().shell(&unpack).expect_failure();
    for left_out in [
        "../above: Member name leads outside",
        "a/../../b: Member name",
        "device: It is neither",
        "Exiting with failure",
    ] {
        assert!(said.contains(left_out), "{left_out}: {said}");
    }
    let listed = bed().shell("kubectl exec unpacks -- tar cf - /data | tar tf -").expect();
    assert!(listed.contains("data/good\n") && listed.contains("data/absolute\n"), "{listed}");
    assert!(
        !listed.contains("above") && !listed.contains("passwd") && !listed.contains("device"),
        "{listed}"
    );
    let refused = bed()
        .shell("echo x >x; tar cf - x | kubectl exec -i unpacks -- tar -xmf - -C /read")
        .expect_failure();
    assert!(refused.contains("Cannot open"), "{refused}");
    // What is no archive, or ends too soon.
    for (bytes, why) in [
        ("head -c 2000 /dev/zero | tr '\\0' x", "does not look like a tar"),
        ("head -c 700 hostile.tar", "EOF"),
    ] {
        let refused =
            bed().shell(&format!("{bytes} | kubectl exec -i unpacks -- tar xmf - -C /data")).expect_failure();
        assert!(refused.contains(why), "{refused}");
    }
    running_in(bed(), "unpacks");
}

#[test]
fn a_client_that_vanishes_ends_its_instance() {
    cluster().run("vanishes", "Never", Guest::Speak, &["s=3600"]);
    running_in(bed(), "vanishes");
    let nodes = bed().get(&["nodes"]);
    let node = nodes["items"][0]["metadata"]["name"].as_str().expect("a node");
    // A second instance's memory is its container's.
    let memory = || -> f64 {
        let path = format!("/api/v1/nodes/{node}/proxy/metrics/resource");
        let text = bed().kubectl(&["get", "--raw", &path]).expect();
        let is_ours = |line: &&str| {
            line.starts_with("container_memory_working_set_bytes") && line.contains("pod=\"vanishes\"")
        };
        let line = text.lines().find(is_ours).expect("the figure");
        line.split_whitespace().nth(1).and_then(|value| value.parse().ok()).expect("a number")
    };
    let before = memory();
    let script = "for n in 1 2; do timeout -s KILL 15 kubectl exec -i vanishes -- speak s=600 </dev/zero & done; sleep 8";
    bed().shell(script).expect();
    let during = memory();
    assert!(during > before, "{before} {during}");
    bed().wait_for("their memory back", SHOWN, || (memory() <= before).then_some(()));
}

/// By a client that knows nothing of Kubernetes but its channels: each protocol, for exec and for port-forward.
#[test]
fn a_plain_websocket_client_is_served_through_the_api_server() {
    let mut spec = pod_spec("Never", &cluster().image(Guest::ServeC), &[]);
    spec["containers"][0]["ports"] = json!([{"containerPort": 8087}]);
    bed().apply_value(&pod("answers", spec));
    running_in(bed(), "answers");
    let python = r#"
import json, sys, websocket
base = "ws://" + sys.argv[1] + "/api/v1/namespaces/default/pods/"
def channels(path, protocol, send=b""):
    socket = websocket.create_connection(base + path, subprotocols=[protocol], timeout=20)
    assert socket.subprotocol == protocol, socket.subprotocol
    said = {}
    if send:
        socket.send_binary(send)
    while True:
        opcode, message = socket.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            return said, int.from_bytes(message[:2], "big")
        if message:
            said[message[0]] = said.get(message[0], b"") + message[1:]
for protocol in ["v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"]:
    said, code = channels("speaks/exec?command=speak&command=o%3Dout&command=e%3Derr&stdout=1&stderr=1", protocol)
    assert (said[1], said[2], code) == (b"out", b"err", 1000), (protocol, said, code)
    if protocol == "channel.k8s.io":
        assert not said.get(3), said
    else:
        assert json.loads(said[3])["status"] == "Success", said
request = b"\x00GET /plain HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
said, code = channels("answers/portforward?ports=8087", "v4.channel.k8s.io", request)
assert said[0].startswith((8087).to_bytes(2, "little") + b"HTTP/1.1 200") and b"/plain" in said[0], said
assert said[1] == (8087).to_bytes(2, "little"), said
print("all")
"#;
    let script = format!(
        "kubectl proxy --port=0 --reject-paths=^/none >proxied & proxy=$!; trap 'kill $proxy' EXIT
         until at=$(grep -o '127.0.0.1:[0-9]*' proxied); do sleep 0.1; done
         /usr/bin/python3 -c '{python}' $at"
    );
    let _held = declaring(declared());
    assert_eq!(bed().shell(&script).expect(), "all\n");
    drop(_held);
    let _held = declaring(Value::Null);
    assert_eq!(bed().shell(&script).expect(), "all\n");
    drop(_held);
    drop(declaring(declared()));
}
