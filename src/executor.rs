//! Runs all tasks of a process on the one thread that also waits for its sockets.
//!
//! A daemon's work per message is short; what is long (files, hashing, compression of large data)
//! goes to `smol::unblock`'s threads. With smol's global executor each event wakes one thread to
//! notice it and another to act on it, and these switches were more than half of what a small job
//! cost the daemons.

use std::time::Duration;

use smol::{Executor, Task};

use crate::reactor::{self, Timer};

static EXECUTOR: Executor<'static> = Executor::new();

/// Runs `main` to its end, and every spawned task meanwhile.
pub fn block_on<T>(main: impl Future<Output = T>) -> T {
    reactor::block_on(EXECUTOR.run(main))
}

/// Starts a task, which advances as long as some thread is in [`block_on`].
pub fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> Task<T> {
    EXECUTOR.spawn(task)
}

/// Completes when `patience` is over: for peers that fall silent, where most waits end long before.
pub fn late(patience: Duration) -> Timer {
    Timer::after(patience)
}

#[cfg(test)]
mod tests {
    use smol::future::FutureExt;

    use super::*;

    #[test]
    fn who_is_late_is_told_and_who_is_not_is_not() {
        block_on(async {
            let soon = async {
                late(Duration::from_millis(20)).await;
                "late"
            };
            assert_eq!(soon.or(smol::future::pending()).await, "late");
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
