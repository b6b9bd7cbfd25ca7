//! Where a daemon's CPU time goes, and how many bytes it moves: sums by phase, kept only when asked.
//!
//! Knows no job and no role: a phase is charged with what the *thread* consumes in it, whatever else
//! the process does meanwhile. Phases nest, and the inner one's time is not the outer one's. Without
//! being asked it costs one load of a flag.

use std::cell::Cell;
use std::fmt::Write;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// What CPU time is spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Finding the files that a compile could open.
    Scan,
    /// Reading, hashing and packing contents.
    Hashing,
    /// Encoding, encrypting, sending, and the way back.
    Wire,
    /// Putting results in place.
    Commit,
    /// Making a job's tree, and making it clean again.
    Tree,
    /// Building a job's sandbox and leaving it.
    Sandbox,
    /// The compiler itself.
    Compile,
    /// Reading and packing what a job wrote.
    Collect,
}

/// All phases with their names, in their order.
const PHASES: [(Phase, &str); 8] = [
    (Phase::Scan, "scan"),
    (Phase::Hashing, "hashing"),
    (Phase::Wire, "wire"),
    (Phase::Commit, "commit"),
    (Phase::Tree, "tree"),
    (Phase::Sandbox, "sandbox"),
    (Phase::Compile, "compile"),
    (Phase::Collect, "collect"),
];

static IS_KEPT: AtomicBool = AtomicBool::new(false);
/// In nanoseconds, by phase.
static SPENT: [AtomicU64; PHASES.len()] = [const { AtomicU64::new(0) }; PHASES.len()];
static BYTES_OUT: AtomicU64 = AtomicU64::new(0);
static BYTES_IN: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// What inner phases have been charged with since the innermost one that is open began.
    static INNER: Cell<u64> = const { Cell::new(0) };
}

/// Keeps account from now on.
pub fn keep() {
    IS_KEPT.store(true, Ordering::Relaxed);
}

/// Whether account is kept.
pub fn is_kept() -> bool {
    IS_KEPT.load(Ordering::Relaxed)
}

/// Does `work` and charges `phase` with the CPU time that this thread spends on it.
pub fn during<T>(phase: Phase, work: impl FnOnce() -> T) -> T {
    if !is_kept() {
        return work();
    }
    let outer = INNER.replace(0);
    let start = thread_nanoseconds();
    let result = work();
    let spent = thread_nanoseconds().saturating_sub(start);
    charge(phase, spent.saturating_sub(INNER.get()));
    INNER.set(outer + spent);
    result
}

/// The same for a future: each of its turns is charged.
pub async fn during_turns<T>(phase: Phase, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    std::future::poll_fn(move |context| -> Poll<T> {
        let work: Pin<_> = work.as_mut();
        during(phase, || work.poll(context))
    })
    .await
}

/// Charges a phase with CPU time that another process spent.
pub fn add(phase: Phase, spent: Duration) {
    if is_kept() {
        charge(phase, spent.as_nanos() as u64);
    }
}

/// Counts bytes that left.
pub fn sent(bytes: usize) {
    if is_kept() {
        BYTES_OUT.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Counts bytes that came.
pub fn received(bytes: usize) {
    if is_kept() {
        BYTES_IN.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Everything so far: microseconds by phase and bytes, as `name=number` with spaces between; none
/// when no account is kept.
pub fn statement() -> Option<String> {
    if !is_kept() {
        return None;
    }
    let mut text = String::new();
    for ((_, name), spent) in PHASES.iter().zip(&SPENT) {
        let _ = write!(text, "{name}={} ", spent.load(Ordering::Relaxed) / 1000);
    }
    let [out, back] = [&BYTES_OUT, &BYTES_IN].map(|bytes| bytes.load(Ordering::Relaxed));
    let _ = write!(text, "out={out} in={back}");
    Some(text)
}

fn charge(phase: Phase, nanoseconds: u64) {
    SPENT[phase as usize].fetch_add(nanoseconds, Ordering::Relaxed);
}

fn thread_nanoseconds() -> u64 {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(0, |time| {
        time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spend(nanoseconds: u64) {
        let start = thread_nanoseconds();
        while thread_nanoseconds() < start + nanoseconds {
            std::hint::spin_loop();
        }
    }

    // One test, since the account is the whole process's.
    #[test]
    fn an_inner_phase_is_not_charged_twice_and_nothing_is_before_one_asks() {
        during(Phase::Scan, || spend(1000));
        sent(5);
        assert_eq!(statement(), None);
        keep();
        during(Phase::Tree, || {
            spend(1_000_000);
            during(Phase::Collect, || spend(20_000_000));
        });
        smol::block_on(during_turns(Phase::Commit, async {
            smol::future::yield_now().await;
            spend(2_000_000);
        }));
        add(Phase::Compile, Duration::from_micros(3));
        let of = |phase: Phase| SPENT[phase as usize].load(Ordering::Relaxed);
        assert!(of(Phase::Collect) >= 20_000_000);
        assert!(of(Phase::Tree) >= 1_000_000 && of(Phase::Tree) < 20_000_000);
        assert!(of(Phase::Commit) >= 2_000_000);
        assert_eq!(of(Phase::Compile), 3000);
        assert!(statement().unwrap().contains("compile=3 collect="));
    }
}
