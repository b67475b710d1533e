//! What can go wrong between this agent and the API server.

use serde::Deserialize;

/// Why a request did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No connection: name, network, TLS.
    #[error("cannot reach the API server {server}: {problem}")]
    Unreachable {
        /// `host:port`
        server: String,
        /// Which step failed, and why.
        problem: String,
    },
    /// No answer in time, or the connection broke before or during the answer.
    #[error("{what}: {problem}")]
    Broken {
        /// Method and path.
        what: String,
        /// What happened.
        problem: String,
    },
    /// The API server answered with a status that is not a success.
    #[error("{what}: {status}")]
    Refused {
        /// Method and path.
        what: String,
        /// Its status.
        status: Status,
    },
    /// The answer is not what it should be: too large, not JSON, fields of another type.
    #[error("{what}: unusable answer: {problem}")]
    Unusable {
        /// Method and path.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl ApiError {
    /// The HTTP status code, when there was an answer.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            ApiError::Refused { status, .. } => Some(status.code),
            _ => None,
        }
    }

    /// Whether the API server answered with this code.
    #[must_use]
    pub fn is(&self, code: u16) -> bool {
        self.code() == Some(code)
    }

    /// How long the API server asks to be left alone, if it does.
    #[must_use]
    pub fn retry_after(&self) -> Option<std::time::Duration> {
        match self {
            ApiError::Refused { status, .. } => status
                .details
                .as_ref()
                .and_then(|details| details.retry_after_seconds)
                .map(|seconds| std::time::Duration::from_secs(seconds.min(MAX_RETRY_AFTER))),
            _ => None,
        }
    }
}

/// The longest wait, in seconds, that an API server can ask for; a lease lasts 40.
const MAX_RETRY_AFTER: u64 = 30;

/// `meta/v1` `Status`, as far as it is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Status {
    /// The HTTP status code.
    pub code: u16,
    /// One word: `NotFound`, `AlreadyExists`, `Expired`.
    pub reason: Option<String>,
    /// A sentence.
    pub message: Option<String>,
    /// More, for some reasons.
    pub details: Option<StatusDetails>,
}

/// `meta/v1` `StatusDetails`, as far as it is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StatusDetails {
    /// For 429 and 503.
    pub retry_after_seconds: Option<u64>,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.code)?;
        match (&self.message, &self.reason) {
            (Some(message), _) => write!(f, " {message}"),
            (None, Some(reason)) => write!(f, " {reason}"),
            (None, None) => Ok(()),
        }
    }
}
