//! Every setting: flags, environment, configuration file, described once.
//!
//! [`setting`] is the shape of a description, [`values`] collects what a user gave, [`board`] knows the
//! board files, [`agent`] holds the settings of the agent itself; the other commands' stand beside them in
//! [`crate::command`].

pub mod agent;
pub mod board;
mod container_logs;
pub mod help;
mod image_gc;
mod kubelet_api;
pub mod machine;
mod node_labels;
pub mod setting;
pub mod toml;
pub mod values;
pub mod yaml;

pub use agent::AgentConfig;
pub use node_labels::{parse_label, parse_taint};
pub use values::{Parsed, UsageError, Values};

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The version as `copepod --version`, the user agent and the node's status show it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The newest Kubernetes minor whose contract this agent keeps, as `kubectl get nodes` shows it.
pub const KUBELET_VERSION: &str = concat!("v1.37.0+copepod", env!("CARGO_PKG_VERSION"));

/// Reads a text file of at most `limit` bytes.
///
/// # Errors
/// Whatever the file system says, or that the file is larger, or not UTF-8.
pub fn read_bounded(path: &Path, limit: u64) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(limit.saturating_add(1)).read_to_string(&mut text)?;
    if text.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
    }
    Ok(text)
}
