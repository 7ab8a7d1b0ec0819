//! [`ModelFiles`]: where a model's files come from, a directory or memory. Everything that loads reads through
//! it, so what can be loaded from one can be loaded from the other.

mod digest;
mod mmap;
mod replace;
mod staging;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

pub(crate) use digest::digest;
pub(crate) use mmap::map_file;
pub(crate) use replace::replace;
pub(crate) use staging::Staging;

/// The largest configuration or tokenizer file that is read; weights are mapped and have no such limit.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// The files of a model: a sentence-transformers directory, or the same files held in memory.
///
/// A path converts into it, so `SentenceEncoder::builder("models/all-mpnet-base-v2")` is the usual way. In memory,
/// files go by the names they have in such a directory:
///
/// ```
/// use mpnet::ModelFiles;
///
/// let files = ModelFiles::in_memory([
///     ("config.json", br#"{"model_type": "mpnet"}"#.as_slice()),
///     ("1_Pooling/config.json", br#"{"pooling_mode_cls_token": true}"#),
/// ]);
/// ```
#[derive(Debug, Clone)]
pub struct ModelFiles<'a>(Source<'a>);

#[derive(Debug, Clone)]
enum Source<'a> {
    Directory(PathBuf),
    Memory(BTreeMap<String, &'a [u8]>),
}

/// A file's bytes, mapped or borrowed.
#[derive(Debug)]
pub(crate) enum Bytes<'a> {
    Mapped(Mmap),
    Borrowed(&'a [u8]),
}

impl std::ops::Deref for Bytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Borrowed(bytes) => bytes,
        }
    }
}

impl Bytes<'_> {
    /// Tells that nobody will read the bytes of `range` soon.
    pub(crate) fn give_back(&self, range: Range<usize>) {
        if let Self::Mapped(map) = self {
            mmap::give_back(map, range);
        }
    }
}

impl<'a> ModelFiles<'a> {
    /// The files below the directory `path`.
    ///
    /// ```
    /// use mpnet::{ModelFiles, SentenceEncoder};
    ///
    /// # let path = "tests/data/tiny";
    /// let encoder = SentenceEncoder::from_pretrained(ModelFiles::directory(path))?;
    /// # assert_eq!(encoder.dim(), 32);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self(Source::Directory(path.into()))
    }

    /// Files in memory, by the paths they have in a model directory, with `/` between folder and file.
    ///
    /// ```
    /// use mpnet::{ModelFiles, SentenceEncoder};
    ///
    /// # let read = |name: &str| std::fs::read(format!("tests/data/tiny/{name}")).unwrap();
    /// # let (weights, config, tokenizer) = (read("model.safetensors"), read("config.json"), read("tokenizer.json"));
    /// let files = ModelFiles::in_memory([
    ///     ("model.safetensors", &*weights),
    ///     ("config.json", &*config),
    ///     ("tokenizer.json", &*tokenizer),
    /// ]);
    /// let encoder = SentenceEncoder::from_pretrained(files)?;
    /// # assert_eq!(encoder.dim(), 32);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    pub fn in_memory<N: Into<String>>(files: impl IntoIterator<Item = (N, &'a [u8])>) -> Self {
        Self(Source::Memory(files.into_iter().map(|(name, bytes)| (name.into(), bytes)).collect()))
    }

    /// The same for as long as one likes, if it is a directory, and also after a change of the current one.
    pub(crate) fn kept(&self) -> Option<ModelFiles<'static>> {
        match &self.0 {
            Source::Directory(path) => {
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                Some(ModelFiles(Source::Directory(path)))
            }
            Source::Memory(_) => None,
        }
    }

    /// Fails if the directory is not there, so that this is the error rather than one file's absence.
    pub(crate) fn check(&self) -> Result<()> {
        if let Source::Directory(path) = &self.0 {
            let failed = |source| Error::Io { path: path.clone(), source };
            if !path.metadata().map_err(failed)?.is_dir() {
                return Err(failed(io::Error::other("not a directory")));
            }
        }
        Ok(())
    }

    /// What errors call the file `name`.
    pub(crate) fn label(&self, name: &str) -> String {
        match &self.0 {
            Source::Directory(path) => path.join(name).display().to_string(),
            Source::Memory(_) => name.to_owned(),
        }
    }

    /// Whether the file `name` is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        match &self.0 {
            Source::Directory(path) => path.join(name).is_file(),
            Source::Memory(files) => files.contains_key(name),
        }
    }

    /// The whole of a small file, or `None` if it is not there.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Cow<'a, [u8]>>> {
        match &self.0 {
            Source::Memory(files) => Ok(files.get(name).map(|&bytes| Cow::Borrowed(bytes))),
            Source::Directory(directory) => {
                let path = directory.join(name);
                match read_bounded(&path) {
                    Ok(bytes) => Ok(Some(Cow::Owned(bytes))),
                    Err(error) if is_absent(&error) => Ok(None),
                    Err(source) => Err(Error::Io { path, source }),
                }
            }
        }
    }

    /// The whole of a small file that must be there.
    pub(crate) fn require(&self, name: &str) -> Result<Cow<'a, [u8]>> {
        self.read(name)?.ok_or_else(|| self.absent(name))
    }

    /// A JSON file that may be missing, as `T`.
    pub(crate) fn json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let parse = |bytes: Cow<[u8]>| {
            serde_json::from_slice(&bytes)
                .map_err(|source| Error::Json { file: self.label(name), source })
        };
        self.read(name)?.map(parse).transpose()
    }

    /// A weight file that must be there, mapped if it is on disk.
    pub(crate) fn map(&self, name: &str) -> Result<Bytes<'a>> {
        match &self.0 {
            Source::Directory(path) => mmap::map(&path.join(name)).map(Bytes::Mapped),
            Source::Memory(files) => files
                .get(name)
                .map(|&bytes| Bytes::Borrowed(bytes))
                .ok_or_else(|| self.absent(name)),
        }
    }

    fn absent(&self, name: &str) -> Error {
        let path = match &self.0 {
            Source::Directory(path) => path.join(name),
            Source::Memory(_) => PathBuf::from(name),
        };
        Error::Io { path, source: io::ErrorKind::NotFound.into() }
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    // Asked before opening: to open a named pipe would wait for its writer.
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let problem = format!("larger than {} MiB", MAX_FILE_BYTES >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    Ok(bytes)
}

macro_rules! directory_from {
    ($($path:ty),*) => {$(
        impl From<$path> for ModelFiles<'_> {
            fn from(path: $path) -> Self {
                Self::directory(path)
            }
        }
    )*};
}
directory_from!(&str, &String, String, &Path, &PathBuf, PathBuf);
