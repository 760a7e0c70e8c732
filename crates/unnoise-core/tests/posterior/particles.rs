//! Sequential Monte Carlo: `tds`.

use super::*;

/// With few steps the chain's own prior is far from the true one, but known: a Gaussian. As particles grow `tds` samples its posterior,
/// which it would not with a wrong treatment of the last, noise-free step.
#[test]
fn tds_is_exact_for_the_chains_prior() {
    let shape = [1, 1, 2];
    let prior = Gaussian::new(&[0.3, -0.2], &ndarray::array![[0.8, 0.3], [0.3, 0.4]], shape).unwrap();
    let denoiser = Oracle::new(prior.clone(), schedule());
    let op = Dense::new(ndarray::array![[1.0, -0.7]], shape).unwrap();
    let measurement = measure(&prior, &op, SIGMA_Y, 3);
    let grid = Grid::through(&[1.0, 0.7, 0.45, 0.3, 0.15, 0.0].map(|t| Level::at(denoiser.schedule(), t)));
    let chain = moments(&mut Ddim { eta: 1.0, clip: None }, &denoiser, &grid, shape, draws(&grid, true));
    let chain = Gaussian::new(&chain.mean.to_vec(), &chain.covariance, shape).unwrap();
    let exact = Moments::exact(&chain.posterior(&measurement).unwrap());
    let far = Moments::exact(&prior.posterior(&measurement).unwrap()).error(&exact);
    let tds = Tds { particles: 256, ..Tds::default() };
    let n = 4000;
    let estimated = Moments::estimated(&draw(&tds, &denoiser, &measurement, &grid, n));
    let deviation = exact.largest_deviation(&estimated, n as usize);
    println!("tds on the chain's prior: {deviation} standard errors; the true prior's posterior is off by {far:?}");
    // 2 means and 3 covariances at 99 % together.
    assert!(deviation < 3.1, "{deviation}");
    assert!(far.covariance > 0.2, "the test would not tell: {far:?}");
}

/// The distances fall with the particles, and the last is no larger than the largest of 99 between two sets of exact samples: if `tds` were
/// exact, it would be larger with a probability of 1 % (in 100 exchangeable distances each is the largest equally often).
#[test]
fn tds_approaches_a_multimodal_posterior_with_particles() {
    let prior = mixture();
    let denoiser = Oracle::new(prior.clone(), schedule());
    let op = mixture_operator();
    let measurement = measure(&prior, &op, 0.2, 5);
    let posterior = prior.posterior(&measurement).unwrap();
    assert!(posterior.weights().iter().filter(|weight| **weight > 0.05).count() >= 2, "{:?}", posterior.weights());
    let n = 1000;
    let exact = posterior.sample(&Streams::new(1, 0..n));
    let floor = Floor::of(&posterior, n);
    let grid = Grid::log_snr(denoiser.schedule(), 50).unwrap();
    let distances = [1, 4, 32]
        .map(|particles| distance(&exact, &draw(&Tds { particles, ..Tds::default() }, &denoiser, &measurement, &grid, n)));
    println!("tds on a mixture, posterior weights {:?}: {distances:?}, {floor:?}", posterior.weights());
    assert!(distances[0] > 1.5 * distances[1] && distances[1] > 1.5 * distances[2], "{distances:?}");
    assert!(distances[2] < floor.largest, "{distances:?}, {floor:?}");
}
