//! Asks the node for leases and local slots, and returns them when their holder is dropped.
//!
//! The node is another task of this process, or another process when this is an agent: both sides
//! are two channels of messages, and what is behind them does not matter here.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use smol::channel::{self, Receiver, Sender};

use crate::id::{Bytes, RequestId};
use crate::message::{FromNode, Grant, Outcome, ToNode, Want};

/// The submitter's line to its node.
pub struct Placement {
    to_node: Sender<ToNode>,
    next: AtomicU64,
    waiting: Mutex<BTreeMap<RequestId, Sender<FromNode>>>,
}

impl Placement {
    /// Speaks over `to_node`; [`Placement::listen`] must run as long as answers are expected.
    pub fn new(to_node: Sender<ToNode>) -> Arc<Self> {
        Arc::new(Self {
            to_node,
            next: AtomicU64::new(0),
            waiting: Mutex::new(BTreeMap::new()),
        })
    }

    /// Hands the node's answers to those who wait, until the node is gone.
    pub async fn listen(&self, from_node: Receiver<FromNode>) {
        while let Ok(message) = from_node.recv().await {
            let request = match &message {
                FromNode::Grant { grant, .. } => grant.request,
                FromNode::Deny { request, .. } | FromNode::LocalSlot(request) => *request,
            };
            let waiter = self.lock().remove(&request);
            let delivered = waiter.is_some_and(|waiter| waiter.try_send(message.clone()).is_ok());
            // A grant that crossed a withdrawal has no owner and goes back.
            if !delivered {
                match message {
                    FromNode::Grant { grant, .. } => self.tell(ToNode::Return {
                        lease: grant.lease,
                        outcome: Outcome::Unused,
                    }),
                    FromNode::LocalSlot(request) => self.tell(ToNode::ReturnLocal(request)),
                    FromNode::Deny { .. } => {}
                }
            }
        }
        // Whoever waits finds the channel closed.
        self.lock().clear();
    }

    /// A lease for one job, or the sentence why there is none. `want.request` is filled in here.
    pub async fn lease(self: &Arc<Self>, mut want: Want) -> Result<Lease, String> {
        let pending = self.pending(|request| {
            want.request = request;
            ToNode::Want(want)
        });
        match pending.answer().await {
            Some(FromNode::Grant { grant, own }) => Ok(Lease {
                placement: self.clone(),
                grant,
                own,
                outcome: Some(Outcome::Unused),
            }),
            Some(FromNode::Deny { why, .. }) => Err(why),
            Some(FromNode::LocalSlot(_)) | None => Err("the node is gone".to_owned()),
        }
    }

    /// A local slot, as soon as there is one.
    pub async fn local_slot(self: &Arc<Self>) -> LocalSlot {
        let pending = self.pending(ToNode::WantLocal);
        let request = pending.request;
        // Without a node nobody counts slots, and the user's compiler must not wait for one.
        let held = matches!(pending.answer().await, Some(FromNode::LocalSlot(_)));
        LocalSlot {
            placement: self.clone(),
            request: held.then_some(request),
        }
    }

    /// Tells the node that a job runs here without a lease, and why.
    pub fn note_local(&self, reason: &str, file: &Bytes) {
        self.tell(ToNode::Local {
            reason: reason.to_owned(),
            file: file.clone(),
        });
    }

    fn pending(self: &Arc<Self>, ask: impl FnOnce(RequestId) -> ToNode) -> Pending {
        let request = RequestId(self.next.fetch_add(1, Ordering::Relaxed));
        let (sender, answer) = channel::bounded(1);
        self.lock().insert(request, sender);
        let ask = ask(request);
        let local = matches!(ask, ToNode::WantLocal(_));
        if self.to_node.try_send(ask).is_err() {
            self.lock().remove(&request);
        }
        Pending {
            placement: self.clone(),
            request,
            local,
            answer,
        }
    }

    fn tell(&self, message: ToNode) {
        // The channel has no bound and is closed only when the node is gone, with all its slots.
        let _ = self.to_node.try_send(message);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<RequestId, Sender<FromNode>>> {
        self.waiting.lock().expect("no holder of this lock panics")
    }
}

/// A request without an answer; withdrawn when dropped.
struct Pending {
    placement: Arc<Placement>,
    request: RequestId,
    local: bool,
    answer: Receiver<FromNode>,
}

impl Pending {
    async fn answer(&self) -> Option<FromNode> {
        self.answer.recv().await.ok()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let unanswered = self.placement.lock().remove(&self.request).is_some();
        if unanswered {
            self.placement.tell(match self.local {
                true => ToNode::ReturnLocal(self.request),
                false => ToNode::Withdraw(self.request),
            });
        } else if let Ok(message) = self.answer.try_recv() {
            // It was answered, and nobody had read the answer yet.
            self.placement.tell(match message {
                FromNode::Grant { grant, .. } => ToNode::Return {
                    lease: grant.lease,
                    outcome: Outcome::Unused,
                },
                FromNode::LocalSlot(request) => ToNode::ReturnLocal(request),
                FromNode::Deny { .. } => return,
            });
        }
    }
}

/// A slot on a node, returned when dropped.
pub struct Lease {
    placement: Arc<Placement>,
    grant: Grant,
    own: bool,
    outcome: Option<Outcome>,
}

impl Lease {
    /// What was granted.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Whether it is for this machine.
    pub fn is_own(&self) -> bool {
        self.own
    }

    /// Returns the lease and says what came of it.
    pub fn end(mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome.take() {
            self.placement.tell(ToNode::Return {
                lease: self.grant.lease,
                outcome,
            });
        }
    }
}

/// A slot on this machine, returned when dropped.
pub struct LocalSlot {
    placement: Arc<Placement>,
    request: Option<RequestId>,
}

impl Drop for LocalSlot {
    fn drop(&mut self) {
        if let Some(request) = self.request {
            self.placement.tell(ToNode::ReturnLocal(request));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::id::{Bytes, Digest, LeaseId, NodeId};

    fn want() -> Want {
        Want {
            request: RequestId(0),
            toolchain: Digest([0; 32]),
            platform: "x86_64".to_owned(),
            file: Bytes::default(),
            preferred: String::new(),
            except: Vec::new(),
            niceness: 0,
            own: crate::message::OwnNode::Locally,
        }
    }

    fn grant(request: RequestId) -> FromNode {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let name = "w".to_owned();
        let grant = Grant {
            request,
            lease: LeaseId(7),
            node: NodeId(1),
            name,
            address,
            valid_ms: 1000,
            term: crate::id::Term::default(),
        };
        FromNode::Grant { grant, own: false }
    }

    #[test]
    fn a_lease_goes_back_when_its_holder_is_dropped() {
        smol::block_on(async {
            let (to_node, node_reads) = channel::unbounded();
            let (node_writes, from_node) = channel::unbounded();
            let placement = Placement::new(to_node);
            let node = async {
                let Ok(ToNode::Want(want)) = node_reads.recv().await else {
                    panic!("a want comes first")
                };
                node_writes.send(grant(want.request)).await.unwrap();
                let returned = node_reads.recv().await.unwrap();
                assert_eq!(
                    returned,
                    ToNode::Return {
                        lease: LeaseId(7),
                        outcome: Outcome::Unused
                    }
                );
                drop(node_writes);
            };
            let job = async { drop(placement.lease(want()).await.unwrap()) };
            smol::future::zip(smol::future::zip(node, job), placement.listen(from_node)).await;
        });
    }

    #[test]
    fn a_withdrawn_request_is_told_and_its_late_grant_returned() {
        smol::block_on(async {
            let (to_node, node_reads) = channel::unbounded();
            let (node_writes, from_node) = channel::unbounded();
            let placement = Placement::new(to_node);
            assert!(
                smol::future::poll_once(placement.lease(want()))
                    .await
                    .is_none()
            );
            assert!(matches!(node_reads.recv().await, Ok(ToNode::Want(_))));
            assert_eq!(node_reads.recv().await, Ok(ToNode::Withdraw(RequestId(0))));
            node_writes.send(grant(RequestId(0))).await.unwrap();
            drop(node_writes);
            placement.listen(from_node).await;
            assert!(matches!(node_reads.recv().await, Ok(ToNode::Return { .. })));
        });
    }

    #[test]
    fn without_a_node_a_local_job_runs_at_once() {
        smol::block_on(async {
            let (to_node, node_reads) = channel::unbounded();
            drop(node_reads);
            let placement = Placement::new(to_node);
            assert!(placement.lease(want()).await.is_err());
            let _slot = placement.local_slot().await;
        });
    }
}
