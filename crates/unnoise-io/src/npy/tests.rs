use std::fs;
use std::path::PathBuf;

use ndarray::array;
use proptest::prelude::*;

use super::*;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Every type that numpy wrote (tools/fixtures/io.py), by its meaning.
#[test]
fn reads_numpys_types() {
    let fifths = array![[0.0, 0.2, 0.4], [0.6, 0.8, 1.0]].into_dyn();
    let ramp = array![[0, 1, 2], [3, 4, 5]].into_dyn();
    let (fifths32, half) = (fifths.mapv(|v| v as f32), |v: f64| half::f16::from_f64(v).to_f32());
    let expected = [
        ("bool", Array::Bool(ramp.mapv(|v| v % 2 == 1))),
        ("u1", Array::U8(ramp.mapv(|v| (v * 51) as u8))),
        ("u2", Array::U16(ramp.mapv(|v| (v * 13107) as u16))),
        ("u2-big", Array::U16(ramp.mapv(|v| (v * 13107) as u16))),
        ("i2", Array::I64(ramp.mapv(|v| v - 3))),
        ("i8-big", Array::I64(ramp.mapv(|v| v - 3))),
        ("u8", Array::I64(ramp.clone())),
        ("f2", Array::F32(fifths.mapv(half))),
        ("f4", Array::F32(fifths32.clone())),
        ("f4-fortran", Array::F32(fifths32.clone())),
        ("f8-big", Array::F64(fifths)),
        ("scalar", Array::F64(ndarray::arr0(0.05).into_dyn())),
        ("text", Array::Text("σ = ½, {\"a\": 1}".into())),
        ("bytes", Array::Text("plain".into())),
        ("empty", Array::F32(ArrayD::zeros(vec![0, 3]))),
    ];
    for file in ["types.npz", "types-deflated.npz"] {
        let mut npz = Npz::open(&fixture(file), Limits::default()).unwrap();
        assert_eq!(npz.names().len(), expected.len() + 1);
        for (name, array) in &expected {
            assert_eq!(&npz.require(name).unwrap(), array, "{file}: {name}");
        }
        let error = npz.require("complex").unwrap_err().to_string();
        assert!(error.contains("array 'complex' of type '<c8' is not supported yet"), "{error}");
        let error = npz.require("nothing").unwrap_err().to_string();
        assert!(error.contains("expected an array 'nothing', got bool, u1, u2"), "{error}");
    }
    for file in ["f4.npy", "f4-v2.npy"] {
        assert_eq!(read_npy(&fixture(file), Limits::default()).unwrap(), Array::F32(fifths32.clone()), "{file}");
    }
}

#[test]
fn what_is_written_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let many = ArrayD::from_shape_fn(vec![3, 5, 1234], |i| (i[0] * 7 + i[1] * 3 + i[2]) as f64 * 0.1);
    let arrays = [
        ("many", Array::F64(many.clone())),
        ("single", Array::from(many.view())),
        ("turned", Array::from(many.t())),
        ("bytes", Array::U8(many.mapv(|v| v as u8))),
        ("words", Array::U16(many.mapv(|v| v as u16))),
        ("signed", Array::I64(many.mapv(|v| -v as i64))),
        ("flags", Array::Bool(many.mapv(|v| v > 3.0))),
        ("text", Array::Text("ä {}".into())),
        ("nothing", Array::Text(String::new())),
        ("scalar", Array::I64(ndarray::arr0(-1).into_dyn())),
    ];
    for (name, array) in &arrays {
        let path = dir.path().join(format!("{name}.npy"));
        write_npy(&path, array, Overwrite::Never).unwrap();
        assert_eq!(&read_npy(&path, Limits::default()).unwrap(), array, "{name}");
    }
    let path = dir.path().join("all.npz");
    write_npz(&path, arrays.iter().map(|(name, array)| (*name, array)), Overwrite::Never).unwrap();
    let mut npz = Npz::from_bytes(fs::read(&path).unwrap(), &path, Limits::default()).unwrap();
    for (name, array) in &arrays {
        assert_eq!(&npz.require(name).unwrap(), array, "{name}");
    }
    let again = dir.path().join("again.npz");
    write_npz(&again, arrays.iter().map(|(name, array)| (*name, array)), Overwrite::Never).unwrap();
    assert_eq!(fs::read(path).unwrap(), fs::read(again).unwrap());
}

fn npy_of(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    [&bytes, header.as_bytes(), data].concat()
}

#[test]
fn damaged_files_are_one_clear_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.npy");
    let whole = fs::read(fixture("f4.npy")).unwrap();
    for (bytes, limits, message) in [
        (vec![], Limits::default(), "the array: expected more bytes, got the file's end (truncated?)"),
        (b"P5 3 3 255 ...".to_vec(), Limits::default(), "the array: expected an .npy array, got something else"),
        (whole[..100].to_vec(), Limits::default(), "the array: expected more bytes"),
        (whole[..150].to_vec(), Limits::default(), "the array: expected the data of <f4 [2, 3], got the file's end (truncated?)"),
        (whole.clone(), Limits { values: 5, ..Limits::default() }, "the array is [2, 3], above the limit of 5 values"),
        (
            npy_of("{'descr': '<f8', 'fortran_order': False, 'shape': (20000, 10000), }", &[0; 64]),
            Limits::default(),
            "the array: expected the data of <f8 [20000, 10000], got at most",
        ),
        (
            npy_of("{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296, 16), }", &[0; 64]),
            Limits::default(),
            "above the limit of 268435456 values",
        ),
        (
            npy_of("{'descr': '<f8', 'fortran_order': False, 'shape': (0, 9223372036854775807, 9223372036854775807), }", &[]),
            Limits::default(),
            "the array",
        ),
        (
            npy_of("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", &[0; 64]),
            Limits::default(),
            "the array of type '|O' is",
        ),
        (
            npy_of("{'descr': '<U4000000000', 'fortran_order': False, 'shape': (), }", &[0; 64]),
            Limits::default(),
            "above the limit",
        ),
    ] {
        fs::write(&path, &bytes).unwrap();
        let error = read_npy(&path, limits).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{}: ", path.display())) && error.contains(message),
            "{error}\nshould contain: {message}"
        );
        assert!(!error.contains('\n'), "{error}");
    }
    let missing = read_npy(&dir.path().join("missing.npy"), Limits::default()).unwrap_err().to_string();
    assert!(missing.starts_with("cannot read ") && missing.contains("missing.npy: No such file"), "{missing}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Any damage is an error or another array within the limits; never a panic.
    #[test]
    fn no_damage_panics(cut in 0_usize..=4000, damage in proptest::collection::vec((0_usize..4000, any::<u8>()), 0..4)) {
        let limits = Limits { values: 4096, ..Limits::default() };
        for file in ["f4.npy", "types.npz", "types-deflated.npz"] {
            let mut bytes = fs::read(fixture(file)).unwrap();
            for (place, value) in &damage {
                let place = place % bytes.len();
                bytes[place] = *value;
            }
            bytes.truncate(bytes.len().saturating_sub(if cut < 2000 { 0 } else { cut % (bytes.len() + 1) }));
            if file.ends_with("npy") {
                let _ = decode(&mut &bytes[..], bytes.len() as u64, limits, &fixture(file), "the array");
            } else if let Ok(mut npz) = Npz::from_bytes(bytes, &fixture(file), limits) {
                for name in npz.names().to_vec() {
                    let _ = npz.get(&name);
                }
            }
        }
    }
}
