//! What a file is.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};
use unnoise::MeasuredImage;
use unnoise::core::{chi_square, possible_methods};
use unnoise::io::{Array, Format, Limits, MeasurementFile, Npz, ReadOptions, read_images, read_npy};

use super::Facts;
use crate::commands::warn_of_units;

pub(super) fn describe(path: &Path) -> Result<Facts> {
    if MeasurementFile::is_one(path) {
        return measurement(path);
    }
    Ok(match Format::of(path)? {
        Format::Png | Format::Jpeg => {
            let picture = read_images(path, ReadOptions::default())?;
            let [low, high] = range(picture.iter().copied());
            vec![("kind", "picture".into()), ("shape", json!(picture.shape())), ("least", low.into()), ("largest", high.into())]
        }
        Format::Npy => array(&read_npy(path, Limits::default())?),
        Format::Npz => {
            let mut npz = Npz::open(path, Limits::default())?;
            match &npz.names().to_vec()[..] {
                [only] => {
                    let mut facts = array(&npz.require(only)?);
                    facts.insert(1, ("name", only.as_str().into()));
                    facts
                }
                names => {
                    let arrays: Vec<Value> = names.iter().map(|name| entry(&mut npz, name)).collect();
                    vec![("kind", "archive".into()), ("arrays", arrays.into())]
                }
            }
        }
    })
}

/// One array of an archive; what cannot be read is told in its place, and the others all the same.
fn entry(npz: &mut Npz, name: &str) -> Value {
    match npz.require(name) {
        Ok(array) => json!({ "name": name, "type": array.type_name(), "shape": array.shape() }),
        Err(error) => json!({ "name": name, "error": error.to_string() }),
    }
}

/// An array of any values.
fn array(array: &Array) -> Facts {
    let mut facts = vec![("kind", "array".into()), ("type", array.type_name().into()), ("shape", json!(array.shape()))];
    match array {
        Array::Text(text) => facts.push(("text", text.as_str().into())),
        _ => {
            let numbers = array.to_f64().unwrap_or_default();
            let [low, high] = range(numbers.iter().copied());
            let bad = numbers.iter().filter(|v| !v.is_finite()).count();
            facts.extend([("least", low.into()), ("largest", high.into())]);
            facts.extend((bad > 0).then(|| ("not_finite", bad.into())));
            // Arrays of integers have a scale of their own.
            let is_float = matches!(array, Array::F32(_) | Array::F64(_));
            let outside = bad > 0 || low.is_some_and(|low| low < -1e-3) || high.is_some_and(|high| high > 1.001);
            let note = "not pixels in [0, 1], which commands take images in; those of sample are in [-1, 1]";
            facts.extend((is_float && outside).then(|| ("note", note.into())));
        }
    }
    facts
}

/// The smallest and the largest finite number; none if there is none.
fn range(values: impl Iterator<Item = f64>) -> [Option<f64>; 2] {
    values.filter(|v| v.is_finite()).fold([None, None], |[low, high], v| {
        let smaller = |low: f64| if v < low { v } else { low };
        let larger = |high: f64| if v > high { v } else { high };
        [Some(low.map_or(v, smaller)), Some(high.map_or(v, larger))]
    })
}

fn measurement(path: &Path) -> Result<Facts> {
    let measured = MeasuredImage::read(path)?;
    warn_of_units(&measured)?;
    let capabilities: Vec<String> = measured.operator().capabilities().iter().map(ToString::to_string).collect();
    // None without a truth, or without noise.
    let chi_square = match measured.truth() {
        Some(truth) => chi_square(&measured.measurement()?, &(truth * 2.0 - 1.0)).ok().and_then(|all| all.first().copied()),
        None => None,
    };
    Ok(vec![
        ("kind", "measurement".into()),
        ("operator", measured.spec().to_string().into()),
        ("image", json!(measured.operator().input_shape())),
        ("measured", measured.operator().measured().into()),
        ("sigma_y", measured.sigma_y().into()),
        ("range", "[0,1]".into()),
        ("truth", if measured.truth().is_some() { "included" } else { "absent" }.into()),
        ("chi_square_of_truth", json!(chi_square.filter(|v| v.is_finite()))),
        ("operator_offers", json!(capabilities)),
        ("methods", json!(possible_methods(measured.operator()))),
    ])
}
