//! The memory map: a weight file as bytes, without reading it first.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// Maps the file at `path` for reading.
#[allow(unsafe_code, reason = "mapping a file is unsafe: see the block")]
pub(super) fn map(path: &Path) -> Result<Mmap> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    // Mapping a directory or a device fails with a puzzling message, or not at all.
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(std::io::Error::other("not a regular file")));
    }
    // SAFETY: the map is read-only, and is only ever read as bytes and `f32`s, for which every
    // bit pattern is valid. What remains is that another process may change or truncate the file meanwhile: the user, who
    // gave us the directory, must not do that, as `SentenceEncoder::from_pretrained` and `Checkpoint::open`
    // say. Everything is copied out of the map while loading, so the duty ends there.
    unsafe { Mmap::map(&file) }.map_err(failed)
}
