//! What the kernels save over burn's own operations, and where a training step's time goes.
//!
//! `cargo test --release -p unnoise-nn --test speed -- --ignored --nocapture`

use std::time::Instant;

use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Distribution, Tensor, activation, module};
use unnoise_nn::{Tracking, Unet, UnetConfig, ops};

/// The best of several runs: whatever else the machine does only adds.
fn best(runs: usize, mut f: impl FnMut()) -> f64 {
    f();
    let clock = |_| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64()
    };
    (0..runs).map(clock).fold(f64::INFINITY, f64::min) * 1e3
}

fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

/// Milliseconds of `f` forward, and of forward and backward by all three arguments.
fn both(f: &dyn Fn(Tensor<4>, Tensor<4>, Tensor<1>) -> Tensor<4>, x: [usize; 4], weight: [usize; 4]) -> [f64; 2] {
    let device = Device::flex();
    let (a, b, c) = (random(x, &device), random(weight, &device), random([weight[0]], &device));
    let forward = best(15, || drop(f(a.clone(), b.clone(), c.clone())));
    let device = device.autodiff();
    let (a, b, c) = (random(x, &device), random(weight, &device), random([weight[0]], &device));
    let all = best(15, || {
        let (a, b, c) = (a.clone().require_grad(), b.clone().require_grad(), c.clone().require_grad());
        drop(f(a, b, c).sum().backward());
    });
    [forward, all]
}

#[test]
#[ignore = "a measurement"]
fn operations() {
    let burn_conv = |x, w, b| module::conv2d(x, w, Some(b), ConvOptions::new([1, 1], [1, 1], [1, 1], 1));
    let our_conv = |x, w, b| ops::conv2d(x, w, b, 1, [(1, 1); 2]);
    let burn_norm = |x: Tensor<4>, gamma: Tensor<4>, beta: Tensor<1>| {
        let [n, c, h, w] = x.dims();
        let x = x.reshape([n, 32, c / 32 * h * w]);
        let x = x.clone() - x.mean_dim(2);
        let x = x.clone() / x.square().mean_dim(2).add_scalar(1e-5).sqrt();
        activation::silu(x.reshape([n, c, h, w]) * gamma.swap_dims(0, 1) + beta.reshape([1, c, 1, 1]))
    };
    let our_norm = |x, gamma: Tensor<4>, beta| ops::group_norm_silu(x, gamma.flatten(0, 3), beta, 32, 1e-5);
    for x in [[64, 64, 8, 8], [64, 64, 16, 16], [64, 64, 32, 32]] {
        let weight = [64, 64, 3, 3];
        let flops = 2.0 * (x.iter().product::<usize>() * 64 * 9) as f64;
        for (name, f) in [("burn", &burn_conv as &dyn Fn(_, _, _) -> _), ("ours", &our_conv)] {
            let [forward, all] = both(f, x, weight);
            let rate = |ms: f64, passes: f64| passes * flops / ms / 1e6;
            println!(
                "conv3x3 {x:?} {name}: {forward:.1} ms ({:.0} GFLOP/s), with backward {all:.1} ms ({:.0})",
                rate(forward, 1.0),
                rate(all, 3.0)
            );
        }
        for (name, f) in [("burn", &burn_norm as &dyn Fn(_, _, _) -> _), ("ours", &our_norm)] {
            let [forward, all] = both(f, x, [64, 1, 1, 1]);
            println!("group_norm_silu {x:?} {name}: {forward:.2} ms, with backward {all:.2} ms");
        }
    }
}

#[test]
#[ignore = "a measurement"]
fn training_step() {
    let json = serde_json::json!({
        "_class_name": "UNet2DModel", "sample_size": 32, "in_channels": 1, "out_channels": 1, "layers_per_block": 2,
        "block_out_channels": [32, 64, 64], "norm_num_groups": 32,
        "down_block_types": ["DownBlock2D", "DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
    });
    let config = UnetConfig::from_json(json, "digits".as_ref()).unwrap();
    let params = config.initial_params(1).unwrap();
    let device = Device::flex();
    let (n, timesteps) = (64, vec![500.0; 64]);
    let x = random([n, 1, 32, 32], &device);
    let unet = Unet::new(&config, &params, &device, Tracking::Frozen).unwrap();
    let forward = best(5, || drop(unet.forward(x.clone(), &timesteps, None).unwrap()));
    let unet = Unet::new(&config, &params, &device, Tracking::Trained).unwrap();
    let step = best(5, || {
        let y = unet.forward(x.clone(), &timesteps, None).unwrap();
        drop(unet.gradients(&y.powf_scalar(2.0).mean().backward()).unwrap());
    });
    println!("{} parameters, 64 images: forward {forward:.0} ms, forward and backward {step:.0} ms", params.count());
}
