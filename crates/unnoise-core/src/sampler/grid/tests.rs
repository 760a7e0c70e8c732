use super::*;
use crate::{CosineSchedule, DiscreteSchedule, EdmSchedule, RectifiedFlowSchedule, Shift, ShiftedSchedule, VeSchedule, VpSchedule};

fn ddpm() -> DiscreteSchedule {
    DiscreteSchedule::linear(1000, 1e-4, 0.02).unwrap()
}

fn ve() -> VeSchedule {
    VeSchedule::new(0.01, 50.0).unwrap()
}

fn kind(text: &str) -> GridKind {
    text.parse().unwrap()
}

/// `sigma / alpha` at which the steps start.
fn sigmas(kind: &GridKind, schedule: &dyn Schedule, n: usize) -> Vec<f64> {
    kind.grid(schedule, n).unwrap().steps.iter().map(|step| step.from.sigma_edm()).collect()
}

fn times(kind: &GridKind, schedule: &dyn Schedule, n: usize) -> Vec<f64> {
    kind.grid(schedule, n).unwrap().steps.iter().map(|step| step.from.t).collect()
}

fn assert_close(got: &[f64], want: &[f64], what: &str) {
    let close = got.len() == want.len() && got.iter().zip(want).all(|(a, b)| (a - b).abs() <= 1e-11 * b.abs().max(1e-3));
    assert!(close, "{what}: {got:?} instead of {want:?}");
}

#[test]
fn grids_start_at_the_noisy_end_and_end_clean() {
    let (discrete, ve, vp) = (ddpm(), ve(), VpSchedule::default());
    for schedule in [&discrete as &dyn Schedule, &ve, &vp] {
        for kind in GridKind::ALL.iter().filter(|kind| kind.refusal(schedule).is_none()) {
            for n in [1, 2, 7] {
                let grid = kind.grid(schedule, n).unwrap();
                assert_eq!(grid.steps.len(), n);
                let start = if *kind == GridKind::Leading { (1000 / n * (n - 1) + 1) as f64 / 1000.0 } else { 1.0 };
                assert_eq!(grid.steps[0].from, Level::at(schedule, start), "{kind}");
                assert_eq!(grid.start, grid.steps[0].from.sigma);
                assert!(grid.ends_clean() && grid.check().is_ok());
                assert!(grid.steps.windows(2).all(|pair| pair[0].to == pair[1].from && pair[0].ratio() < 1.0), "{kind}");
            }
            assert!(matches!(kind.grid(schedule, 0), Err(Error::Argument { what: "steps", .. })), "{kind}");
        }
    }
    assert!(matches!(Grid::karras(&discrete, 1001), Err(Error::Argument { what: "steps", .. })));
}

/// Each formula on the VE schedule, whose `sigma / alpha` goes from 50 to 0.01.
#[test]
fn sigma_grids_are_their_formulas() {
    let (n, max, min) = (9, 50f64, 0.01f64);
    let share = |i: usize| i as f64 / 8.0;
    let formula = |f: &dyn Fn(f64) -> f64| (0..n).map(|i| f(share(i))).collect::<Vec<_>>();
    let karras = |rho: f64| move |u: f64| (max.powf(1.0 / rho) + u * (min.powf(1.0 / rho) - max.powf(1.0 / rho))).powf(rho);
    let geometric = |u: f64| max.powf(1.0 - u) * min.powf(u);
    let poly = |u: f64| (min.ln() + (1.0 - u).powf(2.0) * (max.ln() - min.ln())).exp();
    let root = |lambda: f64| lambda.cbrt();
    let lu = |u: f64| (-(root(-max.ln()) + u * (root(-min.ln()) - root(-max.ln()))).powi(3)).exp();
    let rows: [(&str, Vec<f64>); 8] = [
        ("karras", formula(&karras(7.0))),
        ("karras:rho=3", formula(&karras(3.0))),
        ("exponential", formula(&geometric)),
        ("log-snr", formula(&geometric)),
        ("lu", formula(&geometric)),
        ("poly-exponential", formula(&geometric)),
        ("poly-exponential:rho=2", formula(&poly)),
        ("lu:rho=3", formula(&lu)),
    ];
    for (text, want) in rows {
        assert_close(&sigmas(&kind(text), &ve(), n), &want, text);
    }
    // Log-SNR is -2 log(sigma / alpha), so that equal steps of one are equal steps of the other, on any schedule.
    for schedule in [&ddpm() as &dyn Schedule, &VpSchedule::default(), &EdmSchedule::default()] {
        let grid = GridKind::Exponential.grid(schedule, 20).unwrap();
        assert_eq!(grid, GridKind::LogSnr.grid(schedule, 20).unwrap());
        let log_snr = |level: Level| 2.0 * (level.alpha / level.sigma).ln();
        let lengths: Vec<f64> = grid.steps[..19].iter().map(|step| log_snr(step.to) - log_snr(step.from)).collect();
        assert_close(&lengths, &[lengths[0]; 19].map(|length: f64| length), "equal steps of log-SNR");
    }
    // EDM's own time is its Karras grid's, but for the last step of a run that ends there.
    assert_close(
        &sigmas(&GridKind::KARRAS, &EdmSchedule::default(), n),
        &sigmas(&GridKind::Uniform, &EdmSchedule::default(), n),
        "EDM",
    );
}

#[test]
fn time_grids_are_their_formulas() {
    let vp = VpSchedule::default();
    // scipy 1.17.1's beta.ppf(u, 0.6, 0.6) at 1, 3/4, 1/2, 1/4.
    assert_close(&times(&kind("beta"), &vp, 4), &[1.0, 0.824319621347305, 0.5, 0.17568037865269498], "beta");
    assert_close(&times(&kind("beta:alpha=1,beta=1"), &vp, 8), &times(&GridKind::Uniform, &vp, 8), "a uniform distribution");
    let flow = |i: f64| 3.0 * (1.0 - i / 5.0) / (1.0 + 2.0 * (1.0 - i / 5.0));
    assert_close(&times(&kind("shifted"), &RectifiedFlowSchedule, 5), &[0.0, 1.0, 2.0, 3.0, 4.0].map(flow), "shifted");
    // Shifting the grid visits the levels that shifting the schedule does, at other times.
    let shifted = ShiftedSchedule::new(std::sync::Arc::new(vp), Shift::SD3);
    assert_close(&sigmas(&kind("shifted"), &vp, 9), &sigmas(&GridKind::Uniform, &shifted, 9), "a shifted schedule");
    assert_close(&times(&kind("times:0.9,0.4,0.001"), &vp, 3), &[0.9, 0.4, 0.001], "times");
    assert_close(&sigmas(&kind("sigmas:80,5,0.1"), &vp, 3), &[80.0, 5.0, 0.1], "sigmas");
    assert_close(&sigmas(&kind("sigmas:50,0.01"), &ve(), 2), &[50.0, 0.01], "sigmas at the ends");
}

/// The timesteps of diffusers 0.42.1: `DDIMScheduler` (leading, trailing) and `DPMSolverMultistepScheduler`'s formula for linspace.
#[test]
fn training_steps_are_rounded_as_in_diffusers() {
    for (text, n, want) in [
        ("leading", 4, vec![750, 500, 250, 0]),
        ("leading", 7, vec![852, 710, 568, 426, 284, 142, 0]),
        ("trailing", 4, vec![999, 749, 499, 249]),
        ("trailing", 7, vec![999, 856, 713, 570, 428, 285, 142]),
        ("linspace", 4, vec![999, 666, 333, 0]),
        ("linspace", 7, vec![999, 832, 666, 500, 333, 166, 0]),
        ("linspace", 1, vec![999]),
    ] {
        let got: Vec<i64> = times(&kind(text), &ddpm(), n).iter().map(|t| (t * 1000.0).round() as i64 - 1).collect();
        assert_eq!(got, want, "{text} {n}");
    }
}

#[test]
fn names_are_read_and_written() {
    for kind in GridKind::ALL.into_iter().chain([GridKind::Times(vec![0.9, 0.25]), GridKind::Sigmas(vec![20.0, 1.5, 1e-3])]) {
        let text = kind.to_string();
        assert_eq!(text.parse::<GridKind>().unwrap(), kind, "{text}");
        assert!(text.starts_with(kind.name()));
    }
    assert_eq!(kind("shifted:power=2"), GridKind::Shifted(Shift::with_power(3.0, 2.0).unwrap()));
    for (text, expected) in [
        ("nonesuch", "unknown grid 'nonesuch'; known: uniform, shifted:factor=3,power=1, beta:alpha=0.6,beta=0.6, leading"),
        ("uniform:rho=7", "unknown grid parameter 'rho'"),
        ("karras:sigma=7", "unknown grid parameter 'sigma'; known: rho"),
        ("karras:7", "grid parameter must be NAME=VALUE, got 7"),
        ("karras:rho=seven", "rho must be a number, got seven"),
        ("karras:rho=0", "rho must be in [0.5, 100], got 0"),
        ("beta:alpha=NaN", "alpha must be in [0.1, 20], got NaN"),
        ("shifted:factor=-1", "factor must be in [0.001, 1000]"),
        ("times:0.5,0.9", "levels must be at least one, finite and falling"),
        ("sigmas", "levels must be a number"),
        ("sigmas:inf,1", "levels must be at least one, finite"),
    ] {
        let error = text.parse::<GridKind>().expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn what_a_schedule_cannot_have_is_refused() {
    let refused = |kind: &str, schedule: &dyn Schedule, n: usize| self::kind(kind).grid(schedule, n).expect_err(kind).to_string();
    for (error, expected) in [
        (
            refused("karras", &CosineSchedule, 10),
            "starts without signal, where sigma / alpha is infinite; possible: uniform, shifted, beta",
        ),
        (
            refused("lu", &ddpm().with_zero_terminal_snr().unwrap(), 10),
            "possible: uniform, shifted, beta, leading, linspace, trailing",
        ),
        (refused("leading", &ve(), 10), "possible: uniform, shifted, beta, karras, exponential, poly-exponential, log-snr, lu"),
        (refused("uniform", &ddpm(), 1001), "steps must be from 1 to the 1000 steps of the schedule, got 1001"),
        (refused("times:0.9,0.1", &ddpm(), 50), "steps must be 2, as many as the grid times:0.9,0.1 has levels, got 50"),
        (refused("times:1,0", &ddpm(), 2), "times must be in (0, 1] on this schedule, got 0"),
        (refused("sigmas:60,1", &ve(), 2), "sigmas must be in [0.01, 50"),
        (refused("sigmas:1,0.001", &ve(), 2), "on this schedule, got 0.001"),
        (refused("beta:alpha=0.6,beta=0.1", &VpSchedule::default(), 1000), "few enough that no two levels are equal"),
    ] {
        assert!(error.contains(expected), "{error}");
    }
    assert!(kind("times:1,0").grid(&ve(), 2).is_ok(), "a schedule that ends in noise has a level at 0");
}
