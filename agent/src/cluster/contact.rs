//! Whether the API server answers, and since when: for the person in front of the machine.

use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

/// How the node stands to its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It belongs to none.
    Alone,
    /// It has not joined it yet.
    #[default]
    Joining,
    /// Its lease is renewed.
    Connected,
    /// It is not, and why.
    Away(String),
}

/// The standing, and since when it is that.
#[derive(Debug, Default)]
pub struct Contact(Mutex<(Standing, Timestamp)>);

impl Contact {
    /// From now on it is this; a further reason to be away is no change.
    pub fn set(&self, standing: Standing) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::discriminant(&known.0) != std::mem::discriminant(&standing)
            || known.1 == Timestamp::default()
        {
            known.1 = Timestamp::now();
        }
        known.0 = standing;
    }

    /// As it is, and since when.
    #[must_use]
    pub fn get(&self) -> (Standing, Timestamp) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_time_is_that_of_the_last_change() {
        let contact = Contact::default();
        contact.set(Standing::Connected);
        let (_, since) = contact.get();
        contact.set(Standing::Connected);
        assert_eq!(contact.get(), (Standing::Connected, since));
        contact.set(Standing::Away("no route".to_owned()));
        let (_, away) = contact.get();
        contact.set(Standing::Away("refused".to_owned()));
        assert_eq!(contact.get(), (Standing::Away("refused".to_owned()), away));
        assert!(away >= since);
    }
}
