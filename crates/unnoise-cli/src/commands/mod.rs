//! One command a file: its options and what it does.

use std::path::Path;

use anyhow::{Result, bail};
use unnoise::nn::{ClassEmbedding, Device, UnetConfig};
use unnoise::{MeasuredImage, Prior};

pub(crate) mod bench;
pub(crate) mod compare;
pub(crate) mod forward;
pub(crate) mod inspect;
pub(crate) mod invert;
pub(crate) mod likelihood;
pub(crate) mod predict;
pub(crate) mod reconstruct;
pub(crate) mod sample;
pub(crate) mod samplers;
pub(crate) mod simulate;
pub(crate) mod train;

/// Warns of a measurement that no image can have given.
fn warn_of_units(measured: &MeasuredImage) -> Result<()> {
    if let Some(least) = measured.unexplained()? {
        eprintln!(
            "warning: no image in [0, 1] gives this y: every one leaves a residual of at least {least:.3}, root mean square, where sigma_y is \
             {}; is y in the units of [0, 1] pixels, and the operator right?",
            measured.sigma_y()
        );
    }
    Ok(())
}

/// The prior in a model directory, or the built-in one, for images of `sides`, under a class.
fn open_prior(model: Option<&Path>, sides: [usize; 2], class: Option<usize>, device: &Device) -> Result<Prior> {
    let prior = match model {
        Some(directory) => Prior::load_for(directory, sides, device)?,
        None => Prior::digits(device)?,
    };
    check_class(prior.network().unet().config(), prior.null_class(), class)?;
    Ok(prior.with_label(class))
}

/// Refuses a class that the network does not have, and the lack of one that it needs; `null` is its class that stands for none.
fn check_class(config: &UnetConfig, null: Option<usize>, class: Option<usize>) -> Result<()> {
    match (config.class_embed_type, null.or(config.num_class_embeds), class) {
        (None, Some(classes), Some(class)) if class >= classes => bail!("--class must be below {classes}, got {class}"),
        (None, Some(classes), None) if null.is_none() => bail!("the network needs a class: --class, 0 to {}", classes - 1),
        (None, None, Some(_)) => bail!("--class cannot be used: the network has no classes"),
        (Some(ClassEmbedding::Timestep), _, None) => bail!("the network needs a class: --class"),
        (Some(ClassEmbedding::Identity), ..) => bail!("the network takes the embedding of a class, which no option gives"),
        _ => Ok(()),
    }
}
