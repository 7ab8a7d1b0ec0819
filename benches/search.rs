//! Exact search beside the machine's matrix products: what share of their rate a whole search
//! reaches.
//!
//! ```sh
//! cargo bench --bench search -- [--rows 1000000] [--queries 100] [--width 768] [--top-k 10] [--rounds 5]
//! cargo bench --bench search -- --bits [--rows 10000000] …      # Hamming distance; benches/peers/binary_search.py runs faiss beside it
//! ```
//!
//! Plain, not criterion: one search takes a second and the corpus 3 GB. Each round times the
//! product and the search in turn; printed are medians.

use std::hint::black_box;
use std::time::Instant;

use mpnet::kernels::Team;
use mpnet::kernels::gemm::{Epilogue, PackedMatrix, par_matmul};
use mpnet::ndarray::Array2;
use mpnet::quantization::QuantizedView;
use mpnet::search::{
    SearchOptions, semantic_search, semantic_search_quantized, semantic_search_with,
};
use mpnet::{Isa, Precision};

fn main() {
    let mut options = Options::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let mut number = || arguments.next().and_then(|n| n.parse().ok());
        let place = match flag.as_str() {
            "--bits" => {
                options.bits = true;
                continue;
            }
            // Cargo adds it.
            "--bench" => continue,
            "--rows" => &mut options.rows,
            "--queries" => &mut options.queries,
            "--width" => &mut options.width,
            "--top-k" => &mut options.top_k,
            "--rounds" => &mut options.rounds,
            _ => panic!("{flag} is not known; see the top of benches/search.rs"),
        };
        *place = number().unwrap_or_else(|| panic!("{flag} needs a number"));
    }
    if options.bits { bits(&options) } else { dense(&options) }
}

struct Options {
    bits: bool,
    /// 0: ten million of bits, one of `f32`.
    rows: usize,
    queries: usize,
    width: usize,
    top_k: usize,
    rounds: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { bits: false, rows: 0, queries: 100, width: 768, top_k: 10, rounds: 5 }
    }
}

fn dense(&Options { rows, queries, width, top_k, rounds, .. }: &Options) {
    let rows = if rows == 0 { 1_000_000 } else { rows };
    let mut random = Random(1);
    let mut uniform = |rows| Array2::from_shape_simple_fn((rows, width), || random.uniform());
    let (corpus, queries) = (uniform(rows), uniform(queries));
    // Search multiplies whole `f32`s, also where AMX would multiply pairs of bf16.
    let isa = match Isa::detect().expect("MPNET_ISA names an instruction set of this machine") {
        isa if isa.name() == "amx" => "avx512".parse().expect("where there is AMX it is there too"),
        isa => isa,
    };
    // A product of a shape at which the kernels are at their best.
    let (m, n) = (2048, 3072);
    let (a, b) = (uniform(m), uniform(n));
    let b = PackedMatrix::new(isa, Precision::F32, b.view());
    let mut out = Array2::<f32>::zeros((m, n));
    let (mut gemm, mut search, mut checked) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let product = || par_matmul(&Team::gather(), a.view(), &b, out.view_mut(), Epilogue::None);
        gemm.push((2 * m * n * width) as f64 / seconds(product) / 1e9);
        let operations = (2 * rows * width * queries.nrows()) as f64 / 1e9;
        let plain = || drop(black_box(semantic_search(&queries.view(), &corpus.view(), top_k)));
        search.push(operations / seconds(plain));
        let options = SearchOptions::default().top_k(top_k);
        let with = || {
            let hits = semantic_search_with(&queries.view(), &corpus.view(), &options);
            drop(black_box(hits.expect("the corpus is finite")));
        };
        checked.push(operations / seconds(with));
    }
    let (gemm, search, checked) = (median(gemm), median(search), median(checked));
    println!("{rows} × {width} f32, {} queries, {} threads", queries.nrows(), threads());
    println!("gemm {isa} {m}×{width}×{n}: {gemm:.0} GFLOP/s");
    println!("semantic_search: {search:.0} GFLOP/s, {:.0} % of it", 100.0 * search / gemm);
    println!("semantic_search_with: {checked:.0} GFLOP/s, {:.0} % of it", 100.0 * checked / gemm);
}

fn bits(&Options { rows, queries, width, top_k, rounds, .. }: &Options) {
    let rows = if rows == 0 { 10_000_000 } else { rows };
    let mut random = Random(1);
    let mut bytes =
        |rows| Array2::from_shape_simple_fn((rows, width.div_ceil(8)), || random.next() as u8);
    let (corpus, queries) = (bytes(rows), bytes(queries));
    let search = || {
        let (queries, corpus) =
            (QuantizedView::Ubinary(queries.view()), QuantizedView::Ubinary(corpus.view()));
        let hits = semantic_search_quantized(&queries, &corpus, top_k);
        let hits = hits.expect("the widths fit");
        hits[0].iter().map(|hit| -hit.score as u32).collect::<Vec<_>>()
    };
    let mut times = Vec::new();
    let mut distances = Vec::new();
    for _ in 0..rounds {
        times.push(seconds(|| distances = search()));
    }
    // One line, which benches/peers/binary_search.py reads.
    println!(
        "{{\"rows\": {rows}, \"queries\": {}, \"bits\": {width}, \"threads\": {}, \"seconds_median\": {:.4}, \"distances\": {distances:?}}}",
        queries.nrows(),
        threads(),
        median(times)
    );
}

fn threads() -> usize {
    rayon::current_num_threads()
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// SplitMix64, which the script beside this does too, so that both search the same bits.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Between −1 and 1.
    fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}
