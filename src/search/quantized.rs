//! Search over quantised embeddings: whole numbers, so the scores are exact.

use ndarray::{ArrayRef2, ArrayView2, Axis, s};

use super::top_k::{Hit, Scan};
use crate::error::{Error, InputProblem, Result, at_least_one};
use crate::kernels::isa::Isa;
use crate::kernels::{HAMMING_ROWS, WIDEST_INTEGER_DOTS as WIDEST, integer_dots, negative_hamming};
use crate::quantization::QuantizedView;
use crate::rows::{has_columns, same_width};

/// Queries for which the corpus is read at once, and rows that one task scores at most.
const QUERIES: usize = 256;
const CHUNK: usize = 1 << 18;

/// Rows scored at once: 96 KiB of bits, 384 KiB of 16-bit integers at a width of 768.
const BLOCK_OF_BITS: usize = 1024;
const BLOCK_OF_INTEGERS: usize = 256;

/// For each query the `top_k` rows of a quantised corpus that are most like it, best first; equal
/// scores by ascending row.
///
/// `queries` and `corpus` are of one precision and have the same number of columns. Scores are dot
/// products for `int8` and `uint8`, of the buckets as they are, summed exactly (and rounded to the
/// 24 bits of an `f32`, which matters from a width of 258 for `uint8` and 1024 for `int8`, if at
/// all), and minus the Hamming distance for `binary` and `ubinary`: larger is more alike. `float32`
/// is searched by dot product, too.
///
/// The first stage of `sentence_transformers.quantization`'s `semantic_search_faiss` and
/// `semantic_search_usearch`, without rescoring;
/// [`semantic_search_rescored`](super::semantic_search_rescored) is the whole.
///
/// ```
/// use mpnet::ndarray::arr2;
/// use mpnet::quantization::QuantizedView;
/// use mpnet::search::semantic_search_quantized;
///
/// let (query, corpus) = (arr2(&[[0b1100_0000_u8]]), arr2(&[[0b0000_0001], [0b1110_0000]]));
/// let view = |bits| QuantizedView::Ubinary(bits);
/// let hits = semantic_search_quantized(&view(query.view()), &view(corpus.view()), 1)?;
/// assert_eq!((hits[0][0].corpus_id, hits[0][0].score), (1, -1.0));
/// # Ok::<(), mpnet::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Option`] if the precisions differ, `top_k` is 0 or rows of integers are wider than 33
/// 025, [`InputProblem::Empty`](crate::InputProblem::Empty) for a corpus without rows,
/// [`InputProblem::NoColumns`](crate::InputProblem::NoColumns) for rows without columns,
/// [`InputProblem::Width`](crate::InputProblem::Width) if the numbers of columns differ,
/// [`InputProblem::NotFinite`](crate::InputProblem::NotFinite) for `float32` with a value that is
/// infinite or not a number.
pub fn semantic_search_quantized(
    queries: &QuantizedView,
    corpus: &QuantizedView,
    top_k: usize,
) -> Result<Vec<Vec<Hit>>> {
    at_least_one("top_k", top_k)?;
    if queries.precision() != corpus.precision() {
        let problem =
            format!("queries are {}, the corpus is {}", queries.precision(), corpus.precision());
        return Err(Error::Option { option: "precision", problem });
    }
    if corpus.dim().0 == 0 {
        return Err(Error::Input { input: "corpus", problem: InputProblem::Empty });
    }
    has_columns("corpus", corpus.dim())?;
    has_columns("queries", queries.dim())?;
    same_width("queries", queries.dim().1, corpus.dim().1)?;
    use QuantizedView::{Binary, Float32, Int8, Ubinary, Uint8};
    match (queries, corpus) {
        (Float32(queries), Float32(corpus)) => {
            let options = super::SearchOptions::default().top_k(top_k);
            let options = options.similarity(crate::Similarity::Dot);
            super::semantic_search_with(queries, corpus, &options)
        }
        (Int8(queries), Int8(corpus)) => by_dot(queries, corpus, top_k),
        (Uint8(queries), Uint8(corpus)) => by_dot(queries, corpus, top_k),
        // Both sides minus 128: the bits that differ are the same ones.
        (Binary(queries), Binary(corpus)) => Ok(by_hamming(queries, corpus, top_k, |x| x as u8)),
        (Ubinary(queries), Ubinary(corpus)) => Ok(by_hamming(queries, corpus, top_k, |x| x)),
        _ => unreachable!("the precisions are the same"),
    }
}

fn by_dot<T: Copy + Sync + Into<i16>>(
    queries: &ArrayRef2<T>,
    corpus: &ArrayRef2<T>,
    top_k: usize,
) -> Result<Vec<Vec<Hit>>> {
    let d = corpus.ncols();
    if d > WIDEST {
        let problem = format!("rows of {d} integers may overflow; {WIDEST} is the most");
        return Err(Error::Option { option: "width", problem });
    }
    let isa = Isa::exact();
    let search = |queries: ArrayView2<T>| {
        let queries = widened(&queries);
        let scan = Scan {
            queries: queries.len() / d,
            rows: corpus.nrows(),
            top_k,
            chunk: CHUNK,
            block: BLOCK_OF_INTEGERS,
        };
        let scratch = || (Vec::new(), Vec::new());
        scan.run(scratch, |(rows, dots): &mut (Vec<i16>, Vec<i32>), range, scores| {
            widen(&corpus.slice(s![range.clone(), ..]), rows);
            dots.resize(range.len(), 0);
            let scores = scores.chunks_exact_mut(range.len());
            for (query, scores) in queries.chunks_exact(d).zip(scores) {
                integer_dots(isa, query, rows, dots);
                scores.iter_mut().zip(&*dots).for_each(|(score, &dot)| *score = dot as f32);
            }
        })
    };
    Ok(queries.axis_chunks_iter(Axis(0), QUERIES).flat_map(search).collect())
}

fn widened<T: Copy + Into<i16>>(rows: &ArrayRef2<T>) -> Vec<i16> {
    let mut out = Vec::new();
    widen(rows, &mut out);
    out
}

/// Two bytes for each: products of 16-bit integers are what machines add up in pairs.
fn widen<T: Copy + Into<i16>>(rows: &ArrayRef2<T>, out: &mut Vec<i16>) {
    out.clear();
    match rows.as_slice() {
        Some(flat) => out.extend(flat.iter().map(|&x| x.into())),
        None => out.extend(rows.iter().map(|&x| x.into())),
    }
}

fn by_hamming<T: Copy + Sync>(
    queries: &ArrayRef2<T>,
    corpus: &ArrayRef2<T>,
    top_k: usize,
    byte: impl Fn(T) -> u8 + Sync + Copy,
) -> Vec<Vec<Hit>> {
    let isa = Isa::exact();
    let words = corpus.ncols().div_ceil(8);
    let search = |queries: ArrayView2<T>| {
        let asked: Vec<Vec<u64>> = queries
            .rows()
            .into_iter()
            .map(|row| (0..words).map(|w| word(row.iter().skip(8 * w), byte)).collect())
            .collect();
        let scan = Scan {
            queries: asked.len(),
            rows: corpus.nrows(),
            top_k,
            chunk: CHUNK,
            block: BLOCK_OF_BITS,
        };
        let scratch = || (Vec::new(), Vec::new());
        scan.run(scratch, |(groups, distances): &mut (Vec<u64>, Vec<f32>), range, scores| {
            let rows = corpus.slice(s![range.clone(), ..]);
            group(&rows, words, byte, groups);
            distances.resize(range.len().next_multiple_of(HAMMING_ROWS), 0.0);
            for (query, scores) in asked.iter().zip(scores.chunks_exact_mut(range.len())) {
                negative_hamming(isa, query, groups, distances);
                scores.copy_from_slice(&distances[..range.len()]);
            }
        })
    };
    queries.axis_chunks_iter(Axis(0), QUERIES).flat_map(search).collect()
}

/// Eight bytes, or what is left of them and zeros.
fn word<'a, T: Copy + 'a>(bytes: impl Iterator<Item = &'a T>, byte: impl Fn(T) -> u8) -> u64 {
    let mut word = [0; 8];
    word.iter_mut().zip(bytes).for_each(|(place, &x)| *place = byte(x));
    u64::from_le_bytes(word)
}

/// The rows in groups `[words][HAMMING_ROWS]`, the last one filled up with zeros.
fn group<T: Copy>(
    rows: &ArrayRef2<T>,
    words: usize,
    byte: impl Fn(T) -> u8 + Copy,
    out: &mut Vec<u64>,
) {
    out.clear();
    out.resize(rows.nrows().next_multiple_of(HAMMING_ROWS) * words, 0);
    let rows = rows.as_standard_layout();
    for (r, row) in rows.rows().into_iter().enumerate() {
        let row = row.to_slice().expect("a standard layout is contiguous");
        let first = r / HAMMING_ROWS * HAMMING_ROWS * words + r % HAMMING_ROWS;
        let places = out[first..].iter_mut().step_by(HAMMING_ROWS);
        let (eights, rest) = row.as_chunks::<8>();
        let last = (!rest.is_empty()).then(|| word(rest.iter(), byte));
        let all = eights.iter().map(|eight| u64::from_le_bytes(eight.map(byte))).chain(last);
        places.zip(all).for_each(|(place, word)| *place = word);
    }
}
