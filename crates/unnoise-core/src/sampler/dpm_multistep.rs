//! DPM-Solver and DPM-Solver++, multistep.

use super::multistep::{History, LowerOrder};
use super::{Sampler, SamplerInfo, Step, Stepped, combine, eps_from_x0};
use crate::{Batch, Interval, Noise, Result};

/// DPM-Solver++(2M).
pub(super) const DPMPP_2M: SamplerInfo = SamplerInfo {
    name: "dpmpp-2m",
    order: "2",
    stochastic: false,
    evaluations: "1",
    grids: "any",
    options: &["second_order", "lower_order_final", "euler_at_final"],
    source: include_str!("dpm_multistep.rs"),
    make: |options| Box::new(DpmMultistep::new(Expansion::X0, 2).with(options.dpm_form, options.lower_order(true))),
};

/// DPM-Solver++(3M).
pub(super) const DPMPP_3M: SamplerInfo = SamplerInfo {
    name: "dpmpp-3m",
    order: "2 (3 after its start-up)",
    options: &["second_order", "third_order", "lower_order_final", "euler_at_final"],
    make: |options| Box::new(DpmMultistep::new(Expansion::X0, 3).with(options.dpm_form, options.lower_order(true))),
    ..DPMPP_2M
};

/// DPM-Solver, multistep of order 2.
pub(super) const DPM_2M: SamplerInfo = SamplerInfo {
    name: "dpm-solver-2m",
    make: |options| Box::new(DpmMultistep::new(Expansion::Eps, 2).with(options.dpm_form, options.lower_order(true))),
    ..DPMPP_2M
};

/// DPM-Solver, multistep of order 3.
pub(super) const DPM_3M: SamplerInfo = SamplerInfo {
    name: "dpm-solver-3m",
    make: |options| Box::new(DpmMultistep::new(Expansion::Eps, 3).with(options.dpm_form, options.lower_order(true))),
    ..DPMPP_3M
};

/// Multistep DPM-Solver: the linear part of the ODE solved exactly, and what the network gives expanded in `lambda = log(alpha / sigma)` with
/// differences of its last values `m_0, m_1, m_2`.
///
/// ```text
/// h = lambda' - lambda,   h_j = lambda_j - lambda_{j+1},   r_j = h_j / h
/// D0 = m_0
/// D1 = (m_0 - m_1) / r_0                                              order 2
/// D1 = d_0 + r_0 / (r_0 + r_1) (d_0 - d_1),   D2 = (d_0 - d_1) / (r_0 + r_1),   d_j = (m_j - m_{j+1}) / r_j        order 3
///
/// dpmpp-*m        m = x0,   z = -h:   x' = (sigma' / sigma) x - alpha' P(z)
/// dpm-solver-*m   m = eps,  z =  h:   x' = (alpha' / alpha) x - sigma' P(z)
/// P(z) = (e^z - 1) D0 + ((e^z - 1) / z - 1) D1 + 2 ((e^z - 1 - z) / z^2 - 1/2) D2
/// order 2, midpoint:   P(z) = (e^z - 1) (D0 + D1 / 2)
/// ```
///
/// The first step is DDIM's, of order 1, and so are one to `sigma' = 0` and one from a level without signal; the second is of order 2. With
/// `lower_order_final` a run of fewer than 15 steps ends with orders 2 and 1.
///
/// # Reference
/// Lu et al. 2022, arXiv 2211.01095, algorithm 2 (`dpmpp-2m`) and app. A; Lu et al. 2022, arXiv 2206.00927, app. B (the expansion). The
/// third-order differences, and "midpoint" or "heun" for order 2, as in its code and in diffusers, but for the 2 of `D2`: theirs lacks it,
/// which leaves a local error of `O(h^3)`, so that the published `3M` is of order 2 even from an exact start.
#[derive(Clone, Debug)]
pub struct DpmMultistep {
    expansion: Expansion,
    order: usize,
    form: Form,
    lower: LowerOrder,
    history: History,
}

/// What [`DpmMultistep`] expands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expansion {
    /// The clean image: DPM-Solver++.
    X0,
    /// The noise: DPM-Solver.
    Eps,
}

/// The weight of the first difference in a step of order 2; they differ by `O(h^3)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecondOrder {
    /// Half the weight of the value.
    #[default]
    Midpoint,
    /// The integral of the linear extrapolation.
    Heun,
}

/// The weight of the second difference, `D2 tau^2` of the expansion, in a step of order 3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThirdOrder {
    /// The integral of the quadratic extrapolation.
    #[default]
    Quadratic,
    /// Half of that, as in the authors' code, k-diffusion and diffusers: to compare with them.
    Published,
}

/// Choices of [`DpmMultistep`] within an order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// In steps of order 2.
    pub second: SecondOrder,
    /// In steps of order 3.
    pub third: ThirdOrder,
}

impl DpmMultistep {
    /// The method of this order, from 1 to 3.
    pub fn new(expansion: Expansion, order: usize) -> Self {
        Self {
            expansion,
            order: order.clamp(1, 3),
            form: Form::default(),
            lower: LowerOrder::default(),
            history: History::default(),
        }
    }

    /// The same, in this form and with lower orders at a run's end.
    pub fn with(self, form: Form, lower: LowerOrder) -> Self {
        Self { form, lower, ..self }
    }
}

/// The weights of the last values in `P(z)`, for a step of length `h` in `lambda`.
pub(super) fn weights(history: &History, form: Form, order: usize, h: f64, z: f64) -> Vec<f64> {
    let value = z.exp_m1();
    let slope = value / z - 1.0;
    let r = |j: usize| (history.lambda(j) - history.lambda(j + 1)) / h;
    if order == 2 {
        let weight = if form.second == SecondOrder::Midpoint { 0.5 * value } else { slope } / r(0);
        return vec![value + weight, -weight];
    }
    let curvature = ((value - z) / (z * z) - 0.5) * if form.third == ThirdOrder::Quadratic { 2.0 } else { 1.0 };
    let (r0, r1) = (r(0), r(1));
    // D1 and D2 in terms of the differences d_0 and d_1.
    let of_d0 = (slope * (1.0 + r0 / (r0 + r1)) + curvature / (r0 + r1)) / r0;
    let of_d1 = -(slope * r0 + curvature) / (r0 + r1) / r1;
    vec![value + of_d0, of_d1 - of_d0, -of_d1]
}

impl Sampler for DpmMultistep {
    fn name(&self) -> &'static str {
        match (self.expansion, self.order) {
            (Expansion::X0, ..=2) => DPMPP_2M.name,
            (Expansion::X0, _) => DPMPP_3M.name,
            (Expansion::Eps, ..=2) => DPM_2M.name,
            (Expansion::Eps, _) => DPM_3M.name,
        }
    }

    fn step(&mut self, step: &Step<'_>, x: &Batch, _: &mut dyn Noise) -> Result<Stepped> {
        let interval @ Interval { from, to } = step.interval();
        let x0 = step.denoiser.x0_hat(x, from)?;
        let eps = eps_from_x0(x, &x0, from);
        self.history.push(step, self.order, from, if self.expansion == Expansion::X0 { &x0 } else { &eps });
        let h = -interval.ratio().ln();
        let next = match self.lower.limit_in_lambda(step, self.order).min(self.history.len()) {
            order @ 2.. if h != 0.0 => {
                let z = if self.expansion == Expansion::X0 { -h } else { h };
                let predicted = self.history.combine(&weights(&self.history, self.form, order, h, z));
                match self.expansion {
                    Expansion::X0 => combine(to.sigma / from.sigma, x, -to.alpha, &predicted),
                    Expansion::Eps => combine(to.alpha / from.alpha, x, -to.sigma, &predicted),
                }
            }
            _ => combine(to.alpha, &x0, to.sigma, &eps),
        };
        Ok(Stepped { x: next, x0_hat: x0 })
    }
}
