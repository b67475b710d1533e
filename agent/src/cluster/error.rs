//! What can go wrong between this agent and the API server.

use std::time::Duration;

use crate::api::Status;

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
    #[error("{what}: {}", status_text(status))]
    Refused {
        /// Method and path.
        what: String,
        /// Its status.
        status: Box<Status>,
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
    pub fn retry_after(&self) -> Option<Duration> {
        let ApiError::Refused { status, .. } = self else { return None };
        let seconds = u64::try_from(status.details.as_ref()?.retry_after_seconds).unwrap_or(0);
        (seconds > 0).then(|| Duration::from_secs(seconds.min(MAX_RETRY_AFTER)))
    }
}

/// The longest wait, in seconds, that an API server can ask for; a lease lasts 40.
const MAX_RETRY_AFTER: u64 = 30;

/// Code and words of a status.
fn status_text(status: &Status) -> String {
    let words = [&status.message, &status.reason].into_iter().find(|text| !text.is_empty());
    match words {
        Some(words) => format!("{} {words}", status.code),
        None => status.code.to_string(),
    }
}

/// What is wrong for the moment: told when it begins, when it becomes something else, and when it ends,
/// not at each try.
#[derive(Debug, Default)]
pub struct Outage(Option<(std::mem::Discriminant<ApiError>, Option<u16>)>);

impl Outage {
    /// `what` failed, and is tried again.
    pub fn report(&mut self, what: &str, error: &ApiError) {
        let kind = (std::mem::discriminant(error), error.code());
        if self.0.replace(kind) != Some(kind) {
            log::error!("{what}: {error}; trying again until it works");
        }
    }

    /// `what` works; whether it did not before.
    pub fn over(&mut self, what: &str) -> bool {
        let was = self.0.take().is_some();
        if was {
            log::info!("{what} works again");
        }
        was
    }
}
