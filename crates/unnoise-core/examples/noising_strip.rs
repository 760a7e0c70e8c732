//! Forward noising: one picture at the noise levels 1 - alpha_bar = .05 .20 .45 .70.
//!
//! Writes the strip, a PGM picture, where its argument says; without one it only prints the numbers:
//! `cargo run --release -p unnoise-core --example noising_strip -- strip.pgm`

use std::ffi::OsStr;

use ndarray::Array4;
use unnoise_core::{Batch, DiscreteConfig, Noise, Purpose, Scales, Schedule, Streams, forward_noise};

const SIDE: usize = 96;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    strip(std::env::args_os().nth(1).as_deref())
}

/// Prints the levels; writes the strip to `path`, if there is one.
pub(crate) fn strip(path: Option<&OsStr>) -> Result<(), Box<dyn std::error::Error>> {
    let schedule = DiscreteConfig::ddpm().build()?;
    let x0 = lit_sphere();
    let eps = Streams::new(0, 0..1).normal(0, Purpose::Auxiliary, 1, [1, SIDE, SIDE]);
    let mut strip = vec![x0.clone()];
    println!("1 - alpha_bar      t    alpha    sigma   rms(x_t - alpha x0)");
    for noise in [0.05f64, 0.20, 0.45, 0.70] {
        let t = schedule.t_from_sigma_edm((noise / (1.0 - noise)).sqrt());
        let Scales { alpha, sigma } = schedule.scales(t);
        let x_t = forward_noise(&x0, &eps, &schedule, t)?;
        let rms = (&x_t - &(alpha * &x0)).mapv(|v| v * v).mean().expect("the picture is not empty").sqrt();
        println!("{noise:13.2}  {t:.3}   {alpha:.4}   {sigma:.4}   {rms:.4}");
        assert!((sigma - noise.sqrt()).abs() < 1e-12, "sigma is the root of the noise level");
        assert!((rms / sigma - 1.0).abs() < 0.03, "the noise has the deviation sigma, within four standard errors");
        strip.push(x_t);
    }
    if let Some(path) = path {
        std::fs::write(path, pgm(&strip))?;
        println!("wrote {}", path.display());
    }
    Ok(())
}

/// A picture in [-1, 1] that needs no file: a sphere, lit from the upper left.
fn lit_sphere() -> Batch {
    let at = |i: usize| (i as f64 + 0.5) / SIDE as f64 * 2.4 - 1.2;
    Array4::from_shape_fn((1, 1, SIDE, SIDE), |(_, _, row, column)| {
        let (y, x) = (at(row), at(column));
        let z = (1.0 - x * x - y * y).max(0.0).sqrt();
        if z > 0.0 { (1.2 * (0.8 * z - 0.4 * x - 0.45 * y)).clamp(0.0, 1.0) * 1.8 - 0.8 } else { -0.9 }
    })
}

/// Pictures side by side, [-1, 1] as 0 to 255.
fn pgm(pictures: &[Batch]) -> Vec<u8> {
    let mut bytes = format!("P5\n{} {SIDE}\n255\n", SIDE * pictures.len()).into_bytes();
    for row in 0..SIDE {
        for picture in pictures {
            bytes.extend((0..SIDE).map(|column| ((picture[[0, 0, row, column]] + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8));
        }
    }
    bytes
}
