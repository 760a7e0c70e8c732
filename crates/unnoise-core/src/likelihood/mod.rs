//! The density of an image under a prior, by the probability-flow ODE.

mod bits;
mod path;

#[cfg(test)]
mod tests;

use std::f64::consts::TAU;
use std::ops::ControlFlow;

use ndarray::{Array1, Axis, Slice, concatenate};

pub use bits::Dequantisation;

use crate::{
    Batch, CleanEnd, Denoiser, Error, Level, Linearized, Purpose, Result, Schedule, Shape, Streams, dot, norm_sq, normal_quantile,
    schedule::lowest_time,
};
use path::Problem;

/// How the divergence of the flow is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Divergence {
    /// The trace, from `d` vector-Jacobian products with unit vectors.
    Exact,
    /// Hutchinson's estimate from this many probes of random signs.
    Rademacher(usize),
    /// Hutchinson's estimate from this many standard normal probes.
    Gaussian(usize),
}

/// How a likelihood is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LikelihoodConfig {
    /// The divergence.
    pub divergence: Divergence,
    /// The lowest noise level `sigma / alpha`, in the units of the image. None: where the schedule ends in noise, the first step of a
    /// discrete one, `t = 0.001` of a continuous one that ends clean.
    pub sigma_min: Option<f64>,
    /// The highest noise level. None: the schedule's, or 1000 where that is higher, as a rectified flow's infinite one.
    pub sigma_max: Option<f64>,
    /// The largest error of a step: of the state in standard deviations of the noise that it holds, of the result in nats a dimension.
    pub tolerance: f64,
    /// How many probes enter the denoiser at once: memory, not the result.
    pub chunk: usize,
}

impl Default for LikelihoodConfig {
    fn default() -> Self {
        Self { divergence: Divergence::Rademacher(16), sigma_min: None, sigma_max: None, tolerance: 1e-5, chunk: 64 }
    }
}

/// The log-density of one image.
#[derive(Clone, Debug, PartialEq)]
pub struct LogDensity {
    /// `log p(x)` in nats, with the noise's own density `N(0, sigma_max^2 I)` at the end.
    pub nats: f64,
    /// What the prior's own density at the end would add to `nats`: an estimate, of which the error falls as `sigma_max^-3` for an exact
    /// denoiser. It is as good as the mean and the Jacobian there, which a network that predicts noise knows badly: there
    /// [`LikelihoodConfig::end_bound`] is what can be said.
    pub end_error: f64,
    /// The standard error of Hutchinson's estimate, from the spread of its probes; 0 for an exact divergence.
    pub standard_error: f64,
    /// The number of values of the image.
    pub d: usize,
    /// Steps of the solver, rejected ones included.
    pub steps: usize,
}

impl LogDensity {
    /// `nats` with the prior's own density at the end.
    pub fn corrected(&self) -> f64 {
        self.nats + self.end_error
    }

    /// Nats a dimension.
    pub fn nats_per_dim(&self) -> f64 {
        self.nats / self.d as f64
    }

    /// The negative log-likelihood of the image on the grid of stored values, in bits a dimension.
    pub fn bits_per_dim(&self, dequantisation: Dequantisation) -> f64 {
        dequantisation.bits_per_dim(self.nats, self.d)
    }
}

/// The log-density of each image, plus noise of `sigma_min`, under `prior`: the flow carries it to pure noise, and the change of volume is
/// summed on the way.
///
/// ```text
/// u = x / alpha,  s = sigma / alpha,  l = log s:      du/dl = u - x0_hat(u, s)      J = d x0_hat / du
/// log p(u) = log N(u_max; 0, s_max^2 I) + integral_{l_min}^{l_max} (d - tr J) dl
///          = -d/2 log(2 pi s_min^2) - |u_max|^2 / (2 s_max^2) - integral tr J dl
/// ```
///
/// `p` is the density of `u` at the lowest level, that of the clean image and noise of `s_min`: an image enters as it is. Dormand and
/// Prince's pair of orders 5 and 4 integrates each image with its own steps, as `u / sqrt(1 + s^2)`, which stays of the image's size.
/// Probes are drawn once an image (from `streams`, one a sample) and held along the path, so that every probe's sum is an unbiased
/// estimate; an image repeats in the batch that the denoiser sees, once a probe.
///
/// At the end the prior's density is that of the noise but for `E exp((u . x0 - |x0|^2 / 2) / s^2)`, of whose logarithm the first two
/// cumulants are [`end_error`](LogDensity::end_error):
///
/// ```text
/// (u . m + u^T J u / 2 - |m|^2 / 2) / s^2 - tr J / 2,      m = x0_hat - J u
/// ```
///
/// # Shapes
/// `x` is `[n, c, h, w]`, in the model's units; `observer` is told the image in work and the share of its path that is done.
///
/// # Errors
/// [`Error::Argument`] for levels that the schedule does not reach and for settings outside their domain; [`Error::Shape`] unless there is
/// one stream an image; [`Error::NotFinite`] where the flow leaves the finite numbers; [`Error::Stopped`] when `observer` breaks, with
/// the images that were done; those of the denoiser.
///
/// # Reference
/// Song et al. 2021, arXiv 2011.13456, eq. 39, for the flow of eq. 13; the estimate of the trace and its fixed probes: Grathwohl et al.
/// 2019, arXiv 1810.01367, sec. 3.1. Theirs integrate `x` in `t` from the density of a state that holds noise of `t = 1e-5`.
pub fn log_density(
    prior: &dyn Denoiser,
    x: &Batch,
    config: &LikelihoodConfig,
    streams: &Streams,
    observer: &mut dyn FnMut(usize, f64) -> ControlFlow<()>,
) -> Result<Vec<LogDensity>> {
    let n = x.dim().0;
    let ends = config.levels(prior.schedule())?.map(f64::ln);
    if streams.len() != n {
        return Err(Error::Shape { what: "streams", expected: vec![n], got: vec![streams.len()], at: AT });
    }
    let one = |i: usize| {
        let image = x.slice_axis(Axis(0), Slice::from(i..i + 1)).to_owned();
        let mut go_on = |share| match observer(i, share) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Stopped { done: i, steps: n }),
        };
        let flow = Flow::new(prior, config, &streams.stream(i), crate::element_shape(x));
        flow.log_density(&image, ends, &mut go_on).map_err(|error| of_sample(error, i))
    };
    (0..n).map(one).collect()
}

const AT: &str = "log_density";

/// The highest level of a schedule that has no end, or hardly one.
const HIGHEST: f64 = 1000.0;

impl LikelihoodConfig {
    /// A bound in nats a dimension, for images in `[-1, 1]`, of what the noise's own density at the end costs on average over the prior:
    /// `KL(p_max || N(0, s^2 I)) <= E KL(N(x0, s^2 I) || N(0, s^2 I)) = E |x0|^2 / (2 s^2) <= d / (2 s^2)`.
    ///
    /// # Errors
    /// As [`levels`](Self::levels).
    pub fn end_bound(&self, schedule: &dyn Schedule) -> Result<f64> {
        Ok(0.5 / self.levels(schedule)?[1].powi(2))
    }

    /// The lowest and the highest noise level, `sigma / alpha`, on a schedule.
    ///
    /// # Errors
    /// [`Error::Argument`] for levels that the schedule does not reach, and for settings outside their domain.
    pub fn levels(&self, schedule: &dyn Schedule) -> Result<[f64; 2]> {
        let refuse = |what, expected: String, got: String| Err(Error::Argument { what, expected, got, at: AT });
        let level = |t| Level::at(schedule, t).sigma_edm();
        let lowest = lowest_time(schedule);
        // A continuous schedule that ends clean has no lowest level.
        let floor = if schedule.clean_end() == CleanEnd::Clean && schedule.steps().is_none() { 0.0 } else { level(lowest) };
        let ceiling = level(1.0);
        let low = self.sigma_min.unwrap_or_else(|| level(lowest));
        let high = self.sigma_max.unwrap_or(ceiling.min(HIGHEST));
        // Levels that a user writes are those of the schedule but for their rounding.
        let reached = floor * (1.0 - 1e-9) <= low && high <= ceiling * (1.0 + 1e-9);
        if !(0.0 < low && low < high && high.is_finite() && reached) {
            let expected = format!("{floor} <= sigma_min < sigma_max <= {ceiling}, positive and finite");
            return refuse("sigma_min, sigma_max", expected, format!("{low}, {high}"));
        }
        if !(1e-12..=0.1).contains(&self.tolerance) {
            return refuse("tolerance", "in [1e-12, 0.1]".into(), self.tolerance.to_string());
        }
        let probes = match self.divergence {
            Divergence::Exact => 2,
            Divergence::Rademacher(probes) | Divergence::Gaussian(probes) => probes,
        };
        if !(2..1 << 24).contains(&probes) {
            return refuse("probes", "at least 2, which give a spread, and below 2^24".into(), probes.to_string());
        }
        Ok([low, high])
    }
}

/// The flow of one image.
struct Flow<'a> {
    prior: &'a dyn Denoiser,
    /// `[k, c, h, w]`.
    probes: Batch,
    config: &'a LikelihoodConfig,
    d: usize,
}

/// What drives the flow at a state: `u - x0_hat`, and `v^T J v` for each probe.
struct Slope {
    x0_hat: Batch,
    quadratics: Vec<f64>,
}

impl<'a> Flow<'a> {
    fn new(prior: &'a dyn Denoiser, config: &'a LikelihoodConfig, stream: &Streams, shape: Shape) -> Self {
        let d = shape.iter().product();
        Self { prior, probes: probes(config.divergence, stream, shape), config, d }
    }

    /// The state is `u / sqrt(1 + s^2)`, then the probes' integrals of `v^T J v`.
    fn log_density(&self, image: &Batch, [from, to]: [f64; 2], go_on: &mut dyn FnMut(f64) -> Result<()>) -> Result<LogDensity> {
        let size = |l: f64| (1.0 + (2.0 * l).exp()).sqrt();
        let u_of = |l: f64, y: &Array1<f64>| {
            let u = y.iter().take(self.d).map(|z| z * size(l)).collect();
            Batch::from_shape_vec(image.raw_dim(), u).expect("the first d values are the image")
        };
        let rate = |l: f64, y: &Array1<f64>| {
            go_on((l - from) / (to - from))?;
            let u = u_of(l, y);
            let Slope { x0_hat, quadratics } = self.slope(&u, l)?;
            let z = (u / size(l).powi(2) - x0_hat) / size(l);
            Ok(z.into_iter().chain(quadratics).collect())
        };
        let error = |l: f64, e: &Array1<f64>| {
            let (state, volume) = e.view().split_at(Axis(0), self.d);
            let noise = l.exp() / size(l);
            let rms = (state.iter().map(|e| (e / noise).powi(2)).sum::<f64>() / self.d as f64).sqrt();
            rms.max(self.trace(volume.iter()).0.abs() / self.d as f64) / self.config.tolerance
        };
        let start = image.iter().map(|u| u / size(from)).chain(vec![0.0; self.probes.dim().0]).collect();
        let (end, steps) = Problem { rate, error }.solve(start, from, to)?;
        let u = u_of(to, &end);
        let (volume, standard_error) = self.trace(end.iter().skip(self.d));
        let s_sq = (2.0 * to).exp();
        let nats = -0.5 * (self.d as f64 * (TAU.ln() + 2.0 * from) + norm_sq(&u)[0] / s_sq) - volume;
        Ok(LogDensity { nats, end_error: self.end_error(&u, to)?, standard_error, d: self.d, steps })
    }

    fn end_error(&self, u: &Batch, l: f64) -> Result<f64> {
        let (level, s_sq) = (self.level(l), (2.0 * l).exp());
        let mut at = self.prior.linearize(&(u * level.alpha), level)?;
        let along = (at.vjp)(u)? * level.alpha;
        let mean = at.x0_hat - &along;
        let trace = self.trace(self.slope(u, l)?.quadratics.iter()).0;
        Ok((dot(u, &mean)[0] + 0.5 * dot(u, &along)[0] - 0.5 * norm_sq(&mean)[0]) / s_sq - 0.5 * trace)
    }

    fn level(&self, l: f64) -> Level {
        let schedule = self.prior.schedule();
        Level::at(schedule, schedule.t_from_sigma_edm(l.exp()))
    }

    fn slope(&self, u: &Batch, l: f64) -> Result<Slope> {
        let level = self.level(l);
        let x = u * level.alpha;
        let mut slope = Slope { x0_hat: Batch::zeros(u.raw_dim()), quadratics: Vec::new() };
        for start in (0..self.probes.dim().0).step_by(self.config.chunk.max(1)) {
            let end = self.probes.dim().0.min(start + self.config.chunk.max(1));
            let probes = self.probes.slice_axis(Axis(0), Slice::from(start..end)).to_owned();
            let copies = concatenate(Axis(0), &vec![x.view(); end - start]).expect("copies have one shape");
            let Linearized { x0_hat, mut vjp } = self.prior.linearize(&copies, level)?;
            let products = vjp(&probes)? * level.alpha;
            slope.quadratics.extend(dot(&probes, &products));
            slope.x0_hat = x0_hat.slice_axis(Axis(0), Slice::from(..1)).to_owned();
        }
        Ok(slope)
    }

    /// The trace from its quadratic forms, and its standard error.
    fn trace<'q>(&self, quadratics: impl Iterator<Item = &'q f64> + Clone) -> (f64, f64) {
        let (sum, k) = (quadratics.clone().sum::<f64>(), self.probes.dim().0 as f64);
        if self.config.divergence == Divergence::Exact {
            return (sum, 0.0);
        }
        let mean = sum / k;
        let spread = quadratics.map(|q| (q - mean).powi(2)).sum::<f64>() / (k - 1.0);
        (mean, (spread / k).sqrt())
    }
}

/// The probes `[k, c, h, w]`; probe `k` is drawn at step `k + 1` of the stream, whose step 0 is the dequantisation's.
fn probes(divergence: Divergence, stream: &Streams, [c, h, w]: Shape) -> Batch {
    let d = c * h * w;
    let drawn = |k: usize, value: fn(f64) -> f64| {
        let draw = |step: usize| stream.uniform(step + 1, Purpose::Auxiliary, d).concat();
        Batch::from_shape_vec((k, c, h, w), (0..k).flat_map(draw).map(value).collect()).expect("a probe has d values")
    };
    match divergence {
        Divergence::Exact => Batch::from_shape_vec((d, c, h, w), unit_vectors(d)).expect("d vectors of d values"),
        Divergence::Rademacher(k) => drawn(k, |uniform| if uniform < 0.5 { -1.0 } else { 1.0 }),
        Divergence::Gaussian(k) => drawn(k, normal_quantile),
    }
}

fn unit_vectors(d: usize) -> Vec<f64> {
    (0..d * d).map(|i| if i % (d + 1) == 0 { 1.0 } else { 0.0 }).collect()
}

/// An error that names sample 0, the only one of a path, as that of the sample that it is.
fn of_sample(error: Error, sample: usize) -> Error {
    match error {
        Error::NotFinite { what, at, .. } => Error::NotFinite { what, sample, at },
        other => other,
    }
}
