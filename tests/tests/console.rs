//! The console on the device: its page in a real browser, and the commands that say the same, with the cluster and
//! without it.

use std::{fs, time::Duration};

use serde_json::Value;
use tests::{
    agent::data_dir,
    bed::HOSTNAME,
    guests::Guest,
    tools::{root, target},
    Bed, Cluster,
};

/// How long a state may take to show on a busy machine.
const SHOWN: Duration = Duration::from_secs(90);
const PORT: &str = "10248";

/// Opens a page as a phone has it, and prints what it shows, and whether it is wider than the screen.
const BROWSE: &str = r#"
import base64, json, subprocess, sys, time, urllib.request, websocket
url, picture, width = sys.argv[1], sys.argv[2], int(sys.argv[3])
browser = subprocess.Popen(
    ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--user-data-dir=" + picture + ".profile",
     "--remote-debugging-port=9333", "--remote-allow-origins=*", "about:blank"],
    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
try:
    for _ in range(300):
        try:
            pages = json.load(urllib.request.urlopen("http://127.0.0.1:9333/json"))
            page = next(page for page in pages if page["type"] == "page")
            break
        except (OSError, StopIteration):
            time.sleep(0.1)
    socket = websocket.create_connection(page["webSocketDebuggerUrl"], timeout=60)
    def call(method, **params):
        socket.send(json.dumps({"id": 1, "method": method, "params": params}))
        while True:
            said = json.loads(socket.recv())
            if said.get("id") == 1:
                assert "error" not in said, said
                return said["result"]
    def value(script):
        return call("Runtime.evaluate", expression=script)["result"]["value"]
    call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
    call("Page.navigate", url=url)
    while value("document.readyState") != "complete" or not value("document.title"):
        time.sleep(0.1)
    shown = {
        "address": value("location.href"),
        "title": value("document.title"),
        "text": value("document.body.innerText"),
        "width": value("document.documentElement.scrollWidth"),
        "cookie": value("document.cookie"),
        "loaded": value("performance.getEntriesByType('resource').length"),
    }
    shot = call("Page.captureScreenshot", format="png", captureBeyondViewport=False)
    open(picture, "wb").write(base64.b64decode(shot["data"]))
    print(json.dumps(shown))
finally:
    browser.kill()
"#;

fn browse(bed: &Bed, address: &str, picture: &str, width: u32) -> Value {
    let script = bed.folder().join("browse.py");
    fs::write(&script, BROWSE).expect("the bed's folder is writable");
    let picture = bed.folder().join(picture);
    let typed = format!("/usr/bin/python3 {} '{address}' {} {width}", script.display(), picture.display());
    serde_json::from_str(&bed.shell(&typed).expect()).expect("the script prints JSON")
}

#[test]
fn the_page_and_the_commands_tell_of_the_node_with_its_cluster_and_without() {
    let cluster = Cluster::start_with(&["--console"]);
    let bed = &cluster.bed;
    cluster.run("prints", "Always", Guest::Hello, &[]);
    cluster.run("fails", "Always", Guest::Exit, &["3"]);
    bed.wait_for_columns("default", "prints", SHOWN, |columns| columns.ready == "1/1");
    bed.wait_for_columns("default", "fails", SHOWN, |columns| columns.status == "CrashLoopBackOff");

    let data = data_dir(bed, HOSTNAME);
    let data = data.to_string_lossy();
    let console = format!("COPEPOD_DATA_DIR={data} COPEPOD_CONSOLE={PORT} {} console", "\"$0\"");
    let copepod = tests::agent::provide(bed);
    let typed = |line: &str| bed.shell(&format!("set -- ; bash -c '{line}' {}", copepod.display()));
    let address = typed(&console).expect();
    let address = address.trim();
    assert!(address.starts_with(&format!("http://localhost:{PORT}/?token=")), "{address}");
    let token = address.rsplit('=').next().expect("it has a token");

    // Ready from the first; strangers are told no more.
    let code = |arguments: &str| {
        bed.shell(&format!("curl -s -o said -w '%{{http_code}}' {arguments}; echo; cat said")).expect()
    };
    assert_eq!(code(&format!("http://127.0.0.1:{PORT}/readyz")), "200\nok");
    assert!(code(&format!("http://127.0.0.1:{PORT}/")).starts_with("401\n"));
    // Of loopback alone.
    assert!(!bed.shell(&format!("curl -sS --max-time 5 http://{}:{PORT}/healthz", tests::bed::NODE)).success);
    let log = code(&format!(
        "-H 'Authorization: Bearer {token}' 'http://localhost:{PORT}/logs/default/prints/main?tail=1'"
    ));
    assert!(log.starts_with("200\nhello "), "{log}");
    let metrics = code(&format!("-H 'Authorization: Bearer {token}' http://localhost:{PORT}/metrics"));
    assert!(metrics.contains("\nkubelet_running_pods 1\n"), "{metrics}");

    for (picture, width) in [("phone.png", 412), ("console.png", 1000)] {
        let page = browse(bed, address, picture, width);
        let text = page["text"].as_str().expect("it has text");
        for shown in [
            "connected to ",
            "default/prints",
            "Running",
            "default/fails",
            "CrashLoopBackOff",
            "hello ",
            "about to exit",
            "until 20",
        ] {
            assert!(text.contains(shown), "{shown}: {text}");
        }
        assert_eq!(
            (&page["title"], &page["loaded"], &page["cookie"]),
            (&HOSTNAME.into(), &0.into(), &"".into())
        );
        assert_eq!(
            page["address"],
            format!("http://localhost:{PORT}/"),
            "the token is in the address no more"
        );
        assert!(page["width"].as_u64().is_some_and(|shown| shown <= u64::from(width)), "{page}");
        assert!(!text.contains(token), "{text}");
        // For the documentation, if somebody is to look at it.
        fs::copy(bed.folder().join(picture), target().join(picture)).expect("the folder is writable");
    }
    assert!(root().join("docs/console.png").exists(), "the documentation has a picture");

    let status = |arguments: &[&str]| {
        let mut all = arguments.to_vec();
        all.extend(["--data-dir", &data]);
        bed.copepod(&all).expect()
    };
    assert!(status(&["status"]).contains("connected to "));
    bed.api_server_away(true);
    bed.wait_for("the cluster to be missed", SHOWN, || {
        status(&["status"]).contains(" has not answered for ").then_some(())
    });
    let json: Value = serde_json::from_str(&status(&["status", "--output", "json"])).expect("it is JSON");
    assert_eq!(json["cluster"]["state"], "Away");
    let pods = status(&["pods"]);
    assert!(pods.lines().any(|line| line.starts_with("default     prints   1/1     Running ")), "{pods}");
    let list: Value = serde_json::from_str(&status(&["pods", "--output=json"])).expect("it is JSON");
    assert_eq!(list["items"].as_array().map(Vec::len), Some(2));
    assert!(status(&["logs", "--tail", "1", "prints", "main"]).starts_with("hello "));
    let none = bed.copepod(&["logs", "default/none", "main", "--data-dir", &data]).expect_failure();
    assert!(none.contains("pod \"none\" does not exist"), "{none}");
    assert!(code(&format!("http://127.0.0.1:{PORT}/readyz")).starts_with("503\n"));
    bed.api_server_away(false);
    bed.wait_for("the cluster again", SHOWN, || status(&["status"]).contains("connected to ").then_some(()));

    cluster.agent.stop();
    let ended = cluster.bed.copepod(&["status", "--data-dir", &data]).expect_failure();
    assert!(ended.contains("no agent runs on "), "{ended}");
}
