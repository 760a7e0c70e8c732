//! Memory that is kept from call to call.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use crate::simd::LANES;

/// At least `len` elements, with whatever they held.
pub(crate) fn grow<T: Copy>(buffer: &mut Vec<T>, len: usize, zero: T) -> &mut [T] {
    if buffer.len() < len {
        *buffer = vec![zero; len];
    }
    &mut buffer[..len]
}

/// Sixteen numbers, one cache line: what blocked arrays are made of.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [[f32; LANES]; 2]);

impl Line {
    pub(crate) const ZERO: Self = Self([[0.0; LANES]; 2]);
    /// Numbers in a line.
    pub(crate) const LEN: usize = 2 * LANES;
}

/// The lines as plain numbers.
pub(crate) fn numbers(lines: &[Line]) -> &[f32] {
    // SAFETY: a line is 16 `f32` and nothing else (64 bytes, its alignment), and the lifetime is the slice's.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * Line::LEN) }
}

/// The lines as plain numbers.
pub(crate) fn numbers_mut(lines: &mut [Line]) -> &mut [f32] {
    // SAFETY: as for `numbers`, and the borrow is exclusive.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * Line::LEN) }
}

/// What is not in use.
static FREE: Mutex<Vec<Vec<Line>>> = Mutex::new(Vec::new());

/// A buffer on loan, with whatever its last user left in it.
///
/// Fresh memory is slow: every page costs a fault and is zeroed. A thread that waits for others may be given other work meanwhile, which
/// must not meet its buffers; that is why they are on loan and not the thread's own.
pub(crate) struct Scratch {
    lines: Vec<Line>,
    len: usize,
}

impl Scratch {
    /// `len` lines: the smallest free buffer that holds them, else the largest one grows.
    pub(crate) fn new(len: usize) -> Self {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = (0..free.len()).filter(|&i| free[i].len() >= len).min_by_key(|&i| free[i].len());
        let best = fits.or_else(|| (0..free.len()).max_by_key(|&i| free[i].len()));
        let mut lines = best.map(|i| free.swap_remove(i)).unwrap_or_default();
        drop(free);
        if lines.len() < len {
            lines = Vec::new();
            lines.resize(len, Line::ZERO);
        }
        Self { lines, len }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(std::mem::take(&mut self.lines));
    }
}

impl Deref for Scratch {
    type Target = [Line];
    fn deref(&self) -> &[Line] {
        &self.lines[..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [Line] {
        &mut self.lines[..self.len]
    }
}
