//! Threads for work that blocks: files, hashing, compression of much, asking a compiler.
//!
//! As `smol::unblock`, with two differences that an idle daemon is measured by: a thread without work sleeps and is
//! not woken to look for some, and one that has had none for a while ends. (The threads of `blocking` 1.7 wake twice
//! a second each and stay for good, as many as there ever were at once.)
//!
//! Bounded in threads; the queue is as long as the callers make it, who each wait for their own work.

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// Threads at most. Work that holds its thread for long (a file system that hangs, a compiler that is asked) must not
/// hold up all the rest.
const THREADS_MAX: usize = 64;

/// A thread that has had nothing to do for so long ends.
const IDLE_TIME_MAX: Duration = Duration::from_secs(5);

/// Does `work` on another thread, from now on. When the future is dropped before the work has begun, it is not done.
///
/// # Panics
/// When awaited, if `work` has panicked, with what it panicked with.
pub fn unblock<T, W>(work: W) -> impl Future<Output = T> + Send + 'static
where
    T: Send + 'static,
    W: FnOnce() -> T + Send + 'static,
{
    POOL.run(work)
}

/// Does `work` on another thread, and nobody waits for it.
pub fn detached(work: impl FnOnce() + Send + 'static) {
    // If it panics, that is said on standard error, and the thread goes on.
    POOL.push(Box::new(|| {
        drop(panic::catch_unwind(AssertUnwindSafe(work)))
    }));
}

static POOL: Pool = Pool::new(THREADS_MAX, IDLE_TIME_MAX);

/// Something to do that does not panic.
type Work = Box<dyn FnOnce() + Send>;

struct Pool {
    state: Mutex<State>,
    /// Told for each piece of work that comes while a thread is idle.
    came: Condvar,
    threads_max: usize,
    idle_time_max: Duration,
}

struct State {
    queue: VecDeque<Work>,
    threads: usize,
    /// Those of them that sleep, or have been told to wake and have not yet.
    idle: usize,
}

impl Pool {
    const fn new(threads_max: usize, idle_time_max: Duration) -> Self {
        let state = State {
            queue: VecDeque::new(),
            threads: 0,
            idle: 0,
        };
        Self {
            state: Mutex::new(state),
            came: Condvar::new(),
            threads_max,
            idle_time_max,
        }
    }

    fn run<T, W>(&'static self, work: W) -> impl Future<Output = T> + Send + 'static
    where
        T: Send + 'static,
        W: FnOnce() -> T + Send + 'static,
    {
        let (tell, told) = smol::channel::bounded(1);
        let work = move || {
            if !tell.is_closed() {
                // Nothing of what it leaves broken is seen again but by whoever awaits it, and he panics.
                let outcome = panic::catch_unwind(AssertUnwindSafe(work));
                let _ = tell.try_send(outcome);
            }
        };
        self.push(Box::new(work));
        async move {
            let outcome = told.recv().await.expect("all work tells what came of it");
            outcome.unwrap_or_else(|payload| panic::resume_unwind(payload))
        }
    }

    fn push(&'static self, work: Work) {
        let mut state = self.lock();
        state.queue.push_back(work);
        if state.idle > 0 {
            self.came.notify_one();
        } else if !self.grow(&mut state) && state.threads == 0 {
            // There can be no thread at all, so it is done here: late beats never.
            let work = state.queue.pop_back();
            drop(state);
            work.into_iter().for_each(|work| work());
        }
    }

    /// Starts a thread, unless there are enough, or the system has none left.
    fn grow(&'static self, state: &mut State) -> bool {
        if state.threads >= self.threads_max {
            return false;
        }
        let thread = thread::Builder::new().name("unblock".into());
        let is_there = thread.spawn(|| self.serve()).is_ok();
        state.threads += usize::from(is_there);
        is_there
    }

    fn serve(&'static self) {
        let mut state = self.lock();
        loop {
            while let Some(work) = state.queue.pop_front() {
                // One that waits may wait for long: who knows what this is.
                if !state.queue.is_empty() && state.idle == 0 {
                    self.grow(&mut state);
                }
                drop(state);
                work();
                state = self.lock();
            }
            state.idle += 1;
            let slept = self.came.wait_timeout(state, self.idle_time_max);
            let (woken, timeout) = slept.expect(UNPOISONED);
            state = woken;
            state.idle -= 1;
            if timeout.timed_out() && state.queue.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(UNPOISONED)
    }
}

/// Work that panics does so outside of the lock.
const UNPOISONED: &str = "no holder of this lock panics";

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::executor::block_on;

    fn pool(threads_max: usize, idle_time_max: Duration) -> &'static Pool {
        Box::leak(Box::new(Pool::new(threads_max, idle_time_max)))
    }

    #[test]
    fn all_work_is_done_by_so_many_threads_at_most() {
        let pool = pool(3, Duration::from_secs(60));
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let works: Vec<_> = (0..100)
            .map(|number| {
                let (running, most) = (running.clone(), most.clone());
                pool.run(move || {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                    number
                })
            })
            .collect();
        block_on(async {
            for (number, work) in works.into_iter().enumerate() {
                assert_eq!(work.await, number);
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 3);
        assert!(pool.lock().threads <= 3);
    }

    #[test]
    fn work_that_waits_for_other_work_holds_up_none() {
        let pool = pool(3, Duration::from_secs(60));
        let (go, come) = std::sync::mpsc::channel();
        let waits = pool.run(move || come.recv().unwrap());
        let goes = pool.run(move || go.send(7).unwrap());
        block_on(async {
            goes.await;
            assert_eq!(waits.await, 7);
        });
    }

    #[test]
    fn threads_without_work_end_and_others_come_for_more() {
        let pool = pool(4, Duration::from_millis(1));
        for round in 0..3 {
            assert_eq!(block_on(pool.run(move || round)), round);
            // It ends by itself, sooner or later.
            while pool.lock().threads > 0 {
                thread::yield_now();
            }
        }
    }

    #[test]
    fn who_awaits_work_that_panics_panics_and_the_thread_goes_on() {
        let pool = pool(1, Duration::from_secs(60));
        let work = pool.run(|| panic!("as is meant"));
        let caught = panic::catch_unwind(AssertUnwindSafe(|| block_on(work)));
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"as is meant"));
        assert_eq!(block_on(pool.run(|| 1)), 1);
    }

    #[test]
    fn work_that_nobody_waits_for_any_more_is_not_begun() {
        let pool = pool(1, Duration::from_secs(60));
        let (go, come) = std::sync::mpsc::channel();
        let first = pool.run(move || come.recv().unwrap());
        let done = Arc::new(AtomicUsize::new(0));
        let counter = done.clone();
        drop(pool.run(move || counter.fetch_add(1, Ordering::SeqCst)));
        go.send(()).unwrap();
        block_on(async {
            first.await;
            pool.run(|| ()).await;
        });
        assert_eq!(done.load(Ordering::SeqCst), 0);
    }
}
