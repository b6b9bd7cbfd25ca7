//! What the watchers have not been told yet, and when it is time to.
//!
//! News are told a few times a second, many in a message; without a watcher none are collected. What changes all
//! the time, as loads do, is told once a second and only when it differs from what was told last. Knows no counts
//! and keeps no jobs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::{NodeId, RequestId, Time};
use crate::message::FromScheduler;
use crate::news::{NEWS_MAX, News, NodePicture};
use crate::scheduler::state::PeerId;

/// Watchers, at most; the next is refused.
pub const WATCHERS_MAX: usize = 32;
/// News wait this long for more, so that a message carries many.
const NEWS_EVERY: Duration = Duration::from_millis(50);
/// A watcher hears something at least this often, if only that there are no news.
pub const HEARTBEAT: Duration = Duration::from_millis(1000);
/// Between two words on nodes whose load has changed.
const LOADS_EVERY: Duration = Duration::from_millis(1000);

/// The watchers and what is to be told to all of them.
#[derive(Debug, Default)]
pub(super) struct Bulletin {
    watchers: BTreeSet<PeerId>,
    untold: Vec<News>,
    /// Requests since the last message: most are granted at once, and then nobody need know that
    /// they waited.
    fresh: Vec<(NodeId, RequestId)>,
    came: BTreeSet<NodeId>,
    changed: BTreeSet<NodeId>,
    told: BTreeMap<NodeId, NodePicture>,
    told_at: Time,
    loads_at: Time,
}

impl Bulletin {
    /// Somebody watches from now on, or again; false when there are too many already.
    pub(super) fn watch(&mut self, peer: PeerId, now: Time) -> bool {
        if !self.watchers.contains(&peer) && self.watchers.len() >= WATCHERS_MAX {
            return false;
        }
        if !self.is_watched() {
            self.told_at = now;
            self.loads_at = now;
        }
        self.watchers.insert(peer);
        true
    }

    /// A watcher went; with the last one goes all that is untold. Whether it was the last.
    pub(super) fn unwatch(&mut self, peer: PeerId) -> bool {
        let was_last = self.watchers.remove(&peer) && !self.is_watched();
        if was_last {
            *self = Self::default();
        }
        was_last
    }

    /// Whether this peer watches.
    pub(super) fn is_watcher(&self, peer: PeerId) -> bool {
        self.watchers.contains(&peer)
    }

    /// Whether anybody does.
    pub(super) fn is_watched(&self) -> bool {
        !self.watchers.is_empty()
    }

    /// Something happened.
    pub(super) fn tell(&mut self, news: News) {
        if self.is_watched() {
            self.untold.push(news);
        }
    }

    /// A request came. It is told if it still waits then.
    pub(super) fn queued(&mut self, submitter: NodeId, request: RequestId) {
        if self.is_watched() {
            self.fresh.push((submitter, request));
        }
    }

    /// A node is to be shown soon.
    pub(super) fn came(&mut self, node: NodeId) {
        if self.is_watched() {
            self.came.insert(node);
        }
    }

    /// A node is to be shown with the others whose load has changed.
    pub(super) fn changed(&mut self, node: NodeId) {
        if self.is_watched() {
            self.changed.insert(node);
        }
    }

    /// A node is no more.
    pub(super) fn left(&mut self, node: NodeId) {
        self.came.remove(&node);
        self.changed.remove(&node);
        self.told.remove(&node);
        self.tell(News::Left { node });
    }

    /// These nodes were shown in a snapshot.
    pub(super) fn told(&mut self, nodes: &[NodePicture]) {
        let nodes = nodes.iter().map(|node| (node.node, node.clone()));
        self.told.extend(nodes);
    }

    /// When [`Self::flush`] is due, if anybody watches.
    pub(super) fn next_wake(&self) -> Option<Time> {
        if !self.is_watched() {
            return None;
        }
        let mut due = self.told_at.after(HEARTBEAT);
        if !(self.untold.is_empty() && self.fresh.is_empty() && self.came.is_empty()) {
            due = due.min(self.told_at.after(NEWS_EVERY));
        }
        if !self.changed.is_empty() {
            due = due.min(self.loads_at.after(LOADS_EVERY));
        }
        Some(due)
    }

    /// Whether there is enough to tell, or it is time for it.
    pub(super) fn is_due(&self, now: Time) -> bool {
        self.untold.len() + self.fresh.len() >= NEWS_MAX / 2
            || self.next_wake().is_some_and(|due| due <= now)
    }

    /// What is to be told to every watcher now; `picture` shows a node as it is, and `waits` what is to be told of a
    /// request that still waits.
    pub(super) fn flush(
        &mut self,
        picture: impl Fn(NodeId) -> Option<NodePicture>,
        waits: impl FnMut((NodeId, RequestId)) -> Option<News>,
        now: Time,
    ) -> Vec<(PeerId, FromScheduler)> {
        if !self.is_watched() {
            return Vec::new();
        }
        self.told_at = now;
        let mut nodes = std::mem::take(&mut self.came);
        if now.since(self.loads_at) >= LOADS_EVERY {
            self.loads_at = now;
            nodes.append(&mut self.changed);
        }
        // Nodes go first: jobs name them.
        let mut news = Vec::new();
        for picture in nodes.into_iter().filter_map(picture) {
            if self.told.get(&picture.node) != Some(&picture) {
                self.told.insert(picture.node, picture.clone());
                news.push(News::Node(picture));
            }
        }
        news.append(&mut self.untold);
        news.extend(
            std::mem::take(&mut self.fresh)
                .into_iter()
                .filter_map(waits),
        );
        let messages = match news.is_empty() {
            true => vec![Vec::new()],
            false => news.chunks(NEWS_MAX).map(<[News]>::to_vec).collect(),
        };
        let tell = |&watcher: &PeerId| {
            let messages = messages.iter();
            messages.map(move |news| {
                let (news, skipped) = (news.clone(), 0);
                (watcher, FromScheduler::News { skipped, news })
            })
        };
        self.watchers.iter().flat_map(tell).collect()
    }

    /// Whether nothing is untold.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.untold.is_empty() && self.fresh.is_empty()
    }
}
