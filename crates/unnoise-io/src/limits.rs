//! How much a reader may take.

/// Checked before anything is allocated, so that a small or damaged file cannot exhaust the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most values (pixels times channels times images) that one array may hold.
    pub values: u64,
    /// The most bytes that an encoded image (PNG, JPEG) may have.
    pub encoded: u64,
}

impl Default for Limits {
    /// 2^28 values (2 GiB as `f64`) and encoded images of 512 MiB.
    fn default() -> Self {
        Self { values: 1 << 28, encoded: 512 << 20 }
    }
}
