//! Problems with known posteriors, and exact moments of affine samplers: shared by the tests and the example that prints the table.
#![allow(dead_code, unreachable_pub)]

use std::{collections::HashMap, sync::Arc};

use ndarray::{Array1, Array2, Axis};
use unnoise_core::*;

pub const D: usize = 8;
pub const SHAPE: Shape = [1, 1, D];
pub const SIGMA_Y: f64 = 0.3;

/// A prior whose covariance is neither diagonal nor aligned with any operator.
pub fn gaussian() -> Gaussian {
    let deviation = |i: usize| 0.5 + 0.1 * i as f64;
    let covariance =
        Array2::from_shape_fn((D, D), |(i, j)| deviation(i) * deviation(j) * (-(i as f64 - j as f64).abs() / 2.0).exp());
    let mean: Vec<f64> = (0..D).map(|i| 0.4 * (i as f64).sin()).collect();
    Gaussian::new(&mean, &covariance, SHAPE).unwrap()
}

/// Noisier at its end than is usual, so that the signal that is neglected there (`alpha = 3e-4`) is negligible here.
pub fn schedule() -> Arc<dyn Schedule> {
    Arc::new(VpSchedule::new(0.1, 32.0).unwrap())
}

/// Random entries of variance `1 / D`.
pub fn random_matrix(m: usize, d: usize, seed: u64) -> Array2<f64> {
    let noise = Streams::new(seed, 0..1).normal(0, Purpose::Auxiliary, 1, [1, m, d]);
    noise.into_shape_with_order((m, d)).unwrap() / (d as f64).sqrt()
}

/// A circular blur.
pub fn circulant() -> Array2<f64> {
    let kernel = [0.5, 0.3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.2];
    Array2::from_shape_fn((D, D), |(i, j)| kernel[(i + D - j) % D])
}

pub fn operators() -> Vec<(&'static str, Dense)> {
    [("wide 3 x 8", random_matrix(3, D, 1)), ("tall 12 x 8", random_matrix(12, D, 2)), ("circulant 8 x 8", circulant())]
        .into_iter()
        .map(|(name, matrix)| (name, Dense::new(matrix, SHAPE).unwrap()))
        .collect()
}

/// The measurement of one prior image.
pub fn measure<'a>(prior: &impl ExactPrior, op: &'a dyn Operator, sigma_y: f64, seed: u64) -> Measurement<'a> {
    let streams = Streams::new(seed, 0..1);
    Measurement::new(op, simulate(op, &prior.sample(&streams), sigma_y, &streams).unwrap(), sigma_y).unwrap()
}

/// Mean and covariance of a distribution of images.
#[derive(Clone, Debug)]
pub struct Moments {
    pub mean: Array1<f64>,
    pub covariance: Array2<f64>,
}

impl Moments {
    pub fn exact(prior: &impl ExactPrior) -> Self {
        Self { mean: prior.mean().iter().copied().collect(), covariance: prior.covariance() }
    }

    /// Of a set of samples.
    pub fn estimated(x: &Batch) -> Self {
        let (n, d) = (x.dim().0, x.len() / x.dim().0);
        let rows = x.to_shape((n, d)).unwrap();
        let mean = rows.mean_axis(Axis(0)).unwrap();
        let centred = &rows - &mean;
        Self { covariance: centred.t().dot(&centred) / (n - 1) as f64, mean }
    }

    /// How far these are from others: the mean in units of the others' total deviation, the covariance in the Frobenius norm.
    pub fn error(&self, other: &Self) -> Errors {
        let norm = |a: &Array2<f64>| a.iter().map(|v| v * v).sum::<f64>().sqrt();
        let shift = &self.mean - &other.mean;
        Errors {
            mean: (shift.dot(&shift) / other.covariance.diag().sum()).sqrt(),
            covariance: norm(&(&self.covariance - &other.covariance)) / norm(&other.covariance),
        }
    }
}

/// Relative errors of [`Moments`].
#[derive(Clone, Copy, Debug)]
pub struct Errors {
    pub mean: f64,
    pub covariance: f64,
}

impl Moments {
    /// The largest deviation of `n` samples' moments from these, in standard errors of the samples' Gaussian.
    pub fn largest_deviation(&self, estimated: &Self, n: usize) -> f64 {
        let (n, c) = (n as f64, &self.covariance);
        let mut largest: f64 = 0.0;
        for i in 0..self.mean.len() {
            largest = largest.max((estimated.mean[i] - self.mean[i]).abs() / (c[[i, i]] / n).sqrt());
            for j in 0..=i {
                let error = ((c[[i, i]] * c[[j, j]] + c[[i, j]].powi(2)) / n).sqrt();
                largest = largest.max((estimated.covariance[[i, j]] - c[[i, j]]).abs() / error);
            }
        }
        largest
    }
}

/// Draws with a method, `n` samples in portions.
pub fn draw(method: &dyn PosteriorMethod, prior: &dyn Denoiser, measurement: &Measurement<'_>, grid: &Grid, n: u32) -> Batch {
    let portion = 250.min(n);
    let drawn: Vec<Batch> = (0..n / portion)
        .map(|k| {
            let streams = Streams::new(17, k * portion..(k + 1) * portion);
            method.sample(prior, measurement, grid, &streams, &mut unobserved).unwrap().x0
        })
        .collect();
    ndarray::concatenate(Axis(0), &drawn.iter().map(|x| x.view()).collect::<Vec<_>>()).unwrap()
}

/// Unit vectors in the place of noise: sample 0 has none, and each other sample one component of one draw.
pub struct Units {
    slots: HashMap<(usize, u32), usize>,
}

impl Units {
    pub fn new() -> Self {
        Self { slots: HashMap::new() }
    }
}

impl Noise for Units {
    fn normal(&mut self, step: usize, purpose: Purpose, n: usize, [c, h, w]: Shape) -> Batch {
        let next = self.slots.len();
        let slot = *self.slots.entry((step, purpose as u32)).or_insert(next);
        let d = c * h * w;
        let mut z = Batch::zeros((n, c, h, w));
        for i in 0..d {
            z.as_slice_mut().unwrap()[(1 + slot * d + i) * d + i] = 1.0;
        }
        z
    }
}

/// The exact moments of what a sampler makes of noise, if it is affine in the noise; `draws` is the number of draws of noise.
pub fn moments(sampler: &mut dyn Sampler, denoiser: &dyn Denoiser, grid: &Grid, shape: Shape, draws: usize) -> Moments {
    let d = shape.iter().product::<usize>();
    let (n, mut noise) = (1 + draws * d, Units::new());
    let x = start_noise(grid, &mut noise, n, shape);
    let x0 = sample(sampler, denoiser, grid, x, &mut noise, &mut unobserved).unwrap();
    let rows = x0.to_shape((n, d)).unwrap();
    let mean = rows.row(0).to_owned();
    let responses = &rows - &mean;
    Moments { covariance: responses.t().dot(&responses), mean }
}

/// Draws of noise that a sampler makes over `grid`: the start, and one for each step that ends in noise if it is stochastic.
pub fn draws(grid: &Grid, stochastic: bool) -> usize {
    1 + if stochastic { grid.steps.iter().filter(|step| step.to.sigma > 0.0).count() } else { 0 }
}

/// A mixture in four dimensions whose posterior under one or two measurements keeps several modes.
pub fn mixture() -> GaussianMixture {
    let shape = [1, 1, 4];
    let covariance = Array2::from_shape_fn((4, 4), |(i, j)| 0.03 * 0.5f64.powi((i as i32 - j as i32).abs()));
    let centres =
        [[0.8, 0.8, -0.4, 0.2], [0.8, -0.8, 0.6, -0.6], [-0.8, 0.7, 0.1, 0.9], [-0.7, -0.8, -0.9, 0.0], [0.1, 0.0, 0.9, -0.9]];
    let components = centres.iter().map(|mean| Gaussian::new(mean, &covariance, shape).unwrap()).collect();
    GaussianMixture::new(&[0.3, 0.2, 0.2, 0.2, 0.1], components).unwrap()
}

/// The mixture's measurement: two sums that do not tell the components apart.
pub fn mixture_operator() -> Dense {
    Dense::new(ndarray::array![[0.9, 0.1, 0.2, -0.1], [0.0, 0.2, 0.5, 0.5]], [1, 1, 4]).unwrap()
}

/// The sliced Wasserstein distance over 200 fixed directions. (Of order 1: that of order 2 is dominated by the sampling error of the
/// modes' weights, of which it takes the root.)
pub fn distance(a: &Batch, b: &Batch) -> f64 {
    sliced_wasserstein(a, b, 1, &Streams::new(99, 0..200)).unwrap()
}

/// What the distance of two sets of exact samples is, from 99 independent pairs of sets.
#[derive(Clone, Copy, Debug)]
pub struct Floor {
    pub mean: f64,
    pub largest: f64,
}

impl Floor {
    pub fn of(posterior: &impl ExactPrior, n: u32) -> Self {
        let set = |seed| posterior.sample(&Streams::new(seed, 0..n));
        let distances: Vec<f64> = (0..99).map(|pair| distance(&set(1000 + 2 * pair), &set(1001 + 2 * pair))).collect();
        Self { mean: distances.iter().sum::<f64>() / 99.0, largest: distances.iter().copied().fold(0.0, f64::max) }
    }
}

/// A matrix that hides its decomposition.
pub struct OnlyAdjoint(pub Dense);

impl Operator for OnlyAdjoint {
    fn spec(&self) -> String {
        "only-adjoint".into()
    }
    fn input_shape(&self) -> Shape {
        self.0.input_shape()
    }
    fn output_shape(&self) -> Shape {
        self.0.output_shape()
    }
    fn forward(&self, x: &Batch) -> Batch {
        self.0.forward(x)
    }
    fn adjoint(&self, y: &Batch) -> Batch {
        self.0.adjoint(y)
    }
}
