//! What waits to be sent to one peer, and how much of it may.
//!
//! The dispatcher never waits for a peer, so a peer that reads too slowly has to be noticed here: news are left
//! out for it and counted, and for anything else that it does not fetch in time it is let go. Knows no socket;
//! [`super::line`] sends what comes out at the other end.

use smol::channel;

use crate::message::FromScheduler;

/// Messages that wait, at most. Above the requests that one node may have waiting
/// ([`super::queue::WAITING_MAX`]), since all may be denied at once. Counted here: a channel of that size
/// takes its memory, more than a MiB, before anything is sent.
const MESSAGES_MAX: usize = 8192;
/// The same while a status is to be added, which is large.
const MESSAGES_MAX_FOR_STATUS: usize = 2;
/// Messages that wait when news or a snapshot are to be added, at most.
const MESSAGES_MAX_FOR_NEWS: usize = 32;
/// A watcher for whom so many messages in a row were left out has stopped reading. They are not
/// fewer than one a second.
const NEWS_LEFT_OUT_MAX: u32 = 300;

/// The dispatcher's end.
#[derive(Debug)]
pub(super) struct Outbox {
    messages: channel::Sender<FromScheduler>,
    left_out: LeftOut,
}

/// What was left out since news were last put in.
#[derive(Clone, Copy, Debug, Default)]
struct LeftOut {
    messages: u32,
    news: u64,
}

impl Outbox {
    /// An empty one, and its other end.
    pub(super) fn new() -> (Self, channel::Receiver<FromScheduler>) {
        let (messages, outgoing) = channel::unbounded();
        let left_out = LeftOut::default();
        (Self { messages, left_out }, outgoing)
    }

    /// Puts a message in, or leaves it out. Errors: why the peer has to go.
    pub(super) fn put(&mut self, mut message: FromScheduler) -> Result<(), &'static str> {
        let waiting = self.messages.len();
        match &mut message {
            FromScheduler::News { news, .. } if waiting >= MESSAGES_MAX_FOR_NEWS => {
                self.left_out.messages += 1;
                self.left_out.news += news.len() as u64;
                return match self.left_out.messages > NEWS_LEFT_OUT_MAX {
                    true => Err("does not read its news"),
                    false => Ok(()),
                };
            }
            FromScheduler::News { skipped, .. } => {
                *skipped = std::mem::take(&mut self.left_out).news;
            }
            FromScheduler::Status(_) if waiting >= MESSAGES_MAX_FOR_STATUS => {
                return Err("asks faster than it reads");
            }
            FromScheduler::Snapshot(_) if waiting >= MESSAGES_MAX_FOR_NEWS => {
                return Err("asks faster than it reads");
            }
            _ if waiting >= MESSAGES_MAX => return Err("reads too slowly"),
            _ => {}
        }
        // If it is closed, the end of its writer is on its way as an input.
        let _ = self.messages.try_send(message);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;
    use crate::message::Status;
    use crate::news::{News, Snapshot};

    fn news(number: u32) -> FromScheduler {
        let left = |number| News::Left {
            node: NodeId(number),
        };
        FromScheduler::News {
            skipped: 0,
            news: vec![left(number), left(number)],
        }
    }

    #[test]
    fn a_watcher_who_reads_again_is_told_how_many_news_he_missed() {
        let (mut outbox, outgoing) = Outbox::new();
        for number in 0..MESSAGES_MAX_FOR_NEWS as u32 + 3 {
            assert_eq!(outbox.put(news(number)), Ok(()));
        }
        assert_eq!(outgoing.len(), MESSAGES_MAX_FOR_NEWS);
        let skips = |outgoing: &channel::Receiver<FromScheduler>| -> Vec<u64> {
            std::iter::from_fn(|| outgoing.try_recv().ok())
                .map(|message| match message {
                    FromScheduler::News { skipped, .. } => skipped,
                    other => panic!("{other:?}"),
                })
                .collect()
        };
        assert_eq!(skips(&outgoing), [0; MESSAGES_MAX_FOR_NEWS]);
        for _ in 0..2 {
            assert_eq!(outbox.put(news(99)), Ok(()));
        }
        assert_eq!(skips(&outgoing), [6, 0], "three messages of two, told once");
    }

    #[test]
    fn who_does_not_read_is_let_go_for_each_kind_of_message_at_its_own_bound() {
        let alive = || FromScheduler::Alive;
        let status = || FromScheduler::Status(Status::default());
        let snapshot = || FromScheduler::Snapshot(Snapshot::default());
        type Case<'a> = (&'a dyn Fn() -> FromScheduler, usize, usize, &'a str);
        let cases: [Case<'_>; 4] = [
            (&alive, MESSAGES_MAX, MESSAGES_MAX, "reads too slowly"),
            (
                &status,
                MESSAGES_MAX_FOR_STATUS,
                MESSAGES_MAX_FOR_STATUS,
                "asks faster than it reads",
            ),
            (
                &snapshot,
                MESSAGES_MAX_FOR_NEWS,
                MESSAGES_MAX_FOR_NEWS,
                "asks faster than it reads",
            ),
            (
                &|| news(1),
                MESSAGES_MAX_FOR_NEWS + NEWS_LEFT_OUT_MAX as usize,
                MESSAGES_MAX_FOR_NEWS,
                "does not read its news",
            ),
        ];
        for (message, taken, waiting, why) in cases {
            let (mut outbox, outgoing) = Outbox::new();
            for _ in 0..taken {
                assert_eq!(outbox.put(message()), Ok(()), "{why}");
            }
            assert_eq!(outbox.put(message()), Err(why));
            assert_eq!(outgoing.len(), waiting, "{why}");
        }
    }
}
