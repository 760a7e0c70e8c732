//! Attention of every pixel to every pixel, forward and backward, beside `[n, c, h, w]` convolutions without a transpose.
//!
//! The matrix of scores is never there as a whole: 16 pixels in the lanes meet the others block by block, with the running maximum and
//! sum of their soft-max. The backward pass computes the scores once more, or twice where there are fewer heads than threads, so that no two tasks
//! add to one sum.

mod backward;
mod blocks;
mod forward;

use crate::error::{Error, Result, check_lengths, size};

/// The shape of an attention of `q`, `k` and `v`, each `[n, heads * width, pixels]`: head `i` owns the channels `i width ..`.
///
/// ```text
/// out[d, i] = sum over j of p[i, j] v[d, j],  p[i, j] = exp(s[i, j]) / sum over j of exp(s[i, j])
/// s[i, j] = scale sum over d of q[d, i] k[d, j]
/// ```
///
/// # Reference
/// A. Vaswani et al., Attention is all you need (2017), eq. 1, arXiv:1706.03762. The running soft-max and the backward pass from its saved
/// logarithms: T. Dao et al., FlashAttention (2022), algorithms 1 and 4, arXiv:2205.14135; here the gradient by the queries takes a
/// pass of its own where a head is cut into tasks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Images.
    pub n: usize,
    /// Heads.
    pub heads: usize,
    /// Channels of a head.
    pub width: usize,
    /// Pixels of a channel.
    pub pixels: usize,
    /// The factor of the scores: `1 / sqrt(width)` unless a network says otherwise.
    pub scale: f32,
}

impl Attention {
    /// The attention of `q` to `k` and `v`, into `out`; and, for [`backward`](Self::backward), the logarithm of every query's sum of
    /// `exp(s)`, into `stats [n, heads, pixels]`.
    ///
    /// # Errors
    /// Where heads, width or pixels are zero, or a slice does not have its length.
    pub fn forward(&self, q: &[f32], k: &[f32], v: &[f32], out: &mut [f32], stats: Option<&mut [f32]>) -> Result<()> {
        let images = [("q", q.len()), ("k", k.len()), ("v", v.len()), ("out", out.len())];
        self.check("Attention::forward", &images, stats.as_ref().map(|stats| stats.len()))?;
        if self.n == 0 {
            return Ok(());
        }
        forward::forward(self, [q, k, v], out, stats);
        Ok(())
    }

    /// The gradients by `q`, `k` and `v` from the gradient `dout` of the output; `out` and `stats` are what
    /// [`forward`](Self::forward) gave.
    ///
    /// ```text
    /// ds[i, j] = p[i, j] (sum over d of dout[d, i] v[d, j] - sum over d of dout[d, i] out[d, i])
    /// dq[d, i] = scale sum over j of ds[i, j] k[d, j]
    /// dk[d, j] = scale sum over i of ds[i, j] q[d, i],  dv[d, j] = sum over i of p[i, j] dout[d, i]
    /// ```
    /// # Errors
    /// As for `forward`.
    #[allow(clippy::too_many_arguments)]
    pub fn backward(
        &self,
        q: &[f32],
        k: &[f32],
        v: &[f32],
        out: &[f32],
        stats: &[f32],
        dout: &[f32],
        dq: &mut [f32],
        dk: &mut [f32],
        dv: &mut [f32],
    ) -> Result<()> {
        let given = [("q", q.len()), ("k", k.len()), ("v", v.len()), ("out", out.len()), ("dout", dout.len())];
        let images = [&given[..], &[("dq", dq.len()), ("dk", dk.len()), ("dv", dv.len())]].concat();
        self.check("Attention::backward", &images, Some(stats.len()))?;
        if self.n == 0 {
            return Ok(());
        }
        backward::backward(self, [q, k, v], [out, dout], stats, [dq, dk, dv]);
        Ok(())
    }

    fn check(&self, at: &'static str, images: &[(&'static str, usize)], stats: Option<usize>) -> Result<()> {
        for (what, got) in [("heads", self.heads), ("width", self.width), ("pixels", self.pixels)] {
            if got == 0 {
                return Err(Error::Shape { what, expected: "at least 1".into(), got, at });
            }
        }
        let queries = size([self.n, self.heads, self.pixels]);
        let images = images.iter().map(|&(what, got)| (what, got, size([queries, self.width])));
        let stats = stats.map(|got| ("stats", got, queries));
        check_lengths(at, &images.chain(stats).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests;
