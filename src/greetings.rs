//! Handshakes that are under way: whoever has not shown the key yet is here, and nowhere else.
//!
//! Strangers can open as many connections as they like. So many of them have room, each for a short time, and one
//! more pushes the oldest out: an honest handshake takes milliseconds, so it is done before it is the oldest.

use std::collections::BTreeMap;

use smol::Task;

use crate::executor;

/// Handshakes at a time.
pub const GREETINGS_MAX: usize = 1024;

/// The handshakes of one listener. Those that are not done end when this is dropped.
#[derive(Debug, Default)]
pub struct Greetings {
    /// By age.
    tasks: BTreeMap<u64, Task<()>>,
    next: u64,
}

impl Greetings {
    /// Begins one; it bounds its own time.
    pub fn begin(&mut self, greeting: impl Future<Output = ()> + Send + 'static) {
        if self.tasks.len() >= GREETINGS_MAX {
            self.forget_finished();
        }
        if self.tasks.len() >= GREETINGS_MAX {
            self.tasks.pop_first();
        }
        self.tasks.insert(self.next, executor::spawn(greeting));
        self.next += 1;
    }

    /// Ends the oldest, for whatever it holds: a descriptor.
    pub fn end_oldest(&mut self) {
        self.forget_finished();
        self.tasks.pop_first();
    }

    fn forget_finished(&mut self) {
        self.tasks.retain(|_, greeting| !greeting.is_finished());
    }
}

#[cfg(test)]
mod tests {
    use smol::channel;
    use smol::future;

    use super::*;

    #[test]
    fn those_that_take_too_long_make_room_and_nobody_is_turned_away() {
        executor::block_on(async {
            let mut greetings = Greetings::default();
            let (tell, told) = channel::unbounded();
            let stranger = |number: usize| {
                let held = tell.clone();
                async move {
                    held.send(number).await.unwrap();
                    future::pending::<()>().await;
                }
            };
            for number in 0..GREETINGS_MAX {
                greetings.begin(stranger(number));
            }
            for _ in 0..GREETINGS_MAX {
                told.recv().await.unwrap();
            }
            let before = tell.sender_count();
            let honest = tell.clone();
            greetings.begin(async move { honest.send(usize::MAX).await.unwrap() });
            assert_eq!(told.recv().await, Ok(usize::MAX));
            while tell.sender_count() >= before {
                future::yield_now().await;
            }
            // The honest one has ended, so there is room, and no other has to go.
            greetings.begin(stranger(0));
            assert_eq!(told.recv().await, Ok(0));
            assert_eq!(tell.sender_count(), before);
        });
    }
}
