//! Counter-based randomness: every number is a pure function of seed, sample, step, purpose and position.

use std::array::from_fn;
use std::ops::Range;

use ndarray::Array4;
use rayon::prelude::*;

use crate::brownian::{Paths, time};
use crate::{Batch, Error, Noise, Purpose, Result, Shape};

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Philox4x32 with 10 rounds: four random words from a counter and a key.
///
/// # Reference
/// Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011; constants and known answers of its
/// Random123 library.
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    philox_lanes(counter.map(|word| [word]), key).map(|[word]| word)
}

/// [`philox4x32`] of several counters side by side, `[word][lane]`, for the compiler to make them so.
pub(crate) fn philox_lanes<const L: usize>(mut counters: [[u32; L]; 4], mut key: [u32; 2]) -> [[u32; L]; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let mut next = [[0; L]; 4];
        for lane in 0..L {
            let wide = [
                u64::from(MULTIPLIERS[0]) * u64::from(counters[0][lane]),
                u64::from(MULTIPLIERS[1]) * u64::from(counters[2][lane]),
            ];
            let (high, low) = (wide.map(|w| (w >> 32) as u32), wide.map(|w| w as u32));
            next[0][lane] = high[1] ^ counters[1][lane] ^ key[0];
            next[1][lane] = low[1];
            next[2][lane] = high[0] ^ counters[3][lane] ^ key[1];
            next[3][lane] = low[0];
        }
        counters = next;
    }
    counters
}

/// The random streams of a batch, one per sample.
///
/// The generator is Philox4x32-10: its 64-bit key is the seed, and its 128-bit counter holds the sample, the step, the purpose
/// and the position. So the numbers of sample 7 of 64 are those of sample 7 alone, whatever the batch, the order or the threads,
/// and the normals are made by IEEE arithmetic alone, so that a seed gives the same bits on every CPU.
///
/// ```
/// use unnoise_core::{Noise, Purpose, Streams};
/// let all = Streams::new(3, 0..64).normal(5, Purpose::Step, 64, [1, 2, 2]);
/// let seventh = Streams::new(3, 7..8).normal(5, Purpose::Step, 1, [1, 2, 2]);
/// assert_eq!(all.index_axis(ndarray::Axis(0), 7), seventh.index_axis(ndarray::Axis(0), 0));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streams {
    seed: u64,
    samples: Range<u32>,
    paths: Paths,
}

impl Streams {
    /// The streams of the samples `samples` of a run with this seed.
    pub fn new(seed: u64, samples: Range<u32>) -> Self {
        Self { seed, samples, paths: Paths::default() }
    }

    /// The number of streams.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there is no stream.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The run's seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// One stream alone, by its place among these.
    ///
    /// # Panics
    /// If there is no stream of this index.
    pub fn stream(&self, index: usize) -> Self {
        let sample = self.samples.clone().nth(index).expect("a stream's index is below len()");
        Self::new(self.seed, sample..sample + 1)
    }

    /// `k` streams for each of these, for the particles of a sample: stream `p` of sample `s` is the sample `s k + p`.
    ///
    /// # Errors
    /// [`Error::Argument`] if a sample's number would be 2^32 or more.
    pub fn fan_out(&self, k: u32) -> Result<Self> {
        let times = |bound: u32| {
            bound.checked_mul(k).ok_or_else(|| Error::Argument {
                what: "the number of streams times the last sample's",
                expected: "below 2^32".into(),
                got: format!("{k} * {bound}"),
                at: "Streams::fan_out",
            })
        };
        Ok(Self::new(self.seed, times(self.samples.start)?..times(self.samples.end)?))
    }

    /// `count` numbers uniform in the open interval (0, 1) for each stream: `[stream][count]`.
    pub fn uniform(&self, step: usize, purpose: Purpose, count: usize) -> Vec<Vec<f64>> {
        let draw = |sample| {
            let mut row = vec![0.0; count];
            fill_uniform(self.seed, sample, step as u32, purpose, &mut row);
            row
        };
        self.samples.clone().map(draw).collect()
    }
}

impl Noise for Streams {
    /// # Panics
    /// If `n` is not the number of streams.
    fn normal(&mut self, step: usize, purpose: Purpose, n: usize, [c, h, w]: Shape) -> Batch {
        assert_eq!(n, self.len(), "one stream per sample");
        let mut batch = Array4::zeros((n, c, h, w));
        let size = (c * h * w).max(1);
        let values = batch.as_slice_mut().expect("a new array is row-major");
        let samples = values.par_chunks_exact_mut(size).zip(self.samples.clone());
        samples.with_min_len(TASK.div_ceil(size)).for_each(|(values, sample)| {
            fill_uniform(self.seed, sample, step as u32, purpose, values);
            to_normal(values);
        });
        batch
    }

    /// One path for each pixel, whatever the steps: increments over `[a, b]` and `[b, c]` add up to the one over `[a, c]`. Between levels closer
    /// than its resolution (2^-14 in `s^(1/7) / (1 + s^(1/7))`, a fraction of a step in a thousand) there are independent normals.
    ///
    /// # Panics
    /// If `n` is not the number of streams.
    fn brownian(&mut self, step: usize, purpose: Purpose, between: [f64; 2], n: usize, shape: Shape) -> Batch {
        assert_eq!(n, self.len(), "one stream per sample");
        let times = between.map(time);
        if Paths::crosses(times) {
            self.paths.increment(self.seed, &self.samples, times, shape)
        } else {
            self.normal(step, purpose, n, shape)
        }
    }
}

/// Counters that are taken together, for two numbers each.
const LANES: usize = 16;
/// Uniform numbers that become normal ones together.
const GROUP: usize = 256;
/// So many numbers are worth a thread's waking.
const TASK: usize = 1 << 12;

fn fill_uniform(seed: u64, sample: u32, step: u32, purpose: Purpose, values: &mut [f64]) {
    let key = [seed as u32, (seed >> 32) as u32];
    // 8 bits of the last word for the purpose leave 24 for the step: 16 million of them.
    let last = (step << 8) | purpose as u32;
    for (group, chunk) in values.chunks_mut(2 * LANES).enumerate() {
        let block = |lane: usize| (group * LANES + lane) as u64;
        let low = from_fn(|lane| block(lane) as u32);
        let high = from_fn(|lane| (block(lane) >> 32) as u32);
        let words: [[u32; LANES]; 4] = philox_lanes([low, high, [sample; LANES], [last; LANES]], key);
        for (lane, pair) in chunk.chunks_mut(2).enumerate() {
            for (value, half) in pair.iter_mut().zip(words.as_chunks::<2>().0) {
                *value = open_unit(half[0][lane], half[1][lane]);
            }
        }
    }
}

/// Takes uniform numbers to normal ones: every one as if it were central, then again those in the tails, which are listed without a branch.
fn to_normal(uniforms: &mut [f64]) {
    for group in uniforms.chunks_mut(GROUP) {
        let (mut places, mut tails, mut count) = ([0; GROUP], [0.25; GROUP], 0);
        for (i, p) in group.iter_mut().enumerate() {
            (places[count], tails[count]) = (i, *p);
            count += usize::from(!is_central(*p - 0.5));
            *p = central_quantile(*p - 0.5);
        }
        for eight in tails[..count.next_multiple_of(8)].as_chunks_mut::<8>().0 {
            *eight = tail_quantiles(*eight);
        }
        places[..count].iter().zip(tails).for_each(|(&i, normal)| group[i] = normal);
    }
}

/// 53 bits at the centres of their cells in the open interval (0, 1). Above 1/2 a centre is no double and rounds to an even neighbour,
/// of which the last would be 1.
fn open_unit(high: u32, low: u32) -> f64 {
    let bits = (u64::from(high) << 21) | u64::from(low >> 11);
    // Of 53 bits, and a signed integer is converted by one instruction.
    ((bits as i64 as f64 + 0.5) * (0.5 * f64::EPSILON)).min(1.0 - 0.5 * f64::EPSILON)
}

/// The natural logarithm of a positive normal number, by IEEE additions, multiplications and one division only. Its relative error is below
/// 2 epsilons, near 1 as elsewhere.
fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32 - 1023;
    let mantissa = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    let upper = mantissa > std::f64::consts::SQRT_2;
    let (mantissa, exponent) = (mantissa * if upper { 0.5 } else { 1.0 }, exponent + i32::from(upper));
    // ln m = 2 atanh((m - 1) / (m + 1)), |argument| < 0.1716; the first omitted term is below 1e-18 of the sum.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let s2 = s * s;
    let series = (0..11).rev().fold(0.0, |sum, k| sum * s2 + 1.0 / (2 * k + 1) as f64);
    f64::from(exponent) * std::f64::consts::LN_2 + 2.0 * s * series
}

/// The quantile function of the standard normal, `0 < p < 1`, to about 1e-16 relative.
///
/// # Reference
/// Wichura, "Algorithm AS 241: the percentage points of the normal distribution", Applied Statistics 37 (1988), routine PPND16.
pub fn normal_quantile(p: f64) -> f64 {
    let q = p - 0.5;
    if is_central(q) { central_quantile(q) } else { tail_quantile(p) }
}

fn is_central(q: f64) -> bool {
    q.abs() <= 0.425
}

/// The quantile of `1/2 + q`, where that [`is_central`].
fn central_quantile(q: f64) -> f64 {
    let r = 0.180_625 - q * q;
    q * horner(&CENTRAL.0, r) / horner(&CENTRAL.1, r)
}

fn tail_quantile(p: f64) -> f64 {
    tail_quantiles([p])[0]
}

/// Several side by side, for the compiler to make them so.
fn tail_quantiles<const L: usize>(p: [f64; L]) -> [f64; L] {
    let r = p.map(|p| (-ln(p.min(1.0 - p))).sqrt());
    let mut magnitudes = r.map(|r| horner(&MIDDLE.0, r - 1.6) / horner(&MIDDLE.1, r - 1.6));
    // Beyond e^-25: one number in 10^10.
    for (magnitude, r) in magnitudes.iter_mut().zip(r).filter(|(_, r)| *r > 5.0) {
        *magnitude = horner(&FAR.0, r - 5.0) / horner(&FAR.1, r - 5.0);
    }
    from_fn(|i| magnitudes[i].copysign(p[i] - 0.5))
}

fn horner(coefficients: &[f64; 8], r: f64) -> f64 {
    let [first, rest @ ..] = coefficients;
    rest.iter().fold(*first, |sum, c| sum * r + c)
}

/// Numerator and denominator, highest power first.
type Rational = ([f64; 8], [f64; 8]);

#[allow(clippy::excessive_precision, reason = "the published digits")]
const CENTRAL: Rational = (
    [
        2.509_080_928_730_122_672_7e3,
        3.343_057_558_358_812_810_5e4,
        6.726_577_092_700_870_085_3e4,
        4.592_195_393_154_987_145_7e4,
        1.373_169_376_550_946_112_5e4,
        1.971_590_950_306_551_442_7e3,
        1.331_416_678_917_843_774_5e2,
        3.387_132_872_796_366_608,
    ],
    [
        5.226_495_278_852_854_561e3,
        2.872_908_573_572_194_267_4e4,
        3.930_789_580_009_271_061e4,
        2.121_379_430_158_659_586_7e4,
        5.394_196_021_424_751_107_7e3,
        6.871_870_074_920_579_083e2,
        4.231_333_070_160_091_125_2e1,
        1.0,
    ],
);

#[allow(clippy::excessive_precision, reason = "the published digits")]
const MIDDLE: Rational = (
    [
        7.745_450_142_783_414_076_4e-4,
        2.272_384_498_926_918_458_33e-2,
        2.417_807_251_774_506_117_7e-1,
        1.270_458_252_452_368_382_58,
        3.647_848_324_763_204_605_04,
        5.769_497_221_460_691_405_5,
        4.630_337_846_156_545_295_9,
        1.423_437_110_749_683_577_34,
    ],
    [
        1.050_750_071_644_416_843_24e-9,
        5.475_938_084_995_344_946e-4,
        1.519_866_656_361_645_719_66e-2,
        1.481_039_764_274_800_745_9e-1,
        6.897_673_349_851_000_045_5e-1,
        1.676_384_830_183_803_849_4,
        2.053_191_626_637_758_821_87,
        1.0,
    ],
);

#[allow(clippy::excessive_precision, reason = "the published digits")]
const FAR: Rational = (
    [
        2.010_334_399_292_288_132_65e-7,
        2.711_555_568_743_487_578_15e-5,
        1.242_660_947_388_078_438_6e-3,
        2.653_218_952_657_612_309_3e-2,
        2.965_605_718_285_048_912_3e-1,
        1.784_826_539_917_291_335_8,
        5.463_784_911_164_114_369_9,
        6.657_904_643_501_103_777_2,
    ],
    [
        2.044_263_103_389_939_785_64e-15,
        1.421_511_758_316_445_888_7e-7,
        1.846_318_317_510_054_681_8e-5,
        7.868_691_311_456_132_591e-4,
        1.487_536_129_085_061_485_25e-2,
        1.369_298_809_227_358_053_1e-1,
        5.998_322_065_558_879_376_9e-1,
        1.0,
    ],
);

#[cfg(test)]
mod tests {
    use ndarray::Axis;

    use super::*;

    /// Known answers of Random123's `kat_vectors` for philox4x32 10.
    #[test]
    fn philox_known_answers() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox4x32([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn quantiles_of_published_tables() {
        // scipy 1.17's norm.ppf.
        for (p, z) in [
            (0.5, 0.0),
            (0.975, 1.959963984540054),
            (0.25, -0.6744897501960817),
            (0.001, -3.090232306167813),
            (1e-20, -9.262340089798408),
        ] {
            assert!((normal_quantile(p) - z).abs() <= 4e-15 * f64::max(1.0, z.abs()), "{p}: {}", normal_quantile(p));
        }
    }

    /// Relative to the logarithm itself, so that it is seen near 1 too. The standard library's own is within 1 ulp.
    #[test]
    fn logarithm_is_accurate() {
        let wide = (0..2000).map(|k| (k as f64 * 0.37 - 350.0).exp());
        let octaves = (1..4000).map(|k| k as f64 / 1000.0);
        let near_one = (1..53).map(|k| f64::from(-k).exp2()).flat_map(|h| [1.0 - h, 1.0 + 2.0 * h, 1.0 - 0.7 * h]);
        let worst = wide.chain(octaves).chain(near_one).map(|x| {
            let error = (ln(x) - x.ln()).abs();
            (if error == 0.0 { 0.0 } else { error / (x.ln().abs() * f64::EPSILON) }, x)
        });
        let (worst, at) = worst.fold((0.0, 0.0), |a: (f64, f64), b| if b.0 > a.0 { b } else { a });
        assert!(worst <= 2.0, "{worst} epsilons at {at}");
        assert_eq!(ln(1.0), 0.0);
    }

    #[test]
    fn uniforms_stay_inside_the_open_interval() {
        assert_eq!(open_unit(0, 0), (-54f64).exp2());
        assert_eq!(open_unit(u32::MAX, u32::MAX), 1.0 - (-53f64).exp2());
        assert!(normal_quantile(open_unit(0, 0)) > -8.3 && normal_quantile(open_unit(u32::MAX, u32::MAX)) < 8.3);
    }

    /// The same bits on every CPU, tails included: a change here changes every published sample.
    #[test]
    fn normals_have_these_bits() {
        let normals = Streams::new(42, 7..8).normal(3, Purpose::Step, 1, [1, 1, 4]);
        let quantiles = [(-54f64).exp2(), 1e-9, 0.0745, 0.5 + 1e-8, 0.93, 1.0 - (-53f64).exp2()].map(normal_quantile);
        let expected = [
            0x4009_cbb9_0606_004f,
            0x3fde_4a55_d9b4_31d1,
            0xbff7_369b_5f34_62af,
            0xbff4_9ac2_535d_1db3,
            0xc020_95b0_59d6_7c4c,
            0xc017_fdc1_1f44_b5a7,
            0xbff7_16d3_5f62_c9d5,
            0x3e5a_ea2a_d8cf_f4f1,
            0x3ff7_9cd7_0d9c_27f3,
            0x4020_6b48_528c_ea51,
        ];
        for (got, expected) in normals.iter().chain(&quantiles).zip(expected) {
            assert_eq!(got.to_bits(), expected, "{got} instead of {}", f64::from_bits(expected));
        }
    }

    #[test]
    fn fanned_out_streams_are_counted_in_32_bits() {
        assert_eq!(Streams::new(1, 2..4).fan_out(3).unwrap(), Streams::new(1, 6..12));
        assert!(Streams::new(1, 65_535..65_536).fan_out(65_535).is_ok());
        let error = Streams::new(1, 65_535..65_536).fan_out(65_536).unwrap_err().to_string();
        assert!(error.contains("below 2^32, got 65536 * 65536"), "{error}");
    }

    #[test]
    fn a_sample_does_not_depend_on_its_batch() {
        let all = Streams::new(11, 0..9).normal(4, Purpose::Churn, 9, [1, 3, 5]);
        for i in 0..9 {
            let alone = Streams::new(11, 0..9).stream(i).normal(4, Purpose::Churn, 1, [1, 3, 5]);
            assert_eq!(all.index_axis(Axis(0), i), alone.index_axis(Axis(0), 0));
        }
    }

    #[test]
    fn moments_within_99_9_percent() {
        let n = 200_000;
        let x = Streams::new(1, 0..1).normal(0, Purpose::Step, 1, [1, 1, n]);
        let (mean, square) = (x.mean().unwrap(), x.iter().map(|v| v * v).sum::<f64>() / n as f64);
        assert!(mean.abs() < 3.29 / (n as f64).sqrt(), "{mean}");
        assert!((square - 1.0).abs() < 3.29 * (2.0 / n as f64).sqrt(), "{square}");
        let fourth = x.iter().map(|v| v.powi(4)).sum::<f64>() / n as f64;
        assert!((fourth - 3.0).abs() < 3.29 * (96.0 / n as f64).sqrt(), "{fourth}");
    }

    /// Prints normals a second: `cargo test --release -p unnoise-core rng::tests::speed -- --ignored --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    fn speed() {
        let mut streams = Streams::new(1, 0..64);
        let draw = |streams: &mut Streams, step| {
            let start = std::time::Instant::now();
            let x = streams.normal(step, Purpose::Step, 64, [3, 64, 64]);
            (start.elapsed().as_secs_f64(), x.len())
        };
        let (seconds, count) =
            (0..40).map(|step| draw(&mut streams, step)).fold((f64::MAX, 0), |a, b| if b.0 < a.0 { b } else { a });
        println!("{:.0} million normals a second, {:.1} GB/s", count as f64 / seconds / 1e6, 8.0 * count as f64 / seconds / 1e9);
    }

    #[test]
    fn steps_purposes_seeds_and_samples_differ() {
        let draw = |seed, sample, step, purpose| Streams::new(seed, sample..sample + 1).uniform(step, purpose, 1)[0][0];
        let base = draw(1, 2, 3, Purpose::Step);
        for other in [
            draw(2, 2, 3, Purpose::Step),
            draw(1, 3, 3, Purpose::Step),
            draw(1, 2, 4, Purpose::Step),
            draw(1, 2, 3, Purpose::Churn),
        ] {
            assert_ne!(base, other);
        }
        assert_ne!(draw(1, 0, 0, Purpose::Start), draw(1 << 32, 0, 0, Purpose::Start));
    }
}
