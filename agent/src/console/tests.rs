//! The console's port and socket, asked as programs ask them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;

use super::*;
use crate::api::Pod;
use crate::log::PodKey;
use crate::metrics::Figures;
use crate::runtime::stdio::Wanted;
use crate::server::{LogRefusal, LogTarget, NotThere, PodName, Start};

/// A node with these pods.
struct Node(Mutex<serde_json::Value>);

impl PodsView for Node {
    fn pods(&self) -> Vec<Pod> {
        serde_json::from_value(self.0.lock().unwrap().clone()).unwrap()
    }
    fn figures(&self) -> Figures {
        let mut figures = Figures { at: "2026-06-01T00:00:00Z".parse().unwrap(), ..Figures::default() };
        figures.machine.node = "pi<3".to_owned();
        (figures.machine.memory, figures.machine.available) = (512 << 20, 100 << 20);
        figures.machine.disk.capacity = 29 << 30;
        figures.counts.api_server = "10.0.0.1:6443".to_owned();
        figures.counts.client_certificate = Some("2026-06-03T04:00:00Z".parse().unwrap());
        figures.counts.serving_certificate = Some("2026-05-01T00:00:00Z".parse().unwrap());
        figures
    }
    fn container_log(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        _: bool,
    ) -> Result<LogTarget, LogRefusal> {
        if container != "main" {
            return Err(LogRefusal::NoContainer);
        }
        Ok(LogTarget { pod: key(namespace, pod), container: container.to_owned(), restart: 0 })
    }
    fn has_pod(&self, _: &PodName) -> bool {
        false
    }
    fn exec(&self, _: &PodName, _: &str, _: Vec<String>, _: Wanted) -> Result<Start, NotThere> {
        Err(NotThere::Pod)
    }
    fn attach(&self, _: &PodName, _: &str, _: Wanted) -> Result<(Wanted, Start), NotThere> {
        Err(NotThere::Pod)
    }
    fn listener(&self, _: &PodName, _: u16) -> Result<SocketAddr, String> {
        Err(String::new())
    }
}

fn key(namespace: &str, pod: &str) -> PodKey {
    PodKey { namespace: namespace.to_owned(), name: pod.to_owned(), uid: "u1".to_owned() }
}

fn pod(name: &str, created: &str, status: serde_json::Value) -> serde_json::Value {
    serde_json::json!({
        "metadata": {"namespace": "default", "name": name, "uid": "u1", "creationTimestamp": created},
        "spec": {"containers": [{"name": "main", "image": "i",
            "env": [{"name": "PASSWORD", "value": "hunter2"}]}]},
        "status": status,
    })
}

fn container(ready: bool, restarts: i32, state: serde_json::Value) -> serde_json::Value {
    serde_json::json!({"phase": "Running", "containerStatuses":
        [{"name": "main", "ready": ready, "restartCount": restarts, "image": "i", "imageID": "", "state": state}]})
}

struct Bed {
    folder: PathBuf,
    address: SocketAddr,
    contact: Arc<Contact>,
    token: String,
    _tasks: Vec<Task<()>>,
}

impl Bed {
    /// On a port that is free; the console's own is somebody else's, perhaps.
    fn start() -> Bed {
        let folder = std::env::temp_dir().join(format!("copepod-console-{:x}", fastrand::u64(..)));
        std::fs::create_dir_all(&folder).unwrap();
        let logs = Logs::new(folder.join("logs"), crate::log::Settings::default());
        let writer = logs.open(&key("default", "runs"), "main", 0).unwrap();
        writer.write(crate::log::Stream::Stdout, b"one\n<b>two</b>\x1b[31m\n").unwrap();
        writer.close();
        let running = serde_json::json!({"running": {"startedAt": "2026-05-31T23:00:00Z"}});
        let waiting = serde_json::json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let pods = serde_json::json!([
            pod("runs", "2026-05-31T22:58:00Z", container(true, 2, running)),
            pod("fails", "2026-05-20T20:00:00Z", container(false, 7, waiting)),
        ]);
        let contact = Arc::<Contact>::default();
        contact.set(Standing::Joining);
        let context = Context { pods: Arc::new(Node(Mutex::new(pods))), logs, contact: contact.clone() };
        let port = {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            free.local_addr().unwrap().port()
        };
        let tasks = start(&folder, Some(port), context);
        assert_eq!(tasks.len(), 2);
        let token = token::read(&folder).unwrap();
        Bed { address: ([127, 0, 0, 1], port).into(), folder, contact, token, _tasks: tasks }
    }

    /// The whole answer to a request with these headers.
    async fn get(&self, path: &str, headers: &str) -> String {
        let (address, request) =
            (self.address, format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n"));
        control::blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        })
        .await
    }

    async fn with_token(&self, path: &str) -> String {
        let headers = format!("Host: localhost\r\nAuthorization: Bearer {}\r\n", self.token);
        self.get(path, &headers).await
    }

    async fn ask(&self, path: &'static str) -> Result<String, String> {
        let folder = self.folder.clone();
        control::blocking(move || {
            let mut out = Vec::new();
            client::ask(&folder, path, &mut out).map(|()| String::from_utf8(out).unwrap())
        })
        .await
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn the_port_answers_whoever_holds_the_token_and_is_on_this_machine() {
    control::run(async {
        let bed = Bed::start();
        let status = |answer: &str| answer.split(' ').nth(1).unwrap().to_owned();
        let token = &bed.token;
        let host = "Host: 127.0.0.1:8080\r\n";
        let with = |more: &str| format!("{host}{more}\r\n");
        for (path, headers, code) in [
            ("/healthz", host.to_owned(), "200"),
            ("/healthz", "Host: evil.example\r\n".to_owned(), "403"),
            ("/healthz", "Host: 10.0.0.7:10248\r\n".to_owned(), "403"),
            ("/healthz", String::new(), "403"),
            ("/", host.to_owned(), "401"),
            ("/metrics", host.to_owned(), "401"),
            ("/status", host.to_owned(), "401"),
            ("/logs/default/runs/main", host.to_owned(), "401"),
            ("/?token=wrong", host.to_owned(), "401"),
            ("/status", with("Authorization: Bearer wrong"), "401"),
            ("/status", with("Cookie: copepod-console="), "401"),
            ("/status", with(&format!("Authorization: Bearer {token}")), "200"),
            ("/status", with(&format!("Cookie: a=b; copepod-console={token}")), "200"),
            ("/status", format!("Host: evil.example\r\nAuthorization: Bearer {token}\r\n"), "403"),
            ("/metrics", with(&format!("Authorization: Bearer {token}")), "200"),
            ("/pods", with(&format!("Authorization: Bearer {token}")), "404"),
            ("/nothing", with(&format!("Authorization: Bearer {token}")), "404"),
            ("/%ff", host.to_owned(), "400"),
        ] {
            assert_eq!(status(&bed.get(path, &headers).await), code, "{path} {headers}");
        }
        // The token goes from the address into a cookie.
        let welcome = bed.get(&format!("/?token={token}"), host).await.to_lowercase();
        assert!(welcome.starts_with("http/1.1 303 ") && welcome.contains("\r\nlocation: /\r\n"), "{welcome}");
        assert!(
            welcome.contains(&format!("copepod-console={token}; httponly; samesite=strict")),
            "{welcome}"
        );
    });
}

#[test]
fn readiness_is_the_clusters() {
    control::run(async {
        let bed = Bed::start();
        for (standing, code) in [
            (Standing::Joining, "503"),
            (Standing::Connected, "200"),
            (Standing::Away("no route to host".to_owned()), "503"),
            (Standing::Alone, "200"),
        ] {
            bed.contact.set(standing);
            let answer = bed.get("/readyz", "Host: localhost\r\n").await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{answer}");
            // Strangers are not told where the cluster is.
            assert!(!answer.contains("route"), "{answer}");
        }
    });
}

#[test]
fn the_page_shows_everything_but_secrets_and_takes_no_text_for_its_own() {
    control::run(async {
        let bed = Bed::start();
        bed.contact.set(Standing::Connected);
        let page = bed.with_token("/").await;
        for shown in [
            "<h1>pi&lt;3</h1>",
            "connected to 10.0.0.1:6443 for ",
            "until 2026-06-03T04:00:00Z (in 2d4h)",
            "ended 2026-05-01T00:00:00Z",
            "100 MiB of 512 MiB available",
            "<tr><td>default/<wbr>fails<td>0/1<td class=ill>CrashLoopBackOff<td>7<td>11d4h",
            "<tr><td>default/<wbr>runs<td>1/1<td class=well>Running<td>2<td>1h2m",
            "<a href=\"/logs/default/runs/main?tail=1000\">",
            "one\n&lt;b&gt;two&lt;/b&gt;\u{fffd}[31m\n</pre>",
            "default-src 'none'",
        ] {
            assert!(page.contains(shown), "{shown}: {page}");
        }
        assert!(!page.contains("hunter2") && !page.contains(&bed.token), "{page}");
        assert!(!page.contains("src=") && !page.contains("//"), "nothing from elsewhere: {page}");
        let log = bed.with_token("/logs/default/runs/main?tail=1").await;
        assert!(log.ends_with("\r\n\r\n<b>two</b>\u{1b}[31m\n") || log.contains("<b>two</b>"), "{log}");
        assert!(log.to_lowercase().contains("content-type: text/plain"), "{log}");
    });
}

#[test]
fn the_socket_tells_the_same_to_a_terminal_and_to_programs() {
    control::run(async {
        let bed = Bed::start();
        bed.contact.set(Standing::Away("no route to host".to_owned()));
        let text = bed.ask("/status?format=text").await.unwrap();
        assert!(text.contains("Cluster:             10.0.0.1:6443 has not answered for "), "{text}");
        assert!(text.contains(": no route to host\n"), "{text}");
        let pods = bed.ask("/pods?format=text").await.unwrap();
        assert_eq!(
            pods,
            "NAMESPACE   NAME    READY   STATUS             RESTARTS   AGE\n\
             default     fails   0/1     CrashLoopBackOff   7          11d4h\n\
             default     runs    1/1     Running            2          1h2m\n"
        );
        assert!(text.ends_with(&pods));
        let json: serde_json::Value = serde_json::from_str(&bed.ask("/status").await.unwrap()).unwrap();
        assert_eq!(
            (&json["cluster"]["state"], &json["cluster"]["message"]),
            (&"Away".into(), &"no route to host".into())
        );
        assert_eq!(json["pods"][0]["status"], "CrashLoopBackOff");
        let list: serde_json::Value = serde_json::from_str(&bed.ask("/pods").await.unwrap()).unwrap();
        assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&"PodList".into(), 2));
        assert_eq!(
            bed.ask("/logs/default/runs/main?tailLines=2").await.unwrap(),
            "one\n<b>two</b>\u{1b}[31m\n"
        );
        assert_eq!(
            bed.ask("/logs/default/runs/other?").await.unwrap_err(),
            "container \"other\" not found in pod \"runs\""
        );
        // Sixteen at a time are served; those who say nothing hold nobody up for ever, and their number is bounded.
        let silent: Vec<TcpStream> =
            (0..MAX_CONNECTIONS - 1).map(|_| TcpStream::connect(bed.address).unwrap()).collect();
        thread::sleep(std::time::Duration::from_millis(100));
        assert!(bed.with_token("/healthz").await.starts_with("HTTP/1.1 200 "));
        drop(silent);
    });
}

#[test]
fn without_an_agent_a_command_says_so() {
    let folder = std::env::temp_dir().join(format!("copepod-console-{:x}", fastrand::u64(..)));
    std::fs::create_dir_all(&folder).unwrap();
    let refused = |folder: &Path| client::ask(folder, "/status", &mut Vec::new()).unwrap_err();
    assert!(refused(&folder).starts_with("no agent runs on "), "{}", refused(&folder));
    // One that has ended leaves its socket; one whose folder is deep is asked all the same.
    let deep = folder.join("d".repeat(100)).join("e".repeat(100));
    std::fs::create_dir_all(&deep).unwrap();
    drop(control::run(async { client::bind(&deep).unwrap() }));
    assert!(refused(&deep).starts_with("no agent runs on "), "{}", refused(&deep));
    control::run(async { drop(client::bind(&deep).unwrap()) });
    std::fs::remove_dir_all(&folder).unwrap();
}
