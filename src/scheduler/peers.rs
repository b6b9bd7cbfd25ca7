//! Those who are connected to the master: nodes, lookers, and the audience in the same process.
//!
//! Each has two tasks and an [`Outbox`], and what only the shell knows of it: where it is, its name once it is a
//! node, and how far its clock is from ours. What a peer may say and gets is the core's affair.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use smol::Task;
use smol::channel;
use smol::future::FutureExt;

use crate::clock;
use crate::executor;
use crate::message::{FromScheduler, Status, ToScheduler};
use crate::reactor::Timer;
use crate::scheduler::door::{Arrival, Input};
use crate::scheduler::line::{read, write};
use crate::scheduler::outbox::Outbox;
use crate::scheduler::state::{Event, PeerId};

/// Peers, at most: nodes and lookers.
pub(super) const PEERS_MAX: usize = 4096;
/// How long a peer that is closed may take to read why.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);
/// A peer that is no node may be silent for so long.
const LOOKER_SILENCE: Duration = Duration::from_secs(60);

/// All of them.
#[derive(Debug)]
pub(super) struct Peers {
    all: BTreeMap<PeerId, Peer>,
    so_far: u64,
    /// Where their tasks tell what they hear.
    inputs: channel::Sender<Input>,
}

#[derive(Debug)]
struct Peer {
    from: SocketAddr,
    /// Its name, once it is a node.
    node: Option<String>,
    outbox: Outbox,
    /// By how many milliseconds its clock is ahead of ours, as its last report came.
    skew_ms: Option<i64>,
    writer: Task<()>,
    /// Reads as long as it is held.
    _reader: Task<()>,
}

impl Peers {
    /// Nobody yet.
    pub(super) fn new(inputs: channel::Sender<Input>) -> Self {
        Self {
            all: BTreeMap::new(),
            so_far: 0,
            inputs,
        }
    }

    /// Takes in whoever came through the door; what the core is to be told of it. Nothing when there are
    /// [`PEERS_MAX`] already: then the connection ends.
    pub(super) fn admit(&mut self, arrival: Arrival) -> Option<Event> {
        let Arrival {
            from,
            here,
            first,
            sender,
            receiver,
        } = arrival;
        if self.all.len() >= PEERS_MAX {
            log::warn!("{from} is refused: there are {PEERS_MAX} connections already");
            return None;
        }
        let is_node = matches!(first, ToScheduler::Login(_));
        // A watcher has nothing to say, and is noticed to be gone when it reads no news.
        let is_watcher = first == ToScheduler::Watch;
        let patience = (!is_node && !is_watcher).then_some(LOOKER_SILENCE);
        let inputs = self.inputs.clone();
        let (outbox, outgoing) = Outbox::new();
        let id = self.add(from, outbox, |id| {
            let reader = read(id, receiver, patience, inputs.clone());
            let writer = write(id, sender, outgoing, inputs);
            (executor::spawn(reader), executor::spawn(writer))
        });
        Some(match first {
            ToScheduler::Login(login) => Event::Joined {
                peer: id,
                login,
                from: from.ip().to_canonical(),
                here,
            },
            message => Event::Message(id, message),
        })
    }

    /// Takes in the audience, and says where it hears what it is told.
    pub(super) fn admit_audience(&mut self) -> (PeerId, channel::Receiver<FromScheduler>) {
        let from = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        let (outbox, outgoing) = Outbox::new();
        let id = self.add(from, outbox, |_| {
            (executor::spawn(async {}), executor::spawn(async {}))
        });
        (id, outgoing)
    }

    fn add(
        &mut self,
        from: SocketAddr,
        outbox: Outbox,
        tasks: impl FnOnce(PeerId) -> (Task<()>, Task<()>),
    ) -> PeerId {
        self.so_far += 1;
        let id = PeerId(self.so_far);
        let (reader, writer) = tasks(id);
        let peer = Peer {
            from,
            node: None,
            outbox,
            skew_ms: None,
            writer,
            _reader: reader,
        };
        self.all.insert(id, peer);
        id
    }

    /// Puts a message in a peer's outbox; one that is gone gets none. Errors: why it has to go.
    pub(super) fn send(&mut self, id: PeerId, message: FromScheduler) -> Result<(), &'static str> {
        let Some(peer) = self.all.get_mut(&id) else {
            // It was dropped by an action before this one.
            return Ok(());
        };
        if let FromScheduler::Welcome { name, .. } = &message {
            log::info!("node {name} joined from {}", peer.from);
            peer.node = Some(name.clone());
        }
        peer.outbox.put(message)
    }

    /// Forgets a peer; what is in its outbox still goes out, if it is quick.
    pub(super) fn part(&mut self, id: PeerId, why: &str) {
        let Some(peer) = self.all.remove(&id) else {
            return;
        };
        match &peer.node {
            Some(name) => log::info!("node {name} left: {why}"),
            None => log::debug!("{} left: {why}", peer.from),
        }
        drop(peer.outbox);
        let farewell = peer.writer.or(async {
            Timer::after(FAREWELL).await;
        });
        executor::spawn(farewell).detach();
    }

    /// The same for a peer with which the core will have nothing to do.
    pub(super) fn refuse(&mut self, id: PeerId, why: &str) {
        if let Some(Peer {
            node: None, from, ..
        }) = self.all.get(&id)
        {
            log::warn!("{from} is refused: {why}");
        }
        self.part(id, why);
    }

    /// Whether it is still there.
    pub(super) fn has(&self, id: PeerId) -> bool {
        self.all.contains_key(&id)
    }

    /// Everybody.
    pub(super) fn ids(&self) -> Vec<PeerId> {
        self.all.keys().copied().collect()
    }

    /// The nodes with names that match.
    pub(super) fn nodes(&self, matches: impl Fn(&str) -> bool) -> Vec<PeerId> {
        let meant = |peer: &Peer| peer.node.as_deref().is_some_and(&matches);
        let nodes = self.all.iter().filter(|(_, peer)| meant(peer));
        nodes.map(|(id, _)| *id).collect()
    }

    /// Notes how far a node's clock is from ours: its report, which has just come, says `clock_ms` since 1970.
    /// The core knows neither: nothing is decided by them.
    pub(super) fn compare_clocks(&mut self, id: PeerId, clock_ms: u64) {
        if clock_ms > 0
            && let Some(peer) = self.all.get_mut(&id)
        {
            let ahead = i128::from(clock_ms) - i128::from(clock::now_ms());
            peer.skew_ms = i64::try_from(ahead).ok();
        }
    }

    /// Adds what was noted of clocks to a status.
    pub(super) fn add_clocks(&self, status: &mut Status) {
        status.clock_ms = clock::now_ms();
        let named = |peer: &Peer| Some((peer.node.clone()?, peer.skew_ms?));
        let skews: BTreeMap<String, i64> = self.all.values().filter_map(named).collect();
        for node in &mut status.nodes {
            node.skew_ms = skews.get(&node.name).copied();
        }
    }
}
