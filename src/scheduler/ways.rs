//! How far the nodes are from one submitter, as he measured it, and what the way costs a job.
//!
//! It is his word alone and concerns his jobs alone: who lies about his ways only places his own jobs badly. What
//! he says is kept within what a network can be, so that no number spoils a comparison. What was not measured
//! counts as on the next desk. Knows no speeds of nodes; those are [`super::speed`]'s.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::NodeId;
use crate::message::Way;

/// Nodes to which one submitter's way is remembered, at most. Beyond it the one of which he spoke longest ago is
/// forgotten.
const WAYS_MAX: usize = 256;
/// The way to a node and back as long as it was not measured, in microseconds.
const TRAVEL_UNKNOWN_US: f64 = 2_000.0;
/// Sending a toolchain as long as the line was not measured, in microseconds.
const TOOLCHAIN_UNKNOWN_US: f64 = 1_000_000.0;
/// The longest way that is believed, in microseconds: twice to a satellite and back.
const TRAVEL_US_MAX: u64 = 2_000_000;
/// The slowest and the fastest lines that are believed, in bytes per second.
const RATE_LEAST: u64 = 10_000;
const RATE_MOST: u64 = 100_000_000_000;
/// Before a toolchain is sent, its list is asked for, and then its files.
const QUESTIONS_FOR_TOOLCHAIN: f64 = 2.0;

/// The ways of one submitter.
#[derive(Debug, Default)]
pub struct Ways {
    of: BTreeMap<NodeId, Known>,
    /// The nodes of which the travel is known, the nearest first.
    near: BTreeSet<(u64, NodeId)>,
    told_so_far: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    way: Way,
    /// When he spoke of it last, among all that he said.
    told: u64,
}

/// What a job takes along.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Freight {
    /// The size of its toolchain if that is still to be sent; 0 when the size is unknown.
    pub toolchain_bytes: Option<u64>,
    /// What comes back, in bytes.
    pub output_bytes: f64,
}

impl Ways {
    /// The submitter says what he measured of the way to `node`.
    pub fn learn(&mut self, node: NodeId, told: Way) {
        if !self.of.contains_key(&node) && self.of.len() >= WAYS_MAX {
            let oldest = self.of.iter().min_by_key(|(_, known)| known.told);
            if let Some((&oldest, _)) = oldest {
                self.forget(oldest);
            }
        }
        self.told_so_far += 1;
        let known = self.of.entry(node).or_default();
        known.told = self.told_so_far;
        let rate = |old, told: u64| match told {
            0 => old,
            told => told.clamp(RATE_LEAST, RATE_MOST),
        };
        known.way.up = rate(known.way.up, told.up);
        known.way.down = rate(known.way.down, told.down);
        if told.travel_us > 0 {
            self.near.remove(&(known.way.travel_us, node));
            known.way.travel_us = told.travel_us.min(TRAVEL_US_MAX);
            self.near.insert((known.way.travel_us, node));
        }
    }

    /// A node is gone.
    pub fn forget(&mut self, node: NodeId) {
        if let Some(known) = self.of.remove(&node) {
            self.near.remove(&(known.way.travel_us, node));
        }
    }

    /// What `freight` costs on the way to `node` and back, in microseconds.
    pub fn cost_us(&self, node: NodeId, freight: Freight) -> f64 {
        let way = self.of.get(&node).map_or(Way::default(), |known| known.way);
        let travel_us = match way.travel_us {
            0 => TRAVEL_UNKNOWN_US,
            known => known as f64,
        };
        let toolchain_us = match (freight.toolchain_bytes, way.up) {
            (None, _) => 0.0,
            (Some(0), _) | (Some(_), 0) => TOOLCHAIN_UNKNOWN_US,
            (Some(bytes), up) => {
                QUESTIONS_FOR_TOOLCHAIN * travel_us + bytes as f64 * 1e6 / up as f64
            }
        };
        let output_us = match way.down {
            0 => 0.0,
            down => freight.output_bytes * 1e6 / down as f64,
        };
        travel_us + toolchain_us + output_us
    }

    /// The nodes of which the travel is known, the nearest first.
    pub fn nearest(&self) -> impl Iterator<Item = NodeId> {
        self.near.iter().map(|&(_, node)| node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(1);

    #[test]
    fn what_is_not_known_counts_as_on_the_next_desk() {
        let mut ways = Ways::default();
        let freight = |toolchain_bytes, output_bytes| Freight {
            toolchain_bytes,
            output_bytes,
        };
        assert_eq!(ways.cost_us(NODE, freight(None, 1e9)), TRAVEL_UNKNOWN_US);
        let unknown = TRAVEL_UNKNOWN_US + TOOLCHAIN_UNKNOWN_US;
        assert_eq!(ways.cost_us(NODE, freight(Some(1 << 30), 0.0)), unknown);
        let way = Way {
            travel_us: 50_000,
            up: 10_000_000,
            down: 1_000_000,
        };
        ways.learn(NODE, way);
        for (toolchain_bytes, output_bytes, cost_us) in [
            (None, 0.0, 50_000.0),
            (None, 2e6, 2_050_000.0),
            (Some(50_000_000), 0.0, 5_150_000.0),
            (Some(0), 0.0, 50_000.0 + TOOLCHAIN_UNKNOWN_US),
        ] {
            let freight = freight(toolchain_bytes, output_bytes);
            assert_eq!(ways.cost_us(NODE, freight), cost_us, "{freight:?}");
        }
        // What is not told this time is still known.
        ways.learn(NODE, Way::default());
        assert_eq!(ways.cost_us(NODE, freight(None, 2e6)), 2_050_000.0);
    }

    #[test]
    fn no_number_makes_a_way_longer_or_shorter_than_ways_can_be() {
        for (travel_us, rate, cost_us) in [
            (u64::MAX, 1, 2_000_000.0 + 2.0 * 2_000_000.0 + 200_000_000.0),
            (1, u64::MAX, 1.0 + 2.0 + 20.0),
        ] {
            let mut ways = Ways::default();
            let way = Way {
                travel_us,
                up: rate,
                down: rate,
            };
            ways.learn(NODE, way);
            let freight = Freight {
                toolchain_bytes: Some(1_000_000),
                output_bytes: 1e6,
            };
            assert_eq!(ways.cost_us(NODE, freight), cost_us);
        }
    }

    #[test]
    fn the_way_spoken_of_longest_ago_is_forgotten_first() {
        let mut ways = Ways::default();
        let way = |travel_us| Way {
            travel_us,
            ..Way::default()
        };
        for node in 0..WAYS_MAX as u32 + 10 {
            ways.learn(NodeId(node), way(1000 - u64::from(node)));
            ways.learn(NodeId(0), way(5000));
        }
        assert_eq!(ways.of.len(), WAYS_MAX);
        assert_eq!(ways.near.len(), WAYS_MAX);
        assert!(ways.of.contains_key(&NodeId(0)) && !ways.of.contains_key(&NodeId(1)));
        assert_eq!(ways.nearest().next(), Some(NodeId(WAYS_MAX as u32 + 9)));
        assert_eq!(ways.nearest().last(), Some(NodeId(0)));
        ways.forget(NodeId(0));
        assert!(ways.nearest().all(|node| node != NodeId(0)));
    }
}
