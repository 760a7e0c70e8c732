//! PNG and JPEG, pixels as they are stored.

use std::io::{Cursor, Read, Write};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};
use ndarray::Array3;

use crate::{Error, Limits, Result};

/// Quality of the JPEGs that are written: artefacts below what an 8-bit display shows.
const JPEG_QUALITY: u8 = 95;

/// Reads a PNG or JPEG (told apart by their content) as `[c, h, w]` in `[0, 1]`, `c` being 1 or 3.
pub(crate) fn read_picture(path: &Path, limits: Limits) -> Result<Array3<f64>> {
    let file = std::fs::File::open(path).map_err(Error::io("read", path))?;
    let mut bytes = Vec::new();
    file.take(limits.encoded + 1).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    if bytes.len() as u64 > limits.encoded {
        let limit = format!("{} bytes", limits.encoded);
        return Err(Error::limit(path, "the encoded image", "larger".into(), limit));
    }
    decode_picture(&bytes, path, limits)
}

/// Decodes a PNG or JPEG in memory; `path` names it in messages.
///
/// Grayscale stays `[1, h, w]`, palettes and colour become `[3, h, w]`; 8 bits are divided by 255 and 16 by 65535. Values are taken as
/// stored, without undoing a gamma curve or a colour profile. What is transparent is seen on white. A camera's orientation tag is
/// applied.
///
/// # Errors
/// [`Error::Content`] for what is no image or is cut off, [`Error::Limit`] before a large one is decoded, [`Error::Unsupported`].
pub fn decode_picture(bytes: &[u8], path: &Path, limits: Limits) -> Result<Array3<f64>> {
    let undecodable = |e: image::ImageError| match e {
        image::ImageError::Limits(e) => Error::limit(path, "the image", e.to_string(), format!("{} values", limits.values)),
        image::ImageError::Unsupported(e) => Error::unsupported(path, e.to_string(), "PNG and JPEG, gray or RGB, 8 or 16 bits"),
        e => Error::content(path, "the image", "an intact PNG or JPEG", e.to_string()),
    };
    let format = match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg)) => format,
        Ok(other) => return Err(Error::unsupported(path, format!("{other:?}"), "PNG, JPEG, .npy and .npz")),
        Err(_) if bytes.is_empty() => return Err(Error::content(path, "the image", "a PNG or JPEG", "an empty file")),
        Err(_) => return Err(Error::content(path, "the image", "a PNG or JPEG", "something else")),
    };
    if format == ImageFormat::Jpeg && !jpeg_is_complete(bytes) {
        return Err(Error::content(path, "the image", "an intact JPEG", "one without its end (truncated?)"));
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut decoder_limits = image::Limits::default();
    decoder_limits.max_alloc = Some(limits.values.saturating_mul(4));
    reader.limits(decoder_limits);
    let mut decoder = reader.into_decoder().map_err(undecodable)?;
    let (w, h) = decoder.dimensions();
    let values = u64::from(w) * u64::from(h) * u64::from(decoder.color_type().channel_count());
    if values > limits.values {
        return Err(Error::limit(path, "the image", format!("{w} x {h}"), format!("{} values", limits.values)));
    }
    let orientation = decoder.orientation().map_err(undecodable)?;
    let mut decoded = DynamicImage::from_decoder(decoder).map_err(undecodable)?;
    decoded.apply_orientation(orientation);
    planes(&decoded).ok_or_else(|| Error::unsupported(path, format!("{:?}", decoded.color()), "gray or RGB, 8 or 16 bits"))
}

/// Interleaved pixels to planes, transparency onto white.
fn planes(decoded: &DynamicImage) -> Option<Array3<f64>> {
    let (h, w) = (decoded.height() as usize, decoded.width() as usize);
    let color = decoded.color();
    let (stored, alpha) = (usize::from(color.channel_count()), usize::from(color.has_alpha()));
    let bytes = decoded.as_bytes();
    let value: Box<dyn Fn(usize) -> f64> = match usize::from(color.bytes_per_pixel()) / stored {
        1 => Box::new(move |i| f64::from(bytes[i]) / 255.0),
        2 => Box::new(move |i| f64::from(u16::from_ne_bytes([bytes[2 * i], bytes[2 * i + 1]])) / 65535.0),
        _ => return None,
    };
    Some(Array3::from_shape_fn((stored - alpha, h, w), |(c, y, x)| {
        let pixel = (y * w + x) * stored;
        let opacity = if alpha == 1 { value(pixel + stored - 1) } else { 1.0 };
        value(pixel + c) * opacity + (1.0 - opacity)
    }))
}

/// Whether the compressed data end with the end-of-image marker; the decoder would fill what is missing with gray.
///
/// # Reference
/// ITU-T T.81, B.1.1: markers are 0xFF and a non-zero byte; segments carry their length; within a scan 0xFF is followed by 0x00 or by a
/// restart marker.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    let mut at = 2;
    let mut in_scan = false;
    while let Some(&[first, second]) = bytes.get(at..at + 2).and_then(|pair| pair.as_array::<2>()) {
        match (first, second) {
            (0xFF, 0xD9) => return true,
            (0xFF, 0xFF) => at += 1,
            (0xFF, 0x01 | 0xD0..=0xD8) => at += 2,
            (0xFF, 0x00) if in_scan => at += 2,
            (0xFF, 0x00) => return false,
            (0xFF, marker) => {
                let Some(&[high, low]) = bytes.get(at + 2..at + 4).and_then(|pair| pair.as_array::<2>()) else { return false };
                at += 2 + usize::from(u16::from_be_bytes([high, low])).max(2);
                in_scan = marker == 0xDA;
            }
            _ if in_scan => at += 1,
            _ => return false,
        }
    }
    false
}

/// Interleaved 8-bit pixels that are ready to be encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bytes {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// 1 or 3.
    pub(crate) channels: usize,
    pub(crate) values: Vec<u8>,
}

impl Bytes {
    pub(crate) fn encode(&self, format: ImageFormat, writer: &mut dyn Write) -> std::io::Result<()> {
        let color = if self.channels == 1 { image::ExtendedColorType::L8 } else { image::ExtendedColorType::Rgb8 };
        let (w, h) = (self.width as u32, self.height as u32);
        let encoded = match format {
            ImageFormat::Jpeg => {
                image::codecs::jpeg::JpegEncoder::new_with_quality(writer, JPEG_QUALITY).encode(&self.values, w, h, color)
            }
            _ => image::ImageEncoder::write_image(image::codecs::png::PngEncoder::new(writer), &self.values, w, h, color),
        };
        encoded.map_err(|e| match e {
            image::ImageError::IoError(e) => e,
            e => std::io::Error::other(e),
        })
    }
}
