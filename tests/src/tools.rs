//! The programs that tests/install and the build scripts beside it have linked into `target/tools`.

use std::path::{Path, PathBuf};

/// The root of the source tree.
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_path_buf()
}

/// Where this tree's build results are.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}

/// The folder of links to the tools, for a PATH.
pub fn folder() -> PathBuf {
    target().join("tools")
}

/// The program `name` that the scripts have provided.
pub fn tool(name: &str) -> PathBuf {
    let tool = folder().join(name);
    assert!(
        tool.exists(),
        "there is no {}: run tests/install, tests/control-plane/build and tests/wasm-to-oci/build first, or tests/run, \
         which does so",
        tool.display()
    );
    tool
}

/// The agent as it is shipped for `target`.
pub fn shipped(target: &str) -> PathBuf {
    let binary = self::target().join(target).join("release/copepod");
    assert!(binary.exists(), "there is no agent at {}: run `cross/build {target}`", binary.display());
    binary
}

/// The agent under test: `COPEPOD_BIN`, else the release build of this tree.
pub fn copepod() -> PathBuf {
    let binary = match std::env::var_os("COPEPOD_BIN") {
        Some(path) => root().join(path),
        None => target().join("release/copepod"),
    };
    assert!(
        binary.exists(),
        "there is no agent at {}: run `cargo build --release`, or set COPEPOD_BIN to another build",
        binary.display()
    );
    binary
}
