//! [`Staging`]: a directory that is there whole or not at all.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Result};

/// A directory under a temporary name beside its own, which it gets when it is complete. Dropped
/// before, it is deleted.
#[derive(Debug)]
pub(crate) struct Staging {
    temporary: PathBuf,
    target: PathBuf,
}

/// Names differ within a process by this, between processes by their number.
static NEXT: AtomicUsize = AtomicUsize::new(0);

impl Staging {
    /// To become `target`, which must not be there yet, or be an empty directory.
    pub(crate) fn new(target: &Path) -> Result<Self> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { path, source }
        };
        let refused =
            |problem: &str| Error::Save { path: target.to_owned(), problem: problem.to_owned() };
        match fs::read_dir(target).map(|mut entries| entries.next().is_some()) {
            Ok(true) => return Err(refused("the directory is not empty")),
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(target)(error)),
        }
        let target = std::path::absolute(target).map_err(failed(target))?;
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(refused("it has no name of its own"));
        };
        fs::create_dir_all(parent).map_err(failed(parent))?;
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let hidden = format!(".{}.{process}-{number}.partial", name.to_string_lossy());
        let temporary = parent.join(hidden);
        fs::create_dir(&temporary).map_err(failed(&temporary))?;
        Ok(Self { temporary, target })
    }

    /// Where to write the file `name`, its folders made.
    pub(crate) fn place(&self, name: &str) -> Result<PathBuf> {
        let path = self.temporary.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)
                .map_err(|source| Error::Io { path: folder.to_owned(), source })?;
        }
        Ok(path)
    }

    /// Writes the file `name`.
    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> Result<()> {
        let path = self.place(name)?;
        fs::write(&path, contents).map_err(|source| Error::Io { path, source })
    }

    /// Gives the directory its name, once all of it is on the disk.
    pub(crate) fn commit(self) -> Result<()> {
        let failed = |source| Error::Io { path: self.target.clone(), source };
        sync(&self.temporary).map_err(failed)?;
        // A rename replaces an empty directory on some systems only.
        match fs::remove_dir(&self.target) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        fs::rename(&self.temporary, &self.target).map_err(failed)
    }
}

/// Waits until every file below `directory` is on the disk.
fn sync(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync(&entry.path())?;
        } else {
            OpenOptions::new().write(true).open(entry.path())?.sync_all()?;
        }
    }
    Ok(())
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After `commit` it is not there any more; else there is nobody left to tell.
        let _ = fs::remove_dir_all(&self.temporary);
    }
}
