//! Many images on one sheet.

use ndarray::Axis;
use unnoise_core::Batch;

use super::Picture;
use crate::Range;

/// How images are laid out on a sheet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SheetConfig {
    /// Images in a row; by default as nearly square as their number allows.
    pub columns: Option<usize>,
    /// Pixels per image pixel; by default about 128 for an image.
    pub scale: Option<usize>,
}

/// All images of a batch `[n, c, h, w]` as a grid on white, clamped to `range`.
pub fn sheet(images: &Batch, range: Range, config: SheetConfig) -> Picture {
    let (n, _, h, w) = images.dim();
    let scale = config.scale.unwrap_or_else(|| default_scale(h.max(w))).max(1);
    let columns = config.columns.unwrap_or_else(|| (n as f64).sqrt().ceil() as usize).clamp(1, n.max(1));
    let gap = (h.max(w) * scale / 20).clamp(2, 12);
    let (cell_w, cell_h) = (w * scale + gap, h * scale + gap);
    let mut picture = Picture::new(columns * cell_w + gap, n.div_ceil(columns) * cell_h + gap);
    for (i, image) in images.axis_iter(Axis(0)).enumerate() {
        let unit = image.mapv(|v| range.to_unit(v));
        picture.image(gap + i % columns * cell_w, gap + i / columns * cell_h, scale, unit.view());
    }
    picture
}

pub(crate) fn sheet_of(images: &Batch, range: Range) -> Picture {
    sheet(images, range, SheetConfig::default())
}

/// Pixels per image pixel that make a small image large enough to see.
pub(crate) fn default_scale(side: usize) -> usize {
    (128 / side.max(1)).max(1)
}
