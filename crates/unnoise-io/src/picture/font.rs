//! Letters of 5 by 7 pixels and a row below the line, drawn for this project.

use super::{Picture, Rgb};

/// Rows of a glyph, the last one below the line.
const ROWS: usize = 8;
/// Columns of its cell; what is empty at either side is left away.
const COLUMNS: usize = 5;
const SPACE: usize = 3;

/// The height of a line of text at `scale`, without leading.
pub(super) fn line_height(scale: usize) -> usize {
    ROWS * scale
}

/// The width of a text at `scale`.
pub(super) fn text_width(text: &str, scale: usize) -> usize {
    let columns: usize = text.chars().map(|c| advance(rows(c))).sum();
    columns.saturating_sub(1) * scale
}

impl Picture {
    /// Writes one line of text with its upper left corner at `x`, `y`. A character without a glyph is a box.
    pub fn text(&mut self, x: usize, y: usize, scale: usize, color: Rgb, text: &str) {
        let mut left = x;
        for c in text.chars() {
            let glyph = rows(c);
            let indent = extent(glyph).map_or(0, |(first, _)| first);
            for (row, bits) in glyph.into_iter().enumerate() {
                for column in (0..COLUMNS).filter(|column| bits >> (COLUMNS - 1 - column) & 1 == 1) {
                    self.fill(left + (column - indent) * scale, y + row * scale, scale, scale, color);
                }
            }
            left += advance(glyph) * scale;
        }
    }
}

/// First and last used column.
fn extent(glyph: [u8; ROWS]) -> Option<(usize, usize)> {
    let used = glyph.iter().fold(0, |all, row| all | row);
    let mut columns = (0..COLUMNS).filter(|column| used >> (COLUMNS - 1 - column) & 1 == 1);
    let first = columns.next()?;
    Some((first, columns.next_back().unwrap_or(first)))
}

fn advance(glyph: [u8; ROWS]) -> usize {
    extent(glyph).map_or(SPACE, |(first, last)| last - first + 1) + 1
}

fn rows(c: char) -> [u8; ROWS] {
    let glyph = GLYPHS.iter().find(|(known, _)| *known == c).map_or(0x1F_11_11_11_11_11_1F_00, |(_, glyph)| *glyph);
    u64::to_be_bytes(glyph)
}

/// Eight rows each, from the top; the lowest five bits of a byte are the pixels.
const GLYPHS: [(char, u64); 94] = [
    (' ', 0),
    ('A', 0x0E_11_11_1F_11_11_11_00),
    ('B', 0x1E_11_11_1E_11_11_1E_00),
    ('C', 0x0E_11_10_10_10_11_0E_00),
    ('D', 0x1E_11_11_11_11_11_1E_00),
    ('E', 0x1F_10_10_1E_10_10_1F_00),
    ('F', 0x1F_10_10_1E_10_10_10_00),
    ('G', 0x0E_11_10_17_11_11_0F_00),
    ('H', 0x11_11_11_1F_11_11_11_00),
    ('I', 0x0E_04_04_04_04_04_0E_00),
    ('J', 0x07_02_02_02_02_12_0C_00),
    ('K', 0x11_12_14_18_14_12_11_00),
    ('L', 0x10_10_10_10_10_10_1F_00),
    ('M', 0x11_1B_15_15_11_11_11_00),
    ('N', 0x11_11_19_15_13_11_11_00),
    ('O', 0x0E_11_11_11_11_11_0E_00),
    ('P', 0x1E_11_11_1E_10_10_10_00),
    ('Q', 0x0E_11_11_11_15_12_0D_00),
    ('R', 0x1E_11_11_1E_14_12_11_00),
    ('S', 0x0F_10_10_0E_01_01_1E_00),
    ('T', 0x1F_04_04_04_04_04_04_00),
    ('U', 0x11_11_11_11_11_11_0E_00),
    ('V', 0x11_11_11_11_11_0A_04_00),
    ('W', 0x11_11_11_15_15_15_0A_00),
    ('X', 0x11_11_0A_04_0A_11_11_00),
    ('Y', 0x11_11_0A_04_04_04_04_00),
    ('Z', 0x1F_01_02_04_08_10_1F_00),
    ('a', 0x00_00_0E_01_0F_11_0F_00),
    ('b', 0x10_10_1E_11_11_11_1E_00),
    ('c', 0x00_00_0E_11_10_11_0E_00),
    ('d', 0x01_01_0F_11_11_11_0F_00),
    ('e', 0x00_00_0E_11_1F_10_0E_00),
    ('f', 0x06_08_1E_08_08_08_08_00),
    ('g', 0x00_00_0F_11_11_0F_01_0E),
    ('h', 0x10_10_1E_11_11_11_11_00),
    ('i', 0x04_00_0C_04_04_04_0E_00),
    ('j', 0x02_00_06_02_02_02_12_0C),
    ('k', 0x10_10_12_14_18_14_12_00),
    ('l', 0x0C_04_04_04_04_04_0E_00),
    ('m', 0x00_00_1A_15_15_15_15_00),
    ('n', 0x00_00_1E_11_11_11_11_00),
    ('o', 0x00_00_0E_11_11_11_0E_00),
    ('p', 0x00_00_1E_11_11_1E_10_10),
    ('q', 0x00_00_0F_11_11_0F_01_01),
    ('r', 0x00_00_16_19_10_10_10_00),
    ('s', 0x00_00_0F_10_0E_01_1E_00),
    ('t', 0x08_08_1E_08_08_09_06_00),
    ('u', 0x00_00_11_11_11_13_0D_00),
    ('v', 0x00_00_11_11_11_0A_04_00),
    ('w', 0x00_00_11_11_15_15_0A_00),
    ('x', 0x00_00_11_0A_04_0A_11_00),
    ('y', 0x00_00_11_11_11_0F_01_0E),
    ('z', 0x00_00_1F_02_04_08_1F_00),
    ('0', 0x0E_11_13_15_19_11_0E_00),
    ('1', 0x04_0C_04_04_04_04_0E_00),
    ('2', 0x0E_11_01_02_04_08_1F_00),
    ('3', 0x1F_02_04_02_01_11_0E_00),
    ('4', 0x02_06_0A_12_1F_02_02_00),
    ('5', 0x1F_10_1E_01_01_11_0E_00),
    ('6', 0x06_08_10_1E_11_11_0E_00),
    ('7', 0x1F_01_02_04_04_04_04_00),
    ('8', 0x0E_11_11_0E_11_11_0E_00),
    ('9', 0x0E_11_11_0F_01_02_0C_00),
    ('.', 0x00_00_00_00_00_0C_0C_00),
    (',', 0x00_00_00_00_00_0C_0C_08),
    (':', 0x00_00_0C_0C_00_0C_0C_00),
    (';', 0x00_00_0C_0C_00_0C_0C_08),
    ('-', 0x00_00_00_0E_00_00_00_00),
    ('_', 0x00_00_00_00_00_00_1F_00),
    ('+', 0x00_04_04_1F_04_04_00_00),
    ('=', 0x00_00_1F_00_1F_00_00_00),
    ('/', 0x01_01_02_04_08_10_10_00),
    ('\\', 0x10_10_08_04_02_01_01_00),
    ('(', 0x02_04_08_08_08_04_02_00),
    (')', 0x08_04_02_02_02_04_08_00),
    ('[', 0x0E_08_08_08_08_08_0E_00),
    (']', 0x0E_02_02_02_02_02_0E_00),
    ('<', 0x02_04_08_10_08_04_02_00),
    ('>', 0x08_04_02_01_02_04_08_00),
    ('%', 0x18_19_02_04_08_13_03_00),
    ('#', 0x0A_0A_1F_0A_1F_0A_0A_00),
    ('*', 0x00_04_15_0E_15_04_00_00),
    ('|', 0x04_04_04_04_04_04_04_04),
    ('^', 0x04_0A_11_00_00_00_00_00),
    ('~', 0x00_00_08_15_02_00_00_00),
    ('!', 0x04_04_04_04_04_00_04_00),
    ('?', 0x0E_11_01_02_04_00_04_00),
    ('\'', 0x04_04_08_00_00_00_00_00),
    ('"', 0x0A_0A_0A_00_00_00_00_00),
    ('&', 0x0C_12_14_08_15_12_0D_00),
    ('±', 0x04_04_1F_04_04_00_1F_00),
    ('×', 0x00_11_0A_04_0A_11_00_00),
    ('σ', 0x00_00_0F_12_11_11_0E_00),
    ('²', 0x0C_12_04_08_1E_00_00_00),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::INK;

    #[test]
    fn glyphs_are_distinct_and_fit_their_cell() {
        for (i, (c, glyph)) in GLYPHS.iter().enumerate() {
            assert!(rows(*c).iter().all(|row| *row < 32), "{c}");
            assert!(GLYPHS[..i].iter().all(|(other, drawn)| other != c && drawn != glyph), "{c}");
        }
    }

    #[test]
    fn text_is_as_wide_as_it_says() {
        for text in ["measurement", "PSNR 24.3 dB", "i", "χ"] {
            let mut picture = Picture::new(400, line_height(2));
            picture.text(0, 0, 2, INK, text);
            let used = |x: &usize| (0..picture.height()).any(|y| picture.pixel(*x, y) == INK);
            assert_eq!((0..400).rfind(used), Some(text_width(text, 2) - 1), "{text}");
        }
    }
}
