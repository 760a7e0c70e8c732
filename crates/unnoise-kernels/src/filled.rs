//! The kernels into new arrays, which are not zeroed first: for large images that costs as much as a cheap kernel does.

use rayon::prelude::*;

use crate::error::{Error, Result, check_lengths};
use crate::{Attention, Conv2d, Epilogue, GroupNorm, Weight};

/// A new array of the product of `sides`, all of which `write` writes, unless it fails.
///
/// # Safety
/// `write` must read nothing before it has written it, and leave nothing unwritten when it succeeds.
pub(crate) unsafe fn filled(sides: &[usize], at: &'static str, write: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<Vec<f32>> {
    let length = sides.iter().try_fold(1usize, |product, side| product.checked_mul(*side));
    let too_large = || Error::Shape { what: "the result", expected: "small enough for the memory".into(), got: usize::MAX, at };
    let length = length.ok_or_else(too_large)?;
    let mut array: Vec<f32> = Vec::new();
    array.try_reserve_exact(length).map_err(|_| too_large())?;
    if cfg!(test) && !cfg!(miri) {
        // What is read before it is written, or never written, shows. Miri sees it in fresh memory.
        array.resize(length, f32::NAN);
    }
    // SAFETY: the memory is reserved, aligned and exclusive, and by the caller's promise only read where it has been written. The standard library asks
    // more of a slice, that it hold values from the start; whether the language does is open, the compiler and Miri do not.
    write(unsafe { std::slice::from_raw_parts_mut(array.as_mut_ptr(), length) })?;
    // SAFETY: the capacity is there, and by the caller's promise every element has been written.
    unsafe { array.set_len(length) };
    Ok(array)
}

impl Conv2d {
    /// [`forward`](Self::forward) into a new array.
    ///
    /// # Errors
    /// As for `forward`, or where the memory does not suffice.
    pub fn output<'a>(&self, x: &[f32], weight: impl Into<Weight<'a>>, epilogue: impl Into<Epilogue<'a>>) -> Result<Vec<f32>> {
        let [rows, columns] = self.output_sides()?;
        // SAFETY: `forward` stores a sum at every pixel, and reads what it has stored alone.
        unsafe { filled(&[self.n, self.c_out, rows, columns], "Conv2d::output", |y| self.forward(x, weight, epilogue, y)) }
    }

    /// [`backward_input`](Self::backward_input) into a new array.
    ///
    /// # Errors
    /// As for `output`.
    pub fn input_gradient<'a>(&self, weight: impl Into<Weight<'a>>, dy: &[f32]) -> Result<Vec<f32>> {
        let sides = [self.n, self.c_in, self.h, self.w];
        // SAFETY: `backward_input` stores a sum at every pixel, of no terms where no output saw it, and reads what it has stored alone.
        unsafe { filled(&sides, "Conv2d::input_gradient", |dx| self.backward_input(weight, dy, dx)) }
    }

    /// [`backward_weight`](Self::backward_weight) into a new array.
    ///
    /// # Errors
    /// As for `output`.
    pub fn weight_gradient(&self, x: &[f32], dy: &[f32]) -> Result<Vec<f32>> {
        let sides = [self.c_out, self.c_in, self.kernel, self.kernel];
        // SAFETY: `backward_weight` stores every sum; where it adds up in place, it fills with zeros first.
        unsafe { filled(&sides, "Conv2d::weight_gradient", |dw| self.backward_weight(x, dy, dw)) }
    }
}

impl GroupNorm {
    /// [`forward`](Self::forward) into a new array.
    ///
    /// # Errors
    /// As for `forward`, or where the memory does not suffice.
    pub fn output(&self, x: &[f32], gamma: &[f32], beta: &[f32]) -> Result<Vec<f32>> {
        // SAFETY: `forward` stores every number of every group, and only stores.
        unsafe { filled(&[self.n, self.channels, self.pixels], "GroupNorm::output", |y| self.forward(x, gamma, beta, y)) }
    }

    /// [`backward`](Self::backward) into new arrays, `(dx, dgamma, dbeta)`.
    ///
    /// # Errors
    /// As for `output`.
    pub fn gradients(&self, x: &[f32], gamma: &[f32], beta: &[f32], dy: &[f32]) -> Result<(Vec<f32>, Vec<f32>, Vec<f32>)> {
        let [mut dgamma, mut dbeta] = [(); 2].map(|()| vec![0.0; gamma.len()]);
        let sides = [self.n, self.channels, self.pixels];
        let write = |dx: &mut [f32]| self.backward(x, gamma, beta, dy, dx, &mut dgamma, &mut dbeta);
        // SAFETY: `backward` stores every number of every group of `dx`, and only stores there.
        let dx = unsafe { filled(&sides, "GroupNorm::gradients", write)? };
        Ok((dx, dgamma, dbeta))
    }
}

impl Attention {
    /// [`forward`](Self::forward) into a new array.
    ///
    /// # Errors
    /// As for `forward`, or where the memory does not suffice.
    pub fn output(&self, q: &[f32], k: &[f32], v: &[f32], stats: Option<&mut [f32]>) -> Result<Vec<f32>> {
        let sides = [self.n, self.heads, self.width, self.pixels];
        // SAFETY: `forward` stores every number, and only stores.
        unsafe { filled(&sides, "Attention::output", |out| self.forward(q, k, v, out, stats)) }
    }

    /// [`backward`](Self::backward) into new arrays, `[dq, dk, dv]`.
    ///
    /// # Errors
    /// As for `output`.
    pub fn gradients(&self, [q, k, v]: [&[f32]; 3], out: &[f32], stats: &[f32], dout: &[f32]) -> Result<[Vec<f32>; 3]> {
        let (sides, at) = ([self.n, self.heads, self.width, self.pixels], "Attention::gradients");
        let [mut dk, mut dv] = [(); 2].map(|()| Vec::new());
        // SAFETY: `backward` stores every number of all three, and only stores.
        let dq = unsafe {
            filled(&sides, at, |dq| {
                dk = filled(&sides, at, |dk| {
                    dv = filled(&sides, at, |dv| self.backward(q, k, v, out, stats, dout, dq, dk, dv))?;
                    Ok(())
                })?;
                Ok(())
            })?
        };
        Ok([dq, dk, dv])
    }
}

/// `[n, ca, pixels]` and `[n, cb, pixels]` side by side, `[n, ca + cb, pixels]`.
///
/// # Errors
/// Where `n` does not divide a length, or the memory does not suffice.
pub fn concat_channels(a: &[f32], b: &[f32], n: usize) -> Result<Vec<f32>> {
    let [size_a, size_b] = image_sizes("concat_channels", [("a", a.len()), ("b", b.len())], n)?;
    let write = |y: &mut [f32]| {
        let images = y.par_chunks_mut((size_a + size_b).max(1)).enumerate();
        images.for_each(|(i, y)| {
            let (of_a, of_b) = y.split_at_mut(size_a);
            of_a.copy_from_slice(&a[i * size_a..][..size_a]);
            of_b.copy_from_slice(&b[i * size_b..][..size_b]);
        });
        Ok(())
    };
    // SAFETY: both parts of every image are copied, and nothing is read.
    unsafe { filled(&[n, size_a + size_b], "concat_channels", write) }
}

/// The first `ca` of the `c` channels of `[n, c, pixels]`, and the rest: the reverse of [`concat_channels`].
///
/// # Errors
/// Where `n` times `c` does not divide the length, `ca` exceeds `c`, or the memory does not suffice.
pub fn split_channels(y: &[f32], n: usize, c: usize, ca: usize) -> Result<(Vec<f32>, Vec<f32>)> {
    let at = "split_channels";
    if ca > c {
        return Err(Error::Shape { what: "ca", expected: format!("at most {c}"), got: ca, at });
    }
    let [size] = image_sizes(at, [("y", y.len())], n)?;
    check_lengths(at, &[("y", size, size.checked_div(c).unwrap_or(0) * c)])?;
    let pixels = size.checked_div(c).unwrap_or(0);
    let part = |from: usize, channels: usize| {
        let write = |out: &mut [f32]| {
            let images = out.par_chunks_mut((channels * pixels).max(1)).enumerate();
            images.for_each(|(i, out)| out.copy_from_slice(&y[i * size + from * pixels..][..channels * pixels]));
            Ok(())
        };
        // SAFETY: all of every image's part is copied, and nothing is read.
        unsafe { filled(&[n, channels, pixels], at, write) }
    };
    Ok((part(0, ca)?, part(ca, c - ca)?))
}

/// The length of an image of each of some arrays of `n` images.
fn image_sizes<const N: usize>(at: &'static str, arrays: [(&'static str, usize); N], n: usize) -> Result<[usize; N]> {
    let mut sizes = [0; N];
    for (size, (what, length)) in sizes.iter_mut().zip(arrays) {
        *size = length.checked_div(n).unwrap_or(0);
        check_lengths(at, &[(what, length, *size * n)])?;
    }
    Ok(sizes)
}

#[cfg(test)]
mod tests;
