//! The examples assert the numbers that they print: they run as tests.

#[path = "../examples/noising_strip.rs"]
#[allow(dead_code, reason = "its main reads the arguments, which are the test harness's here")]
mod noising_strip;
#[path = "../examples/posterior_step.rs"]
mod posterior_step;
#[path = "../examples/tweedie.rs"]
mod tweedie;

#[test]
fn noising_strip() {
    noising_strip::strip(None).unwrap();
}

#[test]
fn posterior_step() {
    posterior_step::main().unwrap();
}

#[test]
fn tweedie() {
    tweedie::main().unwrap();
}
