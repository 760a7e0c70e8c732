//! What the scheduler classes of diffusers know: their defaults and which keys of a configuration they read.

use super::sampler_info;
use crate::Result;

/// A scheduler class of diffusers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Ddpm,
    Ddim,
    Pndm,
    Euler,
    EulerAncestral,
    Heun,
    Lms,
    Kdpm2,
    DpmMultistep,
    DpmSinglestep,
    Deis,
    UniPc,
    SaSolver,
}

/// How a class walks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walk {
    /// From timestep to timestep, with a unit-variance state.
    Timesteps,
    /// In `sigma / alpha`, with `x / alpha` as its state.
    Sigmas,
    /// In `log(sigma / alpha)`, with a unit-variance state; it plans one timestep more and leaves out the cleanest.
    Lambdas,
}

impl Class {
    /// The class that a sampler's name stands for. What diffusers lacks walks Euler's grids.
    pub(super) fn by_sampler(name: &str) -> Result<Self> {
        Ok(match name {
            "ddpm" => Self::Ddpm,
            // The inverse walks DDIM's grid, reversed.
            "ddim" | "ddim-inverse" => Self::Ddim,
            "pndm" | "plms" => Self::Pndm,
            "euler-a" => Self::EulerAncestral,
            "heun" => Self::Heun,
            "lms" => Self::Lms,
            "kdpm2" | "kdpm2-a" => Self::Kdpm2,
            "dpmpp-2m" | "dpmpp-3m" | "dpm-solver-2m" | "dpm-solver-3m" | "dpmpp-2m-sde" | "dpmpp-3m-sde" => Self::DpmMultistep,
            "dpmpp-2s" | "dpmpp-3s" => Self::DpmSinglestep,
            "deis" => Self::Deis,
            "unipc" | "unipc-bh1" => Self::UniPc,
            "sa-solver" => Self::SaSolver,
            _ => sampler_info(name).map(|_| Self::Euler)?,
        })
    }

    pub(super) fn walk(self) -> Walk {
        match self {
            Self::Ddpm | Self::Ddim | Self::Pndm => Walk::Timesteps,
            Self::Euler | Self::EulerAncestral | Self::Heun | Self::Lms | Self::Kdpm2 => Walk::Sigmas,
            Self::DpmMultistep | Self::DpmSinglestep | Self::Deis | Self::UniPc | Self::SaSolver => Walk::Lambdas,
        }
    }

    /// The defaults of `beta_start` and `beta_end`.
    pub(super) fn betas(self) -> (f64, f64) {
        if matches!(self, Self::Heun | Self::Kdpm2) { (0.00085, 0.012) } else { (0.0001, 0.02) }
    }

    /// The default of `timestep_spacing`.
    pub(super) fn spacing(self) -> &'static str {
        if self.walk() == Walk::Timesteps { "leading" } else { "linspace" }
    }

    /// The default of `clip_sample`; `None` for a class that does not clip.
    pub(super) fn clips(self) -> Option<bool> {
        match self {
            Self::Ddpm | Self::Ddim => Some(true),
            Self::Heun => Some(false),
            _ => None,
        }
    }

    /// Whether it reads `rescale_betas_zero_snr`.
    pub(super) fn knows_zero_snr(self) -> bool {
        matches!(self, Self::Ddpm | Self::Ddim | Self::Euler | Self::EulerAncestral | Self::DpmMultistep | Self::UniPc)
    }

    /// Whether it reads `thresholding`.
    pub(super) fn knows_thresholding(self) -> bool {
        matches!(self, Self::Ddpm | Self::Ddim) || self.walk() == Walk::Lambdas
    }

    /// Whether it reads `use_karras_sigmas`, `use_exponential_sigmas` and `use_beta_sigmas`.
    pub(super) fn knows_sigmas(self) -> bool {
        self.walk() != Walk::Timesteps && self != Self::EulerAncestral
    }

    /// Whether it reads `lambda_min_clipped`.
    pub(super) fn knows_lambda_min(self) -> bool {
        matches!(self, Self::DpmMultistep | Self::DpmSinglestep | Self::SaSolver)
    }

    /// Whether it reads `final_sigmas_type`, and ends without noise unless that says otherwise.
    pub(super) fn knows_final_sigma(self) -> bool {
        matches!(self, Self::Euler | Self::DpmMultistep | Self::DpmSinglestep | Self::UniPc)
    }

    /// Whether it reads `sigma_min` and `sigma_max` for its Karras and exponential sigmas.
    pub(super) fn knows_ends(self) -> bool {
        matches!(self, Self::Euler | Self::UniPc)
    }
}
