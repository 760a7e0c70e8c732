//! PyTorch's generator on the CPU.

use std::f32::consts::TAU;

use ndarray::Array4;
use unnoise_core::{Batch, Noise, Purpose, Shape};

const WORDS: usize = 624;
const SHIFT: usize = 397;

/// `torch.Generator("cpu")`: the Mersenne Twister and what PyTorch makes of its words.
///
/// As a [`Noise`] it is what upstream's generators are, a state: every call returns the next numbers, whatever its step and purpose.
///
/// # Reference
/// Matsumoto, Nishimura 1998, "Mersenne Twister", ACM TOMACS 8; PyTorch's `normal_fill` for the order in which normals are made.
pub struct TorchGenerator {
    state: [u32; WORDS],
    next: usize,
}

impl TorchGenerator {
    /// `torch.manual_seed(seed)`.
    pub fn new(seed: u32) -> Self {
        let mut state = [seed; WORDS];
        for i in 1..WORDS {
            let before = state[i - 1];
            state[i] = (before ^ (before >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Self { state, next: WORDS }
    }

    /// The next 32 random bits.
    pub fn word(&mut self) -> u32 {
        if self.next == WORDS {
            self.twist();
            self.next = 0;
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn twist(&mut self) {
        for i in 0..WORDS {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % WORDS] & 0x7fff_ffff);
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + SHIFT) % WORDS] ^ (y >> 1) ^ odd;
        }
    }

    /// A number uniform in `[0, 1)`: `torch.rand` in single precision, 24 bits of a word.
    pub fn uniform(&mut self) -> f32 {
        (self.word() & 0xff_ffff) as f32 * 2f32.powi(-24)
    }

    /// `count` standard normals: `torch.randn` in single precision, Box and Muller's transform within blocks of 16.
    ///
    /// # Panics
    /// Unless `count` is a multiple of 16; others PyTorch makes in another order.
    pub fn normals(&mut self, count: usize) -> Vec<f32> {
        assert_eq!(count % 16, 0, "normals come in blocks of 16");
        let mut values: Vec<f32> = (0..count).map(|_| self.uniform()).collect();
        for block in values.chunks_exact_mut(16) {
            for j in 0..8 {
                let radius = (-2.0 * (1.0 - block[j]).ln()).sqrt();
                let angle = TAU * block[j + 8];
                (block[j], block[j + 8]) = (radius * angle.cos(), radius * angle.sin());
            }
        }
        values
    }
}

impl Noise for TorchGenerator {
    fn normal(&mut self, _: usize, _: Purpose, n: usize, [c, h, w]: Shape) -> Batch {
        let values = self.normals(n * c * h * w).into_iter().map(f64::from).collect();
        Array4::from_shape_vec((n, c, h, w), values).expect("as many as the shape holds")
    }
}

/// The generator of a scheduler that draws in every step, for a sampler that does so only where it adds noise: what the steps between
/// would have drawn is thrown away.
pub struct EveryStep {
    generator: TorchGenerator,
    drawn: usize,
}

impl EveryStep {
    /// `torch.manual_seed(seed)`.
    pub fn new(seed: u32) -> Self {
        Self { generator: TorchGenerator::new(seed), drawn: 0 }
    }
}

impl Noise for EveryStep {
    fn normal(&mut self, step: usize, purpose: Purpose, n: usize, shape: Shape) -> Batch {
        for skipped in self.drawn..step {
            self.generator.normal(skipped, purpose, n, shape);
        }
        self.drawn = step + 1;
        self.generator.normal(step, purpose, n, shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first words and normals of PyTorch 2.15, whose logarithm and cosine are off by some units in the last place.
    #[test]
    fn known_answers() {
        let mut generator = TorchGenerator::new(0);
        assert_eq!([0; 4].map(|_| generator.word()), [2_357_136_044, 2_546_248_239, 3_071_714_933, 3_626_093_760]);
        for (seed, expected) in [
            (0, [-1.125_839_8f32, -1.152_360_2, -0.250_578_6, -0.433_878_8]),
            (42, [1.926_915_3, 1.487_284_1, 0.900_717_2, -2.105_522_2]),
        ] {
            let normals = TorchGenerator::new(seed).normals(768);
            for (got, expected) in normals.iter().zip(expected) {
                assert!((got - expected).abs() < 2e-6, "{got} {expected}");
            }
        }
    }
}
