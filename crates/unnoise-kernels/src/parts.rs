//! One output, written by many tasks.

use std::marker::PhantomData;

/// A slice that tasks on several threads write, each its own rows.
pub(crate) struct Parts<'a> {
    start: *mut f32,
    len: usize,
    slice: PhantomData<&'a mut [f32]>,
}

// SAFETY: the pointer is that of a mutable slice of `f32`, which is Send; `part` leaves it to its caller that no two threads get the
// same numbers.
unsafe impl Sync for Parts<'_> {}

impl<'a> Parts<'a> {
    pub(crate) fn new(slice: &'a mut [f32]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// The numbers `start .. start + len`.
    ///
    /// # Safety
    /// While the result is alive, no other part may overlap it.
    #[allow(clippy::mut_from_ref, reason = "disjoint parts, by the contract")]
    #[inline(always)]
    pub(crate) unsafe fn part(&self, start: usize, len: usize) -> &mut [f32] {
        assert!(start <= self.len && len <= self.len - start, "a part outside of its slice");
        // SAFETY: inside the slice by the assertion, which is borrowed mutably for 'a; not aliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}
