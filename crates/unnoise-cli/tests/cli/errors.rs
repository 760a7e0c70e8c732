//! Bad input: one clear line, a non-zero exit, no panic, nothing written.

use ndarray::Array4;

use crate::{Scratch, files, fixture};

/// A scratch directory of a user's mistakes.
fn mistakes() -> Scratch {
    let scratch = Scratch::new();
    let write = |name: &str, bytes: &[u8]| std::fs::write(scratch.path(name), bytes).unwrap();
    write("truncated.npy", b"\x93NUMPY\x01\x00v\x00{'descr'");
    write("text.png", b"no picture");
    write("notes.txt", b"hello");
    let mut image = Array4::from_elem((1, 1, 16, 16), 0.5);
    scratch.write("image.npy", &image);
    image[[0, 0, 3, 5]] = f64::NAN;
    scratch.write("nan.npy", &image);
    scratch.write("wide.npy", &Array4::from_elem((1, 1, 16, 16), 7.0));
    scratch.write("small.npy", &Array4::from_elem((1, 1, 8, 8), 0.5));
    std::fs::create_dir(scratch.path("folder.npy")).unwrap();
    std::fs::create_dir(scratch.path("empty")).unwrap();
    scratch.succeed("simulate --image image.npy --operator box:4 --sigma-y 0.1 --output m.npz");
    let whole = std::fs::read(scratch.path("m.npz")).unwrap();
    write("cut.npz", &whole[..whole.len() / 2]);
    scratch.succeed("forward --image image.npy --output whole.png");
    let whole = std::fs::read(scratch.path("whole.png")).unwrap();
    write("cut.png", &whole[..whole.len() - 20]);
    for (name, keep) in [("no-weights", 0), ("cut-weights", 1000)] {
        crate::reconstruct::model_without_a_size(&scratch);
        let weights = scratch.path("unsized/unet/diffusion_pytorch_model.safetensors");
        let bytes = std::fs::read(&weights).unwrap();
        std::fs::remove_file(&weights).unwrap();
        if keep > 0 {
            std::fs::write(&weights, &bytes[..keep]).unwrap();
        }
        std::fs::rename(scratch.path("unsized"), scratch.path(name)).unwrap();
    }
    scratch
}

#[test]
fn errors_are_one_clear_line() {
    let scratch = mistakes();
    let model = fixture("tiny");
    let simulate = |image: &str, rest: &str| format!("simulate --image {image} --sigma-y 0.1 {rest}");
    let (boxed, predict) = ("--operator box:4 --output new.npz", format!("predict --model {model} --timestep 1"));
    let before = files(scratch.0.path());
    let mut failures = Vec::new();
    for (line, expected) in [
        (simulate("missing.png", boxed), "cannot read missing.png: No such file"),
        (simulate("empty", boxed), "cannot read empty: is a directory"),
        (simulate("folder.npy", boxed), "cannot read folder.npy: is a directory"),
        (simulate("text.png", boxed), "text.png: the image: expected a PNG or JPEG, got something else"),
        (simulate("cut.png", boxed), "cut.png: the image: expected an intact PNG or JPEG"),
        (simulate("truncated.npy", boxed), "truncated.npy: the array: expected more bytes, got the file's end (truncated?)"),
        (simulate("nan.npy", boxed), "NaN or infinite (image 0, row 3, column 5)"),
        (simulate("wide.npy", boxed), "expected pixels in [0, 1], got 7.0000 to 7.0000"),
        (simulate("notes.txt", boxed), "the file type '.txt' is not supported yet"),
        (simulate("small.npy", "--operator blurr:4 --output new.npz"), "known: identity, box:SIZE"),
        (simulate("small.npy", "--operator box:40 --output new.npz"), "box must be a part of the 8 x 8 image, got 40 x 40"),
        (simulate("small.npy", "--operator downsample:3 --output new.npz"), "factor must be a divisor of both sides"),
        (simulate("small.npy", "--operator blur:missing.npy --output new.npz"), "cannot read missing.npy"),
        (simulate("image.npy", "--operator box:4 --output m.npz"), "m.npz exists already; --force replaces it"),
        (simulate("image.npy", "--operator box:4 --output m.png"), "the output's name must end in one of .npz, got m.png"),
        (simulate("image.npy", "--operator box:4 --output nowhere/m.npz"), "there is no directory nowhere"),
        (simulate("image.npy", "--operator box:4 --index 3 --output new.npz"), "--index must be below 1"),
        ("sample --model nowhere --output x.npy".into(), "nowhere: No such file or directory"),
        ("sample --model image.npy --output x.npy".into(), "image.npy: Not a directory"),
        ("sample --model empty --output x.npy".into(), "empty: the directory must be a model's, with config.json"),
        ("sample --model no-weights --output x.npy".into(), "the weights must be in diffusion_pytorch_model.safetensors"),
        ("sample --model cut-weights --output x.npy".into(), "must be a whole safetensors file"),
        (format!("sample --model {model} --sampler dimm --output x.npy"), "known: ddpm, ddim"),
        (format!("sample --model {model} --grid sideways --output x.npy"), "leading, linspace, trailing, karras"),
        (format!("sample --model {model} --steps 0 --output x.npy"), "steps must be from 1 to"),
        (format!("sample --model {model} --steps 5000 --output x.npy"), "steps must be from 1 to"),
        (format!("sample --model {model} --noise small.npy --output x.npy"), "must have shape [1, 16, 16], got [1, 8, 8]"),
        (format!("sample --model {model} --device abacus --output x.npy"), "the device 'abacus'"),
        (format!("sample --model {model} --output x.gif"), "the output's name must end in one of .png, .jpg, .npy, .npz"),
        (format!("sample --model {model} --output folder.npy"), "the output folder.npy is a directory"),
        (
            format!("sample --model {model} --trace image.npy --output x.npy"),
            "image.npy exists already; it is a file, not a directory",
        ),
        (format!("{predict} --input truncated.npy --output y.npy"), "truncated.npy"),
        (format!("{predict} --input nan.npy --output y.npy"), "expected finite numbers, got NaN at [0, 0, 3, 5]"),
        (format!("{predict} --input m.npz --output y.npy"), "expected one array, or one called images"),
        (format!("{predict} --input image.npy --output y.png"), "the output's name must end in one of .npy, .npz"),
        (format!("{predict} --input image.npy --timestep 7000 --output y.npy").replace("--timestep 1 ", ""), "--timestep must be"),
        (format!("reconstruct --model {model} --measurement nan.npy"), "nan.npy: the archive: expected an .npz archive"),
        (
            format!("reconstruct --model {model} --measurement cut.npz"),
            "cut.npz: the archive: expected an .npz archive, got something",
        ),
        (format!("reconstruct --model {model} --measurement missing.npz"), "cannot read missing.npz"),
        (format!("reconstruct --model {model} --measurement m.npz --method dsp"), "known: dps, pigdm"),
        (format!("reconstruct --model {model} --measurement m.npz --samples 0"), "the number of samples must be 1 to"),
        (format!("reconstruct --model {model} --measurement m.npz --steps 0"), "steps must be from 1 to"),
        (format!("reconstruct --model {model} --measurement m.npz --out image.npy"), "it is a file, not a directory"),
        (format!("reconstruct --model {model} --measurement m.npz --out no-weights --force"), "it holds no report.json"),
        ("inspect text.png".into(), "text.png"),
        ("inspect cut.npz".into(), "something else or a truncated one"),
        ("forward --image image.npy --levels 2 --output f.png".into(), "--levels must be in [0, 1], got 2"),
        ("train --data nowhere --out run".into(), "cannot read nowhere"),
        ("train --data empty --out run".into(), "the folder: expected PNG or JPEG files"),
        ("train --data nan.npy --out run".into(), "expected pixels in [0, 1], got NaN"),
        ("train --data image.npy --out image.npy".into(), "--out image.npy is a file, not a directory"),
        ("train --data image.npy --out run --batch 0".into(), "batch must be in 1..2^24, got 0"),
        ("train --data image.npy --out run --channels 7".into(), "--channels must be multiples of 16, got [7]"),
        ("train --data image.npy --out run --prediction noise".into(), "known: eps, x0, v, velocity"),
        ("train --data image.npy --out run --architecture notes.txt".into(), "notes.txt is not JSON"),
        (
            format!("train --data image.npy --out run --architecture {}/unet/config.json", fixture("learned")),
            "as many outputs as inputs, without a learned variance",
        ),
    ] {
        let message = scratch.refused(&line);
        if !message.contains(expected) {
            failures.push(format!("{line}: {message}  expected: {expected}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(files(scratch.0.path()), before, "something was left behind");
}

/// A full disk, which Linux has as a device.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_an_error() {
    let scratch = Scratch::new();
    scratch.measure(0.05);
    for name in ["full.npy", "full.npz", "full.png"] {
        std::os::unix::fs::symlink("/dev/full", scratch.path(name)).unwrap();
    }
    let model = fixture("tiny");
    for line in [
        format!("predict --model {model} --input {} --timestep 3 --output full.npy", fixture("tiny/x_T.npy")),
        format!("sample --model {model} --steps 1 --output full.npz"),
        "forward --image image.npy --output full.png".into(),
        "simulate --image image.npy --operator box:4 --sigma-y 0.1 --output full.npz".into(),
    ] {
        let output = scratch.run(&line);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && message.contains("cannot write full."), "{line}: {message}");
        assert!(message.contains("No space left on device"), "{line}: {message}");
    }
    // stdout too.
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = scratch.command("inspect m.npz").stdout(full()).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains("stdout cannot be written: No space left"), "{message}");
}

/// A place where nothing may be written; the superuser may, and sees nothing.
#[test]
#[cfg(target_os = "linux")]
fn an_unwritable_place_is_an_error() {
    let scratch = Scratch::new();
    scratch.measure(0.05);
    for line in [
        "simulate --image image.npy --operator box:4 --sigma-y 0.1 --output /proc/new.npz".to_owned(),
        "forward --image image.npy --output /proc/new.npy".into(),
        format!("reconstruct --model {} --measurement m.npz --out /proc/new", fixture("tiny")),
    ] {
        let message = scratch.refused(&line);
        assert!(message.contains("/proc/new"), "{line}: {message}");
    }
}

/// A disk that fills up within a result of many files: the place where it was gathered is gone, and the user's own is named.
#[test]
#[cfg(target_os = "linux")]
fn a_disk_that_fills_up_leaves_nothing() {
    let scratch = Scratch::new();
    scratch.measure(0.05);
    scratch.write("images.npy", &Array4::from_elem((4, 1, 8, 8), 0.5));
    let before = files(scratch.0.path());
    for (line, expected) in [
        (
            format!("reconstruct --model {} --measurement m.npz --samples 4 --steps 1 --out out", fixture("tiny")),
            "cannot write out/samples.npy: File too large",
        ),
        (
            format!("sample --model {} --n 4 --steps 2 --trace trace --output x.npy", fixture("tiny")),
            "cannot write trace/x-0000.npy: File too large",
        ),
        (
            "train --data images.npy --channels 16 --layers 1 --batch 2 --steps 2 --sheet-every 0 --out run".into(),
            "run/step-00000002/diffusion_pytorch_model.safetensors: File too large",
        ),
    ] {
        // No file may have more than one block, and the signal that would end the program is ignored.
        let script = format!("trap '' XFSZ; ulimit -f 1; exec {} {line}", env!("CARGO_BIN_EXE_unnoise"));
        let output = std::process::Command::new("sh").args(["-c", &script]).current_dir(&scratch.0).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && message.contains(expected), "{line}: {message}");
        assert!(!message.contains(".partial") && !message.contains(".tmp"), "{line}: {message}");
    }
    let after: Vec<_> = files(scratch.0.path()).into_iter().filter(|path| !path.ends_with("run")).collect();
    assert_eq!(after, before);
    assert!(files(&scratch.path("run")).iter().all(|path| !path.to_string_lossy().contains("step-")));
}
