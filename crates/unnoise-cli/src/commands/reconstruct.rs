//! `unnoise reconstruct`: posterior samples of a measured image.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde_json::{Map, Value};
use unnoise::io::{Array, OutDir, Overwrite, write_atomic, write_npy};
use unnoise::{GridKind, MeasuredImage, Prior, ReconstructConfig, ReconstructProgress, Reconstruction, reconstruct};

use crate::args::Common;
use crate::interrupt::stopped;
use crate::output::print;
use crate::{interrupt, progress};

/// Reconstruct a measured image: samples of the posterior, their mean and deviation, and whether they explain the measurement.
///
/// Without options, a held-out digit of which a 12x12 box is missing is filled in with the built-in prior. A measurement file is
/// made by `unnoise simulate`, or by your own program: `unnoise inspect` says what is in one.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Model directory (diffusers' layout); the built-in prior of handwritten digits if not given.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,

    /// Measurement file (.npz); the built-in digit if not given.
    #[arg(long, value_name = "FILE")]
    measurement: Option<PathBuf>,

    /// Posterior method: dps, pigdm, mmps, ddnm-plus, diffpir or tds.
    #[arg(long, value_name = "NAME", default_value = "ddnm-plus")]
    method: String,

    /// A setting of the method, as KEY=VALUE; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    settings: Vec<(String, Value)>,

    /// Number of posterior samples.
    #[arg(long, default_value_t = 19)]
    samples: usize,

    /// Steps of each sample.
    #[arg(long, default_value_t = 50)]
    steps: usize,

    /// Where the steps are placed: uniform (in time), karras or log-snr.
    #[arg(long, value_name = "NAME", default_value = "uniform")]
    grid: String,

    /// Samples that are drawn at a time: memory and speed, not the result.
    #[arg(long, default_value_t = 5)]
    batch: usize,

    /// Directory of the results.
    #[arg(long, value_name = "DIR", default_value = "unnoise-out")]
    out: PathBuf,

    /// Replace an earlier result in the same directory.
    #[arg(long)]
    force: bool,

    /// Print the report as one JSON object on stdout, and nothing else there.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    common: Common,
}

/// Does it.
pub(crate) fn run(args: Args) -> Result<()> {
    let out = OutDir::create(&args.out, "report.json", Overwrite::from_flag(args.force))?;
    let device = args.common.open()?;
    let prior = match &args.model {
        Some(directory) => Prior::load(directory, &device)?,
        None => Prior::digits(&device)?,
    };
    let measured = match &args.measurement {
        Some(path) => MeasuredImage::read(path)?,
        None => MeasuredImage::built_in()?,
    };
    let config = ReconstructConfig {
        method: args.method,
        settings: Value::Object(args.settings.into_iter().collect::<Map<_, _>>()),
        samples: args.samples,
        steps: args.steps,
        grid: GridKind::by_name(&args.grid)?,
        seed: args.common.seed,
        batch: args.batch,
    };
    let bar = progress::bar("sampling", (args.samples * args.steps) as u64);
    let mut observer = |p: &ReconstructProgress| {
        bar.set_position((p.samples_done * p.steps + p.samples_active * p.step) as u64);
        bar.set_message(format!("{} of {} samples done", p.samples_done, p.samples));
        if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let result = reconstruct(&prior, &measured.measurement()?, measured.truth(), &config, &mut observer);
    bar.finish_and_clear();
    let result = result.map_err(|error| stopped(error, "no sample was finished, and nothing was written"))?;
    write(&result, &measured, &out)?;
    let directory = out.finish()?;
    if args.json {
        print(&format!("{}\n", serde_json::to_string(&result.report)?))?;
    } else {
        let written = "panel.png, report.json, measurement.npz, samples.npy, mean.npy, deviation.npy";
        print(&format!("{}  written to     {}/: {written}\n", summary(&result)?, directory.display()))?;
    }
    let (done, asked) = (result.report.samples, args.samples);
    ensure!(done == asked, "stopped: {done} of {asked} samples are in {}", directory.display());
    Ok(())
}

/// Everything that a reconstruction leaves behind; the report last, since it says that the rest is there.
fn write(result: &Reconstruction, measured: &MeasuredImage, out: &OutDir) -> Result<()> {
    let arrays = [
        ("samples", Some(&result.samples)),
        ("mean", Some(&result.mean)),
        ("deviation", Some(&result.deviation)),
        ("truth", measured.truth()),
    ];
    for (name, array) in arrays {
        if let Some(array) = array {
            write_npy(&out.file(format!("{name}.npy")), &Array::from(array.view().into_dyn()), Overwrite::Never)?;
        }
    }
    measured.write(&out.file("measurement.npz"), Overwrite::Never)?;
    result.panel(measured).write(&out.file("panel.png"), Overwrite::Never)?;
    let report = serde_json::to_string_pretty(&result.report)? + "\n";
    write_atomic(&out.file("report.json"), Overwrite::Never, |file| file.write_all(report.as_bytes()))?;
    Ok(())
}

fn summary(result: &Reconstruction) -> Result<String> {
    let r = &result.report;
    let mut text = String::new();
    writeln!(text, "{} posterior samples by {} ({}), {} steps each", r.samples, r.method, r.target, r.steps)?;
    writeln!(text, "  measurement    {} values through {}, sigma_y {}", r.measured, r.operator, r.sigma_y)?;
    if let Some(chi) = &r.chi_square {
        let mean = chi.iter().sum::<f64>() / chi.len() as f64;
        let (low, high) = chi.iter().fold((f64::INFINITY, 0_f64), |(low, high), v| (low.min(*v), high.max(*v)));
        writeln!(
            text,
            "  chi-square     {mean:.3} ({low:.3} to {high:.3}); a posterior sample shows 1 +- {:.3}",
            r.chi_square_deviation
        )?;
    }
    writeln!(text, "  deviation      {:.4} on average over pixels in [0, 1]", r.mean_deviation)?;
    if let (Some(psnr), Some(ssim)) = (r.psnr, r.ssim) {
        writeln!(text, "  mean vs truth  PSNR {psnr:.2} dB, SSIM {ssim:.3}")?;
    }
    let per_sample = r.evaluations.forward as f64 / r.samples.max(1) as f64;
    writeln!(
        text,
        "  cost           {:.1} s; a sample took {per_sample:.0} network evaluations and {:.0} vector-Jacobian products",
        r.seconds,
        r.evaluations.adjoint as f64 / r.samples.max(1) as f64
    )?;
    Ok(text)
}

fn setting(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.into(), serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.into()))))
}
