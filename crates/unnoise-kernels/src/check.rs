//! What the tests share: random numbers, the comparison with a plain loop in `f64`, and a clock.

/// `n` standard normal numbers times `scale` (xorshift64*, Box-Muller).
pub(crate) fn normal(n: usize, seed: u64, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut uniform = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    };
    let mut one = || (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
    (0..n).map(|_| one() as f32 * scale).collect()
}

/// A comparison whose tolerance is relative to the root mean square of what is expected.
pub(crate) struct Close {
    what: String,
    tolerance: f64,
    least: f64,
}

impl Close {
    pub(crate) fn new(what: impl Into<String>, tolerance: f64) -> Self {
        Self { what: what.into(), tolerance, least: f64::from(f32::MIN_POSITIVE) }
    }

    /// The tolerance is relative to this at least: the deviation of sums of random terms, of which a few may all come out small.
    pub(crate) fn of_at_least(self, least: f64) -> Self {
        Self { least: self.least.max(least), ..self }
    }

    #[track_caller]
    pub(crate) fn check(&self, got: &[f32], want: impl IntoIterator<Item = f64>) {
        let want: Vec<f64> = want.into_iter().collect();
        assert_eq!(got.len(), want.len(), "{}: length", self.what);
        let rms = (want.iter().map(|w| w * w).sum::<f64>() / want.len().max(1) as f64).sqrt();
        for (i, (&g, w)) in got.iter().zip(&want).enumerate() {
            let error = (f64::from(g) - w).abs();
            let allowed = self.tolerance * rms.max(self.least);
            assert!(error <= allowed, "{}[{i}]: {g} instead of {w}, off by {:.1e} of the rms {rms:.2e}", self.what, error / rms);
        }
    }
}

/// What spoils a sum.
pub(crate) const NOT_FINITE: [f32; 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];

/// Checks that nothing is finite that is not by the definition.
#[track_caller]
pub(crate) fn check_lost(what: &str, got: &[f32], want: &[f64]) {
    let lost = got.iter().zip(want).position(|(got, want)| got.is_finite() && !want.is_finite());
    assert_eq!(lost, None, "{what}: finite where the definition is not");
}

/// The seconds of the fastest of many runs: whatever else the machine does only adds.
pub(crate) fn fastest(f: &mut dyn FnMut()) -> f64 {
    f();
    let clock = |_| {
        let start = std::time::Instant::now();
        f();
        start.elapsed().as_secs_f64()
    };
    (0..40).map(clock).fold(f64::INFINITY, f64::min)
}
