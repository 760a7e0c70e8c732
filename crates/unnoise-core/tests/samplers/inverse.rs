//! From an image to noise and back.

use ndarray::{Axis, Slice};
use unnoise_core::{Batch, Ddim, DdimInverse, Error, Grid, Level, Noise, Oracle, Purpose, Sampler, Streams, sample, unobserved};

use super::order::{rms, start};
use super::{Mode, SHAPE, Silence, gaussian, mixture, modes, print_table, run, smooth_grid, vp};

/// Up and down again, between the levels of `smooth_grid`. DDIM down takes the noise of a step's upper end, its inverse that of the lower
/// one: a difference of `O(h^2)` a step, hence `O(h)`. A sampler of order p that walks the grid in both directions is wrong by `O(h^p)`.
#[test]
fn a_round_trip_returns_with_the_derived_order() {
    let denoiser = Oracle::new(mixture(), vp());
    let round_trip = |up: &mut dyn Sampler, down: &mut dyn Sampler, n: usize| {
        let grid = smooth_grid(n);
        let image = start(Level { sigma: 0.5, ..grid.steps[n - 1].to });
        let noise = run(up, &denoiser, &grid.reversed(), image.clone(), &mut Silence);
        rms(&run(down, &denoiser, &grid, noise, &mut Silence), &image)
    };
    let mut rows = Vec::new();
    let mut check = |name: &str, order: f64, up: &mut dyn Sampler, down: &mut dyn Sampler| {
        let (coarse, fine) = (round_trip(up, down, 240), round_trip(up, down, 480));
        let slope = (coarse / fine).log2();
        rows.push(vec![name.to_owned(), order.to_string(), format!("{slope:.3}"), format!("{fine:.1e}")]);
        assert!(slope > order - 0.1, "{name}: slope {slope:.3}, below {order}");
        assert!(fine < 0.02, "{name}: {fine:.1e}");
    };
    check("ddim-inverse, ddim", 1.0, &mut DdimInverse::default(), &mut Ddim::default());
    for Mode { name, mut sampler, order, .. } in modes() {
        if let Some(order) = order {
            let mut down = modes().into_iter().find(|mode| mode.name == name).unwrap().sampler;
            check(name, order, sampler.as_mut(), down.as_mut());
        }
    }
    print_table("Round trip", &["up, down", "order", "slope, N = 240 to 480", "RMS error at 480"], &rows);
}

/// From the clean image itself: what the first and the last step, of a fixed length, leave of it grows with their noise.
#[test]
fn a_clean_image_survives() {
    let denoiser = Oracle::new(gaussian(), vp());
    let image = start(Level { sigma: 0.5, ..Level::CLEAN });
    let grid = Grid::log_snr(&*vp(), 400).unwrap();
    let up = grid.reversed();
    assert!(up.start == 0.0 && up.steps[0].from == Level::CLEAN && up.steps[399].to == Level::at(&*vp(), 1.0));
    assert_eq!(up.reversed().steps, grid.steps);
    let noise = run(&mut DdimInverse::default(), &denoiser, &up, image.clone(), &mut Silence);
    let back = run(&mut Ddim::default(), &denoiser, &grid, noise, &mut Silence);
    assert!(rms(&back, &image) < 0.02, "{}", rms(&back, &image));
}

/// Sample 7 of 64 is sample 7 alone, on the way to its noise too.
#[test]
fn an_inversion_does_not_depend_on_its_batch() {
    let denoiser = Oracle::new(gaussian(), vp());
    let up = Grid::karras(&*vp(), 10).unwrap().reversed();
    let images = Streams::new(9, 0..64).normal(0, Purpose::Start, 64, SHAPE) * 0.5;
    let alone = images.slice_axis(Axis(0), Slice::from(7..8)).to_owned();
    let noise = |images: Batch| run(&mut DdimInverse::default(), &denoiser, &up, images, &mut Silence);
    assert_eq!(noise(images).slice_axis(Axis(0), Slice::from(7..8)), noise(alone));
}

/// Only the inverse walks up from the clean image; it walks nothing else.
#[test]
fn the_direction_is_checked() {
    let denoiser = Oracle::new(gaussian(), vp());
    let grid = Grid::uniform(&*vp(), 10).unwrap();
    let image = start(Level { sigma: 0.5, ..Level::CLEAN });
    let fails = |sampler: &mut dyn Sampler, grid: &Grid| {
        sample(sampler, &denoiser, grid, image.clone(), &mut Silence, &mut unobserved).unwrap_err()
    };
    assert!(matches!(fails(&mut DdimInverse::default(), &grid), Error::Unsupported { .. }));
    for Mode { name, mut sampler, .. } in modes() {
        assert!(matches!(fails(sampler.as_mut(), &grid.reversed()), Error::Argument { .. }), "{name}");
    }
}
