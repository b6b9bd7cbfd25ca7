//! Runs all tasks of a process on the one thread that also waits for its sockets.
//!
//! A daemon's work per message is short; what is long (files, hashing, compression of large data)
//! goes to `smol::unblock`'s threads. With smol's global executor each event wakes one thread to
//! notice it and another to act on it, and these switches were more than half of what a small job
//! cost the daemons.

use smol::{Executor, Task};

static EXECUTOR: Executor<'static> = Executor::new();

/// Runs `main` to its end, and every spawned task meanwhile.
pub fn block_on<T>(main: impl Future<Output = T>) -> T {
    smol::block_on(EXECUTOR.run(main))
}

/// Starts a task, which advances as long as some thread is in [`block_on`].
pub fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> Task<T> {
    EXECUTOR.spawn(task)
}
