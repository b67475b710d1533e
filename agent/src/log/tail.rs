//! Finds where the last lines of a log begin, from its end.

use std::io;

use futures_lite::future;

use super::line::{self, HEADER};
use super::page_cache::read_at;
use super::reader::{Files, Position, CHUNK};

/// The start of the last `lines` lines, over all files of the run. A line in several parts is one, and so
/// is one that has no end yet.
pub(super) async fn locate(files: &mut Files, lines: u64) -> io::Result<Position> {
    let mut count = Count { wanted: lines, seen: 0, any: false, start: files.end };
    let mut number = files.end.number;
    while lines > 0 && number >= files.first {
        if let Some(file) = files.get(number).await? {
            let size = if number == files.end.number { files.end.offset } else { file.metadata()?.len() };
            let mut high = size;
            while high > 0 {
                let low = high.saturating_sub(CHUNK as u64);
                // An entry's header may lie beyond the place where the entry begins.
                let until = high.saturating_add(HEADER as u64).min(size);
                let length = usize::try_from(until.saturating_sub(low)).unwrap_or(0);
                let chunk = read_at(&file, low, length).await?;
                let inside = usize::try_from(high.saturating_sub(low)).unwrap_or(0);
                if count.entries_of(&chunk, inside, Position { number, offset: low }) {
                    return Ok(count.start);
                }
                high = low;
                future::yield_now().await;
            }
        }
        let Some(before) = number.checked_sub(1) else { break };
        number = before;
    }
    Ok(count.start)
}

struct Count {
    wanted: u64,
    seen: u64,
    any: bool,
    /// Where the last `seen` lines begin.
    start: Position,
}

impl Count {
    /// Goes backwards through the entries that begin after a line feed in the first `inside` bytes of
    /// `chunk`, and the one that begins the file. True when the lines are found.
    fn entries_of(&mut self, chunk: &[u8], inside: usize, at: Position) -> bool {
        let mut top = inside.min(chunk.len());
        loop {
            let feed = chunk.get(..top).unwrap_or_default().iter().rposition(|byte| *byte == b'\n');
            let begins = match feed {
                Some(feed) => feed.saturating_add(1),
                None if at.offset == 0 => 0,
                None => return false,
            };
            let start = Position { number: at.number, offset: at.offset.saturating_add(begins as u64) };
            if self.entry(chunk.get(begins..).unwrap_or_default(), start) {
                return true;
            }
            match feed {
                Some(feed) => top = feed,
                None => return false,
            }
        }
    }

    fn entry(&mut self, entry: &[u8], start: Position) -> bool {
        let header = entry.get(..HEADER).unwrap_or(entry);
        let Some(line::Entry { partial, .. }) = line::parse(header) else { return false };
        if !partial || !self.any {
            if self.seen == self.wanted {
                return true;
            }
            self.seen = self.seen.saturating_add(1);
        }
        self.any = true;
        self.start = start;
        false
    }
}
