//! On the CPU an image's output and its gradient have the same bits in any batch and on any number of threads.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use unnoise_core::{Noise, Purpose, Streams};
use unnoise_nn::{DiffusionModel, Tracking, Unet, with_gradient_checkpointing};

const IMAGES: usize = 7;

fn tensor(x: &[f32], shape: [usize; 4], device: &Device) -> Tensor<4> {
    Tensor::from_data(TensorData::new(x.to_vec(), shape), device)
}

/// The output for images `x`, and the gradient of its sum of squares by them.
fn run(unet: &Unet, x: &[f32], [c, h, w]: [usize; 3], timesteps: &[f64]) -> [Vec<f32>; 2] {
    let shape = [timesteps.len(), c, h, w];
    let x = tensor(x, shape, &Device::flex().autodiff()).require_grad();
    let y = unet.forward(x.clone(), timesteps, None).unwrap();
    let gradient = x.grad(&y.clone().square().sum().backward()).unwrap();
    [y.inner(), gradient].map(|t| t.into_data().try_to_vec().unwrap())
}

#[test]
fn an_image_does_not_depend_on_its_batch_or_the_threads() {
    let mut report = String::new();
    for (name, side) in [("ddpm", 24), ("ddpm", 8), ("adm", 28), ("attention-resnet", 8), ("plain", 40), ("odd", 12)] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/unet").join(name);
        let model = DiffusionModel::read(&folder).unwrap();
        let unet = model.unet(&Device::flex(), Tracking::Frozen).unwrap();
        let shape = [model.config.in_channels, side, side];
        let x = Streams::new(5, 0..IMAGES as u32)
            .normal(0, Purpose::Auxiliary, IMAGES, shape)
            .mapv(|v| v as f32)
            .into_raw_vec_and_offset()
            .0;
        let timesteps: Vec<f64> = (0..IMAGES).map(|i| 130.0 * i as f64 + 3.0).collect();
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let all = pool(1).install(|| run(&unet, &x, shape, &timesteps));
        for threads in [2, 3] {
            if pool(threads).install(|| run(&unet, &x, shape, &timesteps)) != all {
                report += &format!("{name} at {side}: {threads} threads give other bits than one\n");
            }
        }
        let size: usize = shape.iter().product();
        for part in [2..3, 4..7] {
            let few = run(&unet, &x[part.start * size..part.end * size], shape, &timesteps[part.clone()]);
            for (what, few, all) in [("output", &few[0], &all[0]), ("gradient", &few[1], &all[1])] {
                let each = all.len() / IMAGES;
                if few[..] != all[part.start * each..part.end * each] {
                    report += &format!("{name} at {side}: the {what} of images {part:?} has other bits without the rest\n");
                }
            }
        }
    }
    assert!(report.is_empty(), "{report}");
}

/// So many pixels that kernels sum their gradients in parts.
#[test]
fn training_gradients_do_not_depend_on_the_threads() {
    for (name, n, side) in [("ddpm", 16, 32), ("adm", 9, 28)] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/unet").join(name);
        let model = DiffusionModel::read(&folder).unwrap();
        let shape = [model.config.in_channels, side, side];
        let x: Vec<f32> = Streams::new(5, 0..n as u32).normal(0, Purpose::Auxiliary, n, shape).iter().map(|v| *v as f32).collect();
        let timesteps: Vec<f64> = (0..n).map(|i| 50.0 * i as f64 + 3.0).collect();
        let gradients = [1, 2, 3].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let unet = model.unet(&Device::flex(), Tracking::Trained).unwrap();
                let x = tensor(&x, [n, shape[0], side, side], &Device::flex().autodiff());
                unet.gradients(&unet.forward(x, &timesteps, None).unwrap().square().sum().backward()).unwrap()
            })
        });
        assert!(gradients[0] == gradients[1] && gradients[0] == gradients[2], "{name}");
    }
}

#[test]
fn gradient_checkpointing_changes_no_bit() {
    for (name, side) in [("ddpm", 24), ("adm", 28), ("attention-resnet", 8)] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/unet").join(name);
        let model = DiffusionModel::read(&folder).unwrap();
        let (c, n) = (model.config.in_channels, 2);
        let x: Vec<f32> =
            Streams::new(5, 0..n as u32).normal(0, Purpose::Auxiliary, n, [c, side, side]).iter().map(|v| *v as f32).collect();
        let gradients = [Device::flex(), with_gradient_checkpointing(Device::flex())].map(|device| {
            let unet = model.unet(&device, Tracking::Trained).unwrap();
            let x = tensor(&x, [n, c, side, side], &device.autodiff()).require_grad();
            let gradients = unet.forward(x.clone(), &[30.0, 700.0], None).unwrap().square().sum().backward();
            let dx: Vec<f32> = x.grad(&gradients).unwrap().into_data().try_into_vec().unwrap();
            (dx, unet.gradients(&gradients).unwrap())
        });
        assert!(gradients[0] == gradients[1], "{name}");
    }
}
