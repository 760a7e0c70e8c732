use std::sync::Arc;

use ndarray::Array4;
use proptest::prelude::*;

use super::*;
use crate::{CosineSchedule, DiscreteSchedule, EdmSchedule, RectifiedFlowSchedule, Scales, VeSchedule, VpSchedule, forward_noise};

fn schedules() -> [Arc<dyn Schedule>; 7] {
    let discrete = DiscreteSchedule::linear(1000, 1e-4, 0.02).unwrap();
    [
        Arc::new(discrete.with_zero_terminal_snr().unwrap()),
        Arc::new(discrete),
        Arc::new(CosineSchedule),
        Arc::new(VpSchedule::default()),
        Arc::new(VeSchedule::default()),
        Arc::new(EdmSchedule::default()),
        Arc::new(RectifiedFlowSchedule),
    ]
}

fn scalar(value: f64) -> Batch {
    Array4::from_elem((1, 1, 1, 1), value)
}

/// The five predictions from their definitions.
fn definitions(x0: f64, eps: f64, Level { t, alpha, sigma }: Level, schedule: &dyn Schedule) -> [f64; 5] {
    let Derivatives { d_alpha, d_sigma } = schedule.derivatives(t);
    [x0, eps, alpha * eps - sigma * x0, -eps / sigma, d_alpha * x0 + d_sigma * eps]
}

/// Cases from a fixed seed.
fn config() -> ProptestConfig {
    ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    /// Every pair on every schedule, against the definitions.
    #[test]
    fn every_pair_meets_the_definitions(x0 in -2.0..2.0, eps in -3.0..3.0, t in 0.02..0.98) {
        for schedule in schedules() {
            let level = Level::at(&*schedule, t);
            let x_t = forward_noise(&scalar(x0), &scalar(eps), &*schedule, t).unwrap();
            let values = definitions(x0, eps, level, &*schedule);
            for (from, value) in Prediction::ALL.into_iter().zip(values) {
                for (to, want) in Prediction::ALL.into_iter().zip(values) {
                    let got = convert(&scalar(value), from, to, &x_t, level, &*schedule).unwrap()[[0, 0, 0, 0]];
                    // What the conversion amplifies of the rounding of its inputs.
                    let conversion = Conversion::new(from, to, level, &*schedule).unwrap();
                    let scale = (conversion.x_t * x_t[[0, 0, 0, 0]]).abs() + (conversion.value * value).abs();
                    let tolerance = 1e-13 * (scale + want.abs());
                    prop_assert!((got - want).abs() <= tolerance, "{to:?} from {from:?}, {schedule:?}: {got} instead of {want}");
                }
            }
        }
    }

    /// There and back.
    #[test]
    fn round_trips(value in -2.0..2.0, x in -3.0..3.0, alpha in 0.1..1.0, sigma in 0.1..2.0) {
        let level = Level { t: 0.3, alpha, sigma };
        let derivatives = Derivatives { d_alpha: -0.7, d_sigma: 1.3 };
        for from in Prediction::ALL {
            for to in Prediction::ALL {
                let there = Conversion::with(from, to, level, || derivatives).unwrap().apply(&scalar(value), &scalar(x)).unwrap();
                let back = Conversion::with(to, from, level, || derivatives).unwrap().apply(&there, &scalar(x)).unwrap();
                prop_assert!((back[[0, 0, 0, 0]] - value).abs() < 1e-10, "{from:?} to {to:?} and back: {}", back[[0, 0, 0, 0]]);
            }
        }
    }
}

/// The named functions' formulas, as their documentation has them, at one point.
#[test]
fn named_functions_are_their_formulas() {
    let (a, s, x, value): (f64, f64, f64, f64) = (0.8, 0.7, 1.1, -0.4);
    let (da, ds) = (-0.9, 1.7);
    let (level, derivatives) = (Level { t: 0.5, alpha: a, sigma: s }, Derivatives { d_alpha: da, d_sigma: ds });
    let (norm, w) = (a * a + s * s, a * ds - s * da);
    type Named = fn(&Batch, &Batch, Level) -> Result<Batch>;
    let named: [(&str, Named, f64); 12] = [
        ("x0_from_eps", x0_from_eps, (x - s * value) / a),
        ("x0_from_v", x0_from_v, (a * x - s * value) / norm),
        ("x0_from_score", x0_from_score, (x + s * s * value) / a),
        ("eps_from_x0", eps_from_x0, (x - a * value) / s),
        ("eps_from_v", eps_from_v, (s * x + a * value) / norm),
        ("eps_from_score", eps_from_score, -s * value),
        ("v_from_x0", v_from_x0, (a * x - norm * value) / s),
        ("v_from_eps", v_from_eps, (norm * value - s * x) / a),
        ("v_from_score", v_from_score, -(s * x + s * norm * value) / a),
        ("score_from_x0", score_from_x0, (a * value - x) / (s * s)),
        ("score_from_eps", score_from_eps, -value / s),
        ("score_from_v", score_from_v, -(x + a / s * value) / norm),
    ];
    type NamedVelocity = fn(&Batch, &Batch, Level, Derivatives) -> Result<Batch>;
    let velocity: [(&str, NamedVelocity, f64); 8] = [
        ("x0_from_velocity", x0_from_velocity, (ds * x - s * value) / w),
        ("eps_from_velocity", eps_from_velocity, (a * value - da * x) / w),
        ("v_from_velocity", v_from_velocity, (norm * value - (a * da + s * ds) * x) / w),
        ("score_from_velocity", score_from_velocity, -(a * value - da * x) / (s * w)),
        ("velocity_from_x0", velocity_from_x0, (ds * x - w * value) / s),
        ("velocity_from_eps", velocity_from_eps, (da * x + w * value) / a),
        ("velocity_from_v", velocity_from_v, ((a * da + s * ds) * x + w * value) / norm),
        ("velocity_from_score", velocity_from_score, (da * x - s * w * value) / a),
    ];
    let got = named.map(|(name, f, want)| (name, f(&scalar(value), &scalar(x), level), want)).into_iter();
    let got = got.chain(velocity.map(|(name, f, want)| (name, f(&scalar(value), &scalar(x), level, derivatives), want)));
    for (name, got, want) in got {
        assert!((got.unwrap()[[0, 0, 0, 0]] - want).abs() < 1e-14, "{name}");
    }
}

#[test]
fn undefined_conversions_name_a_usable_prediction() {
    use Prediction::{Eps, Score, V, Velocity, X0};
    let flow = &RectifiedFlowSchedule as &dyn Schedule;
    let vp = &VpSchedule::default() as &dyn Schedule;
    let zero_snr = &DiscreteSchedule::linear(40, 1e-3, 0.3).unwrap().with_zero_terminal_snr().unwrap() as &dyn Schedule;
    // Source, target, schedule and time, and what is usable where the pair is not.
    for (from, to, schedule, t, usable) in [
        (Eps, X0, flow, 1.0, Some("v")),
        (Score, X0, flow, 1.0, Some("v")),
        (Eps, V, flow, 1.0, Some("x0")),
        (Eps, Velocity, zero_snr, 1.0, Some("v")),
        (X0, Eps, flow, 0.0, Some("v")),
        (X0, V, vp, 0.0, Some("eps")),
        (X0, Score, flow, 0.0, Some("score")),
        (V, Score, vp, 0.0, Some("score")),
        (V, Velocity, vp, 0.0, Some("velocity")),
        (V, X0, flow, 1.0, None),
        (Velocity, X0, flow, 1.0, None),
        (Velocity, X0, zero_snr, 1.0, None),
        (X0, Eps, flow, 1.0, None),
        (Eps, Score, flow, 1.0, None),
        (Score, Eps, flow, 1.0, None),
        (Eps, X0, flow, 0.0, None),
        (Score, X0, vp, 0.0, None),
        (Velocity, Eps, flow, 0.0, None),
        (Score, Score, flow, 0.0, None),
    ] {
        let level = Level::at(schedule, t);
        let got = Conversion::new(from, to, level, schedule);
        match (got, usable) {
            (Ok(_), None) => {}
            (Err(Error::UndefinedConversion { usable: got, .. }), Some(want)) => {
                assert_eq!(got, want, "{to:?} from {from:?} at {level:?}");
                Conversion::new(got.parse().unwrap(), to, level, schedule).unwrap();
            }
            (got, _) => panic!("{to:?} from {from:?} at {level:?}: {got:?} instead of {usable:?}"),
        }
    }
}

#[test]
fn at_the_clean_end_x_t_is_the_image() {
    let Scales { alpha, sigma } = RectifiedFlowSchedule.scales(0.0);
    let level = Level { t: 0.0, alpha, sigma };
    // The prediction's factor is 0 there, and what is not finite in it does not spread.
    let x0 = x0_from_eps(&scalar(f64::NAN), &scalar(0.4), level).unwrap();
    assert_eq!(x0, scalar(0.4));
}

#[test]
fn names_parse() {
    for prediction in Prediction::ALL {
        assert_eq!(prediction.name().parse::<Prediction>().unwrap(), prediction);
        assert_eq!(serde_json::to_string(&prediction).unwrap(), format!("\"{}\"", prediction.name()));
    }
    assert!("epsilon".parse::<Prediction>().is_err());
}
