//! The adaptive samplers: their error against the tolerance that they were given.

use unnoise_core::{Counted, DpmAdaptive, Error, Grid, Level, Oracle, Rk45, Sampler, Streams, sample, start_noise, unobserved};

use super::order::{SAMPLES, reference, rms, start};
use super::{Silence, mixture, print_table, run, smooth_grid, vp};

type Make = fn(f64) -> Box<dyn Sampler>;

const ADAPTIVE: [(&str, Make); 3] = [
    ("rk45", |tolerance| Box::new(Rk45::new(tolerance))),
    ("dpm-adaptive, order 2", |tolerance| Box::new(DpmAdaptive::new(2, tolerance))),
    ("dpm-adaptive, order 3", |tolerance| Box::new(DpmAdaptive::new(3, tolerance))),
];

/// One interval of a mixture's flow. A step's error is that of the lower order, `O(h^q)`, so that `h = O(tolerance^(1/q))`; the run goes on
/// with the higher order, whose global error is `O(h^q)`: in proportion to the tolerance.
#[test]
fn the_error_is_in_proportion_to_the_tolerance() {
    let grid = smooth_grid(1);
    let x = start(grid.steps[0].from);
    let end = reference(&mixture(), &x);
    let mut rows = Vec::new();
    for (name, make) in ADAPTIVE {
        let tolerances: &[f64] = if name.ends_with('2') { &[1e-2, 1e-3, 1e-4, 1e-5, 1e-6] } else { &[1e-2, 1e-4, 1e-6, 1e-8] };
        let errors: Vec<f64> = tolerances
            .iter()
            .map(|&tolerance| {
                let denoiser = Counted::new(Oracle::new(mixture(), vp()));
                let error = rms(&run(make(tolerance).as_mut(), &denoiser, &grid, x.clone(), &mut Silence), &end);
                let evaluations = denoiser.evaluations().forward as f64 / SAMPLES as f64;
                rows.push(vec![name.into(), format!("{tolerance:.0e}"), format!("{error:.1e}"), format!("{evaluations:.0}")]);
                error
            })
            .collect();
        let decades = (tolerances[0] / tolerances[tolerances.len() - 1]).log10();
        let slope = (errors[0] / errors[errors.len() - 1]).log10() / decades;
        assert!((slope - 1.0).abs() < 0.15, "{name}: the error falls with the tolerance's power {slope:.2}, {errors:?}");
        let exceeds = errors.iter().zip(tolerances).find(|(error, tolerance)| *error > tolerance);
        assert!(exceeds.is_none(), "{name}: error, tolerance {exceeds:?}");
    }
    print_table("Error against tolerance", &["sampler", "tolerance", "RMS error", "evaluations a sample"], &rows);
}

/// How fine the grid is changes what they cost, and not how wrong they are.
#[test]
fn the_grid_hardly_matters() {
    for (name, make) in ADAPTIVE {
        let end = |n: usize| {
            let grid = smooth_grid(n);
            run(make(1e-5).as_mut(), &Oracle::new(mixture(), vp()), &grid, start(grid.steps[0].from), &mut Silence)
        };
        let off = rms(&end(1), &end(7));
        assert!(off < 1e-5, "{name}: {off:.1e}");
    }
}

/// A denoiser that no step length makes smooth is an error, not a loop without end.
#[test]
fn a_tolerance_out_of_reach_is_an_error() {
    let rough = Rough(Oracle::new(mixture(), vp()));
    let grid = Grid::through(&[Level::at_sigma_edm(&*vp(), 2.0), Level::at_sigma_edm(&*vp(), 0.1)]);
    for (name, make) in ADAPTIVE {
        let mut streams = Streams::new(1, 0..1);
        let x = start_noise(&grid, &mut streams, 1, super::SHAPE);
        let result = sample(make(1e-9).as_mut(), &rough, &grid, x, &mut streams, &mut unobserved);
        assert!(matches!(result, Err(Error::NotConverged { .. })), "{name}: {result:?}");
    }
}

/// A denoiser with noise of its own, different at every level.
struct Rough(Oracle<unnoise_core::GaussianMixture>);

impl unnoise_core::Denoiser for Rough {
    fn schedule(&self) -> &dyn unnoise_core::Schedule {
        self.0.schedule()
    }

    fn x0_hat(&self, x: &unnoise_core::Batch, level: Level) -> unnoise_core::Result<unnoise_core::Batch> {
        Ok(self.0.x0_hat(x, level)? + 10.0 * (1e12 * level.sigma).sin())
    }

    fn linearize<'a>(&'a self, x: &unnoise_core::Batch, level: Level) -> unnoise_core::Result<unnoise_core::Linearized<'a>> {
        self.0.linearize(x, level)
    }
}
