//! Matrix products at the shapes of the base model: `gemm/isa/M×K×N`, in floating-point operations a second. Prints first
//! what the machine could do at most: multiply-adds in registers on as many threads as there are.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mpnet::kernels::Team;
use mpnet::kernels::gemm::{Epilogue, PackedMatrix, par_matmul};
use mpnet::kernels::peak::multiply_add_peak;
use mpnet::ndarray::Array2;
use mpnet::{Isa, Precision};

fn gemm(c: &mut Criterion) {
    let mut group = c.benchmark_group("gemm");
    group.measurement_time(Duration::from_secs(3)).sample_size(10);
    for &isa in Isa::available() {
        let peaks: Vec<f64> = rayon::broadcast(|_| multiply_add_peak(isa, Precision::F32))
            .into_iter()
            .flatten()
            .collect();
        if !peaks.is_empty() {
            let total = peaks.iter().sum::<f64>() / 1e9;
            println!("peak/{isa}: {total:.0} GFLOP/s on {} threads", peaks.len());
        }
    }
    let team = Team::gather();
    // A query's and a batch's rows, through the four linear layers.
    for m in [13, 2048] {
        for (k, n) in [(768, 2304), (768, 768), (768, 3072), (3072, 768)] {
            let a = Array2::from_shape_fn((m, k), |(i, j)| ((i * 31 + j) as f32).sin());
            let b = Array2::from_shape_fn((n, k), |(i, j)| ((i * 17 + j) as f32).cos());
            let mut out = Array2::zeros((m, n));
            group.throughput(Throughput::Elements((2 * m * k * n) as u64));
            for &isa in Isa::available() {
                let b = PackedMatrix::new(isa, Precision::F32, b.view());
                let id = BenchmarkId::new(isa.name(), format!("{m}×{k}×{n}"));
                group.bench_function(id, |bencher| {
                    bencher.iter(|| {
                        par_matmul(&team, a.view(), &b, out.view_mut(), Epilogue::None);
                        black_box(&out);
                    });
                });
            }
        }
    }
}

criterion_group!(benches, gemm);
criterion_main!(benches);
