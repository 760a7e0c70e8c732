//! Images beside each other, with captions.

use ndarray::{Array3, ArrayView3, ArrayView4, Axis};

use super::color::cubehelix;
use super::font::{line_height, text_width};
use super::{INK, Picture, Rgb};
use crate::Range;

const PALE: Rgb = [110, 110, 110];
const FRAME: Rgb = [196, 196, 196];
/// Text is drawn at twice the glyphs' size.
const TEXT: usize = 2;
const MARGIN: usize = 20;
const GAP: usize = 18;
const BAR: usize = 14;

/// One image of a panel.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    image: Array3<f64>,
    title: String,
    note: String,
    scale_max: Option<f64>,
}

impl Cell {
    /// An image `[c, h, w]` in `range`, gray or RGB; NaN is what was not measured and is hatched.
    pub fn new(title: impl Into<String>, image: ArrayView3<'_, f64>, range: Range) -> Self {
        Self { image: image.mapv(|v| range.to_unit(v)), title: title.into(), note: String::new(), scale_max: None }
    }

    /// A quantity that is not negative, such as a standard deviation, in colours with their scale beside it: from 0 to the next round number above its
    /// largest value. Channels are combined as their root mean square.
    pub fn quantity(title: impl Into<String>, values: ArrayView3<'_, f64>) -> Self {
        let single = values.mapv(|v| v * v).mean_axis(Axis(0)).map(|a| a.mapv(f64::sqrt)).unwrap_or_default();
        let max = round_up(single.iter().copied().filter(|v| v.is_finite()).fold(0.0, f64::max));
        Self { image: single.insert_axis(Axis(0)), title: title.into(), note: String::new(), scale_max: Some(max) }
    }

    /// A second line below the title.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    fn scale_labels(&self) -> Option<[String; 2]> {
        self.scale_max.map(|max| ["0".into(), format!("{max}")])
    }

    fn width(&self, scale: usize) -> usize {
        let labels = self
            .scale_labels()
            .map_or(0, |labels| 8 + BAR + 6 + labels.map(|l| text_width(&l, TEXT)).into_iter().fold(0, usize::max));
        let image = self.image.dim().2 * scale + labels;
        image.max(text_width(&self.title, TEXT)).max(text_width(&self.note, TEXT))
    }

    fn draw(&self, picture: &mut Picture, x: usize, y: usize, scale: usize, caption: usize) {
        let (_, h, w) = self.image.dim();
        let (wide, high) = (w * scale, h * scale);
        picture.fill(x - 1, y - 1, wide + 2, high + 2, FRAME);
        match self.scale_max {
            None => picture.image(x, y, scale, self.image.view()),
            Some(max) => {
                for ((_, i, j), v) in self.image.indexed_iter() {
                    picture.fill(x + j * scale, y + i * scale, scale, scale, cubehelix(v / max));
                }
                self.draw_scale(picture, x + wide + 8, y, high);
            }
        }
        picture.text(x, caption, TEXT, INK, &self.title);
        picture.text(x, caption + line_height(TEXT) + 4, TEXT, PALE, &self.note);
    }

    fn draw_scale(&self, picture: &mut Picture, x: usize, y: usize, height: usize) {
        picture.fill(x - 1, y - 1, BAR + 2, height + 2, FRAME);
        for row in 0..height {
            picture.fill(x, y + row, BAR, 1, cubehelix(1.0 - (row as f64 + 0.5) / height as f64));
        }
        if let Some([low, high]) = self.scale_labels() {
            picture.text(x + BAR + 6, y, TEXT, INK, &high);
            picture.text(x + BAR + 6, (y + height).saturating_sub(line_height(TEXT) - TEXT), TEXT, INK, &low);
        }
    }
}

/// The next of 1, 2, 2.5, 5 times a power of ten that is not below `value`; a scale of 1 where there is nothing to show.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0];
    let up = steps.iter().find(|step| *step * power >= value * (1.0 - 1e-12)).copied().unwrap_or(10.0) * power;
    // To the nearest short decimal: 0.30000000000000004 is no label.
    let digits = (2.0 - power.log10()).round().clamp(0.0, 15.0) as i32;
    (up * 10_f64.powi(digits)).round() / 10_f64.powi(digits)
}

/// Rows of captioned images on white; an image pixel becomes a square of `scale`, by default so that an image is about 160 pixels wide.
pub fn panel(rows: &[Vec<Cell>], scale: Option<usize>) -> Picture {
    let cells = || rows.iter().flatten();
    let side = cells().map(|cell| cell.image.dim().1.max(cell.image.dim().2)).max().unwrap_or(1);
    let scale = scale.unwrap_or(160 / side.max(1)).max(1);
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> =
        (0..columns).map(|j| rows.iter().filter_map(|row| row.get(j)).map(|cell| cell.width(scale)).max().unwrap_or(0)).collect();
    let image_height = |row: &[Cell]| row.iter().map(|cell| cell.image.dim().1 * scale).max().unwrap_or(0);
    let caption_height = |row: &[Cell]| {
        let lines = if row.iter().any(|cell| !cell.note.is_empty()) {
            2
        } else {
            usize::from(row.iter().any(|cell| !cell.title.is_empty()))
        };
        lines * (line_height(TEXT) + 4) + 4
    };
    let height: usize = rows.iter().map(|row| image_height(row) + caption_height(row) + GAP).sum();
    let width = widths.iter().sum::<usize>() + GAP * columns.saturating_sub(1);
    let mut picture = Picture::new(width + 2 * MARGIN, (height + 2 * MARGIN).saturating_sub(GAP));
    let mut top = MARGIN;
    for row in rows {
        let mut left = MARGIN;
        for (cell, width) in row.iter().zip(&widths) {
            cell.draw(&mut picture, left, top, scale, top + image_height(row) + 8);
            left += width + GAP;
        }
        top += image_height(row) + caption_height(row) + GAP;
    }
    picture
}

/// What a reconstruction found, for its picture. All images are in one range; the deviation is in its units.
#[derive(Clone, Copy, Debug)]
pub struct ReconstructionView<'a> {
    /// The true image, if it is known.
    pub truth: Option<ArrayView3<'a, f64>>,
    /// The measurement as an image; NaN where nothing was measured. Its size need not be that of the others.
    pub measurement: ArrayView3<'a, f64>,
    /// The posterior mean.
    pub mean: ArrayView3<'a, f64>,
    /// The posterior standard deviation.
    pub deviation: ArrayView3<'a, f64>,
    /// The posterior samples.
    pub samples: ArrayView4<'a, f64>,
    /// A line below the mean, such as its PSNR.
    pub mean_note: &'a str,
}

impl ReconstructionView<'_> {
    /// The cells of one row: truth, measurement, mean, standard deviation, and the first `samples` samples. The deviation's scale is in units of `[0, 1]`
    /// pixels. A measurement that is smaller is enlarged by the whole factor that fits.
    pub fn cells(&self, range: Range, samples: usize) -> Vec<Cell> {
        let deviation = self.deviation.mapv(|v| v / range.width());
        let measurement = enlarge(self.measurement, self.mean.dim().1);
        let mut cells: Vec<Cell> = self.truth.iter().map(|truth| Cell::new("truth", *truth, range)).collect();
        cells.push(Cell::new("measurement", measurement.view(), range));
        cells.push(Cell::new("mean", self.mean, range).with_note(self.mean_note));
        cells.push(Cell::quantity("standard deviation", deviation.view()));
        let shown = self.samples.axis_iter(Axis(0)).take(samples).enumerate();
        cells.extend(shown.map(|(i, sample)| Cell::new(format!("sample {}", i + 1), sample, range)));
        cells
    }

    /// The picture of one reconstruction with its first five samples.
    pub fn panel(&self, range: Range) -> Picture {
        panel(&[self.cells(range, 5)], None)
    }
}

fn enlarge(image: ArrayView3<'_, f64>, side: usize) -> Array3<f64> {
    let (c, h, w) = image.dim();
    let factor = (side / h.max(1)).max(1);
    Array3::from_shape_fn((c, h * factor, w * factor), |(c, i, j)| image[[c, i / factor, j / factor]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_at_round_numbers() {
        for (value, expected) in
            [(0.0, 1.0), (0.31, 0.5), (0.2, 0.2), (0.0501, 0.1), (0.022, 0.025), (3.0, 5.0), (99.0, 100.0), (1e-9, 1e-9)]
        {
            assert!((round_up(value) / expected - 1.0).abs() < 1e-12, "{value}: {}", round_up(value));
            assert!(round_up(value).to_string().len() < 14, "{}", round_up(value));
        }
    }

    #[test]
    fn every_pixel_is_where_it_belongs() {
        let image =
            Array3::from_shape_fn((1, 4, 4), |(_, i, j)| if (i, j) == (1, 2) { f64::NAN } else { (i * 4 + j) as f64 / 15.0 });
        let deviation = Array3::from_elem((1, 4, 4), 0.5);
        let samples = image.clone().insert_axis(Axis(0));
        let view = ReconstructionView {
            truth: None,
            measurement: image.view(),
            mean: image.view(),
            deviation: deviation.view(),
            samples: samples.view(),
            mean_note: "",
        };
        let picture = panel(&[view.cells(Range::Unit, 5)], Some(10));
        let at = |i: usize, j: usize| picture.pixel(MARGIN + j * 10 + 5, MARGIN + i * 10 + 5);
        assert_eq!((at(0, 0), at(3, 3), at(0, 3)), ([0; 3], [255; 3], [51; 3]));
        assert!(at(1, 2) == [206; 3] || at(1, 2) == [240; 3], "hatched");
        assert_eq!(picture.pixel(0, 0), [255; 3]);
        // The largest deviation has the colour of the scale's end.
        let x = MARGIN + view.cells(Range::Unit, 0)[0].width(10) + GAP + view.cells(Range::Unit, 0)[1].width(10) + GAP;
        assert_eq!(picture.pixel(x + 5, MARGIN + 5), cubehelix(1.0));
    }

    #[test]
    fn nothing_is_a_blank_sheet() {
        assert_eq!(panel(&[], None).width(), 2 * MARGIN);
        assert_eq!(panel(&[vec![]], None).width(), 2 * MARGIN);
    }
}
