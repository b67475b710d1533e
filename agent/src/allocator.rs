//! The heap of the static builds: small things in `dlmalloc`'s, large ones mapped one by one.
//!
//! musl's allocator rounds sizes up to classes a quarter apart and keeps groups of slots for each: of a thousand
//! guests, which consist of some tens of allocations each, it makes a fifth more than they asked for. `dlmalloc`
//! wastes little, but keeps what is freed in the middle of its heap; so what is large (a module that is read, a
//! guest's memory) is mapped by itself, and is the kernel's again when it is freed. It begins with a page, too,
//! where musl's begins with a header: every page of a guest's memory that holds only zeros can be given back.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::c_void;
use std::ptr::null_mut;

use dlmalloc::GlobalDlmalloc;
use rustix::mm::{mmap_anonymous, mremap, munmap, MapFlags, MremapFlags, ProtFlags};
use rustix::param::page_size;

/// From this size on a mapping of its own is worth the call (as in musl and glibc).
const LARGE: usize = 128 * 1024;
/// The least page of any kernel: what wants more alignment is not mapped here. (Nothing does.)
const LEAST_PAGE: usize = 4096;

/// Both allocators as one.
pub struct Heap;

fn is_large(size: usize, align: usize) -> bool {
    size >= LARGE && align <= LEAST_PAGE
}

/// Whole pages; an overflow is a size that no kernel maps.
fn pages(size: usize) -> usize {
    size.checked_next_multiple_of(page_size().max(1)).unwrap_or(usize::MAX)
}

/// New pages, all zero; null where the kernel gives none.
fn map(size: usize) -> *mut u8 {
    // SAFETY: a new private mapping, wherever the kernel has room: no memory that anybody has is touched.
    let mapped = unsafe {
        mmap_anonymous(null_mut(), pages(size), ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
    };
    mapped.map_or(null_mut(), <*mut c_void>::cast)
}

// SAFETY: each block is allocated, resized and freed by one and the same of two allocators that keep GlobalAlloc's
// contract: which one follows from size and alignment alone, and the caller must name those that a block has. Mapped
// blocks begin with a page, so they are aligned as `is_large` asks, and have as many pages as their size needs.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_large(layout.size(), layout.align()) {
            return map(layout.size());
        }
        // SAFETY: the caller's promise (a size that is not zero) is passed on.
        unsafe { GlobalDlmalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_large(layout.size(), layout.align()) {
            return map(layout.size());
        }
        // SAFETY: as above.
        unsafe { GlobalDlmalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block came from here with this layout, so from the one that its size says, and nobody uses it
        // any more. (An error would leave it mapped: nothing can be done about that.)
        unsafe {
            if is_large(layout.size(), layout.align()) {
                let _unmapped = munmap(block.cast(), pages(layout.size()));
            } else {
                GlobalDlmalloc.dealloc(block, layout);
            }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match (is_large(layout.size(), layout.align()), is_large(size, layout.align())) {
            // SAFETY: the block is a mapping of these pages, which the caller uses by the new address alone.
            (true, true) => unsafe {
                mremap(block.cast(), pages(layout.size()), pages(size), MremapFlags::MAYMOVE)
                    .map_or(null_mut(), <*mut c_void>::cast)
            },
            // SAFETY: the block is of this allocator, and stays so; the caller's promises are passed on.
            (false, false) => unsafe { GlobalDlmalloc.realloc(block, layout, size) },
            // SAFETY: the caller promises that `size` is not zero and, rounded up to the alignment, no more than
            // isize::MAX, which is all that a layout must hold. Both blocks have the lesser of both sizes, and do
            // not overlap, as both are allocated.
            _ => unsafe {
                let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
                if !moved.is_null() {
                    std::ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                    self.dealloc(block, layout);
                }
                moved
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_keep_their_bytes_across_the_border_in_both_directions() {
        for sizes in [
            [16, LARGE - 1, LARGE, 4 * LARGE, LARGE, LARGE - 1, 16],
            [LARGE, 16, 2 * LARGE, 100, LARGE - 1, LARGE, 1],
        ] {
            for align in [1, 8, 64, 4096] {
                let Ok(mut layout) = Layout::from_size_align(sizes[0], align) else { continue };
                // SAFETY: no size is zero; each pointer is used with the layout that it has.
                unsafe {
                    let mut block = Heap.alloc_zeroed(layout);
                    let mut known = 0_usize;
                    for size in sizes {
                        block = Heap.realloc(block, layout, size);
                        assert!(!block.is_null() && block.addr() % align == 0, "{size} {align}");
                        layout = Layout::from_size_align_unchecked(size, align);
                        known = known.min(size);
                        let bytes = std::slice::from_raw_parts_mut(block, size);
                        for (index, byte) in bytes.iter().take(known).enumerate() {
                            assert_eq!(*byte, (index % 251) as u8, "{size} {align}");
                        }
                        for (index, byte) in bytes.iter_mut().enumerate() {
                            *byte = (index % 251) as u8;
                        }
                        known = size;
                    }
                    Heap.dealloc(block, layout);
                }
            }
        }
    }
}
