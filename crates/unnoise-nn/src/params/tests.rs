use super::*;

fn sample() -> Params {
    let mut params = Params::new();
    params.insert("b.weight", vec![2, 2], vec![1.0, -2.5, 3e-3, 65504.0]).unwrap();
    params.insert("a", vec![3], vec![0.0, -0.0, f32::MIN_POSITIVE]).unwrap();
    params
}

fn bytes(dtype: &str, offsets: [usize; 2], data: &[u8]) -> Vec<u8> {
    let header = format!(r#"{{"x":{{"dtype":"{dtype}","shape":[2],"data_offsets":[{},{}]}}}}"#, offsets[0], offsets[1]);
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

#[test]
fn a_file_gives_back_the_same_numbers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    let params = sample();
    params.write(&path, Precision::F32).unwrap();
    assert_eq!(Params::read(&path).unwrap(), params);
    params.write(&path, Precision::F16).unwrap();
    let rounded = Params::read(&path).unwrap();
    assert_eq!(rounded.sha256(), params.sha256_stored(Precision::F16));
    assert_eq!(params.sha256(), params.sha256_stored(Precision::F32));
    assert_eq!(rounded.get("b.weight").unwrap().values, [1.0, -2.5, 3.000_259_4e-3, 65504.0]);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file stays");
}

#[test]
fn half_precisions_widen_exactly() {
    let at = Path::new("m");
    let read =
        |dtype, data: &[u8]| Params::from_safetensors(&bytes(dtype, [0, 4], data), at).unwrap().get("x").unwrap().values.clone();
    assert_eq!(read("F16", &[0x00, 0x3c, 0x00, 0xc1]), [1.0, -2.5]);
    assert_eq!(read("BF16", &[0x80, 0x3f, 0x20, 0xc0]), [1.0, -2.5]);
}

#[test]
fn broken_files_are_errors() {
    let good = sample().to_safetensors(Precision::F32, &HashMap::new());
    let at = Path::new("broken.safetensors");
    let mut cases: Vec<Vec<u8>> = [0, 4, 8, 40, good.len() - 1].map(|n| good[..n].to_vec()).into();
    cases.push([&good[..], &[0]].concat());
    cases.push(u64::MAX.to_le_bytes().to_vec());
    cases.push(bytes("I64", [0, 16], &[0; 16]));
    cases.push(bytes("F32", [0, 4], &[0; 4]));
    cases.push(bytes("F32", [8, 0], &[0; 8]));
    cases.push(bytes("F32", [0, 8], &[0, 0, 0, 0, 0, 0, 0xc0, 0x7f]));
    for (i, case) in cases.iter().enumerate() {
        let error = Params::from_safetensors(case, at).expect_err(&format!("case {i}"));
        assert!(matches!(error, Error::File { .. }) && error.to_string().starts_with("broken.safetensors"), "{error}");
    }
    assert!(matches!(Params::read(Path::new("/nowhere/at/all")), Err(Error::Io { .. })));
}

#[test]
fn older_attention_names_become_current() {
    for (old, new) in [
        ("mid_block.attentions.0.query.weight", "mid_block.attentions.0.to_q.weight"),
        ("mid_block.attentions.0.proj_attn.bias", "mid_block.attentions.0.to_out.0.bias"),
        ("up_blocks.1.attentions.2.value.bias", "up_blocks.1.attentions.2.to_v.bias"),
        ("other.key.weight", "other.key.weight"),
    ] {
        assert_eq!(current_name(old), new);
    }
}

#[test]
fn mismatches_name_the_nearest() {
    let shapes: Shapes = [("a", vec![4]), ("b.weight", vec![2, 2]), ("conv.bias", vec![1])].map(|(n, s)| (n.to_string(), s)).into();
    let mut params = sample();
    params.insert("conv.bais", vec![1], vec![0.0]).unwrap();
    let Err(Error::Parameters { problems, .. }) = params.check(&shapes) else { panic!("accepted") };
    let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        text,
        ["missing conv.bias (nearest: conv.bais)", "unused conv.bais (nearest: conv.bias)", "a must have shape [4], got [3]"]
    );
    assert!(params.check(&params.shapes()).is_ok());
}

#[test]
fn edit_distance_of_known_pairs() {
    for (a, b, d) in [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "abc", 0), ("flaw", "lawn", 2)] {
        assert_eq!(edit_distance(a.as_bytes(), b.as_bytes()), d);
    }
}

#[test]
fn the_hash_follows_the_content() {
    // hashlib.sha256 over the documented bytes.
    let mut one = Params::new();
    one.insert("w", vec![2], vec![1.0, 2.0]).unwrap();
    assert_eq!(one.sha256(), "c5edfef09278d0bf61075cea655ace1e104b68230366c70291877dbc6f5fafe5");
    let mut other = one.clone();
    other.get_mut("w").unwrap().values[1] = f32::from_bits(2f32.to_bits() + 1);
    assert_ne!(one.sha256(), other.sha256());
}

#[test]
fn initialisation_has_pytorch_s_distributions() {
    let shapes: Shapes = [
        ("c.weight", vec![64, 32, 3, 3]),
        ("c.bias", vec![64]),
        ("n.weight", vec![8]),
        ("n.bias", vec![8]),
        ("class_embedding.weight", vec![100, 50]),
    ]
    .map(|(n, s)| (n.to_string(), s))
    .into();
    let params = Params::initialise(&shapes, 5).unwrap();
    let values = |name: &str| &params.get(name).unwrap().values;
    let bound = 1.0 / 288f32.sqrt();
    assert!(values("c.weight").iter().chain(values("c.bias")).all(|v| v.abs() <= bound));
    // Var U(-b, b) = b^2 / 3 and its sampling deviation b^2 sqrt(4 / 45 / n); 99.9 %.
    let square = |name: &str| values(name).iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / values(name).len() as f64;
    let expected = f64::from(bound).powi(2) / 3.0;
    assert!((square("c.weight") - expected).abs() < 3.29 * 3.0 * expected * (4.0 / 45.0 / 18432f64).sqrt());
    assert!((square("class_embedding.weight") - 1.0).abs() < 3.29 * (2.0 / 5000f64).sqrt());
    assert!(values("n.weight").iter().all(|v| *v == 1.0) && values("n.bias").iter().all(|v| *v == 0.0));
    assert_eq!(params, Params::initialise(&shapes, 5).unwrap());
    assert_ne!(params, Params::initialise(&shapes, 6).unwrap());
}
