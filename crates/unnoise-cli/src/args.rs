//! Options that every command has.

use anyhow::{Context, Result, ensure};
use unnoise::nn::Device;

/// Options that every command has.
#[derive(clap::Args)]
pub(crate) struct Common {
    /// Seed of everything random; the same seed gives the same numbers on every machine.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,

    /// Where the network runs: cpu, or a GPU back end that this binary was built with (wgpu, vulkan, metal, cuda, rocm).
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    pub(crate) device: String,

    /// Number of CPU threads; 0 takes every core.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,

    /// On the CPU, sum every convolution as it is defined and not by Winograd's algorithm: slower, to compare with.
    #[arg(long)]
    pub(crate) exact: bool,
}

impl Common {
    /// Catches Ctrl-C and starts the threads.
    pub(crate) fn start(&self) -> Result<()> {
        ensure!(self.threads <= 1024, "--threads must be at most 1024, got {}", self.threads);
        crate::interrupt::catch()?;
        rayon::ThreadPoolBuilder::new().num_threads(self.threads).build_global().context("the CPU threads cannot be started")
    }

    /// [`start`](Self::start), and opens the device.
    pub(crate) fn open(&self) -> Result<Device> {
        self.start()?;
        unnoise::nn::force_exact_convolutions(self.exact);
        Ok(unnoise::nn::open_device(&self.device)?)
    }
}
