//! No order of events, however strange, lends a slot twice.

use std::time::Duration;

use super::story::{Story, done, failed};
use crate::id::RequestId;
use crate::message::{Failure, NodeState, Outcome, OwnNode, ToScheduler};
use crate::scheduler::state::{Event, PeerId};

/// Thousands of random events, good and bad; the harness checks each.
#[test]
fn no_slot_is_lent_twice_whatever_happens() {
    for seed in 0..20u64 {
        let mut state = seed;
        let mut random = |below: u64| {
            // splitmix64
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) % below
        };
        let mut story = Story::new();
        let mut peers = Vec::new();
        for _ in 0..600 {
            story.now = story.now.after(Duration::from_millis(random(20)));
            let pick = |random: &mut dyn FnMut(u64) -> u64, peers: &[PeerId]| {
                (!peers.is_empty()).then(|| peers[random(peers.len() as u64) as usize])
            };
            match random(20) {
                0 => {
                    let slots = random(4) as u32;
                    peers.push(story.join("n", slots));
                }
                1 if peers.len() > 3 => {
                    let peer = peers.remove(random(peers.len() as u64) as usize);
                    story.leave(peer);
                }
                2 => story.event(Event::Tick),
                3..=5 => {
                    if let Some(peer) = pick(&mut random, &peers) {
                        let state = NodeState {
                            local_jobs: random(3) as u32,
                            remote_jobs: random(3) as u32,
                            ..NodeState::default()
                        };
                        story.say(peer, ToScheduler::State(state));
                    }
                }
                6..=12 => {
                    if let Some(peer) = pick(&mut random, &peers) {
                        let niceness = random(3) as u8;
                        let own = match random(3) {
                            0 => OwnNode::Nothing,
                            1 => OwnNode::Locally,
                            _ => OwnNode::AsWorker,
                        };
                        story.want_with(peer, |want| {
                            want.terms.niceness = niceness;
                            want.own = own;
                        });
                    }
                }
                _ => {
                    let out: Vec<_> = story.out.iter().map(|(&l, &(_, p))| (l, p)).collect();
                    if !out.is_empty() {
                        let (lease, holder) = out[random(out.len() as u64) as usize];
                        let request = RequestId(1 + random(story.requests));
                        let outcome = match random(4) {
                            0 => failed(Failure::Busy, false),
                            1 => failed(Failure::Internal, random(2) == 0),
                            2 => Outcome::Unused,
                            _ => done(random(1_000_000)),
                        };
                        match random(4) {
                            0 => story.began(holder, request, lease),
                            1 => story.ended(holder, request, lease, outcome),
                            _ => story.give_back(holder, lease),
                        }
                    }
                }
            }
            peers.retain(|peer| !story.closed.contains_key(peer));
        }
        assert!(story.ever.len() > 50, "seed {seed}: {}", story.ever.len());
    }
}
