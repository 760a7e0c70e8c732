//! A reconstruction's report as a few lines of text.

use std::fmt::Write as _;

use anyhow::Result;
use unnoise::Report;
use unnoise::core::{ParticleReport, SolverReport};

use crate::output::{count, spread};

/// The lines; each ends.
pub(crate) fn summary(r: &Report) -> Result<String> {
    let mut text = String::new();
    let samples = count(r.samples, "posterior sample");
    writeln!(text, "{samples} by {} ({}), {} each", r.method, r.target, count(r.steps, "step"))?;
    writeln!(text, "  measurement    {} through {}, sigma_y {}", count(r.measured, "value"), r.operator, r.sigma_y)?;
    match &r.chi_square {
        Some(chi) => {
            let [mean, low, high] = spread(chi);
            let expected = r.chi_square_deviation;
            writeln!(text, "  chi-square     {mean:.3} ({low:.3} to {high:.3}); a posterior sample shows 1 +- {expected:.3}")?;
        }
        None => {
            let [mean, low, high] = spread(&r.residual_rms);
            writeln!(text, "  residual       {mean:.1e} ({low:.1e} to {high:.1e}), root mean square; a posterior sample shows 0")?;
        }
    }
    writeln!(text, "  deviation      {:.4} on average over pixels in [0, 1]", r.mean_deviation)?;
    if let (Some(psnr), Some(ssim)) = (r.psnr, r.ssim) {
        writeln!(text, "  mean vs truth  PSNR {psnr:.2} dB, SSIM {ssim:.3}")?;
    }
    if let Some(solver) = &r.diagnostics.solver {
        writeln!(text, "  solves         {}", solves(solver))?;
    }
    if let Some(report) = &r.diagnostics.particles {
        writeln!(text, "  particles      {}", particles(report))?;
    }
    let per_sample = |n: u64| n as f64 / r.samples.max(1) as f64;
    writeln!(
        text,
        "  cost           {:.1} s; a sample took {:.0} network evaluations and {:.0} vector-Jacobian products",
        r.seconds,
        per_sample(r.evaluations.forward),
        per_sample(r.evaluations.adjoint)
    )?;
    Ok(text)
}

fn solves(report: &SolverReport) -> String {
    let &SolverReport { solves, products, not_converged, worst_residual, .. } = report;
    let each = products as f64 / solves.max(1) as f64;
    let short = match not_converged {
        0 => "all reached their tolerance".to_owned(),
        n => format!("{n} stopped short of their tolerance (max_iterations would have to grow)"),
    };
    format!("{solves}, of {each:.1} products each; the worst relative residual is {worst_residual:.1e}; {short}")
}

fn particles(report: &ParticleReport) -> String {
    let sizes: Vec<f64> = report.effective.iter().flatten().copied().collect();
    let [mean, low, _] = spread(&sizes);
    let average = |counts: &[usize]| counts.iter().sum::<usize>() as f64 / counts.len().max(1) as f64;
    let (resampled, ancestors) = (average(&report.resampled), average(&report.ancestors));
    format!(
        "{} a sample; effective size {mean:.1} on average, {low:.1} at least; resampled {resampled:.1} times, {ancestors:.1} ancestors left",
        report.particles
    )
}
