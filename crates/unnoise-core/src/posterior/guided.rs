//! Guidance: a measurement that turns a prior's denoiser into the posterior's.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::{Diagnostics, Drawn, PosteriorMethod, SolverReport, Target, Weighed, check_argument, check_measurement, residual, run};
use crate::{
    Batch, Capability, Denoiser, Evaluations, Grid, Level, Linearized, Measurement, Observer, Result, Sampler, SamplerOptions,
    Schedule, Streams, Vjp, check_shape, sampler_by_name,
};

/// The prior linearised at a noisy image, and the measurement seen from there.
pub struct GuidancePoint<'p> {
    /// The noise level.
    pub level: Level,
    /// The prior's schedule.
    pub schedule: &'p dyn Schedule,
    /// The measurement.
    pub measurement: &'p Measurement<'p>,
    /// `r = y - A x0_hat`, `[n, c', h', w']`.
    pub residual: Batch,
    /// `v -> J^T v`, `J = d x0_hat / d x_t`.
    pub vjp: Vjp<'p>,
}

impl GuidancePoint<'_> {
    /// `gamma = sigma^2 / alpha`, which makes `gamma J^T` the covariance of `x0` given `x_t`, and `gamma` times a score of `x_t` a
    /// shift of the posterior mean.
    pub fn gamma(&self) -> f64 {
        self.level.sigma * self.level.sigma / self.level.alpha
    }

    /// `A Cov[x0 | x_t] A^T v = gamma A J^T A^T v`.
    ///
    /// # Errors
    /// Those of the denoiser.
    pub fn predictive_covariance(&mut self, v: &Batch) -> Result<Batch> {
        let op = self.measurement.op;
        let gamma = self.gamma();
        Ok(op.forward(&(self.vjp)(&op.adjoint(v))?) * gamma)
    }
}

/// A Gaussian model of the measurement given the noisy image, `p(y | x_t) ~ N(y; A x0_hat(x_t), M)`, seen through `M^-1`.
///
/// [`Conditioned`] makes a denoiser of it:
///
/// ```text
/// E[x0 | x_t, y] ~ x0_hat + (sigma^2 / alpha) grad log p(y | x_t) = x0_hat + (sigma^2 / alpha) J^T A^T M^-1 (y - A x0_hat)
/// ```
///
/// # Reference
/// The first equation is Tweedie's formula for the posterior's score; with `M` held constant, the second is the gradient.
pub trait Guidance: Send + Sync {
    /// The method's name, the field's own.
    fn name(&self) -> &'static str;

    /// What samples drawn with this guidance are.
    fn target(&self) -> Target;

    /// What the guidance needs of the operator.
    fn needs(&self) -> &'static [Capability] {
        &[Capability::Adjoint]
    }

    /// How the guidance is run where nothing else is asked for.
    fn default_run() -> GuidedRun
    where
        Self: Sized,
    {
        GuidedRun { sampler: "ddim".into(), eta: 1.0, clamp: None }
    }

    /// The vector-Jacobian products of an evaluation, at most.
    fn vjps(&self) -> u64 {
        1
    }

    /// Refuses settings outside their domain.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument).
    fn check(&self) -> Result<()>;

    /// `M^-1 rhs`, sample by sample.
    ///
    /// # Errors
    /// Those of the denoiser.
    fn weigh(&self, at: &mut GuidancePoint<'_>, rhs: &Batch) -> Result<Weighed>;
}

/// A prior conditioned on a measurement: again a [`Denoiser`], so any sampler runs with it, and it can be conditioned again.
///
/// Where `alpha = 0` (the first level of a rectified flow) the state says nothing about the image, `sigma^2 / alpha` is not
/// defined, and the prior's own mean is returned.
///
/// A variance that the prior has learned is not passed on: it is that of a step without the measurement.
pub struct Conditioned<'a, G> {
    prior: &'a dyn Denoiser,
    measurement: &'a Measurement<'a>,
    guidance: &'a G,
    clamp: Option<f64>,
    report: Mutex<SolverReport>,
}

impl<'a, G: Guidance> Conditioned<'a, G> {
    /// Conditions `prior` on `measurement`.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) when the operator lacks a capability; [`Error::Shape`](crate::Error::Shape) and [`Error::Argument`](crate::Error::Argument)
    /// for a measurement or settings out of their domain.
    pub fn new(prior: &'a dyn Denoiser, measurement: &'a Measurement<'a>, guidance: &'a G) -> Result<Self> {
        guidance.check()?;
        check_measurement(guidance.name(), guidance.needs(), measurement)?;
        Ok(Self { prior, measurement, guidance, clamp: None, report: Mutex::default() })
    }

    /// Clamps every value of the conditioned mean to `[-limit, limit]`.
    #[must_use]
    pub fn clamped(self, limit: Option<f64>) -> Self {
        Self { clamp: limit, ..self }
    }

    /// How the solves went so far.
    pub fn report(&self) -> SolverReport {
        *self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, solver: &SolverReport) {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).add(solver);
    }

    /// The conditioned mean and the point it was made at; no point where there is no guidance.
    fn condition<'s>(&'s self, x: &Batch, level: Level) -> Result<(Batch, Option<GuidancePoint<'s>>, Option<Vjp<'s>>)> {
        check_shape(x, self.measurement.op.input_shape(), "x", self.guidance.name())?;
        let Linearized { mut x0_hat, vjp } = self.prior.linearize(x, level)?;
        if level.alpha == 0.0 || level.sigma == 0.0 {
            return Ok((x0_hat, None, Some(vjp)));
        }
        let residual = residual(self.measurement, &x0_hat);
        let mut point = GuidancePoint { level, schedule: self.prior.schedule(), measurement: self.measurement, residual, vjp };
        let rhs = point.residual.clone();
        let Weighed { v, solver } = self.guidance.weigh(&mut point, &rhs)?;
        self.note(&solver);
        let shift = (point.vjp)(&self.measurement.op.adjoint(&v))?;
        x0_hat.scaled_add(point.gamma(), &shift);
        Ok((x0_hat, Some(point), None))
    }
}

impl<G: Guidance> Denoiser for Conditioned<'_, G> {
    fn schedule(&self) -> &dyn Schedule {
        self.prior.schedule()
    }

    fn x0_hat(&self, x: &Batch, level: Level) -> Result<Batch> {
        let (mut x0_hat, ..) = self.condition(x, level)?;
        if let Some(limit) = self.clamp {
            x0_hat.mapv_inplace(|v| v.clamp(-limit, limit));
        }
        Ok(x0_hat)
    }

    /// The vector-Jacobian product holds `J` and `M` constant and takes `J` as symmetric, which is exact for a Gaussian prior under
    /// [`Mmps`](super::Mmps) and [`Pigdm`](super::Pigdm):
    ///
    /// ```text
    /// J_y^T w = J^T (w - A^T M^-1 A (sigma^2 / alpha) J^T w)
    /// ```
    fn linearize<'s>(&'s self, x: &Batch, level: Level) -> Result<Linearized<'s>> {
        let (mut x0_hat, point, vjp) = self.condition(x, level)?;
        let inside = self.clamp.map(|limit| x0_hat.mapv(|v| if v.abs() <= limit { 1.0 } else { 0.0 }));
        if let Some(limit) = self.clamp {
            x0_hat.mapv_inplace(|v| v.clamp(-limit, limit));
        }
        let mask = move |w: &Batch| inside.as_ref().map_or_else(|| w.clone(), |inside| w * inside);
        let vjp: Vjp<'s> = match (point, vjp) {
            (Some(mut point), _) => Box::new(move |w| {
                let op = point.measurement.op;
                let mut w = mask(w);
                let covariance = (point.vjp)(&w)? * point.gamma();
                let Weighed { v, solver } = self.guidance.weigh(&mut point, &op.forward(&covariance))?;
                self.note(&solver);
                w -= &op.adjoint(&v);
                (point.vjp)(&w)
            }),
            (None, Some(mut vjp)) => Box::new(move |w| vjp(&mask(w))),
            (None, None) => unreachable!("one of the two is always there"),
        };
        Ok(Linearized { x0_hat, vjp })
    }
}

/// How a guidance is run when it is used as a method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuidedRun {
    /// The sampler, by its name.
    pub sampler: String,
    /// The sampler's stochasticity, for samplers that have one: 0 is deterministic, 1 is DDPM's ancestral noise.
    pub eta: f64,
    /// Clamps the conditioned mean to `[-clamp, clamp]`. Off by default: clamping biases the posterior, and a prior that is trained on
    /// `[-1, 1]` rarely leaves it by much.
    pub clamp: Option<f64>,
}

/// A guidance as a posterior method: conditions the prior and runs a sampler with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guided<G> {
    /// The guidance.
    #[serde(flatten)]
    pub guidance: G,
    /// How it is run.
    #[serde(flatten)]
    pub run: GuidedRun,
}

impl<G: Guidance + Default> Default for Guided<G> {
    fn default() -> Self {
        Self { guidance: G::default(), run: G::default_run() }
    }
}

impl GuidedRun {
    fn sampler(&self) -> Result<Box<dyn Sampler>> {
        sampler_by_name(&self.sampler, &SamplerOptions { eta: Some(self.eta), ..SamplerOptions::default() })
    }

    fn check(&self, at: &'static str) -> Result<()> {
        let clamp = self.clamp.unwrap_or(1.0);
        check_argument("clamp", clamp, clamp > 0.0, "above 0", at)?;
        self.sampler().map(|_| ())
    }
}

impl<G: Guidance> Guided<G> {
    /// Refuses settings outside their domain.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument), and [`Error::Unknown`](crate::Error::Unknown) for a sampler that does not exist.
    pub fn check(&self) -> Result<()> {
        self.run.check(self.guidance.name())?;
        self.guidance.check()
    }
}

impl<G: Guidance> PosteriorMethod for Guided<G> {
    fn name(&self) -> &'static str {
        self.guidance.name()
    }

    fn target(&self) -> Target {
        match (self.guidance.target(), self.run.clamp) {
            // A clamped mean is not the posterior's, in any limit.
            (Target::ExactForAnyPrior(_) | Target::ExactForGaussianPriors(_), Some(_)) => Target::Heuristic,
            (target, _) => target,
        }
    }

    fn needs(&self) -> &'static [Capability] {
        self.guidance.needs()
    }

    fn evaluations(&self, grid: &Grid) -> Option<Evaluations> {
        let forward = self.run.sampler().ok()?.evaluations(grid)? as u64;
        Some(Evaluations { forward, vjp: forward * self.guidance.vjps() })
    }

    fn sample(
        &self,
        prior: &dyn Denoiser,
        measurement: &Measurement<'_>,
        grid: &Grid,
        streams: &Streams,
        observer: &mut Observer<'_>,
    ) -> Result<Drawn> {
        self.check()?;
        let conditioned = Conditioned::new(prior, measurement, &self.guidance)?.clamped(self.run.clamp);
        let x0 = run(&mut *self.run.sampler()?, &conditioned, measurement, grid, streams, observer)?;
        let solver = Some(conditioned.report()).filter(|report| report.solves > 0);
        Ok(Drawn { x0, diagnostics: Diagnostics { solver, particles: None } })
    }
}
