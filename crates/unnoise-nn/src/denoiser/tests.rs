use burn::tensor::Device;
use unnoise_core::{DiscreteSchedule, Noise, Purpose, Streams, dot};

use super::*;
use crate::{Tracking, UnetConfig};

const STEPS: usize = 50;

/// A network with weights that matter everywhere: the default initialisation's are small but none is zero except offsets.
fn denoiser(prediction: Prediction, learned_sigma: bool, classes: Option<usize>) -> UnetDenoiser {
    let config = UnetConfig {
        in_channels: 2,
        out_channels: if learned_sigma { 4 } else { 2 },
        down_block_types: vec!["DownBlock2D".into(), "AttnDownBlock2D".into()],
        up_block_types: vec!["AttnUpBlock2D".into(), "UpBlock2D".into()],
        block_out_channels: vec![8, 8],
        layers_per_block: 1,
        norm_num_groups: 4,
        attention_head_dim: Some(4),
        num_class_embeds: classes,
        ..UnetConfig::default()
    };
    let params = config.initial_params(3).unwrap();
    let unet = Unet::new(&config, &params, &Device::flex(), Tracking::Frozen).unwrap();
    UnetDenoiser::new(unet, Arc::new(DiscreteSchedule::linear(STEPS, 1e-3, 0.2).unwrap()), prediction).unwrap()
}

fn noise(n: usize, step: usize) -> Batch {
    Streams::new(9, 0..n as u32).normal(step, Purpose::Start, n, [2, 8, 8])
}

fn distance(a: &Batch, b: &Batch) -> f64 {
    assert_eq!(a.dim(), b.dim());
    let max = |x: &Batch| x.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    max(&(a - b)) / max(b)
}

#[test]
fn the_mean_follows_from_the_prediction() {
    for learned_sigma in [false, true] {
        for prediction in [Prediction::X0, Prediction::Eps, Prediction::V] {
            let denoiser = denoiser(prediction, learned_sigma, None);
            let x = noise(3, 0);
            for k in [0, 20, STEPS - 1] {
                let level = Level::at(denoiser.schedule(), (k + 1) as f64 / STEPS as f64);
                let raw = denoiser.unet().predict(&x, k as f64, None).unwrap();
                assert_eq!(raw.dim().1, if learned_sigma { 4 } else { 2 });
                let f = raw.slice_axis(Axis(1), Slice::from(0..2)).to_owned();
                let expected = match prediction {
                    Prediction::X0 => f,
                    Prediction::Eps => (&x - f * level.sigma) / level.alpha,
                    _ => &x * level.alpha - f * level.sigma,
                };
                let got = denoiser.x0_hat(&x, level).unwrap();
                assert!(distance(&got, &expected) < 1e-6, "{prediction:?} at {k}: {}", distance(&got, &expected));
                let Estimate { x0_hat, variance_share } = denoiser.estimate(&x, level).unwrap();
                assert!(x0_hat == got && x0_hat.is_standard_layout());
                let learned = (raw.slice_axis(Axis(1), Slice::from(2..)).to_owned() + 1.0) / 2.0;
                assert_eq!(variance_share, learned_sigma.then_some(learned), "guided-diffusion's [-1, 1] as a share");
            }
        }
    }
}

/// `<u, J^T v> = <J u, v>`, with `J u` from central differences of the network in f32.
#[test]
fn the_product_is_the_transposed_derivative() {
    for prediction in [Prediction::X0, Prediction::Eps, Prediction::V] {
        let denoiser = denoiser(prediction, true, None);
        let (x, u, v) = (noise(2, 0), noise(2, 1), noise(2, 2));
        let level = Level::at(denoiser.schedule(), 0.5);
        let h = 1e-2;
        let (plus, minus) = (denoiser.x0_hat(&(&x + &u * h), level).unwrap(), denoiser.x0_hat(&(&x - &u * h), level).unwrap());
        let expected = dot(&((plus - minus) / (2.0 * h)), &v);
        let Linearized { x0_hat, mut vjp } = denoiser.linearize(&x, level).unwrap();
        assert!(distance(&x0_hat, &denoiser.x0_hat(&x, level).unwrap()) < 1e-6);
        let first = vjp(&v).unwrap();
        for (got, expected) in dot(&u, &first).into_iter().zip(expected) {
            assert!((got - expected).abs() < 1e-3 * expected.abs().max(1.0), "{prediction:?}: {got} {expected}");
        }
        assert!(distance(&vjp(&v).unwrap(), &first) < 1e-6, "a second product at the same point");
        assert!(distance(&vjp(&(&v * 2.0)).unwrap(), &(&first * 2.0)) < 1e-6, "linear");
        assert!(matches!(vjp(&noise(1, 0)), Err(unnoise_core::Error::Shape { .. })));
    }
}

#[test]
fn chunks_change_nothing() {
    let whole = denoiser(Prediction::Eps, false, Some(3)).with_label(Some(2));
    let parts = denoiser(Prediction::Eps, false, Some(3)).with_label(Some(2)).with_chunk(2);
    let (x, v) = (noise(5, 0), noise(5, 1));
    let level = Level::at(whole.schedule(), 0.3);
    let products = [&whole, &parts].map(|denoiser| {
        let Linearized { x0_hat, mut vjp } = denoiser.linearize(&x, level).unwrap();
        (denoiser.x0_hat(&x, level).unwrap(), x0_hat, vjp(&v).unwrap())
    });
    let [(a, b, c), (p, q, r)] = &products;
    for (one, other) in [(a, p), (b, q), (c, r)] {
        assert!(distance(one, other) < 1e-6);
    }
    let other = denoiser(Prediction::Eps, false, Some(3)).with_label(Some(1));
    assert!(distance(&other.x0_hat(&x, level).unwrap(), a) > 1e-4, "the label is seen");
}

#[test]
fn what_does_not_fit_is_refused() {
    let denoiser = denoiser(Prediction::Eps, false, None);
    let level = Level::at(denoiser.schedule(), 0.5);
    for shape in [(1, 3, 8, 8), (1, 2, 9, 8), (0, 2, 8, 8)] {
        let x = Batch::zeros(shape);
        // An empty batch is a batch.
        assert_eq!(denoiser.x0_hat(&x, level).is_ok(), shape.0 == 0, "{shape:?}");
        assert_eq!(denoiser.linearize(&x, level).is_ok(), shape.0 == 0, "{shape:?}");
    }
    assert!(denoiser.unet().predict(&noise(1, 0), f64::NAN, None).is_err());
    assert!(denoiser.unet().predict(&noise(1, 0), 3.0, Some(0)).is_err());
    let with_classes = self::denoiser(Prediction::Eps, false, Some(3));
    assert!(
        with_classes.unet().predict(&noise(1, 0), 3.0, None).is_err()
            && with_classes.unet().predict(&noise(1, 0), 3.0, Some(3)).is_err()
    );
}
