//! Unpacks the layers of an image into a folder (OCI image-spec layer.md): what an `image` volume shows.
//!
//! An archive is a stranger's: each of its names is resolved beneath the folder, whatever links it has put there
//! before, and sizes and counts have limits. Links are made as they are, and lead nowhere for whoever resolves them
//! beneath the folder, as guests do. Devices and FIFOs are left out, owners and times too.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use miniz_oxide::inflate::core::{decompress, inflate_flags, DecompressorOxide};
use miniz_oxide::inflate::TINFLStatus;
use rustix::fs::{fchmod, linkat, symlinkat, unlinkat, AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use crate::runtime::beneath::Beneath;

/// Bytes of all files of an image together, and how many names it may have.
pub(super) const MAX_BYTES: u64 = 512 << 20;
const MAX_NAMES: u64 = 100_000;
/// A header or a padded end of a file.
const BLOCK: usize = 512;
/// Bytes of the extended headers of one file: its name, and what nobody reads here.
const MAX_EXTENDED: u64 = 64 << 10;
/// Bytes of a path.
const MAX_PATH: usize = 4096;
/// How a name begins that takes another away (layer.md, Whiteouts).
const WHITEOUT: &str = ".wh.";
/// Takes away all that lower layers have in its folder.
const OPAQUE: &str = ".wh..wh..opq";
/// How far deflate looks back; a power of two, and no less than 32 KiB.
const WINDOW: usize = 64 << 10;
/// Bytes that are read at a time.
const CHUNK: usize = 16 << 10;

/// What unpacking may still take.
#[derive(Debug)]
pub(super) struct Room {
    bytes: u64,
    names: u64,
}

impl Default for Room {
    fn default() -> Room {
        Room { bytes: MAX_BYTES, names: MAX_NAMES }
    }
}

fn wrong(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

/// Unpacks a layer, a tar archive that may be compressed by gzip, over what is in `root`.
pub(super) fn layer(root: &Beneath, archive: File, room: &mut Room) -> io::Result<()> {
    let mut archive = io::BufReader::with_capacity(CHUNK, archive);
    let mut magic = [0; 4];
    let read = io::BufRead::fill_buf(&mut archive)?;
    for (to, from) in magic.iter_mut().zip(read) {
        *to = *from;
    }
    match magic {
        [0x1f, 0x8b, ..] => unpack(root, &mut Gunzip::new(archive)?, room),
        [0x28, 0xb5, 0x2f, 0xfd] => Err(wrong("it is compressed by zstd, which this node does not unpack")),
        _ => unpack(root, &mut archive, room),
    }
}

/// Puts a single file into `root`, under a plain name.
pub(super) fn single(root: &Beneath, name: &str, mut content: File) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let mut file = File::from(root.open(name, flags, Mode::from_raw_mode(0o644), false)?);
    io::copy(&mut content, &mut file)?;
    Ok(())
}

/// One file of an archive.
#[derive(Debug, Default)]
struct Header {
    path: String,
    link: String,
    size: u64,
    mode: u32,
    kind: u8,
}

/// What extended headers say of the file that follows.
#[derive(Debug, Default)]
struct Extended {
    path: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

fn unpack(root: &Beneath, archive: &mut impl Read, room: &mut Room) -> io::Result<()> {
    let mut extended = Extended::default();
    loop {
        let mut block = [0; BLOCK];
        if !fill(archive, &mut block)? || block.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let mut header = parse(&block)?;
        match header.kind {
            b'x' | b'L' | b'K' => {
                if header.size > MAX_EXTENDED {
                    return Err(wrong("an extended header is too long"));
                }
                let mut data = vec![0; usize::try_from(header.size).unwrap_or(0)];
                archive.read_exact(&mut data)?;
                skip(archive, padding(header.size))?;
                match header.kind {
                    b'L' => extended.path = Some(text(&data)?),
                    b'K' => extended.link = Some(text(&data)?),
                    _ => pax(&data, &mut extended)?,
                }
                continue;
            }
            b'g' => {
                skip(archive, header.size.saturating_add(padding(header.size)))?;
                continue;
            }
            _ => {}
        }
        let Extended { path, link, size } = std::mem::take(&mut extended);
        header.path = path.unwrap_or(header.path);
        header.link = link.unwrap_or(header.link);
        header.size = size.unwrap_or(header.size);
        room.names =
            room.names.checked_sub(1).ok_or_else(|| wrong(format!("more than {MAX_NAMES} names")))?;
        let padding = padding(header.size);
        let mut content = archive.take(header.size);
        place(root, &header, &mut content, room)
            .map_err(|error| io::Error::new(error.kind(), format!("{:?}: {error}", header.path)))?;
        let left = content.limit();
        skip(archive, left.saturating_add(padding))?;
    }
}

fn padding(size: u64) -> u64 {
    let block = BLOCK as u64;
    size.next_multiple_of(block).saturating_sub(size)
}

/// Fills the block; false: there was nothing more.
fn fill(archive: &mut impl Read, block: &mut [u8; BLOCK]) -> io::Result<bool> {
    let mut at = 0;
    while at < BLOCK {
        match archive.read(block.get_mut(at..).unwrap_or(&mut []))? {
            0 if at == 0 => return Ok(false),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => at = at.saturating_add(read),
        }
    }
    Ok(true)
}

fn skip(archive: &mut impl Read, bytes: u64) -> io::Result<()> {
    let skipped = io::copy(&mut archive.take(bytes), &mut io::sink())?;
    if skipped == bytes {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Up to the first NUL.
fn text(bytes: &[u8]) -> io::Result<String> {
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8(bytes.to_vec()).map_err(|_| wrong("a name is not UTF-8"))
}

/// A number, in octal or, where it begins so, in base 256.
fn number(bytes: &[u8]) -> io::Result<u64> {
    if let Some((first, rest)) = bytes.split_first().filter(|(first, _)| **first & 0x80 != 0) {
        let start = u64::from(first & 0x7f);
        let add = |sum: u64, byte: &u8| sum.checked_mul(256)?.checked_add(u64::from(*byte));
        return rest.iter().try_fold(start, add).ok_or_else(|| wrong("a number is too large"));
    }
    let digits = text(bytes)?;
    match digits.trim() {
        "" => Ok(0),
        digits => u64::from_str_radix(digits, 8).map_err(|_| wrong("a number is none")),
    }
}

fn parse(block: &[u8; BLOCK]) -> io::Result<Header> {
    let field = |at: usize, len: usize| block.get(at..at.saturating_add(len)).unwrap_or_default();
    let sum = block.iter().enumerate().map(|(at, byte)| match at {
        148..=155 => u64::from(b' '),
        _ => u64::from(*byte),
    });
    if number(field(148, 8)).ok() != Some(sum.sum::<u64>()) {
        return Err(wrong("it is no tar archive, or damaged"));
    }
    let mut path = text(field(0, 100))?;
    let prefix = text(field(345, 155))?;
    if field(257, 6) == b"ustar\0" && !prefix.is_empty() {
        path = format!("{prefix}/{path}");
    }
    let kind = field(156, 1).first().copied().unwrap_or(0);
    let mode = u32::try_from(number(field(100, 8))?).unwrap_or(0);
    Ok(Header { path, link: text(field(157, 100))?, size: number(field(124, 12))?, mode, kind })
}

/// `LENGTH KEY=VALUE` records (POSIX pax).
fn pax(data: &[u8], extended: &mut Extended) -> io::Result<()> {
    let mut rest = data;
    while !rest.is_empty() {
        let broken = || wrong("an extended header is broken");
        let blank = rest.iter().position(|byte| *byte == b' ').ok_or_else(broken)?;
        let length = rest.get(..blank).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        let (record, after) = rest.split_at_checked(length.ok_or_else(broken)?).ok_or_else(broken)?;
        let record = record.get(blank.saturating_add(1)..).and_then(|record| record.strip_suffix(b"\n"));
        let record = std::str::from_utf8(record.ok_or_else(broken)?).map_err(|_| broken())?;
        let (key, value) = record.split_once('=').ok_or_else(broken)?;
        match key {
            "path" => extended.path = Some(value.to_owned()),
            "linkpath" => extended.link = Some(value.to_owned()),
            "size" => extended.size = Some(value.parse().map_err(|_| broken())?),
            _ => {}
        }
        rest = after;
    }
    Ok(())
}

/// Puts one file in its place.
fn place(root: &Beneath, header: &Header, content: &mut impl Read, room: &mut Room) -> io::Result<()> {
    let path = plain(&header.path)?;
    if path.is_empty() {
        return Ok(());
    }
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
    root.make_folders(folder, Mode::from_raw_mode(0o755))?;
    let parent = root.open(if folder.is_empty() { "." } else { folder }, FOLDER, Mode::empty(), false)?;
    if name == OPAQUE {
        return clear(parent);
    }
    if let Some(hidden) = name.strip_prefix(WHITEOUT) {
        return remove(&parent, hidden);
    }
    match header.kind {
        0 | b'0' | b'7' => {
            remove_file(&parent, name)?;
            room.bytes = room
                .bytes
                .checked_sub(header.size)
                .ok_or_else(|| wrong(format!("its files have more than {MAX_BYTES} bytes")))?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o600))?;
            let mut file = File::from(fd);
            io::copy(content, &mut file)?;
            // Readable by this agent, and by it alone to be written.
            fchmod(&file, Mode::from_raw_mode((header.mode & 0o755) | 0o600))?;
        }
        b'1' => {
            let target =
                root.open(&plain(&header.link)?, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty(), false)?;
            remove_file(&parent, name)?;
            let own = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&target));
            linkat(rustix::fs::CWD, own.as_str(), &parent, name, AtFlags::SYMLINK_FOLLOW)?;
        }
        b'2' => {
            remove_file(&parent, name)?;
            symlinkat(header.link.as_str(), &parent, name)?;
        }
        b'5' => {
            if rustix::fs::openat(&parent, name, FOLDER | OFlags::NOFOLLOW, Mode::empty()).is_err() {
                remove_file(&parent, name)?;
                rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
            }
        }
        // A device or a FIFO.
        b'3' | b'4' | b'6' => {}
        other => return Err(wrong(format!("a file of the kind {:?}", char::from(other)))),
    }
    Ok(())
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A path as archives have it, without what leads elsewhere.
fn plain(path: &str) -> io::Result<String> {
    if path.len() > MAX_PATH {
        return Err(wrong("a path is too long"));
    }
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
    if names.contains(&"..") {
        return Err(wrong("a path has .. in it"));
    }
    Ok(names.join("/"))
}

/// Takes away what has this name, but no folder that something is in.
fn remove_file(parent: &OwnedFd, name: &str) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => remove(parent, name),
        Err(error) => Err(error.into()),
    }
}

/// Takes away what has this name, with all that is in it.
fn remove(parent: &OwnedFd, name: &str) -> io::Result<()> {
    if name.is_empty() || name == "." || name == ".." {
        return Err(wrong("a name that is none"));
    }
    match rustix::fs::openat(parent, name, FOLDER | OFlags::NOFOLLOW, Mode::empty()) {
        Ok(folder) => {
            clear(folder)?;
            unlinkat(parent, name, AtFlags::REMOVEDIR)?;
            Ok(())
        }
        Err(Errno::NOENT) => Ok(()),
        Err(_) => Ok(unlinkat(parent, name, AtFlags::empty())?),
    }
}

/// Takes away all that is in a folder: as deep as an image may be, which is less than the stack takes.
fn clear(folder: OwnedFd) -> io::Result<()> {
    let names = Dir::read_from(&folder)?
        .map(|entry| entry.map(|entry| entry.file_name().to_owned()))
        .collect::<Result<Vec<_>, _>>()?;
    for name in names {
        match name.to_str() {
            Ok("." | "..") => {}
            Ok(name) => remove(&folder, name)?,
            Err(_) => unlinkat(&folder, &*name, AtFlags::empty())?,
        }
    }
    Ok(())
}

/// Reads what gzip has compressed (RFC 1952). The archive's own digest has been checked: its checksum says no more.
struct Gunzip<R> {
    from: R,
    state: Box<DecompressorOxide>,
    input: Vec<u8>,
    /// How much of `input` is used up.
    used: usize,
    /// What came out last; a ring.
    window: Vec<u8>,
    /// Where the next comes out.
    at: usize,
    /// What came out and was not read yet: from here, so much.
    ready: (usize, usize),
    ended: bool,
}

impl<R: Read> Gunzip<R> {
    fn new(from: R) -> io::Result<Gunzip<R>> {
        let mut gunzip = Gunzip {
            from,
            state: Box::default(),
            input: Vec::new(),
            used: 0,
            window: vec![0; WINDOW],
            at: 0,
            ready: (0, 0),
            ended: false,
        };
        if !gunzip.member()? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(gunzip)
    }

    /// Sees to it that there is input; false: there is no more.
    fn refill(&mut self) -> io::Result<bool> {
        if self.used < self.input.len() {
            return Ok(true);
        }
        self.input.resize(CHUNK, 0);
        let read = self.from.read(&mut self.input)?;
        self.input.truncate(read);
        self.used = 0;
        Ok(read > 0)
    }

    fn byte(&mut self) -> io::Result<u8> {
        if !self.refill()? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let byte = self.input.get(self.used).copied().unwrap_or(0);
        self.used = self.used.saturating_add(1);
        Ok(byte)
    }

    /// Reads the head of a member; false: there is none.
    fn member(&mut self) -> io::Result<bool> {
        if !self.refill()? {
            return Ok(false);
        }
        let mut head = [0; 10];
        for byte in &mut head {
            *byte = self.byte()?;
        }
        let [0x1f, 0x8b, 8, flags, ..] = head else { return Err(wrong("it is not compressed by gzip")) };
        if flags & 4 != 0 {
            let length = u16::from_le_bytes([self.byte()?, self.byte()?]);
            for _ in 0..length {
                self.byte()?;
            }
        }
        for flag in [8, 16] {
            while flags & flag != 0 && self.byte()? != 0 {}
        }
        if flags & 2 != 0 {
            self.byte()?;
            self.byte()?;
        }
        self.state.init();
        Ok(true)
    }

    fn inflate(&mut self) -> io::Result<()> {
        let more = self.refill()?;
        let input = self.input.get(self.used..).unwrap_or_default();
        let flags = if more { inflate_flags::TINFL_FLAG_HAS_MORE_INPUT } else { 0 };
        let (status, read, written) = decompress(&mut self.state, input, &mut self.window, self.at, flags);
        self.used = self.used.saturating_add(read);
        self.ready = (self.at, written);
        self.at = self.at.saturating_add(written) % WINDOW;
        match status {
            TINFLStatus::Done => {
                // Its checksum and size.
                for _ in 0..8 {
                    self.byte()?;
                }
                self.ended = !self.member()?;
                Ok(())
            }
            TINFLStatus::HasMoreOutput => Ok(()),
            TINFLStatus::NeedsMoreInput if more => Ok(()),
            TINFLStatus::NeedsMoreInput => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Err(wrong("what gzip has compressed is damaged")),
        }
    }
}

impl<R: Read> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.ready.1 == 0 && !self.ended {
            self.inflate()?;
        }
        let (from, len) = self.ready;
        let taken = len.min(buffer.len());
        let ready = self.window.get(from..from.saturating_add(taken)).unwrap_or_default();
        (&mut *buffer).write_all(ready)?;
        self.ready = (from.saturating_add(taken), len.saturating_sub(taken));
        Ok(taken)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
#[path = "unpack_tests.rs"]
mod tests;
