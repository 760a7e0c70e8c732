//! What diffusers' tests pin of its U-Net's blocks and of whole pipelines, with PyTorch's initial weights: no checkpoint is needed.

use burn::tensor::{Device, TensorData};
use unnoise_core::{Noise, Purpose, SchedulerConfig, sample, unobserved};
use unnoise_testing::{Pins, TorchGenerator};

use super::*;
use crate::unet::embedding::sinusoids;
use crate::unet::layers::Source;
use crate::{Params, Shapes, Tracking, Unet, UnetDenoiser};

fn pins() -> Pins {
    Pins::read(include_str!("../../../../unnoise-core/tests/fixtures/diffusers_conformance.json"))
}

/// The order in which upstream constructs the parts of a network, and so draws their weights.
const CONSTRUCTION: [&str; 22] = [
    "conv_in",
    "time_embedding",
    "down_blocks",
    "mid_block",
    "up_blocks",
    "conv_norm_out",
    "conv_out",
    "norm1",
    "conv1",
    "time_emb_proj",
    "norm2",
    "conv2",
    "conv_shortcut",
    "group_norm",
    "to_q",
    "to_k",
    "to_v",
    "to_out",
    "conv",
    "linear_1",
    "linear_2",
    "weight",
];

/// Where a tensor stands in that order: in a stage, each residual block is followed by its attention, and the resampler comes last.
fn rank(name: &str) -> Vec<usize> {
    let mut parts = name.split('.');
    let mut rank = Vec::new();
    while let Some(part) = parts.next() {
        let mut index = || parts.next().and_then(|index| index.parse::<usize>().ok()).unwrap();
        rank.push(match part {
            "resnets" => 2 * index(),
            "attentions" => 2 * index() + 1,
            "downsamplers" | "upsamplers" => 1000 + index(),
            part => part.parse().unwrap_or_else(|_| CONSTRUCTION.iter().position(|p| *p == part).unwrap_or(CONSTRUCTION.len())),
        });
    }
    rank
}

/// PyTorch's initial weights, the next numbers of its generator.
fn torch_params(shapes: &Shapes, generator: &mut TorchGenerator) -> Params {
    let mut names: Vec<&String> = shapes.keys().collect();
    names.sort_by_key(|name| rank(name));
    let mut params = Params::zeros(shapes);
    let mut bound = 0.0f32;
    for name in names {
        let parameter = params.get_mut(name).unwrap();
        let of_norm = name.contains("norm");
        if name.ends_with("weight") {
            bound = (1.0 / (parameter.shape[1..].iter().product::<usize>() as f64).sqrt()) as f32;
        }
        match of_norm {
            true => parameter.values.fill(if name.ends_with("weight") { 1.0 } else { 0.0 }),
            false => parameter.values.fill_with(|| generator.uniform() * (2.0 * bound) - bound),
        }
    }
    params
}

/// What `make` builds, with PyTorch's initial weights.
fn built<T>(generator: &mut TorchGenerator, make: impl Fn(&mut Builder) -> T) -> T {
    let mut recorder = Source::recorder();
    make(&mut recorder.root());
    let params = torch_params(&recorder.shapes, generator);
    make(&mut Source::loader(&params, &Device::flex(), false).root())
}

fn normals<const D: usize>(generator: &mut TorchGenerator, shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(generator.normals(shape.iter().product()), shape), &Device::flex())
}

/// The last nine numbers of the first image's last channel.
fn corner(x: Tensor<4>) -> [f32; 9] {
    let [_, c, h, w] = x.dims();
    let values: Vec<f32> = x.slice([0..1, c - 1..c, h - 3..h, w - 3..w]).into_data().try_to_vec().unwrap();
    values.try_into().unwrap()
}

/// The settings of upstream's block tests: 32 channels, a time embedding of 128, heads of one channel.
fn config() -> UnetConfig {
    UnetConfig {
        block_out_channels: vec![32],
        layers_per_block: 1,
        norm_eps: 1e-6,
        attention_head_dim: Some(1),
        ..UnetConfig::default()
    }
}

/// A block's output in upstream's test: its inputs are drawn first, then its weights.
fn output(module: &str) -> Option<Tensor<4>> {
    let config = &config();
    let generator = &mut TorchGenerator::new(0);
    let resize = |resize| move |b: &mut Builder| Resnet::new(b, &self::config(), 32, 32).resizing(resize);
    let mut resnet = |make: &dyn Fn(&mut Builder) -> Resnet| {
        let (x, time) = (normals(generator, [1, 32, 64, 64]), normals(generator, [1, 128]));
        built(generator, make).forward(x, &activate_embedding(config, time))
    };
    match module {
        "ResnetBlock2D(32,temb_channels=128)" => return Some(resnet(&resize(Resize::Keep))),
        "ResnetBlock2D(up=True)" => return Some(resnet(&resize(Resize::Double))),
        "ResnetBlock2D(down=True)" => return Some(resnet(&resize(Resize::Halve))),
        "ResnetBlock2D(use_in_shortcut=True)" => {
            let shortcut = |b: &mut Builder| {
                let block = Resnet::new(b, &self::config(), 32, 32);
                Resnet { conv_shortcut: Some(Conv::new(b, "conv_shortcut", 32, 32, 1)), ..block }
            };
            return Some(resnet(&shortcut));
        }
        "Upsample2D(32,use_conv=True)" => {
            let x = normals(generator, [1, 32, 32, 32]);
            return Some(built(generator, |b| Conv::new(b, "conv", 32, 32, 3)).forward(ops::upsample_nearest2(x)));
        }
        "Downsample2D(32,use_conv=True)" => {
            let x = normals(generator, [1, 32, 64, 64]);
            return Some(built(generator, |b| Conv::strided(b, "conv", [32, 32, 3, 3], 2, [(1, 1); 2])).forward(x));
        }
        _ => {}
    }
    let (x, time) = (normals(generator, [4, 32, 32, 32]), normals(generator, [4, 128]));
    let embedding = activate_embedding(config, time);
    let up = |kind, x, embedding: &Tensor<2>| {
        // One residual block: a stage has one more than the encoder's.
        let config = UnetConfig { layers_per_block: 0, ..self::config() };
        let generator = &mut TorchGenerator::new(1);
        let mut skips = vec![normals(generator, [4, 32, 32, 32])];
        built(generator, |b| Stage::up(b, &config, kind, [32, 32], 32, false)).decode(x, embedding, &mut skips)
    };
    match module {
        "AttnDownBlock2D(in=32,out=32,temb=128)" => {
            let stage = built(generator, |b| Stage::down(b, config, BlockKind::Attention, 32, 32, false));
            Some(stage.encode(x, &embedding, &mut Vec::new()))
        }
        "UNetMidBlock2D(in=32,temb=128)" => Some(built(generator, |b| Middle::new(b, config, 32)).forward(x, &embedding)),
        "UpBlock2D(in=32,prev=32,out=32,temb=128)" => Some(up(BlockKind::Plain, x, &embedding)),
        "AttnUpBlock2D" => Some(up(BlockKind::Attention, x, &embedding)),
        // NCSN++'s, which `UNet2DModel` has and we do not.
        "ResnetBlock2D(kernel='fir',down=True)" | "SkipDownBlock2D" | "AttnSkipDownBlock2D" | "SkipUpBlock2D" => None,
        other => panic!("{other} is not in the table"),
    }
}

#[test]
fn blocks_are_upstreams() {
    let (mut reproduced, mut failures) = (0, Vec::new());
    for pinned in pins().slices {
        let Some(output) = output(&pinned.module) else { continue };
        let off = corner(output).iter().zip(pinned.expected).fold(0.0, |most: f32, (a, b)| most.max((a - b).abs()));
        println!("{}: {off:.1e}", pinned.module);
        match off < pinned.tolerance {
            true => reproduced += 1,
            false => failures.push(format!("{}: {off:.1e}", pinned.module)),
        }
    }
    assert!(failures.is_empty(), "{failures:?}");
    assert_eq!(reproduced, 10);
}

/// `DDPMPipeline`, `DDIMPipeline` and `PNDMPipeline` with their default schedulers, from PyTorch's weights and noise.
#[test]
fn pipelines_are_upstreams() {
    let names = |names: [&str; 2]| names.map(String::from).to_vec();
    for pinned in pins().pipelines {
        let (sampler, widths, layers, groups, side, steps) = match pinned.pipeline.as_str() {
            "DDPMPipeline" => ("ddpm", [4, 8], 1, 4, 8, 2),
            "DDIMPipeline" => ("ddim", [4, 8], 1, 4, 8, 2),
            "PNDMPipeline" => ("pndm", [32, 64], 2, 32, 32, 20),
            other => panic!("{other} is not in the table"),
        };
        let config = UnetConfig {
            block_out_channels: widths.to_vec(),
            layers_per_block: layers,
            norm_num_groups: groups,
            down_block_types: names(["DownBlock2D", "AttnDownBlock2D"]),
            up_block_types: names(["AttnUpBlock2D", "UpBlock2D"]),
            ..UnetConfig::default()
        };
        let params = torch_params(&config.parameter_shapes().unwrap(), &mut TorchGenerator::new(0));
        let unet = Unet::new(&config, &params, &Device::flex(), Tracking::Frozen).unwrap();
        let scheduler = SchedulerConfig::default();
        let denoiser = UnetDenoiser::new(unet, scheduler.schedule().unwrap(), unnoise_core::Prediction::Eps).unwrap();

        let grid = scheduler.grid(sampler, None, steps).unwrap();
        let noise = &mut TorchGenerator::new(0);
        let x = noise.normal(0, Purpose::Start, 1, [3, side, side]);
        let mut sampler = scheduler.sampler(sampler, None, true).unwrap();
        let x = sample(sampler.as_mut(), &denoiser, &grid, x, noise, &mut unobserved).unwrap();
        for (place, expected) in pinned.expected.iter().enumerate() {
            let got = (x[[0, 2, side - 3 + place / 3, side - 3 + place % 3]] / 2.0 + 0.5).clamp(0.0, 1.0);
            assert!((got - expected).abs() < pinned.tolerance, "{} {place}: {got}, expected {expected}", pinned.pipeline);
        }
    }
}

#[test]
fn embeddings_are_upstreams() {
    for pinned in pins().embeddings {
        let config = UnetConfig {
            block_out_channels: vec![64],
            flip_sin_to_cos: pinned.flip_sin_to_cos,
            freq_shift: pinned.downscale_freq_shift,
            ..UnetConfig::default()
        };
        let times: Vec<f64> = (0..128).map(|t| f64::from(t) * pinned.scale).collect();
        let rows = sinusoids(&times, &config, &Device::flex()).slice([23..26, 47..50]);
        let values: Vec<f32> = rows.into_data().try_to_vec().unwrap();
        for (got, expected) in values.iter().zip(pinned.expected) {
            assert!((f64::from(*got) - expected).abs() < 1e-3, "{got}, expected {expected}");
        }
    }
}
