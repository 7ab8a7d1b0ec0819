//! [`replace`]: a file that is there whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Names differ within a process by this, between processes by their number.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Puts what `write` writes in the place of the file at `path`, once all of it is on the disk. Who has the old one open or mapped
/// keeps it.
pub(crate) fn replace(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::other("not a file name"))?;
    let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let hidden = format!(".{}.{process}-{number}.partial", name.to_string_lossy());
    let temporary = path.with_file_name(hidden);
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&temporary)?;
    let written = write(&mut file).and_then(|()| file.sync_all());
    drop(file);
    let replaced = written.and_then(|()| fs::rename(&temporary, path));
    if replaced.is_err() {
        // What went wrong first is what the caller has to know.
        let _ = fs::remove_file(&temporary);
    }
    replaced
}
