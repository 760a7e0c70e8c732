//! The chapter's learnt example, run as a test: it checks its own numbers.

#[path = "../examples/one_level_denoiser.rs"]
mod one_level_denoiser;

#[test]
fn one_level_denoiser() {
    one_level_denoiser::main().expect("it runs");
}
