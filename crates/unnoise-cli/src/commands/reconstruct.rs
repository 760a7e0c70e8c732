//! `unnoise reconstruct`: posterior samples of a measured image.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use serde_json::{Map, Value};
use unnoise::io::{Array, OutDir, Overwrite, ResultKind, write_atomic, write_npy};
use unnoise::{GridKind, MeasuredImage, Prior, ReconstructConfig, ReconstructProgress, Reconstruction, reconstruct};

use crate::args::Common;
use crate::output::{count, in_place, print};
use crate::summary::summary;
use crate::{interrupt, progress};

/// Reconstruct a measured image: samples of the posterior, their mean and deviation, and whether they explain the measurement.
///
/// Without options, a held-out digit of which a 12x12 box is missing is filled in with the built-in prior. A measurement file is
/// made by `unnoise simulate`, or by your own program: `unnoise inspect` says what is in one.
///
/// Ctrl-C ends the run within a step and keeps the batches of samples that are finished.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Model directory (diffusers' layout); the built-in prior of handwritten digits if not given.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,

    /// The class, for a network that has classes.
    #[arg(long, value_name = "CLASS")]
    class: Option<usize>,

    /// Measurement file (.npz); the built-in digit if not given.
    #[arg(long, value_name = "FILE")]
    measurement: Option<PathBuf>,

    /// Posterior method: dps, pigdm, mmps, ddnm-plus, diffpir or tds.
    #[arg(long, value_name = "NAME", default_value = "ddnm-plus")]
    method: String,

    /// A setting of the method, as KEY=VALUE; may be repeated. A key that does not exist is answered with those that do.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    settings: Vec<(String, Value)>,

    /// Number of posterior samples.
    #[arg(long, value_name = "N", default_value_t = 19)]
    samples: usize,

    /// Steps of each sample.
    #[arg(long, value_name = "N", default_value_t = 50)]
    steps: usize,

    /// Where the steps are placed: uniform (in time), shifted, beta, leading, linspace, trailing, karras, exponential, poly-exponential, log-snr or
    /// lu, with parameters such as karras:rho=5, or listed, as in times:1,0.5,0.1 or sigmas:80,5,0.1.
    #[arg(long, value_name = "NAME", default_value = "uniform")]
    grid: String,

    /// Samples that are drawn at a time: memory, speed, and what Ctrl-C keeps; not the result.
    #[arg(long, value_name = "N", default_value_t = ReconstructConfig::default().batch)]
    batch: usize,

    /// Directory of the results.
    #[arg(long, value_name = "DIR", default_value = "unnoise-out")]
    out: PathBuf,

    /// Replace an earlier result in the same directory; one that holds anything else is left alone.
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    common: Common,
}

/// The files of a result; `truth.npy` is there if the truth is known.
const FILES: [&str; 7] = ["panel.png", "report.json", "measurement.npz", "samples.npy", "mean.npy", "deviation.npy", "truth.npy"];
/// How an earlier result is known.
const RESULT: ResultKind =
    ResultKind { marker: "report.json", keys: &["method", "samples", "unnoise"], owns: |name| FILES.contains(&name) };

/// Does it.
pub(crate) fn run(args: Args) -> Result<()> {
    let out = OutDir::create(&args.out, RESULT, Overwrite::from_flag(args.force))?;
    let device = args.common.open()?;
    let measured = match &args.measurement {
        Some(path) => MeasuredImage::read(path)?,
        None => MeasuredImage::built_in()?,
    };
    super::warn_of_units(&measured)?;
    let [_, h, w] = measured.operator().input_shape();
    let prior = match &args.model {
        Some(directory) => Prior::load_for(directory, [h, w], &device)?,
        None => Prior::digits(&device)?,
    };
    super::check_class(prior.network().unet().config(), prior.null_class(), args.class)?;
    let prior = prior.with_label(args.class);
    let config = ReconstructConfig {
        method: args.method,
        settings: settings(args.settings)?,
        samples: args.samples,
        steps: args.steps,
        grid: GridKind::by_name(&args.grid)?,
        seed: args.common.seed(),
        batch: args.batch,
    };
    interrupt::catch()?;
    let bar = progress::bar("sampling", (args.samples.saturating_mul(args.steps)) as u64);
    let samples = count(args.samples, "sample");
    let mut logged = None;
    let mut observer = |p: &ReconstructProgress| {
        // Before the first evaluation, and after each batch.
        if logged.replace(p.samples_done) != Some(p.samples_done) {
            progress::log(&bar, || format!("{} of {samples} done", p.samples_done));
        }
        bar.set_position((p.samples_done * p.steps + p.samples_active * p.step) as u64);
        bar.set_message(format!("{} of {samples} done", p.samples_done));
        interrupt::go_on()
    };
    let result = reconstruct(&prior, &measured.measurement()?, measured.truth(), &config, &mut observer);
    bar.finish_and_clear();
    let result = result.map_err(|error| interrupt::stopped(error, "no batch of samples was finished, and nothing was written"))?;
    write(&result, &measured, &out)?;
    let directory = out.finish()?;
    if args.common.json {
        print(&format!("{}\n", serde_json::to_string(&result.report)?))?;
    } else {
        let written = FILES.into_iter().filter(|name| directory.join(name).exists()).collect::<Vec<_>>().join(", ");
        print(&format!("{}  written to     {}/: {written}\n", summary(&result.report)?, directory.display()))?;
    }
    let done = result.report.samples;
    ensure!(done == args.samples, "stopped: {done} of {samples} were finished and are in {}", directory.display());
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
    let write_all = || -> Result<()> {
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
    };
    write_all().map_err(|error| in_place(out, error))
}

fn setting(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.into(), serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.into()))))
}

fn settings(pairs: Vec<(String, Value)>) -> Result<Value> {
    let mut settings = Map::new();
    for (key, value) in pairs {
        if settings.insert(key.clone(), value).is_some() {
            bail!("--set {key} is given twice");
        }
    }
    Ok(Value::Object(settings))
}
