//! Texts to embeddings on a model of the base model's size: `encode/precision/case`, in tokens a second, and
//! `concurrent/precision/callers`, in texts a second: as many threads as there are callers, each with one query after another for
//! the same encoder. `beside/precision/threads/call` is the time of one query after another in a pool of so many threads that
//! also runs long calls: of `many` texts, or of a `few` long ones.

mod common;

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
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

/// Criterion reports the mean; the last line of each case says how long the slowest queries took.
fn beside(c: &mut Criterion) {
    let model = Model::find();
    let calls = [("many", 128, 128), ("few", 3, 384)].map(|(name, texts, tokens)| {
        (name, (0..texts).map(|i| text(tokens, i)).collect::<Vec<_>>())
    });
    for precision in [Precision::F32, Precision::Int8] {
        let encoder = model.encoder(precision);
        let mut group = c.benchmark_group(format!("beside/{precision}"));
        group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(20));
        group.sample_size(10).sampling_mode(SamplingMode::Flat);
        for threads in [2, 4] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let pool = pool.expect("threads can be made");
            for (name, texts) in &calls {
                let over = AtomicBool::new(false);
                let mut seconds = Vec::new();
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        while !over.load(Ordering::Relaxed) {
                            pool.install(|| drop(black_box(encoder.encode(texts))));
                        }
                    });
                    let id = BenchmarkId::new(threads.to_string(), name);
                    group.bench_function(id, |bencher| {
                        bencher.iter_custom(|queries| {
                            let query = |i| {
                                let (start, text) = (Instant::now(), text(QUERY, i as usize));
                                drop(black_box(pool.install(|| encoder.encode_one(text))));
                                start.elapsed()
                            };
                            let times: Vec<Duration> = (0..queries).map(query).collect();
                            seconds.extend(times.iter().map(Duration::as_secs_f64));
                            times.iter().sum()
                        });
                    });
                    over.store(true, Ordering::Relaxed);
                });
                print_quantiles(&mut seconds);
            }
        }
    }
}

fn print_quantiles(seconds: &mut [f64]) {
    seconds.sort_by(f64::total_cmp);
    let at = |share: f64| 1e3 * seconds[(share * (seconds.len() - 1) as f64).round() as usize];
    if !seconds.is_empty() {
        let (median, p99, max) = (at(0.5), at(0.99), at(1.0));
        let n = seconds.len();
        println!("{n} queries: median {median:.1} ms, p99 {p99:.1} ms, max {max:.1} ms\n");
    }
}

criterion_group!(benches, encode, beside);
criterion_main!(benches);
