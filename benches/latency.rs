//! How long a query takes in a pool of threads that also runs long calls: one line a case,
//! `precision, threads, call: median, p99 and the slowest`.
//!
//! Queries come at fixed times, each on a thread of its own, whether or not those before it have
//! been answered: a query that waits does not hide the waiting of the next ones. The long calls
//! follow one another, of `many` texts that are divided among the threads, or of a `few` that all
//! threads compute together. `cargo bench --bench latency -- int8` measures the cases alone whose
//! names have that word.

mod common;

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use mpnet::{Precision, SentenceEncoder};
use rayon::ThreadPool;

use common::{Model, text};

/// Tokens of a query.
const QUERY: usize = 13;

/// Time from one query to the next, enough for several of them alone.
const EVERY: Duration = Duration::from_millis(300);

const QUERIES: usize = 200;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let model = Model::find();
    let of_tokens = |texts: usize, tokens| (0..texts).map(|i| text(tokens, i)).collect::<Vec<_>>();
    let calls = [("none", vec![]), ("many", of_tokens(128, 128)), ("few", of_tokens(3, 384))];
    for precision in Precision::ALL {
        let encoder = LazyLock::new(|| model.encoder(precision));
        for threads in [2, 4] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let pool = pool.expect("threads can be made");
            for (name, texts) in &calls {
                let case = format!("{precision}, {threads} threads, {name}");
                if !words.iter().all(|word| case.contains(word)) {
                    continue;
                }
                let (mut times, rate) = beside(&encoder, &pool, texts);
                times.sort_unstable();
                let at = |share: f64| times[(share * (QUERIES - 1) as f64).round() as usize];
                println!(
                    "{case}: median {:.1?}, p99 {:.1?}, slowest {:.1?}; beside it \
                     {rate:.2} texts/s",
                    at(0.5),
                    at(0.99),
                    at(1.0),
                );
            }
        }
    }
}

/// The times of queries beside calls of `texts`, and how many of these texts are encoded in a
/// second.
fn beside(encoder: &SentenceEncoder, pool: &ThreadPool, texts: &[String]) -> (Vec<Duration>, f64) {
    let (times, over, done) = (Mutex::new(Vec::new()), AtomicBool::new(false), AtomicUsize::new(0));
    let start = Instant::now();
    let query = |i: usize| {
        let start = Instant::now();
        black_box(pool.install(|| encoder.encode_one(text(QUERY, i)))).expect("it is encoded");
        times.lock().expect("no query panics").push(start.elapsed());
    };
    let long = || {
        while !over.load(Ordering::Relaxed) {
            black_box(pool.install(|| encoder.encode(texts))).expect("they are encoded");
            done.fetch_add(texts.len(), Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        if !texts.is_empty() {
            scope.spawn(long);
        }
        std::thread::scope(|scope| {
            for i in 0..QUERIES {
                let due = EVERY * (i as u32 + 1);
                std::thread::sleep(due.saturating_sub(start.elapsed()));
                let query = &query;
                scope.spawn(move || query(i));
            }
        });
        over.store(true, Ordering::Relaxed);
    });
    let rate = done.into_inner() as f64 / start.elapsed().as_secs_f64();
    (times.into_inner().expect("no query panics"), rate)
}
