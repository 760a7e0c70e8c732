//! What a sampler costs beside an evaluation of the digits network: its own arithmetic and its memory, with 64 images of 32x32.
//!
//! ```text
//! cargo run --release -p unnoise --example sampler_cost [STEPS]
//! ```
//!
//! Each sampler runs over a denoiser that costs next to nothing, and whose own cost is taken off; what is left is divided by its evaluations, which are
//! counted, since those of an adaptive sampler are not known beforehand. Memory is the peak of the process above what it held before the first
//! sampler, in a run of so many steps and in one of ten times as many; Linux alone tells it.

use std::hint::black_box;
use std::time::Instant;

use unnoise::{Prior, nn::open_device};
use unnoise_core::{
    Batch, Counted, Denoiser, Grid, GridKind, Level, Linearized, SAMPLERS, Sampler, SamplerOptions, Schedule, Streams, sample,
    sampler_by_name, start_noise, unobserved,
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

/// The process's memory by a name of `/proc/self/status`, in MiB.
fn mebibytes(name: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}

/// The peak of the process's memory during a run, in MiB.
fn peak(mut run: impl FnMut()) -> Option<f64> {
    // Linux: begin the peak anew.
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    run();
    mebibytes("VmHWM:")
}

/// One run from `x`.
fn run(sampler: &mut dyn Sampler, denoiser: &dyn Denoiser, grid: &Grid, x: &Batch) {
    let mut streams = Streams::new(0, 0..N as u32);
    drop(black_box(sample(sampler, denoiser, grid, x.clone(), &mut streams, &mut unobserved)));
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let steps: usize = std::env::args().nth(1).map_or(Ok(20), |text| text.parse())?;
    let prior = Prior::digits(&open_device("cpu")?)?;
    let cheap = Counted::new(Cheap(prior.schedule()));
    let [grid, long] = [steps, 10 * steps].map(|n| GridKind::LogSnr.grid(prior.schedule(), n));
    let (grid, long) = (grid?, long?);
    let x = start_noise(&grid, &mut Streams::new(0, 0..N as u32), N, SHAPE);
    // Before the network has run: what it leaves to the allocator would hide what samplers take.
    let held = mebibytes("VmRSS:").unwrap_or(0.0);
    let mut peaks = Vec::new();
    for info in SAMPLERS.iter().filter(|info| info.draws()) {
        let mut sampler = sampler_by_name(info.name, &SamplerOptions::default())?;
        let mut growth = |grid: &Grid| {
            let peak = peak(|| run(&mut *sampler, &cheap, grid, &x));
            peak.map_or("".into(), |peak| format!("{:.1}", peak - held))
        };
        peaks.push([growth(&grid), growth(&long)]);
    }
    let level = grid.steps[steps / 2].from;
    let network = milliseconds(|| drop(black_box(prior.x0_hat(&x, level))));
    let nothing = milliseconds(|| drop(black_box(cheap.x0_hat(&x, level))));
    println!("one evaluation of the network: {network:.1} ms; {N} images, {steps} steps\n");
    println!("| sampler | ms an evaluation | share of the network's | MiB | MiB, {} steps |\n|---|---|---|---|---|", 10 * steps);
    for (info, [short_peak, long_peak]) in SAMPLERS.iter().filter(|info| info.draws()).zip(peaks) {
        let mut sampler = sampler_by_name(info.name, &SamplerOptions::default())?;
        let before = cheap.evaluations().forward;
        run(&mut *sampler, &cheap, &grid, &x);
        let evaluations = (cheap.evaluations().forward - before) as f64 / N as f64;
        let own = (milliseconds(|| run(&mut *sampler, &cheap, &grid, &x)) / evaluations - nothing).max(0.0);
        println!("| {} | {own:.2} | {:.1} % | {short_peak} | {long_peak} |", info.name, 100.0 * own / network);
    }
    Ok(())
}
