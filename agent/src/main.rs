//! `copepod`, the binary: all of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    copepod::command::main(std::env::args_os().skip(1))
}
