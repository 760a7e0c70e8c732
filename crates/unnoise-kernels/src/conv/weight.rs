//! What a convolution multiplies with, and what it adds.

use std::ops::Deref;
use std::sync::OnceLock;

use super::Conv2d;
use crate::error::{Error, Result, check_lengths, size};
use crate::scratch::{Line, Scratch};

/// What is added to the sums of a convolution before they are stored: `y = conv(x) + bias + offset + residual`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// `[c_out]`: one number an output channel.
    pub bias: Option<&'a [f32]>,
    /// `[n, c_out]`: one number an image and output channel, such as the embedding of the time.
    pub offset: Option<&'a [f32]>,
    /// An array of the output's shape, such as the shortcut around a residual block.
    pub residual: Option<&'a [f32]>,
}

impl<'a> From<Option<&'a [f32]>> for Epilogue<'a> {
    fn from(bias: Option<&'a [f32]>) -> Self {
        Self { bias, ..Self::default() }
    }
}

impl Epilogue<'_> {
    pub(super) fn check(&self, conv: &Conv2d, y: usize, at: &'static str) -> Result<()> {
        let slices =
            [("bias", self.bias, conv.c_out), ("offset", self.offset, size([conv.n, conv.c_out])), ("residual", self.residual, y)];
        check_lengths(at, &slices.map(|(what, slice, expected)| (what, slice.map_or(expected, <[f32]>::len), expected)))
    }

    /// What every pixel of output channel `c` of an image gets.
    #[inline(always)]
    pub(super) fn constant(&self, c_out: usize, image: usize, c: usize) -> f32 {
        self.bias.map_or(0.0, |bias| bias[c]) + self.offset.map_or(0.0, |offset| offset[image * c_out + c])
    }
}

/// A convolution's `weight [c_out, c_in, kernel, kernel]`.
#[derive(Clone, Copy, Debug)]
pub enum Weight<'a> {
    /// As it stands; what a call needs of it is computed in every call.
    Raw(&'a [f32]),
    /// With all of that kept.
    Prepared(&'a PreparedWeight),
}

impl<'a> From<&'a [f32]> for Weight<'a> {
    fn from(weight: &'a [f32]) -> Self {
        Self::Raw(weight)
    }
}

impl<'a> From<&'a Vec<f32>> for Weight<'a> {
    fn from(weight: &'a Vec<f32>) -> Self {
        Self::Raw(weight)
    }
}

impl<'a> From<&'a PreparedWeight> for Weight<'a> {
    fn from(weight: &'a PreparedWeight) -> Self {
        Self::Prepared(weight)
    }
}

impl<'a> Weight<'a> {
    pub(super) fn raw(self) -> &'a [f32] {
        match self {
            Self::Raw(weight) => weight,
            Self::Prepared(prepared) => &prepared.weight,
        }
    }

    /// Whether it may be `conv`'s.
    pub(super) fn check(self, conv: &Conv2d, at: &'static str) -> Result<()> {
        if let Self::Prepared(prepared) = self {
            let Conv2d { c_out, c_in, kernel, stride, padding: [(top, bottom), (left, right)], .. } = prepared.conv;
            let sides = [
                ("outputs of the prepared weight", conv.c_out, c_out),
                ("inputs of the prepared weight", conv.c_in, c_in),
                ("side of the prepared weight", conv.kernel, kernel),
                ("stride of the prepared weight", conv.stride, stride),
                ("upper padding of the prepared weight", conv.padding[0].0, top),
                ("lower padding of the prepared weight", conv.padding[0].1, bottom),
                ("left padding of the prepared weight", conv.padding[1].0, left),
                ("right padding of the prepared weight", conv.padding[1].1, right),
            ];
            if let Some(&(what, expected, got)) = sides.iter().find(|(_, expected, got)| expected != got) {
                return Err(Error::Shape { what, expected: expected.to_string(), got, at });
            }
        }
        Ok(())
    }

    /// Its transform of `len` lines: the one that is kept, or the one that `make` writes over whatever the lines hold.
    pub(super) fn form(self, direction: Direction, form: Form, len: usize, make: impl FnOnce(&[f32], &mut [Line])) -> Lines<'a> {
        match self {
            Self::Raw(weight) => {
                let mut lines = Scratch::new(len);
                make(weight, &mut lines);
                Lines::Lent(lines)
            }
            Self::Prepared(prepared) => {
                let kept = &prepared.forms[direction as usize][form as usize];
                if kept.get().is_none() {
                    // Not inside `get_or_init`: `make` may wait for other threads, and run there into another call with this weight.
                    let mut lines = vec![Line::ZERO; len];
                    make(&prepared.weight, &mut lines);
                    let _ = kept.set(lines);
                }
                Lines::Kept(kept.get().map_or(&[], Vec::as_slice))
            }
        }
    }
}

/// Which product a weight is transformed for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Direction {
    /// The convolution: the sum runs over the inputs.
    Forward,
    /// Its gradient by the input: the sum runs over the outputs.
    Backward,
}

/// What a weight is transformed to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// The points of F(2x2).
    SmallTiles,
    /// The points of F(4x4).
    LargeTiles,
    /// The packed rows of a matrix.
    Rows,
}

/// A weight's transform.
pub(super) enum Lines<'a> {
    Kept(&'a [Line]),
    Lent(Scratch),
}

impl Deref for Lines<'_> {
    type Target = [Line];
    fn deref(&self) -> &[Line] {
        match self {
            Self::Kept(lines) => lines,
            Self::Lent(lines) => lines,
        }
    }
}

/// A weight that does not change any more, with the transforms of it that convolutions have asked for so far.
///
/// Which they are is up to the convolution's shape and direction: each is made in the first call that needs it, so that a network that
/// is only evaluated never pays for its gradient's. For a 3x3 kernel a transform takes 4 times the weight's own memory, or 1.8 times for
/// sides up to 8. Results have the bits that [`Weight::Raw`] gives.
#[derive(Debug)]
pub struct PreparedWeight {
    /// Its batch and sides do not matter.
    conv: Conv2d,
    weight: Vec<f32>,
    /// By direction and form.
    forms: [[OnceLock<Vec<Line>>; 3]; 2],
}

impl PreparedWeight {
    /// Takes over the weight of a convolution with these channels, kernel, stride and padding; its batch and sides do not matter.
    ///
    /// # Errors
    /// Where `weight` does not hold `c_out c_in kernel kernel` numbers.
    pub fn new(conv: &Conv2d, weight: Vec<f32>) -> Result<Self> {
        let Conv2d { c_in, c_out, kernel, .. } = *conv;
        check_lengths("PreparedWeight::new", &[("weight", weight.len(), size([c_out, c_in, kernel, kernel]))])?;
        Ok(Self { conv: *conv, weight, forms: Default::default() })
    }

    /// The weight as it came, `[c_out, c_in, kernel, kernel]`.
    pub fn raw(&self) -> &[f32] {
        &self.weight
    }
}
