//! Guest memory as the calls see it: every access checked against its bounds, little-endian.

use super::{Errno, Stop, Wasi};

/// Buffers of one scattered read or write (`IOV_MAX` of Linux).
pub const MAX_IOVECS: u32 = 1024;
/// Bytes that one host call moves at most, so that no call holds an interpreter thread for long.
/// Reads and writes answer a shorter count, as POSIX allows.
pub const CHUNK: usize = 64 * 1024;
/// Longest path that is taken from a guest (`PATH_MAX` of Linux).
pub const MAX_PATH: u32 = 4096;

/// One buffer in guest memory.
#[derive(Clone, Copy, Debug)]
pub struct Iovec {
    /// Address.
    pub at: u32,
    /// Bytes.
    pub len: u32,
}

/// A guest's linear memory.
///
/// A pointer outside of it traps, as the text of preview 1 asks (witx, "Pointers"). Alignment is not
/// checked: no access here needs it.
pub struct Memory<'a> {
    bytes: &'a mut [u8],
}

/// The part of `buffers` that begins after `skip` bytes and has `room` bytes at most, none of it empty.
pub fn part(buffers: &[Iovec], skip: usize, room: usize) -> Vec<Iovec> {
    // Buffers lie in a memory of 32 bits, but may overlap: their sum may not fit one.
    let mut skip = u64::try_from(skip).unwrap_or(u64::MAX);
    let mut room = u32::try_from(room).unwrap_or(u32::MAX);
    let mut part = Vec::new();
    for &Iovec { at, len } in buffers {
        let skipped = u32::try_from(skip).unwrap_or(u32::MAX).min(len);
        skip = skip.saturating_sub(skipped.into());
        let len = len.saturating_sub(skipped).min(room);
        room = room.saturating_sub(len);
        if len > 0 {
            part.push(Iovec { at: at.saturating_add(skipped), len });
        }
    }
    part
}

fn outside() -> Stop {
    Stop::Trap("a pointer given to a WASI call lies outside the guest's memory".into())
}

impl<'a> Memory<'a> {
    /// Looks at all of linear memory.
    pub fn new(bytes: &'a mut [u8]) -> Memory<'a> {
        Memory { bytes }
    }

    /// `len` bytes at `at`.
    pub fn bytes(&self, at: u32, len: u32) -> Wasi<&[u8]> {
        let start = usize::try_from(at).map_err(|_| outside())?;
        let end = usize::try_from(len).ok().and_then(|len| start.checked_add(len)).ok_or_else(outside)?;
        self.bytes.get(start..end).ok_or_else(outside)
    }

    /// `len` bytes at `at`, to write to.
    pub fn bytes_mut(&mut self, at: u32, len: u32) -> Wasi<&mut [u8]> {
        let start = usize::try_from(at).map_err(|_| outside())?;
        let end = usize::try_from(len).ok().and_then(|len| start.checked_add(len)).ok_or_else(outside)?;
        self.bytes.get_mut(start..end).ok_or_else(outside)
    }

    fn array<const N: usize>(&self, at: u32) -> Wasi<[u8; N]> {
        let len = u32::try_from(N).map_err(|_| outside())?;
        self.bytes(at, len)?.try_into().map_err(|_| outside())
    }

    /// An 8-bit number.
    pub fn u8(&self, at: u32) -> Wasi<u8> {
        Ok(u8::from_le_bytes(self.array(at)?))
    }
    /// A 16-bit number.
    pub fn u16(&self, at: u32) -> Wasi<u16> {
        Ok(u16::from_le_bytes(self.array(at)?))
    }
    /// A 32-bit number.
    pub fn u32(&self, at: u32) -> Wasi<u32> {
        Ok(u32::from_le_bytes(self.array(at)?))
    }
    /// A 64-bit number.
    pub fn u64(&self, at: u32) -> Wasi<u64> {
        Ok(u64::from_le_bytes(self.array(at)?))
    }

    /// Copies `value` to `at`.
    pub fn write(&mut self, at: u32, value: &[u8]) -> Wasi<()> {
        let len = u32::try_from(value.len()).map_err(|_| outside())?;
        self.bytes_mut(at, len)?.copy_from_slice(value);
        Ok(())
    }
    /// Writes a 32-bit number.
    pub fn write_u32(&mut self, at: u32, value: u32) -> Wasi<()> {
        self.write(at, &value.to_le_bytes())
    }
    /// Writes a 64-bit number.
    pub fn write_u64(&mut self, at: u32, value: u64) -> Wasi<()> {
        self.write(at, &value.to_le_bytes())
    }
    /// Writes a size; what the guest's 32 bits cannot hold is EOVERFLOW.
    pub fn write_size(&mut self, at: u32, value: usize) -> Wasi<()> {
        let value = u32::try_from(value).map_err(|_| Errno::Overflow)?;
        self.write_u32(at, value)
    }

    /// A path: UTF-8, without NUL, at most [`MAX_PATH`] bytes.
    pub fn path(&self, at: u32, len: u32) -> Wasi<&str> {
        if len > MAX_PATH {
            return Err(Errno::Nametoolong.into());
        }
        let text = std::str::from_utf8(self.bytes(at, len)?).map_err(|_| Errno::Ilseq)?;
        if text.contains('\0') {
            return Err(Errno::Ilseq.into());
        }
        Ok(text)
    }

    /// The buffers of a scattered call, each within memory.
    pub fn buffers(&self, at: u32, count: u32) -> Wasi<Vec<Iovec>> {
        if count > MAX_IOVECS {
            return Err(Errno::Inval.into());
        }
        let mut buffers = Vec::new();
        for index in 0..count {
            let entry = at.checked_add(index.saturating_mul(8)).ok_or_else(outside)?;
            let (start, len) = (self.u32(entry)?, self.u32(entry.saturating_add(4))?);
            self.bytes(start, len)?;
            buffers.push(Iovec { at: start, len });
        }
        Ok(buffers)
    }

    /// [`Memory::buffers`], cut so that they sum to at most [`CHUNK`].
    pub fn iovecs(&self, at: u32, count: u32) -> Wasi<Vec<Iovec>> {
        Ok(part(&self.buffers(at, count)?, 0, CHUNK))
    }

    /// The bytes of `buffers`, one after the other. One buffer is lent, several are copied together.
    pub fn gather(&self, buffers: &[Iovec]) -> Wasi<std::borrow::Cow<'_, [u8]>> {
        if let [only] = buffers {
            return Ok(self.bytes(only.at, only.len)?.into());
        }
        let mut all = Vec::new();
        for buffer in buffers {
            all.extend_from_slice(self.bytes(buffer.at, buffer.len)?);
        }
        Ok(all.into())
    }

    /// Copies `data` into `buffers`, one after the other.
    pub fn scatter(&mut self, buffers: &[Iovec], mut data: &[u8]) -> Wasi<()> {
        for buffer in buffers {
            let len = data.len().min(usize::try_from(buffer.len).unwrap_or(usize::MAX));
            let (now, later) = data.split_at_checked(len).unwrap_or((data, &[]));
            self.write(buffer.at, now)?;
            data = later;
        }
        Ok(())
    }
}
