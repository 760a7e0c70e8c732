//! Group normalisation, with the SiLU that follows it in a U-Net folded in.

use rayon::prelude::*;

use crate::error::{Error, Result, check_lengths, size};
use crate::silu::{silu_lanes, silu_slope_lanes};
use crate::simd::{Kernel, LANES, Simd, dispatch};

/// The shape and the options of a group normalisation of `[n, channels, pixels]`.
///
/// ```text
/// y = act(gamma[c] x_hat + beta[c]),  x_hat = (x - mean) / sqrt(var + eps)
/// ```
/// with the mean and the (biased) variance over one group of channels of one image, and `act` the identity or SiLU. `gamma` and `beta` are
/// `[channels]`, or `[n, channels]` where every image has its own, as with a scale and a shift that a time embedding gives.
///
/// # Reference
/// Y. Wu and K. He, Group normalization (2018), eq. 7, arXiv:1803.08494. The variance takes a second pass over the group, which is in
/// cache, and does not cancel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupNorm {
    /// Images.
    pub n: usize,
    /// Channels.
    pub channels: usize,
    /// Pixels of a channel.
    pub pixels: usize,
    /// Groups of channels; they divide `channels`.
    pub groups: usize,
    /// What is added to the variance.
    pub eps: f32,
    /// Whether a SiLU follows.
    pub silu: bool,
}

impl GroupNorm {
    /// Normalises `x` into `y`.
    ///
    /// # Errors
    /// Where a slice does not have the shape's length, or `groups` does not divide `channels`.
    pub fn forward(&self, x: &[f32], gamma: &[f32], beta: &[f32], y: &mut [f32]) -> Result<()> {
        self.check("GroupNorm::forward", &[("x", x.len()), ("y", y.len())], &[("gamma", gamma.len()), ("beta", beta.len())])?;
        if x.is_empty() {
            return Ok(());
        }
        let size = self.group_size();
        let groups = y.par_chunks_mut(size).zip(x.par_chunks(size)).enumerate().with_min_len(self.min_groups());
        groups.for_each(|(i, (y, x))| {
            let affine = self.affine(i, gamma, beta);
            dispatch(Forward { norm: self, x, affine, y });
        });
        Ok(())
    }

    /// The gradients of [`forward`](Self::forward); `dgamma` and `dbeta` are summed over the images in their order, unless every image has its own.
    ///
    /// ```text
    /// g = dy act'(gamma x_hat + beta),  dbeta = sum g,  dgamma = sum g x_hat
    /// dx = (gamma g - mean(gamma g) - x_hat mean(gamma g x_hat)) / sqrt(var + eps)
    /// ```
    /// # Errors
    /// As for `forward`.
    #[allow(clippy::too_many_arguments)]
    pub fn backward(
        &self,
        x: &[f32],
        gamma: &[f32],
        beta: &[f32],
        dy: &[f32],
        dx: &mut [f32],
        dgamma: &mut [f32],
        dbeta: &mut [f32],
    ) -> Result<()> {
        let images = [("x", x.len()), ("dy", dy.len()), ("dx", dx.len())];
        let channels = [("gamma", gamma.len()), ("beta", beta.len()), ("dgamma", dgamma.len()), ("dbeta", dbeta.len())];
        self.check("GroupNorm::backward", &images, &channels)?;
        dgamma.fill(0.0);
        dbeta.fill(0.0);
        if x.is_empty() {
            return Ok(());
        }
        let size = self.group_size();
        // Per image and channel: (dgamma, dbeta).
        let mut sums = vec![[0.0f32; 2]; self.n * self.channels];
        let groups = dx
            .par_chunks_mut(size)
            .zip(sums.par_chunks_mut(self.group_channels()))
            .zip(x.par_chunks(size))
            .zip(dy.par_chunks(size));
        groups.enumerate().with_min_len(self.min_groups()).for_each(|(i, (((dx, sums), x), dy))| {
            let affine = self.affine(i, gamma, beta);
            dispatch(Backward { norm: self, x, affine, dy, dx, sums });
        });
        for image in sums.chunks_exact(gamma.len()) {
            for ((dgamma, dbeta), sum) in dgamma.iter_mut().zip(dbeta.iter_mut()).zip(image) {
                *dgamma += sum[0];
                *dbeta += sum[1];
            }
        }
        Ok(())
    }

    fn check(&self, at: &'static str, images: &[(&'static str, usize)], channels: &[(&'static str, usize)]) -> Result<()> {
        if self.groups == 0 || !self.channels.is_multiple_of(self.groups) {
            let expected = format!("a divisor of the {} channels", self.channels);
            return Err(Error::Shape { what: "groups", expected, got: self.groups, at });
        }
        let total = size([self.n, self.channels, self.pixels]);
        let images = images.iter().map(|&(what, got)| (what, got, total));
        let of_all = size([self.n, self.channels]);
        let expected = if channels.iter().all(|(_, got)| *got == of_all) { of_all } else { self.channels };
        let channels = channels.iter().map(|&(what, got)| (what, got, expected));
        check_lengths(at, &images.chain(channels).collect::<Vec<_>>())
    }

    fn group_channels(&self) -> usize {
        self.channels / self.groups
    }

    fn group_size(&self) -> usize {
        self.group_channels() * self.pixels
    }

    /// So many groups that a task is worth its dispatch.
    fn min_groups(&self) -> usize {
        (8192 / self.group_size()).max(1)
    }

    /// `(gamma, beta)` of the channels of group `i`, counted over all images.
    fn affine<'a>(&self, i: usize, gamma: &'a [f32], beta: &'a [f32]) -> Affine<'a> {
        let size = self.group_channels();
        let start = i * size % gamma.len();
        Affine { gamma: &gamma[start..start + size], beta: &beta[start..start + size] }
    }
}

/// The scale and shift of one group's channels.
#[derive(Clone, Copy)]
struct Affine<'a> {
    gamma: &'a [f32],
    beta: &'a [f32],
}

impl<'a> Affine<'a> {
    fn iter(self) -> impl Iterator<Item = (f32, f32)> + 'a {
        self.gamma.iter().copied().zip(self.beta.iter().copied())
    }
}

/// The mean and `1 / sqrt(var + eps)` of one group.
#[derive(Clone, Copy)]
struct Moments {
    mean: f32,
    scale: f32,
}

impl Moments {
    #[inline(always)]
    fn of<S: Simd>(s: S, x: &[f32], eps: f32) -> Self {
        let count = x.len() as f32;
        let mean = s.sum_of(x) / count;
        let center = s.splat(mean);
        let (fours, rest) = x.as_chunks::<{ 4 * LANES }>();
        let mut sums = [s.zero(); 4];
        for four in fours {
            for (sum, v) in sums.iter_mut().zip(four.as_chunks::<LANES>().0) {
                let d = s.sub(s.load(v), center);
                *sum = s.mul_add(d, d, *sum);
            }
        }
        let mut tail = 0.0;
        for v in rest {
            tail += (v - mean) * (v - mean);
        }
        let variance = (s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3]))) + tail) / count;
        Self { mean, scale: 1.0 / (variance + eps).sqrt() }
    }
}

struct Forward<'a> {
    norm: &'a GroupNorm,
    x: &'a [f32],
    affine: Affine<'a>,
    y: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Moments { mean, scale } = Moments::of(s, self.x, self.norm.eps);
        let pixels = self.norm.pixels;
        for ((gamma, beta), (x, y)) in self.affine.iter().zip(self.x.chunks_exact(pixels).zip(self.y.chunks_exact_mut(pixels))) {
            let (mean, slope, beta) = (s.splat(mean), s.splat(gamma * scale), s.splat(beta));
            let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks_mut::<LANES>());
            for (x, y) in x.iter().zip(y) {
                s.store(activate(s, s.mul_add(s.sub(s.load(x), mean), slope, beta), self.norm.silu), y);
            }
            let last = s.mul_add(s.sub(s.load_part(x_rest), mean), slope, beta);
            s.store_part(activate(s, last, self.norm.silu), y_rest);
        }
    }
}

#[inline(always)]
fn activate<S: Simd>(s: S, v: S::V, silu: bool) -> S::V {
    if silu { silu_lanes(s, v) } else { v }
}

struct Backward<'a> {
    norm: &'a GroupNorm,
    x: &'a [f32],
    affine: Affine<'a>,
    dy: &'a [f32],
    dx: &'a mut [f32],
    sums: &'a mut [[f32; 2]],
}

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Moments { mean, scale } = Moments::of(s, self.x, self.norm.eps);
        let pixels = self.norm.pixels;
        let (mean, scales) = (s.splat(mean), s.splat(scale));
        // First pass: g into dx, its sums per channel, and the two means.
        let (mut mean_g, mut mean_gx) = (0.0, 0.0);
        let rows = self.x.chunks_exact(pixels).zip(self.dy.chunks_exact(pixels)).zip(self.dx.chunks_exact_mut(pixels));
        for (((gamma, beta), ((x, dy), dx)), sums) in self.affine.iter().zip(rows).zip(&mut *self.sums) {
            let mut channel = Channel {
                mean,
                scale: scales,
                gamma: s.splat(gamma),
                beta: s.splat(beta),
                silu: self.norm.silu,
                sum_g: s.zero(),
                sum_gx: s.zero(),
            };
            let ((x, x_rest), (dy, dy_rest), (dx, dx_rest)) =
                (x.as_chunks::<LANES>(), dy.as_chunks::<LANES>(), dx.as_chunks_mut::<LANES>());
            for ((x, dy), dx) in x.iter().zip(dy).zip(dx) {
                s.store(channel.gradient(s, s.load(x), s.load(dy)), dx);
            }
            // Behind the last pixel dy is zero, and so is all that is summed.
            s.store_part(channel.gradient(s, s.load_part(x_rest), s.load_part(dy_rest)), dx_rest);
            *sums = [s.sum(channel.sum_gx), s.sum(channel.sum_g)];
            mean_gx += gamma * sums[0];
            mean_g += gamma * sums[1];
        }
        // Second pass: dx = scale (gamma g - mean_g - x_hat mean_gx).
        let count = self.x.len() as f32;
        let (shift, tilt) = (s.splat(scale * mean_g / count), s.splat(scale * scale * mean_gx / count));
        for ((gamma, _), (x, dx)) in self.affine.iter().zip(self.x.chunks_exact(pixels).zip(self.dx.chunks_exact_mut(pixels))) {
            let slope = s.splat(scale * gamma);
            let ((x, x_rest), (dx, dx_rest)) = (x.as_chunks::<LANES>(), dx.as_chunks_mut::<LANES>());
            for (x, dx) in x.iter().zip(dx) {
                let flat = s.sub(s.mul(slope, s.load(dx)), shift);
                s.store(s.neg_mul_add(s.sub(s.load(x), mean), tilt, flat), dx);
            }
            let flat = s.sub(s.mul(slope, s.load_part(dx_rest)), shift);
            s.store_part(s.neg_mul_add(s.sub(s.load_part(x_rest), mean), tilt, flat), dx_rest);
        }
    }
}

/// The first pass over one channel.
struct Channel<V> {
    mean: V,
    scale: V,
    gamma: V,
    beta: V,
    silu: bool,
    sum_g: V,
    sum_gx: V,
}

impl<V: Copy> Channel<V> {
    /// `g = dy act'(gamma x_hat + beta)`, which is also counted.
    #[inline(always)]
    fn gradient<S: Simd<V = V>>(&mut self, s: S, x: V, dy: V) -> V {
        let x_hat = s.mul(s.sub(x, self.mean), self.scale);
        let g = match self.silu {
            true => s.mul(dy, silu_slope_lanes(s, s.mul_add(x_hat, self.gamma, self.beta))),
            false => dy,
        };
        self.sum_g = s.add(self.sum_g, g);
        self.sum_gx = s.mul_add(g, x_hat, self.sum_gx);
        g
    }
}

#[cfg(test)]
mod tests;
