//! Stochastic samplers that are, with the same noise, another one; and their deterministic twins.

use unnoise_core::{
    Ddim, Ddpm, DpmMultistep, DpmMultistepSde, DpmPp2sA, DpmPpSde, DpmSinglestep, Euler, EulerA, Expansion, Form, Grid, Kdpm2,
    Kdpm2A, LowerOrder, Oracle, Pc, SaSolver, Sampler, SecondOrder, Seeds, Streams, Tau, Variance, start_noise,
};

use super::{Pathless, SHAPE, mixture, run, schedules, smooth_grid, vp};

#[test]
fn twins_agree() {
    let heun = Form { second: SecondOrder::Heun, ..Form::default() };
    let ddim = |eta| Box::new(Ddim { eta, clip: None });
    let ddpm = |variance| Box::new(Ddpm { variance, clip: None });
    let multistep = |order| DpmMultistep::new(Expansion::X0, order);
    type Pair = (&'static str, Box<dyn Sampler>, Box<dyn Sampler>);
    let pairs: Vec<Pair> = vec![
        ("euler-a is ddim with its eta", Box::new(EulerA { eta: 0.7 }), ddim(0.7)),
        ("euler-a with eta 0 is euler", Box::new(EulerA { eta: 0.0 }), Box::new(Euler)),
        ("kdpm2-a with eta 0 is kdpm2", Box::new(Kdpm2A { eta: 0.0 }), Box::new(Kdpm2)),
        ("dpmpp-sde with eta 0 is dpmpp-2s-a with eta 0", Box::new(DpmPpSde { eta: 0.0 }), Box::new(DpmPp2sA { eta: 0.0 })),
        ("dpmpp-2m-sde with eta 0 is dpmpp-2m", Box::new(DpmMultistepSde::new(2, 0.0)), Box::new(multistep(2))),
        (
            "so it is in Heun's form",
            Box::new(DpmMultistepSde::new(2, 0.0).with(heun, LowerOrder::default())),
            Box::new(multistep(2).with(heun, LowerOrder::default())),
        ),
        ("dpmpp-3m-sde with eta 0 is dpmpp-3m", Box::new(DpmMultistepSde::new(3, 0.0)), Box::new(multistep(3))),
        ("sa-solver of order 1 with tau 0 is ddim", Box::new(SaSolver::new(1, 0, Tau::Constant(0.0))), ddim(0.0)),
        ("and with tau 1 ddim with eta 1", Box::new(SaSolver::new(1, 0, Tau::Constant(1.0))), ddim(1.0)),
        ("seeds-1 is ddim with eta 1", Box::new(Seeds { stages: 1 }), ddim(1.0)),
        ("seeds-2 is dpmpp-sde", Box::new(Seeds { stages: 2 }), Box::new(DpmPpSde { eta: 1.0 })),
        ("pc without corrections is ddpm", Box::new(Pc::new(Variance::FixedLarge, 0.16, 0)), ddpm(Variance::FixedLarge)),
        ("and so is pc-ancestral", Box::new(Pc::new(Variance::FixedSmall, 0.16, 0)), ddpm(Variance::FixedSmall)),
    ];
    for (name, mut one, mut other) in pairs {
        for (schedule_name, schedule) in schedules() {
            let denoiser = Oracle::new(mixture(), schedule.clone());
            let grid = Grid::uniform(&*schedule, 20).unwrap();
            let mut noise = Pathless(Streams::new(3, 0..8));
            let x = start_noise(&grid, &mut noise, 8, SHAPE);
            let a = run(one.as_mut(), &denoiser, &grid, x.clone(), &mut noise);
            let b = run(other.as_mut(), &denoiser, &grid, x, &mut noise);
            let off = (&a - &b).iter().fold(0.0, |most: f64, v| most.max(v.abs()));
            assert!(off < 1e-9 * b.iter().fold(1.0, |most: f64, v| most.max(v.abs())), "{name} on {schedule_name}: {off:.1e}");
        }
    }
}

/// DPM-Solver++(2S) takes its evaluation within a step at a step of the grid: where that is the middle in `lambda`, it makes the steps of
/// dpmpp-2s-a with eta 0 on half as many.
#[test]
fn dpmpp_2s_a_without_noise_is_dpmpp_2s() {
    let denoiser = Oracle::new(mixture(), vp());
    let x = start_noise(&smooth_grid(20), &mut Streams::new(3, 0..8), 8, SHAPE);
    let end = |sampler: &mut dyn Sampler, n| run(sampler, &denoiser, &smooth_grid(n), x.clone(), &mut Streams::new(3, 0..8));
    let off = end(&mut DpmPp2sA { eta: 0.0 }, 20) - end(&mut DpmSinglestep::new(2, false), 40);
    assert!(off.iter().all(|v| v.abs() < 1e-12), "{off}");
}
