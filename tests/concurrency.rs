//! One encoder and many callers at once: the same bits as alone, on the caller's threads, which are
//! at rest afterwards.

mod common;
#[path = "../benches/common/random_model.rs"]
mod random_model;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::{bits, pool, tiny};
use mpnet::{EncodeOptions, Precision, SentenceEncoder};
use random_model::{Sizes, WORDS};

/// Threads of the global pool, another number than rayon would choose on most machines.
const GLOBAL: usize = 3;

/// Lets one test run at a time: one of them measures what the process does. And makes the global
/// pool, the first time, after a call in another pool: that would fail if the library had made or
/// configured one.
fn alone() -> MutexGuard<'static, ()> {
    static GLOBAL_POOL: LazyLock<()> = LazyLock::new(|| {
        pool(2).install(|| {
            let encoder = SentenceEncoder::from_pretrained(tiny()).unwrap();
            encoder.encode(&texts()).unwrap();
        });
        let mine = rayon::ThreadPoolBuilder::new().num_threads(GLOBAL);
        let made = mine.thread_name(|i| format!("global {i}")).build_global();
        made.expect("nobody else has made the global pool");
    });
    static ONE: Mutex<()> = Mutex::new(());
    let guard = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    LazyLock::force(&GLOBAL_POOL);
    guard
}

/// Large enough for its products to be shared among threads.
fn encoder(precision: Precision) -> SentenceEncoder {
    let directory = tempfile::tempdir().unwrap();
    let sizes = Sizes { vocabulary: 80, hidden: 192, layers: 2, heads: 4, intermediate: 768 };
    random_model::write(directory.path(), sizes).unwrap();
    SentenceEncoder::builder(directory.path()).precision(precision).build().unwrap()
}

/// Of 1 to 60 words.
fn texts() -> Vec<String> {
    let words = |i: usize| WORDS.iter().cycle().skip(7 * i).take(1 + i * 23 % 60).copied();
    (0..24).map(|i| words(i).collect::<Vec<_>>().join(" ")).collect()
}

fn each_alone(encoder: &SentenceEncoder, texts: &[String]) -> Vec<Vec<u32>> {
    texts.iter().map(|text| bits(encoder.encode_one(text).unwrap().view())).collect()
}

#[test]
fn eight_callers_get_the_bits_that_each_gets_alone() {
    let _alone = alone();
    let texts = texts();
    for precision in Precision::ALL {
        let encoder = encoder(precision);
        let want = each_alone(&encoder, &texts);
        std::thread::scope(|scope| {
            for caller in 0..8 {
                let (encoder, texts, want) = (&encoder, &texts, &want);
                scope.spawn(move || {
                    for round in 0..24 {
                        let i = (round * 5 + caller * 3) % texts.len();
                        let got = encoder.encode_one(&texts[i]).unwrap();
                        assert_eq!(bits(got.view()), want[i], "{precision}: {caller}, text {i}");
                    }
                });
            }
        });
    }
}

#[test]
fn single_texts_beside_many_in_pools_of_every_size() {
    let _alone = alone();
    let texts = texts();
    let many: Vec<&String> = texts.iter().cycle().take(200).collect();
    for precision in Precision::ALL {
        let encoder = encoder(precision);
        let want = each_alone(&encoder, &texts);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for threads in [1, 2, 3, 8] {
                let (encoder, texts, want, done) = (&encoder, &texts, &want, &done);
                let pool = Arc::new(pool(threads));
                let options = EncodeOptions::default().thread_pool(Arc::clone(&pool));
                // From outside the pool, by the option, and from inside, by turns.
                scope.spawn(move || {
                    for i in (0..texts.len()).cycle() {
                        if done.load(Ordering::Relaxed) {
                            return;
                        }
                        let text = &texts[i..=i];
                        let got = match i % 2 {
                            0 => encoder.encode_with(text, &options).unwrap().embeddings,
                            _ => pool.install(|| encoder.encode(text)).unwrap(),
                        };
                        assert_eq!(bits(got.row(0)), want[i], "{precision}, {threads} threads");
                    }
                });
            }
            for _ in 0..2 {
                let rows = encoder.encode(&many).unwrap();
                for (row, want) in rows.rows().into_iter().zip(want.iter().cycle()) {
                    assert_eq!(bits(row), *want, "{precision}, among many");
                }
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}

/// Several callers inside one pool of fewer threads: each is a thread of the pool, and the others'
/// helper.
#[test]
fn callers_inside_one_pool_do_not_wait_for_each_other() {
    let _alone = alone();
    let (texts, encoder) = (texts(), encoder(Precision::F32));
    let want = each_alone(&encoder, &texts);
    pool(2).scope(|scope| {
        for caller in 0..8 {
            let (encoder, texts, want) = (&encoder, &texts, &want);
            scope.spawn(move |_| {
                for i in (0..texts.len()).map(|i| (i + 3 * caller) % texts.len()) {
                    let got = encoder.encode_one(&texts[i]).unwrap();
                    assert_eq!(bits(got.view()), want[i], "caller {caller}, text {i}");
                }
            });
        }
    });
}

#[test]
fn the_caller_s_pools_are_used_as_they_are() {
    let _alone = alone();
    let encoder = encoder(Precision::F32);
    encoder.encode(&texts()).unwrap();
    assert_eq!(rayon::current_num_threads(), GLOBAL);
    let names = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&names);
    let options = EncodeOptions::default().tokens_per_batch(64).progress(move |_| {
        let name = std::thread::current().name().map(str::to_owned);
        seen.lock().unwrap().push(name.unwrap_or_default());
    });
    rayon::scope(|scope| {
        scope.spawn(|_| drop(encoder.encode_with(&texts(), &options).unwrap()));
    });
    let names = names.lock().unwrap();
    assert!(!names.is_empty() && names.iter().all(|name| name.starts_with("global ")), "{names:?}");
}

/// After a call no thread waits awake: of 200 ms the process computes for less than 20.
#[cfg(target_os = "linux")]
#[test]
fn threads_are_at_rest_after_a_call() {
    let _alone = alone();
    let pool = pool(4);
    for precision in Precision::ALL {
        let (texts, encoder) = (texts(), encoder(precision));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    texts.iter().for_each(|text| drop(encoder.encode_one(text).unwrap()))
                });
            }
        });
        pool.install(|| encoder.encode_one(&texts[0])).unwrap();
        pool.install(|| encoder.encode(&texts)).unwrap();
        // rayon's threads look for work for a moment before they sleep.
        std::thread::sleep(Duration::from_millis(50));
        let before = processor_time();
        std::thread::sleep(Duration::from_millis(200));
        let spent = processor_time() - before;
        assert!(spent <= Duration::from_millis(20), "{precision}: {spent:?} of 200 ms");
    }
}

/// What all threads of this process have computed for so far, as the kernel counts it, in
/// hundredths of a second.
#[cfg(target_os = "linux")]
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // The second field is a name in parentheses, which may have spaces in it; `utime` and `stime`
    // are the 14th and 15th.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum();
    Duration::from_millis(10 * ticks)
}
