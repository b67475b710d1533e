//! Gives pages of linear memory that hold only zeros back to the kernel.
//!
//! wasmi writes zeros over all of a memory when it makes or grows it, so that a program that declares
//! 17 pages has 1.1 MB resident before it has run. Given back, an untouched page costs nothing until the
//! guest writes to it: 1.1 MB becomes 36 kB for a Rust hello.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ops::Range;

use rustix::mm::{madvise, Advice};
use rustix::param::page_size;

/// Bytes of a page of the kernel's.
pub fn page_len() -> usize {
    page_size().max(1)
}

/// The part of `memory` that is whole pages of the kernel's.
pub fn whole_pages(memory: &[u8]) -> Range<usize> {
    let page = page_len();
    let lead = memory.as_ptr().align_offset(page).min(memory.len());
    let rest = memory.len().saturating_sub(lead);
    lead..lead.saturating_add(rest.saturating_sub(rest % page))
}

/// Gives back every page that lies wholly within `memory` and holds only zeros. What `memory` reads as is
/// the same before and after.
pub fn release_zeros(memory: &mut [u8]) {
    let page = page_len();
    let pages = memory.get(whole_pages(memory)).unwrap_or(&[]);
    let mut run = 0..0;
    for (index, bytes) in pages.chunks_exact(page).enumerate() {
        let at = index.saturating_mul(page);
        if !is_zero(bytes) {
            continue;
        }
        if run.end != at {
            release(pages.get(run).unwrap_or(&[]));
            run = at..at;
        }
        run.end = at.saturating_add(page);
    }
    release(pages.get(run).unwrap_or(&[]));
}

/// Makes `memory`, which is whole pages, all zeros, and gives them back.
pub fn give_back(memory: &mut [u8]) {
    memory.fill(0);
    release(memory.get(whole_pages(memory)).unwrap_or(&[]));
}

fn is_zero(page: &[u8]) -> bool {
    let word = |bytes: &[u8]| bytes.try_into().map_or(1, usize::from_ne_bytes);
    page.chunks_exact(size_of::<usize>()).all(|bytes| word(bytes) == 0)
}

/// Whole pages, all zero, borrowed (through the two above) from a `&mut` that nobody else can use meanwhile.
fn release(pages: &[u8]) {
    if pages.is_empty() {
        return;
    }
    // SAFETY: MADV_DONTNEED drops the pages of a private anonymous mapping, and the next access reads
    // them as zeros: what they hold already, so no value that any reference can see changes.
    // - The mapping is private and anonymous: linear memory is a `Vec<u8>` of wasmi's from the global
    //   allocator, which is libc's `malloc`, or `allocator::Heap`; all of them take memory from `brk` and
    //   `mmap(MAP_PRIVATE | MAP_ANONYMOUS)` only.
    // - The range is page-aligned by the kernel's own page size and lies within the slice, so that no
    //   neighbour's byte and no header of the allocator's is in it.
    // - The slice is only read through the pointer's range by the kernel; the error (locked or huge
    //   pages) leaves them as they are.
    // Guests' memories are never `Memory::new_static`, which could be anything.
    let _refused = unsafe { madvise(pages.as_ptr() as *mut c_void, pages.len(), Advice::LinuxDontNeed) };
}
