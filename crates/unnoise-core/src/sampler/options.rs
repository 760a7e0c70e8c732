//! What samplers can be told.

use super::{Churn, Form, LowerOrder, SecondOrder, ThirdOrder, Variance};
use crate::{Error, Result};

/// What samplers can be told; each takes what [`SamplerInfo::options`](super::SamplerInfo::options) lists.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplerOptions {
    /// `ddim`, the ancestral samplers and the solvers of the SDE (`tau` of `sa-solver`): the share of fresh noise, in `[0, 1]`; each has its own
    /// default.
    pub eta: Option<f64>,
    /// `ddpm`, `ddim`, `heun`: the largest absolute value of the clean image.
    pub clip: Option<f64>,
    /// `ddpm`: the variance of a step.
    pub variance: Variance,
    /// `edm`: the noise that is added before each step.
    pub churn: Churn,
    /// Samplers whose name does not fix it: the order, from 1.
    pub order: Option<usize>,
    /// Multistep samplers: whether a run ends with steps of lower order, of `unipc`, `sa-solver` and the singlestep DPM-Solvers any, of the others
    /// one of fewer than 15 steps; each has its own default, diffusers'.
    pub lower_order_final: Option<bool>,
    /// Multistep DPM-Solvers: whether every run ends with a step of order 1.
    pub euler_at_final: bool,
    /// Multistep DPM-Solvers: the form of their steps.
    pub dpm_form: Form,
    /// Adaptive samplers: the error that a step may make, relative to the state's size.
    pub tolerance: f64,
    /// Langevin steps: the ratio of the score's step to the noise's.
    pub snr: f64,
    /// Langevin steps at each level; each has its own default.
    pub corrections: Option<usize>,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        Self {
            eta: None,
            clip: None,
            variance: Variance::default(),
            churn: Churn::default(),
            order: None,
            lower_order_final: None,
            euler_at_final: false,
            dpm_form: Form::default(),
            tolerance: 1e-3,
            snr: 0.16,
            corrections: None,
        }
    }
}

impl SamplerOptions {
    /// Sets the option of this name from text: `eta`, `clip`, `variance` (fixed_small, fixed_large, learned_range), `churn` and its bounds `churn_min`,
    /// `churn_max` and `churn_inflation`, `order`, `lower_order_final`, `euler_at_final`, `second_order` (midpoint, heun), `third_order`
    /// (quadratic, published), `tolerance`, `snr`, `corrections`.
    ///
    /// # Errors
    /// [`Error::Argument`] for text of the wrong kind; [`Error::Unknown`] for a choice or an option that does not exist.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "eta" => self.eta = Some(parsed(name, "a number", value)?),
            "clip" => self.clip = Some(parsed(name, "a number", value)?),
            "variance" => {
                self.variance = choice(
                    name,
                    value,
                    [
                        ("fixed_small", Variance::FixedSmall),
                        ("fixed_large", Variance::FixedLarge),
                        ("learned_range", Variance::LearnedRange),
                    ],
                )?;
            }
            "churn" => self.churn.amount = parsed(name, "a number", value)?,
            "churn_min" => self.churn.sigma_min = parsed(name, "a number", value)?,
            "churn_max" => self.churn.sigma_max = parsed(name, "a number", value)?,
            "churn_inflation" => self.churn.inflation = parsed(name, "a number", value)?,
            "order" => self.order = Some(parsed(name, "a whole number", value)?),
            "lower_order_final" => self.lower_order_final = Some(parsed(name, "true or false", value)?),
            "euler_at_final" => self.euler_at_final = parsed(name, "true or false", value)?,
            "second_order" => {
                self.dpm_form.second = choice(name, value, [("midpoint", SecondOrder::Midpoint), ("heun", SecondOrder::Heun)])?;
            }
            "third_order" => {
                self.dpm_form.third =
                    choice(name, value, [("quadratic", ThirdOrder::Quadratic), ("published", ThirdOrder::Published)])?;
            }
            "tolerance" => self.tolerance = parsed(name, "a number", value)?,
            "snr" => self.snr = parsed(name, "a number", value)?,
            "corrections" => self.corrections = Some(parsed(name, "a whole number", value)?),
            _ => return Err(Error::Unknown { kind: "option of a sampler", name: name.into(), known: Vec::new() }),
        }
        Ok(())
    }

    /// How a multistep sampler with this default ends a run.
    pub(super) fn lower_order(&self, by_default: bool) -> LowerOrder {
        LowerOrder { at_the_end_of_few: self.lower_order_final.unwrap_or(by_default), at_the_end: self.euler_at_final }
    }

    pub(super) fn check(&self) -> Result<()> {
        let Self { eta, clip, churn, order, tolerance, snr, corrections, .. } = *self;
        let not_negative = |v: f64| v >= 0.0 && v.is_finite();
        require(eta.is_none_or(|eta| (0.0..=1.0).contains(&eta)), "eta", "in [0, 1]", eta.unwrap_or(0.0))?;
        require(clip.is_none_or(|limit| limit > 0.0), "clip", "positive", clip.unwrap_or(0.0))?;
        require(not_negative(churn.amount), "churn", "finite and not negative", churn.amount)?;
        require(not_negative(churn.inflation), "churn_inflation", "finite and not negative", churn.inflation)?;
        require(order.is_none_or(|order| (1..=4).contains(&order)), "order", "from 1 to 4", order.unwrap_or(1) as f64)?;
        require((1e-14..1.0).contains(&tolerance), "tolerance", "in [1e-14, 1)", tolerance)?;
        require(snr > 0.0 && snr.is_finite(), "snr", "positive and finite", snr)?;
        let corrections = corrections.unwrap_or(1);
        require((1..=1000).contains(&corrections), "corrections", "from 1 to 1000", corrections as f64)
    }
}

fn parsed<T: std::str::FromStr>(name: &str, expected: &str, value: &str) -> Result<T> {
    value.parse().map_err(|_| Error::Argument {
        what: "a sampler's option",
        expected: expected.into(),
        got: format!("{name} = {value}"),
        at: "SamplerOptions::set",
    })
}

fn choice<T, const N: usize>(name: &str, value: &str, choices: [(&str, T); N]) -> Result<T> {
    let names = choices.each_ref().map(|(name, _)| *name).join(" or ");
    let found = choices.into_iter().find(|(choice, _)| *choice == value);
    found.map(|(_, chosen)| chosen).ok_or_else(|| Error::Argument {
        what: "a sampler's option",
        expected: names,
        got: format!("{name} = {value}"),
        at: "SamplerOptions::set",
    })
}

fn require(holds: bool, what: &'static str, expected: &str, got: f64) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::Argument { what, expected: expected.into(), got: got.to_string(), at: "sampler_by_name" })
    }
}
