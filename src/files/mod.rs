//! [`ModelFiles`]: where a model's files come from, a directory or memory. Everything that loads
//! reads through it, so what can be loaded from one can be loaded from the other.

mod digest;
mod json;
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
use serde_json::Value;

use crate::error::{Error, FileProblem, Result};

pub(crate) use digest::digest;
pub(crate) use json::parse_json;
pub(crate) use mmap::map_file;
pub(crate) use replace::replace;
pub(crate) use staging::Staging;

/// The largest configuration or tokenizer file that is read; weights are mapped and have no such
/// limit.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// The names under which the settings of sentence-transformers' transformer module have been saved
/// over the years. The first file that has any fields counts.
pub(crate) const TRANSFORMER_SETTINGS: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// The files of a model: a sentence-transformers directory, or the same files held in memory.
///
/// A path converts into it, so `SentenceEncoder::builder("models/all-mpnet-base-v2")` is the usual
/// way. In memory, files go by the names they have in such a directory:
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

    /// Files in memory, by the paths they have in a model directory, with `/` between folder and
    /// file.
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

    /// The same for as long as one likes, if it is a directory, and also after a change of the
    /// current one.
    pub(crate) fn kept(&self) -> Option<ModelFiles<'static>> {
        match &self.0 {
            Source::Directory(path) => {
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                Some(ModelFiles(Source::Directory(path)))
            }
            Source::Memory(_) => None,
        }
    }

    /// Fails if the directory is not there, so that this is the error rather than one file's
    /// absence.
    pub(crate) fn check(&self) -> Result<()> {
        if let Source::Directory(path) = &self.0 {
            let failed = |source| Error::Io { path: path.clone(), source };
            match path.metadata() {
                Ok(found) if found.is_dir() => {}
                Ok(_) => return Err(failed(io::Error::other("not a directory"))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(failed(io::Error::new(error.kind(), no_such_directory(path))));
                }
                Err(error) => return Err(failed(error)),
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

    /// Whether the file `name` is there. A link that leads nowhere counts: the file is meant to be
    /// there, and reading it says that it is not.
    pub(crate) fn has(&self, name: &str) -> bool {
        match &self.0 {
            Source::Directory(path) => {
                let path = path.join(name);
                path.is_file() || path.is_symlink() && !path.exists()
            }
            Source::Memory(files) => files.contains_key(name),
        }
    }

    /// The names of the files that stand directly in `folder` (`""` or ending in `/`), sorted; none
    /// if it cannot be read.
    pub(crate) fn list(&self, folder: &str) -> Vec<String> {
        let mut names: Vec<String> = match &self.0 {
            Source::Memory(files) => {
                let inside = files.keys().filter_map(|name| name.strip_prefix(folder));
                inside.filter(|name| !name.contains('/')).map(str::to_owned).collect()
            }
            Source::Directory(path) => {
                let entries = std::fs::read_dir(path.join(folder)).into_iter().flatten().flatten();
                let file = |entry: &std::fs::DirEntry| entry.path().is_file();
                entries
                    .filter(file)
                    .filter_map(|entry| entry.file_name().into_string().ok())
                    .collect()
            }
        };
        names.sort_unstable();
        names
    }

    /// The whole of a small file, or `None` if it is not there.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Cow<'a, [u8]>>> {
        let bytes = match &self.0 {
            Source::Memory(files) => files.get(name).map(|&bytes| Cow::Borrowed(bytes)),
            Source::Directory(directory) => {
                let path = directory.join(name);
                match read_bounded(&path) {
                    Ok(bytes) => Some(Cow::Owned(bytes)),
                    Err(error) if is_absent(&error) && !path.is_symlink() => None,
                    Err(source) => return Err(Error::Io { path, source }),
                }
            }
        };
        bytes.map(|bytes| self.fetched(name, bytes)).transpose()
    }

    /// The whole of a small file that must be there.
    pub(crate) fn require(&self, name: &str) -> Result<Cow<'a, [u8]>> {
        self.read(name)?.ok_or_else(|| self.absent(name))
    }

    /// A JSON file that may be missing, as `T`, read as Python reads it.
    pub(crate) fn json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let parse = |bytes: Cow<[u8]>| parse_json(&bytes, &self.label(name));
        self.read(name)?.map(parse).transpose()
    }

    /// A weight file that must be there, mapped if it is on disk.
    pub(crate) fn map(&self, name: &str) -> Result<Bytes<'a>> {
        let bytes = match &self.0 {
            Source::Directory(path) => mmap::map(&path.join(name)).map(Bytes::Mapped),
            Source::Memory(files) => files
                .get(name)
                .map(|&bytes| Bytes::Borrowed(bytes))
                .ok_or_else(|| self.absent(name)),
        };
        bytes.and_then(|bytes| self.fetched(name, bytes))
    }

    /// Fails if `bytes`, of the file `name`, are what git-lfs puts in the place of a file that was
    /// not fetched.
    fn fetched<B: std::ops::Deref<Target = [u8]>>(&self, name: &str, bytes: B) -> Result<B> {
        match size_in_pointer(&bytes) {
            Some(size) => Err(Error::File {
                file: self.label(name),
                problem: FileProblem::GitLfsPointer { size },
            }),
            None => Ok(bytes),
        }
    }

    /// The error that the file `name`, which must be there, is not.
    pub(crate) fn absent(&self, name: &str) -> Error {
        let path = match &self.0 {
            Source::Directory(path) => path.join(name),
            Source::Memory(_) => PathBuf::from(name),
        };
        let folder = name.rfind('/').map_or("", |slash| &name[..=slash]);
        let problem = match &name[folder.len()..] {
            "config.json" => self.instead_of_config(folder),
            _ => "it is not there".to_owned(),
        };
        Error::Io { path, source: io::Error::new(io::ErrorKind::NotFound, problem) }
    }

    /// What `folder` has, if not its config.json, and what is expected of a directory.
    fn instead_of_config(&self, folder: &str) -> String {
        /// Names that are shown; more would not help.
        const SHOWN: usize = 8;
        let listed = self.list(folder);
        let there = match &listed[..] {
            [] => "no files".to_owned(),
            names if names.len() > SHOWN => format!("{}, …", names[..SHOWN].join(", ")),
            names => names.join(", "),
        };
        let expected = match folder {
            "" => {
                "a model directory, as save_pretrained of sentence-transformers or transformers writes it, has \
                   config.json, model.safetensors and tokenizer.json; "
            }
            _ => "",
        };
        format!("it is not there; {expected}the folder has {there}")
    }
}

/// The size that a pointer of git-lfs gives, if `bytes` are one.
fn size_in_pointer(bytes: &[u8]) -> Option<u64> {
    /// No pointer is longer, says its specification.
    const LONGEST: usize = 1024;
    if bytes.len() > LONGEST || !bytes.starts_with(b"version https://git-lfs.github.com/spec/") {
        return None;
    }
    let size = |line: &str| line.strip_prefix("size ")?.trim_end().parse().ok();
    std::str::from_utf8(bytes).ok()?.lines().find_map(size)
}

/// Whether Python counts the value of a field as true; an absent field is false.
pub(crate) fn is_true(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::Bool(on)) => *on,
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(values)) => !values.is_empty(),
        Some(Value::Object(fields)) => !fields.is_empty(),
    }
}

/// What is wrong with a path that leads nowhere, and what may have been meant.
fn no_such_directory(path: &Path) -> String {
    let name = path.to_str().filter(|name| may_be_of_hub(name));
    match name {
        Some(name) => format!(
            "there is no such directory. A model `{name}` on the Hugging Face hub is loaded by `SentenceEncoder::from_hub`, or \
             fetched into a directory by `HubModel::new(\"{name}\").fetch()` (feature `hub`)"
        ),
        None => "there is no such directory".to_owned(),
    }
}

/// Whether `name` has the form of a repository, `name` or `organisation/name`.
fn may_be_of_hub(name: &str) -> bool {
    let is_part = |part: &str| {
        let inside = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(inside)
    };
    name.split('/').count() <= 2 && name.split('/').all(is_part)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// `Error::Io` with the path, `NotFound`, and what was meant.
    #[test]
    fn a_directory_that_is_not_there_may_be_a_name_of_the_hub() {
        let said = |path: &str| match ModelFiles::directory(path).check() {
            Err(Error::Io { path: found, source }) => {
                assert_eq!(
                    (found.as_path(), source.kind()),
                    (Path::new(path), io::ErrorKind::NotFound)
                );
                source.to_string()
            }
            other => panic!("{other:?}"),
        };
        for name in ["sentence-transformers/all-mpnet-base-v2", "all-mpnet-base-v2", "org/a_b.c-1"]
        {
            let said = said(name);
            assert!(said.starts_with("there is no such directory"), "{said}");
            assert!(
                said.contains("`SentenceEncoder::from_hub`") && said.contains("(feature `hub`)"),
                "{said}"
            );
            assert!(said.contains(&format!("HubModel::new(\"{name}\")")), "{said}");
        }
        for path in
            ["/no/such", "a/b/c", "./model", "../model", "models/", "~/model", "two words", ""]
        {
            assert_eq!(said(path), "there is no such directory", "{path}");
        }
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let error = ModelFiles::directory(file).check().unwrap_err();
        assert!(
            matches!(&error, Error::Io { source, .. } if source.to_string() == "not a directory"),
            "{error:?}"
        );
    }

    #[test]
    #[cfg(unix)]
    fn a_link_to_nothing_is_not_absent() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("modules.json");
        std::os::unix::fs::symlink("gone", &link).unwrap();
        let files = ModelFiles::directory(folder.path());
        assert!(files.has("modules.json"));
        assert!(matches!(files.read("modules.json"), Err(Error::Io { path, .. }) if path == link));
        assert!(!files.has("config.json"));
        assert!(files.read("config.json").unwrap().is_none());
    }
}
