//! The distance between two sets of samples.

use nalgebra::DMatrix;

use crate::{Batch, Error, Noise, Purpose, Result, Streams, check_shape, element_shape, samples};

/// The sliced Wasserstein distance of order `p` between two sets of samples, of any sizes.
///
/// ```text
/// SW_p(a, b) = (mean over directions of W_p(<a, direction>, <b, direction>)^p)^(1/p)
/// W_p(a, b)^p = integral_0^1 |F_a^-1(q) - F_b^-1(q)|^p dq
/// ```
///
/// Each stream of `directions` gives one direction, uniform on the sphere; a hundred or more make the average steady. Between two sets
/// of `n` samples of the same distribution the distance is not 0 but of the order of `1 / sqrt(n)`: compare with that floor.
///
/// # Errors
/// [`Error::Shape`] when the elements differ in shape, [`Error::Argument`] for an empty set, no direction or `p = 0`.
///
/// # Reference
/// Bonneel, Rabin, Peyre, Pfister 2015, "Sliced and Radon Wasserstein barycenters of measures", JMIV 51 (with
/// the mean over the sphere).
pub fn sliced_wasserstein(a: &Batch, b: &Batch, p: u32, directions: &Streams) -> Result<f64> {
    let at = "sliced_wasserstein";
    check_shape(b, element_shape(a), "b", at)?;
    for (what, count) in [("a", a.dim().0), ("b", b.dim().0), ("directions", directions.len()), ("p", p as usize)] {
        if count == 0 {
            return Err(Error::Argument { what, expected: "at least 1".into(), got: "0".into(), at });
        }
    }
    let directions = unit_vectors(directions, a.len() / a.dim().0);
    let project = |batch: &Batch| {
        let rows: Vec<f64> = samples(batch).flatten().copied().collect();
        DMatrix::from_vec(directions.nrows(), batch.dim().0, rows).tr_mul(&directions)
    };
    let (a, b) = (project(a), project(b));
    let costs = a.column_iter().zip(b.column_iter()).map(|(a, b)| transport(sorted(a.iter()), sorted(b.iter()), p));
    Ok((costs.sum::<f64>() / directions.ncols() as f64).powf(1.0 / f64::from(p)))
}

/// One direction a column.
fn unit_vectors(streams: &Streams, d: usize) -> DMatrix<f64> {
    let normals = streams.clone().normal(0, Purpose::Auxiliary, streams.len(), [1, 1, d]);
    let mut directions = DMatrix::from_iterator(d, streams.len(), normals.iter().copied());
    directions.column_iter_mut().for_each(|mut direction| {
        direction.normalize_mut();
    });
    directions
}

fn sorted<'a>(values: impl Iterator<Item = &'a f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.copied().collect();
    values.sort_by(f64::total_cmp);
    values
}

/// `W_p^p` of two sorted samples: their quantile functions are steps, of `1 / n` and `1 / m`.
fn transport(a: Vec<f64>, b: Vec<f64>, p: u32) -> f64 {
    let (n, m) = (a.len(), b.len());
    let (mut i, mut j, mut done, mut cost) = (0, 0, 0, 0.0);
    // In units of 1 / (n m), where the steps' ends are integers.
    while i < n && j < m {
        let end = ((i + 1) * m).min((j + 1) * n);
        cost += (end - done) as f64 * (a[i] - b[j]).abs().powi(p as i32);
        done = end;
        i += usize::from(end == (i + 1) * m);
        j += usize::from(end == (j + 1) * n);
    }
    cost / (n * m) as f64
}
