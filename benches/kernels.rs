//! Row kernels at the shapes of the base model: `operation/isa/width`, in elements a second.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mpnet::kernels::{activation, layer_norm, softmax};
use mpnet::{Activation, Isa};

fn rows(c: &mut Criterion) {
    let values = |n: usize| (0..n).map(|i| (i as f32 * 0.37).sin()).collect::<Vec<f32>>();
    let mut bench = |name: &str, n: usize, kernel: &dyn Fn(Isa, &mut [f32])| {
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(n as u64));
        let input = values(n);
        for &isa in Isa::available() {
            group.bench_function(BenchmarkId::new(isa.name(), n), |bencher| {
                // A fresh row each time, made outside of the measured time: activations change what
                // they are given.
                bencher.iter_batched_ref(
                    || input.clone(),
                    |row| kernel(isa, black_box(row)),
                    BatchSize::SmallInput,
                );
            });
        }
    };
    let (gain, bias) = (vec![1.0; 768], vec![0.0; 768]);
    bench("layer_norm", 768, &|isa, row| layer_norm(isa, row, &gain, &bias, 1e-5));
    bench("gelu", 3072, &|isa, row| activation::apply(isa, Activation::Gelu, row));
    for t in [16, 128, 384] {
        let bias = vec![0.1; t];
        bench("softmax", t, &|isa, row| softmax(isa, row, 0.125, &bias));
    }
}

criterion_group!(benches, rows);
criterion_main!(benches);
