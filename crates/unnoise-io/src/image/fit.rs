//! Bringing images to a model's size.

use ndarray::{Array4, Axis, Slice};
use unnoise_core::Batch;

/// How an image becomes a square of the model's side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fit {
    /// Not at all: its size must be right.
    #[default]
    Exact,
    /// The largest centred square, then averaged down over areas (never enlarged).
    CropResize(usize),
    /// Centred on black, for images that are smaller (never reduced).
    Pad(usize),
}

impl Fit {
    /// Brings `[n, c, h, w]` to the side; `black` is the value of padding.
    ///
    /// # Errors
    /// What is wrong with the size, in words, as `(expected, got)`.
    pub(crate) fn apply(self, images: Batch, black: f64) -> Result<Batch, (String, String)> {
        let (n, c, h, w) = images.dim();
        let got = format!("{h} x {w}");
        match self {
            Self::Exact => Ok(images),
            Self::CropResize(0) | Self::Pad(0) => Err(("a side of at least 1".into(), "0".into())),
            Self::CropResize(side) if side > h.min(w) => Err((format!("at least {side} x {side} pixels, or padding"), got)),
            Self::CropResize(side) => {
                let square = h.min(w);
                let (top, left) = ((h - square) / 2, (w - square) / 2);
                let square = images.slice_each_axis(|axis| match axis.axis.index() {
                    2 => Slice::from(top..top + square),
                    3 => Slice::from(left..left + square),
                    _ => Slice::from(..),
                });
                Ok(area_resize(&square.to_owned(), side, side))
            }
            Self::Pad(side) if side < h.max(w) => Err((format!("at most {side} x {side} pixels, or resizing"), got)),
            Self::Pad(side) => {
                let (top, left) = ((side - h) / 2, (side - w) / 2);
                let mut padded = Array4::from_elem((n, c, side, side), black);
                let mut inside = padded.slice_axis_mut(Axis(2), Slice::from(top..top + h));
                inside.slice_axis_inplace(Axis(3), Slice::from(left..left + w));
                inside.assign(&images);
                Ok(padded)
            }
        }
    }
}

/// Resizes by averaging over areas: pixel `i` of `m` covers `[i n/m, (i+1) n/m]` of the `n` pixels before.
///
/// The mean is kept exactly, and no pixel leaves the range of those that it covers. Meant for reducing; enlarging repeats pixels.
///
/// # Shapes
/// `[n, c, h, w]` to `[n, c, height, width]`.
pub fn area_resize(images: &Batch, height: usize, width: usize) -> Batch {
    along(&along(images, 2, height), 3, width)
}

fn along(images: &Batch, axis: usize, size: usize) -> Batch {
    let before = images.shape()[axis];
    if before == size {
        return images.clone();
    }
    let mut shape = images.raw_dim();
    shape[axis] = size;
    let mut resized = Array4::zeros(shape);
    let scale = before as f64 / size as f64;
    for (i, mut target) in resized.axis_iter_mut(Axis(axis)).enumerate() {
        let (from, to) = (i as f64 * scale, (i + 1) as f64 * scale);
        for j in from as usize..(to.ceil() as usize).min(before) {
            let overlap = to.min((j + 1) as f64) - from.max(j as f64);
            target.scaled_add(overlap / scale, &images.index_axis(Axis(axis), j));
        }
    }
    resized
}

#[cfg(test)]
mod tests {
    use ndarray::Array;

    use super::*;

    fn ramp(h: usize, w: usize) -> Batch {
        Array::from_iter((0..h * w).map(|v| v as f64)).into_shape_with_order((1, 1, h, w)).unwrap()
    }

    #[test]
    fn integer_factors_are_block_means() {
        let small = area_resize(&ramp(4, 4), 2, 2);
        assert_eq!(small.into_raw_vec_and_offset().0, vec![2.5, 4.5, 10.5, 12.5]);
    }

    #[test]
    fn fractions_weigh_by_overlap_and_keep_the_mean() {
        // 3 -> 2 pixels: (a + b/2) / 1.5 and (b/2 + c) / 1.5.
        let small = area_resize(&ramp(1, 3), 1, 2);
        assert!((small[[0, 0, 0, 0]] - 0.5 / 1.5).abs() < 1e-15 && (small[[0, 0, 0, 1]] - 2.5 / 1.5).abs() < 1e-15);
        for side in 1..=7 {
            let mean = area_resize(&ramp(7, 7), side, side).mean().unwrap();
            assert!((mean - 24.0).abs() < 1e-12, "{side}: {mean}");
        }
    }

    #[test]
    fn fits() {
        let cropped = Fit::CropResize(2).apply(ramp(2, 4), 0.0).unwrap();
        assert_eq!(cropped.into_raw_vec_and_offset().0, vec![1.0, 2.0, 5.0, 6.0]);
        let padded = Fit::Pad(3).apply(ramp(1, 1) + 7.0, -1.0).unwrap();
        assert_eq!((padded[[0, 0, 1, 1]], padded.sum()), (7.0, -1.0));
        assert!(Fit::CropResize(3).apply(ramp(2, 4), 0.0).unwrap_err().0.contains("padding"));
        assert!(Fit::Pad(3).apply(ramp(2, 4), 0.0).unwrap_err().0.contains("resizing"));
    }
}
