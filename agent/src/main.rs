//! `copepod`, the binary: all of it is in the library.

use std::process::ExitCode;

/// See there: musl's own wastes more than a thousand guests can afford.
#[cfg(target_env = "musl")]
#[global_allocator]
static HEAP: copepod::Heap = copepod::Heap;

fn main() -> ExitCode {
    copepod::command::main(std::env::args_os().skip(1))
}
