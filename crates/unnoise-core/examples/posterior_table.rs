//! How far each posterior method is from the exact posterior, as two Markdown tables.
//!
//! `cargo run --release -p unnoise-core --example posterior_table [gaussian|mixture]`

#[path = "../tests/posterior_problems/mod.rs"]
mod posterior_problems;

use posterior_problems::*;
use serde_json::{Value, json};
use unnoise_core::*;

const STEPS: [usize; 2] = [25, 100];

fn main() {
    let part = std::env::args().nth(1);
    if part.as_deref() != Some("mixture") {
        gaussian_table();
    }
    if part.as_deref() != Some("gaussian") {
        mixture_table();
    }
}

/// The errors of a method on a linear-Gaussian problem: exact moments where the method is affine in the noise, 2000 samples otherwise.
fn errors(
    name: &str,
    settings: &Value,
    denoiser: &dyn Denoiser,
    measurement: &Measurement<'_>,
    steps: usize,
    exact: &Moments,
) -> Errors {
    let grid = Grid::log_snr(denoiser.schedule(), steps).unwrap();
    let affine = |sampler: &mut dyn Sampler, denoiser: &dyn Denoiser, stochastic: bool| {
        moments(sampler, denoiser, &grid, SHAPE, draws(&grid, stochastic)).error(exact)
    };
    let guided = |guidance: &dyn Fn(&mut dyn Sampler, bool) -> Errors| {
        let run: GuidedRun = serde_json::from_value(with_defaults(name, settings)).unwrap();
        let options = SamplerOptions { eta: Some(run.eta), ..SamplerOptions::default() };
        guidance(&mut *sampler_by_name(&run.sampler, &options).unwrap(), run.sampler == "ddim" && run.eta > 0.0)
    };
    match name {
        "mmps" => guided(&|sampler, stochastic| {
            let guidance = Mmps::default();
            affine(sampler, &Conditioned::new(denoiser, measurement, &guidance).unwrap(), stochastic)
        }),
        "pigdm" => guided(&|sampler, stochastic| {
            let guidance: Pigdm = serde_json::from_value(settings.clone()).unwrap();
            affine(sampler, &Conditioned::new(denoiser, measurement, &guidance).unwrap(), stochastic)
        }),
        "ddnm-plus" => affine(&mut DdnmPlusSampler::new(&DdnmPlus::default(), measurement).unwrap(), denoiser, true),
        "diffpir" => {
            let settings: DiffPir = serde_json::from_value(settings.clone()).unwrap();
            affine(&mut DiffPirSampler::new(&settings, measurement).unwrap(), denoiser, true)
        }
        _ => {
            let method = method_by_name(name, settings).unwrap();
            Moments::estimated(&draw(&*method, denoiser, measurement, &grid, 2000)).error(exact)
        }
    }
}

fn with_defaults(name: &str, settings: &Value) -> Value {
    let mut all = default_settings(name).unwrap();
    all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    all
}

fn gaussian_table() {
    let prior = gaussian();
    let denoiser = Oracle::new(prior.clone(), schedule());
    println!(
        "Gaussian prior, 8 dimensions, full covariance, sigma_y = {SIGMA_Y}. `mean | covariance` error at {STEPS:?} steps: the mean's"
    );
    println!(
        "relative to the posterior's total deviation, the covariance's in the Frobenius norm. Sampling error of the rows that are"
    );
    println!("estimated from 2000 samples (dps, tds): about .022 and .06.\n");
    let operators = operators();
    print!("| method | settings |");
    operators.iter().for_each(|(name, _)| print!(" {name} |"));
    println!("\n|---|---|{}", "---|".repeat(operators.len()));
    let rows = [
        ("mmps", json!({ "sampler": "ddim", "eta": 0.0 })),
        ("mmps", json!({ "sampler": "ddim", "eta": 1.0 })),
        ("mmps", json!({})),
        ("mmps", json!({ "sampler": "heun" })),
        ("tds", json!({ "particles": 1 })),
        ("tds", json!({ "particles": 4 })),
        ("tds", json!({ "particles": 16 })),
        ("tds", json!({ "particles": 16, "eta": 0.5 })),
        ("pigdm", json!({ "eta": 0.0 })),
        ("pigdm", json!({ "eta": 1.0 })),
        ("pigdm", json!({ "sampler": "dpmpp-2m" })),
        ("pigdm", json!({ "eta": 1.0, "prior_variance": 0.5 })),
        ("dps", json!({ "zeta": 0.003 })),
        ("dps", json!({ "zeta": 0.01 })),
        ("dps", json!({ "zeta": 0.03 })),
        ("dps", json!({ "zeta": 0.3 })),
        ("ddnm-plus", json!({})),
        ("diffpir", json!({})),
        ("diffpir", json!({ "lambda": 1.0, "zeta": 1.0 })),
        ("diffpir", json!({ "lambda": 1.0, "zeta": 0.3 })),
    ];
    for (name, settings) in rows {
        print!("| {name} | {settings} |");
        for (_, op) in &operators {
            let measurement = measure(&prior, op, SIGMA_Y, 3);
            let exact = Moments::exact(&prior.posterior(&measurement).unwrap());
            for (k, steps) in STEPS.into_iter().enumerate() {
                let Errors { mean, covariance } = errors(name, &settings, &denoiser, &measurement, steps, &exact);
                print!("{} {mean:.3}/{covariance:.3}", if k > 0 { "," } else { "" });
            }
            print!(" |");
        }
        println!();
    }
}

fn mixture_table() {
    let prior = mixture();
    let denoiser = Oracle::new(prior.clone(), schedule());
    let op = mixture_operator();
    let n = 1000;
    println!(
        "\nMixture of five Gaussians in 4 dimensions, 2 measurements, sigma_y = .2, 100 steps: sliced 1-Wasserstein distance of {n} samples"
    );
    println!("to {n} exact ones, for three measurements; evaluations are those of one sample.\n");
    println!("| method | settings | forward | vjp | y 1 | y 2 | y 3 |\n|---|---|---|---|---|---|---|");
    let measurements: Vec<_> = [4, 5, 6].into_iter().map(|seed| measure(&prior, &op, 0.2, seed)).collect();
    let exact = |measurement: &Measurement<'_>, seed| prior.posterior(measurement).unwrap().sample(&Streams::new(seed, 0..n));
    let floors: Vec<_> = measurements.iter().map(|m| Floor::of(&prior.posterior(m).unwrap(), n)).collect();
    print!("| exact against exact: mean of 99 pairs | | | |");
    floors.iter().for_each(|floor| print!(" {:.3} |", floor.mean));
    print!("\n| exact against exact: the largest | | | |");
    floors.iter().for_each(|floor| print!(" {:.3} |", floor.largest));
    print!("\n| the prior | | | |");
    let unconditioned = prior.sample(&Streams::new(3, 0..n));
    measurements.iter().for_each(|m| print!(" {:.3} |", distance(&exact(m, 1), &unconditioned)));
    println!();
    let grid = Grid::log_snr(denoiser.schedule(), 100).unwrap();
    let rows = [
        ("tds", json!({ "particles": 1 })),
        ("tds", json!({ "particles": 4 })),
        ("tds", json!({ "particles": 16 })),
        ("tds", json!({ "particles": 16, "eta": 0.5 })),
        ("mmps", json!({ "sampler": "ddim", "eta": 0.0 })),
        ("mmps", json!({ "sampler": "ddim", "eta": 1.0 })),
        ("mmps", json!({})),
        ("mmps", json!({ "sampler": "heun" })),
        ("pigdm", json!({ "eta": 0.0 })),
        ("pigdm", json!({ "eta": 1.0 })),
        ("pigdm", json!({ "sampler": "dpmpp-2m" })),
        ("dps", json!({ "zeta": 0.003 })),
        ("dps", json!({ "zeta": 0.01 })),
        ("dps", json!({ "zeta": 0.03 })),
        ("dps", json!({ "zeta": 0.3 })),
        ("ddnm-plus", json!({})),
        ("diffpir", json!({})),
        ("diffpir", json!({ "lambda": 1.0, "zeta": 1.0 })),
    ];
    for (name, settings) in rows {
        let counted = Counted::new(&denoiser);
        let method = method_by_name(name, &settings).unwrap();
        let distances: Vec<f64> =
            measurements.iter().map(|m| distance(&exact(m, 1), &draw(&*method, &counted, m, &grid, n))).collect();
        let Evaluations { forward, vjp } = counted.evaluations();
        let each = f64::from(n) * measurements.len() as f64;
        print!("| {name} | {settings} | {:.0} | {:.0} |", forward as f64 / each, vjp as f64 / each);
        distances.iter().for_each(|distance| print!(" {distance:.3} |"));
        println!();
    }
}
