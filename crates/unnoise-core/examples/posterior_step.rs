//! One step up the posterior: the prior's score plus the likelihood's.
//!
//! `cargo run --release -p unnoise-core --example posterior_step`

use ndarray::array;
use unnoise_core::{Dense, ExactPrior, Gaussian, Measurement, Operator, Result, Scales};

pub(crate) fn main() -> Result<()> {
    let op = Dense::new(array![[1.0, 0.0], [0.0, 0.5]], [1, 1, 2])?;
    let measurement = Measurement::new(&op, array![[[[0.8, -0.2]]]], 0.1f64.sqrt())?;
    let prior = Gaussian::standard([1, 1, 2]);
    let (x, step) = (array![[[[1.5, -1.0]]]], 0.2);

    let prior_score = prior.score(&x, Scales { alpha: 1.0, sigma: 0.0 })?;
    let residual = &measurement.y - &op.forward(&x);
    let likelihood_score = op.adjoint(&residual) / (measurement.sigma_y * measurement.sigma_y);
    let next = &x + &(step * (&prior_score + &likelihood_score));

    println!("x                 {:5.2}", x.flatten());
    println!("prior score       {:5.2}   (-1.5, 1)", prior_score.flatten());
    println!("likelihood score  {:5.2}   (-7, 1.5)", likelihood_score.flatten());
    println!("next x            {:5.2}   (-0.2, -0.5)", next.flatten());
    for (got, want) in [(&prior_score, [-1.5, 1.0]), (&likelihood_score, [-7.0, 1.5]), (&next, [-0.2, -0.5])] {
        assert!(got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-13));
    }

    // Iterated, this step diverges: along the first axis the posterior's curvature is 1 + 1 / 0.1 = 11, and 0.2 x 11 > 2. Where it
    // would have to arrive is known.
    println!("posterior mean    {:5.2}", prior.posterior(&measurement)?.mean().flatten());
    Ok(())
}
