//! The command line of `unnoise`: diffusion priors for imaging.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod interrupt;
mod message;
mod output;
mod progress;
mod summary;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use unnoise::nn::ArenaAllocator;

/// Networks make and drop large arrays all the time.
#[global_allocator]
static ALLOCATOR: ArenaAllocator = ArenaAllocator::new();

/// Diffusion priors for imaging: train a prior on your images, sample from it, and reconstruct measured images as samples of
/// the posterior.
///
/// Without options, `unnoise reconstruct` shows what this is about: it fills in a digit of which a box is missing.
#[derive(Parser)]
#[command(name = "unnoise", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Reconstruct(commands::reconstruct::Args),
    Sample(commands::sample::Args),
    Invert(commands::invert::Args),
    Samplers(commands::samplers::Args),
    Explain(commands::samplers::ExplainArgs),
    Compare(commands::compare::Args),
    Train(commands::train::Args),
    Simulate(commands::simulate::Args),
    Forward(commands::forward::Args),
    Predict(commands::predict::Args),
    Inspect(commands::inspect::Args),
    Likelihood(commands::likelihood::Args),
    Bench(commands::bench::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Reconstruct(args) => commands::reconstruct::run(args),
        Command::Sample(args) => commands::sample::run(args),
        Command::Invert(args) => commands::invert::run(args),
        Command::Samplers(args) => commands::samplers::run(args),
        Command::Explain(args) => commands::samplers::explain(args),
        Command::Compare(args) => commands::compare::run(args),
        Command::Train(args) => commands::train::run(args),
        Command::Simulate(args) => commands::simulate::run(args),
        Command::Forward(args) => commands::forward::run(args),
        Command::Predict(args) => commands::predict::run(args),
        Command::Inspect(args) => commands::inspect::run(args),
        Command::Likelihood(args) => commands::likelihood::run(args),
        Command::Bench(args) => commands::bench::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", message::one_line(&error));
            // 128 + SIGINT, as a shell reports a program that Ctrl-C ended.
            ExitCode::from(if interrupt::requested() { 130 } else { 1 })
        }
    }
}
