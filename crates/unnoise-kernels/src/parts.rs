//! One output, written by many tasks.

use std::marker::PhantomData;

/// A slice that tasks on several threads write, each its own elements.
pub(crate) struct Parts<'a, T = f32> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: the pointer is that of a mutable slice of a type that is Send; `part` leaves it to its caller that no two threads get the
// same elements.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// The elements `start .. start + len`.
    ///
    /// # Safety
    /// While the result is alive, no other part may overlap it.
    #[allow(clippy::mut_from_ref, reason = "disjoint parts, by the contract")]
    #[inline(always)]
    pub(crate) unsafe fn part(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start, "a part outside of its slice");
        // SAFETY: inside the slice by the assertion, which is borrowed mutably for 'a; not aliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }

    /// The elements `start .. start + N`, without a look at the slice's length.
    ///
    /// # Safety
    /// They must be in the slice, and while the result is alive, no other part may overlap it.
    #[allow(clippy::mut_from_ref, reason = "disjoint parts, by the contract")]
    #[inline(always)]
    pub(crate) unsafe fn array<const N: usize>(&self, start: usize) -> &mut [T; N] {
        debug_assert!(start <= self.len && N <= self.len - start, "an array outside of its slice");
        // SAFETY: inside the slice, which is borrowed mutably for 'a, and not aliased, both by the caller's promise.
        unsafe { &mut *self.start.add(start).cast() }
    }
}
