//! An allocator for programs whose arrays are large and short-lived.
//!
//! A network makes hundreds of arrays of some MiB in an evaluation and drops them soon. An allocator that hands such memory back to the
//! system gets it again page by page, each a fault and zeroed, and in pages of 4 KiB.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::Range;
use std::ptr::{NonNull, null_mut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The granularity of the arena, and the alignment of what it gives.
const UNIT: usize = 64 << 10;
/// What it serves, in bytes: smaller blocks are the system allocator's business, and so are larger ones, which the system must be able to
/// refuse.
const SERVED: Range<usize> = 256 << 10..1 << 30;
/// Address space of the arena.
const UNITS: usize = (64 << 30) / UNIT;
const WORD: usize = u64::BITS as usize;

/// An allocator that keeps the memory of large blocks for the next ones, on large pages where the system has them; everything else it
/// leaves to the system's allocator. What has been in use at once at most stays with the process.
///
/// On Linux with 64 bits; elsewhere it is the system's allocator.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: unnoise_kernels::ArenaAllocator = unnoise_kernels::ArenaAllocator::new();
/// ```
#[derive(Debug)]
pub struct ArenaAllocator(Mutex<Arena>);

#[derive(Debug)]
struct Arena {
    reserved: Reserved,
    /// A bit for every unit that is in use.
    used: [u64; UNITS / WORD],
    /// The units before this one have been in use: what they hold is not zeros.
    touched: usize,
}

#[derive(Debug)]
enum Reserved {
    NotYet,
    Refused,
    From(NonNull<u8>),
}

// SAFETY: the pointer is that of the arena's own address space, and only its holder makes pointers from it, for blocks that do not overlap.
unsafe impl Send for Arena {}

impl Arena {
    /// The first address, if there is an arena.
    fn start(&mut self) -> Option<NonNull<u8>> {
        if let Reserved::NotYet = self.reserved {
            self.reserved = reserve(UNITS * UNIT).map_or(Reserved::Refused, Reserved::From);
        }
        match self.reserved {
            Reserved::From(start) => Some(start),
            _ => None,
        }
    }

    /// The first `n` free units in a row.
    fn find(&self, n: usize) -> Option<usize> {
        let (mut first, mut at) = (0, 0);
        while at < UNITS {
            let (word, left) = (self.used[at / WORD] >> (at % WORD), WORD - at % WORD);
            let free = left.min(word.trailing_zeros() as usize);
            at += free;
            if at - first >= n {
                return Some(first);
            }
            if free < left {
                at += (word >> free).trailing_ones() as usize;
                first = at;
            }
        }
        None
    }

    /// The first unit of a block, unless it is the system allocator's.
    fn unit(&self, block: *mut u8) -> Option<usize> {
        let Reserved::From(start) = self.reserved else { return None };
        let place = (block as usize).checked_sub(start.as_ptr() as usize)?;
        (place < UNITS * UNIT).then_some(place / UNIT)
    }

    fn mark(&mut self, units: Range<usize>, used: bool) {
        let mut at = units.start;
        while at < units.end {
            let count = (WORD - at % WORD).min(units.end - at);
            let bits = (u64::MAX >> (WORD - count)) << (at % WORD);
            match used {
                true => self.used[at / WORD] |= bits,
                false => self.used[at / WORD] &= !bits,
            }
            at += count;
        }
    }
}

impl ArenaAllocator {
    /// With an arena that is empty, and reserved when it is first asked for.
    pub const fn new() -> Self {
        Self(Mutex::new(Arena { reserved: Reserved::NotYet, used: [0; UNITS / WORD], touched: 0 }))
    }

    /// The arena, if it serves such blocks.
    fn serving(&self, layout: Layout) -> Option<MutexGuard<'_, Arena>> {
        let served = SERVED.contains(&layout.size()) && layout.align() <= UNIT;
        served.then(|| self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A block of the arena, and how many bytes of it may hold something else than zeros.
    fn take(&self, layout: Layout) -> Option<(NonNull<u8>, usize)> {
        let mut arena = self.serving(layout)?;
        let (start, n) = (arena.start()?, layout.size().div_ceil(UNIT));
        let first = arena.find(n)?;
        arena.mark(first..first + n, true);
        let dirty = arena.touched.saturating_sub(first).min(n) * UNIT;
        arena.touched = arena.touched.max(first + n);
        // SAFETY: `find` gives units of the arena.
        Some((unsafe { start.add(first * UNIT) }, dirty))
    }

    /// Takes a block back, unless it is the system allocator's.
    fn take_back(&self, block: *mut u8, layout: Layout) -> bool {
        let Some(mut arena) = self.serving(layout) else { return false };
        let Some(first) = arena.unit(block) else { return false };
        arena.mark(first..first + layout.size().div_ceil(UNIT), false);
        true
    }
}

impl Default for ArenaAllocator {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: a block of the arena is a run of units that were free, as large as asked for, aligned to a unit, and marked until it is given back;
// every other request goes to the system's allocator, and so does what came from there.
unsafe impl GlobalAlloc for ArenaAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.take(layout) {
            Some((block, _)) => block.as_ptr(),
            // SAFETY: the caller's promise.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some((block, dirty)) = self.take(layout) else {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc_zeroed(layout) };
        };
        // SAFETY: the block has at least as many bytes, and nobody else has it.
        unsafe { block.write_bytes(0, dirty.min(layout.size())) };
        block.as_ptr()
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if !self.take_back(block, layout) {
            // SAFETY: the caller's promise, and the block is not the arena's.
            unsafe { System.dealloc(block, layout) }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let ours = self.serving(layout).is_some_and(|arena| arena.unit(block).is_some());
        if !ours && !SERVED.contains(&size) {
            // SAFETY: the caller's promise, and the block is not the arena's.
            return unsafe { System.realloc(block, layout, size) };
        }
        if ours && SERVED.contains(&size) && size.div_ceil(UNIT) == layout.size().div_ceil(UNIT) {
            return block;
        }
        // SAFETY: `size` is not zero and does not overflow with this alignment, by the caller's promise.
        let larger = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: as above.
        let moved = unsafe { self.alloc(larger) };
        if !moved.is_null() {
            // SAFETY: both blocks have that many bytes and are different; the old one is not used any more.
            unsafe {
                block.copy_to_nonoverlapping(moved, layout.size().min(size));
                self.dealloc(block, layout);
            }
        }
        moved
    }
}

/// Address space that takes memory only where it is written, on large pages if the system lends them.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
fn reserve(bytes: usize) -> Option<NonNull<u8>> {
    const HUGE: usize = 2 << 20;
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
    // SAFETY: a new mapping, anywhere.
    let start = unsafe { libc::mmap(null_mut(), bytes + HUGE, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: less than HUGE bytes further on, `bytes` of the mapping are left.
    let start = unsafe { start.byte_add((start as usize).next_multiple_of(HUGE) - start as usize) };
    // SAFETY: a part of the mapping; that the advice may not be taken does not matter.
    unsafe { libc::madvise(start, bytes, libc::MADV_HUGEPAGE) };
    NonNull::new(start.cast())
}

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
fn reserve(_bytes: usize) -> Option<NonNull<u8>> {
    None
}

#[cfg(test)]
mod tests;
