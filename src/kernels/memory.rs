//! [`Words`] that are made once and then only read, packed weights above all: in an [`Arena`], or
//! in a mapped file.

use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, Mutex, PoisonError};

use memmap2::{Mmap, MmapMut};
use zerocopy::{FromBytes, IntoBytes};

/// An immutable, reference-counted slice of `u32`. Cloning is cheap and shares memory.
#[derive(Debug, Clone)]
pub struct Words(Place);

#[derive(Debug, Clone)]
enum Place {
    Arena { chunk: Arc<Chunk>, words: Range<usize> },
    File { map: Arc<Mmap>, bytes: Range<usize> },
    Heap(Arc<Vec<u32>>),
}

impl Words {
    /// The words at `bytes` of a mapped file; `None` if it is shorter, or they are not aligned.
    #[must_use]
    pub fn in_file(map: &Arc<Mmap>, bytes: Range<usize>) -> Option<Self> {
        <[u32]>::ref_from_bytes(map.get(bytes.clone())?).ok()?;
        Some(Self(Place::File { map: Arc::clone(map), bytes }))
    }

    /// The words as the `f32`s whose bits they are.
    #[must_use]
    pub fn as_floats(&self) -> &[f32] {
        <[f32]>::ref_from_bytes(self.as_bytes()).expect("of the same size and alignment")
    }
}

impl Deref for Words {
    type Target = [u32];

    #[allow(unsafe_code, reason = "the memory of an arena is shared: see the block")]
    fn deref(&self) -> &[u32] {
        match &self.0 {
            // SAFETY: the range was handed out by `Arena::words`, which checked that it lies within
            // the chunk, gave it to nobody else, and made this value after its last write to it.
            // `chunk` keeps the memory mapped for as long as `self` lives.
            Place::Arena { chunk, words } => unsafe {
                std::slice::from_raw_parts(chunk.base.add(words.start), words.len())
            },
            Place::File { map, bytes } => {
                <[u32]>::ref_from_bytes(&map[bytes.clone()]).expect("checked when it was made")
            }
            Place::Heap(words) => words,
        }
    }
}

/// Memory for the weights of a model, allocated in chunks of large pages where the system has them.
/// Pages of 2 MiB instead of 4 KiB make reading faster, and loading, which would spend half its
/// time on page faults.
#[derive(Debug, Default)]
pub struct Arena {
    open: Mutex<Option<(Arc<Chunk>, usize)>>,
}

/// Words of a chunk, 64 MiB. Only what is written becomes resident.
const CHUNK: usize = 16 << 20;

/// Fewer words than these, a page of memory, come from the heap.
const FEW: usize = 1 << 10;

/// Words in a cache line. All [`Words`] of an arena begin with one.
const LINE: usize = 16;

#[derive(Debug)]
struct Chunk {
    /// Where `_memory` begins. It is reached through this alone.
    base: *mut u32,
    len: usize,
    _memory: MmapMut,
}

// SAFETY: `base` points into memory that the chunk owns and never moves. No two threads write to
// the same words, and none writes to those that another reads: see `Arena::words` and
// `Words::deref`.
#[allow(unsafe_code, reason = "holds a pointer: see above")]
unsafe impl Send for Chunk {}
// SAFETY: as for `Send`.
#[allow(unsafe_code, reason = "holds a pointer: see above")]
unsafe impl Sync for Chunk {}

impl Chunk {
    /// `None` if the system has no memory to map, or maps none at all.
    fn new(len: usize) -> Option<Self> {
        let mut memory = MmapMut::map_anon(len.checked_mul(size_of::<u32>())?).ok()?;
        // A system without large pages says so; then these are small ones.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        Some(Self { base: memory.as_mut_ptr().cast(), len, _memory: memory })
    }
}

impl Arena {
    /// `len` words that `fill` writes; before that they are zeros.
    pub fn words(&self, len: usize, fill: impl FnOnce(&mut [u32])) -> Words {
        let Some((chunk, start)) = self.reserve(len) else {
            let mut words = vec![0; len];
            fill(&mut words);
            return Words(Place::Heap(Arc::new(words)));
        };
        let words = start..start + len;
        assert!(words.end <= chunk.len, "reserved within the chunk");
        // SAFETY: the words are within the chunk, which is mapped, zeroed by the system and aligned
        // to a page. `reserve` hands out no word twice, and nobody else knows of these before this
        // function returns: the reference is the only one.
        #[allow(unsafe_code, reason = "writes to shared memory: see above")]
        fill(unsafe { std::slice::from_raw_parts_mut(chunk.base.add(start), len) });
        Words(Place::Arena { chunk, words })
    }

    /// Reserves `len` words: a chunk, and where in it they begin.
    fn reserve(&self, len: usize) -> Option<(Arc<Chunk>, usize)> {
        if len < FEW {
            return None;
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (chunk, start) = match open.take() {
            Some((chunk, used)) if chunk.len - used >= len => (chunk, used),
            _ => (Arc::new(Chunk::new(len.max(CHUNK))?), 0),
        };
        let end = (start + len).next_multiple_of(LINE).min(chunk.len);
        *open = Some((Arc::clone(&chunk), end));
        Some((chunk, start))
    }
}

/// Words on the heap that begin with a cache line, for memory that is used again and again: a
/// register of 64 bytes is then loaded from one line and not from two.
#[derive(Debug, Default)]
pub struct Lines {
    words: Vec<u32>,
    start: usize,
    len: usize,
}

impl Lines {
    /// Makes the length `len`, and returns the words. Their values are unspecified.
    pub fn resize(&mut self, len: usize) -> &mut [u32] {
        if self.words.len() < len + LINE {
            // The old values need not be kept, so they are not copied.
            self.words = vec![0; len + LINE];
            self.start = self.words.as_ptr().align_offset(LINE * size_of::<u32>()).min(LINE);
        }
        self.len = len;
        self
    }
}

impl Deref for Lines {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        &self.words[self.start..][..self.len]
    }
}

impl DerefMut for Lines {
    fn deref_mut(&mut self) -> &mut [u32] {
        &mut self.words[self.start..][..self.len]
    }
}

/// A copy of the words.
impl Clone for Lines {
    fn clone(&self) -> Self {
        let mut lines = Self::default();
        lines.resize(self.len).copy_from_slice(self);
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_an_arena_do_not_overlap() {
        let arena = Arena::default();
        let lengths = [0, 1, FEW, FEW + 1, CHUNK - 3 * FEW, 2 * FEW, CHUNK + 1, FEW];
        let all: Vec<Words> = lengths
            .iter()
            .enumerate()
            .map(|(i, &len)| {
                arena.words(len, |words| {
                    assert!(words.iter().all(|&word| word == 0));
                    words.fill(i as u32 + 1);
                })
            })
            .collect();
        for ((i, words), &len) in all.iter().enumerate().zip(&lengths) {
            assert_eq!(words.len(), len);
            assert!(words.iter().all(|&word| word == i as u32 + 1), "{i}");
            if len >= FEW {
                assert_eq!(words.as_ptr() as usize % 64, 0, "{i}");
            }
        }
        let kept = all[3].clone();
        drop((all, arena));
        assert!(kept.iter().all(|&word| word == 4));
    }

    #[test]
    fn threads_share_an_arena() {
        let arena = Arena::default();
        let words = |i: u32| arena.words(FEW + 7, |words| words.fill(i));
        let all: Vec<Words> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|i| scope.spawn(move || words(i))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (i, words) in all.iter().enumerate() {
            assert!(words.iter().all(|&word| word == i as u32));
        }
    }

    #[test]
    fn words_of_a_file_are_whole_and_aligned() {
        let mut map = MmapMut::map_anon(64).unwrap();
        map[4..8].copy_from_slice(&1.5_f32.to_ne_bytes());
        let map = Arc::new(map.make_read_only().unwrap());
        assert_eq!(Words::in_file(&map, 4..12).unwrap().as_floats(), [1.5, 0.0]);
        for wrong in [1..5, 4..7, 60..68, usize::MAX - 3..usize::MAX] {
            assert!(Words::in_file(&map, wrong.clone()).is_none(), "{wrong:?}");
        }
    }
}
