use std::fs;
use std::io::Write;
use std::path::PathBuf;

use flate2::write::GzEncoder;
use ndarray::ArrayD;

use super::*;
use crate::{Overwrite, write_images, write_npy, write_npz};

fn digits() -> ArrayD<u8> {
    ArrayD::from_shape_fn(vec![3, 6, 8], |i| (i[0] * 80 + i[1] * 8 + i[2]) as u8)
}

fn idx(array: &ArrayD<u8>) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, array.ndim() as u8];
    array.shape().iter().for_each(|n| bytes.extend((*n as u32).to_be_bytes()));
    bytes.extend(array.iter());
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The same images as an array, an archive, MNIST files (packed or not) and a folder are one data set.
#[test]
fn every_kind_of_source_gives_the_same_images() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let labels = ArrayD::from_shape_vec(vec![3], vec![4_u8, 0, 9]).unwrap();
    write_npy(&at("a.npy"), &Array::U8(digits()), Overwrite::Never).unwrap();
    write_npz(&at("a.npz"), [("images", &Array::U8(digits())), ("labels", &Array::U8(labels.clone()))], Overwrite::Never).unwrap();
    for (folder, suffix, pack) in [("mnist", "", (|b| b.to_vec()) as fn(&[u8]) -> Vec<u8>), ("packed", ".gz", gzip)] {
        fs::create_dir(at(folder)).unwrap();
        fs::write(at(folder).join(format!("t10k-images-idx3-ubyte{suffix}")), b"not this one").unwrap();
        fs::write(at(folder).join(format!("train-images-idx3-ubyte{suffix}")), pack(&idx(&digits()))).unwrap();
        fs::write(at(folder).join(format!("train-labels-idx1-ubyte{suffix}")), pack(&idx(&labels))).unwrap();
    }
    fs::create_dir_all(at("folder/b")).unwrap();
    fs::create_dir_all(at("folder/.hidden")).unwrap();
    for (i, name) in ["a.png", "b/1.png", "c.PNG"].into_iter().enumerate() {
        let image = digits().index_axis(Axis(0), i).mapv(|v| f64::from(v) / 255.0).insert_axis(Axis(0)).insert_axis(Axis(0));
        write_images(&at("folder").join(name), &image.into_dimensionality().unwrap(), Range::Unit, Overwrite::Never).unwrap();
    }
    fs::write(at("folder/.hidden/x.png"), b"skipped").unwrap();
    fs::write(at("folder/readme.txt"), b"skipped").unwrap();

    let expected = Pixels::U8(digits().insert_axis(Axis(1)).into_dimensionality().unwrap());
    for (source, labelled) in [
        ("a.npy", false),
        ("a.npz", true),
        ("mnist", true),
        ("mnist/train-images-idx3-ubyte", true),
        ("packed", true),
        ("packed/train-images-idx3-ubyte.gz", true),
        ("folder", false),
    ] {
        let images = read_dataset(&at(source), DatasetConfig::default()).unwrap();
        assert_eq!(images.pixels, expected, "{source}");
        assert_eq!(images.labels, labelled.then(|| vec![4, 0, 9]), "{source}");
        assert_eq!((images.len(), images.shape()), (3, [1, 6, 8]));
    }

    let read = |fit, channels| read_dataset(&at("mnist"), DatasetConfig { fit, channels, ..Default::default() }).unwrap();
    let padded = read(Fit::Pad(10), Channels::AsStored);
    assert_eq!((padded.shape(), padded.image(2)[[0, 2, 1]]), ([1, 10, 10], 160.0 / 255.0));
    let small = read(Fit::CropResize(3), Channels::Rgb);
    // Columns 1..7 are kept; rows and columns are averaged in pairs: (80 + 81 + 88 + 89) / 4 + 1, rounded.
    assert_eq!((small.shape(), small.image(1)[[2, 0, 0]]), ([3, 3, 3], 86.0 / 255.0));
    assert_eq!(small.labels, Some(vec![4, 0, 9]));
    let (first, rest) = small.clone().split_at(1);
    assert_eq!((first.len(), first.labels, rest.len(), rest.labels), (1, Some(vec![4]), 2, Some(vec![0, 9])));
    assert_eq!(rest.pixels, small.clone().split_at(1).1.pixels);
    assert_eq!(small.split_at(99).1.len(), 0);
}

#[test]
fn floats_are_brought_to_the_unit_range() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.npy");
    write_npy(&path, &Array::F64(ArrayD::from_elem(vec![2, 3, 4, 5], -0.5)), Overwrite::Never).unwrap();
    let images = read_dataset(&path, DatasetConfig { stored: Range::Symmetric, ..Default::default() }).unwrap();
    assert_eq!(images.pixels, Pixels::F32(Array4::from_elem((2, 3, 4, 5), 0.25)));
    let error = read_dataset(&path, DatasetConfig::default()).unwrap_err().to_string();
    assert!(error.ends_with("the images: expected pixels in [0, 1], got -0.5"), "{error}");
}

#[test]
fn refusals_are_one_clear_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    };
    let npz = |name: &str, labels: Vec<i64>| {
        let path = dir.path().join(name);
        let labels = Array::I64(ArrayD::from_shape_vec(vec![labels.len()], labels).unwrap());
        write_npz(&path, [("x", &Array::U8(digits())), ("y", &labels)], Overwrite::Never).unwrap();
        path
    };
    fs::create_dir(dir.path().join("empty")).unwrap();
    let mixed = dir.path().join("mixed");
    fs::create_dir(&mixed).unwrap();
    for (name, c, side) in [("a.png", 1, 4), ("b.png", 3, 5)] {
        write_images(&mixed.join(name), &Array4::zeros((1, c, side, side)), Range::Unit, Overwrite::Never).unwrap();
    }
    let npy = dir.path().join("flat.npy");
    write_npy(&npy, &Array::F32(ArrayD::zeros(vec![4, 4])), Overwrite::Never).unwrap();
    let whole = idx(&digits());
    let huge = [&[0, 0, 8, 3][..], &[255; 12], &[1; 100]].concat();
    let plain = DatasetConfig::default();
    for (path, config, message) in [
        (dir.path().join("empty"), plain, "the folder: expected PNG or JPEG files, or MNIST's, got none".to_owned()),
        (mixed.clone(), plain, "b.png: the image: expected 1 channels of 4 x 4 as the images before".into()),
        (
            mixed,
            DatasetConfig { fit: Fit::CropResize(5), ..plain },
            "a.png: the image: expected at least 5 x 5 pixels, or padding, got 4 x 4".into(),
        ),
        (
            file("bad/x.png", b"text").with_file_name(""),
            plain,
            "x.png: the image: expected a PNG or JPEG, got something else".into(),
        ),
        (file("a-images-idx3-ubyte", &whole[..99]), plain, "the array: expected [3, 6, 8], got 83 bytes (truncated?)".into()),
        (file("b-images-idx3-ubyte", &whole[..9]), plain, "the array: expected more bytes, got the file's end (truncated?)".into()),
        (file("c-images-idx3-ubyte.gz", &gzip(&whole)[..50]), plain, "the array: ".into()),
        (file("d-images-idx3-ubyte", &huge), plain, "above the limit of 4294967296 bytes".into()),
        (file("e-images-idx3-ubyte", b"\0\0\x0D\x03"), plain, "the magic number: expected [0, 0, 8, 3], got [0, 0, 13, 3]".into()),
        (file("f.tar", b""), plain, "a data set in this kind of file is not supported yet".into()),
        (npy, plain, "expected uint8 or floating point [n, c, h, w], [n, h, w] or [n, h, w, 3], got float32 [4, 4]".into()),
        (npz("short.npz", vec![1, 2]), plain, "the labels: expected 3 classes, integers from 0, got int64 [2]".into()),
        (npz("negative.npz", vec![1, -2, 3]), plain, "the labels: expected 3 classes, integers from 0, got -2".into()),
        (
            npz("large.npz", vec![1, 2, 3]),
            DatasetConfig { fit: Fit::Pad(100), max_bytes: 20_000, ..plain },
            "the data set is 3 images of 1 x 100 x 100, 30000 bytes, above the limit of 20000 bytes".into(),
        ),
        (dir.path().join("missing"), plain, "cannot read ".into()),
    ] {
        let error = read_dataset(&PathBuf::from(&path), config).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()) && error.contains(&message), "{error}\nshould contain: {message}");
    }
}
