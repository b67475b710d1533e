//! What the kubelet API bears: `cargo bench -p tests --bench node_api`.
//!
//! Followers of a chatty pod, some of whom do not read; a thousand requests a second; clients that say nothing, one
//! byte a second, or no end of a header. All of it inside a bed's own network namespace, bounded in count and time.
//! Prints one table, and fails if the agent's memory grows past its limit or a client that may ask is not answered;
//! times are only printed.

use std::{
    fs,
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{kill_process, Pid, Signal};
use tests::{bed::NODE, guests::Guest, tools, Cluster};

/// Those who follow the chatty pod's log.
const FOLLOWERS: usize = 50;
/// Of them those who do not read.
const DEAF: usize = 10;
/// How long each load lasts.
const WINDOW: Duration = Duration::from_secs(20);
/// Requests a second.
const RATE: &str = "1000";
/// Strangers of each kind.
const STRANGERS: usize = 200;
/// KiB that the agent may grow by under any of these: 64 readers of logs at some 100 KiB each, and their TLS.
const GROWTH_LIMIT: u64 = 12 * 1024;

struct Row {
    what: String,
    resident: u64,
    cpu_per_mille: u64,
    told: String,
}

fn main() -> ExitCode {
    let cluster = Cluster::start();
    let load = Load::new(&cluster);
    let mut rows = vec![load.measure("nothing", |_| String::new())];
    rows.push(load.measure("a chatty pod", |load| load.chatter(0)));
    rows.push(load.measure(&format!("{FOLLOWERS} followers, {DEAF} of whom do not read"), |load| {
        load.chatter(FOLLOWERS)
    }));
    load.cluster.bed.kubectl(&["delete", "pod", "chatty"]).expect();
    for path in ["/healthz", "/metrics"] {
        let what = format!("{RATE} requests a second of {path}");
        rows.push(load.measure(&what, |load| load.told(load.paced(path, RATE)).1));
    }
    let mut answered = true;
    for kind in ["silent", "slow", "huge"] {
        let what = format!("{STRANGERS} strangers, {kind}, beside 20 requests a second");
        rows.push(load.measure(&what, |load| {
            let (well, told) = load.strangers(kind);
            answered &= well;
            told
        }));
    }
    println!("\n{:<56} {:>14} {:>8}  what came of it", "under", "resident, KiB", "CPU, ‰");
    for Row { what, resident, cpu_per_mille, told } in &rows {
        println!("{what:<56} {resident:>14} {cpu_per_mille:>8}  {told}");
    }
    let least = rows.iter().map(|row| row.resident).min().unwrap_or(0);
    let most = rows.iter().map(|row| row.resident).max().unwrap_or(0);
    if most.saturating_sub(least) > GROWTH_LIMIT {
        eprintln!("past its limit: the agent grew by {} KiB, limit {GROWTH_LIMIT}", most - least);
        return ExitCode::FAILURE;
    }
    if !answered {
        eprintln!("a client that may ask was not answered beside strangers");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

struct Load<'c> {
    cluster: &'c Cluster,
    token: String,
}

impl<'c> Load<'c> {
    fn new(cluster: &'c Cluster) -> Load<'c> {
        let bed = &cluster.bed;
        bed.kubectl(&["create", "serviceaccount", "load"]).expect();
        let binding = ["create", "clusterrolebinding", "load", "--clusterrole=system:kubelet-api-admin"];
        bed.kubectl(&[binding.as_slice(), &["--serviceaccount=default:load"]].concat()).expect();
        let token = bed.kubectl(&["create", "token", "load"]).expect().trim().to_owned();
        cluster.run("chatty", "Always", Guest::Pour, &["stdout", "1000000"]);
        bed.wait_for_columns("default", "chatty", Duration::from_secs(60), |c| c.status == "Running");
        Load { cluster, token }
    }

    /// The agent's memory at its most and its CPU while `load` goes on.
    fn measure(&self, what: &str, load: impl FnOnce(&Load<'_>) -> String + Send) -> Row {
        eprintln!("{what}");
        let pid = self.cluster.agent.pid();
        let (begun, busy) = (Instant::now(), cpu_time(pid));
        let mut most = resident(pid);
        let told = thread::scope(|scope| {
            let told = scope.spawn(|| load(self));
            while !told.is_finished() {
                most = most.max(resident(pid));
                thread::sleep(Duration::from_millis(50));
            }
            told.join().unwrap_or_else(|_| "the load itself failed".to_owned())
        });
        let busy = (cpu_time(pid) - busy).as_secs_f64() / begun.elapsed().as_secs_f64().max(0.001);
        Row { what: what.to_owned(), resident: most, cpu_per_mille: (busy * 1000.0).round() as u64, told }
    }

    /// How fast the chatty pod prints with so many followers.
    fn chatter(&self, followers: usize) -> String {
        let url = format!("https://{NODE}:10250/containerLogs/default/chatty/main?follow=true&tailLines=0");
        let mut all: Vec<Child> = (0..followers).map(|_| self.curl(&url)).collect();
        thread::sleep(Duration::from_secs(2));
        for deaf in all.iter().take(DEAF) {
            let _ = kill_process(Pid::from_child(deaf), Signal::STOP);
        }
        let before = written(self.cluster.agent.pid());
        thread::sleep(WINDOW);
        let rate = written(self.cluster.agent.pid()).saturating_sub(before) / WINDOW.as_secs() / 1024;
        for follower in &mut all {
            let _ = follower.kill();
            let _ = follower.wait();
        }
        format!("the pod's log grows by {rate} KiB/s")
    }

    fn curl(&self, url: &str) -> Child {
        let mut curl = self.cluster.bed.command("curl");
        curl.args(["-sN", "--max-time", "60", "-o", "/dev/null", "-H"]);
        curl.arg(format!("Authorization: Bearer {}", self.token)).arg("--cacert");
        curl.arg(&self.cluster.bed.cluster().authority.certificate).arg(url);
        curl.stdout(Stdio::null()).stderr(Stdio::null());
        curl.spawn().unwrap_or_else(|e| panic!("cannot start curl: {e}"))
    }

    fn python(&self, script: &str, arguments: &[&str]) -> Command {
        let mut python = self.cluster.bed.command("/usr/bin/python3");
        python.arg(tools::root().join("tests/load").join(script)).args(arguments);
        python.stderr(Stdio::inherit());
        python
    }

    fn paced(&self, path: &str, rate: &str) -> (Vec<f64>, String) {
        let authority = self.cluster.bed.cluster().authority.certificate.to_string_lossy().into_owned();
        let seconds = WINDOW.as_secs().to_string();
        let asked = self
            .python("requests.py", &[NODE, &authority, &self.token, rate, &seconds, path])
            .output()
            .unwrap_or_else(|e| panic!("cannot run python3: {e}"));
        let text = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
        (text.split(' ').filter_map(|word| word.parse().ok()).collect(), text)
    }

    /// Whether all were answered, and how.
    fn told(&self, (figures, text): (Vec<f64>, String)) -> (bool, String) {
        let [well, failed, rate, half, most, slowest] = figures[..] else { return (false, text) };
        let told = format!(
            "{well} answered ({rate}/s), {failed} not; ms: half {half}, 99 of 100 {most}, slowest {slowest}"
        );
        (well > 0.0 && failed == 0.0, told)
    }

    fn strangers(&self, kind: &str) -> (bool, String) {
        let (count, seconds) = (STRANGERS.to_string(), WINDOW.as_secs().to_string());
        let strangers =
            self.python("strangers.py", &[NODE, kind, &count, &seconds]).stdout(Stdio::piped()).spawn();
        let strangers = strangers.unwrap_or_else(|e| panic!("cannot run python3: {e}"));
        let (well, told) = self.told(self.paced("/healthz", "20"));
        let output = strangers.wait_with_output().map(|output| output.stdout).unwrap_or_default();
        let text = String::from_utf8_lossy(&output).trim().replace(' ', " came in, closed: ");
        (well, format!("{told}; {text}"))
    }
}

/// KiB.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
    let ticks = [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<u64>().ok()).sum::<u64>();
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Bytes that the process wrote to files. (What it sends to sockets is not among them.)
fn written(pid: u32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    io.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse().ok()).unwrap_or(0)
}
