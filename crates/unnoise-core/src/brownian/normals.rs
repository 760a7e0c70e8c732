//! Many normals from few operations: 32 random bits each, to 7 digits.

use crate::rng::philox_lanes;

/// Normals that are made together: four words of each of 16 counters.
pub(super) const GROUP: usize = 64;
const LANES: usize = GROUP / 4;

/// The normals of a sample and the counter's last word, from the counter `block` on, four each.
pub(super) fn fill_normal(seed: u64, sample: u32, last: u32, block: u64, values: &mut [f64]) {
    let key = [seed as u32, (seed >> 32) as u32];
    for (group, chunk) in values.chunks_mut(GROUP).enumerate() {
        let counter = |lane: usize| block + (group * LANES + lane) as u64;
        let low = std::array::from_fn(|lane| counter(lane) as u32);
        let high = std::array::from_fn(|lane| (counter(lane) >> 32) as u32);
        let words: [[u32; LANES]; 4] = philox_lanes([low, high, [sample; LANES], [last; LANES]], key);
        let mut uniforms = [0.0; GROUP];
        uniforms.iter_mut().zip(words.as_flattened()).for_each(|(u, word)| *u = (f64::from(*word) + 0.5) * (-32f64).exp2());
        let mut normals = uniforms.map(central_quantile);
        // The few in the tails are listed without a branch, then done again.
        let (mut tails, mut count) = ([0; GROUP], 0);
        for (i, u) in uniforms.iter().enumerate() {
            tails[count] = i;
            count += usize::from(!is_central(*u));
        }
        tails[..count].iter().for_each(|&i| normals[i] = tail_quantile(uniforms[i]));
        chunk.copy_from_slice(&normals[..chunk.len()]);
    }
}

fn is_central(p: f64) -> bool {
    (p - 0.5).abs() <= 0.425
}

/// The normal's quantile where [`is_central`], to 7 digits.
///
/// # Reference
/// Wichura, Applied Statistics 37 (1988), algorithm AS 241, routine PPND7; so is [`tail_quantile`].
#[allow(clippy::excessive_precision, reason = "the published digits")]
fn central_quantile(p: f64) -> f64 {
    let q = p - 0.5;
    let r = 0.180_625 - q * q;
    let above = ((59.109_374_720 * r + 159.291_132_02) * r + 50.434_271_938) * r + 3.387_132_717_9;
    let below = ((67.187_563_600 * r + 78.757_757_664) * r + 17.895_169_469) * r + 1.0;
    q * above / below
}

/// The normal's quantile outside, down to `p = e^-25`: 2^-33 is the smallest here.
#[allow(clippy::excessive_precision, reason = "the published digits")]
fn tail_quantile(p: f64) -> f64 {
    let r = (-ln(p.min(1.0 - p))).sqrt() - 1.6;
    let above = ((0.170_238_211_03 * r + 1.306_728_481_6) * r + 2.756_815_390_0) * r + 1.423_437_277_7;
    let below = (0.120_211_329_75 * r + 0.737_001_642_50) * r + 1.0;
    (above / below).copysign(p - 0.5)
}

/// The natural logarithm of a positive normal number to 1e-9, by IEEE arithmetic only: `2 atanh((m - 1) / (m + 1))` of the mantissa,
/// from `sqrt(1/2)` to `sqrt(2)`, in five terms.
fn ln(x: f64) -> f64 {
    const HALF_OCTAVE: u64 = 0x3fe6_a09e_667f_3bcd;
    let above = x.to_bits().wrapping_sub(HALF_OCTAVE);
    let exponent = (above as i64) >> 52;
    let mantissa = f64::from_bits((above & 0x000f_ffff_ffff_ffff) + HALF_OCTAVE);
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let s2 = s * s;
    let series = (((s2 / 9.0 + 1.0 / 7.0) * s2 + 0.2) * s2 + 1.0 / 3.0) * s2 + 1.0;
    exponent as f64 * std::f64::consts::LN_2 + 2.0 * s * series
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::normal_quantile;

    #[test]
    fn quantiles_have_seven_digits() {
        let exponents = (1..330).map(|k| (-f64::from(k) / 10.0).exp2());
        for p in exponents.flat_map(|p| [p, 1.0 - p]).chain((1..1000).map(|k| f64::from(k) / 1000.0)) {
            let (got, exact) = (if is_central(p) { central_quantile(p) } else { tail_quantile(p) }, normal_quantile(p));
            assert!((got - exact).abs() <= 3e-7 * exact.abs(), "{p}: {got} instead of {exact}");
        }
    }

    #[test]
    fn logarithms_have_nine_digits() {
        for x in (1..5000).map(|k| (f64::from(k) * 0.007 - 24.0).exp()) {
            assert!((ln(x) - x.ln()).abs() < 2e-9 * (1.0 + x.ln().abs()), "{x}");
        }
    }
}
