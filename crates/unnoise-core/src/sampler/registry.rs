//! Samplers by name.

use super::{
    Churn, Form, Grid, Interval, LowerOrder, Sampler, Variance, adams, ddim, ddim_inverse, ddpm, dpm_adaptive, dpm_multistep,
    dpm_singlestep, dpm_solver, edm, euler, flow_euler, flow_heun, heun, ipndm, kdpm2, midpoint, pndm, rk4, rk45, unipc,
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
    /// Its file: the text above its type is what [`explanation`](Self::explanation) shows.
    pub(super) source: &'static str,
    /// Makes it with the options that it knows.
    pub(super) make: fn(&SamplerOptions) -> Box<dyn Sampler>,
}

impl SamplerInfo {
    /// Whether it draws images: `ddim-inverse` leads from an image to noise.
    pub fn draws(&self) -> bool {
        self.name != "ddim-inverse"
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
            cited.rsplit(". ").next().unwrap_or(cited).to_owned()
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

/// What samplers can be told; each takes what it knows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplerOptions {
    /// `ddim` and the ancestral samplers: the share of fresh noise, in `[0, 1]`; each has its own default.
    pub eta: Option<f64>,
    /// `ddpm`, `ddim`, `heun`: the largest absolute value of the clean image.
    pub clip: Option<f64>,
    /// `ddpm`: the variance of a step.
    pub variance: Variance,
    /// `edm`: the noise that is added before each step.
    pub churn: Churn,
    /// Multistep samplers whose name does not fix it: the order, from 1.
    pub order: Option<usize>,
    /// Multistep samplers: whether a run of fewer than 15 steps ends with steps of lower order; each has its own default, diffusers'.
    pub lower_order_final: Option<bool>,
    /// Multistep samplers: whether every run ends with a step of order 1.
    pub euler_at_final: bool,
    /// Multistep DPM-Solvers: the form of their steps.
    pub dpm_form: Form,
    /// Adaptive samplers: the error that a step may make, relative to the state's size.
    pub tolerance: f64,
    /// Langevin steps: the ratio of the score's step to the noise's.
    pub snr: f64,
    /// Langevin steps at each level.
    pub corrections: usize,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        Self {
            eta: None,
            clip: None,
            variance: Variance::default(),
            churn: Churn::default(),
            order: None,
            lower_order_final: None,
            euler_at_final: false,
            dpm_form: Form::default(),
            tolerance: 1e-3,
            snr: 0.16,
            corrections: 1,
        }
    }
}

impl SamplerOptions {
    /// How a multistep sampler with this default ends a run.
    pub(super) fn lower_order(&self, by_default: bool) -> LowerOrder {
        LowerOrder { at_the_end_of_few: self.lower_order_final.unwrap_or(by_default), at_the_end: self.euler_at_final }
    }

    fn check(&self) -> Result<()> {
        let Self { eta, clip, churn, order, tolerance, snr, corrections, .. } = *self;
        require(eta.is_none_or(|eta| (0.0..=1.0).contains(&eta)), "eta", "in [0, 1]", eta.unwrap_or(0.0))?;
        require(clip.is_none_or(|limit| limit > 0.0), "clip", "positive", clip.unwrap_or(0.0))?;
        require(churn.amount >= 0.0 && churn.amount.is_finite(), "churn amount", "finite and not negative", churn.amount)?;
        require(
            churn.inflation >= 0.0 && churn.inflation.is_finite(),
            "churn inflation",
            "finite and not negative",
            churn.inflation,
        )?;
        require(order.is_none_or(|order| (1..=4).contains(&order)), "order", "from 1 to 4", order.unwrap_or(1) as f64)?;
        require(tolerance > 0.0 && tolerance < 1.0, "tolerance", "in (0, 1)", tolerance)?;
        require(snr > 0.0 && snr.is_finite(), "snr", "positive and finite", snr)?;
        require((1..=1000).contains(&corrections), "corrections", "from 1 to 1000", corrections as f64)
    }
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
#[expect(dead_code, reason = "the samplers of the SDE come next")]
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

fn require(holds: bool, what: &'static str, expected: &str, got: f64) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::Argument { what, expected: expected.into(), got: got.to_string(), at: "sampler_by_name" })
    }
}
