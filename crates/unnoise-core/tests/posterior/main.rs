//! Posterior methods against exact posteriors.

mod contract;
mod guidance;
mod particles;
#[path = "../posterior_problems/mod.rs"]
mod posterior_problems;
mod steps;

use posterior_problems::*;
use unnoise_core::*;

/// Tight enough for the solve not to matter.
fn exact_mmps() -> Mmps {
    Mmps { tolerance: 1e-10, max_iterations: 40, solver: LinearSolver::Gmres }
}

fn largest(a: &Batch) -> f64 {
    a.iter().fold(0.0, |largest: f64, v| largest.max(v.abs()))
}

fn noise(n: u32, shape: Shape, seed: u64) -> Batch {
    Streams::new(seed, 0..n).normal(0, Purpose::Auxiliary, n as usize, shape)
}
