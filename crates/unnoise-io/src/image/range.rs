//! What the numbers of a pixel mean.

/// The range of pixel values: black to white.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Range {
    /// `[0, 1]`, the range of measurements and of stored pictures.
    #[default]
    Unit,
    /// `[-1, 1]`, the range of models: `2 u - 1`.
    Symmetric,
}

impl Range {
    /// Black.
    pub fn min(self) -> f64 {
        match self {
            Self::Unit => 0.0,
            Self::Symmetric => -1.0,
        }
    }

    /// White minus black.
    pub fn width(self) -> f64 {
        1.0 - self.min()
    }

    /// The number that stands in this range for `u` in `[0, 1]`.
    pub fn from_unit(self, u: f64) -> f64 {
        self.min() + self.width() * u
    }

    /// The number in `[0, 1]` for which `value` stands; not clamped.
    pub fn to_unit(self, value: f64) -> f64 {
        (value - self.min()) / self.width()
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unit => "[0, 1]",
            Self::Symmetric => "[-1, 1]",
        })
    }
}
