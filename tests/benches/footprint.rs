//! What the agent costs: `cargo bench -p tests --bench footprint`.
//!
//! The static build that is shipped and the plain one, one after the other, each as a node of a cluster
//! of its own. Prints one table beside the budgets, and fails if the static build is past one of them;
//! times are only printed. `-- --quick` watches the idle node for one minute in place of ten, `-- --static`
//! leaves the plain build out, `-- --boards` adds a table of the ARM builds that are shipped: their sizes, and
//! their memory as idle nodes on emulated boards of 64 MB, under the same budgets; and one of cards.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

use serde_json::{json, Value};
use tests::{
    bed::NODE,
    board::Machine,
    card::Card,
    cluster::{pod, pod_spec},
    guests::Guest,
    tools, Bed, Board, Cluster,
};

/// The target that is shipped for machines like this one.
const STATIC_TARGET: &str = "x86_64-unknown-linux-musl";
/// Bytes of the binary as shipped.
const BINARY_BUDGET: u64 = 6 * 1024 * 1024;
/// KiB resident, registered, no pods.
const IDLE_BUDGET: u64 = 5 * 1024;
/// KiB of each further sleeping pod of the same module.
const POD_BUDGET: u64 = 64;
/// The same of a program in Rust, which is just within the budget: 64 when last measured, of which 49 are the guest
/// (12 of its linear memory; an entry in wasmi's store for each function of Rust's std). With room for one page.
const RUST_POD_LIMIT: u64 = 68;
/// Sleeping pods of a crowd, and KiB resident with all of them.
const CROWD: usize = 1000;
const CROWD_BUDGET: u64 = 100 * 1000 * 1000 / 1024;
/// KiB of each further pod that prints each second: 131 when first measured. It may only become less.
const AWAKE_POD_LIMIT: u64 = 150;
/// Sleeping pods in C, beside the crowd.
const C_SLEEPERS: usize = 100;
/// Servers that are not probed, and as many that are, by HTTP and TCP every ten seconds.
const SERVERS: usize = 200;
/// The first of their ports.
const FIRST_PORT: usize = 20_000;
/// How long an agent is left alone after its last pod has begun to run.
const PAUSE: Duration = Duration::from_secs(5);
/// Threads beyond the cores.
const THREADS_BUDGET: u64 = 4;
/// Bytes to and from the API server in an idle hour.
const TRAFFIC_BUDGET: u64 = 250_000;
/// After this long a node that has registered is idle: its certificate is there, its first status sent.
const SETTLE: Duration = Duration::from_secs(62);
/// How long CPU is counted.
const CPU_WINDOW: Duration = Duration::from_secs(20);
/// How long pods may take to run, or to go.
const PODS_LIMIT: &str = "--timeout=300s";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let given = |name: &str| arguments.iter().any(|argument| argument == name);
    let idle = if given("--quick") { Duration::from_secs(60) } else { Duration::from_secs(600) };
    let shipped = measure("static", &build_static(STATIC_TARGET), idle);
    let mut past = shipped.past_budget();
    let mut reports = vec![shipped];
    if !given("--static") {
        reports.push(measure("plain", &build_plain(), idle));
    }
    print_table(&reports);
    if given("--boards") {
        let boards = [Machine::Arm64, Machine::Armhf].map(OnBoard::measure);
        println!("\n{:<50} {:>10} {:>24}", "on a board of 64 MB, idle", "binary", "resident (most), KiB");
        for board in &boards {
            println!("{:<50} {:>10} {:>24}", board.target, board.binary, board.resident());
            past.extend(board.past_budget());
        }
        println!(
            "\n{:<24} {:>10} {:>10} {:>10} {:>10} {:>14} {:>14}",
            "a card, bytes", "kernel", "system", "wireless", "upgrade", "memory, KiB", "agent after, s"
        );
        for board in ["virt", "raspberry-pi-3"] {
            print_card(board);
        }
    }
    for line in &past {
        eprintln!("past its budget: {line}");
    }
    if past.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// An ARM build that is shipped, as an idle node on an emulated board.
struct OnBoard {
    target: &'static str,
    binary: u64,
    memory: tests::board::Memory,
}

impl OnBoard {
    fn measure(machine: Machine) -> OnBoard {
        let target = machine.target();
        let binary = size(&build_static(target));
        eprintln!("measuring {target} on an emulated board");
        OnBoard { target, binary, memory: Board::agent_memory(machine) }
    }

    fn resident(&self) -> String {
        format!("{} ({})", self.memory.agent, self.memory.most)
    }

    fn past_budget(&self) -> Vec<String> {
        let of = |what: &str| format!("{}: {what}", self.target);
        past([
            (of("binary, bytes"), self.binary, BINARY_BUDGET),
            (of("resident when idle, KiB"), self.memory.agent, IDLE_BUDGET),
        ])
    }
}

/// Prints what a card has, and what its system takes of memory and time until it starts the agent, on an emulated board.
fn print_card(board: &'static str) {
    let bed = Bed::empty();
    let mut card = Card::flashed(&bed, board, "measured", NODE);
    let [kernel, system, wireless] = ["kernel", "system", "wireless"].map(|name| card.size_of(name));
    let upgrade = size(&bed.folder().join("measured-upgrade.tar.gz"));
    // The emulator's Raspberry Pi does not bear its watchdog.
    card.drop_file(&bed.write("copepod.yaml", "watchdogDevice: none\n"), "copepod.yaml");
    // The first start grows the data partition.
    card.boot(&bed);
    card.cut_power();
    let started = card.boot(&bed);
    println!(
        "{board:<24} {kernel:>10} {system:>10} {wireless:>10} {upgrade:>10} {:>14} {:>14}",
        started.taken, started.seconds
    );
}

fn size(binary: &Path) -> u64 {
    fs::metadata(binary).map(|file| file.len()).unwrap_or_else(|e| panic!("{}: {e}", binary.display()))
}

/// What is more than its budget, for a person.
fn past(figures: impl IntoIterator<Item = (String, u64, u64)>) -> Vec<String> {
    let over = figures.into_iter().filter(|(_, is, budget)| is > budget);
    over.map(|(what, is, budget)| format!("{what}: {is}, budget {budget}")).collect()
}

fn build_static(target: &str) -> PathBuf {
    let script = tools::root().join("cross/build");
    let output = Command::new(&script)
        .arg(target)
        .stderr(std::process::Stdio::inherit())
        .output()
        .unwrap_or_else(|e| panic!("cannot run {}: {e}", script.display()));
    assert!(output.status.success(), "{} {target} failed", script.display());
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

fn build_plain() -> PathBuf {
    let done = Command::new("cargo")
        .args(["build", "--release", "--package", "copepod"])
        .current_dir(tools::root())
        .status()
        .unwrap_or_else(|e| panic!("cannot run cargo: {e}"));
    assert!(done.success(), "cargo build --release failed");
    tools::target().join("release/copepod")
}

/// What the kernel says of a process's memory, in KiB, and its threads.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    resident: u64,
    anonymous: u64,
    file: u64,
    threads: u64,
}

#[derive(Debug, Default)]
struct Report {
    name: &'static str,
    binary: u64,
    idle: Memory,
    /// Pods that print, and what they made of it.
    pods: Vec<(u64, Memory)>,
    /// Pods that sleep: one of a program in Rust, a crowd of it, then one more in C, and [`C_SLEEPERS`] of it.
    asleep: [Memory; 4],
    /// Open files of the agent with the crowd.
    files: usize,
    /// Servers in C: one, all of those that are not probed, all of those that are.
    servers: [Memory; 3],
    /// CPU with all of them, and open files.
    probed_per_mille: u64,
    probed_files: usize,
    cpu_per_mille: u64,
    one_running: Duration,
    fifty_running: Duration,
    traffic_per_hour: (u64, u64),
    idle_writes: u64,
}

impl Report {
    fn per_pod(&self) -> u64 {
        match (self.pods.first(), self.pods.last()) {
            (Some((few, first)), Some((many, last))) if many > few => {
                last.resident.saturating_sub(first.resident) / (many - few)
            }
            _ => 0,
        }
    }

    /// KiB of a sleeping pod, in Rust and in C.
    fn per_sleeper(&self) -> [u64; 2] {
        let [one, crowd, fewer, more] = self.asleep;
        let each = |from: Memory, to: Memory, pods: usize| {
            to.resident.saturating_sub(from.resident).div_ceil(pods as u64)
        };
        [each(one, crowd, CROWD - 1), each(fewer, more, C_SLEEPERS - 1)]
    }

    /// KiB of a server that is not probed, and of one that is.
    fn per_server(&self) -> [u64; 2] {
        let [one, plain, probed] = self.servers;
        let each = |from: Memory, to: Memory, pods: usize| {
            to.resident.saturating_sub(from.resident).div_ceil(pods as u64)
        };
        [each(one, plain, SERVERS - 1), each(plain, probed, SERVERS)]
    }

    fn threads(&self) -> u64 {
        let pods = self.pods.iter().map(|(_, memory)| memory.threads);
        let others = self.asleep.into_iter().chain(self.servers).chain([self.idle]);
        pods.chain(others.map(|memory| memory.threads)).max().unwrap_or(0)
    }

    fn past_budget(&self) -> Vec<String> {
        let traffic = self.traffic_per_hour.0 + self.traffic_per_hour.1;
        past(
            [
                ("binary, bytes", self.binary, BINARY_BUDGET),
                ("resident when idle, KiB", self.idle.resident, IDLE_BUDGET),
                ("each further pod that prints, KiB", self.per_pod(), AWAKE_POD_LIMIT),
                ("each further pod that sleeps (Rust), KiB", self.per_sleeper()[0], RUST_POD_LIMIT),
                ("each further pod that sleeps (C), KiB", self.per_sleeper()[1], POD_BUDGET),
                ("resident with a crowd asleep, KiB", self.asleep[1].resident, CROWD_BUDGET),
                ("threads", self.threads(), cores() + THREADS_BUDGET),
                ("API traffic in an idle hour, bytes", traffic, TRAFFIC_BUDGET),
                ("written to disk when idle, bytes", self.idle_writes, 0),
            ]
            .map(|(what, is, budget)| (what.to_owned(), is, budget)),
        )
    }
}

fn cores() -> u64 {
    thread::available_parallelism().map_or(1, |n| n.get() as u64)
}

fn measure(name: &'static str, binary: &Path, idle: Duration) -> Report {
    eprintln!("measuring the {name} build, {}", binary.display());
    std::env::set_var("COPEPOD_BIN", binary);
    let cluster = Cluster::start_with(&["--max-pods", "1100"]);
    let pid = cluster.agent.pid();
    let mut report = Report { name, binary: size(binary), ..Report::default() };

    thread::sleep(SETTLE);
    report.idle = memory(pid);
    let (before, written) = (traffic(&cluster), written(pid));
    thread::sleep(idle);
    let after = traffic(&cluster);
    let hourly = |bytes: u64| bytes * 3600 / idle.as_secs();
    report.traffic_per_hour =
        (hourly(after.0.saturating_sub(before.0)), hourly(after.1.saturating_sub(before.1)));
    report.idle_writes = crate::written(pid).saturating_sub(written);

    // The image is in the store before anything is timed: what is timed is the agent.
    let image = cluster.image(Guest::Hello);
    apply(&cluster, "warm", &image, 1);
    report.one_running = apply(&cluster, "one", &image, 1);
    cluster.bed.kubectl(&["delete", "pod", "warm-0", PODS_LIMIT]).expect();
    settle(&mut report, pid, 1);
    report.fifty_running = apply(&cluster, "fifty", &image, 49);
    settle(&mut report, pid, 50);
    report.cpu_per_mille = busy_per_mille(pid);
    apply(&cluster, "more", &image, 150);
    settle(&mut report, pid, 200);
    drop(cluster);
    fall_asleep(&mut report);
    be_probed(&mut report);
    report
}

/// Thousandths of a core that are used now.
fn busy_per_mille(pid: u32) -> u64 {
    let busy = cpu_time(pid);
    thread::sleep(CPU_WINDOW);
    ((cpu_time(pid) - busy).as_secs_f64() / CPU_WINDOW.as_secs_f64() * 1000.0).round() as u64
}

/// Servers on an agent of their own, the first half of them left alone.
fn be_probed(report: &mut Report) {
    let cluster = Cluster::start_with(&["--max-pods", "1100"]);
    let pid = cluster.agent.pid();
    let image = cluster.image(Guest::ServeC);
    let server = |probed: bool| {
        move |n: usize, pod: &mut Value| {
            let port = FIRST_PORT + n + if probed { SERVERS } else { 0 };
            let container = &mut pod["spec"]["containers"][0];
            container["ports"] = json!([{"containerPort": port}]);
            if probed {
                container["readinessProbe"] = json!({"httpGet": {"port": port, "path": "/"}});
                container["livenessProbe"] = json!({"tcpSocket": {"port": port}});
            }
        }
    };
    let plain = server(false);
    apply_each(&cluster, "one", &image, 1, |_, pod| plain(SERVERS - 1, pod));
    thread::sleep(PAUSE);
    report.servers[0] = memory(pid);
    apply_each(&cluster, "plain", &image, SERVERS - 1, plain);
    thread::sleep(PAUSE);
    report.servers[1] = memory(pid);
    apply_each(&cluster, "probed", &image, SERVERS, server(true));
    cluster.bed.kubectl(&["wait", "--for=condition=Ready", "pod", "-l", "set=probed", PODS_LIMIT]).expect();
    report.probed_per_mille = busy_per_mille(pid);
    report.servers[2] = memory(pid);
    report.probed_files = open_files(pid);
}

fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count).unwrap_or(0)
}

fn settle(report: &mut Report, pid: u32, pods: u64) {
    thread::sleep(PAUSE);
    report.pods.push((pods, memory(pid)));
}

/// Sleepers on an agent of their own: nothing that others have left counts.
fn fall_asleep(report: &mut Report) {
    let cluster = Cluster::start_with(&["--max-pods", "1100"]);
    let pid = cluster.agent.pid();
    let mut settled = |at: usize, name: &str, guest, count| {
        apply(&cluster, name, &cluster.image(guest), count);
        thread::sleep(PAUSE);
        report.asleep[at] = memory(pid);
    };
    settled(0, "one", Guest::Sleep, 1);
    settled(1, "crowd", Guest::Sleep, CROWD - 1);
    settled(2, "c", Guest::SleepC, 1);
    settled(3, "more-c", Guest::SleepC, C_SLEEPERS - 1);
    report.files = open_files(pid);
}

/// Makes pods and waits until all run; how long that took.
fn apply(cluster: &Cluster, name: &str, image: &str, count: usize) -> Duration {
    apply_each(cluster, name, image, count, |_, _| ())
}

/// The same, each as `change` makes it.
fn apply_each(
    cluster: &Cluster,
    name: &str,
    image: &str,
    count: usize,
    change: impl Fn(usize, &mut Value),
) -> Duration {
    let pods: Vec<Value> = (0..count)
        .map(|n| {
            let mut pod = pod(&format!("{name}-{n}"), pod_spec("Always", image, &[]));
            pod["metadata"]["labels"] = json!({"set": name});
            change(n, &mut pod);
            pod
        })
        .collect();
    let began = Instant::now();
    cluster.bed.apply_value(&json!({"apiVersion": "v1", "kind": "List", "items": pods}));
    let set = format!("set={name}");
    let running = "--for=jsonpath={.status.phase}=Running";
    cluster.bed.kubectl(&["wait", running, "pod", "-l", &set, PODS_LIMIT]).expect();
    began.elapsed()
}

fn status_field(pid: u32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':')?.split_whitespace().next()?.parse().ok())
        .unwrap_or_else(|| panic!("/proc/{pid}/status has no {field}: has the agent ended?"))
}

fn memory(pid: u32) -> Memory {
    Memory {
        resident: status_field(pid, "VmRSS"),
        anonymous: status_field(pid, "RssAnon"),
        file: status_field(pid, "RssFile"),
        threads: status_field(pid, "Threads"),
    }
}

/// Bytes that the process has caused to be written to a disk.
fn written(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok())
        .unwrap_or_else(|| panic!("/proc/{pid}/io says nothing of write_bytes"))
}

fn cpu_time(pid: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // utime and stime are the 14th and 15th field; the second may hold blanks but ends with `)`.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

/// Bytes of TCP payload to and from the API server, on the agent's connections of this moment.
fn traffic(cluster: &Cluster) -> (u64, u64) {
    let output = cluster.bed.shell("ss -tnpiHO state established dport = :6443").expect();
    let (mut to, mut from) = (0, 0);
    for line in output.lines().filter(|line| line.contains("copepod")) {
        let field = |name: &str| -> u64 {
            line.split_whitespace().find_map(|word| word.strip_prefix(name)?.parse().ok()).unwrap_or(0)
        };
        to += field("bytes_sent:");
        from += field("bytes_received:");
    }
    assert!(to > 0 && from > 0, "the agent has no connection to the API server:\n{output}");
    (to, from)
}

fn print_table(reports: &[Report]) {
    let mut rows: Vec<(String, String, Vec<String>)> = Vec::new();
    let mut row = |what: String, budget: String, figure: &dyn Fn(&Report) -> String| {
        rows.push((what, budget, reports.iter().map(figure).collect()));
    };
    row("binary, bytes".into(), BINARY_BUDGET.to_string(), &|r| r.binary.to_string());
    let show = |m: &Memory| format!("{} = {} + {}", m.resident, m.anonymous, m.file);
    row("resident, idle, KiB (anonymous + file)".into(), IDLE_BUDGET.to_string(), &|r| show(&r.idle));
    let counts: Vec<u64> =
        reports.first().map(|r| r.pods.iter().map(|(n, _)| *n).collect()).unwrap_or_default();
    for (at, count) in counts.iter().enumerate() {
        row(format!("resident, {count} pod(s), KiB"), String::new(), &|r| {
            r.pods.get(at).map(|(_, memory)| show(memory)).unwrap_or_default()
        });
    }
    row("each further pod that prints, KiB".into(), format!("({AWAKE_POD_LIMIT})"), &|r| {
        r.per_pod().to_string()
    });
    row("each further pod that sleeps, KiB (Rust, C)".into(), POD_BUDGET.to_string(), &|r| {
        let [rust, c] = r.per_sleeper();
        format!("{rust}, {c}")
    });
    row(format!("resident, {CROWD} pods that sleep, KiB"), CROWD_BUDGET.to_string(), &|r| show(&r.asleep[1]));
    row(format!("open files, {CROWD} + {C_SLEEPERS} pods that sleep"), String::new(), &|r| {
        r.files.to_string()
    });
    row(format!("each of {SERVERS} servers, and of {SERVERS} probed ones, KiB"), String::new(), &|r| {
        let [plain, probed] = r.per_server();
        format!("{plain}, {probed}")
    });
    row(format!("resident, {SERVERS} servers + {SERVERS} probed, KiB"), String::new(), &|r| {
        show(&r.servers[2])
    });
    row(format!("CPU, {SERVERS} probed servers, ‰ of a core"), String::new(), &|r| {
        r.probed_per_mille.to_string()
    });
    row(format!("open files, {SERVERS} servers + {SERVERS} probed"), String::new(), &|r| {
        r.probed_files.to_string()
    });
    row("threads, at most".into(), (cores() + THREADS_BUDGET).to_string(), &|r| r.threads().to_string());
    row("API traffic in an idle hour, bytes (up + down)".into(), TRAFFIC_BUDGET.to_string(), &|r| {
        let (up, down) = r.traffic_per_hour;
        format!("{} = {up} + {down}", up + down)
    });
    row("written to disk when idle, bytes".into(), "0".into(), &|r| r.idle_writes.to_string());
    row("CPU, 50 pods that print each second, ‰ of a core".into(), String::new(), &|r| {
        r.cpu_per_mille.to_string()
    });
    row("apply to Running, one pod, ms".into(), String::new(), &|r| r.one_running.as_millis().to_string());
    row("apply to Running, 49 pods, ms".into(), String::new(), &|r| r.fifty_running.as_millis().to_string());

    println!("\npages of {} bytes, {} cores", rustix::param::page_size(), cores());
    print!("{:<50} {:>10}", "", "budget");
    for report in reports {
        print!(" {:>24}", report.name);
    }
    println!();
    for (what, budget, figures) in rows {
        print!("{what:<50} {budget:>10}");
        for figure in figures {
            print!(" {figure:>24}");
        }
        println!();
    }
}
