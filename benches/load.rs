//! From a model's files, in the page cache, to an encoder and to its first embedding:
//! `load/precision`, and with a file of packed weights that is there already
//! `load/precision/packed_cache`; each also with `first_embedding` after it.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{Bencher, Criterion, criterion_group, criterion_main};
use mpnet::{Precision, SentenceEncoder};

use common::{Model, text};

/// Tokens of the first text.
const QUERY: usize = 13;

fn load(c: &mut Criterion) {
    let model = Model::find();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut group = c.benchmark_group("load");
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    group.sample_size(10);
    for precision in Precision::ALL {
        let cache = directory.path().join(format!("{precision}.bin"));
        for cache in [None, Some(&*cache)] {
            let name = match cache {
                None => precision.to_string(),
                Some(_) => format!("{precision}/packed_cache"),
            };
            let build = || build(&model, precision, cache);
            group.bench_function(&name, |bencher| time(bencher, build));
            group.bench_function(format!("{name}/first_embedding"), |bencher| {
                time(bencher, || {
                    let encoder = build();
                    encoder.encode_one(text(QUERY, 0)).expect("the text can be encoded");
                    encoder
                });
            });
        }
        // The file of one precision is not to stand in the way of the next one's page cache.
        let _ = std::fs::remove_file(cache);
    }
}

fn build(model: &Model, precision: Precision, cache: Option<&Path>) -> SentenceEncoder {
    let mut builder = SentenceEncoder::builder(model.directory()).precision(precision);
    if let Some(file) = cache {
        builder = builder.packed_cache(file);
    }
    builder.build().expect("the model loads")
}

/// Times `load` without the end of what it makes, one at a time: an encoder has hundreds of
/// megabytes. The first call, which may have to write the cache, does not count.
fn time(bencher: &mut Bencher, load: impl Fn() -> SentenceEncoder) {
    drop(load());
    bencher.iter_custom(|times| {
        (0..times)
            .map(|_| {
                let start = Instant::now();
                let encoder = load();
                let elapsed = start.elapsed();
                drop(encoder);
                elapsed
            })
            .sum()
    });
}

criterion_group!(benches, load);
criterion_main!(benches);
