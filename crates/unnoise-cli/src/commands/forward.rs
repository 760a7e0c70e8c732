//! `unnoise forward`: an image, noised step by step.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use ndarray::{Axis, concatenate};
use serde_json::json;
use unnoise::core::{Batch, Noise, Purpose, Streams, element_shape};
use unnoise::io::{Channels, Fit, Format, Range, ReadOptions, SheetConfig, read_images, sheet, write_images};

use crate::args::Common;
use crate::output::{check, report};

/// Noise an image as diffusion's forward process does, at a few levels side by side.
///
/// At the level 1 - alpha_bar = L, the picture shows sqrt(1 - L) x0 + sqrt(L) eps with x0 and eps in [0, 1] pixels.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The image: PNG, JPEG, .npy or .npz with pixels in [0, 1].
    #[arg(long, value_name = "FILE")]
    image: PathBuf,

    /// The levels 1 - alpha_bar, each in [0, 1].
    #[arg(long, value_name = "L", value_delimiter = ',', allow_negative_numbers = true, default_value = "0.05,0.20,0.45,0.70")]
    levels: Vec<f64>,

    /// Crop the centre to a square and shrink it to this side first.
    #[arg(long, value_name = "PIXELS")]
    side: Option<usize>,

    /// Convert to gray first.
    #[arg(long)]
    gray: bool,

    /// The strip: a picture, or an array [levels, c, h, w] in [0, 1], not clipped.
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
    let overwrite = check(&args.output, &Format::ALL, args.force)?;
    args.common.open()?;
    let started = Instant::now();
    let bad = args.levels.iter().find(|level| !(0.0..=1.0).contains(*level));
    ensure!(bad.is_none(), "--levels must be in [0, 1], got {}", bad.unwrap_or(&0.0));
    let options = ReadOptions {
        channels: if args.gray { Channels::Gray } else { Channels::AsStored },
        fit: args.side.map_or(Fit::default(), Fit::CropResize),
        ..ReadOptions::default()
    };
    let x0 = read_images(&args.image, options)?;
    ensure!(x0.dim().0 == 1, "{} holds {} images; the strip is of one", args.image.display(), x0.dim().0);
    let mut streams = Streams::new(args.common.seed(), 0..1);
    let noisy: Vec<Batch> = args
        .levels
        .iter()
        .enumerate()
        .map(|(i, level)| {
            let eps = streams.normal(i, Purpose::Auxiliary, 1, element_shape(&x0));
            (1.0 - level).sqrt() * &x0 + level.sqrt() * eps
        })
        .collect();
    let views: Vec<_> = noisy.iter().map(|part| part.view()).collect();
    let strip = concatenate(Axis(0), &views)?;
    if Format::of(&args.output)? == Format::Png {
        sheet(&strip, Range::Unit, SheetConfig { columns: Some(strip.dim().0), scale: None }).write(&args.output, overwrite)?;
    } else {
        write_images(&args.output, &strip, Range::Unit, overwrite)?;
    }
    let summary = json!({
        "output": args.output, "shape": strip.shape(), "levels": args.levels, "range": "[0,1]", "seed": args.common.seed(),
        "seconds": started.elapsed().as_secs_f64(),
    });
    report(args.common.json, &summary, &format!("{}: 1 - alpha_bar = {:?}", args.output.display(), args.levels))
}
