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

impl Diagnostics {
    /// Adds those of other samples, drawn after these.
    pub fn add(&mut self, other: Self) {
        match (&mut self.solver, other.solver) {
            (Some(solver), Some(other)) => solver.add(&other),
            (solver, other) => *solver = solver.or(other),
        }
        match (&mut self.particles, other.particles) {
            (Some(particles), Some(other)) => particles.add(other),
            (particles @ None, other) => *particles = other,
            (Some(_), None) => (),
        }
    }
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

impl ParticleReport {
    /// Adds other samples, drawn after these with as many particles.
    pub fn add(&mut self, other: Self) {
        self.effective.extend(other.effective);
        self.resampled.extend(other.resampled);
        self.ancestors.extend(other.ancestors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_become_a_whole() {
        let solver =
            |solves, residual| SolverReport { solves, products: 2 * solves, worst_residual: residual, ..Default::default() };
        let particles =
            |size: f64| ParticleReport { particles: 4, effective: vec![vec![size]], resampled: vec![1], ancestors: vec![2] };
        let part =
            |solves, residual, size| Diagnostics { solver: Some(solver(solves, residual)), particles: Some(particles(size)) };
        let mut whole = Diagnostics::default();
        whole.add(part(3, 0.1, 1.5));
        whole.add(part(4, 0.05, 3.0));
        whole.add(Diagnostics::default());
        assert_eq!(whole.solver, Some(solver(7, 0.1)));
        let all = whole.particles.unwrap();
        assert_eq!((all.effective, all.resampled, all.ancestors), (vec![vec![1.5], vec![3.0]], vec![1, 1], vec![2, 2]));
    }
}
