//! The chapter's one-level denoiser: a tiny network learns to predict the noise on nine patches of one photo.
//!
//! `cargo run --release -p unnoise-nn --example one_level_denoiser`
//!
//! Nine 16x16 patches of a 32x32 photo, noise of deviation 0.25, three convolutions 1-16-16-1 with ReLU, Adam with rate 1e-2, 150 epochs. On
//! the chapter's own photo the loss falls from about 1.03 to .27 (epoch 20), .17 (80) and .13 (150), and the error from .252 to
//! .090; on this one, and with these random numbers, a little differently.
//!
//! The photo is Chelsea (Stefan van der Walt, CC0), from scikit-image 0.26, reduced to 32x32.

use burn::tensor::activation::relu;
use burn::tensor::{Tensor, TensorData};
use unnoise_core::{Batch, Noise, Purpose, Streams};
use unnoise_nn::{AdamW, Params, Result, Shapes, Slot, Update, open_device, ops};

const PHOTO: &[u8; 1024] = include_bytes!("chelsea_32x32.gray");
const SIGMA: f64 = 0.25;
const EPOCHS: u64 = 150;
/// The chapter's losses.
const EXPECTED: [(u64, f64); 4] = [(1, 1.03), (20, 0.27), (80, 0.17), (150, 0.13)];

fn patches() -> Batch {
    Batch::from_shape_fn((9, 1, 16, 16), |(n, _, i, j)| f64::from(PHOTO[(n / 3 * 8 + i) * 32 + n % 3 * 8 + j]) / 255.0)
}

fn rmse(a: &Batch, b: &Batch) -> f64 {
    ((a - b).mapv(|d| d * d).mean().unwrap_or(0.0)).sqrt()
}

/// The parameters as leaves of the graph, and the network's output on `x`.
fn predict(params: &Params, x: &Batch) -> Result<(Vec<(String, Tensor<1>)>, Tensor<4>)> {
    let device = open_device("cpu")?.autodiff();
    let (n, _, h, w) = x.dim();
    let pixels: Vec<f32> = x.iter().map(|v| *v as f32).collect();
    let mut y = Tensor::<4>::from_data(TensorData::new(pixels, [n, 1, h, w]), &device);
    let mut leaves = Vec::new();
    for layer in 0..3 {
        let mut leaf = |name: String| {
            let parameter = params.get(&name).expect("made by shapes()");
            let flat = Tensor::<1>::from_data(TensorData::new(parameter.values.clone(), [parameter.values.len()]), &device);
            let flat = flat.require_grad();
            leaves.push((name, flat.clone()));
            (flat, parameter.shape.clone())
        };
        let (weight, shape) = leaf(format!("{layer}.weight"));
        let (bias, _) = leaf(format!("{layer}.bias"));
        let weight = weight.reshape([shape[0], shape[1], shape[2], shape[3]]);
        y = ops::conv2d(y, weight, bias, 1, [(1, 1), (1, 1)]);
        if layer < 2 {
            y = relu(y);
        }
    }
    Ok((leaves, y))
}

pub(crate) fn main() -> Result<()> {
    let clean = patches();
    let noise = Streams::new(0, 0..9).normal(0, Purpose::Training, 9, [1, 16, 16]);
    let noisy = &clean + SIGMA * &noise;
    let widths = [1, 16, 16, 1];
    let shapes: Shapes = (0..3)
        .flat_map(|l| [(format!("{l}.weight"), vec![widths[l + 1], widths[l], 3, 3]), (format!("{l}.bias"), vec![widths[l + 1]])])
        .collect();
    let mut params = Params::initialise(&shapes, 0)?;
    let (mut first, mut second, mut ema) = (Params::zeros(&shapes), Params::zeros(&shapes), params.clone());
    let adam = AdamW { weight_decay: 0.0, ..AdamW::default() };
    let target: Vec<f32> = noise.iter().map(|v| *v as f32).collect();
    let mut losses = Vec::new();
    for epoch in 1..=EPOCHS {
        let (leaves, prediction) = predict(&params, &noisy)?;
        let target = Tensor::<4>::from_data(TensorData::new(target.clone(), [9, 1, 16, 16]), &prediction.device());
        let loss = (prediction - target).square().mean();
        losses.push(f64::from(loss.clone().into_scalar::<f32>()));
        if let Some((_, expected)) = EXPECTED.iter().find(|(at, _)| *at == epoch) {
            let loss = losses[losses.len() - 1];
            println!("epoch {epoch:3}: loss {loss:.3}   (about {expected})");
            assert!((loss / expected - 1.0).abs() < 0.35, "within a third of the chapter's, on another photo");
        }
        let gradients = loss.backward();
        for (name, leaf) in leaves {
            let gradient: Vec<f32> = leaf.grad(&gradients).expect("a leaf").into_data().try_to_vec().expect("f32");
            let slot = Slot {
                weights: &mut params.get_mut(&name).expect("known").values,
                ema: &mut ema.get_mut(&name).expect("known").values,
                first: &mut first.get_mut(&name).expect("known").values,
                second: &mut second.get_mut(&name).expect("known").values,
                gradient: &gradient,
            };
            adam.update(&Update { step: epoch, lr: 1e-2, gradient_scale: 1.0, ema_decay: 0.0 }, slot);
        }
    }
    let (_, prediction) = predict(&params, &noisy)?;
    let values: Vec<f32> = prediction.into_data().try_to_vec().expect("f32");
    let predicted = Batch::from_shape_vec((9, 1, 16, 16), values.into_iter().map(f64::from).collect()).expect("as many pixels");
    let denoised = &noisy - SIGMA * predicted;
    let (before, after) = (rmse(&noisy, &clean), rmse(&denoised, &clean));
    println!("error of the noisy patches    {before:.3}   (about .25)");
    println!("error of the denoised patches {after:.3}   (about .09)");
    assert!((before - SIGMA).abs() < 0.01 && after < 0.5 * before);
    Ok(())
}
