use std::fs;
use std::path::PathBuf;

use ndarray::{ArrayD, array};
use proptest::prelude::*;

use super::*;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn read(name: &str) -> Batch {
    read_images(&fixture(name), ReadOptions::default()).unwrap()
}

fn close(a: &Batch, b: &Batch, tolerance: f64) -> bool {
    a.dim() == b.dim() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance)
}

/// The pictures of tools/fixtures/io.py: value = 20 (3 row + column) + channel.
#[test]
fn reads_every_kind_of_png() {
    let level = |c: usize, y: usize, x: usize| (20 * (3 * y + x) + c) as f64 / 255.0;
    let gray = Batch::from_shape_fn((1, 1, 2, 3), |(_, _, y, x)| level(0, y, x));
    let rgb = Batch::from_shape_fn((1, 3, 2, 3), |(_, c, y, x)| level(c, y, x));
    assert!(close(&read("gray.png"), &gray, 1e-15));
    assert!(close(&read("rgb.png"), &rgb, 1e-15));
    assert!(close(&read("palette.png"), &rgb, 1e-15));
    assert!(close(&read("gray16.png"), &gray.mapv(|v| v + 1.0 / 65535.0), 1e-15));
    assert_eq!(read("one-bit.png").into_raw_vec_and_offset().0, vec![0.0, 1.0, 0.0, 1.0, 0.0, 1.0]);
    // Transparent pixels are seen on white.
    let opacity = |y: usize, x: usize| [[0.0, 1.0, 1.0], [1.0, 1.0, 0.4]][y][x];
    let on_white = |c, y, x| level(c, y, x) * opacity(y, x) + 1.0 - opacity(y, x);
    assert!(close(&read("rgba.png"), &Batch::from_shape_fn((1, 3, 2, 3), |(_, c, y, x)| on_white(c, y, x)), 1e-15));
    assert!(close(&read("gray-alpha.png"), &Batch::from_shape_fn((1, 1, 2, 3), |(_, _, y, x)| on_white(0, y, x)), 1e-15));
}

#[test]
fn reads_jpeg_and_turns_it_as_its_camera_says() {
    let smooth = read("smooth.npy");
    assert_eq!(smooth.dim(), (1, 3, 24, 32));
    // Two decoders and a lossy file: a few levels.
    for file in ["smooth.jpg", "smooth-progressive.jpg"] {
        assert!(close(&read(file), &smooth, 6.0 / 255.0), "{file}");
    }
    let turned = Batch::from_shape_fn((1, 3, 32, 24), |(_, c, y, x)| smooth[[0, c, 23 - x, y]]);
    assert!(close(&read("smooth-turned.jpg"), &turned, 6.0 / 255.0));
}

#[test]
fn ranges_and_channels() {
    let symmetric = read_images(&fixture("gray.png"), ReadOptions { range: Range::Symmetric, ..Default::default() }).unwrap();
    assert!(close(&symmetric, &read("gray.png").mapv(|u| 2.0 * u - 1.0), 1e-15));
    let gray = read_images(&fixture("rgb.png"), ReadOptions { channels: Channels::Gray, ..Default::default() }).unwrap();
    assert!((gray[[0, 0, 1, 2]] - (0.299 * 100.0 + 0.587 * 101.0 + 0.114 * 102.0) / 255.0).abs() < 1e-15);
    let rgb = read_images(&fixture("gray.png"), ReadOptions { channels: Channels::Rgb, ..Default::default() }).unwrap();
    assert_eq!(rgb.index_axis(Axis(1), 2), read("gray.png").index_axis(Axis(1), 0));
}

#[test]
fn shapes_of_arrays() {
    for (shape, expected) in [
        (vec![5, 6], Some([1, 1, 5, 6])),
        (vec![1, 5, 6], Some([1, 1, 5, 6])),
        (vec![3, 5, 6], Some([1, 3, 5, 6])),
        (vec![5, 6, 3], Some([1, 3, 5, 6])),
        (vec![7, 5, 6], Some([7, 1, 5, 6])),
        (vec![2, 3, 5, 6], Some([2, 3, 5, 6])),
        (vec![2, 5, 6, 3], Some([2, 3, 5, 6])),
        (vec![2, 1, 5, 1], Some([2, 1, 5, 1])),
        (vec![5], None),
        (vec![0, 5, 6], None),
        (vec![1, 1, 1, 5, 6], None),
    ] {
        let array = four_dimensional(ArrayD::from_shape_fn(shape.clone(), |_| 0_u8));
        assert_eq!(array.map(|a| a.dim()), expected.map(|[n, c, h, w]| (n, c, h, w)), "{shape:?}");
    }
    let last = ArrayD::from_shape_fn(vec![5, 6, 3], |i| i[0] * 100 + i[1] * 10 + i[2]);
    assert_eq!(four_dimensional(last).unwrap()[[0, 2, 4, 1]], 412);
}

#[test]
fn what_is_written_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    for c in [1, 3] {
        let image = Batch::from_shape_fn((1, c, 4, 5), |(_, c, y, x)| {
            f64::from(to_byte((c * 60 + y * 20 + x) as f64 / 255.0)) / 127.5 - 1.0
        });
        let options = ReadOptions { range: Range::Symmetric, stored: Range::Symmetric, ..Default::default() };
        for (name, tolerance) in [("a.png", 1e-12), ("a.npy", 1e-7), ("a.npz", 1e-7)] {
            let path = dir.path().join(name);
            write_images(&path, &image, Range::Symmetric, Overwrite::Force).unwrap();
            assert!(close(&read_images(&path, options).unwrap(), &image, tolerance), "{name}, {c} channels");
        }
        let flat = Batch::from_elem((1, c, 16, 16), 0.25);
        let path = dir.path().join("a.JPG");
        write_images(&path, &flat, Range::Symmetric, Overwrite::Force).unwrap();
        assert!(close(&read_images(&path, options).unwrap(), &flat, 2.0 / 127.5));
    }
    // Several images in one picture are a sheet.
    let path = dir.path().join("sheet.png");
    write_images(&path, &Batch::zeros((5, 1, 32, 32)), Range::Unit, Overwrite::Never).unwrap();
    assert_eq!(read_images(&path, ReadOptions::default()).unwrap().dim(), (1, 3, 2 * 134 + 6, 3 * 134 + 6));
}

#[test]
fn refusals_are_one_clear_line() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, array: &Array| {
        let path = dir.path().join(name);
        write_npy(&path, array, Overwrite::Force).unwrap();
        path
    };
    let jpeg = fs::read(fixture("smooth.jpg")).unwrap();
    let png = fs::read(fixture("rgb.png")).unwrap();
    let bytes = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let small = ReadOptions { limits: Limits { values: 17, encoded: 1 << 20 }, ..Default::default() };
    for (path, options, message) in [
        (
            write("nan.npy", &Array::F32(array![[0.5, 0.5], [f32::NAN, 0.5]].into_dyn())),
            ReadOptions::default(),
            "(image 0, row 1, column 0)",
        ),
        (
            write("signed.npy", &Array::F32(array![[-1.0, 0.5]].into_dyn())),
            ReadOptions::default(),
            "the array: expected pixels in [0, 1], got -1.0000 to 0.5000",
        ),
        (
            write("flat.npy", &Array::F32(array![0.1, 0.5].into_dyn())),
            ReadOptions::default(),
            "expected images [h, w], [c, h, w] or [n, c, h, w], none of them empty, got float32 [2]",
        ),
        (write("int.npy", &Array::I64(array![[1, 2]].into_dyn())), ReadOptions::default(), "got int64 [1, 2]"),
        (
            bytes("cut.jpg", &jpeg[..jpeg.len() - 40]),
            ReadOptions::default(),
            "expected an intact JPEG, got one without its end (truncated?)",
        ),
        (bytes("cut.png", &png[..png.len() - 30]), ReadOptions::default(), "expected an intact PNG or JPEG, got"),
        (bytes("empty.png", &[]), ReadOptions::default(), "the image: expected a PNG or JPEG, got an empty file"),
        (bytes("text.png", b"hello"), ReadOptions::default(), "the image: expected a PNG or JPEG, got something else"),
        (bytes("a.png", b"GIF89a......"), ReadOptions::default(), "Gif is not supported yet; supported: PNG, JPEG, .npy and .npz"),
        (bytes("a.tiff", b"II*\0"), ReadOptions::default(), "the file type '.tiff' is not supported yet"),
        (bytes("plain", b""), ReadOptions::default(), "a file without an ending to its name is not supported yet"),
        (dir.path().join("missing"), ReadOptions::default(), "missing: No such file or directory"),
        (dir.path().to_path_buf(), ReadOptions::default(), "is a directory"),
        (fixture("rgb.png"), small, "the image is 3 x 2, above the limit of 17 values"),
        (
            fixture("types.npz"),
            ReadOptions::default(),
            "expected one array, or one called images, image, x0, x, arr_0, got bool, u1",
        ),
        (dir.path().join("missing.png"), ReadOptions::default(), "missing.png: No such file or directory"),
    ] {
        let error = read_images(&path, options).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()) && error.contains(message), "{error}\nshould contain: {message}");
        assert!(!error.contains('\n'), "{error}");
    }
    for (images, message) in [
        (Batch::zeros((0, 1, 2, 2)), "write_images: images must be at least one pixel, got shape [0, 1, 2, 2]"),
        (Batch::from_elem((1, 1, 2, 2), f64::NAN), "write_images: images must be finite, got NaN or infinity"),
        (Batch::zeros((1, 2, 2, 2)), "write_images: channels must be 1 or 3 for a picture"),
    ] {
        let error = write_images(&dir.path().join("out.png"), &images, Range::Unit, Overwrite::Never).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
    assert!(!dir.path().join("out.png").exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Any damage to a picture is an error or another picture within the limits; never a panic.
    #[test]
    fn no_damage_panics(cut in 0.0..2.0, damage in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..4)) {
        let limits = Limits { values: 1 << 16, ..Limits::default() };
        for file in ["rgb.png", "palette.png", "gray16.png", "smooth.jpg", "smooth-progressive.jpg"] {
            let mut bytes = fs::read(fixture(file)).unwrap();
            for (place, value) in &damage {
                let place = usize::from(*place) % bytes.len();
                bytes[place] = *value;
            }
            bytes.truncate((bytes.len() as f64 * cut) as usize);
            if let Ok(image) = decode_picture(&bytes, &fixture(file), limits) {
                prop_assert!(image.len() <= 1 << 16);
            }
        }
    }
}
