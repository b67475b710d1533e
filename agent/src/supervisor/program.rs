//! What the first argument of a command names: the container's own module, a tool of the agent's, or another module
//! among the container's files.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use miniz_oxide::inflate::core::{decompress, inflate_flags, DecompressorOxide};
use miniz_oxide::inflate::TINFLStatus;

use super::instance::Kit;
use super::workshop::caught;
use crate::image::{Digest, MAX_MODULE};
use crate::runtime::{open_as_guest, Module};
use crate::{control, error_chain};

/// The commands that `kubectl cp` sends, `test` and `tar`, as a WASI program: it runs beside a container as any other,
/// so that it can reach nothing that the container could not. `tools/build` makes it of `tools/tools.c`.
const TOOLS: &[u8] = include_bytes!("tools/tools.wasm.gz");
const TOOL_NAMES: [&str; 2] = ["tar", "test"];

/// What a name stands for.
#[derive(Debug, PartialEq, Eq)]
enum Program<'n> {
    Own,
    Tools,
    File(&'n str),
    Unknown,
}

/// A container knows its own program by its whole name, by the last part of it, and without `.wasm`.
fn named<'n>(name: &'n str, own: &str) -> Program<'n> {
    fn last(name: &str) -> &str {
        name.rsplit('/').next().unwrap_or(name)
    }
    fn stem(name: &str) -> &str {
        name.strip_suffix(".wasm").unwrap_or(name)
    }
    let bare = name.strip_prefix("/bin/").or_else(|| name.strip_prefix("/usr/bin/")).unwrap_or(name);
    if name == own || (!name.contains('/') && stem(name) == stem(last(own))) {
        Program::Own
    } else if name.contains('/') && bare.contains('/') || name.ends_with(".wasm") {
        Program::File(name)
    } else if TOOL_NAMES.contains(&bare) {
        Program::Tools
    } else if name.contains('/') {
        Program::File(name)
    } else {
        Program::Unknown
    }
}

/// The module that `name` stands for in a container of this kit.
///
/// # Errors
/// Why there is none, in the words of a container runtime where it has some.
pub async fn find(kit: &Kit, name: &str) -> Result<Module, String> {
    match named(name, &kit.program) {
        Program::Own => Ok(kit.module.clone()),
        Program::Tools => {
            let runtime = kit.runtime.clone();
            let compile = move || runtime.compile("copepod:tools", &tools().unwrap_or_default());
            control::blocking(compile).await.map_err(|error| error_chain(&error))
        }
        Program::File(path) => {
            let opened = open_as_guest(&kit.preopens, &kit.files, path).await;
            let file = opened.map_err(|error| format!("exec: \"{path}\": {error}"))?;
            let (runtime, path) = (kit.runtime.clone(), path.to_owned());
            let compile = move || {
                let bytes = read(file).map_err(|error| format!("exec: \"{path}\": {error}"))?;
                let digest = Digest::of(&bytes).to_string();
                caught(|| runtime.compile(&digest, &bytes).map_err(|error| error_chain(&error)))
                    .map_err(|error| format!("exec: \"{path}\": {error}"))
            };
            control::blocking(compile).await
        }
        Program::Unknown => Err(format!(
            "exec: \"{name}\": executable file not found: a container of this node has no shell and no commands but \
             its own module, \"{}\", and any .wasm file that it mounts, named by its path",
            kit.program
        )),
    }
}

/// [`TOOLS`], inflated (RFC 1952: a head of ten bytes, the size at the end).
fn tools() -> Option<Vec<u8>> {
    let size = u32::from_le_bytes(*TOOLS.last_chunk()?);
    let mut wasm = vec![0; usize::try_from(size).ok()?];
    let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let mut inflate = Box::<DecompressorOxide>::default();
    let (status, ..) = decompress(&mut inflate, TOOLS.get(10..)?, &mut wasm, 0, flags);
    (status == TINFLStatus::Done).then_some(wasm)
}

fn read(file: OwnedFd) -> io::Result<Vec<u8>> {
    let file = File::from(file);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_MODULE.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_MODULE {
        let text = format!("it is larger than {MAX_MODULE} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tools_are_a_module() {
        assert!(tools().is_some_and(|wasm| wasm.starts_with(b"\0asm\x01")));
    }

    #[test]
    fn names_stand_for_the_own_module_tools_and_files() {
        for (name, own, program) in [
            ("hello", "hello", Program::Own),
            ("hello.wasm", "hello", Program::Own),
            ("hello", "/app/hello.wasm", Program::Own),
            ("/app/hello.wasm", "/app/hello.wasm", Program::Own),
            ("/hello.wasm", "hello", Program::File("/hello.wasm")),
            ("other.wasm", "hello", Program::File("other.wasm")),
            ("/data/other", "hello", Program::File("/data/other")),
            ("data/tar", "hello", Program::File("data/tar")),
            ("tar", "hello", Program::Tools),
            ("/bin/tar", "hello", Program::Tools),
            ("/usr/bin/test", "hello", Program::Tools),
            ("tar", "tar", Program::Own),
            ("/bin/sh", "hello", Program::File("/bin/sh")),
            ("sh", "hello", Program::Unknown),
            ("", "hello", Program::Unknown),
        ] {
            assert_eq!(named(name, own), program, "{name} in {own}");
        }
    }
}
