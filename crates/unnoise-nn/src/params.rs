//! The numbers of a network, by name: independent of the tensor engine, in PyTorch's layouts.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use sha2::{Digest, Sha256};
use unnoise_core::{Noise, Purpose, Streams};

use crate::files::{read_limited, write_atomically};
use crate::{Error, ParameterProblem, Result};

/// The largest file of parameters that is read: 16 GiB.
pub const PARAMS_BYTES_LIMIT: u64 = 16 << 30;

/// One tensor: `values` is row-major and holds the product of `shape` numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// The sides, outermost first.
    pub shape: Vec<usize>,
    /// The numbers.
    pub values: Vec<f32>,
}

/// How numbers are stored in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits: exact.
    #[default]
    F32,
    /// 16 bits: half the size, relative error at most 2^-11 for magnitudes in `[6.1e-5, 65504]`.
    F16,
}

/// The parameters of a network, ordered by name.
///
/// Names and layouts are those of diffusers' `UNet2DModel.state_dict()`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Params(BTreeMap<String, Parameter>);

/// Names and shapes, as an architecture lists them.
pub type Shapes = BTreeMap<String, Vec<usize>>;

impl Params {
    /// No parameters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a tensor.
    ///
    /// # Errors
    /// [`Error::Argument`] if the number of values is not the product of the shape.
    pub fn insert(&mut self, name: impl Into<String>, shape: Vec<usize>, values: Vec<f32>) -> Result<()> {
        let expected = shape.iter().try_fold(1usize, |product, side| product.checked_mul(*side));
        if expected != Some(values.len()) {
            let expected = format!("as many as the shape {shape:?} holds");
            return Err(Error::argument("values", expected, values.len(), "Params::insert"));
        }
        self.0.insert(name.into(), Parameter { shape, values });
        Ok(())
    }

    /// A tensor by name.
    pub fn get(&self, name: &str) -> Option<&Parameter> {
        self.0.get(name)
    }

    /// A tensor by name, to change its numbers.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Parameter> {
        self.0.get_mut(name)
    }

    /// All tensors in the order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Parameter)> {
        self.0.iter().map(|(name, parameter)| (name.as_str(), parameter))
    }

    /// All tensors in the order of their names, to change their numbers.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (&str, &mut Parameter)> {
        self.0.iter_mut().map(|(name, parameter)| (name.as_str(), parameter))
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of numbers.
    pub fn count(&self) -> usize {
        self.0.values().map(|parameter| parameter.values.len()).sum()
    }

    /// Names and shapes.
    pub fn shapes(&self) -> Shapes {
        self.0.iter().map(|(name, parameter)| (name.clone(), parameter.shape.clone())).collect()
    }

    /// Tensors of these shapes, all zero.
    pub fn zeros(shapes: &Shapes) -> Self {
        let zero = |shape: &Vec<usize>| Parameter { shape: shape.clone(), values: vec![0.0; shape.iter().product()] };
        Self(shapes.iter().map(|(name, shape)| (name.clone(), zero(shape))).collect())
    }

    /// PyTorch's default initialisation, from a seed.
    ///
    /// ```text
    /// convolution, linear:  weight, bias ~ U(-1/sqrt(fan_in), 1/sqrt(fan_in))
    /// normalisation:        weight = 1, bias = 0
    /// embedding:            weight ~ N(0, 1)
    /// ```
    ///
    /// A tensor is told by its name and rank: a weight of rank 1 normalises, `class_embedding.weight` is a table, the others map.
    /// The distributions are PyTorch's, the numbers are not: tensor `i` in the order of names has the stream `i` of the seed.
    ///
    /// # Errors
    /// [`Error::Limit`] above 2^32 numbers.
    ///
    /// # Reference
    /// `torch.nn.modules.{conv,linear,normalization,sparse}.reset_parameters`, PyTorch 2.15.
    pub fn initialise(shapes: &Shapes, seed: u64) -> Result<Self> {
        const LIMIT: u64 = 1 << 32;
        let total = shapes.values().map(|shape| shape.iter().map(|s| *s as u64).product::<u64>()).sum();
        if total > LIMIT {
            return Err(Error::Limit {
                what: "the number of parameters",
                limit: LIMIT,
                got: total,
                at: "Params::initialise".into(),
            });
        }
        let mut params = Self::zeros(shapes);
        for (stream, (name, parameter)) in (0..).zip(params.0.iter_mut()) {
            let weight =
                name.strip_suffix(".bias").and_then(|stem| shapes.get(&format!("{stem}.weight"))).unwrap_or(&parameter.shape);
            let mut streams = Streams::new(seed, stream..stream + 1);
            let count = parameter.values.len();
            if weight.len() == 1 {
                parameter.values.fill(if name.ends_with(".weight") { 1.0 } else { 0.0 });
            } else if name == "class_embedding.weight" {
                let normals = streams.normal(0, Purpose::Auxiliary, 1, [1, 1, count]);
                parameter.values.iter_mut().zip(&normals).for_each(|(value, z)| *value = *z as f32);
            } else {
                let bound = 1.0 / (weight[1..].iter().product::<usize>() as f64).sqrt();
                let uniforms = streams.uniform(0, Purpose::Auxiliary, count).swap_remove(0);
                parameter.values.iter_mut().zip(uniforms).for_each(|(value, u)| *value = (bound * (2.0 * u - 1.0)) as f32);
            }
        }
        Ok(params)
    }

    /// Checks that the tensors are exactly those of an architecture.
    ///
    /// # Errors
    /// [`Error::Parameters`] that lists every tensor that is missing, unused or of another shape.
    pub fn check(&self, shapes: &Shapes) -> Result<()> {
        // A hint costs a comparison with every name: enough for those that a message shows.
        const HINTS: usize = 6;
        let missing: Vec<&String> = shapes.keys().filter(|name| !self.0.contains_key(*name)).collect();
        let unused: Vec<&String> = self.0.keys().filter(|name| !shapes.contains_key(*name)).collect();
        if missing.is_empty() && unused.is_empty() && self.0.iter().all(|(name, p)| shapes[name] == p.shape) {
            return Ok(());
        }
        let hint = |i: usize, name: &str, others: &[&String], all: &mut dyn Iterator<Item = &String>| match others {
            _ if i >= HINTS => None,
            [] => nearest(name, all),
            others => nearest(name, &mut others.iter().copied()),
        };
        let mut problems = Vec::new();
        for (i, name) in missing.iter().enumerate() {
            let nearest = hint(i, name, &unused, &mut self.0.keys());
            problems.push(ParameterProblem::Missing { name: (*name).clone(), nearest });
        }
        for (i, name) in unused.iter().enumerate() {
            let nearest = hint(i, name, &missing, &mut shapes.keys());
            problems.push(ParameterProblem::Unused { name: (*name).clone(), nearest });
        }
        for (name, parameter) in &self.0 {
            if let Some(expected) = shapes.get(name).filter(|expected| **expected != parameter.shape) {
                let (expected, got) = (expected.clone(), parameter.shape.clone());
                problems.push(ParameterProblem::Shape { name: name.clone(), expected, got });
            }
        }
        Err(Error::Parameters { problems, at: "Params::check".into() })
    }

    /// Reads a safetensors file of f32, f16 or bf16 tensors; the attention names of older files (`query`, `key`, `value`,
    /// `proj_attn`) become today's (`to_q`, `to_k`, `to_v`, `to_out.0`).
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Limit`] above [`PARAMS_BYTES_LIMIT`]; [`Error::File`] for anything but a whole safetensors file of
    /// finite numbers.
    pub fn read(path: &Path) -> Result<Self> {
        Self::from_safetensors(&read_limited(path, PARAMS_BYTES_LIMIT)?, path)
    }

    /// As [`read`](Self::read), from bytes; errors name `path`.
    ///
    /// # Errors
    /// [`Error::File`] for anything but whole safetensors content of finite numbers.
    pub fn from_safetensors(bytes: &[u8], path: &Path) -> Result<Self> {
        let file = SafeTensors::deserialize(bytes)
            .map_err(|e| Error::file(path, "the content", "a whole safetensors file", format!("{e} (truncated?)")))?;
        let mut params = Self::new();
        for (name, view) in file.tensors() {
            let values = to_f32(&view).ok_or_else(|| {
                Error::file(path, format!("the type of tensor {name}"), "F32, F16 or BF16", format!("{:?}", view.dtype()))
            })?;
            if let Some(at) = values.iter().position(|v| !v.is_finite()) {
                return Err(Error::file(path, format!("tensor {name}"), "finite", format!("{} at {at}", values[at])));
            }
            let name = current_name(&name);
            if params.get(&name).is_some() {
                return Err(Error::file(path, "the tensors", "unique under their current names", format!("{name} twice")));
            }
            params.insert(name, view.shape().to_vec(), values).map_err(|e| e.in_file(path))?;
        }
        Ok(params)
    }

    /// The parameters as a safetensors file, with string `metadata` in its header.
    pub fn to_safetensors(&self, precision: Precision, metadata: &HashMap<String, String>) -> Vec<u8> {
        let dtype = match precision {
            Precision::F32 => Dtype::F32,
            Precision::F16 => Dtype::F16,
        };
        let encode = |values: &[f32]| -> Vec<u8> {
            match precision {
                Precision::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
                Precision::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
            }
        };
        let bytes: Vec<Vec<u8>> = self.0.values().map(|p| encode(&p.values)).collect();
        let views = self.0.iter().zip(&bytes).map(|((name, p), bytes)| {
            let view = TensorView::new(dtype, p.shape.clone(), bytes);
            (name, view.expect("insert() keeps the number of values equal to the shape's"))
        });
        // diffusers and transformers refuse a file that does not say "pt".
        let mut metadata = metadata.clone();
        metadata.entry("format".into()).or_insert_with(|| "pt".into());
        safetensors::serialize(views, Some(metadata)).expect("strings and shapes always serialise")
    }

    /// Writes a safetensors file; a crash leaves the old file or the new one, never a part.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: &Path, precision: Precision) -> Result<()> {
        write_atomically(path, &self.to_safetensors(precision, &HashMap::new()))
    }

    /// SHA-256 of names, shapes and values, in hexadecimal: the same for the same numbers, however they are stored.
    ///
    /// ```text
    /// for each tensor by name:  name, 0, rank, sides (u64 little-endian), values (f32 little-endian)
    /// ```
    pub fn sha256(&self) -> String {
        self.sha256_stored(Precision::F32)
    }

    /// [`sha256`](Self::sha256) of the numbers as a file of this precision gives them back.
    pub fn sha256_stored(&self, precision: Precision) -> String {
        let stored = |v: f32| match precision {
            Precision::F32 => v,
            Precision::F16 => f16::from_f32(v).to_f32(),
        };
        let mut hash = Sha256::new();
        for (name, parameter) in &self.0 {
            hash.update(name.as_bytes());
            hash.update([0]);
            for side in std::iter::once(&parameter.shape.len()).chain(&parameter.shape) {
                hash.update((*side as u64).to_le_bytes());
            }
            for chunk in parameter.values.chunks(4096) {
                hash.update(chunk.iter().flat_map(|v| stored(*v).to_le_bytes()).collect::<Vec<u8>>());
            }
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn to_f32(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let bytes = view.data();
    match view.dtype() {
        Dtype::F32 => Some(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()),
        Dtype::F16 => Some(bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()),
        Dtype::BF16 => Some(bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()),
        _ => None,
    }
}

/// Attention layers were renamed in diffusers 0.15; files written before keep the old names.
fn current_name(name: &str) -> String {
    const RENAMED: [(&str, &str); 4] =
        [(".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0.")];
    let attention = name.contains(".attentions.");
    RENAMED.iter().filter(|_| attention).fold(name.to_owned(), |name, (old, new)| name.replace(old, new))
}

fn nearest(name: &str, candidates: &mut dyn Iterator<Item = &String>) -> Option<String> {
    candidates.min_by_key(|other| edit_distance(name.as_bytes(), other.as_bytes())).cloned()
}

/// Levenshtein's distance.
fn edit_distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
