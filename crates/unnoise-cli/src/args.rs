//! Options that every command has.

use anyhow::{Context, Result, ensure};
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
