//! The crates depend on each other in one direction only: kernels <- core <- {nn, io} <- unnoise <- cli; on testing depend tests alone.

use std::collections::BTreeMap;
use std::process::Command;

/// What each crate may depend on within the workspace; its tests may use more.
const ALLOWED: [(&str, &[&str]); 7] = [
    ("unnoise-kernels", &[]),
    ("unnoise-core", &[]),
    ("unnoise-testing", &["unnoise-core"]),
    ("unnoise-nn", &["unnoise-kernels", "unnoise-core"]),
    ("unnoise-io", &["unnoise-core"]),
    ("unnoise", &["unnoise-core", "unnoise-nn", "unnoise-io"]),
    ("unnoise-cli", &["unnoise"]),
];

#[test]
fn crates_depend_in_one_direction() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let allowed: BTreeMap<_, _> = ALLOWED.into_iter().collect();
    let packages = metadata["packages"].as_array().expect("a list of packages");
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        let Some(may) = allowed.get(name) else {
            wrong.push(format!("{name} is not in the table"));
            continue;
        };
        for dependency in package["dependencies"].as_array().expect("a list") {
            let to = dependency["name"].as_str().expect("a name");
            if dependency["kind"] == "dev" {
                continue;
            }
            if to.starts_with("unnoise") && !may.contains(&to) {
                wrong.push(format!("{name} must not depend on {to}"));
            }
            if to == "burn" && name != "unnoise-nn" {
                wrong.push(format!("{name} must not see the tensor engine"));
            }
        }
    }
    assert!(packages.len() >= ALLOWED.len(), "{} packages, expected {}", packages.len(), ALLOWED.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
