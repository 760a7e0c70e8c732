//! What a sampler's own arithmetic costs, beside an evaluation of the digits network: 64 images of 32x32.
//!
//! ```text
//! cargo run --release -p unnoise --example sampler_cost [STEPS]
//! ```
//!
//! Each sampler runs over a denoiser that costs next to nothing, and whose own cost is taken off; what is left is divided by its evaluations.

use std::hint::black_box;
use std::time::Instant;

use unnoise::{Prior, nn::open_device};
use unnoise_core::{
    Batch, Denoiser, GridKind, Level, Linearized, SAMPLERS, SamplerOptions, Schedule, Streams, sample, sampler_by_name,
    start_noise, unobserved,
};

const N: usize = 64;
const SHAPE: [usize; 3] = [1, 32, 32];
const REPEATS: usize = 5;

/// A denoiser that returns a multiple of its input.
struct Cheap<'a>(&'a dyn Schedule);

impl Denoiser for Cheap<'_> {
    fn schedule(&self) -> &dyn Schedule {
        self.0
    }

    fn x0_hat(&self, x: &Batch, level: Level) -> unnoise_core::Result<Batch> {
        Ok(x * (level.alpha / (level.alpha * level.alpha + level.sigma * level.sigma)))
    }

    fn linearize<'a>(&'a self, x: &Batch, level: Level) -> unnoise_core::Result<Linearized<'a>> {
        Ok(Linearized { x0_hat: self.x0_hat(x, level)?, vjp: Box::new(|v| Ok(v.clone())) })
    }
}

/// The least of a few runs, in milliseconds.
fn milliseconds(mut run: impl FnMut()) -> f64 {
    let once = || {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64() * 1e3
    };
    std::iter::repeat_with(once).take(REPEATS).fold(f64::INFINITY, f64::min)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let steps: usize = std::env::args().nth(1).map_or(Ok(20), |text| text.parse())?;
    let prior = Prior::digits(&open_device("cpu")?)?;
    let cheap = Cheap(prior.schedule());
    let grid = GridKind::LogSnr.grid(prior.schedule(), steps)?;
    let x = start_noise(&grid, &mut Streams::new(0, 0..N as u32), N, SHAPE);
    let level = grid.steps[steps / 2].from;
    let network = milliseconds(|| drop(black_box(prior.x0_hat(&x, level))));
    let nothing = milliseconds(|| drop(black_box(cheap.x0_hat(&x, level))));
    println!("one evaluation of the network: {network:.1} ms; {N} images, {steps} steps\n");
    println!("| sampler | ms an evaluation | share of the network's |\n|---|---|---|");
    for info in SAMPLERS.iter().filter(|info| info.draws()) {
        let mut sampler = sampler_by_name(info.name, &SamplerOptions::default())?;
        let Some(evaluations) = sampler.evaluations(&grid) else {
            println!("| {} | adaptive | |", info.name);
            continue;
        };
        let whole = milliseconds(|| {
            let mut streams = Streams::new(0, 0..N as u32);
            drop(black_box(sample(&mut *sampler, &cheap, &grid, x.clone(), &mut streams, &mut unobserved)));
        });
        let own = (whole / evaluations as f64 - nothing).max(0.0);
        println!("| {} | {own:.2} | {:.1} % |", info.name, 100.0 * own / network);
    }
    Ok(())
}
