//! One command a file: its options and what it does.

pub(crate) mod bench;
pub(crate) mod forward;
pub(crate) mod inspect;
pub(crate) mod predict;
pub(crate) mod reconstruct;
pub(crate) mod sample;
pub(crate) mod simulate;
pub(crate) mod train;
