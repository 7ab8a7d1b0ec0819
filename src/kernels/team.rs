//! [`Team`]: the threads that work on one call together.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// The calling thread and helpers from the caller's rayon pool, for the length of one call.
///
/// A forward pass of a single query is some sixty products of about 100 µs each. Sharing them as so
/// many rayon operations puts the other threads to sleep and wakes them up as often, which takes as
/// long as the work. A helper of a team waits awake for the next piece of work instead.
///
/// # What holds up whom
///
/// - A team never depends on its helpers. Every piece of work is taken by whoever comes first, and
///   the caller takes what nobody else takes. The caller waits for a helper only while that helper
///   finishes a piece that it has begun. It never waits in rayon, so it never runs jobs of other
///   calls.
/// - A helper is a guest on its thread. It leaves after 200 µs without work (`PATIENCE`). After 1
///   ms (`STAY`) it returns to rayon between two pieces of work, even if there is more to do. If
///   the thread was waiting for something that has come, the thread goes on. If the pool has other
///   jobs, those run first. Then the helper comes back. A team therefore holds a thread for `STAY`
///   and one piece of work at most. Helpers of several teams take turns.
/// - The caller summons helpers anew at each piece of work that finds some missing. A team has at
///   most as many helpers, queued or at work, as the pool has other threads.
/// - A helper that starts on the caller's own thread leaves at once. That happens when user code
///   waits in rayon there, between two pieces of work. A helper that starts after the end of the
///   call leaves at once too.
/// - Work that is given to a team does not share itself out again: inside it, [`Team::gather`]
///   gives a team of one. The compiler keeps it from using the team that it was given to, which is
///   not [`Sync`].
#[derive(Debug)]
pub struct Team {
    shared: Option<Arc<Shared>>,
    threads: usize,
    /// Whether a [`Shared::run`] is running: there is one at a time. Not an atomic: a team belongs
    /// to one thread.
    busy: Cell<bool>,
}

impl Team {
    /// The calling thread and no one else.
    #[must_use]
    pub fn alone() -> Self {
        Self { shared: None, threads: 1, busy: Cell::new(false) }
    }

    /// A team of as many threads as the current rayon pool has, or of one within work for another
    /// team. Its helpers come when there is work for them, and leave when it is dropped.
    #[must_use]
    pub fn gather() -> Self {
        let threads = rayon::current_num_threads();
        if threads == 1 || AT_WORK.get() {
            return Self::alone();
        }
        Self { shared: Some(Arc::new(Shared::new(threads))), threads, busy: Cell::new(false) }
    }

    /// How many threads there are at most.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `work` on each item, each on one of the threads; returns when all are done.
    ///
    /// Each thread begins with a run of items of its own, one after another, so that what follows
    /// an item in memory is what it will need next, and then takes what others have left.
    ///
    /// # Panics
    ///
    /// If `work` panics, with the payload of its first panic; the remaining items may be left out.
    pub fn for_each<T: Send>(&self, items: Vec<T>, work: impl Fn(T) + Sync) {
        self.for_each_with(items, work, || ());
    }

    /// As [`for_each`](Self::for_each), and calls `between` on the calling thread after each item
    /// that this thread has worked on. No lock is held then and no piece of work is half done on
    /// this thread: `between` may do anything.
    ///
    /// # Panics
    ///
    /// If `work` or `between` panics, with the payload of the first panic; the remaining items may
    /// be left out.
    pub fn for_each_with<T: Send>(
        &self,
        items: Vec<T>,
        work: impl Fn(T) + Sync,
        mut between: impl FnMut(),
    ) {
        match &self.shared {
            Some(shared) if items.len() > 1 && !self.busy.get() => {
                let _busy = Set::on(&self.busy);
                let items: Vec<_> = items.into_iter().map(|item| Mutex::new(Some(item))).collect();
                let work = |index: usize| {
                    let item = items[index].lock().unwrap_or_else(PoisonError::into_inner).take();
                    if let Some(item) = item {
                        work(item);
                    }
                };
                shared.run(items.len(), &work, between);
            }
            // `between` may want to share something out while it interrupts this team: it does so
            // alone.
            _ => items.into_iter().for_each(|item| {
                work(item);
                between();
            }),
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.over.store(true, Ordering::Relaxed);
        }
    }
}

/// How long a helper waits without work before it leaves. Longer than the serial parts between two
/// products of a long text, and than the operating system needs to bring back a thread that it has
/// put aside.
const PATIENCE: Duration = Duration::from_micros(200);

/// How long a helper stays before it lets its thread look for other work. Going and coming back
/// takes it about 1 µs.
const STAY: Duration = Duration::from_millis(1);

/// Turns of waiting in which the processor only pauses, some tens of µs, before each further one
/// lets others run.
const SPINS: usize = 1 << 10;

thread_local! {
    /// Whether this thread is inside a piece of work of some team.
    static AT_WORK: Cell<bool> = const { Cell::new(false) };
    /// Whether a helper on this thread has stopped to run another job of the pool.
    static LOOKING: Cell<bool> = const { Cell::new(false) };
    /// Whether that job was a helper, or met one, that had work.
    static MET_HELPER: Cell<bool> = const { Cell::new(false) };
}

/// Sets a flag, until it is dropped.
struct Set<'a>(&'a Cell<bool>, bool);

impl<'a> Set<'a> {
    fn on(flag: &'a Cell<bool>) -> Self {
        Self(flag, flag.replace(true))
    }
}

impl Drop for Set<'_> {
    fn drop(&mut self) {
        self.0.set(self.1);
    }
}

/// Work on the item of an index. The lifetime is a lie, kept harmless by [`Shared::run`].
type Work = &'static (dyn Fn(usize) + Sync);

/// What a panic carries.
type Payload = Box<dyn Any + Send>;

/// Two cache lines of its own: processors fetch them in pairs.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Padded<T>(T);

/// What a caller and its helpers see of each other.
struct Shared {
    /// [`OPEN`] while there is work that helpers may join, plus the number of those that have.
    gate: Padded<AtomicUsize>,
    /// The work, and how many items it has; `None` between two runs. Only the caller writes it, and
    /// only while the gate is closed and no helper is inside; helpers read it only while they are
    /// inside.
    work: UnsafeCell<Option<(Work, usize)>>,
    /// Of each member's run how many items are taken.
    taken: Box<[Padded<AtomicUsize>]>,
    /// Helpers that are summoned and have not left.
    helpers: Padded<AtomicUsize>,
    /// Of the first panic in the current run.
    panic: Mutex<Option<Payload>>,
    over: AtomicBool,
    caller: ThreadId,
}

/// The gate's highest bit.
const OPEN: usize = !(usize::MAX >> 1);

// SAFETY: `work` is all that is not `Sync` by itself. The gate orders every access to it: see
// there.
#[allow(unsafe_code, reason = "one field is shared by a protocol of its own: see above")]
unsafe impl Sync for Shared {}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("gate", &self.gate.0).finish_non_exhaustive()
    }
}

/// Why a helper stops helping.
enum Stop {
    /// The call is over, or there was nothing to do for a while.
    Idle,
    /// It has been there for [`STAY`].
    Stayed,
}

/// What a helper has made way for.
#[derive(PartialEq)]
enum Other {
    Helper,
    Job,
}

/// Runs another job of this thread's pool, if there is one.
fn run_another_job() -> Option<Other> {
    let ran = LOOKING.with(|looking| {
        let _looking = Set::on(looking);
        rayon::yield_now() == Some(rayon::Yield::Executed)
    });
    let helper = MET_HELPER.take();
    ran.then_some(if helper { Other::Helper } else { Other::Job })
}

impl Shared {
    fn new(members: usize) -> Self {
        Self {
            gate: Padded::default(),
            work: UnsafeCell::new(None),
            taken: (0..members).map(|_| Padded::default()).collect(),
            helpers: Padded::default(),
            panic: Mutex::new(None),
            over: AtomicBool::new(false),
            caller: std::thread::current().id(),
        }
    }

    /// The caller's side: opens the gate, works, closes it, and waits until the helpers inside are
    /// through.
    #[allow(unsafe_code, reason = "lends a closure to other threads: see the blocks")]
    fn run(
        self: &Arc<Self>,
        items: usize,
        work: &(dyn Fn(usize) + Sync),
        mut between: impl FnMut(),
    ) {
        // SAFETY: what is made up is only the lifetime. No helper has `work` in hand when this
        // function returns, or unwinds: before either it closes the gate and waits for those
        // inside, and a helper reads it only after it was let in.
        let work: Work = unsafe { std::mem::transmute(work) };
        // SAFETY: the gate is closed and nobody inside: so it was made, and so the last run left
        // it. There is one run at a time, by `Team::busy`.
        unsafe { *self.work.get() = Some((work, items)) };
        self.taken.iter().for_each(|taken| taken.0.store(0, Ordering::Relaxed));
        self.gate.0.store(OPEN, Ordering::Release);
        let wanted = items.min(self.taken.len()) - 1;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            self.summon(wanted);
            self.take(0, work, items, || {
                between();
                self.summon(wanted);
                true
            });
        }));
        if let Err(payload) = outcome {
            self.give_up(payload);
        }
        self.gate.0.fetch_and(!OPEN, Ordering::Relaxed);
        self.wait_for_helpers();
        // SAFETY: the gate is closed and nobody inside.
        unsafe { *self.work.get() = None };
        let panic = self.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    /// Waits until no helper is inside. A whole batch can be what the last of them is working on.
    fn wait_for_helpers(&self) {
        /// Turns in which other threads are let run, about 1 ms, before this one sleeps in between.
        const YIELDS: usize = 1 << 11;
        let mut turns = 0;
        while self.gate.0.load(Ordering::Acquire) != 0 {
            match turns {
                0..SPINS => std::hint::spin_loop(),
                SPINS..YIELDS => std::thread::yield_now(),
                _ => std::thread::sleep(Duration::from_micros(50)),
            }
            turns += 1;
        }
    }

    /// Sends for as many helpers as there are fewer than `wanted`.
    fn summon(self: &Arc<Self>, wanted: usize) {
        while self.helpers.0.load(Ordering::Relaxed) < wanted {
            let Some(member) = self.join(wanted) else { return };
            let shared = Arc::clone(self);
            rayon::spawn(move || shared.come(member, false));
        }
    }

    /// Counts one more helper, unless there are `most`; its number as a member of the team.
    fn join(&self, most: usize) -> Option<usize> {
        let more = |helpers| (helpers < most).then_some(helpers + 1);
        let before = self.helpers.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        before.ok().map(|helpers| helpers + 1)
    }

    fn leave(&self) {
        self.helpers.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// What a helper, already counted, does as a job of the pool. If it `stayed` before, another
    /// job has precedence.
    ///
    /// rayon runs this job after it has looked whether what the thread waits for has come. The
    /// other job is the one that rayon would have run in place of this one, and rayon looks again
    /// after it: it holds up the thread no more than it would have without the helper.
    fn come(self: Arc<Self>, member: usize, stayed: bool) {
        let nested = LOOKING.get();
        let mut other = None;
        if stayed && !nested {
            // Not counted meanwhile: the other job may be a long one, or a helper of this same
            // team.
            self.leave();
            other = run_another_job();
            if self.join(self.taken.len() - 1).is_none() {
                return;
            }
        }
        if self.is_useless_here() {
            return self.leave();
        }
        MET_HELPER.set(nested);
        let comes_back = other.is_some() || matches!(self.help(member), Stop::Stayed);
        // A helper that was found by one that was looking neither looks too, or the stack would
        // grow with the number of calls, nor comes back without looking, or it would keep the
        // thread from what lies below it in the queue.
        if comes_back && !nested {
            // It makes way for all other jobs, but takes turns with helpers of other teams.
            let stayed = other != Some(Other::Helper);
            rayon::spawn(move || self.come(member, stayed));
        } else {
            self.leave();
        }
    }

    /// Whether the call is over, or the thread is the caller's, who does the work there.
    fn is_useless_here(&self) -> bool {
        self.over.load(Ordering::Relaxed) || std::thread::current().id() == self.caller
    }

    /// A helper's side, who is number `member` of the team: joins whatever work is open.
    ///
    /// No job of the pool runs inside: only [`come`](Self::come) returns to it.
    #[allow(unsafe_code, reason = "reads what the caller lends: see the block")]
    fn help(&self, member: usize) -> Stop {
        let end = Instant::now() + STAY;
        while let Some(gate) = self.wait_for_work() {
            let enter = self.gate.0.compare_exchange_weak(
                gate,
                gate + 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            );
            if enter.is_err() {
                continue;
            }
            // SAFETY: the gate was open and this helper is now counted, so the caller neither
            // writes nor returns before it is let out below; the exchange has acquired what the
            // caller wrote before it opened the gate.
            let work = unsafe { *self.work.get() };
            let mut stayed = false;
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let (work, items) = work.expect("set before the gate was opened");
                self.take(member, work, items, || {
                    stayed = Instant::now() >= end;
                    !stayed
                });
            }));
            if let Err(payload) = outcome {
                self.give_up(payload);
            }
            if !stayed {
                // All items are taken: nothing is left to do behind this gate, and a second visit
                // would find nothing. Closing it keeps this helper from coming back before the
                // caller does so.
                self.gate.0.fetch_and(!OPEN, Ordering::Relaxed);
            }
            self.gate.0.fetch_sub(1, Ordering::Release);
            if stayed {
                return Stop::Stayed;
            }
        }
        Stop::Idle
    }

    /// The gate when it is open; `None` if the call is over, or this took too long.
    fn wait_for_work(&self) -> Option<usize> {
        let mut start = None;
        for turn in 0.. {
            let gate = self.gate.0.load(Ordering::Relaxed);
            if gate & OPEN != 0 {
                return Some(gate);
            }
            if self.over.load(Ordering::Relaxed) {
                return None;
            }
            if turn < SPINS {
                std::hint::spin_loop();
                continue;
            }
            if start.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                return None;
            }
            std::thread::yield_now();
        }
        None
    }

    /// Works on the items of a member's own run, then on those of the next ones, until `go_on`,
    /// asked after each, says no.
    fn take(&self, member: usize, work: Work, items: usize, mut go_on: impl FnMut() -> bool) {
        let members = self.taken.len();
        for run in (member..members).chain(0..member) {
            let (start, end) = (run * items / members, (run + 1) * items / members);
            loop {
                let index = start + self.taken[run].0.fetch_add(1, Ordering::Relaxed);
                if index >= end {
                    break;
                }
                AT_WORK.with(|at_work| {
                    let _at_work = Set::on(at_work);
                    work(index);
                });
                if !go_on() {
                    return;
                }
            }
        }
    }

    /// Keeps the payload of a panic, if it is the first, and has what nobody has taken left out.
    fn give_up(&self, payload: Payload) {
        let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
        // A second payload is dropped after the lock: its destructor is the caller's code.
        if first.is_none() {
            *first = Some(payload);
        }
        self.taken.iter().for_each(|taken| taken.0.store(usize::MAX / 2, Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
    }

    fn in_pool<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
        pool(threads).install(f)
    }

    /// A team of two whose helpers are summoned where `summon` is called.
    fn team_of_two() -> Team {
        Team { shared: Some(Arc::new(Shared::new(2))), threads: 2, busy: Cell::new(false) }
    }

    /// Whether this happens within ten seconds.
    fn soon(mut happens: impl FnMut() -> bool) -> bool {
        let start = Instant::now();
        while !happens() {
            if start.elapsed() > Duration::from_secs(10) {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }

    /// Two items that each wait for the other one to be begun, then `work` with whether this is a
    /// helper.
    fn side_by_side(team: &Team, work: impl Fn(bool) + Sync) {
        let (caller, begun) = (std::thread::current().id(), AtomicUsize::new(0));
        team.for_each(vec![(), ()], |()| {
            begun.fetch_add(1, Ordering::Relaxed);
            assert!(soon(|| begun.load(Ordering::Relaxed) == 2), "nobody else came");
            work(std::thread::current().id() != caller);
        });
    }

    fn helpers(team: &Team) -> usize {
        team.shared.as_ref().unwrap().helpers.0.load(Ordering::Relaxed)
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
    fn items_that_take_longer_than_a_stay_are_worked_on_once_too() {
        in_pool(3, || {
            let team = Team::gather();
            for _ in 0..20 {
                let mut counts = vec![0_usize; 7];
                team.for_each(counts.iter_mut().collect(), |n| {
                    std::thread::sleep(Duration::from_millis(1)); // as long as a stay
                    *n += 1;
                });
                assert_eq!(counts, [1; 7]);
                assert!(helpers(&team) <= 2);
            }
        });
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

    /// Work without a gap until this happens, or for some ten seconds.
    fn work_until(team: &Team, happens: impl Fn() -> bool + Sync) -> bool {
        team.for_each(vec![(); 200_000], |()| {
            if !happens() {
                std::thread::sleep(Duration::from_micros(50));
            }
        });
        happens()
    }

    /// One thread of two works on a call without end. The other one meets a helper while it waits
    /// for a job that lies below the helper in its queue.
    #[test]
    fn a_thread_that_waits_is_free_while_the_call_goes_on() {
        in_pool(2, || {
            let team = Team::gather();
            let shared = Arc::clone(team.shared.as_ref().unwrap());
            let free = Arc::new(AtomicBool::new(false));
            shared.join(1).unwrap(); // the helper below, which the caller need not summon
            let set = Arc::clone(&free);
            rayon::spawn(move || {
                rayon::scope(|scope| {
                    scope.spawn(|_| ());
                    rayon::spawn(move || shared.come(1, false));
                });
                set.store(true, Ordering::Relaxed);
            });
            assert!(work_until(&team, || free.load(Ordering::Relaxed)));
        });
    }

    /// The same for a job from outside the pool, which rayon takes last.
    #[test]
    fn other_jobs_of_the_pool_run_while_the_call_goes_on() {
        let (pool, helped) = (pool(2), AtomicBool::new(false));
        let ran = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert!(soon(|| helped.load(Ordering::Relaxed)), "nobody helps");
                pool.install(|| ran.store(true, Ordering::Relaxed));
            });
            assert!(pool.install(|| {
                let caller = std::thread::current().id();
                work_until(&Team::gather(), || {
                    helped.fetch_or(std::thread::current().id() != caller, Ordering::Relaxed);
                    ran.load(Ordering::Relaxed)
                })
            }));
        });
    }

    #[test]
    fn helpers_without_work_leave_and_come_again() {
        in_pool(2, || {
            let team = Team::gather();
            for _ in 0..20 {
                side_by_side(&team, |_| ());
                assert!(soon(|| helpers(&team) == 0), "they stay");
            }
        });
    }

    #[test]
    fn helpers_that_come_late_or_to_the_caller_s_thread_touch_nothing() {
        let pool = pool(1);
        let team = team_of_two();
        let shared = Arc::clone(team.shared.as_ref().unwrap());
        drop(team);
        pool.install(|| {
            shared.gate.0.store(OPEN, Ordering::Relaxed); // a helper that went in would close it
            shared.summon(1);
            assert_eq!(rayon::yield_now(), Some(rayon::Yield::Executed));
            assert_eq!(shared.helpers.0.load(Ordering::Relaxed), 0);
            assert_eq!(shared.gate.0.load(Ordering::Relaxed), OPEN);

            let (team, done) = (team_of_two(), AtomicUsize::new(0));
            let mut steps = 0;
            team.for_each_with(
                (0..5).collect(),
                |_: usize| {
                    done.fetch_add(1, Ordering::Relaxed);
                },
                || {
                    steps += 1;
                    while rayon::yield_now() == Some(rayon::Yield::Executed) {}
                    assert_eq!(done.load(Ordering::Relaxed), steps);
                },
            );
            assert_eq!(steps, 5);
        });
    }

    #[test]
    fn work_cannot_gather_a_team_and_what_is_between_can() {
        in_pool(2, || {
            let team = Team::gather();
            side_by_side(&team, |_| assert_eq!(Team::gather().threads(), 1));
            team.for_each_with(vec![1, 2, 3], |_| (), || assert_eq!(Team::gather().threads(), 2));
        });
    }

    /// The payload of the first panic, and a team that works as before: in parallel.
    #[test]
    fn a_panic_reaches_the_caller_as_it_is_and_the_team_works_on() {
        in_pool(2, || {
            let team = Team::gather();
            for in_helper in [false, true] {
                let outcome = catch_unwind(AssertUnwindSafe(|| {
                    side_by_side(&team, |helper| {
                        if helper == in_helper {
                            std::panic::panic_any(("mine", helper));
                        }
                    });
                }));
                let payload = outcome.unwrap_err();
                assert_eq!(payload.downcast_ref(), Some(&("mine", in_helper)));
                assert_eq!(Team::gather().threads(), 2, "not at work any more");
                side_by_side(&team, |_| ());
            }
        });
    }

    #[test]
    fn after_a_panic_what_is_left_is_left_out() {
        in_pool(2, || {
            let (team, done) = (Team::gather(), AtomicUsize::new(0));
            for between in [false, true] {
                done.store(0, Ordering::Relaxed);
                let outcome = catch_unwind(AssertUnwindSafe(|| {
                    let work = |i: usize| {
                        assert!(between || i != 0, "item");
                        done.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(1));
                    };
                    team.for_each_with((0..2000).collect(), work, || assert!(!between, "between"));
                }));
                let payload = outcome.unwrap_err();
                let message = if between { "between" } else { "item" };
                assert_eq!(payload.downcast_ref::<&str>(), Some(&message));
                assert!(done.load(Ordering::Relaxed) < 1000);
            }
            side_by_side(&team, |_| ());
        });
    }
}
