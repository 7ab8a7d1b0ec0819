//! The memory map: a weight file as bytes, without reading it first.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// Maps the file at `path` for reading.
pub(super) fn map(path: &Path) -> Result<Mmap> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    map_file(&file).map_err(failed)
}

/// Maps an open file for reading.
#[allow(unsafe_code, reason = "mapping a file is unsafe: see the block")]
pub(crate) fn map_file(file: &File) -> io::Result<Mmap> {
    // Mapping a directory or a device fails with a puzzling message, or not at all.
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    // SAFETY: the map is read-only, and is only ever read as bytes, words and `f32`s, for which
    // every bit pattern is valid. What remains is that another process may change or truncate the
    // file meanwhile: the user, who gave us the directory, must not do that, as
    // `SentenceEncoder::from_pretrained` and `Checkpoint::open` say. Everything is copied out of a
    // checkpoint's map while loading, so the duty ends there; a file of packed weights stays
    // mapped, as `SentenceEncoderBuilder::packed_cache` says.
    unsafe { Mmap::map(file) }
}

/// Gives the pages of `range` back to the system. Who reads them again reads the file again.
#[cfg(unix)]
#[allow(unsafe_code, reason = "advice that drops pages is unsafe: see the block")]
pub(super) fn give_back(map: &Mmap, range: Range<usize>) {
    // SAFETY: nothing was ever written to these pages, so what they are filled with when they are
    // next read, from the file that the map was made of, is what they hold now. The page that the
    // range begins in is dropped whole, for which the same holds.
    let advised = unsafe {
        map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len())
    };
    // They were only to make room.
    let _ = advised;
}

/// Here the system takes pages back when it wants them.
#[cfg(not(unix))]
pub(super) fn give_back(_: &Mmap, _: Range<usize>) {}
