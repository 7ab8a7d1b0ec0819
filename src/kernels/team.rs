//! [`Team`]: the threads that work on one call together.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The calling thread and helpers from the caller's rayon pool, for the length of one call.
///
/// A forward pass of a single query is some sixty products of about 100 µs each. Sharing them as so many rayon operations
/// puts the other threads to sleep and wakes them up as often, which takes as long as the work. A helper of a team waits
/// awake for the next piece of work, from the first product of a call to the last, and then goes back to its pool.
///
/// A team never depends on its helpers: every piece of work is taken by whoever comes first, and the caller takes what
/// nobody else does. Many callers at once, each with its own team, cannot block each other; helpers that arrive when the
/// call is over go away without having touched anything.
#[derive(Debug)]
pub struct Team {
    shared: Option<Arc<Shared>>,
    threads: usize,
}

impl Team {
    /// The calling thread and no one else.
    #[must_use]
    pub fn alone() -> Self {
        Self { shared: None, threads: 1 }
    }

    /// A team of as many threads as the current rayon pool has. Its helpers leave when it is dropped.
    #[must_use]
    pub fn gather() -> Self {
        let threads = rayon::current_num_threads();
        if threads == 1 {
            return Self::alone();
        }
        let shared = Arc::new(Shared::new(threads));
        for member in 1..threads {
            let shared = Arc::clone(&shared);
            rayon::spawn(move || shared.help(member));
        }
        Self { shared: Some(shared), threads }
    }

    /// How many threads there are at most.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `work` on each item, each on one of the threads; returns when all are done.
    ///
    /// Each thread begins with a run of items of its own, one after another, so that what follows an item in memory is what
    /// it will need next, and then takes what others have left.
    ///
    /// # Panics
    ///
    /// If `work` panics; then the remaining items may be left out.
    pub fn for_each<T: Send>(&self, items: Vec<T>, work: impl Fn(T) + Sync) {
        match &self.shared {
            Some(shared) if items.len() > 1 && !shared.busy.swap(true, Ordering::Acquire) => {
                let items: Vec<_> = items.into_iter().map(|item| Mutex::new(Some(item))).collect();
                shared.run(items.len(), &|index| {
                    let item = items[index].lock().unwrap_or_else(PoisonError::into_inner).take();
                    if let Some(item) = item {
                        work(item);
                    }
                });
                shared.busy.store(false, Ordering::Release);
            }
            // Work that itself wants to share work out does it alone, as does a second thread with the same team.
            _ => items.into_iter().for_each(work),
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.over.store(true, Ordering::Release);
        }
    }
}

/// Work on the item of an index. The lifetime is a lie, kept harmless by [`Shared::run`].
type Work = &'static (dyn Fn(usize) + Sync);

/// What a caller and its helpers see of each other.
struct Shared {
    /// [`OPEN`] while there is work that helpers may join, plus the number of those that have.
    gate: AtomicUsize,
    /// The work, and how many items it has. Only the caller writes it, and only while the gate is closed and no helper is
    /// inside; helpers read it only while they are inside.
    work: UnsafeCell<Option<(Work, usize)>>,
    /// Whether [`Shared::run`] is running: it is for one thread at a time.
    busy: AtomicBool,
    /// Of each member's run how many items are taken.
    taken: Box<[AtomicUsize]>,
    panicked: AtomicBool,
    over: AtomicBool,
}

/// The gate's highest bit.
const OPEN: usize = !(usize::MAX >> 1);

/// Turns of waiting in which the processor only pauses, some tens of µs, before each further one lets others run.
const PATIENCE: usize = 1 << 10;

// SAFETY: `work` is all that is not `Sync` by itself. The gate orders every access to it: see there.
#[allow(unsafe_code, reason = "one field is shared by a protocol of its own: see above")]
unsafe impl Sync for Shared {}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("gate", &self.gate).finish_non_exhaustive()
    }
}

impl Shared {
    fn new(members: usize) -> Self {
        Self {
            gate: AtomicUsize::new(0),
            work: UnsafeCell::new(None),
            busy: AtomicBool::new(false),
            taken: (0..members).map(|_| AtomicUsize::new(0)).collect(),
            panicked: AtomicBool::new(false),
            over: AtomicBool::new(false),
        }
    }

    /// The caller's side: opens the gate, works, closes it, and waits until the helpers inside are through.
    #[allow(unsafe_code, reason = "lends a closure to other threads: see the blocks")]
    fn run(&self, items: usize, work: &(dyn Fn(usize) + Sync)) {
        // SAFETY: what is made up is only the lifetime. No helper has `work` in hand when this function returns, or unwinds:
        // before either it closes the gate and waits for those inside, and a helper reads it only after it was let in.
        let work: Work = unsafe { std::mem::transmute(work) };
        // SAFETY: the gate is closed and nobody inside: so it was made, and so the last run left it. There is one run at a
        // time, by `busy`.
        unsafe { *self.work.get() = Some((work, items)) };
        self.taken.iter().for_each(|taken| taken.store(0, Ordering::Relaxed));
        self.gate.store(OPEN, Ordering::Release);
        let outcome = catch_unwind(AssertUnwindSafe(|| self.take(0, work, items)));
        self.gate.fetch_and(!OPEN, Ordering::Relaxed);
        wait_until(|| self.gate.load(Ordering::Acquire) == 0, std::thread::yield_now);
        if let Err(panic) = outcome {
            resume_unwind(panic);
        }
        assert!(!self.panicked.load(Ordering::Relaxed), "a helper thread panicked");
    }

    /// A helper's side, who is number `member` of the team: joins whatever work is open, until the call is over.
    #[allow(unsafe_code, reason = "reads what the caller lends: see the block")]
    fn help(&self, member: usize) {
        loop {
            let mut gate = 0;
            let mut is_called = || {
                gate = self.gate.load(Ordering::Relaxed);
                gate & OPEN != 0 || self.over.load(Ordering::Acquire)
            };
            // Other work of the pool goes on while there is none here.
            wait_until(&mut is_called, || match rayon::yield_now() {
                Some(rayon::Yield::Executed) => {}
                _ => std::thread::yield_now(),
            });
            if gate & OPEN == 0 {
                return;
            }
            let enter = self.gate.compare_exchange_weak(
                gate,
                gate + 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            );
            if enter.is_err() {
                continue;
            }
            // SAFETY: the gate was open and this helper is now counted, so the caller neither writes nor returns before it
            // is let out below; the exchange has acquired what the caller wrote before it opened the gate.
            let work = unsafe { *self.work.get() };
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                work.into_iter().for_each(|(work, items)| self.take(member, work, items));
            }));
            if outcome.is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            // All items are taken: nothing is left to do behind this gate, and a second visit would find nothing. Closing it
            // keeps this helper from coming back before the caller does so.
            self.gate.fetch_and(!OPEN, Ordering::Relaxed);
            self.gate.fetch_sub(1, Ordering::Release);
        }
    }

    /// Works on the items of a member's own run, then on those of the next ones.
    fn take(&self, member: usize, work: Work, items: usize) {
        let members = self.taken.len();
        for run in (member..members).chain(0..member) {
            let (start, end) = (run * items / members, (run + 1) * items / members);
            loop {
                let index = start + self.taken[run].fetch_add(1, Ordering::Relaxed);
                if index >= end {
                    break;
                }
                work(index);
            }
        }
    }
}

fn wait_until(mut done: impl FnMut() -> bool, mut otherwise: impl FnMut()) {
    let mut turns = 0;
    while !done() {
        if turns < PATIENCE {
            turns += 1;
            std::hint::spin_loop();
        } else {
            otherwise();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_pool<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
    }

    #[test]
    fn every_item_is_worked_on_once_in_each_of_many_rounds() {
        for threads in [1, 2, 3, 8] {
            in_pool(threads, || {
                let team = Team::gather();
                for round in 0..2000 {
                    let mut counts = vec![0_usize; round % 7];
                    team.for_each(counts.iter_mut().enumerate().collect(), |(i, n)| *n += i + 1);
                    assert!(counts.iter().enumerate().all(|(i, &n)| n == i + 1), "{counts:?}");
                }
            });
        }
    }

    #[test]
    fn more_callers_than_threads_do_not_wait_for_each_other() {
        let total = AtomicUsize::new(0);
        in_pool(2, || {
            rayon::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|_| {
                        let team = Team::gather();
                        for _ in 0..200 {
                            team.for_each(vec![1, 2, 3], |n| {
                                total.fetch_add(n, Ordering::Relaxed);
                            });
                        }
                    });
                }
            });
        });
        assert_eq!(total.into_inner(), 8 * 200 * 6);
    }

    #[test]
    fn helpers_that_wait_do_other_work_of_the_pool() {
        // Every thread of the pool but one is a helper; the caller waits for work that it has given to the pool.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let shared = Arc::new(Shared::new(2));
        let helper = Arc::clone(&shared);
        pool.spawn(move || helper.help(1));
        assert_eq!(pool.install(|| 7), 7);
        shared.over.store(true, Ordering::Release);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_ends() {
        for item in 0..8 {
            let outcome = catch_unwind(|| {
                in_pool(3, || {
                    Team::gather().for_each((0..8).collect(), |i| assert!(i != item, "item {i}"));
                });
            });
            assert!(outcome.is_err(), "item {item}");
        }
    }
}
