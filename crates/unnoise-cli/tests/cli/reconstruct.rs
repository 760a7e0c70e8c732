//! `unnoise reconstruct`.

use serde_json::json;

use crate::{Scratch, files, fixture};

const METHODS: [&str; 6] = ["dps", "pigdm", "mmps", "ddnm-plus", "diffpir", "tds"];

/// A copy of the fixture whose config.json states no size of its images.
pub(crate) fn model_without_a_size(scratch: &Scratch) -> String {
    let copy = scratch.path("unsized");
    for part in ["unet", "scheduler"] {
        std::fs::create_dir_all(copy.join(part)).unwrap();
        for file in files(fixture(&format!("tiny/{part}")).as_ref()) {
            std::fs::copy(&file, copy.join(part).join(file.file_name().unwrap())).unwrap();
        }
    }
    let config = copy.join("unet/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(config, text.replace("\"sample_size\": 16", "\"sample_size\": null")).unwrap();
    "unsized".into()
}

#[test]
fn every_method_reconstructs() {
    let scratch = Scratch::new();
    scratch.measure(0.05);
    let base = format!("reconstruct --model {} --measurement m.npz", fixture("tiny"));
    for method in METHODS {
        let report = scratch.json(&format!("{base} --method {method} --samples 3 --steps 8 --out {method}"));
        assert_eq!((&report["method"], &report["samples"]), (&json!(method), &json!(3)));
        assert_eq!(report["chi_square"].as_array().map(Vec::len), Some(3));
        assert!(report["psnr"].as_f64().is_some_and(f64::is_finite), "{report}");
        // chi-square is the residual in units of the noise.
        let (chi, rms) = (report["chi_square"][1].as_f64().unwrap(), report["residual_rms"][1].as_f64().unwrap());
        assert!((chi.sqrt() * 0.05 / rms - 1.0).abs() < 1e-9, "{method}: {chi} {rms}");
        assert_eq!(report["diagnostics"].get("solver").is_some(), method == "mmps", "{report}");
        assert_eq!(report["diagnostics"].get("particles").is_some(), method == "tds", "{report}");
        assert_eq!(scratch.read(&format!("{method}/samples.npy")).dim(), (3, 1, 16, 16));
        for file in ["panel.png", "mean.npy", "deviation.npy", "truth.npy", "report.json"] {
            assert!(scratch.path(method).join(file).is_file(), "{method}: {file}");
        }
        let about = scratch.json(&format!("inspect {method}"));
        assert_eq!((&about["kind"], &about["method"], &about["psnr"]), (&json!("reconstruction"), &json!(method), &report["psnr"]));
    }
    let again = scratch.refused(&format!("{base} --samples 1 --steps 2 --out dps"));
    assert!(again.contains("dps exists already; --force replaces it"), "{again}");
    scratch.succeed(&format!("{base} --samples 1 --steps 2 --out dps --force"));
}

/// `--force` replaces a result, and nothing else that a user may have in a directory.
#[test]
fn force_replaces_results_only() {
    let scratch = Scratch::new();
    scratch.measure(0.05);
    let line = format!("reconstruct --model {} --measurement m.npz --samples 1 --steps 2 --force --out", fixture("tiny"));
    std::fs::create_dir_all(scratch.path("proj/sub")).unwrap();
    for (name, content) in [("report.json", "{\"title\": 1}"), ("main.py", "pass"), ("sub/data", "1")] {
        std::fs::write(scratch.path("proj").join(name), content).unwrap();
    }
    let message = scratch.refused(&format!("{line} proj"));
    assert!(message.contains("proj exists already; it is no result: its report.json is something else"), "{message}");
    assert!(["report.json", "main.py", "sub/data"].iter().all(|name| scratch.path("proj").join(name).is_file()));

    let text = scratch.succeed(&format!("{line} out"));
    assert!(
        text.contains("out/: panel.png, report.json, measurement.npz, samples.npy, mean.npy, deviation.npy, truth.npy"),
        "{text}"
    );
    scratch.succeed(&format!("{line} out"));
    std::fs::write(scratch.path("out/notes.txt"), "mine").unwrap();
    let message = scratch.refused(&format!("{line} out"));
    assert!(message.contains("out exists already; it is not a result alone: it also holds notes.txt"), "{message}");
    assert_eq!(std::fs::read_to_string(scratch.path("out/notes.txt")).unwrap(), "mine");
    assert_eq!(files(scratch.0.path()).len(), 4, "the image, its measurement and the two directories");
}

/// What a user cannot see in the picture stands in the summary: solves that stopped short, particles that died.
#[test]
fn the_summary_tells_of_solves_and_particles() {
    let scratch = Scratch::new();
    scratch.measure(0.05);
    let base = format!("reconstruct --model {} --measurement m.npz --samples 3 --batch 2 --steps 4", fixture("tiny"));
    let text = scratch.succeed(&format!("{base} --method mmps --set max_iterations=2 --set tolerance=1e-9 --out short"));
    let solves = text.lines().find(|line| line.trim().starts_with("solves")).unwrap_or_else(|| panic!("{text}"));
    assert!(solves.contains("12, of 3.0 products each") && solves.contains("12 stopped short"), "{solves}");
    // A reflecting blur has no decomposition, so that pigdm solves; its systems are well conditioned.
    scratch.succeed("simulate --image image.npy --operator blur:motion,length=3,boundary=reflect --sigma-y 0.05 --output blur.npz");
    let text = scratch.succeed(&format!("{base} --method pigdm --out well").replace("m.npz", "blur.npz"));
    assert!(text.contains("all reached their tolerance"), "{text}");
    let text = scratch.succeed(&format!("{base} --method tds --set particles=4 --out particles"));
    let particles = text.lines().find(|line| line.trim().starts_with("particles")).unwrap_or_else(|| panic!("{text}"));
    assert!(particles.contains("4 a sample; effective size"), "{particles}");
    let text = scratch.succeed(&format!("{base} --method diffpir --out neither"));
    assert!(!text.contains("solves") && !text.contains("particles"), "{text}");
    let one =
        scratch.succeed(&format!("reconstruct --model {} --measurement m.npz --samples 1 --steps 1 --out one", fixture("tiny")));
    assert!(one.starts_with("1 posterior sample by ddnm-plus (heuristic), 1 step each"), "{one}");
}

/// Without noise: the methods that have a limit there reach it, and the one that has none says so.
#[test]
fn a_measurement_without_noise() {
    let scratch = Scratch::new();
    scratch.measure(0.0);
    let base = format!("reconstruct --model {} --measurement m.npz --samples 2 --steps 8", fixture("tiny"));
    for method in METHODS.into_iter().filter(|method| *method != "tds") {
        let report = scratch.json(&format!("{base} --method {method} --out {method}"));
        assert!(report["chi_square"].is_null(), "{method}: {}", report["chi_square"]);
        let residual = report["residual_rms"][0].as_f64().unwrap();
        // y is single precision; ddnm-plus takes what was measured from it, and diffpir all but its floor of .002 does.
        match method {
            "ddnm-plus" => assert!(residual < 1e-7, "{residual}"),
            "diffpir" => assert!(residual < 1e-3, "{residual}"),
            _ => assert!(residual.is_finite(), "{method}: {residual}"),
        }
    }
    let text = scratch.succeed(&format!("{base} --out text"));
    assert!(text.contains("  residual  ") && !text.contains("chi-square"), "{text}");
    assert!(scratch.refused(&format!("{base} --method tds --out tds")).contains("sigma_y > 0"));
}

#[test]
fn the_measurement_states_the_size_where_the_model_does_not() {
    let scratch = Scratch::new();
    scratch.measure(0.05);
    let model = model_without_a_size(&scratch);
    for (model, out) in [(model, "unsized-out"), (fixture("tiny"), "sized-out")] {
        scratch.succeed(&format!("reconstruct --model {model} --measurement m.npz --samples 1 --steps 3 --out {out}"));
    }
    assert_eq!(scratch.read("unsized-out/samples.npy"), scratch.read("sized-out/samples.npy"));
    // The built-in measurement is not of the model's size.
    let message = scratch.refused(&format!("reconstruct --model {} --out other", fixture("tiny")));
    assert!(message.contains("the measured image must be of shape [1, 16, 16] [c, h, w], as the prior's images"), "{message}");
}

/// A measurement in other units than it claims: no image explains it, and the user is told before the work.
#[test]
fn a_measurement_in_other_units_is_noticed() {
    use unnoise::io::{Limits, MeasurementFile, Overwrite};
    let scratch = Scratch::new();
    let path = scratch.path("m.npz");
    let reconstruct =
        format!("reconstruct --model {} --measurement m.npz --samples 1 --steps 1 --force --out out", fixture("tiny"));
    let warned = |line: &str| {
        let output = scratch.run(line);
        assert!(output.status.success(), "{line}");
        String::from_utf8_lossy(&output.stderr).contains("warning: no image in [0, 1] gives this y")
    };
    scratch
        .write("image.npy", &ndarray::Array4::from_shape_fn((1, 1, 16, 16), |(_, _, i, j)| f64::from(u8::from((i + j) % 5 > 1))));
    for operator in ["box:6", "blur:gaussian,sigma=1.0", "downsample:2,kernel=bicubic", "identity"] {
        for sigma_y in [0.0, 0.05] {
            scratch
                .succeed(&format!("simulate --image image.npy --operator {operator} --sigma-y {sigma_y} --force --output m.npz"));
            assert!(!warned("inspect m.npz") && !warned(&reconstruct), "{operator} {sigma_y}");
            let right = MeasurementFile::read(&path, Limits::default()).unwrap();
            for (units, y) in [("[0, 255]", right.y.mapv(|v| 255.0 * v)), ("[-1, 1]", right.y.mapv(|v| 2.0 * v - 1.0))] {
                MeasurementFile { y, ..right.clone() }.write(&path, Overwrite::Force).unwrap();
                assert!(warned("inspect m.npz") && warned(&reconstruct), "{operator} {sigma_y} in {units}");
            }
        }
    }
}
