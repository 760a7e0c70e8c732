//! Training a prior: batches, loss, optimizer, checkpoints.

mod batches;
mod checkpoint;
mod config;
mod held_out;
mod learning_rate;
mod optimizer;
mod run_directory;
mod trainer;

pub use batches::{TrainingBatch, TrainingImages};
pub use checkpoint::{Checkpoint, ImagesSummary};
pub use config::{Times, TrainConfig, TrainSchedule};
pub use held_out::held_out_losses;
pub use learning_rate::LearningRate;
pub use optimizer::{AdamW, Slot, Update, clip_factor, ema_decay, global_norm};
pub use run_directory::RunDirectory;
pub use trainer::{Outcome, StepReport, Trainer, TrainingState};
