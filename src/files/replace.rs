//! [`replace`]: a file that is there whole or not at all, and never in the place of somebody
//! else's.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Result};

/// Names differ within a process by this, between processes by their number.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Puts what `write` writes at `path`, once all of it is on the disk. A process that has the old
/// file open or mapped keeps it.
///
/// `is_there` tells whether there is a file at `path` that may be replaced; it fails if there is
/// one that may not. It is asked again at the end, since others may have written there meanwhile.
///
/// # Errors
///
/// That of `is_there`; [`Error::Io`] with the path if the file cannot be written.
pub(crate) fn replace(
    path: &Path,
    is_there: impl Fn() -> Result<bool>,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<()> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    let name = path.file_name().ok_or_else(|| failed(io::Error::other("not a file name")))?;
    let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let hidden = format!(".{}.{process}-{number}.partial", name.to_string_lossy());
    let temporary = path.with_file_name(hidden);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&temporary)
        .map_err(failed)?;
    let written = write(&mut file).and_then(|()| file.sync_all()).map_err(failed);
    drop(file);
    let moved = written.and_then(|()| take_place(&temporary, path, is_there));
    // After a rename it is not there any more. Where something failed, that is what the caller has
    // to know.
    let _ = fs::remove_file(&temporary);
    moved
}

fn take_place(temporary: &Path, path: &Path, is_there: impl Fn() -> Result<bool>) -> Result<()> {
    // A link, unlike a rename, fails if a file has appeared since the question. Not every file
    // system has links.
    if !is_there()? {
        match fs::hard_link(temporary, path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => is_there()?,
            Err(_) => false,
        };
    }
    fs::rename(temporary, path).map_err(|source| Error::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any file that begins with `ours`.
    fn is_ours(path: &Path) -> Result<bool> {
        match fs::read(path) {
            Ok(bytes) if bytes.starts_with(b"ours") => Ok(true),
            Ok(_) => Err(Error::Save { path: path.to_owned(), problem: "not ours".to_owned() }),
            Err(_) => Ok(false),
        }
    }

    /// A new file, while `meanwhile` appears in its place at each question of `replace`.
    fn race(meanwhile: &[&[u8]]) -> (Result<()>, Vec<u8>, usize) {
        use std::io::Write;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let appearing = std::cell::RefCell::new(meanwhile.iter());
        let is_there = || {
            let there = is_ours(&path);
            if let Some(bytes) = appearing.borrow_mut().next() {
                fs::write(&path, bytes).unwrap();
            }
            there
        };
        let done = replace(&path, is_there, |file| file.write_all(b"ours, new"));
        (done, fs::read(&path).unwrap(), fs::read_dir(&folder).unwrap().count())
    }

    #[test]
    fn a_file_that_appears_meanwhile_is_kept_unless_it_is_ours() {
        let (done, found, files) = race(&[]);
        assert_eq!((done.is_ok(), &*found, files), (true, &b"ours, new"[..], 1));
        let (done, found, files) = race(&[b"ours, of another process"]);
        assert_eq!((done.is_ok(), &*found, files), (true, &b"ours, new"[..], 1));
        let (done, found, files) = race(&[b"notes"]);
        assert!(matches!(done, Err(Error::Save { .. })), "{done:?}");
        assert_eq!((&*found, files), (&b"notes"[..], 1));
    }
}
