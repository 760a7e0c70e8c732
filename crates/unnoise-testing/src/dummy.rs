//! The model and the inputs of diffusers' scheduler tests.

use std::f32::consts::FRAC_PI_2;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ndarray::Array4;
use unnoise_core::{
    Batch, Denoiser, DiscreteSchedule, Grid, Level, Linearized, Prediction, Result, Schedule, VeSchedule, convert, x0_from_eps,
};

/// The sides of the tests' batch.
pub const SIDES: [usize; 4] = [4, 3, 8, 8];

/// Upstream's `dummy_sample_deter`: `0, 1/N, ...` with the batch as the innermost index, `[n, c, h, w]`.
pub fn dummy_sample([n, c, h, w]: [usize; 4]) -> Batch {
    let count = (n * c * h * w) as f64;
    Array4::from_shape_fn((n, c, h, w), |(b, k, i, j)| {
        let index = ((k * h + i) * w + j) * n + b;
        f64::from((index as f64 / count) as f32)
    })
}

/// Upstream's `dummy_noise_deter`: the same numbers in the opposite order.
pub fn dummy_noise([n, c, h, w]: [usize; 4]) -> Batch {
    let count = n * c * h * w;
    Array4::from_shape_fn((n, c, h, w), |(b, k, i, j)| {
        let index = ((k * h + i) * w + j) * n + b;
        f64::from(((count - 1 - index) as f64 / count as f64) as f32)
    })
}

/// What a scheduler's state is to upstream's test loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convention {
    /// `x`.
    Plain,
    /// `x / alpha`, which the loop overwrites with what `scale_model_input` returns, `x`: before a step, where
    /// [`Dummy::rescaled`] announces it, and before every further evaluation in it.
    Scaled,
}

/// Upstream's dummy model `x t / (t + 1)`, of the state as the loop has it, as a denoiser: it returns the clean image whose noise is
/// what upstream's scheduler makes of that output.
#[derive(Debug)]
pub struct Dummy {
    schedule: Arc<dyn Schedule>,
    prediction: Prediction,
    convention: Convention,
    steps: f64,
    rescaled: AtomicBool,
}

impl Dummy {
    /// The model on `schedule`, whose `steps` timesteps are `t = (timestep + 1) / steps`.
    pub fn new(schedule: Arc<dyn Schedule>, steps: usize, prediction: Prediction, convention: Convention) -> Self {
        Self { schedule, prediction, convention, steps: steps as f64, rescaled: AtomicBool::new(false) }
    }

    /// The state that the next evaluation gets was overwritten.
    pub fn rescaled(&self) {
        self.rescaled.store(true, Ordering::Relaxed);
    }
}

impl Denoiser for Dummy {
    fn schedule(&self) -> &dyn Schedule {
        &*self.schedule
    }

    fn x0_hat(&self, x: &Batch, level: Level) -> Result<Batch> {
        let timestep = level.t * self.steps - 1.0;
        // What the model is shown, and the x that upstream's conversion from its output takes that for.
        let (shown, taken) = match self.convention {
            Convention::Plain => (x.clone(), x.clone()),
            Convention::Scaled => {
                let shown = if self.rescaled.swap(false, Ordering::Relaxed) { x / level.alpha } else { x.clone() };
                (shown.clone(), shown * level.alpha)
            }
        };
        let output = shown * (timestep / (timestep + 1.0));
        let eps = convert(&output, self.prediction, Prediction::Eps, &taken, level, &*self.schedule)?;
        x0_from_eps(&eps, x, level)
    }

    fn linearize<'a>(&'a self, _: &Batch, _: Level) -> Result<Linearized<'a>> {
        unreachable!("no sampler differentiates")
    }
}

/// The same model in EDM's preconditioning.
///
/// ```text
/// x0 = c_skip x + c_out F(c_in x, c_noise)        c_noise = log(sigma) / 4
/// ```
#[derive(Debug)]
pub struct EdmDummy {
    /// EDM's schedule.
    pub schedule: Arc<dyn Schedule>,
    /// The images' standard deviation.
    pub sigma_data: f64,
    /// The sign of `c_out`: upstream's is -1 for `v_prediction`.
    pub sign: f64,
    /// Whether the loop scales the model's input by `c_in`.
    pub scales_input: bool,
}

impl Denoiser for EdmDummy {
    fn schedule(&self) -> &dyn Schedule {
        &*self.schedule
    }

    fn x0_hat(&self, x: &Batch, level: Level) -> Result<Batch> {
        let (sigma, total) = (level.sigma_edm(), level.sigma_edm().hypot(self.sigma_data));
        let timestep = 0.25 * sigma.ln();
        let c_in = if self.scales_input { 1.0 / total } else { 1.0 };
        let c_out = self.sign * sigma * self.sigma_data / total;
        Ok(x * ((self.sigma_data / total).powi(2) + c_out * c_in * timestep / (timestep + 1.0)))
    }

    fn linearize<'a>(&'a self, _: &Batch, _: Level) -> Result<Linearized<'a>> {
        unreachable!("no sampler differentiates")
    }
}

/// A denoiser whose clean images are limited as diffusers' `thresholding` limits them: sample by sample at the quantile `ratio` of
/// their absolute values, which is clamped to `[1, most]`, and divided by it. Upstream's tests take a `most` below 1, which
/// `unnoise_core::Thresholded` refuses: every image then has the limit `most`.
pub struct Thresholded<D> {
    /// The denoiser.
    pub inner: D,
    /// `dynamic_thresholding_ratio`.
    pub ratio: f64,
    /// `sample_max_value`.
    pub most: f64,
}

impl<D: Denoiser> Denoiser for Thresholded<D> {
    fn schedule(&self) -> &dyn Schedule {
        self.inner.schedule()
    }

    fn x0_hat(&self, x: &Batch, level: Level) -> Result<Batch> {
        let mut x0 = self.inner.x0_hat(x, level)?;
        for mut sample in x0.outer_iter_mut() {
            let mut sizes: Vec<f64> = sample.iter().map(|v| v.abs()).collect();
            sizes.sort_by(f64::total_cmp);
            let position = self.ratio * (sizes.len() - 1) as f64;
            let below = position as usize;
            let quantile = sizes[below] + (position - below as f64) * (sizes[(below + 1).min(sizes.len() - 1)] - sizes[below]);
            // As torch.clamp: the upper limit wins where the limits cross.
            let limit = quantile.max(1.0).min(self.most);
            sample.mapv_inplace(|v| v.max(-limit).min(limit) / limit);
        }
        Ok(x0)
    }

    fn linearize<'a>(&'a self, x: &Batch, level: Level) -> Result<Linearized<'a>> {
        self.inner.linearize(x, level)
    }
}

/// A denoiser whose clean images are limited, and weighed as single precision weighs them in a step of DDPM.
///
/// ```text
/// weight = beta_t / (1 - alpha_bar_t / alpha_bar_(t-1))
/// ```
///
/// is 1, but upstream's two betas are rounded apart, and a tolerance of 1e-5 shows it where they are 1e-4: up to 5e-4 in the last steps.
pub struct RoundedBeta<D> {
    inner: D,
    limit: f64,
    weights: Vec<f64>,
}

impl<D: Denoiser> RoundedBeta<D> {
    /// `DDPMScheduler`: its beta is `1 - alpha_bar_t / alpha_bar_(t-1)`, the ratio rounded.
    pub fn ddpm(inner: D, limit: f64, schedule: &DiscreteSchedule) -> Self {
        Self::new(inner, limit, schedule, |_, [before, here]| f64::from(1.0 - here / before))
    }

    /// `UnCLIPScheduler`: its beta is the table's in a step by one timestep, as is the last one on every grid.
    pub fn unclip(inner: D, limit: f64, schedule: &DiscreteSchedule, only_last: bool) -> Self {
        let betas = schedule.betas();
        let exact = |[before, here]: [f32; 2]| 1.0 - f64::from(here) / f64::from(before);
        Self::new(inner, limit, schedule, |t, bars| if only_last && t > 0 { exact(bars) } else { betas[t] })
    }

    fn new(inner: D, limit: f64, schedule: &DiscreteSchedule, beta: impl Fn(usize, [f32; 2]) -> f64) -> Self {
        let bars = rounded_alpha_bars(schedule);
        let weight = |t: usize| {
            let pair = [t.checked_sub(1).map_or(1.0, |before| bars[before]), bars[t]];
            beta(t, pair) / (1.0 - f64::from(pair[1]) / f64::from(pair[0]))
        };
        Self { inner, limit, weights: (0..bars.len()).map(weight).collect() }
    }
}

/// `alpha_bar` in single precision, multiplied up in double as PyTorch does.
fn rounded_alpha_bars(schedule: &DiscreteSchedule) -> Vec<f32> {
    let mut product = 1.0;
    let mut next = |beta: &f64| {
        product *= f64::from(1.0 - *beta as f32);
        product as f32
    };
    schedule.betas().iter().map(&mut next).collect()
}

/// The schedule whose `sigma / alpha` are single precision's, for a sampler that asks at the time of a noise level of its own: near the
/// clean end they are off by up to 1e-4 of themselves, and the dummy model `x t / (t + 1)` shows every fraction of a timestep there.
///
/// # Errors
/// Those of [`DiscreteSchedule::from_betas`].
pub fn rounded(schedule: &DiscreteSchedule) -> Result<DiscreteSchedule> {
    let square = |bar: f32| f64::from(((1.0 - bar) / bar).sqrt()).powi(2);
    let mut before = 1.0;
    let mut beta = |bar: f32| {
        let here = 1.0 / (1.0 + square(bar));
        1.0 - here / std::mem::replace(&mut before, here)
    };
    DiscreteSchedule::from_betas(rounded_alpha_bars(schedule).into_iter().map(&mut beta).collect())
}

impl<D: Denoiser> Denoiser for RoundedBeta<D> {
    fn schedule(&self) -> &dyn Schedule {
        self.inner.schedule()
    }

    fn x0_hat(&self, x: &Batch, level: Level) -> Result<Batch> {
        let timestep = (level.t * self.weights.len() as f64).round() as usize - 1;
        let x0 = self.inner.x0_hat(x, level)?;
        Ok(x0.mapv(|v| v.clamp(-self.limit, self.limit) * self.weights[timestep]))
    }

    fn linearize<'a>(&'a self, x: &Batch, level: Level) -> Result<Linearized<'a>> {
        self.inner.linearize(x, level)
    }
}

/// A denoiser that finds no noise, for what upstream has not filled of a history.
#[derive(Debug)]
pub struct Noiseless<'a>(pub &'a dyn Schedule);

impl Denoiser for Noiseless<'_> {
    fn schedule(&self) -> &dyn Schedule {
        self.0
    }

    fn x0_hat(&self, x: &Batch, level: Level) -> Result<Batch> {
        Ok(x / level.alpha)
    }

    fn linearize<'a>(&'a self, _: &Batch, _: Level) -> Result<Linearized<'a>> {
        unreachable!("no sampler differentiates")
    }
}

/// What `IPNDMScheduler` divides by where there is no signal.
const NO_SIGNAL: f64 = 1e-8;

/// The dummy model in `IPNDMScheduler`'s terms: its output is `v`, at levels `sigma = sin^2(pi/2 s)` of a circle, and its time the angle.
///
/// ```text
/// eps = sigma x + alpha v      v = x t / (t + 1)      x0 = (x - sigma eps) / max(alpha, 1e-8)
/// ```
#[derive(Debug)]
pub struct IpndmDummy(pub Arc<dyn Schedule>);

impl IpndmDummy {
    /// Upstream's grid of `n` steps; its first level has the signal that upstream divides by instead of 0.
    pub fn grid(n: usize) -> Grid {
        // In single precision, like upstream: 1 - sigma^2 loses digits where sigma is near 1.
        let level = |i: usize| {
            let sigma = ((n - i) as f32 / n as f32 * FRAC_PI_2).sin().powi(2);
            let alpha = (1.0 - sigma * sigma).max(0.0).sqrt();
            let t = sigma.atan2(alpha) / FRAC_PI_2;
            Level { t: t.into(), alpha: f64::from(alpha).max(NO_SIGNAL), sigma: sigma.into() }
        };
        Grid { start: 1.0, ..Grid::through(&(0..=n).map(level).collect::<Vec<_>>()) }
    }
}

impl Denoiser for IpndmDummy {
    fn schedule(&self) -> &dyn Schedule {
        &*self.0
    }

    fn x0_hat(&self, x: &Batch, Level { t, alpha, sigma }: Level) -> Result<Batch> {
        let signal = if alpha > NO_SIGNAL { alpha } else { 0.0 };
        let eps = x * (sigma + signal * t / (t + 1.0));
        Ok((x - sigma * eps) / alpha)
    }

    fn linearize<'a>(&'a self, _: &Batch, _: Level) -> Result<Linearized<'a>> {
        unreachable!("no sampler differentiates")
    }
}

/// The dummy model as a score, of the noise level that the schedule has at the time it is told, at levels whose own may be another.
///
/// ```text
/// score = x sigma(t) / (sigma(t) + 1)      x0 = x + sigma^2 score
/// ```
#[derive(Debug)]
pub struct ScoreDummy(pub VeSchedule);

impl ScoreDummy {
    /// The grid of `n` steps of `ScoreSdeVeScheduler`, the last to `sigma = 0`. Its test makes the noise levels before it sets the timesteps,
    /// and so tells the model the times of the first `n` of all `train_steps`, from 1 to `sampling_eps`.
    pub fn grid(&self, n: usize, train_steps: usize, sampling_eps: f64) -> Grid {
        let share = |i: usize, count: usize| i as f64 / (count - 1) as f64;
        let level = |i: usize| Level {
            t: 1.0 - (1.0 - sampling_eps) * share(i, train_steps),
            alpha: 1.0,
            sigma: self.0.scales(1.0 - share(i, n)).sigma,
        };
        let levels: Vec<Level> = (0..n).map(level).chain([Level::CLEAN]).collect();
        Grid { start: 1.0, ..Grid::through(&levels) }
    }
}

impl Denoiser for ScoreDummy {
    fn schedule(&self) -> &dyn Schedule {
        &self.0
    }

    fn x0_hat(&self, x: &Batch, Level { t, sigma, .. }: Level) -> Result<Batch> {
        let told = self.0.scales(t).sigma;
        Ok(x * (1.0 + sigma * sigma * told / (told + 1.0)))
    }

    fn linearize<'a>(&'a self, _: &Batch, _: Level) -> Result<Linearized<'a>> {
        unreachable!("no sampler differentiates")
    }
}
