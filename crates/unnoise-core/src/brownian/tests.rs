use ndarray::{Axis, Slice};

use super::*;
use crate::{Grid, Noise, Streams, VpSchedule};

/// `W(s') - W(s)` for `n` samples of `d` pixels.
fn increment(streams: &mut Streams, between: [f64; 2], d: usize) -> Batch {
    let n = streams.len();
    let [from, to] = between.map(time);
    streams.brownian(0, Purpose::Step, between, n, [1, 1, d]) * (to - from).abs().sqrt()
}

fn largest(batch: &Batch) -> f64 {
    batch.iter().fold(0.0, |most: f64, v| most.max(v.abs()))
}

#[test]
fn increments_add_up() {
    let mut streams = Streams::new(5, 0..3);
    let levels = [f64::INFINITY, 157.0, 80.0, 79.0, 3.0, 2.5, 0.7, 0.69, 0.05, 0.002, 0.0];
    for triple in
        (0..levels.len()).flat_map(|i| (i + 1..levels.len()).flat_map(move |j| (j + 1..levels.len()).map(move |k| [i, j, k])))
    {
        let [a, b, c] = triple.map(|i| levels[i]);
        let sum = increment(&mut streams, [a, b], 70) + increment(&mut streams, [b, c], 70);
        let off = largest(&(sum - increment(&mut streams, [a, c], 70)));
        assert!(off < 1e-14, "{a} {b} {c}: {off:.1e}");
    }
}

/// Grids of 7, 20 and 1000 steps, each with streams of its own, end at the same value of the path.
#[test]
fn every_grid_sees_one_path() {
    let schedule = VpSchedule::new(0.1, 20.0).unwrap();
    let ends = [7, 20, 1000].map(|n| {
        let mut streams = Streams::new(8, 0..2);
        let steps = Grid::karras(&schedule, n).unwrap().steps;
        steps.iter().fold(Batch::zeros((2, 1, 1, 3000)), |sum, step| {
            sum + increment(&mut streams, [step.from.sigma_edm(), step.to.sigma_edm()], 3000)
        })
    });
    for other in &ends[1..] {
        assert!(largest(&(other - &ends[0])) < 1e-12);
    }
}

/// 64,000 normals each of six successive increments, in neighbouring cells and far apart: variances are 1 and correlations 0 within 3.9 standard
/// errors (99 % for all 21 together, with room).
#[test]
fn disjoint_increments_are_independent_standard_normals() {
    let at = |cells: f64| (cells / 16384.0 / (1.0 - cells / 16384.0)).powi(7);
    let levels = [9000.3, 8999.9, 8998.5, 8998.0, 8191.0, 8190.5, 100.0].map(at);
    let (n, d) = (4, 16_000);
    let mut streams = Streams::new(21, 0..n);
    let draws: Vec<Batch> =
        levels.windows(2).map(|pair| streams.brownian(0, Purpose::Step, [pair[0], pair[1]], n as usize, [1, 1, d])).collect();
    let count = draws[0].len() as f64;
    for (i, a) in draws.iter().enumerate() {
        for (j, b) in draws.iter().enumerate().take(i + 1) {
            let product = a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / count;
            let (expected, std) = if i == j { (1.0, 2f64.sqrt()) } else { (0.0, 1.0) };
            let z = (product - expected) / (std / count.sqrt());
            assert!(z.abs() < 3.9, "{i} {j}: {product}, {z:.2} standard errors off");
        }
        let fourth = a.iter().map(|v| v.powi(4)).sum::<f64>() / count;
        assert!((fourth - 3.0).abs() < 3.9 * (96.0 / count).sqrt(), "{i}: {fourth}");
    }
}

#[test]
fn a_path_does_not_depend_on_its_batch_or_on_what_was_asked_before() {
    let between = [3.0, 2.0];
    let mut all = Streams::new(9, 0..64);
    increment(&mut all, [80.0, 7.0], 1500);
    let (all, alone) = (increment(&mut all, between, 1500), increment(&mut Streams::new(9, 7..8), between, 1500));
    assert_eq!(all.slice_axis(Axis(0), Slice::from(7..8)), alone);
}

#[test]
fn levels_in_one_cell_have_independent_normals() {
    let mut streams = Streams::new(1, 0..1);
    let between = [1.1, 1.1 - 1e-6];
    let draw = |streams: &mut Streams, step| streams.brownian(step, Purpose::Step, between, 1, [1, 1, 5]);
    assert_eq!(draw(&mut streams, 3), streams.normal(3, Purpose::Step, 1, [1, 1, 5]));
    assert_ne!(draw(&mut streams, 3), draw(&mut streams, 4));
}

/// The same numbers on every CPU; a change here changes every published sample.
#[test]
fn paths_have_these_values() {
    let path = Streams::new(42, 7..8).brownian(0, Purpose::Step, [f64::INFINITY, 1.0], 1, [1, 1, 3]);
    for (got, expected) in path.iter().zip([-0.5081226409092391, -1.4694546651878986, 0.005556118667414855]) {
        assert!((got - expected).abs() < 1e-13, "{got} instead of {expected}");
    }
}
