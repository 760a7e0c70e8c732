//! The beta distribution.

use std::f64::consts::LN_2;

/// The quantile function of the beta distribution: `x` with `F(x) = u`, for `a` and `b` in `[0.1, 20]`.
///
/// ```text
/// F(x) = B(x; a, b) / B(1; a, b)      B(x; a, b) = integral_0^x s^(a-1) (1 - s)^(b-1) ds
/// ```
///
/// The half of the interval that holds `x` is solved from its own end, where nothing cancels.
pub(super) fn beta_quantile(a: f64, b: f64, u: f64) -> f64 {
    let u = u.clamp(0.0, 1.0);
    let (below, above) = (log_incomplete(-LN_2, a, b).exp(), log_incomplete(-LN_2, b, a).exp());
    let whole = below + above;
    if u * whole <= below { solve((u * whole).ln(), a, b) } else { 1.0 - solve(((1.0 - u) * whole).ln(), b, a) }
}

/// `x` in `[0, 1/2]` with `log B(x; a, b) = target`: Newton's method in `log x`.
///
/// `log B` is convex in `log x` for `b < 1` and concave for `b > 1`, and `x^a / a`, with which it starts, lies on that side of it from which the
/// iteration is monotone.
fn solve(target: f64, a: f64, b: f64) -> f64 {
    if target == f64::NEG_INFINITY {
        return 0.0;
    }
    let mut log_x = ((target + a.ln()) / a).min(-LN_2);
    for _ in 0..100 {
        let log_b = log_incomplete(log_x, a, b);
        let slope = (a * log_x + (b - 1.0) * (-log_x.exp()).ln_1p() - log_b).exp();
        let change = (log_b - target) / slope;
        log_x = (log_x - change).min(-LN_2);
        if change.abs() <= 1e-15 * log_x.abs() {
            break;
        }
    }
    log_x.exp()
}

/// `log B(x; a, b)` for `x <= 1/2`, by a series of positive terms.
///
/// ```text
/// B(x; a, b) = x^a (1 - x)^b / a sum_k prod_(j < k) (a + b + j) / (a + 1 + j) x
/// ```
///
/// # Reference
/// NIST Digital Library of Mathematical Functions, 8.17.8.
fn log_incomplete(log_x: f64, a: f64, b: f64) -> f64 {
    let x = log_x.exp();
    let (mut term, mut sum) = (1.0, 1.0);
    for j in 0..1000 {
        term *= (a + b + f64::from(j)) / (a + 1.0 + f64::from(j)) * x;
        sum += term;
        if term < 1e-17 * sum {
            break;
        }
    }
    a * log_x + b * (-x).ln_1p() - a.ln() + f64::ln(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `scipy.special.betaincinv` of scipy 1.17.1.
    #[test]
    fn quantiles_are_those_of_scipy() {
        let u = [0.001, 0.05, 0.3, 0.5, 0.9, 0.999];
        let rows = [
            (
                (0.6, 0.6),
                [1.855873851745199e-05, 0.012554456873611399, 0.23401700387523572, 0.5, 0.9604155944112192, 0.9999814412614826],
            ),
            ((1.0, 1.0), u),
            (
                (0.5, 0.5),
                [2.4673990709169446e-06, 0.0061558297024311365, 0.2061073738537634, 0.5, 0.9755282581475768, 0.999997532600929],
            ),
            (
                (2.0, 5.0),
                [
                    0.008255492787746678,
                    0.06284989170835438,
                    0.18180347131894917,
                    0.26444998329566005,
                    0.5103163065514917,
                    0.818613866919134,
                ],
            ),
            (
                (0.3, 1.7),
                [
                    5.0664653422119e-11,
                    2.333156550097498e-05,
                    0.009203040899900178,
                    0.051697104839436736,
                    0.4700012804565922,
                    0.9581663118887047,
                ],
            ),
            (
                (5.0, 0.4),
                [
                    0.3446235922454707,
                    0.7029996691326048,
                    0.9191073353765837,
                    0.9696557610780216,
                    0.9995011501720963,
                    0.9999999950186056,
                ],
            ),
            (
                (20.0, 20.0),
                [0.2683255675999362, 0.37136105028514427, 0.45835525531645577, 0.5, 0.6008979720963099, 0.7316744324000637],
            ),
        ];
        for ((a, b), wants) in rows {
            for (u, want) in u.into_iter().zip(wants) {
                let got = beta_quantile(a, b, u);
                assert!((got - want).abs() < 1e-13 * want, "({a}, {b}) at {u}: {got} instead of {want}");
            }
            assert_eq!((beta_quantile(a, b, 0.0), beta_quantile(a, b, 1.0)), (0.0, 1.0));
        }
    }

    /// Over the whole domain of the parameters it is finite and rises.
    #[test]
    fn quantiles_rise_everywhere() {
        let parameters = [0.1, 0.3, 1.0, 3.0, 20.0];
        for (a, b) in parameters.into_iter().flat_map(|a| parameters.map(|b| (a, b))) {
            let values: Vec<f64> = (0..=1000).map(|i| beta_quantile(a, b, f64::from(i) / 1000.0)).collect();
            assert!(values.windows(2).all(|pair| pair[0] <= pair[1]) && values[0] == 0.0 && values[1000] == 1.0, "({a}, {b})");
        }
    }
}
