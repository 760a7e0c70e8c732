//! TensorBoard's event files.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::{Error, Picture, Result};

/// Writes an event file that TensorBoard shows: curves and pictures.
///
/// # Reference
/// TensorFlow's `event.proto` and `summary.proto` (field numbers stand beside their use) and the TFRecord framing: length (u64), masked CRC-32C of
/// the length, the data, masked CRC-32C of the data.
#[derive(Debug)]
pub struct EventLog {
    file: File,
    path: PathBuf,
}

impl EventLog {
    /// Starts an event file in `directory`, which is created if need be. For a run that is resumed, `resumed_after` makes TensorBoard forget what
    /// earlier files of the directory say about later steps.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(directory: &Path, resumed_after: Option<u64>) -> Result<Self> {
        std::fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // TensorBoard reads the files of a run in the order of their names.
        let name = format!("events.out.tfevents.{:010}.{:09}.unnoise", now.as_secs(), now.subsec_nanos());
        let path = directory.join(name);
        let file = OpenOptions::new().create_new(true).append(true).open(&path).map_err(Error::io("create", &path))?;
        let mut log = Self { file, path };
        log.event(0, file_version)?;
        if let Some(step) = resumed_after {
            log.event(step + 1, session_start)?;
        }
        Ok(log)
    }

    /// Where the events go.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Numbers at a step, one curve for each tag.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        self.event(step, |event| scalar_summary(event, values))
    }

    /// A picture at a step.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn picture(&mut self, step: u64, tag: &str, picture: &Picture) -> Result<()> {
        self.event(step, |event| image_summary(event, tag, [picture.height(), picture.width()], &picture.to_png()))
    }

    fn event(&mut self, step: u64, fill: impl FnOnce(&mut Message)) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut event = header(now.as_secs_f64(), step);
        fill(&mut event);
        self.file.write_all(&record(&event.0)).map_err(Error::io("write", &self.path))
    }
}

fn header(wall_time: f64, step: u64) -> Message {
    let mut event = Message::default();
    event.double(1, wall_time); // wall_time
    event.number(2, step); // step
    event
}

fn file_version(event: &mut Message) {
    event.bytes(3, b"brain.Event:2"); // file_version
}

fn session_start(event: &mut Message) {
    event.message(7, |session| session.number(1, 1)); // session_log { status: START }
}

fn scalar_summary(event: &mut Message, values: &[(&str, f64)]) {
    // summary { value { tag, simple_value } ... }
    event.message(5, |summary| {
        for (tag, value) in values {
            summary.message(1, |entry| {
                entry.bytes(1, tag.as_bytes());
                entry.float(2, *value as f32);
            });
        }
    });
}

fn image_summary(event: &mut Message, tag: &str, [height, width]: [usize; 2], png: &[u8]) {
    // summary { value { tag, image { height, width, colorspace: 3 (RGB), encoded_image_string } } }
    event.message(5, |summary| {
        summary.message(1, |entry| {
            entry.bytes(1, tag.as_bytes());
            entry.message(4, |image| {
                image.number(1, height as u64);
                image.number(2, width as u64);
                image.number(3, 3);
                image.bytes(4, png);
            });
        });
    });
}

/// A protobuf message under construction: each field is its number and wire type, then its value.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// A zero is the default and not written.
    fn number(&mut self, field: u64, value: u64) {
        if value == 0 {
            return;
        }
        self.varint(field << 3);
        self.varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.varint(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }

    fn float(&mut self, field: u64, value: f32) {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }

    fn message(&mut self, field: u64, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        fill(&mut inner);
        self.bytes(field, &inner.0);
    }
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length).to_le_bytes(), data, &masked_crc(data).to_le_bytes()].concat()
}

fn masked_crc(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// CRC-32C (Castagnoli): the reflected polynomial 0x82F63B78.
fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, byte| TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8))
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720, appendix B.4, and the usual check value.
    #[test]
    fn crc_known_answers() {
        let ascending: Vec<u8> = (0..32).collect();
        for (data, crc) in
            [(&[0; 32][..], 0x8A91_36AA), (&[0xFF; 32], 0x62A8_AB43), (&ascending, 0x46DD_794E), (b"123456789", 0xE306_9283)]
        {
            assert_eq!(crc32c(data), crc);
        }
    }

    /// Records as tensorboard 2.21 writes them (tools/fixtures/io.py).
    #[test]
    fn bytes_are_tensorboards() {
        for (time, step, fill, expected) in [
            (
                1.5,
                0,
                (|event| file_version(event)) as fn(&mut Message),
                &include_bytes!("../../tests/fixtures/version.tfevents")[..],
            ),
            (
                2.5,
                300,
                |event| scalar_summary(event, &[("loss", 0.25), ("rate", 1e-4)]),
                include_bytes!("../../tests/fixtures/scalars.tfevents"),
            ),
            (3.5, 8, session_start, include_bytes!("../../tests/fixtures/session.tfevents")),
            (
                4.5,
                8,
                |event| image_summary(event, "samples", [3, 4], b"PNG..."),
                include_bytes!("../../tests/fixtures/picture.tfevents"),
            ),
        ] {
            let mut event = header(time, step);
            fill(&mut event);
            assert_eq!(record(&event.0), expected, "step {step} at {time}");
        }
    }

    #[test]
    fn a_log_is_whole_records() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = EventLog::create(&dir.path().join("run"), Some(7)).unwrap();
        log.scalars(8, &[("loss", 0.5), ("learning rate", 1e-4)]).unwrap();
        log.picture(8, "samples", &Picture::new(4, 3)).unwrap();
        let bytes = std::fs::read(log.path()).unwrap();
        let (mut at, mut records) = (0, 0);
        while at < bytes.len() {
            let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
            let data = &bytes[at + 12..at + 12 + length];
            assert_eq!(record(data), bytes[at..at + 16 + length]);
            (at, records) = (at + 16 + length, records + 1);
        }
        assert_eq!(records, 4);
    }
}
