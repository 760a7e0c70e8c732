//! Pictures that are made to be looked at.

mod color;
mod font;
mod panel;
mod sheet;

pub use panel::*;
pub(crate) use sheet::sheet_of;
pub use sheet::{SheetConfig, sheet};

use std::path::Path;

use image::ImageFormat;
use ndarray::ArrayView3;

use crate::image::{Bytes, to_byte};
use crate::{Error, Format, Overwrite, Result, write_atomic};

/// A colour, red, green and blue.
pub type Rgb = [u8; 3];

/// Paper.
pub const WHITE: Rgb = [255, 255, 255];
/// Text.
pub const INK: Rgb = [38, 38, 38];

/// An RGB canvas; what is drawn outside of it is cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<Rgb>,
}

impl Picture {
    /// A white canvas.
    pub fn new(width: usize, height: usize) -> Self {
        Self { width, height, pixels: vec![WHITE; width * height] }
    }

    /// Its width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Its height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The colour of a pixel inside the canvas.
    ///
    /// # Panics
    /// Outside the canvas.
    pub fn pixel(&self, x: usize, y: usize) -> Rgb {
        self.pixels[y * self.width + x]
    }

    /// Fills a rectangle.
    pub fn fill(&mut self, x: usize, y: usize, width: usize, height: usize, color: Rgb) {
        let (right, bottom) = ((x + width).min(self.width), (y + height).min(self.height));
        for row in y..bottom {
            if x < right {
                self.pixels[row * self.width + x..row * self.width + right].fill(color);
            }
        }
    }

    /// Draws an image `[c, h, w]` in `[0, 1]`, gray or RGB, each pixel as a square of `scale`.
    ///
    /// A pixel that is NaN was not measured and is drawn as a light hatching.
    pub fn image(&mut self, x: usize, y: usize, scale: usize, image: ArrayView3<'_, f64>) {
        let (c, h, w) = image.dim();
        for i in 0..h {
            for j in 0..w {
                let channel = |k: usize| image[[if c == 3 { k } else { 0 }, i, j]];
                let (left, top) = (x + j * scale, y + i * scale);
                if channel(0).is_nan() {
                    self.hatch(left, top, scale);
                } else {
                    self.fill(left, top, scale, scale, [0, 1, 2].map(|k| to_byte(channel(k))));
                }
            }
        }
    }

    fn hatch(&mut self, x: usize, y: usize, size: usize) {
        for row in y..y + size {
            for column in x..x + size {
                let line = (row + column) % 6 < 2;
                self.fill(column, row, 1, 1, if line { [206, 206, 206] } else { [240, 240, 240] });
            }
        }
    }

    /// Writes the picture as PNG or JPEG, atomically.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for another ending; as [`write_atomic`].
    pub fn write(&self, path: &Path, overwrite: Overwrite) -> Result<()> {
        let format = match Format::of(path)? {
            Format::Png => ImageFormat::Png,
            Format::Jpeg => ImageFormat::Jpeg,
            _ => return Err(Error::unsupported(path, "a picture as an array", ".png, .jpg and .jpeg")),
        };
        let bytes = self.bytes();
        write_atomic(path, overwrite, |w| bytes.encode(format, w))
    }

    /// The bytes of a PNG file, for a page or a log.
    pub fn to_png(&self) -> Vec<u8> {
        let mut png = Vec::new();
        self.bytes().encode(ImageFormat::Png, &mut png).expect("encoding into memory needs nothing that could fail");
        png
    }

    fn bytes(&self) -> Bytes {
        Bytes { width: self.width, height: self.height, channels: 3, values: self.pixels.concat() }
    }
}
