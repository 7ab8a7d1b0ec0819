//! Texts to embeddings on a model of the base model's size: `encode/precision/case`, in tokens a
//! second, and `concurrent/precision/callers`, in texts a second: as many threads as there are
//! callers, each with one query after another for the same encoder.

mod common;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mpnet::{Precision, SentenceEncoder};

use common::{Case, Model, text};

/// Tokens of a query.
const QUERY: usize = 13;

fn encode(c: &mut Criterion) {
    let model = Model::find();
    for precision in Precision::ALL {
        let encoder = model.encoder(precision);
        let mut group = c.benchmark_group("encode");
        group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
        group.sample_size(10);
        for case in Case::all() {
            group.throughput(Throughput::Elements(case.all_tokens() as u64));
            group.bench_function(BenchmarkId::new(precision.to_string(), case.name), |bencher| {
                case.check(&encoder);
                bencher.iter(|| black_box(encoder.encode(&case.texts)));
            });
        }
        drop(group);
        let mut group = c.benchmark_group("concurrent");
        group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
        group.sample_size(10);
        for callers in [1, 2, 4, 8] {
            group.throughput(Throughput::Elements(callers as u64));
            let id = BenchmarkId::new(precision.to_string(), callers);
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|texts| concurrently(&encoder, callers, texts));
            });
        }
    }
}

/// How long that many callers take to have that many texts encoded each.
fn concurrently(encoder: &SentenceEncoder, callers: usize, texts: u64) -> Duration {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for caller in 0..callers {
            scope.spawn(move || {
                for i in 0..texts as usize {
                    let embedding = encoder.encode_one(text(QUERY, 8 * caller + i));
                    black_box(embedding.expect("the text can be encoded"));
                }
            });
        }
    });
    start.elapsed()
}

criterion_group!(benches, encode);
criterion_main!(benches);
