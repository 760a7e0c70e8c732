//! Samplers by name.

use super::{Churn, Ddim, Ddpm, DpmPp2m, Edm, Euler, Heun, Sampler, Variance};
use crate::{Error, Result};

/// The names of the samplers.
pub const SAMPLERS: [&str; 6] = ["ddpm", "ddim", "euler", "heun", "edm", "dpmpp-2m"];

/// What samplers can be told; each takes what it knows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SamplerOptions {
    /// `ddim`: the share of ancestral noise, in `[0, 1]`.
    pub eta: f64,
    /// `ddpm`, `ddim`, `heun`: the largest absolute value of the clean image.
    pub clip: Option<f64>,
    /// `ddpm`: the variance of a step.
    pub variance: Variance,
    /// `edm`: the noise that is added before each step.
    pub churn: Churn,
}

/// The sampler of this name.
///
/// # Errors
/// [`Error::Unknown`] with the names that exist; [`Error::Argument`] for an option outside its domain.
pub fn sampler_by_name(name: &str, options: &SamplerOptions) -> Result<Box<dyn Sampler>> {
    let SamplerOptions { eta, clip, variance, churn } = *options;
    require((0.0..=1.0).contains(&eta), "eta", "in [0, 1]", eta)?;
    require(clip.is_none_or(|limit| limit > 0.0), "clip", "positive", clip.unwrap_or(0.0))?;
    require(churn.amount >= 0.0 && churn.amount.is_finite(), "churn amount", "finite and not negative", churn.amount)?;
    require(churn.inflation >= 0.0 && churn.inflation.is_finite(), "churn inflation", "finite and not negative", churn.inflation)?;
    Ok(match name {
        "ddpm" => Box::new(Ddpm { variance, clip }),
        "ddim" => Box::new(Ddim { eta, clip }),
        "euler" => Box::new(Euler),
        "heun" => Box::new(Heun { clip }),
        "edm" => Box::new(Edm { churn }),
        "dpmpp-2m" => Box::<DpmPp2m>::default(),
        _ => {
            let known = SAMPLERS.map(String::from).to_vec();
            return Err(Error::Unknown { kind: "sampler", name: name.into(), known });
        }
    })
}

fn require(holds: bool, what: &'static str, expected: &str, got: f64) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::Argument { what, expected: expected.into(), got: got.to_string(), at: "sampler_by_name" })
    }
}
