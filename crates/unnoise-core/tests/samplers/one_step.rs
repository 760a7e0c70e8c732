//! The one-step, inverse and flow samplers against diffusers' own results on diffusers' own levels: `tools/fixtures/one_step.py`.

use std::collections::BTreeMap;

use serde::Deserialize;
use unnoise_core::{
    Batch, Denoiser, DiscreteSchedule, Grid, Level, Linearized, Noise, Purpose, RectifiedFlowSchedule, Result, SamplerOptions,
    Schedule, sampler_by_name,
};

use super::diffusers::{Formula, N, Network, SHAPE};
use super::{Silence, print_table, run};

#[derive(Deserialize)]
struct Case {
    sampler: String,
    prediction: String,
    /// The standard deviation of the first state.
    start: f64,
    /// `t`, `alpha`, `sigma`.
    levels: Vec<[f64; 3]>,
    lower_order_final: Option<bool>,
    x: Vec<f64>,
}

/// The script's velocity, on the straight path.
struct Velocity;

impl Denoiser for Velocity {
    fn schedule(&self) -> &dyn Schedule {
        &RectifiedFlowSchedule
    }

    fn x0_hat(&self, x: &Batch, Level { t, sigma, .. }: Level) -> Result<Batch> {
        Ok(x.mapv(|x| x - sigma * ((3.0 * t).cos() * x - 0.3 + t)))
    }

    fn linearize<'a>(&'a self, _: &Batch, _: Level) -> Result<Linearized<'a>> {
        unreachable!("no sampler differentiates")
    }
}

fn deviation(case: &Case) -> f64 {
    let levels: Vec<Level> = case.levels.iter().map(|&[t, alpha, sigma]| Level { t, alpha, sigma }).collect();
    let options = SamplerOptions { lower_order_final: case.lower_order_final, ..SamplerOptions::default() };
    let mut sampler = sampler_by_name(&case.sampler, &options).unwrap();
    let network;
    let denoiser: &dyn Denoiser = match case.prediction.as_str() {
        "velocity" => &Velocity,
        prediction => {
            let schedule = DiscreteSchedule::linear(1000, 1e-4, 0.02).unwrap();
            network = Network { schedule, prediction: prediction.into() };
            &network
        }
    };
    let x = Formula.normal(0, Purpose::Start, N, SHAPE) * case.start;
    let got = run(sampler.as_mut(), denoiser, &Grid::through(&levels), x, &mut Silence);
    let largest = case.x.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
    got.iter().zip(&case.x).fold(0.0, |most: f64, (a, b)| most.max((a - b).abs())) / largest
}

/// To 1e-4 of the largest number: what is left is single precision in diffusers.
#[test]
fn agrees_with_diffusers_on_its_levels() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../fixtures/one_step.json")).unwrap();
    let (mut failures, mut agreement) = (Vec::new(), BTreeMap::new());
    for case in &cases {
        let off = deviation(case);
        let (count, worst) = agreement.entry(case.sampler.as_str()).or_insert((0, 0.0));
        (*count, *worst) = (*count + 1, off.max(*worst));
        if off.is_nan() || off > 1e-4 {
            let Case { sampler, prediction, levels, lower_order_final, .. } = case;
            failures.push(format!("{sampler}, {prediction}, {} steps, {lower_order_final:?}: {off:.1e}", levels.len() - 1));
        }
    }
    let rows: Vec<_> = agreement
        .iter()
        .map(|(name, (count, worst))| vec![(*name).to_owned(), count.to_string(), format!("{worst:.0e}")])
        .collect();
    print_table("Agreement with diffusers on its levels", &["sampler", "cases", "largest deviation"], &rows);
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}
