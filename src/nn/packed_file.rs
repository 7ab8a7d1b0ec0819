//! [`PackedFile`]: packed weights on disk, so that the next start maps them instead of packing
//! again.
//!
//! ```text
//! "MPNETPK1" │ length of the header, 8 bytes │ digest of all that follows, 16 bytes │ header, JSON │ words, little-endian
//! ```
//!
//! Every piece begins at a multiple of 64 bytes. A file that was made of another checkpoint, for
//! another instruction set or precision, by another version, or that is damaged after its first 8
//! bytes, is made anew. A file that does not begin with these 8 bytes is somebody else's and is
//! never replaced.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use zerocopy::IntoBytes;

use crate::error::{Error, Result};
use crate::files;
use crate::kernels::Precision;
use crate::kernels::gemm::{LAYOUT, PackedMatrix};
use crate::kernels::isa::Isa;
use crate::kernels::memory::Words;

const MAGIC: &[u8; 8] = b"MPNETPK1";

/// Bytes before the header.
const PREAMBLE: usize = 32;

/// Bytes of whose multiples pieces begin.
const LINE: usize = 64;

/// Whose packed weights a file holds. All of it has to agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Key {
    /// The version of this crate: another may pack in another order.
    mpnet: String,
    /// The order and rounding of packed values, which may change between two versions too.
    layout: u32,
    isa: String,
    precision: String,
    /// The digest of all weight files.
    checkpoint: String,
}

impl Key {
    pub(super) fn new(isa: Isa, precision: Precision, checkpoint: String) -> Self {
        let mpnet = env!("CARGO_PKG_VERSION").to_owned();
        Self {
            mpnet,
            layout: LAYOUT,
            isa: isa.name().to_owned(),
            precision: precision.to_string(),
            checkpoint,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Header<K, P> {
    key: K,
    pieces: P,
}

/// A matrix, packed or not, as it is in the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    name: String,
    rows: usize,
    columns: usize,
    /// What it is packed as; nothing for plain `f32`s.
    precision: Option<String>,
    /// Where its parts are, in bytes from the end of the header.
    parts: Vec<Range<usize>>,
}

/// What is kept of a model.
#[derive(Debug, Clone)]
pub(super) enum Piece {
    Packed(PackedMatrix, Precision),
    Plain { rows: usize, columns: usize, words: Words },
}

impl Piece {
    fn parts(&self) -> Vec<&[u32]> {
        match self {
            Self::Packed(matrix, _) => matrix.parts().to_vec(),
            Self::Plain { words, .. } => vec![words],
        }
    }

    fn entry(&self, name: &str, parts: Vec<Range<usize>>) -> Entry {
        let (rows, columns, precision) = match self {
            Self::Packed(matrix, precision) => {
                let (rows, columns) = matrix.shape();
                (rows, columns, Some(precision.to_string()))
            }
            &Self::Plain { rows, columns, .. } => (rows, columns, None),
        };
        Entry { name: name.to_owned(), rows, columns, precision, parts }
    }
}

/// Packed weights that are read from a file, and written to it if they were not all there.
#[derive(Debug)]
pub(super) struct PackedFile {
    path: PathBuf,
    key: Key,
    isa: Isa,
    stored: HashMap<String, (Entry, Vec<Words>)>,
    /// Whether something was asked for that the file does not have.
    incomplete: AtomicBool,
    pieces: Mutex<Vec<(String, Piece)>>,
}

impl PackedFile {
    /// Reads the file at `path`, if there is one, and takes what it has if it is for the `key` and
    /// whole.
    ///
    /// # Errors
    ///
    /// [`Error::Save`] if what is there is not ours to replace, [`Error::Io`] if it cannot be read.
    /// Either comes before the `key` is asked for, which takes time.
    pub(super) fn open(path: &Path, isa: Isa, key: impl FnOnce() -> Key) -> Result<Self> {
        let mut path = path.to_owned();
        let found = claim(&path)?;
        if path.is_symlink() {
            // The file that the link leads to is replaced, not the link.
            path = path.canonicalize().map_err(|source| Error::Io { path, source })?;
        }
        let key = key();
        let stored = match found {
            None => HashMap::new(),
            Some(file) => {
                let map = files::map_file(&file)
                    .map_err(|source| Error::Io { path: path.clone(), source })?;
                read(Arc::new(map), &key).unwrap_or_else(|problem| {
                    tracing::info!(file = %path.display(), problem, "packed weights are made anew");
                    HashMap::new()
                })
            }
        };
        let (incomplete, pieces) = (AtomicBool::new(false), Mutex::default());
        Ok(Self { path, key, isa, stored, incomplete, pieces })
    }

    /// The packed matrix `name`, `[rows, columns]`: the file's, else that of `pack`.
    pub(super) fn matrix(
        &self,
        name: &str,
        (rows, columns): (usize, usize),
        precision: Precision,
        pack: impl FnOnce() -> Result<PackedMatrix>,
    ) -> Result<PackedMatrix> {
        let stored = self.find(name, rows, columns, Some(precision)).and_then(|parts| {
            let parts: [Words; PackedMatrix::PARTS] = parts.to_vec().try_into().ok()?;
            PackedMatrix::from_parts(self.isa, precision, (rows, columns), parts)
        });
        let matrix = stored.map_or_else(|| self.miss(pack), Ok)?;
        self.remember(name, Piece::Packed(matrix.clone(), precision));
        Ok(matrix)
    }

    /// The matrix `name`, `[rows, columns]`, row by row: the file's, else that of `read`.
    pub(super) fn plain(
        &self,
        name: &str,
        (rows, columns): (usize, usize),
        read: impl FnOnce() -> Result<Words>,
    ) -> Result<Words> {
        let stored = match self.find(name, rows, columns, None) {
            Some([words]) if Some(words.len()) == rows.checked_mul(columns) => Some(words.clone()),
            _ => None,
        };
        let words = stored.map_or_else(|| self.miss(read), Ok)?;
        self.remember(name, Piece::Plain { rows, columns, words: words.clone() });
        Ok(words)
    }

    fn find(
        &self,
        name: &str,
        rows: usize,
        columns: usize,
        precision: Option<Precision>,
    ) -> Option<&[Words]> {
        let (entry, parts) = self.stored.get(name)?;
        let precision = precision.map(|precision| precision.to_string());
        let same = (entry.rows, entry.columns) == (rows, columns) && entry.precision == precision;
        same.then_some(parts)
    }

    fn miss<T>(&self, make: impl FnOnce() -> Result<T>) -> Result<T> {
        self.incomplete.store(true, Ordering::Relaxed);
        make()
    }

    fn remember(&self, name: &str, piece: Piece) {
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        pieces.push((name.to_owned(), piece));
    }

    /// Writes the file, if it did not have everything that was asked for.
    ///
    /// # Errors
    ///
    /// [`Error::Save`] if a file that is not ours has appeared at its place, [`Error::Io`] with the
    /// path if it cannot be written.
    pub(super) fn save(&self) -> Result<()> {
        if !self.incomplete.load(Ordering::Relaxed) {
            return Ok(());
        }
        let pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = || Ok(claim(&self.path)?.is_some());
        files::replace(&self.path, is_there, |file| write(file, &self.key, &pieces))
    }
}

/// The file at `path` if there is one that may be replaced: one of packed weights, or an empty one,
/// as `mktemp` makes it.
///
/// # Errors
///
/// [`Error::Save`] if it is anything else, or a link to nothing; [`Error::Io`] if it is not a
/// regular file or cannot be read.
fn claim(path: &Path) -> Result<Option<File>> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    let refused = |found: &str| Error::Save {
        path: path.to_owned(),
        problem: format!(
            "{found}, which is not overwritten; give `packed_cache` the path of a file of its own, \
             or delete this one"
        ),
    };
    // Asked before opening: to open a named pipe would wait for its writer.
    match path.metadata() {
        Ok(there) if there.is_file() => {}
        Ok(there) => {
            let found = if there.is_dir() { "a directory" } else { "not a regular file" };
            let problem = format!("{found}; `packed_cache` needs the path of a file");
            return Err(failed(io::Error::other(problem)));
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Err(_) if path.is_symlink() => {
            return Err(refused("it is a link to a file that does not exist"));
        }
        Err(_) => return Ok(None),
    }
    let (file, mut start) = (File::open(path).map_err(failed)?, Vec::new());
    (&file).take(MAGIC.len() as u64).read_to_end(&mut start).map_err(failed)?;
    if start.is_empty() || start == MAGIC {
        Ok(Some(file))
    } else {
        Err(refused("the file there does not hold packed weights"))
    }
}

/// What is in the file, if all of it is as it was written, and for `key`.
fn read(
    map: Arc<Mmap>,
    key: &Key,
) -> std::result::Result<HashMap<String, (Entry, Vec<Words>)>, &'static str> {
    let preamble = map.first_chunk::<PREAMBLE>().ok_or("too short")?;
    let (magic, rest) = preamble.split_at(MAGIC.len());
    if magic != MAGIC || cfg!(target_endian = "big") {
        return Err("not a file of packed weights");
    }
    let (length, digest) = rest.split_at(size_of::<u64>());
    let length = u64::from_le_bytes(length.try_into().expect("8 bytes"));
    let end = usize::try_from(length).ok().and_then(|length| length.checked_add(PREAMBLE));
    let header = end.and_then(|end| map.get(PREAMBLE..end)).ok_or("cut off")?;
    // The key before the digest: a file for something else need not be read.
    let header: Header<Key, Vec<Entry>> =
        serde_json::from_slice(header).map_err(|_| "its header is damaged")?;
    if header.key != *key {
        return Err("made for another checkpoint, instruction set, precision or version");
    }
    if files::digest(&map[PREAMBLE..], |_| {}).to_le_bytes() != digest {
        return Err("damaged");
    }
    let start = (PREAMBLE + length as usize).next_multiple_of(LINE);
    let at = |part: &Range<usize>| {
        let shift = |edge: usize| edge.checked_add(start);
        Words::in_file(&map, shift(part.start)?..shift(part.end)?)
    };
    let piece = |entry: Entry| {
        let parts = entry.parts.iter().map(at).collect::<Option<Vec<_>>>().ok_or("damaged")?;
        Ok((entry.name.clone(), (entry, parts)))
    };
    header.pieces.into_iter().map(piece).collect()
}

fn write(file: &mut File, key: &Key, pieces: &[(String, Piece)]) -> io::Result<()> {
    if cfg!(target_endian = "big") {
        return Err(io::Error::other("packed weights are written on little-endian machines only"));
    }
    let mut end = 0_usize;
    let mut place = |part: &&[u32]| {
        let start = end.next_multiple_of(LINE);
        end = start + size_of_val(*part);
        start..end
    };
    let entry = |(name, piece): &(String, Piece)| {
        piece.entry(name, piece.parts().iter().map(&mut place).collect())
    };
    let entries: Vec<Entry> = pieces.iter().map(entry).collect();
    let header = serde_json::to_vec(&Header { key, pieces: entries })?;
    let mut out = BufWriter::new(&mut *file);
    let mut at = PREAMBLE + header.len();
    out.write_all(MAGIC)?;
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&[0; 16])?;
    out.write_all(&header)?;
    for part in pieces.iter().flat_map(|(_, piece)| piece.parts()) {
        let gap = at.next_multiple_of(LINE) - at;
        out.write_all(&[0; LINE][..gap])?;
        out.write_all(part.as_bytes())?;
        at += gap + size_of_val(part);
    }
    out.flush()?;
    drop(out);
    // The digest is that of what stands in the file.
    let digest = files::digest(&files::map_file(file)?[PREAMBLE..], |_| {});
    file.seek(SeekFrom::Start((PREAMBLE - size_of_val(&digest)) as u64))?;
    file.write_all(&digest.to_le_bytes())
}
