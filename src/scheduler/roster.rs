//! The nodes that are logged in, found by name, by address, and best first.
//!
//! Whoever changes a node does it through [`Roster::change`], so that the orders always tell the truth and a
//! placement costs a few steps whatever the number of nodes. What *best* means is
//! [`super::policy::pace`]'s.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use crate::id::{Digest, NodeId};
use crate::scheduler::node::{self, Node};
use crate::scheduler::policy;

/// Toolchains for which the nodes that have them are kept in order, at most. Beyond it the one that was
/// asked for longest ago is dropped, and costs a walk over all nodes when it is asked for again.
const WATCHED_MAX: usize = 256;

/// The nodes.
#[derive(Debug, Default)]
pub struct Roster {
    nodes: BTreeMap<NodeId, Node>,
    names: BTreeMap<String, NodeId>,
    addresses: BTreeSet<(IpAddr, NodeId)>,
    orders: Orders,
    looks: u64,
}

/// The nodes that take jobs, in the orders in which they are looked for.
#[derive(Debug, Default)]
struct Orders {
    platforms: BTreeMap<String, Platform>,
    watched: BTreeMap<Digest, Watched>,
    /// Those that have a free slot, also for none but themselves.
    free: BTreeSet<NodeId>,
}

/// The nodes of one platform.
#[derive(Debug, Default)]
struct Platform {
    /// Those that take jobs.
    takers: BTreeSet<NodeId>,
    /// Those of them that have a free slot, best first.
    open: BTreeSet<Place>,
    /// The same, by nothing but their learned speed.
    swift: BTreeSet<(u64, NodeId)>,
}

/// The nodes with a free slot that have one toolchain, best first.
#[derive(Debug, Default)]
struct Watched {
    open: BTreeSet<Place>,
    looked: u64,
}

/// Where a node stands in the orders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rank {
    /// Whether it has a free slot, also for none but itself.
    is_free: bool,
    /// Whether it takes jobs.
    takes_jobs: bool,
    /// Its places among those that are open, if it is: by pace, and by learned speed.
    open: Option<(Place, (u64, NodeId))>,
}

impl Rank {
    fn of(id: NodeId, node: &Node) -> Self {
        Self {
            is_free: node.free() > 0,
            takes_jobs: node.takes_jobs(),
            open: is_open(node).then(|| (Place::of(id, node), (in_order(node.slowness), id))),
        }
    }
}

/// A node in an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// How slow it is now, as an integer in the order of [`policy::pace`].
    pace: u64,
    /// Among equals the one that has waited longest for a job.
    last_grant: u64,
    /// The node.
    pub node: NodeId,
}

impl Place {
    fn of(id: NodeId, node: &Node) -> Self {
        Self {
            pace: in_order(policy::pace(node)),
            last_grant: node.last_grant,
            node: id,
        }
    }
}

/// Positive numbers keep their order as their bits.
fn in_order(number: f64) -> u64 {
    number.max(0.0).to_bits()
}

impl Roster {
    /// Adds a node.
    pub fn insert(&mut self, id: NodeId, node: Node) {
        self.names.insert(node.name.clone(), id);
        self.addresses.insert((node.address.ip(), id));
        let nowhere = Rank::default();
        self.orders
            .move_node(id, &node, nowhere, Rank::of(id, &node));
        self.nodes.insert(id, node);
    }

    /// Removes a node.
    pub fn remove(&mut self, id: NodeId) -> Option<Node> {
        let node = self.nodes.remove(&id)?;
        self.names.remove(&node.name);
        self.addresses.remove(&(node.address.ip(), id));
        let nowhere = Rank::default();
        self.orders
            .move_node(id, &node, Rank::of(id, &node), nowhere);
        Some(node)
    }

    /// The node of this number, which must be logged in. Whatever names a node leaves with it.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[&id]
    }

    /// The node of this number, if it is logged in.
    pub fn find(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// Changes a node, which must be logged in; neither its name, its address, its platform nor its
    /// toolchains. Orders in which its place is the same afterwards are not touched.
    pub fn change<T>(&mut self, id: NodeId, change: impl FnOnce(&mut Node) -> T) -> T {
        let node = self
            .nodes
            .get_mut(&id)
            .expect("whatever names a node leaves with it");
        let before = Rank::of(id, node);
        let result = change(node);
        let after = Rank::of(id, node);
        if before != after {
            self.orders.move_node(id, node, before, after);
        }
        result
    }

    /// A node, which must be logged in, has some toolchains more and others no longer; how many it has
    /// now.
    pub fn equip(&mut self, id: NodeId, added: Vec<Digest>, removed: &[Digest]) -> usize {
        let node = self
            .nodes
            .get_mut(&id)
            .expect("whatever names a node leaves with it");
        let (here, nowhere) = (Rank::of(id, node), Rank::default());
        self.orders.move_node(id, node, here, nowhere);
        for gone in removed {
            node.toolchains.remove(gone);
        }
        node.toolchains.extend(added);
        self.orders.move_node(id, node, nowhere, here);
        node.toolchains.len()
    }

    /// Changes something of a node that has nothing to do with its place in any order.
    pub fn note(&mut self, id: NodeId) -> &mut Node {
        self.nodes
            .get_mut(&id)
            .expect("whatever names a node leaves with it")
    }

    /// All nodes.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().map(|(&id, node)| (id, node))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Whether any node that takes jobs has a free slot.
    pub fn any_open(&self) -> bool {
        self.orders
            .platforms
            .values()
            .any(|platform| !platform.open.is_empty())
    }

    /// Whether any node has a free slot, be it for its own jobs only.
    pub fn any_free(&self) -> bool {
        !self.orders.free.is_empty()
    }

    /// The node of this name.
    pub fn named(&self, name: &str) -> Option<NodeId> {
        self.names.get(name).copied()
    }

    /// The nodes at this address.
    pub fn at(&self, address: IpAddr) -> impl Iterator<Item = (NodeId, &Node)> {
        let all = (address, NodeId(0))..=(address, NodeId(u32::MAX));
        self.addresses
            .range(all)
            .map(|&(_, id)| (id, &self.nodes[&id]))
    }

    /// The nodes that a user means who writes `spelling`: a name, an address, or an address with a port.
    pub fn called(&self, spelling: &str) -> Vec<NodeId> {
        let mut called: Vec<NodeId> = self.named(spelling).into_iter().collect();
        if let Ok(address) = spelling.parse::<IpAddr>() {
            called.extend(self.at(address).map(|(id, _)| id));
        } else if let Ok(address) = spelling.parse::<SocketAddr>() {
            let there = self
                .at(address.ip())
                .filter(|(_, node)| node.address == address);
            called.extend(there.map(|(id, _)| id));
        }
        called
    }

    /// The nodes that take jobs and run programs for `platform`.
    pub fn takers(&self, platform: &str) -> impl Iterator<Item = (NodeId, &Node)> {
        self.running(platform)
            .flat_map(|there| there.takers.iter())
            .map(|&id| (id, &self.nodes[&id]))
    }

    /// Those of them that have a free slot, best first.
    pub fn open(&self, platform: &str) -> impl Iterator<Item = (NodeId, &Node)> {
        let orders = self.running(platform).map(|there| there.open.iter());
        merge(orders.collect()).map(|place| (place.node, &self.nodes[&place.node]))
    }

    /// The same, the fastest first.
    pub fn swift(&self, platform: &str) -> impl Iterator<Item = (NodeId, &Node)> {
        let orders = self.running(platform).map(|there| there.swift.iter());
        merge(orders.collect()).map(|&(_, id)| (id, &self.nodes[&id]))
    }

    /// The nodes with a free slot that have `toolchain`, best first, whatever their platform.
    /// [`Roster::watch`] must have been called for it.
    pub fn equipped(&self, toolchain: Digest) -> impl Iterator<Item = (NodeId, &Node)> {
        self.orders
            .watched
            .get(&toolchain)
            .into_iter()
            .flat_map(|watched| watched.open.iter())
            .map(|place| (place.node, &self.nodes[&place.node]))
    }

    /// Keeps the nodes that have `toolchain` in order.
    pub fn watch(&mut self, toolchain: Digest) {
        self.looks += 1;
        let looked = self.looks;
        let watched = &mut self.orders.watched;
        if let Some(known) = watched.get_mut(&toolchain) {
            known.looked = looked;
            return;
        }
        if watched.len() >= WATCHED_MAX {
            let oldest = watched.iter().min_by_key(|(_, known)| known.looked);
            if let Some((&oldest, _)) = oldest {
                watched.remove(&oldest);
            }
        }
        let open = self
            .nodes
            .iter()
            .filter(|(_, node)| is_open(node) && node.toolchains.contains(&toolchain))
            .map(|(&id, node)| Place::of(id, node))
            .collect();
        watched.insert(toolchain, Watched { open, looked });
    }

    fn running(&self, platform: &str) -> impl Iterator<Item = &Platform> {
        self.orders
            .platforms
            .iter()
            .filter(move |(machine, _)| node::runs(machine, platform))
            .map(|(_, there)| there)
    }
}

impl Orders {
    /// A node stands somewhere else now.
    fn move_node(&mut self, id: NodeId, node: &Node, before: Rank, after: Rank) {
        turn(&mut self.free, id, before.is_free, after.is_free);
        if !before.takes_jobs && !after.takes_jobs {
            return;
        }
        if !self.platforms.contains_key(&node.platform) {
            self.platforms
                .insert(node.platform.clone(), Platform::default());
        }
        let Some(platform) = self.platforms.get_mut(&node.platform) else {
            return;
        };
        turn(
            &mut platform.takers,
            id,
            before.takes_jobs,
            after.takes_jobs,
        );
        if before.open != after.open {
            let (left, entered) = (before.open.unzip(), after.open.unzip());
            replace(&mut platform.swift, left.1, entered.1);
            replace(&mut platform.open, left.0, entered.0);
            // Few are watched, or few are on the node.
            if node.toolchains.len() < self.watched.len() {
                for toolchain in &node.toolchains {
                    if let Some(watched) = self.watched.get_mut(toolchain) {
                        replace(&mut watched.open, left.0, entered.0);
                    }
                }
            } else {
                for (toolchain, watched) in &mut self.watched {
                    if node.toolchains.contains(toolchain) {
                        replace(&mut watched.open, left.0, entered.0);
                    }
                }
            }
        }
        if platform.takers.is_empty() {
            self.platforms.remove(&node.platform);
        }
    }
}

/// A node is in an order from now on, or no longer.
fn turn(order: &mut BTreeSet<NodeId>, id: NodeId, before: bool, after: bool) {
    match (before, after) {
        (false, true) => _ = order.insert(id),
        (true, false) => _ = order.remove(&id),
        _ => {}
    }
}

fn replace<T: Ord>(order: &mut BTreeSet<T>, left: Option<T>, entered: Option<T>) {
    if left != entered {
        if let Some(left) = left {
            order.remove(&left);
        }
        order.extend(entered);
    }
}

fn is_open(node: &Node) -> bool {
    node.takes_jobs() && node.free() > 0
}

/// Several orders as one. There are as many as there are kinds of machine: very few.
fn merge<'a, T: Ord + 'a>(
    orders: Vec<impl Iterator<Item = &'a T> + 'a>,
) -> impl Iterator<Item = &'a T> {
    let mut orders: Vec<_> = orders.into_iter().map(Iterator::peekable).collect();
    std::iter::from_fn(move || {
        let first = orders
            .iter_mut()
            .filter_map(|order| order.peek().copied().map(|head| (head, order)))
            .min_by_key(|&(head, _)| head);
        first.and_then(|(_, order)| order.next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Time;
    use crate::message::Login;
    use crate::scheduler::state::PeerId;

    const GCC: Digest = Digest([1; 32]);

    fn roster(platforms: &[&str]) -> Roster {
        let mut roster = Roster::default();
        for (number, platform) in (1u32..).zip(platforms) {
            let login = Login {
                port: 10245,
                slots: 2,
                toolchains: vec![GCC],
                ..Login::new(format!("n{number}"), "ICE", *platform)
            };
            let from = IpAddr::from([10, 0, 0, number as u8]);
            let peer = PeerId(number.into());
            let name = login.name.clone();
            let node = Node::new(peer, name, login, from, from, Time(0));
            roster.insert(NodeId(number), node);
        }
        roster
    }

    fn numbers<'a>(nodes: impl Iterator<Item = (NodeId, &'a Node)>) -> Vec<u32> {
        nodes.map(|(id, _)| id.0).collect()
    }

    #[test]
    fn the_open_are_found_best_first_over_all_platforms_that_will_do() {
        let mut roster = roster(&["x86_64", "i686", "aarch64", "x86_64"]);
        for (id, slowness) in [(1, 3.0), (2, 2.0), (4, 1.0)] {
            roster.change(NodeId(id), |node| node.slowness = slowness);
        }
        assert_eq!(numbers(roster.open("i686")), [4, 2, 1]);
        assert_eq!(numbers(roster.open("x86_64")), [4, 1]);
        assert_eq!(numbers(roster.swift("aarch64")), [3]);
        roster.change(NodeId(4), |node| node.lent = 2);
        assert_eq!(numbers(roster.open("i686")), [2, 1]);
        assert_eq!(numbers(roster.takers("x86_64")), [1, 4]);
        roster.remove(NodeId(2));
        assert_eq!(numbers(roster.open("i686")), [1]);
        assert!(roster.any_open());
    }

    #[test]
    fn those_with_a_toolchain_are_kept_in_order_once_it_is_asked_for() {
        let mut roster = roster(&["x86_64", "x86_64"]);
        assert_eq!(numbers(roster.equipped(GCC)), [0; 0]);
        roster.watch(GCC);
        assert_eq!(numbers(roster.equipped(GCC)), [1, 2]);
        assert_eq!(roster.equip(NodeId(1), vec![], &[GCC]), 0);
        assert_eq!(numbers(roster.equipped(GCC)), [2]);
        roster.change(NodeId(2), |node| node.lent = 2);
        assert_eq!(numbers(roster.equipped(GCC)), [0; 0]);
        for other in 2..=u8::MAX {
            roster.watch(Digest([other; 32]));
            roster.watch(Digest([0; 32]));
        }
        roster.watch(Digest([77; 32]));
        assert!(roster.orders.watched.len() <= WATCHED_MAX);
    }

    #[test]
    fn a_node_is_called_by_name_or_address() {
        let roster = roster(&["x86_64"]);
        for (spelling, is) in [
            ("n1", true),
            ("10.0.0.1", true),
            ("10.0.0.1:10245", true),
            ("10.0.0.1:1", false),
            ("10.0.0.10", false),
            ("N1", false),
            ("", false),
        ] {
            assert_eq!(roster.called(spelling).len(), usize::from(is), "{spelling}");
        }
    }
}
