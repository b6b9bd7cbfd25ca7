//! How many slots each submitter may hold when there are not enough for all.
//!
//! Lower niceness gets what it wants before higher niceness gets anything. Within one niceness all get
//! equally much, except that nobody gets more than he wants: what one leaves, the others share. Slots
//! that can't be divided go round: to whom has had the least lately, for about a second at a time.
//!
//! Pure numbers; knows neither nodes nor jobs.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::{NodeId, Time};

/// An indivisible slot stays with its holder until he has had so many slot-seconds more than another.
const TURN_SLOT_SECONDS: f64 = 1.0;
/// What was had is forgotten with this time constant, in seconds.
const MEMORY_SECONDS: f64 = 10.0;

/// Who wants slots, in one class of niceness.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Claimant {
    /// Whoever it is.
    pub node: NodeId,
    /// 0 to 19; higher gives way.
    pub niceness: u8,
    /// Slots that it holds.
    pub holds: u32,
    /// Slots that it could use now, the ones that it uses included.
    pub wants: u32,
}

/// What each submitter has had lately.
#[derive(Debug, Default)]
pub struct Fairness {
    served: BTreeMap<NodeId, f64>,
    since: Option<Time>,
}

impl Fairness {
    /// The slots that each claimant may hold, in the order in which they are given; `capacity` is what there
    /// is for all of them. To be called again and again while there is not enough for all.
    pub fn shares(&mut self, claimants: &[Claimant], capacity: u32, now: Time) -> Vec<u32> {
        self.remember(claimants, now);
        let mut shares = vec![0; claimants.len()];
        let mut left = capacity;
        let mut classes: Vec<u8> = claimants.iter().map(|claimant| claimant.niceness).collect();
        classes.sort_unstable();
        classes.dedup();
        for class in classes {
            let members = (0..claimants.len()).filter(|&at| claimants[at].niceness == class);
            left -= self.share(claimants, members.collect(), left, &mut shares);
        }
        shares
    }

    /// There is enough for all: nobody need remember who had how much.
    pub fn forget(&mut self) {
        self.served.clear();
        self.since = None;
    }

    /// Shares `slots` among the claimants at `members`; how many were given.
    fn share(
        &self,
        claimants: &[Claimant],
        mut members: Vec<usize>,
        slots: u32,
        shares: &mut [u32],
    ) -> u32 {
        // Who wants little is content with it, and the rest is for those who want more.
        members.sort_by_key(|&at| claimants[at].wants);
        let mut left = slots;
        let mut content = 0;
        while let Some(&at) = members.get(content)
            && claimants[at].wants <= left / (members.len() - content) as u32
        {
            shares[at] = claimants[at].wants;
            left -= shares[at];
            content += 1;
        }
        let mut greedy = members.split_off(content);
        let Some(each) = left.checked_div(greedy.len() as u32) else {
            return slots - left;
        };
        let over = left as usize % greedy.len();
        let had = |at: usize| {
            let claimant = &claimants[at];
            let served = self.served.get(&claimant.node).copied().unwrap_or(0.0);
            match claimant.holds > each {
                true => served - TURN_SLOT_SECONDS,
                false => served,
            }
        };
        greedy.sort_by(|&a, &b| had(a).total_cmp(&had(b)).then(a.cmp(&b)));
        for (place, at) in greedy.into_iter().enumerate() {
            shares[at] = each + u32::from(place < over);
        }
        slots
    }

    fn remember(&mut self, claimants: &[Claimant], now: Time) {
        let seconds = self
            .since
            .replace(now)
            .map_or(Duration::ZERO, |since| now.since(since))
            .as_secs_f64();
        let kept = (-seconds / MEMORY_SECONDS).exp();
        let present: BTreeMap<NodeId, u32> = claimants
            .iter()
            .map(|claimant| (claimant.node, claimant.holds))
            .collect();
        self.served.retain(|node, _| present.contains_key(node));
        for (node, holds) in present {
            let served = self.served.entry(node).or_default();
            *served = *served * kept + f64::from(holds) * seconds;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimant(node: u32, niceness: u8, holds: u32, wants: u32) -> Claimant {
        Claimant {
            node: NodeId(node),
            niceness,
            holds,
            wants,
        }
    }

    #[test]
    fn all_get_equally_much_and_none_more_than_he_wants() {
        // Each case: capacity, the wants in order, the shares.
        let cases: &[(u32, &[u32], &[u32])] = &[
            (12, &[100, 100, 100], &[4, 4, 4]),
            (12, &[1, 100, 100], &[1, 6, 5]),
            (12, &[100, 2, 100], &[5, 2, 5]),
            (12, &[2, 3], &[2, 3]),
            (0, &[2, 3], &[0, 0]),
            (2, &[1, 1, 1], &[1, 1, 0]),
            (5, &[], &[]),
            (7, &[0, 9], &[0, 7]),
        ];
        for (capacity, wants, expect) in cases {
            let claimants: Vec<Claimant> = (0..)
                .zip(*wants)
                .map(|(node, &wants)| claimant(node, 0, 0, wants))
                .collect();
            let shares = Fairness::default().shares(&claimants, *capacity, Time(0));
            assert_eq!(shares, *expect, "{capacity} for {wants:?}");
        }
    }

    #[test]
    fn the_nice_get_what_the_others_leave() {
        let claimants = [
            claimant(1, 5, 10, 100),
            claimant(2, 0, 0, 7),
            claimant(3, 19, 0, 100),
        ];
        let shares = Fairness::default().shares(&claimants, 10, Time(0));
        assert_eq!(shares, [3, 7, 0]);
    }

    #[test]
    fn what_cant_be_divided_goes_round() {
        let mut fairness = Fairness::default();
        let mut holds = [0; 3];
        let mut had = [0u32; 3];
        for tick in 0..600 {
            let claimants: Vec<Claimant> = (0..3)
                .map(|node| claimant(node, 0, holds[node as usize], 100))
                .collect();
            let shares = fairness.shares(&claimants, 4, Time(tick * 100_000));
            assert_eq!(shares.iter().sum::<u32>(), 4);
            holds = [shares[0], shares[1], shares[2]];
            (0..3).for_each(|at| had[at] += holds[at]);
        }
        let (least, most) = (had.iter().min().unwrap(), had.iter().max().unwrap());
        assert!(f64::from(*least) / f64::from(*most) > 0.9, "{had:?}");
    }
}
