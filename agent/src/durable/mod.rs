//! What must survive a power cut, and the clock.
//!
//! A file is whole or absent: written under a temporary name, synced, renamed, and its folder synced.

mod checkpoints;
pub mod clock;
mod clock_step;
mod file;
mod file_state;

pub use checkpoints::Checkpoints;
pub use clock_step::ClockStep;
pub use file::{ensure_private_dir, is_plain_name, lock_dir, remove_if_exists, write_atomic};
pub use file_state::{FileState, FolderWatch};
