//! Pulls with credentials.
