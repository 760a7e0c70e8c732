//! Options that several commands have.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use ndarray::{Axis, Slice};
use unnoise::core::Batch;
use unnoise::io::{Channels, Fit, ReadOptions, read_images};
use unnoise::nn::Device;

/// Options that every command has.
#[derive(clap::Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Common {
    /// Seed of everything random, 0 if not given; the same seed gives the same numbers on every machine.
    #[arg(long)]
    pub(crate) seed: Option<u64>,

    /// Where the network runs: cpu, or a GPU back end that this binary was built with (wgpu, vulkan, metal, cuda, rocm).
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    pub(crate) device: String,

    /// Number of CPU threads; 0 takes every core.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,

    /// On the CPU, sum every convolution as it is defined and not by Winograd's algorithm: slower, to compare with.
    #[arg(long)]
    pub(crate) exact: bool,

    /// Print one JSON object about what was done on stdout, and nothing else there.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Common {
    /// The seed.
    pub(crate) fn seed(&self) -> u64 {
        self.seed.unwrap_or(0)
    }

    /// Starts the threads and opens the device.
    pub(crate) fn open(&self) -> Result<Device> {
        ensure!(self.threads <= 1024, "--threads must be at most 1024, got {}", self.threads);
        rayon::ThreadPoolBuilder::new().num_threads(self.threads).build_global().context("the CPU threads cannot be started")?;
        unnoise::nn::force_exact_convolutions(self.exact);
        Ok(unnoise::nn::open_device(&self.device)?)
    }
}

/// Images of a file.
#[derive(clap::Args)]
pub(crate) struct Images {
    /// The images: PNG, JPEG, .npy or .npz with pixels in [0, 1] or of 8 bits.
    #[arg(long, visible_alias = "data", value_name = "FILE")]
    pub(crate) image: PathBuf,

    /// The first image of a file that holds several, from 0.
    #[arg(long, value_name = "I", default_value_t = 0)]
    pub(crate) index: usize,

    /// How many images from there; all if not given.
    #[arg(long, value_name = "N")]
    n: Option<usize>,

    /// Convert to gray first.
    #[arg(long)]
    gray: bool,

    /// Crop the centre to a square and shrink it to this side first.
    #[arg(long, value_name = "PIXELS")]
    side: Option<usize>,
}

impl Images {
    /// Those asked for, `[n, c, h, w]`, in the network's `[-1, 1]`.
    pub(crate) fn read(&self) -> Result<Batch> {
        let options = ReadOptions {
            channels: if self.gray { Channels::Gray } else { Channels::AsStored },
            fit: self.side.map_or(Fit::default(), Fit::CropResize),
            ..ReadOptions::default()
        };
        let (images, index) = (read_images(&self.image, options)?, self.index);
        let held = images.dim().0;
        ensure!(index < held, "--index must be below {held}, the number of images in {}, got {index}", self.image.display());
        let n = self.n.unwrap_or(held - index);
        ensure!(n > 0 && n <= held - index, "--n must be 1 to {}, the images from --index on, got {n}", held - index);
        Ok(images.slice_axis(Axis(0), Slice::from(index..index + n)).mapv(|v| 2.0 * v - 1.0))
    }
}
