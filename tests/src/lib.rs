//! Copepod's test bed: a real control plane, real registries and real guests around the agent.
//!
//! A [`Bed`] is a set of namespaces with a whole cluster in it, and everything in it ends with the
//! process that started it, whatever happens to that. Beds do not see each other, so several run
//! side by side. Reading order:
//!
//! 1. [`bed::walls`] makes the namespaces, and enters them.
//! 2. [`bed::certificates`] and [`bed::control_plane`] fill them with a cluster.
//! 3. [`registry`] adds registries, [`guests`] compiles what runs, [`agent`] starts the program
//!    under test, [`kubectl`] talks to the cluster as a user does.
//!    [`board`] starts it on an emulated board instead, [`debian`] is a system to install its package in.
//! 4. [`cluster`] puts all of it together for the tests of one file.
//!
//! Whatever goes wrong ends the test by a panic that says what was attempted; a hook prints the last
//! lines of every log of the bed after it. `COPEPOD_KEEP=1` keeps the bed's folder.

pub mod agent;
pub mod bed;
pub mod board;
pub mod card;
pub mod cluster;
pub mod debian;
pub mod guests;
pub mod kubectl;
pub mod registry;
pub mod tools;

pub use agent::Agent;
pub use bed::Bed;
pub use board::Board;
pub use cluster::Cluster;
