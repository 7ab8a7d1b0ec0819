//! The cache on the disk, in the layout of Python's huggingface_hub:
//!
//! ```text
//! models--org--name/refs/main                       the commit of a branch or tag
//!                   snapshots/<commit>/config.json  → ../../blobs/…
//!                   blobs/<etag>                    the contents, by hash
//!                   blobs/<etag>.incomplete         a part of them
//!                   .no_exist/<commit>/<file>       the hub has no such file
//!                   trees/<commit>.json             the names of all files, by Python's download of a whole repository
//! .locks/models--org--name/<etag>.lock              held while fetching
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::settings::Settings;
use crate::error::{Error, Result};
use crate::sentence::CancellationToken;

/// How often it is asked whether another process is done.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// What the cache knows of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// It is there.
    There,
    /// There is a link to it, and nothing at the link's end.
    Unlinked,
    /// The repository has it, but it was not fetched.
    Listed,
    /// The repository has none.
    Absent,
    Nothing,
}

/// A repository in the cache.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    locks: PathBuf,
}

impl Cache {
    pub(super) fn new(settings: &Settings) -> Self {
        let name = format!("models--{}", settings.repo.replace('/', "--"));
        Self { locks: settings.cache.join(".locks").join(&name), folder: settings.cache.join(name) }
    }

    /// The directory of a commit's files.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// A part of a blob.
    pub(super) fn incomplete(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// For errors.
    pub(super) fn shown(&self) -> String {
        self.folder.display().to_string()
    }

    /// The commit that `revision` had when it was last asked for.
    pub(super) fn commit_of(&self, revision: &str) -> Option<String> {
        let commit = fs::read_to_string(self.folder.join("refs").join(revision)).ok()?;
        Some(commit.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// Keeps the commit of a branch or tag.
    pub(super) fn set_commit_of(&self, revision: &str, commit: &str) -> Result<()> {
        if self.commit_of(revision).as_deref() == Some(commit) {
            return Ok(()); // the cache may be one that cannot be written
        }
        let path = self.folder.join("refs").join(revision);
        create_parent(&path)?;
        let temporary = temporary_beside(&path);
        fs::write(&temporary, commit).map_err(at(&temporary))?;
        fs::rename(&temporary, &path).map_err(at(&path))
    }

    pub(super) fn has(&self, commit: &str, file: &str) -> bool {
        self.snapshot(commit).join(file).is_file()
    }

    /// What the cache knows of a file of a commit.
    pub(super) fn knows(&self, commit: &str, file: &str) -> Known {
        if self.has(commit, file) {
            return Known::There;
        }
        if self.snapshot(commit).join(file).is_symlink() {
            return Known::Unlinked;
        }
        if self.no_exist(commit, file).is_file() {
            return Known::Absent;
        }
        match self.listing(commit) {
            Some(files) if files.contains_key(file) => Known::Listed,
            Some(_) => Known::Absent,
            None => Known::Nothing,
        }
    }

    /// The names of all files of a commit, as Python's huggingface_hub keeps them; `None` without
    /// them, or if they are of a format that is not known.
    fn listing(&self, commit: &str) -> Option<BTreeMap<String, IgnoredAny>> {
        #[derive(Deserialize)]
        struct Listing {
            format_version: u64,
            files: BTreeMap<String, IgnoredAny>,
        }
        let path = self.folder.join("trees").join(format!("{commit}.json"));
        let listing: Listing = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        (listing.format_version == 1).then_some(listing.files)
    }

    /// A blob that was not fetched to its end.
    pub(super) fn part_of_download(&self) -> Option<PathBuf> {
        let blobs = fs::read_dir(self.folder.join("blobs")).ok()?.flatten();
        let mut paths = blobs.map(|entry| entry.path());
        paths.find(|path| path.extension().is_some_and(|extension| extension == "incomplete"))
    }

    pub(super) fn set_lacking(&self, commit: &str, file: &str) -> Result<()> {
        let path = self.no_exist(commit, file);
        create_parent(&path)?;
        fs::write(&path, "").map_err(at(&path))
    }

    fn no_exist(&self, commit: &str, file: &str) -> PathBuf {
        self.folder.join(".no_exist").join(commit).join(file)
    }

    /// Waits until nobody else, in this process or another, fetches the blob. Held until the file
    /// is dropped; `None` where the file system knows no locks.
    pub(super) fn lock(&self, etag: &str, stop: &CancellationToken) -> Result<Option<File>> {
        let path = self.locks.join(format!("{etag}.lock"));
        create_parent(&path)?;
        let file = File::options().create(true).append(true).open(&path).map_err(at(&path))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::WouldBlock) if stop.is_cancelled() => {
                    return Err(Error::Cancelled);
                }
                Err(TryLockError::WouldBlock) => thread::sleep(LOCK_POLL),
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                    return Ok(None);
                }
                Err(TryLockError::Error(error)) => return Err(at(&path)(error)),
            }
        }
    }

    /// Makes a blob the commit's `file`: by a link, or by a copy where links cannot be made.
    pub(super) fn link(&self, etag: &str, commit: &str, file: &str) -> Result<()> {
        let place = self.snapshot(commit).join(file);
        if place.is_file() {
            return Ok(()); // another thread or process was faster
        }
        create_parent(&place)?;
        let temporary = temporary_beside(&place);
        // From the folder of the file to that of the repository: over `snapshots`, the commit, and
        // the folders of the file.
        let up = "../".repeat(2 + file.matches('/').count());
        let target = format!("{up}blobs/{etag}");
        if symlink(Path::new(&target), &temporary).is_err() {
            let blob = self.blob(etag);
            fs::copy(&blob, &temporary).map_err(at(&blob))?;
        }
        // A rename, unlike a link, takes the place of a broken link.
        fs::rename(&temporary, &place).map_err(at(&place))
    }
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether `text` is the whole hash of a commit, which never means another one later.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

pub(super) fn create_parent(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), |folder| fs::create_dir_all(folder).map_err(at(folder)))
}

/// For `map_err`.
pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { path, source }
}

/// A name that no other thread or process uses.
fn temporary_beside(path: &Path) -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{process}-{number}.tmp"))
}
