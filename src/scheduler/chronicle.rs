//! What happens in the cluster, put into words for those who watch.
//!
//! The state machine says here what it has done with a job or a node, and here it is numbered,
//! counted, kept for a snapshot, and put into the `bulletin` for the watchers. Nothing here changes a
//! placement, and without watchers nothing is collected but counts and the jobs of the moment, which
//! are bounded by the queue and the leases.
//!
//! Knows no socket: `outbox` leaves out news for a watcher that reads too slowly, counts
//! them, and the watcher asks for a new snapshot.

mod bulletin;

use std::collections::BTreeMap;

use crate::id::{Bytes, LeaseId, NodeId, RequestId, Time};
use crate::message::{FromScheduler, Outcome};
use crate::news::{
    Ending, JobNumber, JobPicture, LocalJobs, News, NodePicture, SNAPSHOT_JOBS_MAX, Snapshot,
    Totals, file_end,
};
use crate::scheduler::chronicle::bulletin::Bulletin;
use crate::scheduler::state::PeerId;
use crate::scheduler::tally::Tally;

pub use bulletin::{HEARTBEAT, WATCHERS_MAX};

/// The jobs of the moment, the counts, and what is still to be told of them.
#[derive(Debug, Default)]
pub struct Chronicle {
    waiting: BTreeMap<(NodeId, RequestId), Job>,
    /// By lease and request: what ran under a lease may still be on its way home when the next job
    /// begins, and a job may run under two.
    running: BTreeMap<(LeaseId, RequestId), Job>,
    jobs_so_far: u64,
    tally: Tally,
    bulletin: Bulletin,
}

#[derive(Clone, Debug)]
struct Job {
    number: JobNumber,
    submitter: NodeId,
    worker: Option<NodeId>,
    file: Bytes,
    since: Time,
    is_told: bool,
}

impl Chronicle {
    // What happens to nodes.

    /// A node logged in, or was blocked or unblocked: watchers hear of it soon.
    pub fn came(&mut self, node: NodeId) {
        self.bulletin.came(node);
    }

    /// Something about a node changed that watchers need not know at once.
    pub fn changed(&mut self, node: NodeId) {
        self.bulletin.changed(node);
    }

    /// A node left. Its jobs end with it.
    pub fn left(&mut self, node: NodeId) {
        let all = (node, RequestId(0))..=(node, RequestId(u64::MAX));
        let waited: Vec<_> = self.waiting.range(all).map(|(&key, _)| key).collect();
        for (node, request) in waited {
            self.gone(node, request, Ending::Lost);
        }
        self.bulletin.left(node);
    }

    // What happens to jobs.

    /// A submitter wants a slot.
    pub fn queued(&mut self, submitter: NodeId, request: RequestId, file: &[u8], now: Time) {
        let job = Job {
            number: self.number(),
            submitter,
            worker: None,
            file: file_end(file),
            since: now,
            is_told: false,
        };
        self.waiting.insert((submitter, request), job);
        self.bulletin.queued(submitter, request);
    }

    /// The request of a submitter got a slot of `worker`.
    pub fn started(
        &mut self,
        (submitter, request): (NodeId, RequestId),
        lease: LeaseId,
        worker: NodeId,
        file: &[u8],
        now: Time,
    ) {
        let waited = self.waiting.remove(&(submitter, request));
        let since = waited.as_ref().map_or(now, |waited| waited.since);
        self.tally.started(now.since(since));
        let job = match waited {
            Some(waited) => Job {
                worker: Some(worker),
                since: now,
                ..waited
            },
            None => Job {
                number: self.number(),
                submitter,
                worker: Some(worker),
                file: file_end(file),
                since: now,
                is_told: false,
            },
        };
        if self.bulletin.is_watched() {
            self.bulletin.tell(News::Started {
                job: job.number,
                submitter,
                worker,
                file: job.file.clone(),
            });
        }
        self.running.insert((lease, request), job);
    }

    /// A request ends without a slot.
    pub fn gone(&mut self, submitter: NodeId, request: RequestId, ending: Ending) {
        let Some(job) = self.waiting.remove(&(submitter, request)) else {
            if let Ending::Denied(_) = ending {
                // At once: it never waited.
                self.tally.ended(&ending, false);
            }
            return;
        };
        self.tally.ended(&ending, false);
        if !self.bulletin.is_watched() {
            return;
        }
        // Who is watching wants to know why it is local, though it never waited.
        let is_worth_telling = matches!(ending, Ending::Denied(_));
        if !job.is_told && is_worth_telling {
            self.bulletin.tell(queued(&job));
        }
        if job.is_told || is_worth_telling {
            self.bulletin.tell(News::Ended {
                job: job.number,
                ending,
            });
        }
    }

    /// A job under a lease ended, and its submitter says what came of it.
    pub fn ended(&mut self, lease: LeaseId, request: RequestId, outcome: Outcome) {
        let Some(job) = self.running.remove(&(lease, request)) else {
            return;
        };
        let is_own = job.worker == Some(job.submitter);
        let ending = match outcome {
            Outcome::Unused if is_own => Ending::Own,
            Outcome::Unused | Outcome::Lagged { .. } => Ending::Unused,
            Outcome::Failed { failure, dead } => Ending::Failed { failure, dead },
            Outcome::Done {
                usage,
                output_bytes,
            } => Ending::Done {
                usage,
                output_bytes,
            },
        };
        self.end(&job, ending);
    }

    /// A lease ends; what ran under it is lost, or nobody said what came of it.
    pub fn lease_ended(&mut self, lease: LeaseId, is_lost: bool) {
        let all = (lease, RequestId(0))..=(lease, RequestId(u64::MAX));
        let ran: Vec<_> = self.running.range(all).map(|(&key, _)| key).collect();
        for (lease, request) in ran {
            match self.running.remove(&(lease, request)) {
                Some(job) if is_lost => self.end(&job, Ending::Lost),
                Some(job) => self.end(&job, Ending::Unused),
                None => {}
            }
        }
    }

    fn end(&mut self, job: &Job, ending: Ending) {
        self.tally.ended(&ending, job.worker == Some(job.submitter));
        self.changed(job.worker.unwrap_or(job.submitter));
        self.bulletin.tell(News::Ended {
            job: job.number,
            ending,
        });
    }

    /// Jobs of a node ran there without asking.
    pub fn local(&mut self, node: NodeId, jobs: Vec<LocalJobs>) {
        for LocalJobs { reason, jobs, file } in jobs {
            self.tally.local(&reason, jobs.into());
            self.bulletin.tell(News::Local {
                node,
                reason,
                jobs,
                file: file_end(&file),
            });
        }
    }

    // Who watches.

    /// Somebody watches from now on, or wants a new snapshot; false when there are too many already.
    pub fn watch(&mut self, peer: PeerId, now: Time) -> bool {
        self.bulletin.watch(peer, now)
    }

    /// Whether this peer watches.
    pub fn is_watcher(&self, peer: PeerId) -> bool {
        self.bulletin.is_watcher(peer)
    }

    /// A watcher went.
    pub fn unwatch(&mut self, peer: PeerId) {
        if self.bulletin.unwatch(peer) {
            for job in self.waiting.values_mut() {
                job.is_told = false;
            }
        }
    }

    /// The cluster at this moment. What has not been told yet is in it, so [`Self::flush`] goes first.
    pub fn snapshot(&mut self, netname: &str, nodes: Vec<NodePicture>, now: Time) -> Snapshot {
        for job in self.waiting.values_mut() {
            job.is_told = true;
        }
        self.bulletin.told(&nodes);
        let mut jobs: Vec<&Job> = self.running.values().chain(self.waiting.values()).collect();
        jobs.sort_by_key(|job| job.number);
        let jobs_omitted = jobs.len().saturating_sub(SNAPSHOT_JOBS_MAX) as u32;
        let picture = |job: &Job| JobPicture {
            job: job.number,
            submitter: job.submitter,
            worker: job.worker,
            file: job.file.clone(),
            age_ms: now.since(job.since).as_millis() as u64,
        };
        let jobs = jobs.into_iter().take(SNAPSHOT_JOBS_MAX).map(picture);
        Snapshot {
            netname: netname.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: now.since(Time(0)).as_secs(),
            nodes,
            jobs: jobs.collect(),
            jobs_omitted,
            totals: self.totals(),
        }
    }

    /// What has been done so far.
    pub fn totals(&self) -> Totals {
        self.tally.totals()
    }

    /// The same in more numbers.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// When [`Self::flush`] is due, if anybody watches.
    pub fn next_wake(&self) -> Option<Time> {
        self.bulletin.next_wake()
    }

    /// Whether there is enough to tell, or it is time for it.
    pub fn is_due(&self, now: Time) -> bool {
        self.bulletin.is_due(now)
    }

    /// What is to be told to every watcher now; `picture` shows a node as it is.
    pub fn flush(
        &mut self,
        picture: impl Fn(NodeId) -> Option<NodePicture>,
        now: Time,
    ) -> Vec<(PeerId, FromScheduler)> {
        let waiting = &mut self.waiting;
        let waits = |asked| {
            let job: &mut Job = waiting.get_mut(&asked)?;
            (!std::mem::replace(&mut job.is_told, true)).then(|| queued(job))
        };
        self.bulletin.flush(picture, waits, now)
    }

    fn number(&mut self) -> JobNumber {
        self.jobs_so_far += 1;
        JobNumber(self.jobs_so_far)
    }
}

fn queued(job: &Job) -> News {
    News::Queued {
        job: job.number,
        submitter: job.submitter,
        file: job.file.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Usage;
    use crate::news::REASONS_MAX;

    const SUBMITTER: NodeId = NodeId(1);
    const WORKER: NodeId = NodeId(2);
    const WATCHER: PeerId = PeerId(7);

    fn picture(node: NodeId) -> Option<NodePicture> {
        Some(NodePicture {
            node,
            name: format!("node-{node}"),
            address: "10.0.0.1:10245".into(),
            platform: "x86_64".into(),
            slots: 4,
            no_remote: None,
            is_blocked: false,
            speed_percent: 0,
            local_jobs: 0,
            load_milli: 0,
            memory_mib: 0,
            jobs_done: 0,
        })
    }

    fn at(ms: u64) -> Time {
        Time(ms * 1000)
    }

    fn watched() -> Chronicle {
        let mut chronicle = Chronicle::default();
        assert!(chronicle.watch(WATCHER, at(0)));
        let nodes = [SUBMITTER, WORKER]
            .into_iter()
            .filter_map(picture)
            .collect();
        chronicle.snapshot("TEST", nodes, at(0));
        chronicle
    }

    fn told(chronicle: &mut Chronicle, now: Time) -> Vec<News> {
        let messages = chronicle.flush(picture, now).into_iter();
        messages
            .flat_map(|(_, message)| match message {
                FromScheduler::News { news, .. } => news,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn done() -> Outcome {
        Outcome::Done {
            usage: Usage {
                cpu_us: 5,
                ..Usage::default()
            },
            output_bytes: 6,
        }
    }

    #[test]
    fn a_job_that_waits_is_told_queued_once_and_one_that_does_not_is_not() {
        let mut chronicle = watched();
        let (first, second) = (RequestId(1), RequestId(2));
        chronicle.queued(SUBMITTER, first, b"a.c", at(1));
        chronicle.queued(SUBMITTER, second, b"b.c", at(1));
        chronicle.started((SUBMITTER, first), LeaseId(5), WORKER, b"a.c", at(2));
        let news = told(&mut chronicle, at(50));
        let (started, queued) = (JobNumber(1), JobNumber(2));
        assert_eq!(
            news,
            [
                News::Started {
                    job: started,
                    submitter: SUBMITTER,
                    worker: WORKER,
                    file: "a.c".into(),
                },
                News::Queued {
                    job: queued,
                    submitter: SUBMITTER,
                    file: "b.c".into(),
                },
            ]
        );
        chronicle.gone(SUBMITTER, second, Ending::Withdrawn);
        chronicle.lease_ended(LeaseId(5), true);
        let ended = |job, ending| News::Ended { job, ending };
        assert_eq!(
            told(&mut chronicle, at(100)),
            [
                ended(queued, Ending::Withdrawn),
                ended(started, Ending::Lost)
            ]
        );
        assert_eq!(told(&mut chronicle, at(150)), []);
    }

    #[test]
    fn what_was_withdrawn_before_it_was_told_is_never_told_and_a_denial_is() {
        let mut chronicle = watched();
        chronicle.queued(SUBMITTER, RequestId(1), b"a.c", at(1));
        chronicle.gone(SUBMITTER, RequestId(1), Ending::Withdrawn);
        assert_eq!(told(&mut chronicle, at(50)), []);
        chronicle.queued(SUBMITTER, RequestId(2), b"a.c", at(60));
        chronicle.gone(SUBMITTER, RequestId(2), Ending::Denied("none".into()));
        let news = told(&mut chronicle, at(100));
        assert!(matches!(
            &news[..],
            [
                News::Queued { .. },
                News::Ended {
                    ending: Ending::Denied(_),
                    ..
                }
            ]
        ));
    }

    #[test]
    fn a_snapshot_and_the_news_after_it_make_the_next_snapshot() {
        let mut chronicle = watched();
        let mut known: BTreeMap<JobNumber, Option<NodeId>> = BTreeMap::new();
        // Requests in a pattern that waits, starts, ends and withdraws in all orders.
        for step in 0..400_u64 {
            let now = at(step * 10);
            let request = RequestId(step);
            chronicle.queued(SUBMITTER, request, b"a.c", now);
            let earlier = RequestId((step * 7) % (step + 1));
            match step % 4 {
                0 => chronicle.gone(SUBMITTER, earlier, Ending::Withdrawn),
                1 | 2 => {
                    let asked = (SUBMITTER, earlier);
                    if chronicle.waiting.contains_key(&asked) {
                        chronicle.started(asked, LeaseId(step), WORKER, b"a.c", now);
                    }
                }
                _ => {
                    let lease = LeaseId(step / 2);
                    let all = (lease, RequestId(0))..=(lease, RequestId(u64::MAX));
                    let under = chronicle.running.range(all).next();
                    if let Some((lease, request)) = under.map(|(&key, _)| key) {
                        chronicle.ended(lease, request, done());
                    }
                }
            }
            if !chronicle.is_due(now) {
                continue;
            }
            for news in told(&mut chronicle, now) {
                match news {
                    News::Queued { job, .. } => {
                        assert_eq!(known.insert(job, None), None);
                    }
                    News::Started { job, worker, .. } => {
                        known.insert(job, Some(worker));
                    }
                    News::Ended { job, .. } => assert!(known.remove(&job).is_some()),
                    News::Node(_) | News::Left { .. } | News::Local { .. } => {}
                }
            }
            let jobs = chronicle.snapshot("TEST", vec![], now).jobs;
            let jobs: BTreeMap<_, _> = jobs.iter().map(|job| (job.job, job.worker)).collect();
            assert_eq!(jobs, known, "step {step}");
        }
        assert!(!known.is_empty());
    }

    #[test]
    fn totals_tell_remote_from_own_and_count_reasons_within_a_bound() {
        let mut chronicle = Chronicle::default();
        for (lease, worker, outcome) in [
            (1, WORKER, done()),
            (2, SUBMITTER, done()),
            (3, SUBMITTER, Outcome::Unused),
            (4, WORKER, Outcome::Unused),
        ] {
            let asked = (SUBMITTER, RequestId(lease));
            chronicle.started(asked, LeaseId(lease), worker, b"a.c", at(0));
            chronicle.ended(LeaseId(lease), RequestId(lease), outcome);
        }
        for number in 0..100 {
            let reason = format!("reason-{number}");
            let jobs = LocalJobs {
                reason,
                jobs: 1,
                file: Bytes::default(),
            };
            chronicle.local(SUBMITTER, vec![jobs]);
        }
        let totals = chronicle.totals();
        assert_eq!((totals.remote, totals.own), (1, 2));
        assert_eq!((totals.remote_cpu_us, totals.output_bytes), (5, 6));
        assert_eq!(totals.local.len(), REASONS_MAX + 1);
        let sum: u64 = totals.local.iter().map(|(_, count)| count).sum();
        assert_eq!(sum, 100);
    }

    #[test]
    fn who_watches_hears_a_heartbeat_and_nobody_else_costs_anything() {
        let mut chronicle = Chronicle::default();
        chronicle.queued(SUBMITTER, RequestId(1), b"a.c", at(0));
        chronicle.changed(SUBMITTER);
        assert_eq!(chronicle.next_wake(), None);
        assert!(chronicle.watch(WATCHER, at(0)));
        assert_eq!(chronicle.next_wake(), Some(at(1000)));
        assert_eq!(chronicle.flush(picture, at(1000)).len(), 1);
        chronicle.queued(SUBMITTER, RequestId(2), b"a.c", at(1010));
        assert_eq!(chronicle.next_wake(), Some(at(1050)));
        chronicle.unwatch(WATCHER);
        assert_eq!(chronicle.next_wake(), None);
        assert!(chronicle.bulletin.is_empty());
        for peer in 0..WATCHERS_MAX as u64 {
            assert!(chronicle.watch(PeerId(peer), at(0)));
        }
        assert!(!chronicle.watch(PeerId(1000), at(0)), "too many");
        assert!(chronicle.watch(PeerId(0), at(0)), "one of them, again");
    }

    #[test]
    fn a_changed_load_is_told_once_a_second_and_only_when_it_differs() {
        let mut chronicle = watched();
        chronicle.changed(WORKER);
        assert_eq!(told(&mut chronicle, at(500)), []);
        let load = |node| {
            picture(node).map(|picture| NodePicture {
                load_milli: 9,
                ..picture
            })
        };
        let messages = chronicle.flush(load, at(1100));
        let FromScheduler::News { news, .. } = &messages[0].1 else {
            panic!("{messages:?}");
        };
        assert_eq!(news[..], [News::Node(load(WORKER).unwrap())]);
        chronicle.changed(WORKER);
        let messages = chronicle.flush(load, at(2200));
        let empty = FromScheduler::News {
            skipped: 0,
            news: vec![],
        };
        assert_eq!(messages[0].1, empty);
    }
}
