//! A colour scale for quantities that are not gray values.

use super::Rgb;
use crate::image::to_byte;

/// The colour of `u` in `[0, 1]`: from black to white through blue, red and yellow, its luminance rising all the way, so that it also reads in gray.
///
/// ```text
/// angle = 2 pi (start / 3 + rotations u),   amplitude = hue u (1 - u) / 2
/// [r, g, b] = u + amplitude ([-0.14861, -0.29227, 1.97294] cos(angle) + [1.78277, -0.90649, 0] sin(angle))
/// ```
///
/// # Reference
/// Green 2011, "A colour scheme for the display of astronomical intensity images", Bull. Astron. Soc. India 39, 289, sec. 3, there with gamma 1;
/// here start 0.2, rotations 0.8, hue 1.4, clipped to the cube.
pub(super) fn cubehelix(u: f64) -> Rgb {
    let u = u.clamp(0.0, 1.0);
    let angle = std::f64::consts::TAU * (START / 3.0 + ROTATIONS * u);
    let amplitude = HUE * u * (1.0 - u) / 2.0;
    [(-0.14861, 1.78277), (-0.29227, -0.90649), (1.97294, 0.0)]
        .map(|(cosine, sine)| to_byte(u + amplitude * (cosine * angle.cos() + sine * angle.sin())))
}

const START: f64 = 0.2;
const ROTATIONS: f64 = 0.8;
const HUE: f64 = 1.4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn luminance_rises_from_black_to_white() {
        assert_eq!((cubehelix(0.0), cubehelix(1.0), cubehelix(f64::NAN)), ([0; 3], [255; 3], [0; 3]));
        let luminance = |i: i32| {
            let [r, g, b] = cubehelix(f64::from(i) / 100.0).map(f64::from);
            0.30 * r + 0.59 * g + 0.11 * b
        };
        assert!((0..100).all(|i| luminance(i) < luminance(i + 1)));
    }
}
