//! Buffers that a thread keeps from call to call.

/// At least `len` elements, with whatever they held.
pub(crate) fn grow<T: Copy>(buffer: &mut Vec<T>, len: usize, zero: T) -> &mut [T] {
    if buffer.len() < len {
        *buffer = vec![zero; len];
    }
    &mut buffer[..len]
}
