//! Matrix products at the shapes of the base model: `gemm/isa/precision/M×K×N`, in operations a
//! second. Prints at the end, for the largest of them, what share that is of what the machine can
//! do at most: multiply-adds in registers on as many threads.

#[path = "common/peak.rs"]
mod peak;

use std::cell::RefCell;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use mpnet::kernels::Team;
use mpnet::kernels::gemm::{Epilogue, PackedMatrix, par_matmul};
use mpnet::ndarray::Array2;
use mpnet::{Isa, Precision};

use peak::{read_bandwidth, shared_multiply_add_peak};

/// Rows: of a batch, of one text, of a query.
const SHAPES: [[usize; 3]; 3] = [[4096, 768, 3072], [128, 768, 3072], [13, 768, 768]];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut table = Vec::new();
    for &isa in Isa::available() {
        for precision in Precision::ALL {
            for shape in SHAPES {
                let rate = product(&mut criterion, isa, precision, shape);
                if let (Some(rate), true) = (rate, shape == SHAPES[0]) {
                    table.push((isa, precision, rate, shared_multiply_add_peak(isa, precision)));
                }
            }
        }
    }
    criterion.final_summary();
    if table.is_empty() {
        return;
    }
    let [m, k, n] = SHAPES[0];
    println!("{m}×{k}×{n}, {} threads\n", rayon::current_num_threads());
    println!("| instruction set | precision | GFLOP/s | in registers | share |");
    println!("|---|---|---|---|---|");
    for (isa, precision, rate, peak) in table {
        let (peak, share) = match peak {
            Some(peak) => (format!("{:.0}", peak / 1e9), format!("{:.0} %", 100.0 * rate / peak)),
            None => ("–".to_owned(), "–".to_owned()),
        };
        println!("| {isa} | {precision} | {:.0} | {peak} | {share} |", rate / 1e9);
    }
    println!("\nReading memory: {:.1} GB/s", read_bandwidth() / 1e9);
}

/// Operations a second, the median over the samples; `None` if it was not asked for.
fn product(c: &mut Criterion, isa: Isa, precision: Precision, shape: [usize; 3]) -> Option<f64> {
    let [m, k, n] = shape;
    let team = Team::gather();
    let operations = 2 * m * k * n;
    // Packed when it is first needed: not every benchmark that there is was asked for.
    let matrices = || {
        let a = Array2::from_shape_fn((m, k), |(i, j)| ((i * 31 + j) as f32).sin());
        let b = Array2::from_shape_fn((n, k), |(i, j)| ((i * 17 + j) as f32).cos());
        (a, PackedMatrix::new(isa, precision, b.view()), Array2::<f32>::zeros((m, n)))
    };
    let samples = RefCell::new(Vec::new());
    let mut group = c.benchmark_group("gemm");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group.sample_size(10).throughput(Throughput::Elements(operations as u64));
    let id = BenchmarkId::new(format!("{isa}/{precision}"), format!("{m}×{k}×{n}"));
    group.bench_function(id, |bencher| {
        let (a, b, mut out) = matrices();
        // The system gives the memory of `out` when it is first written.
        par_matmul(&team, a.view(), &b, out.view_mut(), Epilogue::None);
        bencher.iter_custom(|iterations| {
            let start = Instant::now();
            for _ in 0..iterations {
                par_matmul(&team, a.view(), &b, out.view_mut(), Epilogue::None);
                black_box(&out);
            }
            let elapsed = start.elapsed();
            samples
                .borrow_mut()
                .push((iterations * operations as u64) as f64 / elapsed.as_secs_f64());
            elapsed
        });
    });
    let mut samples = samples.into_inner();
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied()
}
