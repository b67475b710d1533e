//! `copepod`: join a cluster and be a node of it.

use std::path::Path;

use super::Failure;
use crate::config::board::Board;
use crate::config::{read_bounded, AgentConfig, Values};
use crate::node::host;
use crate::{control, node};

/// What the kernel says of the processors, and bytes of it: each of a few hundred has a page.
const CPUINFO: (&str, u64) = ("/proc/cpuinfo", 1024 * 1024);

/// Runs until it is told to end.
///
/// # Errors
/// [`Failure`]
pub fn run(values: &Values) -> Result<(), Failure> {
    let host_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let config = AgentConfig::from_values(values, &host_name, host::memory())?;
    log::info!("{}", values.board.why);
    if let Some(board) = &values.board.board {
        check_cpu(board);
    }
    control::run(node::run(config)).map_err(|error| Failure::Failed(error.to_string()))
}

/// Says when the processor lacks what the board file says it has: then the file is for another board.
fn check_cpu(board: &Board) {
    let cpuinfo = match read_bounded(Path::new(CPUINFO.0), CPUINFO.1) {
        Ok(text) => text,
        Err(error) => return log::debug!("{}: {error}", CPUINFO.0),
    };
    let lacking = board.lacking(&cpuinfo);
    if !lacking.is_empty() {
        log::warn!(
            "board file {} is for a processor with {}, which this one does not have: is it for another \
             board? (--board names one, copepod board --list shows them)",
            board.name,
            lacking.join(", ")
        );
    }
}
