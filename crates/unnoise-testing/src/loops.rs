//! The loops of diffusers' scheduler tests, with this crate's samplers in the place of a scheduler's `step`.

use ndarray::{Axis, concatenate};
use unnoise_core::{
    Batch, Denoiser, Grid, Interval, Level, Noise, Pc, Purpose, Result, Sampler, Shape, Step, Variance, eps_from_x0,
};

use crate::{Dummy, Noiseless, SIDES, dummy_noise, dummy_sample};

/// The loop `plain`: the sampler over the whole grid from `x`.
///
/// # Errors
/// Those of the sampler.
pub fn plain(sampler: &mut dyn Sampler, denoiser: &dyn Denoiser, grid: &Grid, x: Batch, noise: &mut dyn Noise) -> Result<Batch> {
    plain_from(0, sampler, denoiser, grid, x, noise)
}

/// The same from the step `first`, which keeps its place in the grid: `DPMSolverSinglestepScheduler` does not move its blocks.
///
/// # Errors
/// Those of the sampler.
pub fn plain_from(
    first: usize,
    sampler: &mut dyn Sampler,
    denoiser: &dyn Denoiser,
    grid: &Grid,
    mut x: Batch,
    noise: &mut dyn Noise,
) -> Result<Batch> {
    for index in first..grid.steps.len() {
        x = sampler.step(&Step { grid, index, denoiser }, &x, noise)?.x;
    }
    Ok(x)
}

/// The loop `kscaled`: before each step the state `x / alpha` is overwritten with the model's input `x`. Pipelines, and everybody
/// else, give that input to the model and keep the state.
///
/// # Errors
/// Those of the sampler.
pub fn scaled(sampler: &mut dyn Sampler, dummy: &Dummy, grid: &Grid, x: Batch, noise: &mut dyn Noise) -> Result<Batch> {
    scaled_from(0, sampler, dummy, grid, x, noise)
}

/// The same from the step `first`, with a history that is full of steps without noise: `LMSDiscreteScheduler` takes the weights of
/// its full order as soon as a step has enough predecessors on the grid, whether or not they were made.
///
/// # Errors
/// Those of the sampler.
pub fn scaled_from(
    first: usize,
    sampler: &mut dyn Sampler,
    dummy: &Dummy,
    grid: &Grid,
    mut x: Batch,
    noise: &mut dyn Noise,
) -> Result<Batch> {
    for index in 0..first {
        sampler.step(&Step { grid, index, denoiser: &Noiseless(dummy.schedule()) }, &x, noise)?;
    }
    for index in first..grid.steps.len() {
        x *= grid.steps[index].from.alpha;
        dummy.rescaled();
        x = sampler.step(&Step { grid, index, denoiser: dummy }, &x, noise)?.x;
    }
    Ok(x)
}

/// The loop `sdeve`: predictor-corrector whose Langevin steps have one length for the batch, that of norms averaged over it. Each sample goes
/// alone, with the ratio that gives its own norms this length.
///
/// ```text
/// snr_i = snr (mean |z| / mean |score|) (|score_i| / |z_i|)
/// ```
///
/// # Errors
/// Those of the sampler.
pub fn batch_wide(snr: f64, denoiser: &dyn Denoiser, grid: &Grid, mut x: Batch, noise: &mut dyn Noise) -> Result<Batch> {
    let (n, c, h, w) = x.dim();
    for index in 0..grid.steps.len() {
        let step = Step { grid, index, denoiser };
        let [langevin, last] = [Purpose::Langevin, Purpose::Step].map(|purpose| noise.normal(index, purpose, n, [c, h, w]));
        let from = step.interval().from;
        // The score but for a factor of the level, which cancels.
        let eps = eps_from_x0(&x, &denoiser.x0_hat(&x, from)?, from)?;
        let (noises, scores) = (norms(&langevin), norms(&eps));
        let mean = |norms: &[f64]| norms.iter().sum::<f64>() / n as f64;
        let alone = |batch: &Batch, i: usize| batch.select(Axis(0), &[i]);
        let stepped: Vec<Batch> = (0..n)
            .map(|i| {
                let snr = snr * (mean(&noises) / mean(&scores)) * (scores[i] / noises[i]);
                let mut drawn = Drawn { langevin: alone(&langevin, i), step: alone(&last, i) };
                Ok(Pc::new(Variance::FixedLarge, snr, 1).step(&step, &alone(&x, i), &mut drawn)?.x)
            })
            .collect::<Result<_>>()?;
        x = joined(&stepped);
    }
    Ok(x)
}

/// The norm of each sample.
fn norms(x: &Batch) -> Vec<f64> {
    x.outer_iter().map(|sample| sample.iter().map(|v| v * v).sum::<f64>().sqrt()).collect()
}

/// Noise that is drawn already.
struct Drawn {
    langevin: Batch,
    step: Batch,
}

impl Noise for Drawn {
    fn normal(&mut self, _: usize, purpose: Purpose, _: usize, _: Shape) -> Batch {
        if purpose == Purpose::Langevin { self.langevin.clone() } else { self.step.clone() }
    }
}

/// The batch from which the loops on a whole grid start.
pub fn start(grid: &Grid, sides: [usize; 4]) -> Batch {
    dummy_sample(sides) * grid.start
}

/// The rest of a grid from the step `first`.
pub fn rest(grid: &Grid, first: usize) -> Grid {
    Grid { steps: grid.steps[first..].to_vec(), start: grid.start }
}

/// The grid of the loop `ipndm`: the whole grid twice, so that the second time begins with the first one's history.
pub fn twice(grid: &Grid) -> Grid {
    Grid { steps: grid.steps.repeat(2), start: grid.start }
}

/// The same levels from the cleanest to the noisiest, as upstream's inverse schedulers walk them; a step of no length comes last.
pub fn inverted(grid: &Grid) -> Grid {
    let from = grid.steps.iter().map(|step| step.from);
    let mut levels: Vec<Level> = from.chain(grid.steps.last().map(|step| step.to)).collect();
    levels.reverse();
    if levels[0].sigma == levels[1].sigma {
        levels.remove(0);
        levels.extend(levels.last().copied());
    }
    Grid { start: 1.0, ..Grid::through(&levels) }
}

/// The same levels at the same timesteps of a table of another length, `factor` times as long as that which it stands for.
pub fn retimed(grid: &Grid, factor: f64) -> Grid {
    let level = |level: Level| Level { t: level.t * factor, ..level };
    let step = |step: &Interval| Interval { from: level(step.from), to: level(step.to) };
    Grid { steps: grid.steps.iter().map(step).collect(), start: grid.start }
}

/// The batch from which the loops on the rest of a grid start: `gain` times the batch as the image, noised to where the rest begins.
pub fn noised(grid: &Grid, first: usize, gain: f64, sides: [usize; 4]) -> Batch {
    let Level { alpha, sigma, .. } = grid.steps[first].from;
    dummy_sample(sides) * (gain * alpha) + dummy_noise(sides) * sigma
}

/// The loop `batch_step`: one step without noise of the batch, of it plus 0.1 and of it minus 0.1, each over its own interval.
///
/// # Errors
/// Those of the sampler.
pub fn batch_step(sampler: &mut dyn Sampler, denoiser: &dyn Denoiser, steps: [Interval; 3]) -> Result<Batch> {
    let mut stepped = Vec::new();
    for (step, shift) in steps.into_iter().zip([0.0, 0.1, -0.1]) {
        let grid = Grid { steps: vec![step], start: 1.0 };
        stepped.push(plain(sampler, denoiser, &grid, dummy_sample(SIDES) + shift, &mut Silence)?);
    }
    Ok(joined(&stepped))
}

/// Batches of one shape as one.
fn joined(batches: &[Batch]) -> Batch {
    let views: Vec<_> = batches.iter().map(|x| x.view()).collect();
    concatenate(Axis(0), &views).expect("batches of one shape")
}

/// No noise.
struct Silence;

impl Noise for Silence {
    fn normal(&mut self, _: usize, _: Purpose, n: usize, [c, h, w]: Shape) -> Batch {
        Batch::zeros((n, c, h, w))
    }
}
