//! Posterior methods by name.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{DdnmPlus, DiffPir, Dps, Guided, Mmps, Pigdm, PosteriorMethod, Tds};
use crate::{Capability, Error, Operator, Result, operator};

/// The names of the posterior methods.
pub const METHODS: [&str; 6] = ["dps", "pigdm", "mmps", "ddnm-plus", "diffpir", "tds"];

/// The method of this name with these settings: a JSON object whose missing keys take their defaults, or `null` for all of them.
///
/// ```
/// use unnoise_core::method_by_name;
/// let settings = serde_json::json!({ "tolerance": 1e-4, "eta": 0.5 });
/// assert_eq!(method_by_name("mmps", &settings).unwrap().name(), "mmps");
/// let error = method_by_name("mmps", &serde_json::json!({ "tol": 1e-4 })).err().unwrap();
/// assert_eq!(error.to_string(), "unknown setting of mmps 'tol'; known: clamp, eta, max_iterations, sampler, solver, tolerance");
/// ```
///
/// # Errors
/// [`Error::Unknown`] for a name or a setting that does not exist, with those that do; [`Error::Argument`] for a value of the wrong
/// type or outside its domain.
pub fn method_by_name(name: &str, settings: &Value) -> Result<Box<dyn PosteriorMethod>> {
    Ok(match name {
        "dps" => checked(parse::<Guided<Dps>>("dps", "setting of dps", settings)?, Guided::check)?,
        "pigdm" => checked(parse::<Guided<Pigdm>>("pigdm", "setting of pigdm", settings)?, Guided::check)?,
        "mmps" => checked(parse::<Guided<Mmps>>("mmps", "setting of mmps", settings)?, Guided::check)?,
        "ddnm-plus" => checked(parse("ddnm-plus", "setting of ddnm-plus", settings)?, DdnmPlus::check)?,
        "diffpir" => checked(parse("diffpir", "setting of diffpir", settings)?, DiffPir::check)?,
        "tds" => checked(parse("tds", "setting of tds", settings)?, Tds::check)?,
        _ => return Err(unknown("posterior method", name, METHODS.map(String::from).to_vec())),
    })
}

/// The default settings of the method of this name, as a JSON object: its keys are all that [`method_by_name`] takes.
///
/// # Errors
/// [`Error::Unknown`] for a name that does not exist.
pub fn default_settings(name: &str) -> Result<Value> {
    Ok(Value::Object(match name {
        "dps" => object(&Guided::<Dps>::default()),
        "pigdm" => object(&Guided::<Pigdm>::default()),
        "mmps" => object(&Guided::<Mmps>::default()),
        "ddnm-plus" => object(&DdnmPlus::default()),
        "diffpir" => object(&DiffPir::default()),
        "tds" => object(&Tds::default()),
        _ => return Err(unknown("posterior method", name, METHODS.map(String::from).to_vec())),
    }))
}

/// The methods, with default settings, that can serve an operator.
pub fn possible_methods(op: &dyn Operator) -> Vec<&'static str> {
    let offered = op.capabilities();
    let serves = |name: &&str| {
        let method = method_by_name(name, &Value::Null).expect("every listed name is known and every default is valid");
        method.needs().iter().all(|need| offered.contains(need))
    };
    METHODS.into_iter().filter(serves).collect()
}

/// The error for a method whose needs the operator does not meet: it lists the methods that it could serve.
pub(super) fn lacks(name: &str, needs: &[Capability], op: &dyn Operator) -> Error {
    operator::lacks(op, needs, name, &possible_methods(op))
}

fn checked<M: PosteriorMethod + 'static>(method: M, check: impl Fn(&M) -> Result<()>) -> Result<Box<dyn PosteriorMethod>> {
    check(&method)?;
    Ok(Box::new(method))
}

/// The settings `T` from JSON. The keys of the default are the known ones: with flattened structs, serde cannot tell by itself.
fn parse<T: Default + Serialize + DeserializeOwned>(at: &'static str, kind: &'static str, settings: &Value) -> Result<T> {
    if settings.is_null() {
        return Ok(T::default());
    }
    let wrong = |expected: &str, got: String| Error::Argument { what: "settings", expected: expected.into(), got, at };
    let given = settings.as_object().ok_or_else(|| wrong("a JSON object", settings.to_string()))?;
    let mut all = object(&T::default());
    if let Some(name) = given.keys().find(|key| !all.contains_key(*key)) {
        let mut known: Vec<String> = all.keys().cloned().collect();
        known.sort();
        return Err(unknown(kind, name, known));
    }
    let read = |settings: Map<String, Value>| serde_json::from_value::<T>(Value::Object(settings));
    // One at a time, so that the message can name it.
    for (key, value) in given {
        let mut one = all.clone();
        let default = one.insert(key.clone(), value.clone()).unwrap_or_default();
        read(one).map_err(|_| wrong("of their types", format!("{key} = {value}, whose default is {default}")))?;
    }
    all.extend(given.clone());
    read(all).map_err(|error| wrong("of their types", error.to_string()))
}

fn object(settings: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(settings) {
        Ok(Value::Object(map)) => map,
        _ => unreachable!("settings are structs of numbers and names"),
    }
}

fn unknown(kind: &'static str, name: &str, known: Vec<String>) -> Error {
    Error::Unknown { kind, name: name.into(), known }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_gives_its_method_and_its_defaults_parse() {
        for name in METHODS {
            let defaults = default_settings(name).unwrap();
            assert_eq!(method_by_name(name, &defaults).unwrap().name(), name, "{defaults}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_can() {
        for (name, settings, expected) in [
            ("dsp", "null", "unknown posterior method 'dsp'; known: dps, pigdm, mmps, ddnm-plus, diffpir, tds"),
            ("dps", r#"{"zeta": -1}"#, "dps: zeta must be finite and at least 0, got -1"),
            ("ddnm-plus", r#"{"eta": 2}"#, "ddnm-plus: eta must be finite and in [0, 1], got 2"),
            ("diffpir", r#"{"lambda": 0}"#, "diffpir: lambda must be finite and above 0, got 0"),
            ("tds", r#"{"particles": 0}"#, "tds: particles must be finite and in 1..=65536, got 0"),
            ("tds", r#"{"particles": 65537}"#, "tds: particles must be finite and in 1..=65536, got 65537"),
            (
                "tds",
                r#"{"particle": 1}"#,
                "unknown setting of tds 'particle'; known: clamp, eta, particles, prior_variance, resample_below",
            ),
            ("ddnm-plus", r#"{"eta": "a"}"#, r#"ddnm-plus: settings must be of their types, got eta = "a", whose default is 0.85"#),
            (
                "mmps",
                r#"{"solver": "lu"}"#,
                r#"mmps: settings must be of their types, got solver = "lu", whose default is "gmres""#,
            ),
            ("tds", r#"{"particles": 1.5}"#, "tds: settings must be of their types, got particles = 1.5, whose default is 16"),
            ("pigdm", "[]", "pigdm: settings must be a JSON object, got []"),
        ] {
            let error = method_by_name(name, &serde_json::from_str(settings).unwrap()).err().expect("an error");
            assert_eq!(error.to_string(), expected);
        }
        let error = method_by_name("mmps", &serde_json::json!({ "sampler": "no" })).err().expect("an error").to_string();
        assert!(error.starts_with("unknown sampler 'no'; known: ddpm, ddim"), "{error}");
    }
}
