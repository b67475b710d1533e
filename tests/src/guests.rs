//! The guests: real programs, compiled when they are first needed and kept by what they were made of.
//!
//! The sources are in tests/guests. What comes out is never committed.

use std::{
    collections::hash_map::DefaultHasher,
    ffi::OsStr,
    fs,
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use crate::tools::{root, target, tool};

/// A program of tests/guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Guest {
    /// Rust, a normal `main`: prints `hello 0`, `hello 1`, … once a second.
    Hello,
    /// The same as a `cdylib` whose only function is `_start`.
    HelloCdylib,
    /// The same in C.
    HelloC,
    /// The same in Go.
    HelloGo,
    /// Rust: says that it is up, and sleeps.
    Sleep,
    /// The same in C.
    SleepC,
    /// C: prints its arguments and `$GREETING`, then exits with the number in its last argument.
    Exit,
    /// C: prints a line and traps.
    Trap,
    /// C: writes its second argument into the file that its first one names, and ends with the errno.
    Write,
    /// An HTTP server on its first listener, in Rust: answers `rust NUMBER PATH`.
    Serve,
    /// The same in C: `c NUMBER PATH`.
    ServeC,
    /// The same in Go, by `net/http`: `go NUMBER PATH`.
    ServeGo,
    /// C: copies its standard input to its standard output.
    Cat,
    /// Rust: publishes by MQTT, HOST PORT TOPIC MESSAGE.
    Publish,
    /// C, importing nothing: computes for a second or so, and traps where its result is wrong.
    Compute,
    /// C, importing nothing: fills 64 MiB eight times, each time by one operation.
    Fill,
    /// C: moves bytes through standard output (`stdout MIB`) or a file (`file PATH MIB`).
    Pour,
    /// C: what strangers do, by its first argument, in the folder of its second.
    Hostile,
    /// C: works until it is told to stop, then ends with 7.
    Patient,
    /// C: says what its arguments tell it to, to both outputs.
    Speak,
    /// C: does with files what its arguments say, and prints what came of it.
    Look,
    /// Go: a server that says how it is, by HTTP, HTTPS and gRPC.
    Health,
    /// Go, with much of its library linked (24 MB): goes round for as many seconds as its argument says.
    Large,
}

impl Guest {
    /// Every guest.
    pub const ALL: [Guest; 23] = [
        Guest::Hello,
        Guest::HelloCdylib,
        Guest::HelloC,
        Guest::HelloGo,
        Guest::Sleep,
        Guest::SleepC,
        Guest::Exit,
        Guest::Trap,
        Guest::Write,
        Guest::Serve,
        Guest::ServeC,
        Guest::ServeGo,
        Guest::Cat,
        Guest::Publish,
        Guest::Compute,
        Guest::Fill,
        Guest::Pour,
        Guest::Hostile,
        Guest::Patient,
        Guest::Look,
        Guest::Speak,
        Guest::Health,
        Guest::Large,
    ];

    fn source(self) -> &'static str {
        match self {
            Guest::Hello => "hello.rs",
            Guest::HelloCdylib => "hello_cdylib.rs",
            Guest::HelloC => "hello.c",
            Guest::HelloGo => "hello.go",
            Guest::Sleep => "sleep.rs",
            Guest::SleepC => "sleep.c",
            Guest::Exit => "exit.c",
            Guest::Trap => "trap.c",
            Guest::Write => "write.c",
            Guest::Serve => "serve.rs",
            Guest::ServeC => "serve.c",
            Guest::ServeGo => "serve.go",
            Guest::Cat => "cat.c",
            Guest::Publish => "publish.rs",
            Guest::Compute => "compute.c",
            Guest::Fill => "fill.c",
            Guest::Pour => "pour.c",
            Guest::Hostile => "hostile.c",
            Guest::Patient => "patient.c",
            Guest::Look => "look.c",
            Guest::Speak => "speak.c",
            Guest::Health => "health.go",
            Guest::Large => "large.go",
        }
    }

    /// The compiled module.
    pub fn wasm(self) -> PathBuf {
        let source = root().join("tests/guests").join(self.source());
        let mut hasher = DefaultHasher::new();
        fs::read(&source)
            .unwrap_or_else(|e| panic!("cannot read {}: {e}", source.display()))
            .hash(&mut hasher);
        let folder = target().join("guests");
        fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("cannot make {}: {e}", folder.display()));
        let module = folder.join(format!("{}-{:016x}.wasm", self.source(), hasher.finish()));
        if !module.exists() {
            // Tests run at the same time, in several threads and processes, and compilers leave their
            // own files beside what they make: each compiles in a folder of its own.
            let thread = format!("{:?}", std::thread::current().id());
            let own = folder.join(format!("{}-{}", std::process::id(), thread.replace(['(', ')'], "")));
            fs::create_dir_all(&own).unwrap_or_else(|e| panic!("cannot make {}: {e}", own.display()));
            let made = own.join("guest.wasm");
            run(self.compiler(&source, &made));
            fs::rename(&made, &module).unwrap_or_else(|e| panic!("cannot rename {}: {e}", made.display()));
            let _ = fs::remove_dir_all(&own);
        }
        module
    }

    /// It is no program of libc's, and imports nothing.
    fn stands_alone(self) -> bool {
        matches!(self, Guest::Compute | Guest::Fill)
    }

    fn compiler(self, source: &Path, module: &Path) -> Command {
        let mut command;
        match source.extension().and_then(OsStr::to_str) {
            Some("rs") => {
                command = Command::new(tool("rustc-wasi"));
                command.arg("-O");
            }
            Some("c") => {
                command = Command::new("clang");
                command.args(["--target=wasm32-wasi", "-O2"]);
                if self.stands_alone() {
                    command.args(["-nostdlib", "-mbulk-memory", "-Wl,--no-entry"]);
                }
            }
            _ => {
                command = Command::new(tool("go"));
                command.env("GOOS", "wasip1").env("GOARCH", "wasm");
                command.args(["build", "-trimpath"]);
            }
        }
        command.arg("-o").arg(module).arg(source);
        command
    }
}

fn run(mut command: Command) {
    let output = command.output().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    assert!(output.status.success(), "{command:?}:\n{}", String::from_utf8_lossy(&output.stderr));
}
