//! What a posterior run tells about itself.

use serde::Serialize;

/// The diagnostics of a posterior run; a part is there if the method has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Diagnostics {
    /// The linear solves, for methods that solve iteratively.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub solver: Option<SolverReport>,
    /// The particles' health, for sequential Monte Carlo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub particles: Option<ParticleReport>,
}

/// How the linear solves of a run went, over all samples and steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct SolverReport {
    /// Solves of one sample at one step.
    pub solves: u64,
    /// Operator products of one sample, over all solves.
    pub products: u64,
    /// Solves that stopped above their tolerance. Their samples are drawn with the best iterate that there was.
    pub not_converged: u64,
    /// The largest relative residual `|M v - r| / |r|` that a solve was left with.
    pub worst_residual: f64,
    /// The largest asymmetry of a system between the first two vectors `u`, `w` of its solve, which costs no product more:
    /// `|u^T M w - w^T M u| / (|u| |M w| + |w| |M u|)`. A posterior mean's Jacobian, and so `M`, is symmetric; a network's need not be.
    ///
    /// A value well above rounding proves asymmetry; a small one is no proof of symmetry. In `m` dimensions two vectors see some
    /// `1 / sqrt(m)` of an asymmetry that is spread over all directions: [`asymmetry`](crate::asymmetry) estimates that of a Jacobian
    /// as a whole, `|J - J^T|_F / |J|_F`, by products of its own.
    pub worst_pair_asymmetry: f64,
}

impl SolverReport {
    /// Adds what another report holds.
    pub fn add(&mut self, other: &Self) {
        self.solves += other.solves;
        self.products += other.products;
        self.not_converged += other.not_converged;
        self.worst_residual = self.worst_residual.max(other.worst_residual);
        self.worst_pair_asymmetry = self.worst_pair_asymmetry.max(other.worst_pair_asymmetry);
    }
}

/// The health of a particle run, per sample.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ParticleReport {
    /// Particles per sample.
    pub particles: usize,
    /// `[sample][step]`: the effective sample size `(sum w)^2 / sum w^2` at the end of each step, before any resampling there.
    pub effective: Vec<Vec<f64>>,
    /// `[sample]`: how often the particles were resampled.
    pub resampled: Vec<usize>,
    /// `[sample]`: the number of different ancestors at the start of the run that the final particles descend from.
    pub ancestors: Vec<usize>,
}
