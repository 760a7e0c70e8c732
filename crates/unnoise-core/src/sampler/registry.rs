//! Samplers by name.

use super::{
    Grid, Interval, Sampler, SamplerOptions, adams, ddim, ddim_inverse, ddpm, dpm_adaptive, dpm_multistep, dpm_singlestep,
    dpm_solver, dpmpp_2s_a, dpmpp_multistep_sde, dpmpp_sde, edm, euler, euler_a, euler_maruyama, flow_euler, flow_heun, heun,
    ipndm, kdpm2, kdpm2_a, langevin, midpoint, pc, pndm, rk4, rk45, sa_solver, seeds, unipc,
};
use crate::{Error, Result};

/// Every sampler, kind by kind.
pub const SAMPLERS: &[SamplerInfo] = &[
    ddpm::INFO,
    ddim::INFO,
    euler::INFO,
    heun::INFO,
    edm::INFO,
    adams::LMS,
    adams::DEIS,
    adams::DEIS_T,
    pndm::PNDM,
    pndm::PLMS,
    ipndm::INFO,
    dpm_multistep::DPM_2M,
    dpm_multistep::DPM_3M,
    dpm_multistep::DPMPP_2M,
    dpm_multistep::DPMPP_3M,
    unipc::UNIPC,
    unipc::UNIPC_BH1,
    midpoint::INFO,
    rk4::INFO,
    kdpm2::INFO,
    dpm_solver::FIRST,
    dpm_solver::SECOND,
    dpm_solver::THIRD,
    dpm_singlestep::SECOND,
    dpm_singlestep::THIRD,
    rk45::INFO,
    dpm_adaptive::INFO,
    flow_euler::INFO,
    flow_heun::INFO,
    ddim_inverse::INFO,
    euler_a::INFO,
    kdpm2_a::INFO,
    dpmpp_2s_a::INFO,
    dpmpp_sde::INFO,
    dpmpp_multistep_sde::DPMPP_2M_SDE,
    dpmpp_multistep_sde::DPMPP_3M_SDE,
    sa_solver::INFO,
    seeds::SEEDS_1,
    seeds::SEEDS_2,
    seeds::SEEDS_3,
    euler_maruyama::INFO,
    pc::PC,
    pc::PC_ANCESTRAL,
    langevin::INFO,
];

/// What is known of a sampler before it runs.
#[derive(Clone, Copy, Debug)]
pub struct SamplerInfo {
    /// Its name on the command line, the field's own.
    pub name: &'static str,
    /// The order of its global error (of its weak error, if it is stochastic) in the length of its steps, on grids that are smooth in
    /// `log(sigma / alpha)`.
    pub order: &'static str,
    /// Whether it draws noise after the start, with its default options.
    pub stochastic: bool,
    /// Denoiser evaluations a step.
    pub evaluations: &'static str,
    /// The grids that it walks.
    pub grids: &'static str,
    /// The options that it takes, by their names in [`SamplerOptions::set`].
    pub options: &'static [&'static str],
    /// Its file: the text above its type is what [`explanation`](Self::explanation) shows.
    pub(super) source: &'static str,
    /// Makes it with the options that it knows.
    pub(super) make: fn(&SamplerOptions) -> Box<dyn Sampler>,
}

impl SamplerInfo {
    /// Refuses an option that it does not take.
    ///
    /// # Errors
    /// [`Error::Unknown`] with those that it does.
    pub fn check_option(&self, name: &str) -> Result<()> {
        if self.options.contains(&name) {
            return Ok(());
        }
        let known =
            if self.options.is_empty() { vec!["none".into()] } else { self.options.iter().map(|&name| name.into()).collect() };
        Err(Error::Unknown { kind: "option of this sampler", name: name.into(), known })
    }

    /// Whether it draws images: `ddim-inverse` leads from an image to noise.
    pub fn draws(&self) -> bool {
        self.name != "ddim-inverse"
    }

    /// The schedules that it serves, by some grid at least.
    pub fn schedules(&self) -> &'static str {
        // What every grid of a schedule without signal at its start begins with.
        if self.grids.contains("start with signal") { "those that start with signal" } else { "any" }
    }

    /// Its description: the update and where it was published. It is the documentation of its type, so that the two cannot differ.
    pub fn explanation(&self) -> String {
        let mut block: Vec<&str> = Vec::new();
        // The first documented item whose text shows a formula.
        for line in self.source.lines() {
            match line.strip_prefix("///") {
                Some(text) => block.push(text.strip_prefix(' ').unwrap_or(text)),
                None if block.contains(&"```text") => break,
                None => block.clear(),
            }
        }
        without_links(&block.join("\n"))
    }

    /// Where it was published: the first paper of its references that has a number, or the first reference.
    pub fn reference(&self) -> String {
        let text = self.explanation();
        let source = text.split_once("# Reference\n").map_or("", |(_, source)| source).replace('\n', " ");
        let paper = source.find("arXiv ").map(|at| {
            let digits = source[at + 6..].find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(source.len() - at - 6);
            let cited = source[..at + 6 + digits].trim_end_matches('.');
            // The sentence that names the paper begins after the last full stop but that of "et al.".
            let start =
                cited.rmatch_indices(". ").find(|(at, _)| !cited[..*at].ends_with("al")).map_or(0, |(at, stop)| at + stop.len());
            cited[start..].to_owned()
        });
        paper.unwrap_or_else(|| source.split(". ").next().unwrap_or_default().to_owned())
    }

    /// The first sentence of [`explanation`](Self::explanation).
    pub fn title(&self) -> String {
        let text = self.explanation().replace('\n', " ");
        let end = text.find(". ").unwrap_or(text.len());
        text[..end].trim_end_matches('.').to_owned()
    }
}

/// Markdown without its links and the fences of its formulas, as a terminal shows it.
fn without_links(markdown: &str) -> String {
    let mut plain = String::with_capacity(markdown.len());
    let mut rest = markdown;
    while let Some((before, (name, after))) =
        rest.split_once("[`").and_then(|(before, rest)| Some((before, rest.split_once("`]")?)))
    {
        plain += before;
        plain += name;
        rest = match after.strip_prefix('(').and_then(|target| target.split_once(')')) {
            Some((_, after)) => after,
            None => after,
        };
    }
    (plain + rest).lines().filter(|line| !line.starts_with("```")).collect::<Vec<_>>().join("\n")
}

/// What is known of the sampler of this name.
///
/// # Errors
/// [`Error::Unknown`] with the names that exist.
pub fn sampler_info(name: &str) -> Result<&'static SamplerInfo> {
    SAMPLERS.iter().find(|info| info.name == name).ok_or_else(|| Error::Unknown {
        kind: "sampler",
        name: name.into(),
        known: SAMPLERS.iter().map(|info| info.name.into()).collect(),
    })
}

/// The sampler of this name.
///
/// # Errors
/// [`Error::Unknown`] with the names that exist; [`Error::Argument`] for an option outside its domain.
pub fn sampler_by_name(name: &str, options: &SamplerOptions) -> Result<Box<dyn Sampler>> {
    let info = sampler_info(name)?;
    options.check()?;
    Ok((info.make)(options))
}

/// Refuses a grid with a level that has no signal, and one that nothing can walk: what a sampler that needs `sigma / alpha` everywhere
/// checks.
pub(super) fn needs_signal(name: &str, grid: &Grid) -> Result<()> {
    match grid.steps.iter().any(|Interval { from, .. }| from.alpha <= 0.0) {
        false => grid.check(),
        true => Err(Error::Unsupported {
            what: format!("{name} from a level without signal"),
            why: "sigma / alpha is infinite there".into(),
            possible: vec!["a grid that starts below it".into(), "ddim".into(), "euler".into(), "dpmpp-2m".into()],
        }),
    }
}
