//! `unnoise simulate`: an image to a measurement.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use unnoise::MeasuredImage;
use unnoise::core::OperatorSpec;
use unnoise::io::{Channels, Fit, Format, Limits, ReadOptions, read_images, read_operator};

use crate::args::Common;
use crate::output::{check, report};

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

    /// Standard deviation of the noise, for pixels in [0, 1]; 0 for none.
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
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
    let overwrite = check(&args.output, &[Format::Npz], args.force)?;
    args.common.open()?;
    let started = Instant::now();
    let spec: OperatorSpec = args.operator.parse().with_context(|| format!("--operator {}", args.operator))?;
    let config = read_operator(spec, Limits::default())?;
    let options = ReadOptions {
        channels: if args.gray { Channels::Gray } else { Channels::AsStored },
        fit: args.side.map_or(Fit::default(), Fit::CropResize),
        ..ReadOptions::default()
    };
    let images = read_images(&args.image, options)?;
    let n = images.dim().0;
    ensure!(args.index < n, "--index must be below {n}, the number of images in {}, got {}", args.image.display(), args.index);
    let image = images.select(ndarray::Axis(0), &[args.index]);
    let (seed, keep_truth) = (args.common.seed(), !args.no_truth);
    let measured = MeasuredImage::simulate(&image, config, args.sigma_y, seed, keep_truth)?;
    measured.write(&args.output, overwrite)?;
    let summary = json!({
        "output": args.output, "operator": measured.spec().to_string(), "image": measured.operator().input_shape(),
        "y": measured.operator().output_shape(), "measured": measured.operator().measured(), "sigma_y": measured.sigma_y(),
        "range": "[0,1]", "truth": keep_truth, "seed": seed, "seconds": started.elapsed().as_secs_f64(),
    });
    let text = format!(
        "{}: {} values through {}, sigma_y {}",
        args.output.display(),
        measured.operator().measured(),
        measured.spec(),
        measured.sigma_y()
    );
    report(args.common.json, &summary, &text)
}
