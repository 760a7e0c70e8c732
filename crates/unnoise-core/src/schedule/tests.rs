use std::sync::Arc;

use ndarray::Array4;

use super::*;

struct Case {
    name: &'static str,
    schedule: Arc<dyn Schedule>,
}

fn zero_snr() -> DiscreteSchedule {
    DiscreteSchedule::linear(40, 1e-3, 0.3).unwrap().with_zero_terminal_snr().unwrap()
}

fn shifted(inner: Arc<dyn Schedule>, factor: f64, power: f64) -> Arc<dyn Schedule> {
    Arc::new(ShiftedSchedule::new(inner, Shift::with_power(factor, power).unwrap()))
}

fn cases() -> Vec<Case> {
    let case = |name, schedule| Case { name, schedule };
    vec![
        case("linear", Arc::new(DiscreteSchedule::linear(1000, 1e-4, 0.02).unwrap())),
        case("scaled_linear", Arc::new(DiscreteSchedule::scaled_linear(100, 0.00085, 0.12).unwrap())),
        case("squaredcos_cap_v2", Arc::new(DiscreteSchedule::squaredcos_cap_v2(50).unwrap())),
        case("zero_snr", Arc::new(zero_snr())),
        case("custom", Arc::new(DiscreteSchedule::from_betas(vec![0.3, 0.1, 0.7]).unwrap())),
        case("sigmoid betas", Arc::new(DiscreteSchedule::sigmoid(100, 1e-4, 0.2).unwrap())),
        case("exp betas", Arc::new(DiscreteSchedule::exponential(100).unwrap())),
        case("laplace betas", Arc::new(DiscreteSchedule::laplace(100).unwrap())),
        case("cosine", Arc::new(CosineSchedule)),
        case("sigmoid", Arc::new(SigmoidSchedule::default())),
        case("sigmoid, lopsided", Arc::new(SigmoidSchedule::new(0.0, 3.0, 0.7).unwrap())),
        case("laplace", Arc::new(LaplaceSchedule::default())),
        case("laplace, off centre", Arc::new(LaplaceSchedule::new(1.5, 0.8).unwrap())),
        case("vp", Arc::new(VpSchedule::default())),
        case("sub_vp", Arc::new(SubVpSchedule::default())),
        case("ve", Arc::new(VeSchedule::default())),
        case("edm", Arc::new(EdmSchedule::default())),
        case("rectified_flow", Arc::new(RectifiedFlowSchedule)),
        case("polynomial", Arc::new(PolynomialSchedule::new(2.0).unwrap())),
        case("polynomial, n = 0.7", Arc::new(PolynomialSchedule::new(0.7).unwrap())),
        case("trigonometric", Arc::new(TrigonometricSchedule)),
        case("shifted flow", shifted(Arc::new(RectifiedFlowSchedule), 3.0, 1.0)),
        case("shifted vp", shifted(Arc::new(VpSchedule::default()), 0.4, 1.3)),
        case("shifted ve", shifted(Arc::new(VeSchedule::default()), 2.0, 0.8)),
    ]
}

/// Times that are no knot of any case.
fn times() -> impl Iterator<Item = f64> {
    (0..97).map(|i| 0.00137 + 0.998 * i as f64 / 97.0)
}

fn assert_close(got: f64, want: f64, relative: f64, what: std::fmt::Arguments<'_>) {
    assert!((got - want).abs() <= relative * want.abs().max(1e-300), "{what}: {got} instead of {want}");
}

#[test]
fn derivatives_are_the_numerical_ones() {
    let h = 1e-6;
    for Case { name, schedule } in cases() {
        for t in times() {
            let (after, before) = (schedule.scales(t + h), schedule.scales(t - h));
            let Derivatives { d_alpha, d_sigma } = schedule.derivatives(t);
            let scale = d_alpha.abs() + d_sigma.abs();
            for (got, want) in [(d_alpha, after.alpha - before.alpha), (d_sigma, after.sigma - before.sigma)] {
                assert!((got - want / (2.0 * h)).abs() < 2e-6 * scale, "{name} at {t}: {got} instead of {}", want / (2.0 * h));
            }
        }
    }
}

#[test]
fn derivatives_at_knots_are_one_sided() {
    let h = 1e-8;
    for schedule in [zero_snr(), DiscreteSchedule::linear(40, 1e-3, 0.3).unwrap()] {
        for step in 0..=40 {
            let t = f64::from(step) / 40.0;
            let side = if step == 40 { -h } else { h };
            let (here, there) = (schedule.scales(t), schedule.scales(t + side));
            let Derivatives { d_alpha, d_sigma } = schedule.derivatives(t);
            let tolerance = 1e-5 * (d_alpha.abs() + d_sigma.abs());
            assert!(((there.alpha - here.alpha) / side - d_alpha).abs() < tolerance, "alpha at {t}");
            assert!(((there.sigma - here.sigma) / side - d_sigma).abs() < tolerance, "sigma at {t}");
        }
    }
}

/// At the ends a derivative may be infinite, but it is a value.
#[test]
fn derivatives_have_values_at_the_ends() {
    for Case { name, schedule } in cases() {
        for t in [0.0, 1.0] {
            let Derivatives { d_alpha, d_sigma } = schedule.derivatives(t);
            assert!(d_alpha <= 0.0 && d_sigma >= 0.0, "{name} at {t}: {d_alpha}, {d_sigma}");
        }
    }
    // Of Laplace's schedule sigma leaves 0 like e^(-mu/2) (2t)^(b/2): a power of t that is below, equal to or above 1.
    let d_sigma = |b: f64| LaplaceSchedule::new(1.5, b).unwrap().derivatives(0.0).d_sigma;
    assert_eq!([0.5, 1.9, 2.0, 2.1].map(d_sigma), [f64::INFINITY, f64::INFINITY, 2.0 * (-0.75f64).exp(), 0.0]);
}

#[test]
fn snr_falls_strictly_between_the_stated_ends() {
    for Case { name, schedule } in cases() {
        let ratio = |t: f64| schedule.scales(t).alpha / schedule.scales(t).sigma;
        let mut last = f64::INFINITY;
        for i in 1..=2000 {
            let now = ratio(f64::from(i) / 2000.0);
            assert!(now < last, "{name} at {i}");
            last = now;
        }
        let start = schedule.scales(0.0);
        match schedule.clean_end() {
            CleanEnd::Clean => assert_eq!((start.alpha, start.sigma), (1.0, 0.0), "{name}"),
            CleanEnd::SigmaMin(sigma) => assert_close(start.sigma / start.alpha, sigma, 1e-14, format_args!("{name}")),
        }
        assert_eq!(schedule.scales(-1.0), schedule.scales(0.0), "{name}");
        assert_eq!(schedule.scales(2.0), schedule.scales(1.0), "{name}");
    }
}

#[test]
fn variance_preserving_schedules_preserve_it() {
    for Case { name, schedule } in cases() {
        if matches!(name, "sub_vp" | "ve" | "edm" | "rectified_flow" | "shifted flow" | "shifted ve")
            || name.starts_with("polynomial")
        {
            continue;
        }
        for t in times().chain([0.0, 1.0]) {
            let Scales { alpha, sigma } = schedule.scales(t);
            assert!((alpha * alpha + sigma * sigma - 1.0).abs() < 1e-14, "{name} at {t}");
        }
    }
}

#[test]
fn t_from_sigma_edm_inverts() {
    for Case { name, schedule } in cases() {
        for t in times().chain([0.0, 1e-6, 1.0]) {
            let Scales { alpha, sigma } = schedule.scales(t);
            let back = schedule.t_from_sigma_edm(sigma / alpha);
            assert!((back - t).abs() < 1e-12, "{name}: {back} instead of {t}");
            let log_snr = schedule.log_snr(t);
            let back = schedule.t_from_log_snr(log_snr);
            assert!(log_snr == 2.0 * (alpha.ln() - sigma.ln()) && (back - t).abs() < 1e-11, "{name}: {back} instead of {t}");
        }
        assert_eq!(schedule.t_from_sigma_edm(0.0), 0.0, "{name}");
        assert_eq!(schedule.t_from_sigma_edm(f64::INFINITY), 1.0, "{name}");
    }
}

/// The mean's factor and the variance of `dx = f x dt + g dw` obey `m' = f m` and `P' = 2 f P + g^2`. An SDE whose `g^2` is doubled
/// has right derivatives everywhere and wrong marginals, so the marginals are what is compared.
#[test]
fn rates_integrate_to_the_marginals() {
    for Case { name, schedule } in cases() {
        let (start, end) = if schedule.steps().is_some() { (0.0, 0.9) } else { (0.004, 0.9) };
        let Scales { alpha, sigma } = schedule.scales(start);
        let (mut mean, mut variance) = (alpha, sigma * sigma);
        // The explicit midpoint rule never looks at a step's end, so the knots, which the substeps meet, do not cost its order.
        let substeps = 36_000;
        let h = (end - start) / f64::from(substeps);
        for i in 0..substeps {
            let t = start + f64::from(i) * h;
            let slope = |t: f64, m: f64, p: f64| {
                let Rates { drift, diffusion_sq } = schedule.rates(t);
                (drift * m, 2.0 * drift * p + diffusion_sq)
            };
            // A hair to the right, where rounding may have put t before its knot.
            let (dm, dp) = slope(t + 1e-12, mean, variance);
            let (dm, dp) = slope(t + 0.5 * h, mean + 0.5 * h * dm, variance + 0.5 * h * dp);
            (mean, variance) = (mean + h * dm, variance + h * dp);
        }
        let want = schedule.scales(end);
        // The knots of "custom", thirds, lie inside of substeps.
        let tolerance = if name == "custom" { 1e-4 } else { 1e-6 };
        assert_close(mean, want.alpha, tolerance, format_args!("{name}: the signal"));
        assert_close(variance, want.sigma * want.sigma, tolerance, format_args!("{name}: the variance"));
    }
}

#[test]
fn rates_are_the_closed_forms() {
    let (vp, ve) = (VpSchedule::default(), VeSchedule::default());
    for t in times() {
        let beta = 0.1 + 19.9 * t;
        assert_eq!(vp.rates(t), Rates { drift: -0.5 * beta, diffusion_sq: beta });
        let sigma = 0.01 * 5000f64.powf(t);
        assert_eq!(ve.rates(t).drift, 0.0);
        assert_close(ve.rates(t).diffusion_sq, 2.0 * sigma * sigma * 5000f64.ln(), 1e-12, format_args!("ve at {t}"));
    }
    // The closed forms of the trait's implementations against its own expression in alpha and sigma.
    for Case { name, schedule } in cases() {
        for t in times() {
            let (Scales { alpha, sigma }, Derivatives { d_alpha, d_sigma }) = (schedule.scales(t), schedule.derivatives(t));
            let Rates { drift, diffusion_sq } = schedule.rates(t);
            assert_close(drift, d_alpha / alpha, 1e-9, format_args!("{name} drift at {t}"));
            assert_close(diffusion_sq, 2.0 * sigma * (d_sigma - sigma * drift), 1e-9, format_args!("{name} diffusion at {t}"));
        }
    }
}

/// Each formula as its paper writes it.
#[test]
fn closed_forms_are_the_papers() {
    let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
    for t in times() {
        let close = |schedule: &dyn Schedule, alpha: f64, sigma: f64| {
            let got = schedule.scales(t);
            assert_close(got.alpha, alpha, 1e-11, format_args!("alpha of {schedule:?} at {t}"));
            assert_close(got.sigma, sigma, 1e-11, format_args!("sigma of {schedule:?} at {t}"));
        };
        let (low, high) = (logistic(-3.0), logistic(3.0));
        let gamma = (high - logistic(6.0 * t - 3.0)) / (high - low);
        close(&SigmoidSchedule::default(), gamma.sqrt(), (1.0 - gamma).sqrt());
        // lambda = mu - b sgn(1/2 - t) log(1 - 2 |t - 1/2|).
        let lambda = 1.5 - 0.8 * 1f64.copysign(0.5 - t) * (1.0 - 2.0 * (t - 0.5).abs()).ln();
        close(&LaplaceSchedule::new(1.5, 0.8).unwrap(), logistic(lambda).sqrt(), logistic(-lambda).sqrt());
        let integral = 0.1 * t + 19.9 * t * t / 2.0;
        close(&SubVpSchedule::default(), (-integral / 2.0).exp(), 1.0 - (-integral).exp());
        let sub_vp = SubVpSchedule::default().rates(t).diffusion_sq;
        assert_close(sub_vp, (0.1 + 19.9 * t) * (1.0 - (-2.0 * integral).exp()), 1e-11, format_args!("sub-VP's g^2 at {t}"));
        close(&PolynomialSchedule::new(2.0).unwrap(), (1.0 - t).powi(2), 1.0 - (1.0 - t).powi(2));
        close(&PolynomialSchedule::new(1.0).unwrap(), 1.0 - t, t);
        let angle = std::f64::consts::FRAC_PI_2 * t;
        close(&TrigonometricSchedule, angle.cos(), angle.sin());
        // Constant beta, the exp betas at each of their steps.
        let exponential = DiscreteSchedule::exponential(100).unwrap();
        let step = (100.0 * t) as usize;
        let (table, vp) = (exponential.scales(exponential.time(step)), VpSchedule::new(12.0, 12.0).unwrap());
        assert_close(table.alpha, vp.scales(exponential.time(step)).alpha, 1e-12, format_args!("exp at {step}"));
    }
}

/// diffusers' formulas and figures: SD3's shift, the exponential and the linear one with a power, and Flux' `mu` by the image's size.
#[test]
fn shifts_are_those_of_diffusers() {
    for t in times() {
        let power = Shift::with_power(1.15f64.exp(), 1.3).unwrap();
        for (shift, want) in [
            (Shift::new(3.0).unwrap(), 3.0 * t / (1.0 + 2.0 * t)),
            (Shift::exponential(0.8).unwrap(), 0.8f64.exp() / (0.8f64.exp() + (1.0 / t - 1.0))),
            (power, 1.15f64.exp() / (1.15f64.exp() + (1.0 / t - 1.0).powf(1.3))),
            (Shift::for_tokens(4096).unwrap(), 1.15f64.exp() / (1.15f64.exp() + (1.0 / t - 1.0))),
            (Shift::for_tokens(256).unwrap(), 0.5f64.exp() / (0.5f64.exp() + (1.0 / t - 1.0))),
        ] {
            assert_close(shift.apply(t), want, 1e-13, format_args!("{shift:?} at {t}"));
            assert_close(shift.invert(shift.apply(t)), t, 1e-12, format_args!("{shift:?} back at {t}"));
        }
        let flow = RectifiedFlowSchedule;
        let ratio = |schedule: &dyn Schedule| Level::at(schedule, t).sigma_edm();
        let shifted = ShiftedSchedule::new(Arc::new(flow), Shift::new(3.0).unwrap());
        assert_close(ratio(&shifted), 3.0 * ratio(&flow), 1e-12, format_args!("rectified flow at {t}"));
    }
}

#[test]
fn discrete_steps_are_the_cumulative_product() {
    let schedule = DiscreteSchedule::linear(1000, 1e-4, 0.02).unwrap();
    let mut alpha_bar = 1.0;
    for step in 0..1000 {
        alpha_bar *= 1.0 - (1e-4 + (0.02 - 1e-4) * step as f64 / 999.0);
        let Scales { alpha, sigma } = schedule.scales(schedule.time(step));
        assert_close(alpha * alpha, alpha_bar, 1e-12, format_args!("step {step}"));
        assert_close(sigma * sigma, 1.0 - alpha_bar, 1e-10, format_args!("step {step}"));
    }
}

/// `alphas_cumprod` of diffusers 0.42.1's `DDPMScheduler` (`HeunDiscreteScheduler` for `exp`), a product in float32, at steps 0, 499 and (but
/// for the zero-SNR table, whose end is 0) 999.
#[test]
fn discrete_tables_are_those_of_diffusers() {
    let linear = DiscreteSchedule::linear(1000, 1e-4, 0.02).unwrap();
    let rows: [(_, _, &[f64]); 7] = [
        ("linear", linear.clone(), &[0.9998999834060669, 0.07858723402023315, 4.035830352222547e-05]),
        (
            "scaled_linear",
            DiscreteSchedule::scaled_linear(1000, 0.00085, 0.012).unwrap(),
            &[0.9991499781608582, 0.27766942977905273, 0.00466009508818388],
        ),
        (
            "squaredcos_cap_v2",
            DiscreteSchedule::squaredcos_cap_v2(1000).unwrap(),
            &[0.9999586939811707, 0.4938434660434723, 2.4287349909002387e-09],
        ),
        (
            "sigmoid",
            DiscreteSchedule::sigmoid(1000, 1e-4, 0.02).unwrap(),
            &[0.9998508095741272, 0.3019309937953949, 3.9681821363046765e-05],
        ),
        ("exp", DiscreteSchedule::exponential(1000).unwrap(), &[0.9880717396736145, 0.002478785812854767, 6.144378858152777e-06]),
        ("laplace", DiscreteSchedule::laplace(1000).unwrap(), &[0.9788462519645691, 0.707460343837738, 0.03162277489900589]),
        ("zero SNR", linear.with_zero_terminal_snr().unwrap(), &[0.9998999834060669, 0.0760287269949913]),
    ];
    for (name, schedule, wants) in rows {
        let got: Vec<f64> = schedule.alpha_bars().collect();
        for (step, want) in [0, 499, 999].into_iter().zip(wants) {
            // A thousand roundings to 24 bits, in one direction where the betas are equal.
            assert_close(got[step], *want, 3e-5, format_args!("{name} at step {step}"));
        }
    }
}

#[test]
fn between_steps_the_log_ratio_is_linear() {
    let schedule = DiscreteSchedule::linear(40, 1e-3, 0.3).unwrap();
    let log_ratio = |t: f64| (schedule.scales(t).sigma / schedule.scales(t).alpha).ln();
    for step in 0..39 {
        let (a, b) = (schedule.time(step), schedule.time(step + 1));
        assert_close(log_ratio(0.3 * a + 0.7 * b), 0.3 * log_ratio(a) + 0.7 * log_ratio(b), 1e-11, format_args!("step {step}"));
    }
    let ratio = |t: f64| schedule.scales(t).sigma / schedule.scales(t).alpha;
    assert_close(ratio(0.3 / 40.0), 0.3 * ratio(1.0 / 40.0), 1e-13, format_args!("the first segment"));
}

#[test]
fn zero_terminal_snr() {
    let before = DiscreteSchedule::linear(40, 1e-3, 0.3).unwrap();
    let after = before.with_zero_terminal_snr().unwrap();
    assert_eq!(after.scales(1.0), Scales { alpha: 0.0, sigma: 1.0 });
    assert_close(after.scales(1.0 / 40.0).alpha, before.scales(1.0 / 40.0).alpha, 1e-14, format_args!("the first step"));
    // Affine in the old alphas, so that differences keep their ratios.
    let difference = |schedule: &DiscreteSchedule, a: usize, b: usize| {
        schedule.scales(schedule.time(a)).alpha - schedule.scales(schedule.time(b)).alpha
    };
    let ratio = |schedule: &DiscreteSchedule| difference(schedule, 10, 20) / difference(schedule, 20, 39);
    assert_close(ratio(&after), ratio(&before), 1e-11, format_args!("the differences"));
    assert!(after.derivatives(1.0).d_alpha.is_finite());
}

#[test]
fn configs_round_trip() {
    let configs = [
        ScheduleConfig::Discrete(DiscreteConfig::ddpm()),
        ScheduleConfig::Discrete(DiscreteConfig {
            betas: Betas::ScaledLinear { steps: 10, beta_start: 0.01, beta_end: 0.2 },
            zero_terminal_snr: true,
        }),
        ScheduleConfig::Discrete(DiscreteConfig { betas: Betas::SquaredcosCapV2 { steps: 10 }, zero_terminal_snr: false }),
        ScheduleConfig::Discrete(DiscreteConfig { betas: Betas::Custom(vec![0.1, 0.2]), zero_terminal_snr: false }),
        ScheduleConfig::Discrete(DiscreteConfig {
            betas: Betas::Sigmoid { steps: 10, beta_start: 0.01, beta_end: 0.2 },
            zero_terminal_snr: false,
        }),
        ScheduleConfig::Discrete(DiscreteConfig { betas: Betas::Exponential { steps: 10 }, zero_terminal_snr: false }),
        ScheduleConfig::Discrete(DiscreteConfig { betas: Betas::Laplace { steps: 10 }, zero_terminal_snr: true }),
        ScheduleConfig::Cosine,
        ScheduleConfig::Sigmoid { start: -3.0, end: 3.0, tau: 1.0 },
        ScheduleConfig::Laplace { mu: 0.0, b: 0.5 },
        ScheduleConfig::Vp { beta_min: 0.1, beta_max: 20.0 },
        ScheduleConfig::SubVp { beta_min: 0.1, beta_max: 20.0 },
        ScheduleConfig::Ve { sigma_min: 0.01, sigma_max: 50.0 },
        ScheduleConfig::Edm { sigma_min: 0.002, sigma_max: 80.0, rho: 7.0 },
        ScheduleConfig::RectifiedFlow,
        ScheduleConfig::Polynomial { n: 2.0 },
        ScheduleConfig::Trigonometric,
        ScheduleConfig::Shifted { schedule: Box::new(ScheduleConfig::RectifiedFlow), factor: 3.0, power: 1.0 },
    ];
    for config in configs {
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<ScheduleConfig>(&text).unwrap(), config, "{text}");
        config.build().unwrap();
    }
}

#[test]
fn impossible_parameters_are_refused() {
    for (name, refused) in [
        ("no betas", DiscreteSchedule::from_betas(vec![]).is_err()),
        ("a beta of 0", DiscreteSchedule::from_betas(vec![0.1, 0.0, 0.1]).is_err()),
        ("a beta of 1 in the middle", DiscreteSchedule::from_betas(vec![0.1, 1.0, 0.1]).is_err()),
        ("NaN", DiscreteSchedule::from_betas(vec![0.1, f64::NAN]).is_err()),
        ("negative scaled_linear", DiscreteSchedule::scaled_linear(10, -0.1, 0.1).is_err()),
        ("a signal that underflows", DiscreteSchedule::from_betas(vec![0.999; 1000]).is_err()),
        ("vp", VpSchedule::new(0.0, 20.0).is_err()),
        ("ve", VeSchedule::new(1.0, 1.0).is_err()),
        ("sub_vp", SubVpSchedule::new(1.0, 0.5).is_err()),
        ("sigmoid", SigmoidSchedule::new(3.0, -3.0, 1.0).is_err()),
        ("sigmoid that is flat", SigmoidSchedule::new(-3.0, 3.0, 0.01).is_err()),
        ("laplace", LaplaceSchedule::new(0.0, f64::NAN).is_err()),
        ("polynomial", PolynomialSchedule::new(0.0).is_err()),
        ("shift", Shift::new(0.0).is_err()),
        ("edm", EdmSchedule::new(0.1, 1.0, 0.5).is_err()),
    ] {
        assert!(refused, "{name} was accepted");
    }
}

#[test]
fn noises_in_one_call() {
    let x0 = Array4::from_elem((2, 1, 2, 2), 3.0);
    let eps = Array4::from_elem((2, 1, 2, 2), -1.0);
    let x = forward_noise(&x0, &eps, &RectifiedFlowSchedule, 0.25).unwrap();
    assert_eq!(x, Array4::from_elem((2, 1, 2, 2), 0.75 * 3.0 - 0.25));
    assert!(forward_noise(&x0, &Array4::zeros((1, 1, 2, 2)), &RectifiedFlowSchedule, 0.25).is_err());
    assert!(forward_noise(&x0, &Array4::zeros((2, 1, 4, 1)), &RectifiedFlowSchedule, 0.25).is_err());
}
