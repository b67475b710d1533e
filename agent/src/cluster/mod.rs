//! The API server: how this node joins it, what it is told, what it tells.
//!
//! - [`transport`], [`client`], [`watch`], [`error`]: one HTTP/2 connection and what goes over it.
//! - [`kubeconfig`]: where the server is and with what one proves oneself.
//! - [`certificates`], [`csr`], [`bootstrap`]: from a token to a certificate of the node's own;
//!   `clock`: not before the clock is set.
//! - [`rotation`]: how certificates are kept from ending; [`identity`] the client's, [`serving`] the kubelet API's.
//! - [`registration`], [`lease`]: the Node object and its Lease; [`crate::node::heartbeat`] keeps them true.
//! - [`pods`]: the pods bound to this node, and what is reported of them.
//! - [`events`]: what `kubectl describe` shows under Events.
//! - [`reviews`]: who may use the kubelet API.

pub mod bootstrap;
pub mod certificates;
pub mod client;
mod clock;
pub mod contact;
pub mod csr;
pub mod error;
pub mod events;
pub mod identity;
pub mod kubeconfig;
pub mod lease;
pub mod mirrors;
mod objects;
pub mod pods;
pub mod registration;
pub mod reviews;
pub mod rotation;
pub mod serving;
pub mod transport;
pub mod watch;

pub use client::{Call, Client, Patch};
pub use error::ApiError;
pub use rotation::CertificateEnds;
