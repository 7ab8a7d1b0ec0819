//! Progress callbacks that use rayon, encode, panic and cancel, in every way of encoding:
//! everything ends, and the counts are right. A test that hangs takes the whole process down, with
//! a message.

mod common;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

use common::{bits, pool, tiny};
use mpnet::ndarray::{Array2, ArrayView1};
use mpnet::{CancellationToken, EncodeOptions, Error, Overflow, Progress, SentenceEncoder};
use rayon::ThreadPool;
use rayon::prelude::*;

/// Aborts the process if a test takes longer than this.
const LIMIT: Duration = Duration::from_secs(120);

/// Ends the watch over a test when it is dropped.
struct Watchdog(Arc<(Mutex<bool>, Condvar)>);

impl Watchdog {
    fn over(test: &'static str) -> Self {
        let ended = Arc::new((Mutex::new(false), Condvar::new()));
        let watched = Arc::clone(&ended);
        std::thread::spawn(move || {
            let (ended, changed) = &*watched;
            let ended = ended.lock().unwrap();
            let (ended, _) = changed.wait_timeout_while(ended, LIMIT, |ended| !*ended).unwrap();
            if !*ended {
                // Not by the macro, whose output the test harness keeps to itself.
                let _ = writeln!(std::io::stderr(), "{test}: not over after {LIMIT:?}");
                std::process::abort();
            }
        });
        Self(ended)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

static ENCODER: LazyLock<SentenceEncoder> =
    LazyLock::new(|| SentenceEncoder::from_pretrained(tiny()).unwrap());

/// Texts for the nested calls: for one thread each, and for all of them together.
static NESTED: LazyLock<Vec<String>> = LazyLock::new(|| texts(16));

/// What the nested calls have to give.
static WANT: LazyLock<Array2<f32>> = LazyLock::new(|| ENCODER.encode(&NESTED).unwrap());

/// Of 3 to 43 words.
fn texts(count: usize) -> Vec<String> {
    (0..count).map(|i| "the man is here and ".repeat(1 + i * 7 % 9)).collect()
}

/// A way of encoding: the texts it is given, and the embedding of each of its results.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// A few texts, each computed by all threads.
    Few,
    /// Many texts, each computed by one thread.
    Many,
    /// In many batches, each by all threads: they have too few tokens for one thread.
    Small,
    Tokens,
    Chunks,
    Iter,
}

impl Way {
    const ALL: [Self; 6] =
        [Self::Few, Self::Many, Self::Small, Self::Tokens, Self::Chunks, Self::Iter];

    /// How many texts it encodes.
    fn texts(self) -> usize {
        match self {
            Self::Few => 3,
            Self::Many | Self::Tokens => 60,
            Self::Small => 5,
            Self::Chunks => 1,
            Self::Iter => 16,
        }
    }

    /// Encodes, and returns a number that depends on all bits of the result.
    fn run(self, options: &EncodeOptions) -> Result<u64, Error> {
        let texts = texts(self.texts());
        let mut sum = 0;
        let mut add = |row: ArrayView1<f32>| {
            bits(row).into_iter().for_each(|bits| sum = (sum ^ u64::from(bits)).rotate_left(7));
        };
        match self {
            Self::Few | Self::Many => {
                let report = ENCODER.encode_with(&texts, options)?;
                report.embeddings.rows().into_iter().for_each(add);
            }
            Self::Small => {
                let options = options.clone().tokens_per_batch(60);
                let report = ENCODER.encode_with(&texts, &options)?;
                report.embeddings.rows().into_iter().for_each(add);
            }
            Self::Tokens => {
                for text in ENCODER.encode_tokens(&texts, options)? {
                    text.embeddings.rows().into_iter().for_each(&mut add);
                }
            }
            Self::Chunks => {
                let text = "the man is here and ".repeat(150);
                let options = options.clone().tokens_per_batch(120);
                let options = options.overflow(Overflow::Window { stride: 8 });
                let chunks = [0..100, 100..2000, 2000..text.len()];
                let chunks = ENCODER.encode_chunks(&text, &chunks, &options)?;
                chunks.embeddings.rows().into_iter().for_each(add);
            }
            Self::Iter => {
                let options = options.clone().tokens_per_batch(40);
                for text in ENCODER.encode_iter(&texts, &options)? {
                    add(text?.embedding.view());
                }
            }
        }
        Ok(sum)
    }
}

/// What a callback does.
type Act = Arc<dyn Fn() + Send + Sync>;

/// `act` as a callback that also checks what it is told; and the last that it was told.
fn watched(act: Act) -> (EncodeOptions, Arc<Mutex<Option<Progress>>>) {
    let last = Arc::new(Mutex::new(None::<Progress>));
    let (seen, inside) = (Arc::clone(&last), AtomicBool::new(false));
    let options = EncodeOptions::default().progress(move |now| {
        assert!(!inside.swap(true, Ordering::Relaxed), "one call at a time");
        {
            let mut last = seen.lock().unwrap();
            if let Some(last) = last.replace(now) {
                assert!(now.texts >= last.texts && now.tokens > last.tokens, "{last:?}, {now:?}");
            }
        }
        act();
        inside.store(false, Ordering::Relaxed);
    });
    (options, last)
}

fn sum() {
    let sum: usize = (0..20_000_usize).into_par_iter().with_max_len(100).sum();
    assert_eq!(sum, 19_999 * 10_000);
}

fn join() {
    fn fibonacci(n: u64) -> u64 {
        if n < 2 {
            return n;
        }
        let (a, b) = rayon::join(|| fibonacci(n - 1), || fibonacci(n - 2));
        a + b
    }
    assert_eq!(fibonacci(12), 144);
}

fn scope() {
    let done = AtomicUsize::new(0);
    rayon::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|_| {
                std::thread::yield_now();
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(done.into_inner(), 50);
}

fn encode(options: &EncodeOptions) {
    assert_eq!(ENCODER.encode_with(&NESTED, options).unwrap().embeddings, *WANT);
    let tokens = ENCODER.encode_tokens(&NESTED[..2], options).unwrap();
    assert_eq!(tokens[0].embeddings.ncols(), 32);
}

/// Everything that a callback could want to do; `own` is the pool of the options, `other` another
/// one.
fn acts(own: &Arc<ThreadPool>, other: &Arc<ThreadPool>) -> Vec<(&'static str, Act)> {
    let another = Arc::new(SentenceEncoder::from_pretrained(tiny()).unwrap());
    let in_pool = |pool: &Arc<ThreadPool>| EncodeOptions::default().thread_pool(Arc::clone(pool));
    let (in_own, in_other) = (in_pool(own), in_pool(other));
    let (own, other) = (Arc::clone(own), Arc::clone(other));
    vec![
        ("par_iter", Arc::new(sum) as Act),
        ("join", Arc::new(join)),
        ("scope", Arc::new(scope)),
        ("install into its own pool", Arc::new(move || own.install(sum))),
        ("install into another pool", Arc::new(move || other.install(join))),
        ("encode", Arc::new(|| encode(&EncodeOptions::default()))),
        ("encode in its own pool", Arc::new(move || encode(&in_own))),
        ("encode in another pool", Arc::new(move || encode(&in_other))),
        (
            "encode_one",
            Arc::new(|| assert_eq!(ENCODER.encode_one(&NESTED[7]).unwrap(), WANT.row(7))),
        ),
        (
            "another encoder",
            Arc::new(move || assert_eq!(another.encode(&NESTED[..5]).unwrap().row(3), WANT.row(3))),
        ),
        (
            "encode_one in a par_iter",
            Arc::new(|| {
                (0..6).into_par_iter().for_each(|i| {
                    assert_eq!(ENCODER.encode_one(&NESTED[i]).unwrap(), WANT.row(i));
                });
            }),
        ),
    ]
}

/// Every way of encoding with every callback in a pool of so many threads: called on a thread of
/// the pool, from outside by the option, and from outside in the global pool.
fn every_way_with_every_callback(threads: usize) {
    let (own, other) = (Arc::new(pool(threads)), Arc::new(pool(2)));
    for way in Way::ALL {
        let want = way.run(&EncodeOptions::default()).unwrap();
        for (name, act) in acts(&own, &other) {
            for place in ["inside", "option", "global"] {
                let what = format!("{way:?}, {name}, {threads} threads, {place}");
                let (options, last) = watched(Arc::clone(&act));
                let got = match place {
                    "inside" => own.install(|| way.run(&options)),
                    "option" => way.run(&options.thread_pool(Arc::clone(&own))),
                    _ => way.run(&options),
                };
                assert_eq!(got.unwrap(), want, "{what}");
                let last = last.lock().unwrap().expect("it was called");
                assert_eq!(last.texts, way.texts(), "{what}");
                assert!(last.total.is_none_or(|total| total == last.texts), "{what}: {last:?}");
            }
        }
    }
}

#[test]
fn callbacks_in_a_pool_of_one_thread() {
    let _watchdog = Watchdog::over("one thread");
    every_way_with_every_callback(1);
}

#[test]
fn callbacks_in_a_pool_of_two_threads() {
    let _watchdog = Watchdog::over("two threads");
    every_way_with_every_callback(2);
}

#[test]
fn callbacks_in_a_pool_of_four_threads() {
    let _watchdog = Watchdog::over("four threads");
    every_way_with_every_callback(4);
}

#[test]
fn callbacks_in_a_pool_of_eight_threads() {
    let _watchdog = Watchdog::over("eight threads");
    every_way_with_every_callback(8);
}

/// Several calls at once in one pool, from inside and outside, each with another callback.
#[test]
fn many_callers_with_callbacks_in_one_pool() {
    let _watchdog = Watchdog::over("many callers");
    let want = Way::ALL.map(|way| way.run(&EncodeOptions::default()).unwrap());
    for threads in [1, 2, 4, 8] {
        let (own, other) = (Arc::new(pool(threads)), Arc::new(pool(2)));
        let acts = acts(&own, &other);
        std::thread::scope(|scope| {
            for (i, (name, act)) in acts.iter().enumerate() {
                let (own, want) = (&own, &want);
                scope.spawn(move || {
                    for (way, want) in Way::ALL.iter().zip(want).cycle().skip(i).take(3) {
                        let (options, last) = watched(Arc::clone(act));
                        let got = match i % 2 {
                            0 => own.install(|| way.run(&options)),
                            _ => way.run(&options.thread_pool(Arc::clone(own))),
                        };
                        assert_eq!(got.unwrap(), *want, "{way:?}, {name}, {threads} threads");
                        assert_eq!(last.lock().unwrap().unwrap().texts, way.texts());
                    }
                });
            }
        });
        // The same, as jobs of the pool: they wait on each other's threads.
        own.scope(|scope| {
            for (i, (name, act)) in acts.iter().enumerate() {
                let want = &want;
                scope.spawn(move |_| {
                    let (way, want) = (Way::ALL[i % 6], want[i % 6]);
                    let (options, _) = watched(Arc::clone(act));
                    assert_eq!(way.run(&options).unwrap(), want, "{way:?}, {name}, as a job");
                });
            }
        });
    }
}

/// The caller gets the payload itself, and encoder, pool and options work as before.
#[test]
fn a_callback_that_panics() {
    let _watchdog = Watchdog::over("panics");
    for threads in [1, 2, 4, 8] {
        let own = Arc::new(pool(threads));
        for way in Way::ALL {
            let want = way.run(&EncodeOptions::default()).unwrap();
            let (calls, armed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(true)));
            let (count, on) = (Arc::clone(&calls), Arc::clone(&armed));
            let options = EncodeOptions::default().progress(move |_| {
                sum();
                count.fetch_add(1, Ordering::Relaxed);
                if on.load(Ordering::Relaxed) {
                    panic_any("of the callback");
                }
            });
            let in_own = options.clone().thread_pool(Arc::clone(&own));
            for inside in [true, false] {
                calls.store(0, Ordering::Relaxed);
                armed.store(true, Ordering::Relaxed);
                let outcome = catch_unwind(AssertUnwindSafe(|| match inside {
                    true => own.install(|| way.run(&options)),
                    false => way.run(&in_own),
                }));
                let payload = outcome.expect_err("it panics");
                assert_eq!(payload.downcast_ref::<&str>(), Some(&"of the callback"), "{way:?}");
                assert_eq!(calls.load(Ordering::Relaxed), 1, "{way:?}: not called again");
                armed.store(false, Ordering::Relaxed);
                assert_eq!(own.install(|| way.run(&options)).unwrap(), want, "{way:?}");
                assert_eq!(way.run(&in_own).unwrap(), want, "{way:?}");
            }
        }
    }
}

/// After a panic an iterator has no more items: those of the texts that it had taken would be
/// missing.
#[test]
fn an_iterator_ends_with_a_panic() {
    let _watchdog = Watchdog::over("iterator");
    let texts = texts(100);
    for of_callback in [true, false] {
        let options = EncodeOptions::default().tokens_per_batch(1).progress(move |done| {
            if of_callback && done.texts > 20 {
                panic_any("stop");
            }
        });
        let texts = texts.iter().enumerate().map(|(i, text)| {
            if !of_callback && i == 20 {
                panic_any("stop");
            }
            text
        });
        let mut items = ENCODER.encode_iter(texts, &options).unwrap();
        let mut given = 0;
        let outcome = catch_unwind(AssertUnwindSafe(|| items.by_ref().for_each(|_| given += 1)));
        assert_eq!(outcome.unwrap_err().downcast_ref::<&str>(), Some(&"stop"));
        assert!((10..=20).contains(&given), "{given}");
        assert!(items.next().is_none());
        assert_eq!(items.size_hint(), (0, Some(0)));
    }
}

#[test]
fn a_callback_that_cancels() {
    let _watchdog = Watchdog::over("cancels");
    for threads in [1, 2, 4, 8] {
        let own = pool(threads);
        for way in [Way::Many, Way::Small, Way::Tokens, Way::Chunks, Way::Iter] {
            let (token, calls) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
            let (cancel, count) = (token.clone(), Arc::clone(&calls));
            let options = EncodeOptions::default().tokens_per_batch(600).cancellation(&token);
            let options = options.progress(move |_| {
                join();
                count.fetch_add(1, Ordering::Relaxed);
                cancel.cancel();
            });
            // Other threads may have begun all batches that were left before the first call: then
            // they count.
            let most = match own.install(|| way.run(&options)) {
                Ok(_) => 2,
                Err(error) => {
                    assert!(matches!(error, Error::Cancelled), "{error}");
                    1
                }
            };
            let calls = calls.load(Ordering::Relaxed);
            assert!((1..=most).contains(&calls), "{way:?}, {threads} threads: {calls}");
            assert!(threads > 1 || most == 1, "{way:?}, {threads} threads");
        }
    }
}

/// It runs on the thread that calls, whatever the pool.
#[test]
fn a_callback_is_called_on_the_calling_thread() {
    let _watchdog = Watchdog::over("calling thread");
    let caller = std::thread::current().id();
    let options = EncodeOptions::default().progress(move |_| {
        sum();
        assert_eq!(std::thread::current().id(), caller);
    });
    for way in Way::ALL {
        way.run(&options).unwrap();
    }
}

/// `AsRef` and the iterator of the texts are the caller's code too: they run on the calling thread.
#[test]
fn texts_that_use_rayon() {
    struct Busy(String, ThreadId);
    impl AsRef<str> for Busy {
        fn as_ref(&self) -> &str {
            assert_eq!(std::thread::current().id(), self.1);
            sum();
            assert_eq!(ENCODER.encode_one("the man").unwrap().len(), 32);
            &self.0
        }
    }
    let _watchdog = Watchdog::over("texts");
    let want = ENCODER.encode(&texts(60)).unwrap();
    for threads in [1, 2, 4, 8] {
        let options = EncodeOptions::default().tokens_per_batch(300);
        pool(threads).install(|| {
            let caller = std::thread::current().id();
            let busy: Vec<Busy> = texts(60).into_iter().map(|text| Busy(text, caller)).collect();
            assert_eq!(ENCODER.encode_with(&busy, &options).unwrap().embeddings, want);
            let tokens = ENCODER.encode_tokens(&busy, &options).unwrap();
            assert_eq!(tokens.len(), busy.len());
            let texts = busy.into_iter().inspect(|_| sum());
            let all = ENCODER.encode_iter(texts, &options).unwrap();
            for (text, want) in all.zip(want.rows()) {
                assert_eq!(text.unwrap().embedding, want);
            }
        });
    }
}
