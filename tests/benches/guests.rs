//! What guests cost and how they share, measured in one run: `cargo bench -p tests --bench guests`.
//!
//! The same compiled programs run here, in bare wasmi of the same build with and without fuel, and in wasmtime (from
//! PyPI), so that a reader sees what the interpreter, and what the limits around it, cost. Times are printed, never
//! asserted; a guest that does not end as it should is a failure.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use copepod::control;
use copepod::log::{self, Logs, PodKey};
use copepod::runtime::quota::{Account, Amount, Quota};
use copepod::runtime::{Config, Exit, Guest, GuestSpec, Module, Output, Place, Preopen, Runtime, Stdio};
use tests::guests::Guest as Program;
use tests::tools::{root, target, tool};
use wasmi::{CompilationMode, Engine, Linker, Store};

/// Times that each run of the computation is done; the best counts, as the others had neighbours.
const ROUNDS: usize = 5;
/// Times that those computations are done that are compared.
const TURNS: usize = 15;
/// Guests that spin at the same time.
const SPINNERS: usize = 100;
/// How long they are let spin.
const SPIN: Duration = Duration::from_secs(5);
/// Spinning guests that are killed, one after the other.
const KILLS: usize = 50;
/// How often the control thread's timer is to fire, as a heartbeat would.
const TICK: Duration = Duration::from_millis(10);
/// Interpreter threads: those of a machine of two cores.
const THREADS: usize = 2;
/// MiB that are moved through stdout and through a file.
const MOVED: u64 = 64;
/// Bulk operations of one run of the guest that fills: each of 64 MiB, the default limit of a container.
const FILLS: u32 = 8;
/// Fuel that does not run out.
const ENOUGH: u64 = u64::MAX / 2;

/// Linear memory of one guest, all guests.
const MEMORY: u64 = 256 << 20;

/// The table's rows.
#[derive(Default)]
struct Table(Vec<[String; 3]>);

impl Table {
    fn row(&mut self, what: &str, value: String, beside: String) {
        eprintln!("{what}: {value} {beside}");
        self.0.push([what.to_owned(), value, beside]);
    }

    fn print(&self) {
        let width = |column: usize| self.0.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let (first, second) = (width(0), width(1));
        println!();
        for [what, value, beside] in &self.0 {
            println!("{what:<first$}  {value:>second$}  {beside}");
        }
    }
}

/// Takes output and counts its bytes.
#[derive(Default)]
struct Counted(AtomicU64);

impl Output for Counted {
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.0.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

/// Writes output to a pipe.
struct Piped(io::PipeWriter);

impl Output for Piped {
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.0).write_all(bytes)
    }
}

/// Writes output to a container's log.
struct Logged(Arc<log::Writer>);

impl Output for Logged {
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.0.write(log::Stream::Stdout, bytes)
    }
}

fn runtime() -> Runtime {
    let config = Config { threads: THREADS, default_memory: MEMORY, guest_memory: u64::MAX };
    Runtime::start(config).expect("the interpreter threads start")
}

fn compiled(runtime: &Runtime, program: Program) -> Module {
    let bytes = fs::read(program.wasm()).expect("the guest is compiled");
    runtime.compile(&format!("{program:?}"), &bytes).expect("a module")
}

fn spec(args: &[&str], out: &Arc<Counted>) -> GuestSpec {
    GuestSpec {
        name: "bench/guest/main".into(),
        args: std::iter::once("guest").chain(args.iter().copied()).map(str::to_owned).collect(),
        env: Arc::new([]),
        preopens: Arc::new([]),
        files: Arc::new([]),
        listeners: Vec::new(),
        destinations: Vec::new(),
        stdio: Stdio::into_one(out.clone()),
        // All limits are on, as in a pod that names them.
        memory: Some(MEMORY),
        cpu_request: 1000,
        cpu_limit: Some(1000 * THREADS as u32),
        fuel: Some(ENOUGH),
    }
}

fn spawn(runtime: &Runtime, module: &Module, args: &[&str]) -> Guest {
    runtime.spawn(module, spec(args, &Arc::default())).expect("the guest starts")
}

fn ended(guest: &Guest) -> Exit {
    control::run(guest.wait())
}

fn best(mut work: impl FnMut() -> Duration) -> Duration {
    (0..ROUNDS).map(|_| work()).min().unwrap_or_default()
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// Bare wasmi, without WASI, limits or slices.
struct Bare {
    engine: Engine,
    module: wasmi::Module,
    fuel: bool,
}

impl Bare {
    fn new(program: &Path, fuel: bool) -> Bare {
        let bytes = fs::read(program).expect("the guest is compiled");
        let mut config = wasmi::Config::default();
        config.consume_fuel(fuel).compilation_mode(CompilationMode::Eager);
        let engine = Engine::new(&config);
        let module = wasmi::Module::new(&engine, &bytes).expect("a module");
        Bare { engine, module, fuel }
    }

    fn run(&self) -> Duration {
        let mut store = Store::new(&self.engine, ());
        if self.fuel {
            store.set_fuel(ENOUGH).expect("fuel is on");
        }
        let linker = Linker::<()>::new(&self.engine);
        let instance = linker.instantiate_and_start(&mut store, &self.module).expect("it imports nothing");
        let start = instance.get_typed_func::<(), ()>(&store, "_start").expect("a program");
        let begun = Instant::now();
        start.call(&mut store, ()).expect("its result is right");
        begun.elapsed()
    }
}

/// wasmtime, compiled ahead of the run.
fn wasmtime(program: &Path) -> Duration {
    let script = root().join("tests/benches/in_wasmtime.py");
    let output =
        Command::new(tool("python-wasmtime")).arg(script).arg(program).arg(ROUNDS.to_string()).output();
    let output = output.expect("wasmtime's Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let seconds: f64 = String::from_utf8_lossy(&output.stdout).trim().parse().expect("seconds");
    Duration::from_secs_f64(seconds)
}

fn compute(table: &mut Table) {
    let program = Program::Compute.wasm();
    let runtime = runtime();
    let module = compiled(&runtime, Program::Compute);
    let with_limits = || {
        let begun = Instant::now();
        assert_eq!(ended(&spawn(&runtime, &module, &[])), Exit::Code(0), "its result is right");
        begun.elapsed()
    };
    let (with_fuel, without) = (Bare::new(&program, true), Bare::new(&program, false));
    let compiled = wasmtime(&program);
    // By turns: a machine that is slower for a while is so for all of them.
    let (mut ours, mut fuel, mut none) = (Duration::MAX, Duration::MAX, Duration::MAX);
    for _ in 0..TURNS {
        ours = ours.min(with_limits());
        fuel = fuel.min(with_fuel.run());
        none = none.min(without.run());
    }
    let share =
        |other: Duration| format!("{:.1} % of its speed", 100.0 * other.as_secs_f64() / ours.as_secs_f64());
    table.row("compute: here, all limits on", ms(ours), String::new());
    table.row("compute: bare wasmi, with fuel", ms(fuel), format!("here {}, goal 95", share(fuel)));
    table.row("compute: bare wasmi, without", ms(none), format!("here {}", share(none)));
    table.row("compute: wasmtime (compiled)", ms(compiled), format!("here {}", share(compiled)));
}

/// A bulk operation runs whole: nobody else has that thread meanwhile.
fn bulk(table: &mut Table) {
    let runtime = runtime();
    let module = compiled(&runtime, Program::Fill);
    let filled = best(|| {
        let begun = Instant::now();
        assert_eq!(ended(&spawn(&runtime, &module, &[])), Exit::Code(0));
        begun.elapsed() / FILLS
    });
    table.row("one memory.fill of 64 MiB, which runs whole", ms(filled), String::new());
}

/// From bytes to the first line of output.
fn startup(table: &mut Table) {
    for (program, name) in [(Program::Sleep, "Rust"), (Program::SleepC, "C"), (Program::HelloGo, "Go")] {
        let bytes = fs::read(program.wasm()).expect("the guest is compiled");
        let mut starts = Vec::new();
        let compiles = best(|| {
            let runtime = runtime();
            let begun = Instant::now();
            let module = runtime.compile("startup", &bytes).expect("a module");
            let compiled = begun.elapsed();
            let begun = Instant::now();
            let out = Arc::new(Counted::default());
            let guest = runtime.spawn(&module, spec(&[], &out)).expect("the guest starts");
            while out.0.load(Ordering::Relaxed) == 0 {
                std::thread::sleep(Duration::from_micros(50));
            }
            starts.push(begun.elapsed());
            guest.kill();
            compiled
        });
        let start = starts.into_iter().min().unwrap_or_default();
        let size = format!("{} KiB of module, compiled in {}", bytes.len() / 1024, ms(compiles));
        table.row(&format!("start to first output, {name}"), ms(start), size);
    }
}

fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("this process has a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).expect("a figure")
}

/// What many guests of one module take, each kind in a process of its own: nothing that others have left counts.
const CROWDS: [(usize, Program, &str); 5] = [
    (100, Program::SleepC, "sleepers in C"),
    (1000, Program::SleepC, "sleepers in C"),
    (100, Program::Sleep, "sleepers in Rust"),
    (1000, Program::Sleep, "sleepers in Rust"),
    // Its own runtime wakes it as often as one that prints once a second.
    (20, Program::HelloGo, "that print, in Go"),
];
/// The argument of such a process, before the number of its kind.
const CROWD: &str = "--crowd";

fn crowds(table: &mut Table) {
    for (kind, (count, _, name)) in CROWDS.into_iter().enumerate() {
        let own = std::env::current_exe().expect("this program has a path");
        let output = Command::new(own).args([CROWD, &kind.to_string()]).output().expect("it starts again");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let (each, beside) = said.trim().split_once('\t').expect("two columns");
        table.row(&format!("{count} {name}, each"), each.to_owned(), beside.to_owned());
    }
}

/// Prints what one kind takes.
fn crowd(kind: usize) {
    let (count, program, _) = CROWDS[kind];
    let runtime = runtime();
    let module = compiled(&runtime, program);
    // The first pays for the module.
    let first = spawn(&runtime, &module, &[]);
    std::thread::sleep(Duration::from_millis(500));
    let before = resident();
    let begun = Instant::now();
    let guests: Vec<Guest> = (0..count).map(|_| spawn(&runtime, &module, &[])).collect();
    let spawned = begun.elapsed();
    std::thread::sleep(Duration::from_secs(3));
    let each = resident().saturating_sub(before) as f64 / count as f64;
    let begun = Instant::now();
    for guest in &guests {
        guest.kill();
    }
    for guest in &guests {
        assert_eq!(ended(guest), Exit::Killed);
    }
    println!("{each:.1} KiB\t{} to start them, {} to kill them", ms(spawned), ms(begun.elapsed()));
    first.kill();
}

/// The control thread's timer, as a heartbeat would use it: its priority is above the interpreter threads'.
struct Heart {
    stop: Arc<AtomicBool>,
    beating: std::thread::JoinHandle<Vec<Duration>>,
}

impl Heart {
    fn start() -> Heart {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let beating = std::thread::spawn(move || {
            let mut lags = Vec::new();
            while !seen.load(Ordering::Relaxed) {
                let begun = Instant::now();
                control::run(async { async_io::Timer::after(TICK).await });
                lags.push(begun.elapsed().saturating_sub(TICK));
            }
            lags
        });
        Heart { stop, beating }
    }

    /// How late it was.
    fn stop(self, table: &mut Table, what: &str) {
        self.stop.store(true, Ordering::Relaxed);
        let mut lags = self.beating.join().expect("the timer's thread ends");
        lags.sort();
        let middle = format!("middle {}, 99 % {}, goal 20", ms(at(&lags, 0.5)), ms(at(&lags, 0.99)));
        table.row(&format!("the heartbeat's lag beside {what}, worst"), ms(at(&lags, 1.0)), middle);
    }
}

/// The value that this part of all, which are sorted, does not pass.
fn at(all: &[Duration], part: f64) -> Duration {
    all[((all.len() - 1) as f64 * part) as usize]
}

/// A large module is compiled on a blocking thread, while a guest spins on each interpreter thread.
fn large(table: &mut Table) {
    let runtime = runtime();
    let spin = runtime.compile("spin", &wat_spin()).expect("a module");
    let neighbours: Vec<Guest> = (0..THREADS).map(|_| spawn(&runtime, &spin, &[])).collect();
    let bytes = fs::read(Program::Large.wasm()).expect("the guest is compiled");
    let size = bytes.len() / 1024;
    std::thread::sleep(Duration::from_secs(1));
    let heart = Heart::start();
    let used = || neighbours.iter().map(|guest| guest.usage().cpu).sum::<Duration>();
    let (before, begun) = (used(), Instant::now());
    let compiling = runtime.clone();
    control::run(control::blocking(move || compiling.compile("large", &bytes).map(drop))).expect("a module");
    let (took, used) = (begun.elapsed(), used().saturating_sub(before));
    heart.stop(table, "a large module that is compiled");
    let beside = format!("{size} KiB; {THREADS} neighbours that spin had {} of a processor", ms(used));
    table.row("a large module is compiled in", ms(took), beside);
    neighbours.iter().for_each(Guest::kill);
}

/// Guests that spin: how they share, how late a timer of the control thread is, how soon one is killed.
fn spinners(table: &mut Table) {
    let runtime = runtime();
    let spin = wat_spin();
    let module = runtime.compile("spin", &spin).expect("a module");
    let guests: Vec<Guest> = (0..SPINNERS)
        .map(|_| {
            let mut spec = spec(&[], &Arc::default());
            (spec.cpu_request, spec.cpu_limit) = (0, None);
            runtime.spawn(&module, spec).expect("the guest starts")
        })
        .collect();
    let heart = Heart::start();
    std::thread::sleep(Duration::from_secs(1));
    let before: Vec<Duration> = guests.iter().map(|guest| guest.usage().cpu).collect();
    std::thread::sleep(SPIN);
    let used = guests.iter().zip(&before).map(|(guest, before)| guest.usage().cpu.saturating_sub(*before));
    let used: Vec<f64> = used.map(|used| used.as_secs_f64() * 1e3).collect();
    let (least, most) =
        used.iter().fold((f64::MAX, 0.0_f64), |(least, most), one| (least.min(*one), most.max(*one)));
    let mut kills: Vec<Duration> = guests
        .iter()
        .take(KILLS)
        .map(|guest| {
            let begun = Instant::now();
            guest.kill();
            assert_eq!(ended(guest), Exit::Killed);
            begun.elapsed()
        })
        .collect();
    heart.stop(table, "them");
    kills.sort();
    let share = format!("{least:.0} to {most:.0} ms of a processor in {} s", SPIN.as_secs());
    table.row(
        &format!("{SPINNERS} spinners, greatest share to least"),
        format!("{:.2}", most / least),
        share,
    );
    let middle = format!("middle {}, goal 20", ms(at(&kills, 0.5)));
    table.row("a spinner's kill, worst", ms(at(&kills, 1.0)), middle);
    guests.iter().for_each(Guest::kill);
}

/// `(loop (br 0))`
fn wat_spin() -> Vec<u8> {
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    // One type, one function of it, exported as `_start`, whose body is a loop.
    module.extend(b"\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\0\x0a\x09\x01\x07\0\x03\x40\x0c\0\x0b\x0b");
    module
}

fn moves(table: &mut Table) {
    let runtime = runtime();
    let module = compiled(&runtime, Program::Pour);
    let rate = |time: Duration| format!("{:.0} MiB/s", MOVED as f64 / time.as_secs_f64());
    let count = MOVED.to_string();
    let printed = |stdout: Arc<dyn Output>| {
        best(|| {
            let spec = GuestSpec {
                stdio: Stdio::into_one(stdout.clone()),
                ..spec(&["stdout", &count], &Arc::default())
            };
            let begun = Instant::now();
            let guest = runtime.spawn(&module, spec).expect("the guest starts");
            assert_eq!(ended(&guest), Exit::Code(0));
            begun.elapsed()
        })
    };
    let counted = Arc::new(Counted::default());
    table.row("stdout to nobody, by 4 KiB", rate(printed(counted.clone())), String::new());
    assert_eq!(counted.0.load(Ordering::Relaxed), (ROUNDS as u64 * MOVED) << 20);
    let folder = Folder::new();
    let (reader, writer) = io::pipe().expect("a pipe");
    let drained = std::thread::spawn(move || io::copy(&mut { reader }, &mut io::sink()));
    table.row("stdout into a pipe", rate(printed(Arc::new(Piped(writer)))), String::new());
    drained.join().expect("the reader ends").expect("all is read");
    let pod = PodKey { namespace: "bench".into(), name: "guest".into(), uid: "1".into() };
    let logs = Logs::new(folder.0.join("logs"), log::Settings::default());
    let writer = logs.open(&pod, "main", 0).expect("a log");
    table.row(
        "stdout into a container's log, by lines of 80",
        rate(printed(Arc::new(Logged(writer)))),
        String::new(),
    );
    let moved = |account: Option<Arc<Account>>| {
        best(|| {
            let mut spec = spec(&["file", "/data/moved", &count], &Arc::default());
            let (host, account) = (folder.0.clone(), account.clone());
            spec.preopens = Arc::new([Preopen {
                guest: "/data".into(),
                place: Place::Folder(host),
                read_only: false,
                account,
            }]);
            let begun = Instant::now();
            let guest = runtime.spawn(&module, spec).expect("the guest starts");
            assert_eq!(ended(&guest), Exit::Code(0));
            begun.elapsed()
        })
    };
    table.row("a file written and read again, by 64 KiB", rate(moved(None) / 2), String::new());
    let enough = Amount { bytes: (2 * MOVED) << 20, files: 10 };
    let quota = Quota::new(enough, |excess| panic!("{excess:?} were refused"));
    let account = Account::new(vec![Arc::new(quota)], Amount::default());
    table.row("the same in a volume that is counted", rate(moved(Some(account)) / 2), String::new());
}

/// A folder that goes with this value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let folder = target().join(format!("guests-bench-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn main() -> ExitCode {
    // `cargo test` runs benchmarks with --test: there is nothing to test here.
    if std::env::args().any(|argument| argument == "--test") {
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == CROWD) {
        crowd(arguments[at + 1].parse().expect("a number"));
        return ExitCode::SUCCESS;
    }
    let mut table = Table::default();
    compute(&mut table);
    bulk(&mut table);
    startup(&mut table);
    crowds(&mut table);
    spinners(&mut table);
    large(&mut table);
    moves(&mut table);
    table.print();
    ExitCode::SUCCESS
}
