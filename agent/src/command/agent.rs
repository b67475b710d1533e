//! `copepod`: join a cluster and be a node of it.

use super::Failure;
use crate::config::{AgentConfig, Values};
use crate::{control, node};

/// Runs until it is told to end.
///
/// # Errors
/// [`Failure`]
pub fn run(values: &Values) -> Result<(), Failure> {
    let host_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let config = AgentConfig::from_values(values, &host_name)?;
    control::run(node::run(config)).map_err(|error| Failure::Failed(error.to_string()))
}
