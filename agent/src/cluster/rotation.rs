//! Certificates come to an end: each is renewed in time, and when what it says is not so any more.

use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

/// When the certificates that are used now end.
#[derive(Debug, Default)]
pub struct CertificateEnds(Mutex<[Option<Timestamp>; 2]>);

impl CertificateEnds {
    fn get(&self, index: usize) -> Option<Timestamp> {
        let ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ends.get(index).copied().flatten()
    }

    /// Of the client certificate, if the node has one.
    #[must_use]
    pub fn client(&self) -> Option<Timestamp> {
        self.get(0)
    }

    /// Of the serving certificate, if somebody signed it.
    #[must_use]
    pub fn serving(&self) -> Option<Timestamp> {
        self.get(1)
    }
}
