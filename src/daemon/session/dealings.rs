//! What this node's submitters and a scheduler say of slots to each other, and what of it the other still has
//! to hear.
//!
//! Requests outlive the connection on which they were made, and are made again on the next. Leases belong to the
//! connection on which they were granted. What is said of them later is swallowed here: to another scheduler the
//! number would mean somebody else's lease. Knows no connection and no time.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{LeaseId, RequestId};
use crate::message::{Deal, Offer, Want};

/// Requests that wait, at most; more are denied.
pub(super) const PENDING_MAX: usize = 4096;

/// The requests that wait and the leases that are held.
#[derive(Debug, Default)]
pub(super) struct Dealings {
    pending: BTreeMap<RequestId, Want>,
    leases: BTreeSet<LeaseId>,
}

/// [`PENDING_MAX`] requests wait already, and this one is not kept.
#[derive(Debug)]
pub(super) struct TooMany(pub(super) RequestId);

impl Dealings {
    /// A submitter speaks; what the scheduler is to hear of it, if it `is_up`.
    pub(super) fn deal(&mut self, deal: Deal, is_up: bool) -> Result<Option<Deal>, TooMany> {
        let is_said = match &deal {
            Deal::Want(want) if self.pending.len() >= PENDING_MAX => {
                return Err(TooMany(want.request));
            }
            Deal::Want(want) => {
                self.pending.insert(want.request, want.clone());
                is_up
            }
            Deal::Withdraw(request) => self.pending.remove(request).is_some() && is_up,
            Deal::Began { request, lease } => {
                // Even under a lease that is void, the job no longer waits.
                let waited = self.pending.remove(request).is_some();
                let is_held = self.leases.contains(lease);
                if !is_held && waited && is_up {
                    return Ok(Some(Deal::Withdraw(*request)));
                }
                is_held
            }
            Deal::Ended { lease, .. } | Deal::Way { lease, .. } => self.leases.contains(lease),
            Deal::Return(lease) => self.leases.remove(lease),
        };
        Ok(is_said.then_some(deal))
    }

    /// The scheduler speaks; what the submitters are to hear of it.
    pub(super) fn offer(&mut self, offer: Offer) -> Option<Offer> {
        let is_told = match &offer {
            Offer::Grant(grant) => {
                self.leases.insert(grant.lease);
                true
            }
            Offer::Revoke(lease) => self.leases.contains(lease),
            Offer::Size { request, .. } => self.pending.contains_key(request),
            Offer::Deny { request, .. } => self.pending.remove(request).is_some(),
        };
        is_told.then_some(offer)
    }

    /// What another scheduler is to hear first: the requests that wait. The numbers of nodes in them meant
    /// something to the one before only.
    pub(super) fn again(&self) -> impl Iterator<Item = Deal> {
        self.pending.values().map(|want| {
            Deal::Want(Want {
                except: Vec::new(),
                ..want.clone()
            })
        })
    }

    /// The connection is no more.
    pub(super) fn void_leases(&mut self) {
        self.leases.clear();
    }

    /// Nobody will answer the requests that wait; which these are.
    pub(super) fn abandon(&mut self) -> impl Iterator<Item = RequestId> + use<> {
        std::mem::take(&mut self.pending).into_keys()
    }
}
