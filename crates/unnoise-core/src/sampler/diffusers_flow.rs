//! diffusers' scheduler of flow models.

use super::scheduler_config::unsupported;
use super::{Grid, SchedulerConfig, Spacing};
use crate::{Error, Level, Result, Shift};

/// What `FlowMatchEulerDiscreteScheduler` does beyond its grid, and is not served.
const NOT_SERVED: [&str; 6] =
    ["use_dynamic_shifting", "shift_terminal", "invert_sigmas", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"];

impl SchedulerConfig {
    /// Whether the model is a rectified flow: it predicts the velocity, and its timestep is `T t`.
    pub fn is_flow(&self) -> bool {
        self.class_name.as_deref().is_some_and(|name| name.starts_with("FlowMatch"))
    }

    /// The configuration that `FlowMatchEulerDiscreteScheduler` reads, without a shift.
    pub fn flow(train_steps: usize) -> Self {
        let class_name = Some("FlowMatchEulerDiscreteScheduler".into());
        let other = [("shift".to_string(), 1.0.into())].into();
        Self { class_name, num_train_timesteps: Some(train_steps), other, ..Self::default() }
    }

    /// The grid of `FlowMatchEulerDiscreteScheduler`, with the clean end as its last level.
    ///
    /// ```text
    /// linspace (its own)      t_i = shift(1 - (1 - shift(1 / T)) i / (n - 1))
    /// trailing                t_i = shift(1 - i / n)
    /// ```
    ///
    /// Its own shifts the last time twice, once for the table and once for the grid, as there.
    pub(super) fn flow_grid(&self, spacing: Option<Spacing>, steps: usize) -> Result<Grid> {
        if let Some(key) = NOT_SERVED.iter().find(|key| self.flow_option(key)) {
            return Err(unsupported(format!("{key} of a flow"), "it is not served", &["linspace", "trailing"]));
        }
        let most = self.train_steps();
        if !(1..=most).contains(&steps) {
            let (expected, got) = (format!("from 1 to the {most} steps of the model"), steps.to_string());
            return Err(Error::Argument { what: "steps", expected, got, at: "SchedulerConfig::grid" });
        }
        let shift = Shift::new(self.other.get("shift").and_then(|value| value.as_f64()).unwrap_or(1.0))?;
        let last = shift.apply(1.0 / most as f64);
        let time = |i: usize| match self.flow_spacing(spacing)? {
            Spacing::Trailing => Ok(1.0 - i as f64 / steps as f64),
            Spacing::Linspace => Ok(1.0 - (1.0 - last) * i as f64 / (steps.max(2) - 1) as f64),
            other => Err(unsupported(format!("the grid {} of a flow", other.name()), "it has no table", &["linspace", "trailing"])),
        };
        let mut levels = Vec::with_capacity(steps + 1);
        for i in 0..steps {
            let t = shift.apply(time(i)?);
            levels.push(Level { t, alpha: 1.0 - t, sigma: t });
        }
        levels.push(Level::CLEAN);
        Ok(Grid::through(&levels))
    }

    pub(super) fn flow_spacing(&self, spacing: Option<Spacing>) -> Result<Spacing> {
        Ok(spacing.unwrap_or(Spacing::Linspace))
    }

    /// Whether an option is on; some have fields of their own.
    fn flow_option(&self, key: &str) -> bool {
        let on = |value: Option<bool>| value == Some(true);
        let set = |value: &serde_json::Value| !matches!(value, serde_json::Value::Null | serde_json::Value::Bool(false));
        match key {
            "use_karras_sigmas" => on(self.use_karras_sigmas),
            "use_exponential_sigmas" => on(self.use_exponential_sigmas),
            key => self.other.get(key).is_some_and(set),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// diffusers 0.42.1: `FlowMatchEulerDiscreteScheduler(shift=...)`, `set_timesteps(n)`, `sigmas`.
    #[test]
    fn grids_are_those_of_diffusers() {
        let cases: [(f64, &[f64]); 3] = [
            (1.0, &[1.0, 0.667, 0.33399999, 0.001, 0.0]),
            (3.0, &[1.0, 0.90035909, 0.7511211, 0.50298506, 0.0089285718, 0.0]),
            (1.0, &[1.0, 0.0]),
        ];
        for (shift, sigmas) in cases {
            let config = SchedulerConfig::from_json(&format!(
                r#"{{"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": {shift}}}"#
            ));
            let grid = config.unwrap().grid("euler", None, sigmas.len() - 1).unwrap();
            let levels = grid.steps.iter().map(|step| step.from).chain(grid.steps.last().map(|step| step.to));
            for (level, sigma) in levels.zip(sigmas) {
                assert!((level.sigma - sigma).abs() < 1e-6 && (level.alpha + level.sigma - 1.0).abs() < 1e-15, "{level:?} {sigma}");
            }
            assert_eq!(grid.start, 1.0);
        }
    }

    #[test]
    fn what_is_not_served_is_refused() {
        let flow = |key: &str| {
            let json = format!(r#"{{"_class_name": "FlowMatchEulerDiscreteScheduler", {key}}}"#);
            SchedulerConfig::from_json(&json).unwrap().grid("ddim", None, 5).unwrap_err().to_string()
        };
        assert!(flow(r#""use_dynamic_shifting": true"#).contains("use_dynamic_shifting"));
        assert!(flow(r#""use_karras_sigmas": true"#).contains("use_karras_sigmas"));
        assert!(flow(r#""num_train_timesteps": 3"#).contains("1 to the 3 steps"));
        let config = SchedulerConfig::flow(1000);
        assert!(config.grid("ddim", Some(Spacing::Leading), 5).unwrap_err().to_string().contains("trailing"));
        assert!(config.grid("nothing", None, 5).is_err());
        assert!(config.schedule().unwrap().scales(1.0).alpha == 0.0);
    }
}
