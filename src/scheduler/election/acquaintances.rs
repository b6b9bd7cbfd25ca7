//! The other schedulers that have answered: where they are, what they said, and when.
//!
//! Only answers to our own questions come in here, so nobody can be made up. Whoever has been silent for long is
//! forgotten first.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::id::{SchedulerId, Time};
use crate::message::Claim;
use crate::scheduler::election::SURVEY_EVERY;

/// Schedulers that are remembered, at most.
pub(super) const KNOWN_MAX: usize = 256;
/// Who has not answered for so long does not stand by any more.
const FORGET: Duration = Duration::from_millis(3500);

/// All that are remembered.
#[derive(Debug, Default)]
pub(super) struct Acquaintances(BTreeMap<SchedulerId, Known>);

#[derive(Clone, Copy, Debug)]
struct Known {
    claim: Claim,
    at: SocketAddr,
    heard: Time,
}

impl Acquaintances {
    /// One has answered. Of several addresses that it answers from, the better one is kept.
    pub(super) fn remember(&mut self, claim: Claim, at: SocketAddr, now: Time) {
        if self.0.len() >= KNOWN_MAX && !self.0.contains_key(&claim.id) {
            let oldest = self.0.iter().min_by_key(|(_, known)| known.heard);
            if let Some((&oldest, _)) = oldest {
                self.0.remove(&oldest);
            }
        }
        let heard = now;
        let at = match self.0.get(&claim.id) {
            Some(known) if is_better(known.at, at) && now.since(known.heard) < FORGET => known.at,
            _ => at,
        };
        self.0.insert(claim.id, Known { claim, at, heard });
    }

    /// This one is gone.
    pub(super) fn forget(&mut self, id: SchedulerId) {
        self.0.remove(&id);
    }

    /// Nobody is there any more.
    pub(super) fn forget_those_at(&mut self, gone: SocketAddr) {
        self.0.retain(|_, known| known.at != gone);
    }

    /// Whether a claim, which anybody may have repeated, is reason enough to ask. Those beyond the bound are not
    /// asked: a flood of made-up ones would be answered with one of questions.
    pub(super) fn is_news(&self, claim: &Claim, now: Time) -> bool {
        match self.0.get(&claim.id) {
            None => self.0.len() < KNOWN_MAX,
            Some(known) => known.claim != *claim || now.since(known.heard) >= SURVEY_EVERY,
        }
    }

    /// Where those are that have answered lately, those first that would lead first.
    pub(super) fn lately(&self, now: Time) -> Vec<SocketAddr> {
        let lately = |known: &&Known| now.since(known.heard) < FORGET;
        let mut known: Vec<&Known> = self.0.values().filter(lately).collect();
        known.sort_by_key(|known| rank(&known.claim));
        known.into_iter().map(|known| known.at).collect()
    }

    /// Who would lead first of those that have answered since then and `may_lead`.
    pub(super) fn first(&self, since: Time, may_lead: impl Fn(&Claim) -> bool) -> Option<Claim> {
        let fresh = self.0.values().filter(|known| known.heard >= since);
        let claims = fresh.map(|known| known.claim).filter(may_lead);
        claims.min_by_key(rank)
    }
}

/// Whether a scheduler is rather to be found at one address than at the other: an address of the link
/// means nothing without the interface, whose number is every machine's own.
pub(super) fn is_better(one: SocketAddr, other: SocketAddr) -> bool {
    let is_of_link = |at: SocketAddr| match at {
        SocketAddr::V6(at) => at.ip().is_unicast_link_local(),
        SocketAddr::V4(_) => false,
    };
    !is_of_link(one) && is_of_link(other)
}

/// Who leads before whom, when there is no master: the one that started first.
pub(super) fn rank(claim: &Claim) -> (u64, SchedulerId) {
    (claim.started_ms, claim.id)
}
