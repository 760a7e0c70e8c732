//! `unnoise samplers` and `unnoise explain`: what there is to sample with.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::json;
use unnoise::core::{SAMPLERS, sampler_info};

use crate::output::print;

/// List the samplers: order of accuracy, whether stochastic, network evaluations a step, the schedules and grids that they walk, and their source.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print one JSON array on stdout.
    #[arg(long)]
    json: bool,
}

/// Does it.
pub(crate) fn run(args: Args) -> Result<()> {
    if args.json {
        let rows: Vec<_> = SAMPLERS
            .iter()
            .map(|info| {
                json!({
                    "name": info.name, "title": info.title(), "order": info.order, "stochastic": info.stochastic,
                    "evaluations_per_step": info.evaluations, "schedules": info.schedules(), "grids": info.grids, "options": info.options, "reference": info.reference(),
                })
            })
            .collect();
        return print(&format!("{}\n", serde_json::Value::from(rows)));
    }
    let width = SAMPLERS.iter().map(|info| info.name.len()).max().unwrap_or(0);
    let cells =
        |info: &unnoise::core::SamplerInfo| [info.order.len(), info.evaluations.len(), info.schedules().len(), info.grids.len()];
    let widths = SAMPLERS.iter().map(cells).fold([5, 11, 9, 5], |a, b| [0, 1, 2, 3].map(|i| a[i].max(b[i])));
    let mut text = String::new();
    let mut line = |name: &str, order: &str, noise: &str, evaluations: &str, schedules: &str, grids: &str, source: &str| {
        let [o, e, s, g] = widths;
        writeln!(text, "{name:<width$}  {order:<o$}  {noise:<10}  {evaluations:<e$}  {schedules:<s$}  {grids:<g$}  {source}")
    };
    line("NAME", "ORDER", "NOISE", "EVALUATIONS", "SCHEDULES", "GRIDS", "SOURCE")?;
    for info in SAMPLERS {
        let noise = if info.stochastic { "stochastic" } else { "none" };
        line(info.name, info.order, noise, info.evaluations, info.schedules(), info.grids, &info.reference())?;
    }
    print(&(text + "\nEvaluations are of the network, a step. `unnoise explain NAME` prints the update.\n"))
}

/// Print what a sampler does in a step, and where that was published.
#[derive(clap::Args)]
pub(crate) struct ExplainArgs {
    /// The sampler's name, as `unnoise samplers` lists it.
    #[arg(value_name = "SAMPLER")]
    sampler: String,
}

/// Does it.
pub(crate) fn explain(args: ExplainArgs) -> Result<()> {
    let info = sampler_info(&args.sampler)?;
    let noise = if info.stochastic { "stochastic" } else { "deterministic" };
    print(&format!(
        "{}\n\n{}\n\norder {}; {noise}; evaluations a step: {}; schedules: {}; grids: {}; options: {}\n",
        info.name,
        info.explanation(),
        info.order,
        info.evaluations,
        info.schedules(),
        info.grids,
        if info.options.is_empty() { "none".into() } else { info.options.join(", ") }
    ))
}
