//! What the examples share: finding the model, reading flags, fetching the real weights.

#![allow(dead_code, unreachable_pub, reason = "each example uses a part of this module")]

pub mod banking77;
pub mod cli;
pub mod document;
pub mod fetch;
pub mod input;

use std::path::{Path, PathBuf};

/// Any failure of an example; [`cli::run`] prints it.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The result of an example and of its parts.
pub type Result<T> = std::result::Result<T, Error>;

/// A file of `examples/data`. It is not part of the published crate, only of the repository.
pub fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data").join(name)
}
