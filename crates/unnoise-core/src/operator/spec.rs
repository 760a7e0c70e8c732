//! Operators in words: what the command line takes and a measurement file keeps.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, str::FromStr};

use ndarray::{Array2, ArrayD, Ix2};
use serde::{Deserialize, Serialize};

use super::*;
use crate::{Error, Result, Shape};

/// The specification of an operator, one line of text.
///
/// ```text
/// identity
/// box:SIZE|ROWSxCOLUMNS[,top=ROW,left=COLUMN]          missing; centred by default
/// mask:random,keep=SHARE[,seed=0]
/// mask:FILE                                            kept where the array is above 1/2
/// blur:gaussian,sigma=PIXELS[,size=ODD][,BOUNDARY]     size 2 ceil(3 sigma) + 1 by default
/// blur:motion,length=PIXELS[,angle=DEGREES][,BOUNDARY]
/// blur:trajectory,size=ODD[,turning=0.5][,seed=0][,BOUNDARY]
/// blur:FILE[,sum=1][,BOUNDARY]                         the kernel as it is, or scaled to this sum
/// downsample:FACTOR[,kernel=average|bicubic]
/// dense:FILE                                           a matrix, measured values by image values
/// BOUNDARY: boundary=circular|reflect                  circular by default
/// ```
///
/// `Display` writes every option, so that text survives a change of defaults, and reading it gives the same specification. A file's
/// name may not contain a comma; one that is called `random` is `./random`.
///
/// ```
/// use unnoise_core::OperatorSpec;
/// let spec: OperatorSpec = "blur:gaussian,sigma=1.5".parse()?;
/// assert_eq!(spec.to_string(), "blur:gaussian,sigma=1.5,size=11,boundary=circular");
/// # Ok::<(), unnoise_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum OperatorSpec {
    /// [`Identity`].
    Identity,
    /// [`Mask::outside_box`].
    Box {
        /// Rows and columns.
        size: [usize; 2],
        /// Its first row and column; centred if absent.
        corner: Option<[usize; 2]>,
    },
    /// [`Mask::random`].
    RandomMask {
        /// The share of kept pixels.
        keep: f64,
        /// The seed.
        seed: u64,
    },
    /// [`Mask::new`], of the array `mask`.
    MaskFile {
        /// The file of the array.
        file: String,
    },
    /// The convolution with [`gaussian_kernel`] along both axes.
    GaussianBlur {
        /// The standard deviation in pixels.
        sigma: f64,
        /// The kernel's side.
        size: usize,
        /// Beyond the edge.
        boundary: Boundary,
    },
    /// The convolution with [`motion_kernel`].
    MotionBlur {
        /// In pixels.
        length: f64,
        /// In degrees.
        angle: f64,
        /// Beyond the edge.
        boundary: Boundary,
    },
    /// The convolution with [`trajectory_kernel`].
    TrajectoryBlur {
        /// The kernel's side.
        size: usize,
        /// The heading's standard deviation over the path in half turns.
        turning: f64,
        /// The seed.
        seed: u64,
        /// Beyond the edge.
        boundary: Boundary,
    },
    /// The convolution with the array `kernel`.
    BlurFile {
        /// The file of the array.
        file: String,
        /// The sum that the kernel is scaled to; none keeps it as it is.
        sum: Option<f64>,
        /// Beyond the edge.
        boundary: Boundary,
    },
    /// [`Separable::downsample`].
    Downsample {
        /// The integer factor.
        factor: usize,
        /// The weights.
        kernel: Downsampling,
    },
    /// [`Dense`], of the array `matrix`.
    Dense {
        /// The file of the array.
        file: String,
    },
}

impl OperatorSpec {
    /// Every form that a specification can take, shortened, for messages and help.
    pub const FORMS: [&str; 10] = [
        "identity",
        "box:SIZE[,top=,left=]",
        "mask:random,keep=[,seed=]",
        "mask:FILE",
        "blur:gaussian,sigma=[,size=][,boundary=]",
        "blur:motion,length=[,angle=][,boundary=]",
        "blur:trajectory,size=[,turning=][,seed=][,boundary=]",
        "blur:FILE[,sum=][,boundary=]",
        "downsample:FACTOR[,kernel=]",
        "dense:FILE",
    ];

    /// The array that the operator is made of and the file that holds it, which the caller reads into
    /// [`OperatorConfig::arrays`] under this name.
    pub fn file(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::MaskFile { file } => Some(("mask", file)),
            Self::BlurFile { file, .. } => Some(("kernel", file)),
            Self::Dense { file } => Some(("matrix", file)),
            _ => None,
        }
    }
}

impl fmt::Display for OperatorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity => f.write_str("identity"),
            Self::Box { size: [rows, columns], corner: None } => write!(f, "box:{rows}x{columns}"),
            Self::Box { size: [rows, columns], corner: Some([top, left]) } => {
                write!(f, "box:{rows}x{columns},top={top},left={left}")
            }
            Self::RandomMask { keep, seed } => write!(f, "mask:random,keep={keep},seed={seed}"),
            Self::MaskFile { file } => write!(f, "mask:{file}"),
            Self::GaussianBlur { sigma, size, boundary } => {
                write!(f, "blur:gaussian,sigma={sigma},size={size},boundary={boundary}")
            }
            Self::MotionBlur { length, angle, boundary } => {
                write!(f, "blur:motion,length={length},angle={angle},boundary={boundary}")
            }
            Self::TrajectoryBlur { size, turning, seed, boundary } => {
                write!(f, "blur:trajectory,size={size},turning={turning},seed={seed},boundary={boundary}")
            }
            Self::BlurFile { file, sum: None, boundary } => write!(f, "blur:{file},boundary={boundary}"),
            Self::BlurFile { file, sum: Some(sum), boundary } => write!(f, "blur:{file},sum={sum},boundary={boundary}"),
            Self::Downsample { factor, kernel } => write!(f, "downsample:{factor},kernel={kernel}"),
            Self::Dense { file } => write!(f, "dense:{file}"),
        }
    }
}

impl FromStr for OperatorSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (family, rest) = text.split_once(':').unwrap_or((text, ""));
        let mut options = Options::new(rest)?;
        let file = || options.head.to_owned();
        let spec = match (family.trim(), options.head) {
            ("identity", "") => Self::Identity,
            ("box", size) if !size.is_empty() => {
                let (rows, columns) = size.split_once('x').unwrap_or((size, size));
                let size = [integer("box", rows)?, integer("box", columns)?];
                let corner = match (options.integer("top")?, options.integer("left")?) {
                    (Some(top), Some(left)) => Some([top, left]),
                    (None, None) => None,
                    _ => return Err(argument("top and left", "given both or none", "one of them")),
                };
                Self::Box { size, corner }
            }
            ("mask", "random") => {
                Self::RandomMask { keep: required("keep", options.real("keep")?)?, seed: options.integer("seed")?.unwrap_or(0) }
            }
            ("mask", head) if !head.is_empty() => Self::MaskFile { file: file() },
            ("blur", "gaussian") => {
                let sigma = required("sigma", options.real("sigma")?)?;
                let size = options.integer("size")?.unwrap_or_else(|| gaussian_size(sigma));
                Self::GaussianBlur { sigma, size, boundary: options.boundary()? }
            }
            ("blur", "motion") => Self::MotionBlur {
                length: required("length", options.real("length")?)?,
                angle: options.real("angle")?.unwrap_or(0.0),
                boundary: options.boundary()?,
            },
            ("blur", "trajectory") => Self::TrajectoryBlur {
                size: required("size", options.integer("size")?)?,
                turning: options.real("turning")?.unwrap_or(0.5),
                seed: options.integer("seed")?.unwrap_or(0),
                boundary: options.boundary()?,
            },
            ("blur", head) if !head.is_empty() => {
                let sum = options.real("sum")?;
                if sum == Some(0.0) {
                    return Err(argument("sum", "other than 0, so that something comes through", "0"));
                }
                Self::BlurFile { file: file(), sum, boundary: options.boundary()? }
            }
            ("downsample", factor) if !factor.is_empty() => Self::Downsample {
                factor: integer("downsample", factor)?,
                kernel: options.take("kernel").map_or(Ok(Downsampling::default()), str::parse)?,
            },
            ("dense", head) if !head.is_empty() => Self::Dense { file: file() },
            _ => {
                let known = Self::FORMS.map(String::from).to_vec();
                return Err(Error::Unknown { kind: "operator", name: text.to_owned(), known });
            }
        };
        options.finish()?;
        Ok(spec)
    }
}

impl TryFrom<String> for OperatorSpec {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<OperatorSpec> for String {
    fn from(spec: OperatorSpec) -> Self {
        spec.to_string()
    }
}

/// `HEAD,name=value,...`, with the names that were asked for.
struct Options<'a> {
    head: &'a str,
    pairs: Vec<(&'a str, &'a str)>,
    known: Vec<&'static str>,
}

impl<'a> Options<'a> {
    fn new(text: &'a str) -> Result<Self> {
        let mut items = text.split(',').map(str::trim);
        let head = items.next().unwrap_or("");
        let mut pairs: Vec<(&str, &str)> = vec![];
        for item in items {
            let pair = item.split_once('=').ok_or_else(|| argument("operator option", "NAME=VALUE", item))?;
            if pairs.iter().any(|(name, _)| *name == pair.0) {
                return Err(argument("operator option", "given once", item));
            }
            pairs.push(pair);
        }
        Ok(Self { head, pairs, known: vec![] })
    }

    fn take(&mut self, name: &'static str) -> Option<&'a str> {
        self.known.push(name);
        let index = self.pairs.iter().position(|(n, _)| *n == name)?;
        Some(self.pairs.remove(index).1)
    }

    fn integer<T: FromStr>(&mut self, name: &'static str) -> Result<Option<T>> {
        self.take(name).map(|text| integer(name, text)).transpose()
    }

    fn real(&mut self, name: &'static str) -> Result<Option<f64>> {
        let parse = |text: &str| text.parse().ok().filter(|v: &f64| v.is_finite()).ok_or_else(|| argument(name, "a number", text));
        self.take(name).map(parse).transpose()
    }

    fn boundary(&mut self) -> Result<Boundary> {
        self.take("boundary").map_or(Ok(Boundary::default()), str::parse)
    }

    /// Refuses what nobody asked for.
    fn finish(self) -> Result<()> {
        let Some((name, _)) = self.pairs.first() else { return Ok(()) };
        let known = self.known.iter().map(ToString::to_string).collect();
        Err(Error::Unknown { kind: "option", name: (*name).to_owned(), known })
    }
}

fn integer<T: FromStr>(what: &'static str, text: &str) -> Result<T> {
    text.parse().map_err(|_| argument(what, "a whole number", text))
}

fn required<T>(what: &'static str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| argument(what, "given", "nothing"))
}

fn argument(what: &'static str, expected: &str, got: &str) -> Error {
    Error::Argument { what, expected: expected.into(), got: got.into(), at: "operator specification" }
}

/// A specification with the arrays that it names: all that is needed to build the operator again.
///
/// Serialised, it is `{"spec": "..."}` without the arrays, which a measurement file keeps beside it under their names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperatorConfig {
    /// The specification.
    pub spec: OperatorSpec,
    /// The arrays by name: what [`OperatorSpec::file`] asks for.
    #[serde(skip)]
    pub arrays: BTreeMap<String, ArrayD<f64>>,
}

impl From<OperatorSpec> for OperatorConfig {
    fn from(spec: OperatorSpec) -> Self {
        Self { spec, arrays: BTreeMap::new() }
    }
}

impl OperatorConfig {
    /// The operator on images of the shape `shape`.
    ///
    /// # Errors
    /// [`Error::Argument`] for an array that is missing, has not two axes, or has a sum of 0 where it is to be scaled; those of the
    /// operator.
    pub fn build(&self, shape: Shape) -> Result<Box<dyn Operator>> {
        let spec = self.spec.to_string();
        Ok(match &self.spec {
            OperatorSpec::Identity => Box::new(Identity::new(shape)),
            OperatorSpec::Box { size, corner } => Box::new(Mask::outside_box(*size, *corner, shape)?),
            OperatorSpec::RandomMask { keep, seed } => Box::new(Mask::random(*keep, *seed, shape)?),
            OperatorSpec::MaskFile { .. } => Box::new(Mask::new(&self.array()?.mapv(|v| v > 0.5), shape, spec)?),
            OperatorSpec::GaussianBlur { sigma, size, boundary } => {
                let kernel = gaussian_kernel(*sigma, *size)?;
                match boundary {
                    Boundary::Reflect => Box::new(Separable::blur(&kernel, *boundary, shape, spec)?),
                    Boundary::Circular => {
                        let square = Array2::from_shape_fn((*size, *size), |(i, j)| kernel[i] * kernel[j]);
                        Box::new(Convolution::new(&square, *boundary, shape, spec)?)
                    }
                }
            }
            OperatorSpec::MotionBlur { length, angle, boundary } => {
                Box::new(Convolution::new(&motion_kernel(*length, *angle)?, *boundary, shape, spec)?)
            }
            OperatorSpec::TrajectoryBlur { size, turning, seed, boundary } => {
                Box::new(Convolution::new(&trajectory_kernel(*size, *turning, *seed)?, *boundary, shape, spec)?)
            }
            OperatorSpec::BlurFile { sum, boundary, .. } => {
                let mut kernel = self.array()?;
                if let Some(sum) = sum {
                    let (own, size) = (kernel.sum(), kernel.iter().map(|v| v.abs()).sum::<f64>());
                    // Below, the sum is rounding, and the scaled kernel would be too.
                    if own.abs() <= 1e-12 * size {
                        return Err(argument("kernel", "of a sum that can be scaled", &format!("a sum of {own}")));
                    }
                    kernel *= sum / own;
                }
                Box::new(Convolution::new(&kernel, *boundary, shape, spec)?)
            }
            OperatorSpec::Downsample { factor, kernel } => Box::new(Separable::downsample(*factor, *kernel, shape, spec)?),
            OperatorSpec::Dense { .. } => Box::new(Dense::new(self.array()?, shape)?),
        })
    }

    /// The specification's one array.
    fn array(&self) -> Result<Array2<f64>> {
        let (name, file) = self.spec.file().expect("asked only for specifications of a file");
        let array = self.arrays.get(name).ok_or_else(|| argument(name, &format!("read from {file}"), "no array"))?;
        let two_axes = array.clone().into_dimensionality::<Ix2>();
        two_axes.map_err(|_| argument(name, "an array of two axes", &format!("shape {:?}", array.shape())))
    }
}
