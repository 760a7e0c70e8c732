//! `unnoise simulate`: an image to a measurement.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use unnoise::MeasuredImage;
use unnoise::io::{Channels, Fit, Limits, Overwrite, ReadOptions, read_images, read_operator};

use crate::args::Common;

/// Measure an image: y = A x + noise, written with the operator to a measurement file (.npz).
///
/// Pixels, y and sigma_y are in [0, 1].
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The image: PNG, JPEG, .npy or .npz with pixels in [0, 1].
    #[arg(long, value_name = "FILE")]
    image: PathBuf,

    /// Which image of a file that holds several, from 0.
    #[arg(long, value_name = "I", default_value_t = 0)]
    index: usize,

    /// The operator, such as box:12, mask:random,keep=0.3, blur:gaussian,sigma=1.5, blur:motion,length=7,angle=30, blur:FILE,
    /// downsample:4,kernel=bicubic, dense:FILE or identity.
    #[arg(long, value_name = "SPEC")]
    operator: String,

    /// Standard deviation of the noise, for pixels in [0, 1].
    #[arg(long, value_name = "S")]
    sigma_y: f64,

    /// Convert to gray first.
    #[arg(long)]
    gray: bool,

    /// Crop the centre to a square and shrink it to this side first.
    #[arg(long, value_name = "PIXELS")]
    side: Option<usize>,

    /// Leave the true image out of the file.
    #[arg(long)]
    no_truth: bool,

    /// Measurement file (.npz).
    #[arg(long, value_name = "FILE")]
    output: PathBuf,

    /// Replace the output file if it exists.
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    common: Common,
}

/// Does it.
pub(crate) fn run(args: Args) -> Result<()> {
    args.common.start()?;
    ensure!(args.output.extension().is_some_and(|e| e == "npz"), "the output must be an .npz file, got {}", args.output.display());
    let config = read_operator(args.operator.parse()?, Limits::default())?;
    let options = ReadOptions {
        channels: if args.gray { Channels::Gray } else { Channels::AsStored },
        fit: args.side.map_or(Fit::default(), Fit::CropResize),
        ..ReadOptions::default()
    };
    let images = read_images(&args.image, options)?;
    let n = images.dim().0;
    ensure!(args.index < n, "--index must be below {n}, the number of images in {}, got {}", args.image.display(), args.index);
    let image = images.select(ndarray::Axis(0), &[args.index]);
    let measured = MeasuredImage::simulate(&image, config, args.sigma_y, args.common.seed, !args.no_truth)?;
    measured.write(&args.output, Overwrite::from_flag(args.force))?;
    eprintln!(
        "{}: {} values through {}, sigma_y {}",
        args.output.display(),
        measured.operator().measured(),
        measured.spec(),
        measured.sigma_y()
    );
    Ok(())
}
