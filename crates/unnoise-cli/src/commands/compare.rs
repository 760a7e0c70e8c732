//! `unnoise compare`: samplers beside each other.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use ndarray::{Array3, Axis, concatenate};
use serde_json::json;
use unnoise::core::{Batch, SAMPLERS};
use unnoise::io::{Cell, OutDir, Overwrite, Range, ResultKind, panel, write_atomic};
use unnoise::{CompareConfig, Compared, Comparison, GridKind, Prior, compare};

use crate::args::Common;
use crate::output::{count, in_place, print};
use crate::{interrupt, progress};

/// Draw the same images with several samplers, at several numbers of network evaluations, and measure how far each is from the exact solution.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Model directory (diffusers' layout); the built-in prior of handwritten digits if not given.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,

    /// Samplers, separated by commas, or `all`; `unnoise samplers` lists them.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "ddim,heun,dpmpp-2m,unipc,deis,ddpm")]
    samplers: Vec<String>,

    /// Network evaluations of an image, separated by commas.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', default_value = "5,10,20,50")]
    evaluations: Vec<usize>,

    /// Where all of them place their steps: uniform, log-snr, karras:rho=7, ...; log-snr if not given, or uniform for a model that starts
    /// without signal.
    #[arg(long, value_name = "NAME")]
    grid: Option<String>,

    /// Number of images.
    #[arg(long, value_name = "N", default_value_t = 4)]
    n: usize,

    /// Steps of the solution that is taken as exact, by Heun's method.
    #[arg(long, value_name = "N", default_value_t = 200)]
    reference_steps: usize,

    /// The class, for a network that has classes.
    #[arg(long, value_name = "CLASS")]
    class: Option<usize>,

    /// Directory of the result: sheet.png, distances.csv, compare.json.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Replace an earlier result in the same directory; one that holds anything else is left alone.
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    common: Common,
}

const FILES: [&str; 3] = ["sheet.png", "distances.csv", "compare.json"];
const RESULT: ResultKind =
    ResultKind { marker: "compare.json", keys: &["grid", "reference_steps", "runs"], owns: |name| FILES.contains(&name) };

/// Does it.
pub(crate) fn run(args: Args) -> Result<()> {
    let out = OutDir::create(&args.out, RESULT, Overwrite::from_flag(args.force))?;
    ensure!(
        (1..=10_000).contains(&args.reference_steps),
        "--reference-steps must be from 1 to 10000, got {}",
        args.reference_steps
    );
    let device = args.common.open()?;
    let prior = match &args.model {
        Some(directory) => Prior::load(directory, &device)?,
        None => Prior::digits(&device)?,
    };
    super::check_class(prior.network().unet().config(), prior.null_class(), args.class)?;
    let prior = prior.with_label(args.class);
    let samplers = match args.samplers.as_slice() {
        [all] if all == "all" => SAMPLERS.iter().filter(|info| info.draws()).map(|info| info.name.to_owned()).collect(),
        _ => args.samplers.clone(),
    };
    let config = CompareConfig {
        samplers,
        evaluations: args.evaluations,
        grid: args.grid.as_deref().map(GridKind::by_name).transpose()?,
        n: args.n,
        seed: args.common.seed(),
        reference_steps: args.reference_steps,
    };
    interrupt::catch()?;
    let runs = 1 + config.samplers.len() * config.evaluations.len();
    let bar = progress::bar("comparing", runs as u64);
    let mut last = None;
    let comparison = compare(&prior, &config, &mut |number, _| {
        if last.replace(number) != Some(number) {
            bar.set_position(number as u64);
            progress::log(&bar, || format!("{number} of {runs} done"));
        }
        interrupt::go_on()
    });
    bar.finish_and_clear();
    let comparison = comparison.map_err(|error| interrupt::stopped(error, "no run was finished, and nothing was written"))?;
    let done = comparison.runs.len();
    let summary = json!({
        "model": prior.name(), "weights_sha256": prior.weights_sha256(), "grid": comparison.grid.to_string(), "images": config.n,
        "seed": config.seed, "reference_steps": config.reference_steps, "finished": comparison.ended.is_none(), "runs": comparison.runs,
    });
    let written = || -> Result<()> {
        sheet(&comparison, &config).write(&out.file("sheet.png"), Overwrite::Never)?;
        let table = csv(&comparison.runs)?;
        write_atomic(&out.file("distances.csv"), Overwrite::Never, |file| file.write_all(table.as_bytes()))?;
        let text = serde_json::to_string_pretty(&summary)? + "\n";
        write_atomic(&out.file("compare.json"), Overwrite::Never, |file| file.write_all(text.as_bytes()))?;
        Ok(())
    };
    written().map_err(|error| in_place(&out, error))?;
    let directory = out.finish()?;
    if args.common.json {
        print(&format!("{summary}\n"))?;
    } else {
        let images = count(config.n, "image");
        let table = table(&comparison, &config)?;
        print(&format!("{table}\n{images} a run; written to {}/: {}\n", directory.display(), FILES.join(", ")))?;
    }
    match comparison.ended {
        Some(error) => bail!("{error}: {} written to {}", count(done, "finished run"), directory.display()),
        None => Ok(()),
    }
}

/// A row a sampler, a column a budget, the reference first; the images of a run beside each other.
fn sheet(comparison: &Comparison, config: &CompareConfig) -> unnoise::io::Picture {
    let reference = |title: &str| Cell::new(title, strip(&comparison.reference).view(), Range::Symmetric);
    let mut rows = vec![vec![reference("reference").with_note(format!("heun, {} steps", config.reference_steps))]];
    // Hatched.
    let nothing = Array3::from_elem(strip(&comparison.reference).raw_dim(), f64::NAN);
    for name in &config.samplers {
        let cell = |budget: &usize| match find(&comparison.runs, name, *budget) {
            Some(run) => {
                let note = run.distance.map_or("stochastic".into(), |distance| format!("distance {distance:.3}"));
                Cell::new(format!("{name} {:.0}", run.evaluations), strip(&run.images).view(), Range::Symmetric).with_note(note)
            }
            None => {
                let had_its_turn = had_its_turn(comparison, config, name, *budget);
                let note = if had_its_turn { format!("none within {budget}") } else { "not run".into() };
                Cell::new(name, nothing.view(), Range::Symmetric).with_note(note)
            }
        };
        rows.push(config.evaluations.iter().map(cell).collect());
    }
    let scale = (160 / comparison.reference.dim().2.max(1)).clamp(1, 2);
    panel(&rows, Some(scale))
}

/// At most six images beside each other.
fn strip(images: &Batch) -> Array3<f64> {
    let views: Vec<_> = images.axis_iter(Axis(0)).take(6).collect();
    concatenate(Axis(2), &views).unwrap_or_default()
}

/// Whether the turn of a run came before the comparison ended.
fn had_its_turn(comparison: &Comparison, config: &CompareConfig, sampler: &str, budget: usize) -> bool {
    let turn = |sampler: &str, budget: usize| {
        let row = config.samplers.iter().position(|name| name == sampler);
        row.zip(config.evaluations.iter().position(|other| *other == budget))
    };
    let last = comparison.runs.last().and_then(|run| turn(run.sampler, run.budget));
    comparison.ended.is_none() || turn(sampler, budget) < last
}

fn find<'a>(runs: &'a [Compared], sampler: &str, budget: usize) -> Option<&'a Compared> {
    runs.iter().find(|run| run.sampler == sampler && run.budget == budget)
}

fn csv(runs: &[Compared]) -> Result<String> {
    let mut text = String::from("sampler,budget,steps,tolerance,evaluations,distance\n");
    for run in runs {
        let [tolerance, distance] =
            [run.tolerance, run.distance].map(|value| value.map_or(String::new(), |value| value.to_string()));
        writeln!(text, "{},{},{},{tolerance},{},{distance}", run.sampler, run.budget, run.steps, run.evaluations)?;
    }
    Ok(text)
}

fn table(comparison: &Comparison, config: &CompareConfig) -> Result<String> {
    let width = config.samplers.iter().map(String::len).max().unwrap_or(0).max(11);
    let mut text = String::new();
    write!(text, "{:<width$}", "evaluations")?;
    for budget in &config.evaluations {
        write!(text, "  {budget:>9}")?;
    }
    writeln!(text)?;
    for name in &config.samplers {
        write!(text, "{name:<width$}")?;
        for budget in &config.evaluations {
            let distance = match find(&comparison.runs, name, *budget) {
                Some(run) => run.distance.map_or("stochastic".into(), |distance| format!("{distance:.4}")),
                None if had_its_turn(comparison, config, name, *budget) => "-".into(),
                None => "not run".into(),
            };
            write!(text, "  {distance:>9}")?;
        }
        writeln!(text)?;
    }
    Ok(text + "Distance: root mean square from the reference, pixels in [-1, 1].")
}
