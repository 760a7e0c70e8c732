//! The gradients of a network, for the comparison with PyTorch in `benches/peers/accuracy.py`.
//!
//! ```text
//! network_gradients MODEL TIMESTEP DIR
//! ```
//!
//! Reads `x.npy` and `v.npy`, float32 `[n, c, h, w]`, from the folder, and writes the gradients of `sum(v network(x))`: `dx.npy` by the input, with
//! frozen weights, and `gradients.safetensors` by the parameters.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use ndarray::{Array4, Ix4};
use unnoise_io::{Array, Limits, Overwrite, read_npy, write_npy};
use unnoise_nn::{DiffusionModel, Precision, Tracking};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn read(path: &Path) -> Result<Array4<f32>> {
    let Array::F32(array) = read_npy(path, Limits::default())? else {
        return Err(format!("{} is not float32", path.display()).into());
    };
    Ok(array.into_dimensionality::<Ix4>()?)
}

/// As a tensor whose gradients can be asked for.
fn tensor(array: &Array4<f32>, device: &Device) -> Tensor<4> {
    let (n, c, h, w) = array.dim();
    let data = TensorData::new(array.iter().copied().collect::<Vec<f32>>(), [n, c, h, w]);
    Tensor::from_data(data, &device.clone().autodiff())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, timestep, folder] = &arguments[..] else { return Err("usage: network_gradients MODEL TIMESTEP DIR".into()) };
    let (model, folder) = (DiffusionModel::read(model.as_ref())?, Path::new(folder));
    let (x, v) = (read(&folder.join("x.npy"))?, read(&folder.join("v.npy"))?);
    let timesteps = vec![timestep.parse::<f64>()?; x.dim().0];
    let device = Device::flex();
    for tracking in [Tracking::Frozen, Tracking::Trained] {
        let unet = model.unet(&device, tracking)?;
        let input = tensor(&x, &device).require_grad();
        let gradients = (unet.forward(input.clone(), &timesteps, None)? * tensor(&v, &device)).sum().backward();
        if tracking == Tracking::Trained {
            unet.gradients(&gradients)?.write(&folder.join("gradients.safetensors"), Precision::F32)?;
            continue;
        }
        let dx: Vec<f32> = input.grad(&gradients).ok_or("no gradient by the input")?.into_data().try_to_vec()?;
        let dx = Array4::from_shape_vec(x.dim(), dx)?;
        write_npy(&folder.join("dx.npy"), &Array::F32(dx.into_dyn()), Overwrite::Force)?;
    }
    Ok(())
}
