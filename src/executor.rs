//! Runs all tasks of a process on the one thread that also waits for its sockets.
//!
//! A daemon's work per message is short; what is long (files, hashing, compression of large data)
//! goes to other [`crate::threads`]. With smol's global executor each event wakes one thread to
//! notice it and another to act on it, and these switches were more than half of what a small job
//! cost the daemons.

use std::time::Duration;

use smol::future::{self, FutureExt};
use smol::{Executor, Task};

use crate::reactor::{self, Timer};

static EXECUTOR: Executor<'static> = Executor::new();

/// So many steps of tasks are done before sockets and timers are looked at again. The library's own
/// loop does 200: a worker that takes in a compiler, a quarter of a MiB a step, would be silent for
/// longer than a living one may.
const STEPS: usize = 8;

/// Runs `main` to its end, and every spawned task meanwhile.
pub fn block_on<T>(main: impl Future<Output = T>) -> T {
    let tasks = async {
        loop {
            for _ in 0..STEPS {
                EXECUTOR.tick().await;
            }
            future::yield_now().await;
        }
    };
    reactor::block_on(main.or(tasks))
}

/// Starts a task, which advances as long as some thread is in [`block_on`].
pub fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> Task<T> {
    EXECUTOR.spawn(task)
}

/// Does a step after each such time, until one says that there will be nothing more to do.
pub fn repeat(every: Duration, mut step: impl FnMut() -> bool + Send + 'static) {
    let rounds = async move {
        loop {
            Timer::after(every).await;
            if !step() {
                return;
            }
        }
    };
    spawn(rounds).detach();
}

/// Completes when `patience` is over: for peers that fall silent, where most waits end long before.
pub fn late(patience: Duration) -> Timer {
    Timer::after(patience)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread::sleep;

    use super::*;

    #[test]
    fn a_task_that_always_has_something_to_do_does_not_stop_the_clock() {
        block_on(async {
            let steps = Arc::new(AtomicUsize::new(0));
            let counter = steps.clone();
            let busy = spawn(async move {
                loop {
                    sleep(Duration::from_millis(5));
                    counter.fetch_add(1, Ordering::Relaxed);
                    future::yield_now().await;
                }
            });
            late(Duration::from_millis(10)).await;
            drop(busy);
            let steps = steps.load(Ordering::Relaxed);
            assert!(steps <= 5 * STEPS, "{steps}");
        });
    }

    #[test]
    fn a_step_is_repeated_until_it_says_that_it_is_the_last() {
        block_on(async {
            let (sender, steps) = smol::channel::unbounded();
            let mut left = 3;
            repeat(Duration::from_millis(1), move || {
                left -= 1;
                sender.try_send(left).unwrap();
                left > 0
            });
            let mut seen = Vec::new();
            // The channel is closed when the task is gone.
            while let Ok(left) = steps.recv().await {
                seen.push(left);
            }
            assert_eq!(seen, [2, 1, 0]);
        });
    }

    #[test]
    fn who_is_late_is_told_and_who_is_not_is_not() {
        block_on(async {
            let soon = async {
                late(Duration::from_millis(20)).await;
                "late"
            };
            assert_eq!(soon.or(future::pending()).await, "late");
            // Many at once, of whom one is dropped.
            for _ in 0..3 {
                drop(late(Duration::from_millis(10)));
                let waits = (0..20).map(|number| spawn(late(Duration::from_millis(number))));
                for wait in waits.collect::<Vec<_>>() {
                    wait.await;
                }
            }
            let in_time = late(Duration::from_secs(3600)).or(async {});
            in_time.await;
        });
    }
}
