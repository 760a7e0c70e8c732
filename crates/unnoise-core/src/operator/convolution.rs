//! Blur: a two-dimensional convolution, the same in every channel.

use ndarray::{Array2, ArrayView1};
use rustfft::num_complex::Complex;
use serde::{Deserialize, Serialize};

use super::{
    Operator, Svd,
    fourier::{Fourier, Spectrum},
    map_samples,
    matrix::cut_negligible,
};
use crate::{Batch, Error, Result, Shape};

/// What a blur sees beyond the image's edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Boundary {
    /// The image again: `c d | a b c d | a b`. Every blur then has a fast decomposition.
    #[default]
    Circular,
    /// The image mirrored at the edge, `b a | a b c d | d c`: scipy.ndimage's `reflect`, MATLAB's `symmetric`.
    Reflect,
}

impl Boundary {
    /// The position inside `0..n` that position `i` shows.
    pub(super) fn position(self, i: isize, n: usize) -> usize {
        match self {
            Self::Circular => i.rem_euclid(n as isize) as usize,
            Self::Reflect => {
                let folded = i.rem_euclid(2 * n as isize) as usize;
                folded.min(2 * n - 1 - folded)
            }
        }
    }
}

impl std::fmt::Display for Boundary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Circular => "circular",
            Self::Reflect => "reflect",
        })
    }
}

impl std::str::FromStr for Boundary {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [Self::Circular, Self::Reflect].into_iter().find(|known| known.to_string() == name).ok_or_else(|| Error::Unknown {
            kind: "boundary",
            name: name.to_owned(),
            known: vec!["circular".into(), "reflect".into()],
        })
    }
}

/// A convolution with any kernel.
///
/// ```text
/// y_{ij} = sum_{ab} k_{ab} x_{i - a + floor(kh / 2), j - b + floor(kw / 2)}
/// ```
///
/// A true convolution, the kernel flipped, with positions outside the image read by the [`Boundary`]; of any size, even larger than
/// the image. Computed by fast Fourier transforms, of the image extended by the kernel's size where the boundary reflects. With the
/// circular boundary the Fourier basis, in its real orthonormal form, is the decomposition: `|k_hat|` are the singular values, and
/// the phases of `k_hat` turn `V` into `U`. With the reflecting boundary there is the adjoint only; a Gaussian is separable, see
/// [`Separable`](super::Separable).
pub struct Convolution {
    spec: String,
    shape: Shape,
    boundary: Boundary,
    /// Which row and column of the image each of the extended plane shows, and where the image starts in it.
    rows: Vec<usize>,
    columns: Vec<usize>,
    start: [usize; 2],
    fourier: Fourier,
    /// The kernel's transform.
    eigenvalues: Spectrum,
    conjugates: Vec<usize>,
    singular_values: Vec<f64>,
}

impl Convolution {
    /// The convolution with `kernel` as it is, not normalised; `spec` is what the operator says of itself.
    ///
    /// # Errors
    /// [`Error::Argument`] for a kernel that is empty, not finite or zero everywhere, or an empty image.
    pub fn new(kernel: &Array2<f64>, boundary: Boundary, shape: Shape, spec: impl Into<String>) -> Result<Self> {
        let (kh, kw) = kernel.dim();
        if kernel.is_empty() || shape.contains(&0) || kernel.iter().any(|v| !v.is_finite()) {
            let got = format!("{kh} x {kw} on an image of {shape:?}");
            let expected = "finite, and neither it nor the image empty".into();
            return Err(Error::Argument { what: "kernel", expected, got, at: "Convolution::new" });
        }
        if kernel.iter().all(|v| *v == 0.0) {
            let (expected, got) = ("something that lets the image through".into(), format!("{kh} x {kw} zeros"));
            return Err(Error::Argument { what: "kernel", expected, got, at: "Convolution::new" });
        }
        let [c, h, w] = shape;
        let extended = |n: usize, k: usize| -> (Vec<usize>, usize) {
            let (before, after) = if boundary == Boundary::Circular { (0, 0) } else { (k - 1 - k / 2, k / 2) };
            let positions = 0..(before + n + after) as isize;
            (positions.map(|p| boundary.position(p - before as isize, n)).collect(), before)
        };
        let ((rows, top), (columns, left)) = (extended(h, kh), extended(w, kw));
        let mut plane = Array2::<f64>::zeros((rows.len(), columns.len()));
        let wrapped = |a: usize, k: usize, n: usize| Boundary::Circular.position(a as isize - (k / 2) as isize, n);
        for ((a, b), value) in kernel.indexed_iter() {
            plane[[wrapped(a, kh, rows.len()), wrapped(b, kw, columns.len())]] += value;
        }
        let fourier = Fourier::new(rows.len(), columns.len());
        let eigenvalues = fourier.forward(plane.into_iter());
        let mut singular_values = vec![];
        if boundary == Boundary::Circular {
            singular_values = eigenvalues.iter().map(|value| value.norm()).collect::<Vec<_>>().repeat(c);
            cut_negligible(&mut singular_values, c * h * w);
        }
        let conjugates = fourier.conjugates();
        let (spec, start) = (spec.into(), [top, left]);
        Ok(Self { spec, shape, boundary, rows, columns, start, fourier, eigenvalues, conjugates, singular_values })
    }

    fn plane_size(&self) -> usize {
        self.shape[1] * self.shape[2]
    }

    /// Applies `map` to each channel.
    fn map_planes(&self, from: &Batch, to: Shape, map: impl Fn(ArrayView1<'_, f64>, &mut [f64])) -> Batch {
        let size = self.plane_size();
        map_samples(from, to, |x, y| {
            x.exact_chunks(size).into_iter().zip(y.chunks_exact_mut(size)).for_each(|(x, y)| map(x, y));
        })
    }

    fn filtered(&self, plane: impl Iterator<Item = f64>, of: impl Fn(Complex<f64>) -> Complex<f64>) -> Vec<f64> {
        let mut spectrum = self.fourier.forward(plane);
        spectrum.iter_mut().zip(&self.eigenvalues).for_each(|(value, eigenvalue)| *value *= of(*eigenvalue));
        self.fourier.inverse(spectrum).collect()
    }

    /// Where each pixel of the image stands in the extended plane.
    fn inside(&self) -> impl Iterator<Item = usize> + '_ {
        let [_, h, w] = self.shape;
        (0..h).flat_map(move |i| (0..w).map(move |j| (i + self.start[0]) * self.columns.len() + j + self.start[1]))
    }

    /// Which pixel of the image each place of the extended plane shows.
    fn shown(&self) -> impl Iterator<Item = usize> + '_ {
        self.rows.iter().flat_map(move |i| self.columns.iter().map(move |j| i * self.shape[2] + j))
    }

    /// `exp(i phase)` of each eigenvalue: real where the frequency is its own conjugate, 1 where the singular value is 0.
    fn phase(&self, position: usize) -> Complex<f64> {
        let value = self.eigenvalues[position];
        if self.singular_values[position] == 0.0 {
            Complex::from(1.0)
        } else if self.conjugates[position] == position {
            Complex::from(value.re.signum())
        } else {
            value / value.norm()
        }
    }

    /// The coefficients of a plane in the real orthonormal Fourier basis whose phases are turned by `phase`: at a frequency and at
    /// its conjugate stand `sqrt(2)` times the real and the imaginary part of the unitary transform.
    fn analyse(&self, plane: ArrayView1<'_, f64>, phase: impl Fn(usize) -> Complex<f64>, coefficients: &mut [f64]) {
        let spectrum = self.fourier.forward(plane.iter().copied());
        let scale = 1.0 / (self.plane_size() as f64).sqrt();
        for (position, conjugate) in self.conjugates.iter().enumerate().filter(|(position, conjugate)| position <= *conjugate) {
            let value = spectrum[position] * phase(position).conj() * scale;
            if position == *conjugate {
                coefficients[position] = value.re;
            } else {
                coefficients[position] = value.re * std::f64::consts::SQRT_2;
                coefficients[*conjugate] = value.im * std::f64::consts::SQRT_2;
            }
        }
    }

    /// The inverse of [`analyse`](Self::analyse).
    fn synthesise(&self, coefficients: ArrayView1<'_, f64>, phase: impl Fn(usize) -> Complex<f64>, plane: &mut [f64]) {
        let mut spectrum = vec![Complex::from(0.0); self.plane_size()];
        let scale = (self.plane_size() as f64).sqrt();
        for (position, conjugate) in self.conjugates.iter().enumerate().filter(|(position, conjugate)| position <= *conjugate) {
            let value = if position == *conjugate {
                Complex::from(coefficients[position])
            } else {
                Complex::new(coefficients[position], coefficients[*conjugate]) * std::f64::consts::FRAC_1_SQRT_2
            };
            spectrum[position] = value * phase(position) * scale;
            spectrum[*conjugate] = spectrum[position].conj();
        }
        plane.iter_mut().zip(self.fourier.inverse(spectrum)).for_each(|(pixel, value)| *pixel = value);
    }
}

impl Operator for Convolution {
    fn spec(&self) -> String {
        self.spec.clone()
    }

    fn input_shape(&self) -> Shape {
        self.shape
    }

    fn output_shape(&self) -> Shape {
        self.shape
    }

    fn forward(&self, x: &Batch) -> Batch {
        self.map_planes(x, self.shape, |x, y| {
            let extended = self.filtered(self.shown().map(|pixel| x[pixel]), |eigenvalue| eigenvalue);
            y.iter_mut().zip(self.inside()).for_each(|(y, place)| *y = extended[place]);
        })
    }

    fn adjoint(&self, y: &Batch) -> Batch {
        self.map_planes(y, self.shape, |y, x| {
            let mut extended = vec![0.0; self.eigenvalues.len()];
            self.inside().zip(y).for_each(|(place, y)| extended[place] = *y);
            let extended = self.filtered(extended.into_iter(), |eigenvalue| eigenvalue.conj());
            self.shown().zip(extended).for_each(|(pixel, value)| x[pixel] += value);
        })
    }

    fn svd(&self) -> Option<&dyn Svd> {
        (self.boundary == Boundary::Circular).then_some(self)
    }
}

impl Svd for Convolution {
    fn singular_values(&self) -> &[f64] {
        &self.singular_values
    }

    fn v_transpose(&self, x: &Batch) -> Batch {
        let flat = [1, 1, self.singular_values.len()];
        self.map_planes(x, flat, |x, coefficients| self.analyse(x, |_| Complex::from(1.0), coefficients))
    }

    fn v(&self, coefficients: &Batch) -> Batch {
        self.map_planes(coefficients, self.shape, |coefficients, x| self.synthesise(coefficients, |_| Complex::from(1.0), x))
    }

    fn u_transpose(&self, y: &Batch) -> Batch {
        let flat = [1, 1, self.singular_values.len()];
        self.map_planes(y, flat, |y, coefficients| self.analyse(y, |position| self.phase(position), coefficients))
    }

    fn u(&self, coefficients: &Batch) -> Batch {
        self.map_planes(coefficients, self.shape, |coefficients, y| {
            self.synthesise(coefficients, |position| self.phase(position), y);
        })
    }
}
