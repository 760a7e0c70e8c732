//! Where networks run.

pub use burn::tensor::Device;

use crate::{Error, Result};

/// The same device, on which training computes cheap activations (normalisations, joined channels) again when their gradient needs them,
/// instead of keeping them all: less memory, a little more time, the same numbers.
///
/// # Reference
/// Chen, Xu, Zhang, Guestrin, "Training deep nets with sublinear memory cost" (2016), arXiv:1604.06174.
pub fn with_gradient_checkpointing(device: Device) -> Device {
    device.autodiff().gradient_checkpointing()
}

/// The device of this name: `cpu`, or a GPU back end that was built in with the feature of the same name (`wgpu`, `vulkan`, `metal`,
/// `cuda`, `rocm`).
///
/// # Errors
/// [`Error::NotSupportedYet`] for any other name, with those that this build serves.
pub fn open_device(name: &str) -> Result<Device> {
    match name {
        "cpu" => Ok(Device::flex()),
        #[cfg(feature = "wgpu")]
        "wgpu" => Ok(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "vulkan")]
        "vulkan" => Ok(Device::vulkan(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "metal")]
        "metal" => Ok(Device::metal(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "cuda")]
        "cuda" => Ok(Device::cuda(0)),
        #[cfg(feature = "rocm")]
        "rocm" => Ok(Device::rocm(0)),
        _ => {
            let built_in = [
                ("cpu", true),
                ("wgpu", cfg!(feature = "wgpu")),
                ("vulkan", cfg!(feature = "vulkan")),
                ("metal", cfg!(feature = "metal")),
                ("cuda", cfg!(feature = "cuda")),
                ("rocm", cfg!(feature = "rocm")),
            ];
            let names: Vec<_> = built_in.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect();
            Err(Error::NotSupportedYet {
                what: format!("the device '{name}' (features of the build add GPUs: wgpu, vulkan, metal, cuda, rocm)"),
                supported: names.join(", "),
            })
        }
    }
}
