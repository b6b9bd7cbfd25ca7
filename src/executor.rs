//! Runs all tasks of a process on the one thread that also waits for its sockets.
//!
//! A daemon's work per message is short; what is long (files, hashing, compression of large data)
//! goes to `smol::unblock`'s threads. With smol's global executor each event wakes one thread to
//! notice it and another to act on it, and these switches were more than half of what a small job
//! cost the daemons.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use smol::{Executor, Task, Timer};

static EXECUTOR: Executor<'static> = Executor::new();

/// Runs `main` to its end, and every spawned task meanwhile.
pub fn block_on<T>(main: impl Future<Output = T>) -> T {
    smol::block_on(EXECUTOR.run(main))
}

/// Starts a task, which advances as long as some thread is in [`block_on`].
pub fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> Task<T> {
    EXECUTOR.spawn(task)
}

/// How exact [`late`] is. A timer of its own for each wait would cost a system call to set, one to
/// wake whoever waits for sockets, and one to hear of it.
const TICK: Duration = Duration::from_millis(100);

/// Whoever waits for being late, by when that is.
static WAITING: Mutex<Waiting> = Mutex::new(Waiting {
    wakers: BTreeMap::new(),
    next: 0,
    is_ticking: false,
});

struct Waiting {
    wakers: BTreeMap<(Instant, u64), Waker>,
    /// Tells those apart who wait until the same instant.
    next: u64,
    /// Whether the clock runs. It stops when nobody waits.
    is_ticking: bool,
}

fn waiting() -> MutexGuard<'static, Waiting> {
    WAITING.lock().expect("no holder of this lock panics")
}

/// Completes when `patience` is over, up to a tick later: for peers that fall silent, where most
/// waits end long before. It needs a thread in [`block_on`].
pub fn late(patience: Duration) -> Late {
    Late {
        deadline: Instant::now() + patience,
        number: None,
    }
}

/// See [`late`].
#[derive(Debug)]
pub struct Late {
    deadline: Instant,
    number: Option<u64>,
}

impl Future for Late {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.deadline {
            return Poll::Ready(());
        }
        let mut waiting = waiting();
        let number = *self.number.get_or_insert_with(|| {
            waiting.next += 1;
            waiting.next
        });
        match waiting.wakers.entry((self.deadline, number)) {
            Entry::Occupied(mut known) => known.get_mut().clone_from(context.waker()),
            Entry::Vacant(new) => {
                new.insert(context.waker().clone());
            }
        }
        if !std::mem::replace(&mut waiting.is_ticking, true) {
            spawn(tick()).detach();
        }
        Poll::Pending
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            waiting().wakers.remove(&(self.deadline, number));
        }
    }
}

async fn tick() {
    loop {
        Timer::after(TICK).await;
        let now = Instant::now();
        let mut waiting = waiting();
        let later = waiting.wakers.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut waiting.wakers, later);
        waiting.is_ticking = !waiting.wakers.is_empty();
        let is_over = !waiting.is_ticking;
        drop(waiting);
        due.into_values().for_each(Waker::wake);
        if is_over {
            return;
        }
    }
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
            // Many at once, of whom one is dropped, and the clock starts again after it has stopped.
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
