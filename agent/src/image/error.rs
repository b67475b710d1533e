//! Why a pull or a push failed, in the words that users of kubelet and containerd know.

use std::io;

use super::formats::Unrunnable;

/// The reason of a pull whose registry was not reached, or had no time: another try may go better.
pub const REGISTRY_UNAVAILABLE: &str = "RegistryUnavailable";

/// Why a registry did not give what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No name, no connection, no answer in time, or an answer of 429 or 5xx. Worth another try later.
    #[error("{0}")]
    Unavailable(String),
    /// Its certificate is not trusted.
    #[error("{0}")]
    Untrusted(String),
    /// No such repository, tag, manifest or blob.
    #[error("{0}")]
    NotFound(String),
    /// Missing or wrong credentials, or too few rights.
    #[error("{0}")]
    Denied(String),
    /// Against the protocol, or past a limit.
    #[error("{0}")]
    Protocol(String),
}

impl RegistryError {
    /// Whether another credential may be answered differently: many registries hide what one may
    /// not see behind "not found".
    pub(super) fn depends_on_credential(&self) -> bool {
        matches!(self, RegistryError::NotFound(_) | RegistryError::Denied(_))
    }

    /// The same error with its text changed.
    pub(super) fn map(self, change: impl Fn(String) -> String) -> RegistryError {
        match self {
            RegistryError::Unavailable(text) => RegistryError::Unavailable(change(text)),
            RegistryError::Untrusted(text) => RegistryError::Untrusted(change(text)),
            RegistryError::NotFound(text) => RegistryError::NotFound(change(text)),
            RegistryError::Denied(text) => RegistryError::Denied(change(text)),
            RegistryError::Protocol(text) => RegistryError::Protocol(change(text)),
        }
    }
}

/// Why a pull failed.
#[derive(Debug, thiserror::Error)]
#[error("failed to pull and unpack image \"{image}\": {cause}")]
pub struct PullError {
    /// The reference that was to be pulled.
    pub image: String,
    /// What went wrong. Its text is part of this error's own.
    pub cause: PullCause,
}

/// What went wrong in a pull.
#[derive(Debug, thiserror::Error)]
pub enum PullCause {
    /// The registry did not give the manifest.
    #[error("failed to resolve reference \"{reference}\": {error}")]
    Resolve {
        /// As in the pod, completed.
        reference: String,
        /// What the registry did instead.
        error: RegistryError,
    },
    /// The registry did not give a blob.
    #[error("failed to fetch {what}: {error}")]
    Fetch {
        /// The blob.
        what: String,
        /// What the registry did instead.
        error: RegistryError,
    },
    /// What came is not what its digest or size says.
    #[error("{0}")]
    Corrupt(String),
    /// A manifest, config or module past its limit.
    #[error("{0}")]
    TooLarge(String),
    /// A manifest or config that cannot be read.
    #[error("{0}")]
    Malformed(String),
    /// An image, but none that this node runs.
    #[error("{0}")]
    Unrunnable(Unrunnable),
    /// Nobody waits for it any more, or it took too long in all.
    #[error("given up: {0}")]
    GivenUp(&'static str),
    /// The store's file system.
    #[error("cannot store it: {0}")]
    Store(io::Error),
}

impl PullError {
    /// The waiting reason of the container (k8s.io/kubernetes pkg/kubelet/images/types.go).
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match &self.cause {
            PullCause::Resolve { error: RegistryError::Unavailable(_), .. }
            | PullCause::Fetch { error: RegistryError::Unavailable(_), .. } => REGISTRY_UNAVAILABLE,
            _ => "ErrImagePull",
        }
    }

    /// Whether the image itself is why: until it is pushed anew, every try will end the same way.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        matches!(self.cause, PullCause::Unrunnable(_) | PullCause::TooLarge(_) | PullCause::Malformed(_))
    }
}
