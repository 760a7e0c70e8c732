//! `tds`: the twisted diffusion sampler.

use ndarray::{Axis, Zip};
use serde::{Deserialize, Serialize};

use super::{
    Diagnostics, Drawn, ParticleReport, Pigdm, PosteriorMethod, Target, check_argument, check_measurement, effective_sample_size,
    residual, systematic_resampling, weights_from_log,
};
use crate::{
    Batch, Capability, Denoiser, Error, Evaluations, Grid, Interval, Level, Measurement, Noise, Observer, Progress, Purpose,
    Result, Streams, check_shape, dot, norm_sq, start_noise,
};

/// Twisted sequential Monte Carlo: many particles walk the prior's chain, are drawn towards the measurement and weighted so that the
/// pull is paid for.
///
/// ```text
/// chain     p(x' | x) = N(m(x), c^2 I),   m = alpha' x0_hat + sqrt(sigma'^2 - c^2) eps_hat,   c = eta sigma' sqrt(1 - r^2)
/// twist     p~(y | x_t) = N(y; A x0_hat, r_t^2 A A^T + sigma_y^2 I), r_t^2 as in pigdm;  at the chain's last noisy level N(y; A x0_hat, sigma_y^2 I)
/// proposal  q(x' | x) = N(m(x) + k d, c^2 I),   d = (sigma^2 / alpha) grad log p~(y | x),   k = d m / d x0_hat
/// weight    w *= p(x' | x) p~(y | x') / (p~(y | x) q(x' | x))
/// ```
///
/// The particles of a sample are resampled systematically when their effective size falls below `resample_below` of their number; at
/// the end one of them is drawn by its weight.
///
/// The chain's last step adds no noise: the image is `x0_hat` of the last noisy state, a function of it. So the exact likelihood
/// of the image that will come out, `N(y; A x0_hat, sigma_y^2 I)`, is the twist at that state, and no approximation of the
/// twist or the proposal is left in the final weights.
///
/// # Target
/// Exact for any prior as the particles grow, for the prior that the chain itself samples; that is the true prior as the steps grow.
/// Determinants of the twist are the same for every particle and left out.
///
/// # Reference
/// Wu, Trippe, Naesseth, Blei, Cunningham 2023, arXiv 2306.17775, algorithm 1. Deviations: the twist's variance grows with the
/// noise as in [`Pigdm`] (theirs is `sigma_y^2` and the noise's, per application); resampling is adaptive; and the last step is as
/// said above (theirs keeps noise in it).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tds {
    /// Particles for each posterior sample, at most 65536. Samples are independent: each has particles of its own.
    pub particles: u32,
    /// The chain's share of ancestral noise, in `(0, 1]`: 1 is DDPM's chain.
    pub eta: f64,
    /// The variance of the prior's values that the twist assumes. It changes the efficiency, never the limit.
    pub prior_variance: f64,
    /// Limits the image that the proposal aims at, `x0_hat` plus the twist's shift, to `[-clamp, clamp]`: a network's Jacobian at the first levels
    /// is not to be trusted. Any proposal is paid for by the weights, so it changes the efficiency, never the limit.
    pub clamp: Option<f64>,
    /// The share of the particles below which the effective size leads to resampling, in `[0, 1]`.
    pub resample_below: f64,
}

impl Default for Tds {
    fn default() -> Self {
        Self { particles: 16, eta: 1.0, prior_variance: 1.0, clamp: None, resample_below: 0.5 }
    }
}

const NAME: &str = "tds";
const NEEDS: &[Capability] = &[Capability::Adjoint];

impl Tds {
    /// Refuses settings outside their domain.
    ///
    /// # Errors
    /// [`Error::Argument`].
    pub fn check(&self) -> Result<()> {
        check_argument("particles", f64::from(self.particles), (1..=65536).contains(&self.particles), "in 1..=65536", NAME)?;
        check_argument("eta", self.eta, self.eta > 0.0 && self.eta <= 1.0, "in (0, 1]", NAME)?;
        check_argument("prior_variance", self.prior_variance, self.prior_variance > 0.0, "above 0", NAME)?;
        let clamp = self.clamp.unwrap_or(1.0);
        check_argument("clamp", clamp, clamp > 0.0, "above 0", NAME)?;
        check_argument("resample_below", self.resample_below, (0.0..=1.0).contains(&self.resample_below), "in [0, 1]", NAME)
    }

    fn check_run(&self, measurement: &Measurement<'_>, grid: &Grid) -> Result<()> {
        self.check()?;
        check_measurement(NAME, NEEDS, measurement)?;
        grid.check()?;
        let unsupported = |what: &str, why: &str, possible: &str| {
            Err(Error::Unsupported { what: format!("tds with {what}"), why: why.into(), possible: vec![possible.into()] })
        };
        if measurement.sigma_y == 0.0 {
            return unsupported("sigma_y = 0", "no particle has a positive likelihood", "sigma_y > 0");
        }
        let (last, before) = grid.steps.split_last().expect("a checked grid has a step");
        if last.to.sigma > 0.0 || before.iter().any(|step| step.to.sigma == 0.0) {
            return unsupported("this grid", "its chain does not end, or end only, without noise", "a grid to the clean image");
        }
        Ok(())
    }

    fn twist(&self, prior: &dyn Denoiser, measurement: &Measurement<'_>, x: &Batch, level: Level, last: bool) -> Result<Twist> {
        if last {
            let x0_hat = prior.x0_hat(x, level)?;
            let scale = -0.5 / (measurement.sigma_y * measurement.sigma_y);
            let log = norm_sq(&residual(measurement, &x0_hat)).into_iter().map(|norm_sq| scale * norm_sq).collect();
            return Ok(Twist { x0_hat, shift: None, log });
        }
        let mut linearized = prior.linearize(x, level)?;
        let residual = residual(measurement, &linearized.x0_hat);
        let model = Pigdm { prior_variance: self.prior_variance, ..Pigdm::default() };
        let v = model.solve(measurement, level, &residual)?.v;
        let log = dot(&residual, &v).into_iter().map(|square| -0.5 * square).collect();
        let shift = match level.alpha > 0.0 {
            true => Some((linearized.vjp)(&measurement.op.adjoint(&v))? * (level.sigma * level.sigma / level.alpha)),
            false => None,
        };
        let shift = match self.clamp {
            Some(limit) => shift.map(|mut shift| {
                shift.zip_mut_with(&linearized.x0_hat, |shift, x0| *shift = (x0 + *shift).clamp(-limit, limit) - x0);
                shift
            }),
            None => shift,
        };
        Ok(Twist { x0_hat: linearized.x0_hat, shift, log })
    }
}

/// What the twist is at a state, for every particle.
struct Twist {
    x0_hat: Batch,
    /// The shift of the posterior mean; none where there is no further step or no signal.
    shift: Option<Batch>,
    /// `log p~(y | x)`, up to a constant.
    log: Vec<f64>,
}

impl PosteriorMethod for Tds {
    fn name(&self) -> &'static str {
        NAME
    }

    fn target(&self) -> Target {
        Target::ExactForAnyPrior("particles -> infinity, then steps -> infinity")
    }

    fn needs(&self) -> &'static [Capability] {
        NEEDS
    }

    fn evaluations(&self, grid: &Grid) -> Option<Evaluations> {
        let (particles, steps) = (u64::from(self.particles), grid.steps.len() as u64);
        Some(Evaluations { forward: particles * steps, vjp: particles * steps.saturating_sub(1) })
    }

    /// All particles of all samples are one batch of the prior, `[n particles, c, h, w]`; give fewer streams at a time if that is too
    /// many. The observer is shown each sample's heaviest particle.
    fn sample(
        &self,
        prior: &dyn Denoiser,
        measurement: &Measurement<'_>,
        grid: &Grid,
        streams: &Streams,
        observer: &mut Observer<'_>,
    ) -> Result<Drawn> {
        self.check_run(measurement, grid)?;
        let shape = measurement.op.input_shape();
        let mut noise = streams.fan_out(self.particles)?;
        let steps = grid.steps.len();
        let count = noise.len();
        let x = start_noise(grid, &mut noise, count, shape);
        let twist = self.twist(prior, measurement, &x, grid.steps[0].from, steps == 1)?;
        check_shape(&twist.x0_hat, shape, "x0_hat", NAME)?;
        let mut cloud = Cloud::new(streams.len(), self.particles as usize, x, twist);
        for (index, pair) in grid.steps.windows(2).enumerate() {
            cloud.resample(self.resample_below, streams, index);
            cloud.propose(pair[0], self.eta, &noise.normal(index, Purpose::Step, count, shape));
            let x0_hat = cloud.twist.x0_hat.clone();
            cloud.weigh(self.twist(prior, measurement, &cloud.x, pair[1].from, index + 2 == steps)?)?;
            let heaviest = cloud.heaviest();
            let (x, x0_hat) = (cloud.x.select(Axis(0), &heaviest), x0_hat.select(Axis(0), &heaviest));
            let progress = Progress { step: index, steps, from: pair[0].from, to: pair[0].to, x: &x, x0_hat: &x0_hat };
            if observer(&progress).is_break() {
                return Err(Error::Stopped { done: index + 1, steps });
            }
        }
        let chosen = cloud.draw(streams, steps);
        let x0_hat = cloud.twist.x0_hat.select(Axis(0), &chosen);
        let Interval { from, to } = grid.steps[steps - 1];
        let x0 = &x0_hat * to.alpha;
        if observer(&Progress { step: steps - 1, steps, from, to, x: &x0, x0_hat: &x0_hat }).is_break() {
            return Err(Error::Stopped { done: steps, steps });
        }
        Ok(Drawn { x0, diagnostics: Diagnostics { solver: None, particles: Some(cloud.report()) } })
    }
}

/// The particles of all samples: those of sample `s` are `s k .. (s + 1) k`.
struct Cloud {
    k: usize,
    x: Batch,
    twist: Twist,
    log_weights: Vec<f64>,
    origins: Vec<usize>,
    effective: Vec<Vec<f64>>,
    resampled: Vec<usize>,
}

impl Cloud {
    fn new(samples: usize, k: usize, x: Batch, twist: Twist) -> Self {
        let log_weights = twist.log.clone();
        let mut cloud = Self {
            k,
            x,
            twist,
            log_weights,
            origins: (0..samples * k).collect(),
            effective: vec![Vec::new(); samples],
            resampled: vec![0; samples],
        };
        cloud.note_effective();
        cloud
    }

    fn weights(&self) -> impl Iterator<Item = Vec<f64>> + '_ {
        self.log_weights.chunks(self.k).map(weights_from_log)
    }

    fn note_effective(&mut self) {
        let sizes: Vec<f64> = self.weights().map(|weights| effective_sample_size(&weights)).collect();
        self.effective.iter_mut().zip(sizes).for_each(|(history, size)| history.push(size));
    }

    /// Replaces the particles of each sample whose effective size is too small.
    fn resample(&mut self, below: f64, streams: &Streams, index: usize) {
        let k = self.k;
        let uniforms = streams.uniform(index, Purpose::Resample, 1);
        let mut ancestors: Vec<usize> = (0..self.origins.len()).collect();
        let all: Vec<Vec<f64>> = self.weights().collect();
        for (sample, (weights, uniform)) in all.iter().zip(uniforms).enumerate() {
            if effective_sample_size(weights) < below * k as f64 {
                for (place, ancestor) in systematic_resampling(weights, k, uniform[0]).into_iter().enumerate() {
                    ancestors[sample * k + place] = sample * k + ancestor;
                    self.log_weights[sample * k + place] = 0.0;
                }
                self.resampled[sample] += 1;
            }
        }
        self.x = self.x.select(Axis(0), &ancestors);
        self.twist.x0_hat = self.twist.x0_hat.select(Axis(0), &ancestors);
        self.twist.shift = self.twist.shift.take().map(|shift| shift.select(Axis(0), &ancestors));
        self.twist.log = ancestors.iter().map(|a| self.twist.log[*a]).collect();
        self.origins = ancestors.iter().map(|a| self.origins[*a]).collect();
    }

    /// Moves every particle, and divides its weight by `p~(y | x) q(x' | x) / p(x' | x)`.
    fn propose(&mut self, interval: Interval, eta: f64, z: &Batch) {
        let Interval { from, to } = interval;
        let c = eta * to.sigma * (1.0 - interval.ratio().powi(2)).max(0.0).sqrt();
        let kept = (to.sigma * to.sigma - c * c).max(0.0).sqrt() / from.sigma;
        let k = to.alpha - kept * from.alpha;
        Zip::from(&mut self.x).and(&self.twist.x0_hat).and(z).for_each(|x, x0, z| *x = kept * *x + k * x0 + c * z);
        self.log_weights.iter_mut().zip(&self.twist.log).for_each(|(weight, log)| *weight -= log);
        if let Some(shift) = self.twist.shift.take().filter(|_| c > 0.0) {
            self.x.scaled_add(k, &shift);
            let (square, cross) = (norm_sq(&shift), dot(&shift, z));
            for ((weight, square), cross) in self.log_weights.iter_mut().zip(square).zip(cross) {
                *weight -= k * k * square / (2.0 * c * c) + k * cross / c;
            }
        }
    }

    /// Multiplies the weights by the twist at the particles' new states.
    fn weigh(&mut self, twist: Twist) -> Result<()> {
        self.twist = twist;
        self.log_weights.iter_mut().zip(&self.twist.log).for_each(|(weight, log)| *weight += log);
        if let Some(particle) = self.log_weights.iter().position(|weight| !weight.is_finite()) {
            return Err(Error::NotFinite { what: "a particle's log-weight", sample: particle / self.k, at: NAME });
        }
        self.note_effective();
        Ok(())
    }

    fn heaviest(&self) -> Vec<usize> {
        let largest = |chunk: &[f64]| (0..chunk.len()).max_by(|a, b| chunk[*a].total_cmp(&chunk[*b])).unwrap_or(0);
        self.log_weights.chunks(self.k).enumerate().map(|(sample, chunk)| sample * self.k + largest(chunk)).collect()
    }

    /// One particle of each sample, by its weight.
    fn draw(&self, streams: &Streams, index: usize) -> Vec<usize> {
        let uniforms = streams.uniform(index, Purpose::Resample, 1);
        let one =
            |(sample, (weights, u)): (usize, (Vec<f64>, Vec<f64>))| sample * self.k + systematic_resampling(&weights, 1, u[0])[0];
        self.weights().zip(uniforms).enumerate().map(one).collect()
    }

    fn report(self) -> ParticleReport {
        let distinct = |chunk: &[usize]| {
            let mut origins = chunk.to_vec();
            origins.sort_unstable();
            origins.dedup();
            origins.len()
        };
        let ancestors = self.origins.chunks(self.k).map(distinct).collect();
        ParticleReport { particles: self.k, effective: self.effective, resampled: self.resampled, ancestors }
    }
}
