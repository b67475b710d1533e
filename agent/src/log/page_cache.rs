//! Reads that do not make the control thread wait for a disk.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::io::ReadWriteFlags;

use crate::control;

/// Reads `length` bytes, fewer only at the end of the file. What the page cache holds is copied at
/// once; for the rest, and on file systems that cannot tell, a blocking thread is asked.
pub(super) async fn read_at(file: &Arc<File>, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; length];
    let slices = &mut [IoSliceMut::new(&mut buffer)];
    // Any error (EAGAIN, EOPNOTSUPP, ENOSYS, EIO) is asked for again, and reported, below.
    let cached = rustix::io::preadv2(&**file, slices, offset, ReadWriteFlags::NOWAIT).unwrap_or(0);
    if cached == length {
        return Ok(buffer);
    }
    let file = file.clone();
    control::blocking(move || {
        let mut filled = cached;
        while let Some(space) = buffer.get_mut(filled..).filter(|space| !space.is_empty()) {
            match file.read_at(space, offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(read) => filled = filled.saturating_add(read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        buffer.truncate(filled);
        Ok(buffer)
    })
    .await
}
