//! The solvers of the SDE on one Brownian path: finer grids lead to the same sample.
//!
//! The noise of a step is a normal that the path gives, not the stochastic integral of the step with its own weights, and `x0` between the
//! evaluations misses the path there: both are martingale differences of `O(h^(3/2))`, which add up to `O(h)`. So the strong order of all of them
//! is 1, whatever their weak order.

use unnoise_core::{Batch, Noise, Oracle, Purpose, SaSolver, Sampler, SamplerOptions, Streams, Tau, sampler_by_name};

use super::{SHAPE, mixture, print_table, run, smooth_grid, vp};

const SAMPLES: usize = 1000;

/// What `n` steps make of one start and one path.
fn end(sampler: &mut dyn Sampler, n: usize) -> Batch {
    let grid = smooth_grid(n);
    let mut streams = Streams::new(77, 0..SAMPLES as u32);
    let start = streams.normal(0, Purpose::Start, SAMPLES, SHAPE) * grid.steps[0].from.sigma;
    run(sampler, &Oracle::new(mixture(), vp()), &grid, start, &mut streams)
}

/// The median over the samples: on a mixture a few lie where the least change leads to another component.
fn median(difference: &Batch) -> f64 {
    let mut norms: Vec<f64> = difference.rows().into_iter().map(|row| row.iter().map(|v| v * v).sum::<f64>().sqrt()).collect();
    norms.sort_by(f64::total_cmp);
    norms[SAMPLES / 2]
}

#[test]
fn one_path_leads_to_one_sample() {
    let named = ["euler-maruyama", "seeds-1", "seeds-2", "seeds-3", "dpmpp-sde", "dpmpp-2m-sde", "dpmpp-3m-sde"];
    let mut solvers: Vec<(&str, Box<dyn Sampler>)> =
        named.into_iter().map(|name| (name, sampler_by_name(name, &SamplerOptions::default()).unwrap())).collect();
    solvers.push(("sa-solver, tau 1", Box::new(SaSolver::new(2, 2, Tau::Constant(1.0)))));

    let common = end(solvers[3].1.as_mut(), 512);
    let (mut rows, mut failures) = (Vec::new(), Vec::new());
    for (name, mut solver) in solvers {
        let ends = [32, 64, 128, 256, 512].map(|n| end(solver.as_mut(), n));
        let changes: Vec<f64> = ends.windows(2).map(|pair| median(&(&pair[1] - &pair[0]))).collect();
        let slopes: Vec<f64> = changes.windows(2).map(|pair| (pair[0] / pair[1]).log2()).collect();
        let apart = median(&(&ends[4] - &common));
        let mut row = vec![name.to_owned()];
        row.extend(slopes.iter().map(|slope| format!("{slope:.2}")));
        row.extend([format!("{:.1e}", changes[3]), format!("{apart:.1e}")]);
        rows.push(row);
        if (slopes[2] - 1.0).abs() > 0.15 || apart > 0.02 {
            failures.push(format!("{name}: {slopes:?}, {apart:.1e} from the common end"));
        }
    }
    let columns =
        ["sampler", "slope, N = 32 to 64", "64 to 128", "128 to 256", "change from 256 to 512", "distance from seeds-3 at 512"];
    print_table("Strong order", &columns, &rows);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
