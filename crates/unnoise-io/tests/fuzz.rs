//! Whatever reads a file, on thousands of damaged ones: an error of one line or a result, never a panic, never much memory.
//!
//! The damage is drawn from fixed seeds, so a failure names a case that can be made again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use ndarray::ArrayD;
use unnoise_io::{
    Array, CsvLog, DatasetConfig, Error, Limits, MeasurementFile, Npz, Overwrite, ReadOptions, decode_picture, read_dataset,
    read_images, read_npy, write_npz,
};

/// SplitMix64: Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators".
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// One to three of: a changed byte, a run of extreme bytes (sizes and offsets), a cut, a doubled, a lost or a foreign piece, other digits.
fn damaged(mut bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    for _ in 0..=random.below(3) {
        // Headers decide what is allocated, so every other place is one of the first or the last bytes.
        let n = bytes.len();
        let near = n.min(96);
        let at = match random.below(4) {
            0 => random.below(near),
            1 => n - near + random.below(near),
            _ => random.below(n),
        };
        let end = (at + 1 + random.below(9)).min(n);
        match random.below(8) {
            _ if n == 0 => bytes.push(random.next() as u8),
            0 => bytes[at] = random.next() as u8,
            1 => bytes[at..end].fill([0x00, 0xFF, 0x7F, 0x80][random.below(4)]),
            2 => bytes.truncate(at),
            3 => bytes = [&bytes[..end], &bytes[at..]].concat(),
            4 => drop(bytes.drain(at..end)),
            5 => drop(bytes.splice(at..at, (0..random.below(9)).map(|i| (i * 37) as u8).collect::<Vec<_>>())),
            _ => {
                let digits: Vec<usize> = (0..n).filter(|i| bytes[*i].is_ascii_digit()).collect();
                let Some(digit) = digits.get(random.below(digits.len())).copied() else { continue };
                let more = (0..1 + random.below(12)).map(|_| b'0' + random.below(10) as u8).collect::<Vec<_>>();
                bytes.splice(digit..=digit, more);
            }
        }
    }
    bytes
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A reader, and valid files for it by the ending that they need.
struct Case {
    name: &'static str,
    seeds: Vec<Vec<u8>>,
    ending: &'static str,
    read: fn(&[u8], &Path) -> Result<(), Error>,
}

const LIMITS: Limits = Limits { values: 1 << 16, encoded: 1 << 20 };

fn cases() -> Vec<Case> {
    let files = |names: &[&str]| names.iter().map(|name| std::fs::read(fixture(name)).unwrap()).collect::<Vec<_>>();
    let pictures = ["gray.png", "rgb.png", "palette.png", "gray16.png", "rgba.png", "one-bit.png", "smooth.jpg"];
    let idx = |bytes: &[u8], path: &Path| {
        std::fs::write(path, bytes).unwrap();
        read_dataset(path, DatasetConfig { max_bytes: 1 << 16, ..DatasetConfig::default() }).map(drop)
    };
    // Three images of 4 x 5.
    let digits = [&[0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5][..], &[7; 60]].concat();
    let log = b"step,loss,lr\n1,0.5,0.001\n2,0.25,0.001\n3,0.125,0.0005\n".to_vec();
    vec![
        Case {
            name: "npy",
            seeds: files(&["f4.npy", "f4-v2.npy", "smooth.npy"]),
            ending: "npy",
            read: |bytes, path| {
                std::fs::write(path, bytes).unwrap();
                read_npy(path, LIMITS).map(drop)?;
                read_images(path, ReadOptions { limits: LIMITS, ..ReadOptions::default() }).map(drop)
            },
        },
        Case {
            name: "npz",
            seeds: files(&["types.npz", "types-deflated.npz"]),
            ending: "npz",
            read: |bytes, path| {
                let mut npz = Npz::from_bytes(Vec::from(bytes), path, LIMITS)?;
                let each: Vec<Result<_, Error>> = npz.names().to_vec().iter().map(|name| npz.get(name)).collect();
                each.into_iter().try_for_each(|array| array.map(drop))
            },
        },
        Case {
            name: "measurement",
            seeds: files(&["measurement.npz"]),
            ending: "npz",
            read: |bytes, path| {
                let file = MeasurementFile::from_bytes(Vec::from(bytes), path, LIMITS)?;
                file.build(path).map(drop)
            },
        },
        Case {
            name: "pictures",
            seeds: files(&pictures),
            ending: "png",
            read: |bytes, path| decode_picture(bytes, path, LIMITS).map(drop),
        },
        Case { name: "idx", seeds: vec![digits], ending: "x-images-idx3-ubyte", read: idx },
        Case { name: "data set", seeds: vec![data_set()], ending: "npz", read: idx },
        Case {
            name: "log",
            seeds: vec![log],
            ending: "csv",
            read: |bytes, path| {
                std::fs::write(path, bytes).unwrap();
                CsvLog::column(path, "loss").map(drop)?;
                // It waits for the disk.
                if bytes.len().is_multiple_of(8) { CsvLog::resume(path, &["loss", "lr"], 2).map(drop) } else { Ok(()) }
            },
        },
    ]
}

/// An archive of four images with their classes.
fn data_set() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("set.npz");
    let images = Array::U8(ArrayD::from_shape_fn(vec![4, 1, 6, 5], |i| (i[0] * 50 + i[2] * 7 + i[3]) as u8));
    let labels = Array::I64(ArrayD::from_shape_fn(vec![4], |i| i[0] as i64));
    write_npz(&path, [("images", &images), ("labels", &labels)], Overwrite::Never).unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn damaged_files_are_errors_or_results() {
    const DAMAGED: u64 = 2000;
    let directory = tempfile::tempdir().unwrap();
    let (mut failures, mut refused, before) = (Vec::new(), 0, peak_bytes());
    for Case { name, seeds, ending, read } in cases() {
        let path = directory.path().join(if ending.contains("idx") { ending.into() } else { format!("file.{ending}") });
        for case in 0..DAMAGED {
            let mut random = Random(case);
            let bytes = damaged(seeds[random.below(seeds.len())].clone(), &mut random);
            match catch_unwind(AssertUnwindSafe(|| read(&bytes, &path))) {
                Err(_) => failures.push(format!("{name} {case}: a panic")),
                Ok(Err(error)) if error.to_string().contains('\n') => failures.push(format!("{name} {case}: {error}")),
                Ok(result) => refused += u64::from(result.is_err()),
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    // Most damage is seen.
    assert!(refused > DAMAGED, "{refused}");
    // No file here is larger than 20 kB, and the limits are of 64 Ki values and 1 MiB; what a damaged header could ask for is gigabytes.
    if let (Some(before), Some(after)) = (before, peak_bytes()) {
        assert!(after - before < 256 << 20, "{} MiB more were taken", (after - before) >> 20);
    }
}

/// The most address space that this process has taken, which Linux tells.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? << 10)
}
