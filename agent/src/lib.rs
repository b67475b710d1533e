//! Copepod, a Kubernetes node agent for machines too small for a kubelet.
//!
//! # The way of a pod
//!
//! A pod that the scheduler binds to this node passes through the rooms of this crate in this order:
//!
//! 1. [`cluster`] sees it on the pod watch and hands it to the supervisor; [`manifest`] reads static pods from files.
//! 2. [`supervisor`] keeps one task a pod. It asks [`pod`], which decides and touches nothing,
//!    what to do next, does it, and tells [`pod`] what happened.
//! 3. [`image`] pulls the module from its registry into a content-addressed store.
//! 4. [`volume`] lays out the folders that it mounts.
//! 5. [`runtime`] compiles the module and runs it as a guest, in slices of fuel, on the interpreter
//!    threads. What the guest prints goes to [`log`].
//! 6. [`pod`] turns what happened into a status; [`cluster`] patches it to the API server, with events.
//! 7. [`server`] answers the API server's questions about the pod: its logs, its state, and what it has used, which
//!    [`metrics`] puts into words; exec, attach and port-forward connect a client with it. [`console`] tells the person
//!    in front of the machine.
//!
//! Around them: [`node`] starts and ends the rooms and speaks for the node as a whole, [`config`] holds
//! every setting, [`command`] every sub-command, [`durable`] what must survive a power cut and the clock,
//! [`api`] the Kubernetes objects as this agent reads them, [`outgoing`] the connections that it opens, [`x509`] what certificates say, [`own_pages`] what of this program stays in
//! memory, and [`control`]
//! the control thread's executor.
//!
//! Dependencies point one way: [`runtime`] knows no Kubernetes type, [`cluster`] knows no Wasm type,
//! [`pod`] performs nothing.

mod allocator;
pub mod api;
pub mod cluster;
pub mod command;
pub mod config;
pub mod console;
pub mod control;
pub mod durable;
mod error_chain;
pub mod image;
pub mod log;
pub mod manifest;
pub mod metrics;
pub mod node;
mod outgoing;
mod own_pages;
pub mod pod;
pub mod runtime;
pub mod server;
pub mod supervisor;
pub mod volume;
mod x509;

pub use allocator::Heap;
pub use error_chain::error_chain;
