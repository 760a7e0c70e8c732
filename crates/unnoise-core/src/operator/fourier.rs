//! The two-dimensional discrete Fourier transform of real planes.

use std::sync::Arc;

use rustfft::{Fft, FftPlanner, num_complex::Complex};

pub(super) type Spectrum = Vec<Complex<f64>>;

/// Transforms of planes of `h x w`. A spectrum is stored column by column, `[w, h]`, which saves a transposition each way.
pub(super) struct Fourier {
    h: usize,
    w: usize,
    rows: [Arc<dyn Fft<f64>>; 2],
    columns: [Arc<dyn Fft<f64>>; 2],
}

impl Fourier {
    pub(super) fn new(h: usize, w: usize) -> Self {
        let mut planner = FftPlanner::new();
        let mut both = |n| [planner.plan_fft_forward(n), planner.plan_fft_inverse(n)];
        Self { h, w, rows: both(w), columns: both(h) }
    }

    /// `sum_{i,j} x_{ij} exp(-2 pi i (u i / h + v j / w))`, at `[v][u]`.
    pub(super) fn forward(&self, plane: impl Iterator<Item = f64>) -> Spectrum {
        let mut rows: Spectrum = plane.map(Complex::from).collect();
        self.rows[0].process(&mut rows);
        let mut columns = transposed(&rows, self.h, self.w);
        self.columns[0].process(&mut columns);
        columns
    }

    /// The real plane of a conjugate-symmetric spectrum: the inverse of [`forward`](Self::forward), row by row.
    pub(super) fn inverse(&self, mut spectrum: Spectrum) -> impl Iterator<Item = f64> + use<> {
        self.columns[1].process(&mut spectrum);
        let mut rows = transposed(&spectrum, self.w, self.h);
        self.rows[1].process(&mut rows);
        let scale = 1.0 / (self.h * self.w) as f64;
        rows.into_iter().map(move |value| value.re * scale)
    }

    /// Where the conjugate frequency of each position of a spectrum stands; a position of its own is a real coefficient.
    pub(super) fn conjugates(&self) -> Vec<usize> {
        let (h, w) = (self.h, self.w);
        (0..h * w).map(|position| (w - position / h) % w * h + (h - position % h) % h).collect()
    }
}

fn transposed(a: &[Complex<f64>], rows: usize, columns: usize) -> Spectrum {
    (0..columns).flat_map(|j| (0..rows).map(move |i| a[i * columns + j])).collect()
}
