//! The chapter's posterior sampler, run as a test: it checks its own numbers.

#[path = "../examples/score_sum.rs"]
mod score_sum;

#[test]
fn score_sum() {
    score_sum::main().expect("it runs");
}
