//! What guests cost and how they share, measured in one run: `cargo bench -p tests --bench guests`.
//!
//! The same compiled programs run here, in bare wasmi of the same build with and without fuel, and in wasmtime (from
//! PyPI), so that a reader sees what the interpreter, and what the limits around it, cost. Times are printed, never
//! asserted; a guest that does not end as it should is a failure.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use copepod::control;
use copepod::runtime::{Config, Exit, Guest, GuestSpec, Module, Output, Preopen, Runtime};
use tests::guests::Guest as Program;
use tests::tools::{root, target, tool};
use wasmi::{CompilationMode, Engine, Linker, Store};

/// Times that each run of the computation is done; the best counts, as the others had neighbours.
const ROUNDS: usize = 5;
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
        env: Vec::new(),
        preopens: Vec::new(),
        listeners: Vec::new(),
        destinations: Vec::new(),
        stdin: None,
        stdout: out.clone(),
        stderr: out.clone(),
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
fn bare(program: &Path, fuel: bool) -> Duration {
    let bytes = fs::read(program).expect("the guest is compiled");
    let mut config = wasmi::Config::default();
    config.consume_fuel(fuel).compilation_mode(CompilationMode::Eager);
    let engine = Engine::new(&config);
    let module = wasmi::Module::new(&engine, &bytes).expect("a module");
    best(|| {
        let mut store = Store::new(&engine, ());
        if fuel {
            store.set_fuel(ENOUGH).expect("fuel is on");
        }
        let linker = Linker::<()>::new(&engine);
        let instance = linker.instantiate_and_start(&mut store, &module).expect("it imports nothing");
        let start = instance.get_typed_func::<(), ()>(&store, "_start").expect("a program");
        let begun = Instant::now();
        start.call(&mut store, ()).expect("its result is right");
        begun.elapsed()
    })
}

/// wasmtime, compiled ahead of the run.
fn wasmtime(program: &Path) -> Duration {
    let script = root().join("tests/benches/wasmtime.py");
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
    let ours = best(|| {
        let begun = Instant::now();
        assert_eq!(ended(&spawn(&runtime, &module, &[])), Exit::Code(0), "its result is right");
        begun.elapsed()
    });
    let (fuel, none, compiled) = (bare(&program, true), bare(&program, false), wasmtime(&program));
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

fn sleepers(table: &mut Table) {
    for count in [100, 1000] {
        let runtime = runtime();
        let module = compiled(&runtime, Program::SleepC);
        // The first pays for the module.
        let first = spawn(&runtime, &module, &[]);
        std::thread::sleep(Duration::from_millis(500));
        let before = resident();
        let begun = Instant::now();
        let guests: Vec<Guest> = (0..count).map(|_| spawn(&runtime, &module, &[])).collect();
        let spawned = begun.elapsed();
        std::thread::sleep(Duration::from_secs(3));
        let each = resident().saturating_sub(before) as f64 / f64::from(count);
        let begun = Instant::now();
        for guest in &guests {
            guest.kill();
        }
        for guest in &guests {
            assert_eq!(ended(guest), Exit::Killed);
        }
        let beside = format!("{} to start them, {} to kill them", ms(spawned), ms(begun.elapsed()));
        table.row(&format!("{count} sleepers in C, each"), format!("{each:.1} KiB"), beside);
        first.kill();
    }
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
    // The agent's own priority is above its interpreter threads', as here.
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    let heart = std::thread::spawn(move || {
        let mut lags = Vec::new();
        while !seen.load(Ordering::Relaxed) {
            let begun = Instant::now();
            control::run(async { async_io::Timer::after(TICK).await });
            lags.push(begun.elapsed().saturating_sub(TICK));
        }
        lags
    });
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
    stop.store(true, Ordering::Relaxed);
    let mut lags = heart.join().expect("the timer's thread ends");
    kills.sort();
    lags.sort();
    let at = |all: &[Duration], part: f64| all[((all.len() - 1) as f64 * part) as usize];
    let share = format!("{least:.0} to {most:.0} ms of a processor in {} s", SPIN.as_secs());
    table.row(
        &format!("{SPINNERS} spinners, greatest share to least"),
        format!("{:.2}", most / least),
        share,
    );
    let middle = format!("middle {}, goal 20", ms(at(&kills, 0.5)));
    table.row("a spinner's kill, worst", ms(at(&kills, 1.0)), middle);
    let middle = format!("middle {}, 99 % {}, goal 20", ms(at(&lags, 0.5)), ms(at(&lags, 0.99)));
    table.row("the heartbeat's lag beside them, worst", ms(at(&lags, 1.0)), middle);
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
    let piped = best(|| {
        let out = Arc::new(Counted::default());
        let begun = Instant::now();
        let guest = runtime.spawn(&module, spec(&["stdout", &count], &out)).expect("the guest starts");
        assert_eq!(ended(&guest), Exit::Code(0));
        assert_eq!(out.0.load(Ordering::Relaxed), MOVED << 20);
        begun.elapsed()
    });
    table.row("stdout, by 4 KiB", rate(piped), String::new());
    let folder = Folder::new();
    let filed = best(|| {
        let mut spec = spec(&["file", "/data/moved", &count], &Arc::default());
        spec.preopens =
            vec![Preopen { guest: "/data".into(), host: folder.0.clone(), read_only: false, account: None }];
        let begun = Instant::now();
        let guest = runtime.spawn(&module, spec).expect("the guest starts");
        assert_eq!(ended(&guest), Exit::Code(0));
        begun.elapsed()
    });
    table.row("a file written and read again, by 64 KiB", rate(filed / 2), String::new());
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
    let mut table = Table::default();
    compute(&mut table);
    bulk(&mut table);
    startup(&mut table);
    sleepers(&mut table);
    spinners(&mut table);
    moves(&mut table);
    table.print();
    ExitCode::SUCCESS
}
