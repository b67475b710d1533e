//! Blocks of headers in SPDY/3: names and values, compressed as one zlib stream a direction, which begins with a
//! dictionary that both sides know.

use std::io;

use miniz_oxide::inflate::core::{decompress, inflate_flags, DecompressorOxide};
use miniz_oxide::inflate::TINFLStatus;

use super::link::wrong;

/// The dictionary (SPDY/3, section 2.6.10.1): 1423 bytes.
const DICTIONARY: &[u8] = include_bytes!("spdy.dict");
/// What zlib calls it: its Adler-32 (RFC 1950, DICTID).
const DICTIONARY_ID: [u8; 4] = [0xe3, 0xc6, 0xa7, 0xc2];
/// How far back a compressed stream may refer.
const WINDOW: usize = 32 * 1024;
/// Bytes of one block when it is read.
pub const MAX_BLOCK: usize = 64 * 1024;
/// Headers in one block.
const MAX_HEADERS: usize = 64;

/// Names, in lower case, and values.
pub type Headers = Vec<(String, String)>;

/// Reads the blocks of one direction of a connection, each in its turn.
pub struct HeaderBlocks {
    inflate: DecompressorOxide,
    window: Box<[u8]>,
    /// Where in the window the next byte goes.
    at: usize,
    /// The head of the zlib stream was read.
    begun: bool,
}

impl Default for HeaderBlocks {
    fn default() -> HeaderBlocks {
        let mut window = vec![0; WINDOW].into_boxed_slice();
        if let Some(start) = window.get_mut(..DICTIONARY.len()) {
            start.copy_from_slice(DICTIONARY);
        }
        HeaderBlocks { inflate: DecompressorOxide::new(), window, at: DICTIONARY.len(), begun: false }
    }
}

impl HeaderBlocks {
    /// Reads a block.
    ///
    /// # Errors
    /// When it is not compressed as it should be, or longer than [`MAX_BLOCK`], or no block of headers.
    pub fn read(&mut self, compressed: &[u8]) -> io::Result<Headers> {
        let compressed = match self.begun {
            true => compressed,
            false => begin(compressed)?,
        };
        self.begun = true;
        let block = self.inflate(compressed)?;
        parse(&block).ok_or_else(|| wrong("a block of headers that ends too soon, or is no text"))
    }

    fn inflate(&mut self, mut compressed: &[u8]) -> io::Result<Vec<u8>> {
        let mut block = Vec::new();
        loop {
            let flags = inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
            let (status, read, written) =
                decompress(&mut self.inflate, compressed, &mut self.window, self.at, flags);
            let end = self.at.saturating_add(written);
            block.extend_from_slice(self.window.get(self.at..end).unwrap_or_default());
            self.at = end % WINDOW;
            compressed = compressed.get(read..).unwrap_or_default();
            if block.len() > MAX_BLOCK {
                return Err(wrong("a block of headers that is too long"));
            }
            match status {
                TINFLStatus::HasMoreOutput => {}
                TINFLStatus::NeedsMoreInput if compressed.is_empty() => return Ok(block),
                _ => return Err(wrong("a block of headers that is not compressed as zlib does")),
            }
        }
    }
}

/// What follows the head of a zlib stream that names our dictionary (RFC 1950).
fn begin(compressed: &[u8]) -> io::Result<&[u8]> {
    let (method, flags, id, rest) = match compressed {
        [method, flags, a, b, c, d, rest @ ..] => (*method, *flags, [*a, *b, *c, *d], rest),
        _ => return Err(wrong("a block of headers without zlib's head")),
    };
    let sound = u16::from_be_bytes([method, flags]) % 31 == 0;
    if !sound || method & 0x0f != 8 || flags & 0x20 == 0 || id != DICTIONARY_ID {
        return Err(wrong("a block of headers with another head than zlib's for SPDY/3"));
    }
    Ok(rest)
}

/// A count, then each name and value with its length: all 32-bit, big-endian.
fn parse(mut block: &[u8]) -> Option<Headers> {
    fn number(block: &mut &[u8]) -> Option<usize> {
        let (number, rest) = block.split_first_chunk()?;
        *block = rest;
        usize::try_from(u32::from_be_bytes(*number)).ok()
    }
    fn text(block: &mut &[u8]) -> Option<String> {
        let len = number(block)?;
        let (text, rest) = block.split_at_checked(len)?;
        *block = rest;
        String::from_utf8(text.to_vec()).ok()
    }
    let count = number(&mut block)?;
    if count > MAX_HEADERS {
        return None;
    }
    (0..count).map(|_| Some((text(&mut block)?, text(&mut block)?))).collect()
}
