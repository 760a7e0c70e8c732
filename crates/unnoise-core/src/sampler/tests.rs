//! The steps against their closed forms on one number; what needs an exact prior in several dimensions is in `tests/`.

use ndarray::Array4;

use super::*;
use crate::{Estimate, Level, Linearized, Purpose, Schedule, Shape, Streams, VpSchedule, unobserved};

/// The prior `N(mean, variance)` for each number by itself.
#[derive(Debug)]
struct Scalar<S> {
    schedule: S,
    mean: f64,
    variance: f64,
}

impl<S: Schedule> Scalar<S> {
    fn gain(&self, level: Level) -> f64 {
        level.alpha * self.variance / (level.alpha.powi(2) * self.variance + level.sigma.powi(2))
    }
}

impl<S: Schedule> Denoiser for Scalar<S> {
    fn schedule(&self) -> &dyn Schedule {
        &self.schedule
    }

    fn x0_hat(&self, x: &Batch, level: Level) -> Result<Batch> {
        Ok(x.mapv(|x| self.mean + self.gain(level) * (x - level.alpha * self.mean)))
    }

    fn linearize<'a>(&'a self, x: &Batch, level: Level) -> Result<Linearized<'a>> {
        let gain = self.gain(level);
        Ok(Linearized { x0_hat: self.x0_hat(x, level)?, vjp: Box::new(move |v| Ok(gain * v)) })
    }
}

/// The noise `z` at every step.
struct Constant(f64);

impl Noise for Constant {
    fn normal(&mut self, _: usize, _: Purpose, n: usize, [c, h, w]: Shape) -> Batch {
        Array4::from_elem((n, c, h, w), self.0)
    }
}

fn one(x: f64) -> Batch {
    Array4::from_elem((1, 1, 1, 1), x)
}

fn prior() -> Scalar<VpSchedule> {
    Scalar { schedule: VpSchedule::new(0.1, 20.0).unwrap(), mean: 0.3, variance: 0.49 }
}

fn step(sampler: &mut dyn Sampler, grid: &Grid, index: usize, x: f64, z: f64) -> f64 {
    let stepped = sampler.step(&Step { grid, index, denoiser: &prior() }, &one(x), &mut Constant(z)).unwrap();
    stepped.x[[0, 0, 0, 0]]
}

#[test]
fn ddpm_is_the_forward_posterior() {
    // Ho et al., eq. 6 and 7, with beta_t = 1 - alpha_bar_t / alpha_bar_s.
    let grid = Grid::uniform(prior().schedule(), 10).unwrap();
    let Interval { from, to } = grid.steps[4];
    let (bar, bar_prev) = (from.alpha.powi(2), to.alpha.powi(2));
    let (x, z) = (0.8, -1.3);
    let x0 = prior().x0_hat(&one(x), from).unwrap()[[0, 0, 0, 0]];
    let beta = 1.0 - bar / bar_prev;
    let mean = bar_prev.sqrt() * beta / (1.0 - bar) * x0 + (1.0 - beta).sqrt() * (1.0 - bar_prev) / (1.0 - bar) * x;
    for (variance, expected) in [(Variance::FixedSmall, (1.0 - bar_prev) / (1.0 - bar) * beta), (Variance::FixedLarge, beta)] {
        let got = step(&mut Ddpm { variance, clip: None }, &grid, 4, x, z);
        assert!((got - (mean + expected.sqrt() * z)).abs() < 1e-13, "{variance:?}: {got}");
    }
}

/// A prior that has learned this share.
struct Learned(Scalar<VpSchedule>, f64);

impl Denoiser for Learned {
    fn schedule(&self) -> &dyn Schedule {
        self.0.schedule()
    }

    fn x0_hat(&self, x: &Batch, level: Level) -> Result<Batch> {
        self.0.x0_hat(x, level)
    }

    fn estimate(&self, x: &Batch, level: Level) -> Result<Estimate> {
        Ok(Estimate { x0_hat: self.x0_hat(x, level)?, variance_share: Some(x.mapv(|_| self.1)) })
    }

    fn linearize<'a>(&'a self, x: &Batch, level: Level) -> Result<Linearized<'a>> {
        self.0.linearize(x, level)
    }
}

impl Learned {
    fn step(&self, variance: Variance, step: Interval, x: f64, z: f64) -> f64 {
        let grid = Grid { steps: vec![step], start: 1.0 };
        let step = Step { grid: &grid, index: 0, denoiser: self };
        Ddpm { variance, clip: None }.step(&step, &one(x), &mut Constant(z)).unwrap().x[[0, 0, 0, 0]]
    }
}

#[test]
fn a_learned_variance_goes_from_the_small_to_the_large() {
    for step in Grid::uniform(prior().schedule(), 10).unwrap().steps {
        let [nothing, small, large] = [(Variance::FixedSmall, 0.0), (Variance::FixedSmall, -1.3), (Variance::FixedLarge, -1.3)]
            .map(|(variance, z)| Learned(prior(), 0.0).step(variance, step, 0.8, z));
        let learned = |share| Learned(prior(), share).step(Variance::LearnedRange, step, 0.8, -1.3);
        assert_eq!(learned(0.0), small);
        assert!((learned(1.0) - large).abs() < 1e-14);
        // A geometric mean, and as far again beyond the large one.
        let (std, half, beyond) = (large - nothing, learned(0.5) - nothing, learned(2.0) - nothing);
        assert!((half * half - std * (small - nothing)).abs() < 1e-14 && (beyond * (small - nothing) - std * std).abs() < 1e-13);
        // The last step adds no noise.
        assert_eq!(step.to.sigma == 0.0, learned(1.0) == nothing);
    }
}

/// With the share at which the variance is that of `x'` given `x`, a step leads from one marginal of a Gaussian prior to the other, however
/// long it is. The share is 0 for a prior of one image, 1 for white images of unit variance, and above 1 for wider ones.
#[test]
fn the_right_share_makes_a_step_exact() {
    let grid = Grid::uniform(prior().schedule(), 4).unwrap();
    for (variance, shares) in [(0.0, 0.0..=0.0), (0.09, 0.01..=0.9), (0.49, 0.1..=0.99), (1.0, 1.0..=1.0), (2.0, 1.01..=2.0)] {
        let prior = || Scalar { variance, ..prior() };
        for step @ Interval { from, to } in grid.steps.iter().copied().filter(|step| step.to.sigma > 0.0) {
            let marginal = |level: Level| level.alpha.powi(2) * variance + level.sigma.powi(2);
            let fresh = 1.0 - step.ratio().powi(2);
            let [small, large] = [to, from].map(|level| level.sigma.powi(2) * fresh);
            let exact = small + (to.alpha * fresh).powi(2) * variance * from.sigma.powi(2) / marginal(from);
            let share = (exact / small).ln() / (large / small).ln();
            assert!(*shares.start() - 1e-12 < share && share < *shares.end() + 1e-12, "{variance}: {share}");
            let run = |x, z| Learned(prior(), share).step(Variance::LearnedRange, step, x, z);
            let (offset, std) = (run(0.0, 0.0), run(0.0, 1.0) - run(0.0, 0.0));
            let gain = run(1.0, 0.0) - offset;
            assert!((gain * from.alpha * 0.3 + offset - to.alpha * 0.3).abs() < 1e-14);
            assert!((gain.powi(2) * marginal(from) + std.powi(2) - marginal(to)).abs() < 1e-14, "{variance} {step:?}");
        }
    }
}

#[test]
fn a_variance_that_nothing_learned_is_refused() {
    let grid = Grid::uniform(prior().schedule(), 10).unwrap();
    let mut ddpm = Ddpm { variance: Variance::LearnedRange, clip: None };
    let refused = ddpm.step(&Step { grid: &grid, index: 0, denoiser: &prior() }, &one(1.0), &mut Constant(0.0)).err().unwrap();
    assert!(refused.to_string().contains("the denoiser gives no variance"), "{refused}");
}

#[test]
fn ddim_is_its_papers_equation() {
    // Song et al., eq. 12 and 16.
    let grid = Grid::uniform(prior().schedule(), 10).unwrap();
    let Interval { from, to } = grid.steps[4];
    let (bar, bar_prev) = (from.alpha.powi(2), to.alpha.powi(2));
    let (x, z) = (0.8, -1.3);
    let x0 = prior().x0_hat(&one(x), from).unwrap()[[0, 0, 0, 0]];
    let eps = (x - bar.sqrt() * x0) / (1.0 - bar).sqrt();
    for eta in [0.0, 0.4, 1.0] {
        let std = eta * ((1.0 - bar_prev) / (1.0 - bar)).sqrt() * (1.0 - bar / bar_prev).sqrt();
        let expected = bar_prev.sqrt() * x0 + (1.0 - bar_prev - std * std).sqrt() * eps + std * z;
        let got = step(&mut Ddim { eta, clip: None }, &grid, 4, x, z);
        assert!((got - expected).abs() < 1e-13, "{eta}: {got} {expected}");
    }
}

#[test]
fn deterministic_samplers_integrate_x_over_alpha() {
    // The right-hand side of d(x / alpha) / d(sigma / alpha) is eps.
    let grid = Grid::karras(prior().schedule(), 12).unwrap();
    let Interval { from, to } = grid.steps[6];
    let (s, s_next) = (from.sigma_edm(), to.sigma_edm());
    let eps = |u: f64, level: Level| {
        let x0 = prior().x0_hat(&one(level.alpha * u), level).unwrap()[[0, 0, 0, 0]];
        (u - x0) / level.sigma_edm()
    };
    let u = 1.7;
    let slope = eps(u, from);
    let predicted = u + (s_next - s) * slope;
    let corrected = u + (s_next - s) * 0.5 * (slope + eps(predicted, to));
    assert!((step(&mut Euler, &grid, 6, from.alpha * u, 0.0) / to.alpha - predicted).abs() < 1e-12);
    assert!((step(&mut Heun::default(), &grid, 6, from.alpha * u, 0.0) / to.alpha - corrected).abs() < 1e-12);
}

#[test]
fn clipping_follows_diffusers() {
    let grid = Grid::uniform(prior().schedule(), 10).unwrap();
    let Interval { from, to } = grid.steps[4];
    let (x, limit) = (3.0, 0.4);
    let x0 = prior().x0_hat(&one(x), from).unwrap()[[0, 0, 0, 0]];
    assert!(x0 > limit);
    let eps = (x - from.alpha * x0) / from.sigma;
    let got = step(&mut Ddim { eta: 0.0, clip: Some(limit) }, &grid, 4, x, 0.0);
    assert!((got - (to.alpha * limit + to.sigma * eps)).abs() < 1e-13);
}

#[test]
fn the_run_refuses_and_stops() {
    let grid = Grid::uniform(prior().schedule(), 5).unwrap();
    let mut streams = Streams::new(0, 0..1);
    let mut run =
        |grid: &Grid, x: Batch, observer: &mut Observer<'_>| sample(&mut Euler, &prior(), grid, x, &mut streams, observer);
    let empty = Grid { steps: Vec::new(), start: 1.0 };
    assert!(matches!(run(&empty, one(1.0), &mut unobserved), Err(Error::Argument { what: "grid", .. })));
    let rising = Grid { steps: grid.steps.iter().map(|s| Interval { from: s.to, to: s.from }).collect(), start: 1.0 };
    assert!(matches!(run(&rising, one(1.0), &mut unobserved), Err(Error::Argument { what: "grid", .. })));
    assert!(matches!(run(&grid, one(f64::NAN), &mut unobserved), Err(Error::NotFinite { sample: 0, .. })));
    let mut stop =
        |p: &Progress<'_>| if p.step == 2 { std::ops::ControlFlow::Break(()) } else { std::ops::ControlFlow::Continue(()) };
    assert!(matches!(run(&grid, one(1.0), &mut stop), Err(Error::Stopped { done: 3, steps: 5 })));
}

#[test]
fn names_and_options_are_checked() {
    for SamplerInfo { name, .. } in SAMPLERS {
        assert_eq!(sampler_by_name(name, &SamplerOptions::default()).unwrap().name(), *name);
    }
    let unknown = sampler_by_name("nonesuch", &SamplerOptions::default()).err().unwrap().to_string();
    assert!(unknown.starts_with("unknown sampler 'nonesuch'; known: ddpm, ddim, euler"), "{unknown}");
    let bad = SamplerOptions { eta: Some(1.5), ..Default::default() };
    assert!(matches!(sampler_by_name("ddim", &bad), Err(Error::Argument { what: "eta", .. })));
}

/// `explain` shows the documentation of a sampler's type: there is a title, a formula and a source, without links.
#[test]
fn explanations_are_the_documentation() {
    for info in SAMPLERS {
        let text = info.explanation();
        assert!(text.contains("# Reference") && text.contains('=') && !text.contains("[`"), "{}: {text}", info.name);
        assert!(!info.title().is_empty() && info.title().len() < 200, "{}: {}", info.name, info.title());
    }
    let ddim = sampler_info("ddim").unwrap();
    assert_eq!(ddim.title(), "DDIM: deterministic at `eta = 0`, ancestral sampling at `eta = 1`");
    assert!(ddim.explanation().contains("x'  = alpha' x0 + sqrt(sigma'^2 - std^2) eps + std z\n"));
    assert!(sampler_info("edm").unwrap().explanation().contains("Without churn this is\nHeun."));
}
