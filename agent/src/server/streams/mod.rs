//! What a connection becomes that stops being HTTP: exec, attach and port-forward.
//!
//! [`upgrade`] answers a request with what both sides speak from then on, and has the connection's task go on with
//! it. [`link`] is the bytes, [`spdy`] and [`websocket`] the frames on them, [`remote_command`] and [`port_forward`]
//! what the frames are about.

mod header_block;
mod idle;
mod link;
pub mod port_forward;
pub mod remote_command;
mod spdy;
mod upgrade;
mod websocket;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests;

pub(super) use self::upgrade::{upgrade, Asked, Session};

/// Clients of exec, attach and port-forward at one time.
pub(super) const MAX_SESSIONS: usize = 32;
