//! What a module writes into its linear memory to begin with, for guests that sleep.
//!
//! Of a Rust or Go program, pages of tables and texts hold for ever what the module's data segments put there. A
//! guest that waits for long gives such pages back, and has them written again when it goes on: a thousand sleepers
//! share the module's one copy.

use std::ops::Range;

use super::pages::{give_back, page_len, whole_pages};
use super::sections::Segment;

/// Smallest segment that is worth it: one that cannot hold a page has none to give.
const LEAST_SEGMENT: usize = 4096;
/// Bytes of all segments that are kept for a module. Writing so much again takes some 0.1 ms on a desktop machine, a
/// millisecond on a small board.
const MOST_KEPT: usize = 512 * 1024;

/// The data segments of a module.
#[derive(Debug, Default)]
pub struct Initial {
    /// Each with where it begins in linear memory.
    segments: Vec<(usize, Box<[u8]>)>,
}

/// Pages that a guest has given back: ranges of its memory, each within one segment.
pub type Forgotten = Vec<Range<usize>>;

impl Initial {
    /// Keeps copies of the first of `segments` that are large enough.
    pub fn new(module: &[u8], segments: &[Segment]) -> Initial {
        let (mut kept, mut room) = (Vec::new(), MOST_KEPT);
        for segment in segments {
            let Some(bytes) = module.get(segment.bytes.clone()) else { continue };
            let Some(rest) = room.checked_sub(bytes.len()) else { continue };
            if bytes.len() >= LEAST_SEGMENT {
                room = rest;
                kept.push((segment.at, Box::from(bytes)));
            }
        }
        Initial { segments: kept }
    }

    /// Gives back every page of `memory` that holds what it held to begin with. It reads as zeros until it is
    /// restored.
    pub fn forget(&self, memory: &mut [u8]) -> Forgotten {
        let mut forgotten = Forgotten::new();
        let page = page_len();
        for (at, bytes) in &self.segments {
            let Some(now) = memory.get_mut(*at..at.saturating_add(bytes.len())) else { continue };
            let whole = whole_pages(now);
            let (Some(now), Some(bytes)) = (now.get_mut(whole.clone()), bytes.get(whole.clone())) else {
                continue;
            };
            let mut run = 0..0;
            for (index, (is, was)) in now.chunks_exact(page).zip(bytes.chunks_exact(page)).enumerate() {
                let start = index.saturating_mul(page);
                if is == was {
                    run = if run.end == start { run.start..start } else { start..start };
                    run.end = start.saturating_add(page);
                    continue_run(&mut forgotten, at.saturating_add(whole.start), &run);
                }
            }
        }
        for range in &forgotten {
            give_back(memory.get_mut(range.clone()).unwrap_or(&mut []));
        }
        forgotten
    }

    /// Writes again what was forgotten.
    pub fn restore(&self, memory: &mut [u8], forgotten: &Forgotten) {
        for range in forgotten {
            let holds = |(at, bytes): &&(usize, Box<[u8]>)| {
                *at <= range.start && range.end <= at.saturating_add(bytes.len())
            };
            let Some((at, bytes)) = self.segments.iter().find(holds) else { continue };
            let from = range.start.saturating_sub(*at)..range.end.saturating_sub(*at);
            if let (Some(to), Some(from)) = (memory.get_mut(range.clone()), bytes.get(from)) {
                to.copy_from_slice(from);
            }
        }
    }
}

/// Notes a run of pages of a segment whose first whole page is at `base`; one that has grown takes its own place.
fn continue_run(forgotten: &mut Forgotten, base: usize, run: &Range<usize>) {
    let range = base.saturating_add(run.start)..base.saturating_add(run.end);
    match forgotten.last_mut() {
        Some(last) if last.start == range.start => *last = range,
        _ => forgotten.push(range),
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Linear memory of nine pages that begins somewhere within a page, and where its first whole page is.
    fn memory() -> (Vec<u8>, usize) {
        let memory = vec![0_u8; 9 * page_len()];
        let first = whole_pages(&memory).start;
        (memory, first)
    }

    #[test]
    fn unchanged_pages_are_forgotten_and_come_back() {
        let page = page_len();
        let (mut memory, first) = memory();
        // A segment of five pages and a half, from the middle of a page on.
        let at = first + page / 2;
        let module: Vec<u8> = (0..5 * page + page / 2).map(|index| (index % 251) as u8 + 1).collect();
        let segment = Segment { at, bytes: 0..module.len() };
        let initial = Initial::new(&module, &[segment]);
        memory[at..at + module.len()].copy_from_slice(&module);
        // The second of its five whole pages is the guest's own by now.
        memory[first + 2 * page + 7] = 0;
        let before = memory.clone();
        let forgotten = initial.forget(&mut memory);
        let whole = |from: usize, to: usize| first + from * page..first + to * page;
        assert_eq!(forgotten, [whole(1, 2), whole(3, 6)]);
        for range in &forgotten {
            assert!(memory[range.clone()].iter().all(|byte| *byte == 0));
        }
        assert_ne!(memory, before);
        initial.restore(&mut memory, &forgotten);
        assert!(memory == before, "every byte is back");
    }

    #[test]
    fn what_does_not_fit_or_is_too_small_or_too_much_is_left_alone() {
        let page = page_len().max(LEAST_SEGMENT);
        let module = vec![1; MOST_KEPT + 1];
        let (mut memory, first) = memory();
        for segment in [
            Segment { at: first, bytes: 0..LEAST_SEGMENT - 1 },
            Segment { at: first, bytes: 0..MOST_KEPT + 1 },
            Segment { at: memory.len() - page, bytes: 0..2 * page },
            Segment { at: usize::MAX, bytes: 0..page },
        ] {
            let initial = Initial::new(&module, &[segment]);
            memory.fill(1);
            assert_eq!(initial.forget(&mut memory), Forgotten::new());
            assert!(memory.iter().all(|byte| *byte == 1));
        }
    }
}
