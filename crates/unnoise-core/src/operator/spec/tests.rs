//! What a specification says, and what it builds.

use ndarray::array;

use super::*;

#[test]
fn specifications_round_trip() {
    for (text, canonical) in [
        ("identity", "identity"),
        ("box:12", "box:12x12"),
        ("box:3x5, top=1, left=2", "box:3x5,top=1,left=2"),
        ("mask:random,keep=.3", "mask:random,keep=0.3,seed=0"),
        ("mask:random,keep=0.3,seed=18446744073709551615", "mask:random,keep=0.3,seed=18446744073709551615"),
        ("mask:dir/m.npy", "mask:dir/m.npy"),
        ("mask:C:\\m.npy", "mask:C:\\m.npy"),
        ("blur:gaussian,sigma=1.5", "blur:gaussian,sigma=1.5,size=11,boundary=circular"),
        ("blur:gaussian,boundary=reflect,size=9,sigma=1e-1", "blur:gaussian,sigma=0.1,size=9,boundary=reflect"),
        ("blur:motion,length=7", "blur:motion,length=7,angle=0,boundary=circular"),
        ("blur:motion,length=7.5,angle=-30", "blur:motion,length=7.5,angle=-30,boundary=circular"),
        ("blur:trajectory,size=15", "blur:trajectory,size=15,turning=0.5,seed=0,boundary=circular"),
        ("blur:k.npy", "blur:k.npy,boundary=circular"),
        ("blur:k.png,sum=1,boundary=reflect", "blur:k.png,sum=1,boundary=reflect"),
        ("downsample:4", "downsample:4,kernel=average"),
        ("downsample:4,kernel=bicubic", "downsample:4,kernel=bicubic"),
        ("dense:a.npy", "dense:a.npy"),
    ] {
        let spec: OperatorSpec = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(spec.to_string(), canonical);
        assert_eq!(canonical.parse::<OperatorSpec>().unwrap(), spec);
        let config = OperatorConfig::from(spec);
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<OperatorConfig>(&json).unwrap(), config, "{json}");
    }
}

#[test]
fn errors_say_what_exists() {
    for (text, message) in [
        ("", "unknown operator ''; known: identity, box:SIZE"),
        ("blurr:gaussian", "unknown operator 'blurr:gaussian'"),
        ("box", "unknown operator 'box'"),
        ("mask:", "unknown operator 'mask:'"),
        ("identity:x", "unknown operator 'identity:x'"),
        ("identity:,a=1", "unknown option 'a'"),
        ("blur:gaussian", "sigma must be given, got nothing"),
        ("blur:gaussian,sigma=x", "sigma must be a number, got x"),
        ("blur:gaussian,sigma=nan", "sigma must be a number, got nan"),
        ("blur:gaussian,sigma=1,sigma=2", "given once"),
        ("blur:gaussian,sigma", "NAME=VALUE, got sigma"),
        ("blur:gaussian,sigma=1,length=2", "unknown option 'length'; known: sigma, size, boundary"),
        ("blur:motion,length=3,boundary=zero", "unknown boundary 'zero'; known: circular, reflect"),
        ("downsample:4,kernel=lanczos", "unknown kernel 'lanczos'; known: average, bicubic"),
        ("downsample:-1", "a whole number, got -1"),
        ("box:3,top=1", "given both or none"),
    ] {
        let error = text.parse::<OperatorSpec>().expect_err(text).to_string();
        assert!(error.contains(message), "{text}: {error}");
    }
}

#[test]
fn operators_say_how_to_make_them_again() {
    let shape = [3, 8, 12];
    for text in [
        "identity",
        "box:2x4,top=1,left=0",
        "mask:random,keep=0.3,seed=1",
        "blur:gaussian,sigma=1.5,size=9,boundary=circular",
        "blur:gaussian,sigma=1.5,size=9,boundary=reflect",
        "blur:motion,length=7,angle=30,boundary=reflect",
        "blur:trajectory,size=7,turning=0.5,seed=3,boundary=circular",
        "downsample:4,kernel=average",
        "downsample:2,kernel=bicubic",
    ] {
        let op = OperatorConfig::from(text.parse::<OperatorSpec>().unwrap()).build(shape).unwrap();
        assert_eq!((op.spec().as_str(), op.input_shape()), (text, shape));
        let ones = Array4::ones((1, 3, 8, 12));
        assert!(op.forward(&ones).iter().all(|v| (v - 1.0).abs() < 1e-12), "{text} keeps constants");
    }
}

#[test]
fn arrays_come_from_the_caller() {
    let config = |text: &str, array: Array2<f64>| {
        let mut config = OperatorConfig::from(text.parse::<OperatorSpec>().unwrap());
        let (name, file) = config.spec.file().unwrap();
        assert_eq!(file, "f.npy");
        config.arrays.insert(name.to_owned(), array.into_dyn());
        config
    };
    let of_ones = |config: OperatorConfig, shape: Shape| {
        let op = config.build(shape).unwrap();
        op.forward(&Array4::ones((1, shape[0], shape[1], shape[2]))).into_raw_vec_and_offset().0
    };
    assert_eq!(of_ones(config("mask:f.npy", array![[0.0, 1.0, 0.2], [1.0, 0.0, 0.0]]), [2, 2, 3]).len(), 4);
    assert_eq!(of_ones(config("dense:f.npy", array![[1.0, 2.0]]), [1, 1, 2]), [3.0]);
    let near = |values: Vec<f64>, expected: f64| values.iter().all(|v| (v - expected).abs() < 1e-14);
    assert!(near(of_ones(config("blur:f.npy", array![[1.0, 2.0]]), [1, 1, 2]), 3.0));
    assert!(near(of_ones(config("blur:f.npy,sum=1", array![[1.0, 2.0]]), [1, 1, 2]), 1.0));
    assert!(config("blur:f.npy,sum=1", array![[1.0, -1.0]]).build([1, 1, 2]).is_err());
    let none = OperatorConfig::from("blur:f.npy".parse::<OperatorSpec>().unwrap());
    let error = none.build([1, 1, 2]).err().unwrap().to_string();
    assert!(error.contains("kernel must be read from f.npy, got no array"), "{error}");
}

#[test]
fn a_missing_capability_lists_the_operators_that_have_it() {
    let op = OperatorConfig::from("blur:motion,length=3,boundary=reflect".parse::<OperatorSpec>().unwrap());
    let op = op.build([1, 8, 8]).unwrap();
    assert!(require(&*op, &[Capability::Adjoint], "dps").is_ok());
    let error = require(&*op, &[Capability::Adjoint, Capability::Prox], "diffpir").unwrap_err().to_string();
    assert!(error.contains("diffpir with the operator blur:motion") && error.contains("the proximal map"), "{error}");
    assert!(error.contains("downsample"), "{error}");
}
