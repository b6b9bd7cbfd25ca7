//! The cluster as the monitor believes it to be: news in, a picture out.
//!
//! Everything that can grow has a bound: jobs of the moment by what the scheduler has, jobs that ended
//! by [`RECENT_MAX`] and [`super::node::PAST_MAX`], pairs of nodes by [`PAIRS_MAX`], nodes by the
//! scheduler's own limit. When a scheduler goes, the last picture stays, and is said to be old; the next one's
//! snapshot replaces it, and what is known by name is kept.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use crate::id::{NodeId, Time};
use crate::monitor::history::History;
use crate::monitor::job::{Live, Past, Recent, Told};
use crate::monitor::node::{NodeRow, add_reason};
use crate::monitor::text::clean;
use crate::news::{Ending, JobNumber, JobPicture, News, NodePicture, Snapshot, Totals};

/// Things that are over which are remembered, at most.
pub const RECENT_MAX: usize = 2000;
/// Pairs of submitter and worker that are counted, at most; when there are more, those that have
/// been quiet are forgotten.
pub const PAIRS_MAX: usize = 64 << 10;
/// A pair without a job for so long is quiet.
const QUIET: Duration = Duration::from_secs(60);
/// How long a notice is shown.
const NOTICE: Duration = Duration::from_secs(8);

/// What the model hears.
#[derive(Clone, Debug)]
pub enum Event {
    /// A scheduler was found, at this address; its snapshot follows.
    Found(String),
    /// There is no scheduler, and why.
    Lost(String),
    /// What the scheduler knows now.
    Snapshot(Snapshot),
    /// What has happened since.
    News {
        /// How many news were left out before these.
        skipped: u64,
        /// In the order in which it happened.
        news: Vec<News>,
    },
    /// Time has passed.
    Tick,
}

/// Whether there is a scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// None has been found so far; the reason is empty before the first attempt ended.
    Searching(String),
    /// Its news are heard.
    Up,
    /// It is gone since then, for this reason; what is shown is old.
    Lost(Time, String),
}

/// Jobs of one submitter on one worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// That run now.
    pub running: u32,
    /// That were compiled.
    pub done: u64,
    /// Processor time that they took, in microseconds.
    pub cpu_us: u64,
    /// When the last began or ended.
    pub last: Time,
}

/// The cluster.
#[derive(Clone, Debug)]
pub struct Model {
    link: Link,
    address: String,
    netname: String,
    version: String,
    /// When the scheduler started, on the monitor's clock and before its zero: microseconds.
    scheduler_start: i128,
    nodes: BTreeMap<NodeId, NodeRow>,
    jobs: BTreeMap<JobNumber, Live>,
    recent: VecDeque<Recent>,
    pairs: BTreeMap<(NodeId, NodeId), Pair>,
    history: History,
    totals: Totals,
    reasons: BTreeMap<Rc<str>, u64>,
    waiting: u32,
    missed: u64,
    told_so_far: u64,
    notice: Option<(Time, String)>,
    now: Time,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            link: Link::Searching(String::new()),
            address: String::new(),
            netname: String::new(),
            version: String::new(),
            scheduler_start: 0,
            nodes: BTreeMap::new(),
            jobs: BTreeMap::new(),
            recent: VecDeque::new(),
            pairs: BTreeMap::new(),
            history: History::default(),
            totals: Totals::default(),
            reasons: BTreeMap::new(),
            waiting: 0,
            missed: 0,
            told_so_far: 0,
            notice: None,
            now: Time(0),
        }
    }
}

impl Model {
    /// Takes in what happened at `now`, which never goes back. Returns whether news were missed, so that a new
    /// snapshot is needed.
    pub fn on_event(&mut self, event: Event, now: Time) -> bool {
        self.now = now;
        let mut is_stale = false;
        match event {
            Event::Found(address) => {
                if !self.address.is_empty() && self.address != address {
                    self.notify(format!("another scheduler: {}", clean(address.as_bytes())));
                }
                self.address = clean(address.as_bytes());
            }
            Event::Lost(why) => self.lose(clean(why.as_bytes())),
            Event::Snapshot(snapshot) => self.replace(snapshot),
            Event::News { skipped, news } => {
                if skipped > 0 {
                    self.missed = self.missed.saturating_add(skipped);
                    is_stale = true;
                }
                for news in news {
                    self.hear(news);
                }
            }
            Event::Tick => {}
        }
        let busy = self.busy();
        self.history.level(self.waiting, busy, now);
        is_stale
    }

    /// Whether there is a scheduler.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Where the scheduler is, or was; empty before the first.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The cluster's name; empty before the first snapshot.
    pub fn netname(&self) -> &str {
        &self.netname
    }

    /// The version of the scheduler's program.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// How long the scheduler has been running.
    pub fn uptime(&self) -> Duration {
        let micros = i128::from(self.now.0) - self.scheduler_start;
        Duration::from_micros(micros.clamp(0, i128::from(u64::MAX)) as u64)
    }

    /// The nodes.
    pub fn nodes(&self) -> &BTreeMap<NodeId, NodeRow> {
        &self.nodes
    }

    /// A node's name, or a question mark when it is gone.
    pub fn name(&self, node: NodeId) -> &str {
        self.nodes.get(&node).map_or("?", |row| &row.picture.name)
    }

    /// The jobs that wait or run.
    pub fn jobs(&self) -> &BTreeMap<JobNumber, Live> {
        &self.jobs
    }

    /// What is over, the oldest first.
    pub fn recent(&self) -> &VecDeque<Recent> {
        &self.recent
    }

    /// Who compiles for whom: by submitter and worker.
    pub fn pairs(&self) -> &BTreeMap<(NodeId, NodeId), Pair> {
        &self.pairs
    }

    /// The last seconds.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// What has been done since the scheduler started; its reasons are in [`Self::reasons`].
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Jobs that ran on their submitter's machine without asking since the scheduler started, by reason.
    pub fn reasons(&self) -> &BTreeMap<Rc<str>, u64> {
        &self.reasons
    }

    /// Jobs that wait.
    pub fn waiting(&self) -> u32 {
        self.waiting
    }

    /// Slots of nodes that compile for others.
    pub fn slots(&self) -> u32 {
        let workers = self.nodes.values().filter(|row| row.takes_jobs());
        workers.map(|row| row.picture.slots).sum()
    }

    /// Slots in use, on whichever node.
    pub fn busy(&self) -> u32 {
        self.nodes.values().map(NodeRow::busy).sum()
    }

    /// News that were missed so far, since this end was too slow for them.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// What is to be said about the connection at this moment, if anything.
    pub fn notice(&self) -> Option<&str> {
        let (since, text) = self.notice.as_ref()?;
        (self.now.since(*since) < NOTICE).then_some(text)
    }

    /// The time of the last event.
    pub fn now(&self) -> Time {
        self.now
    }

    // The connection.

    fn lose(&mut self, why: String) {
        self.link = match &self.link {
            Link::Searching(_) => Link::Searching(why),
            Link::Up => Link::Lost(self.now, why),
            Link::Lost(since, _) => Link::Lost(*since, why),
        };
    }

    fn replace(&mut self, snapshot: Snapshot) {
        let start = i128::from(self.now.0) - i128::from(snapshot.uptime_s) * 1_000_000;
        if let Link::Lost(since, _) = &self.link {
            // A scheduler says its age in whole seconds.
            let is_another = start > self.scheduler_start + 2_000_000;
            let gap = crate::monitor::text::duration(self.now.since(*since));
            let notice = match is_another {
                true => format!("a new scheduler at {}, after {gap} without", self.address),
                false => format!("the scheduler is back after {gap}"),
            };
            self.notify(notice);
        }
        self.scheduler_start = start;
        self.link = Link::Up;
        self.netname = clean(snapshot.netname.as_bytes());
        self.version = clean(snapshot.version.as_bytes());
        let known = std::mem::take(&mut self.nodes).into_values();
        let mut known: BTreeMap<String, NodeRow> =
            known.map(|row| (row.picture.name.clone(), row)).collect();
        let mut renamed = BTreeMap::new();
        for picture in snapshot.nodes {
            let picture = printable(picture);
            let node = picture.node;
            let row = match known.remove(&picture.name) {
                Some(mut row) => {
                    renamed.insert(row.picture.node, node);
                    row.forget_jobs();
                    row.picture = picture;
                    row
                }
                None => NodeRow::new(picture, self.now),
            };
            self.nodes.insert(node, row);
        }
        self.renumber(&renamed);
        self.jobs.clear();
        self.waiting = 0;
        for job in snapshot.jobs {
            self.resume(job);
        }
        let reasons = snapshot.totals.local.iter();
        self.reasons = reasons
            .map(|(word, count)| (clean(word.as_bytes()).into(), *count))
            .collect();
        self.totals = snapshot.totals;
    }

    /// The same nodes have other numbers at another scheduler.
    fn renumber(&mut self, renamed: &BTreeMap<NodeId, NodeId>) {
        let pairs = std::mem::take(&mut self.pairs).into_iter();
        self.pairs = pairs
            .filter_map(|((submitter, worker), pair)| {
                let key = (*renamed.get(&submitter)?, *renamed.get(&worker)?);
                Some((key, Pair { running: 0, ..pair }))
            })
            .collect();
        if renamed.iter().all(|(old, new)| old == new) {
            return;
        }
        // A number that means another node now must not name it.
        const NOBODY: NodeId = NodeId(u32::MAX);
        let again = |node: NodeId| *renamed.get(&node).unwrap_or(&NOBODY);
        for recent in &mut self.recent {
            match recent {
                Recent::Job(past) => {
                    let past = Rc::make_mut(past);
                    past.job.submitter = again(past.job.submitter);
                    past.job.worker = past.job.worker.map(again);
                }
                Recent::Local(told) => {
                    let told = Rc::make_mut(told);
                    told.submitter = again(told.submitter);
                }
            }
        }
        for row in self.nodes.values_mut() {
            for past in &mut row.past {
                let past = Rc::make_mut(past);
                past.job.submitter = again(past.job.submitter);
                past.job.worker = past.job.worker.map(again);
            }
        }
    }

    fn resume(&mut self, picture: JobPicture) {
        let age = Duration::from_millis(picture.age_ms).as_micros() as u64;
        let since = Time(self.now.0.saturating_sub(age));
        let file: Rc<str> = clean(&picture.file).into();
        self.queue(picture.job, picture.submitter, file.clone(), since);
        if let Some(worker) = picture.worker {
            self.start(picture.job, picture.submitter, worker, file, since);
        }
    }

    fn notify(&mut self, text: String) {
        self.notice = Some((self.now, text));
    }

    // The news.

    fn hear(&mut self, news: News) {
        let now = self.now;
        match news {
            News::Node(picture) => {
                let picture = printable(picture);
                match self.nodes.get_mut(&picture.node) {
                    Some(row) => row.picture = picture,
                    None => {
                        let row = NodeRow::new(picture, now);
                        self.nodes.insert(row.picture.node, row);
                    }
                }
            }
            News::Left { node } => {
                self.nodes.remove(&node);
                self.pairs
                    .retain(|&(submitter, worker), _| submitter != node && worker != node);
            }
            News::Queued {
                job,
                submitter,
                file,
            } => self.queue(job, submitter, clean(&file).into(), now),
            News::Started {
                job,
                submitter,
                worker,
                file,
            } => self.start(job, submitter, worker, clean(&file).into(), now),
            News::Ended { job, ending } => self.end(job, ending),
            News::Local {
                node,
                reason,
                jobs,
                file,
            } => {
                let reason: Rc<str> = clean(reason.as_bytes()).into();
                if let Some(row) = self.nodes.get_mut(&node) {
                    row.note_local(&reason, jobs);
                }
                add_reason(&mut self.reasons, &reason, jobs.into());
                self.history.at(now).local += jobs;
                self.told_so_far += 1;
                let told = Told {
                    serial: self.told_so_far,
                    submitter: node,
                    reason,
                    jobs,
                    file: clean(&file).into(),
                    at: now,
                };
                self.remember(Recent::Local(Rc::new(told)));
            }
        }
    }

    fn queue(&mut self, number: JobNumber, submitter: NodeId, file: Rc<str>, since: Time) {
        let job = Live {
            number,
            submitter,
            worker: None,
            lane: 0,
            file,
            since,
            waited: Duration::ZERO,
        };
        if self.jobs.insert(number, job).is_none() {
            self.waiting += 1;
            if let Some(row) = self.nodes.get_mut(&submitter) {
                row.waiting += 1;
            }
        }
    }

    fn start(
        &mut self,
        number: JobNumber,
        submitter: NodeId,
        worker: NodeId,
        file: Rc<str>,
        since: Time,
    ) {
        let waited = match self.forget(number) {
            Some(before) => since.since(before.since),
            None => Duration::ZERO,
        };
        let lane = match self.nodes.get_mut(&worker) {
            Some(row) => {
                match submitter == worker {
                    true => row.own += 1,
                    false => row.guests += 1,
                }
                row.occupy(number)
            }
            None => 0,
        };
        if submitter != worker
            && let Some(row) = self.nodes.get_mut(&submitter)
        {
            row.away += 1;
        }
        if submitter != worker
            && let Some(pair) = self.pair(submitter, worker)
        {
            pair.running += 1;
        }
        let job = Live {
            number,
            submitter,
            worker: Some(worker),
            lane,
            file,
            since,
            waited,
        };
        self.jobs.insert(number, job);
    }

    fn end(&mut self, number: JobNumber, ending: Ending) {
        let Some(job) = self.forget(number) else {
            return;
        };
        let now = self.now;
        let past = Rc::new(Past {
            job,
            end: now,
            ending,
        });
        self.count(&past);
        if !matches!(past.ending, Ending::Unused | Ending::Withdrawn) {
            self.remember(Recent::Job(past));
        }
    }

    /// Takes a job out of the picture of the moment.
    fn forget(&mut self, number: JobNumber) -> Option<Live> {
        let job = self.jobs.remove(&number)?;
        let Some(worker) = job.worker else {
            self.waiting = self.waiting.saturating_sub(1);
            if let Some(row) = self.nodes.get_mut(&job.submitter) {
                row.waiting = row.waiting.saturating_sub(1);
            }
            return Some(job);
        };
        let is_own = worker == job.submitter;
        if let Some(row) = self.nodes.get_mut(&worker) {
            match is_own {
                true => row.own = row.own.saturating_sub(1),
                false => row.guests = row.guests.saturating_sub(1),
            }
            row.vacate(&job);
        }
        if !is_own && let Some(row) = self.nodes.get_mut(&job.submitter) {
            row.away = row.away.saturating_sub(1);
        }
        if let Some(pair) = self.pairs.get_mut(&(job.submitter, worker)) {
            pair.running = pair.running.saturating_sub(1);
        }
        Some(job)
    }

    fn count(&mut self, past: &Rc<Past>) {
        let now = self.now;
        let Some(worker) = past.job.worker else {
            return;
        };
        let submitter = past.job.submitter;
        let second = self.history.at(now);
        match &past.ending {
            Ending::Done {
                usage,
                output_bytes,
            } if !past.is_own() => {
                second.remote += 1;
                second.output_bytes = second.output_bytes.saturating_add(*output_bytes);
                let totals = &mut self.totals;
                totals.remote += 1;
                totals.remote_cpu_us = totals.remote_cpu_us.saturating_add(usage.cpu_us);
                totals.output_bytes = totals.output_bytes.saturating_add(*output_bytes);
                if let Some(row) = self.nodes.get_mut(&worker) {
                    row.done_in += 1;
                    row.cpu_in_us = row.cpu_in_us.saturating_add(usage.cpu_us);
                }
                if let Some(row) = self.nodes.get_mut(&submitter) {
                    row.done_out += 1;
                    row.cpu_out_us = row.cpu_out_us.saturating_add(usage.cpu_us);
                }
                if let Some(pair) = self.pair(submitter, worker) {
                    pair.done += 1;
                    pair.cpu_us = pair.cpu_us.saturating_add(usage.cpu_us);
                }
            }
            Ending::Done { .. } | Ending::Own => {
                second.local += 1;
                self.totals.own += 1;
                if let Some(row) = self.nodes.get_mut(&submitter) {
                    row.done_here += 1;
                }
            }
            Ending::Failed { .. } => {
                second.failed += 1;
                self.totals.failed += 1;
                if let Some(row) = self.nodes.get_mut(&worker) {
                    row.failures += 1;
                }
            }
            Ending::Unused | Ending::Lost | Ending::Withdrawn | Ending::Denied(_) => {}
        }
        let nodes = self.nodes.len();
        if let Some(row) = self.nodes.get_mut(&worker) {
            row.remember(past.clone(), nodes);
        }
    }

    fn pair(&mut self, submitter: NodeId, worker: NodeId) -> Option<&mut Pair> {
        let key = (submitter, worker);
        let now = self.now;
        if self.pairs.len() >= PAIRS_MAX && !self.pairs.contains_key(&key) {
            self.pairs
                .retain(|_, pair| pair.running > 0 || now.since(pair.last) < QUIET);
            if self.pairs.len() >= PAIRS_MAX {
                return None;
            }
        }
        let pair = self.pairs.entry(key).or_default();
        pair.last = now;
        Some(pair)
    }

    fn remember(&mut self, recent: Recent) {
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(recent);
    }
}

/// A picture with names that can be shown.
fn printable(picture: NodePicture) -> NodePicture {
    NodePicture {
        name: clean(picture.name.as_bytes()),
        address: clean(picture.address.as_bytes()),
        platform: clean(picture.platform.as_bytes()),
        no_remote: picture.no_remote.map(|why| clean(why.as_bytes())),
        ..picture
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Bytes;
    use crate::message::{Failure, Usage};

    const DESK: NodeId = NodeId(1);
    const ANVIL: NodeId = NodeId(2);

    fn picture(node: NodeId, name: &str, slots: u32) -> NodePicture {
        NodePicture {
            node,
            name: name.into(),
            address: "10.0.0.1:10245".into(),
            platform: "x86_64".into(),
            slots,
            no_remote: None,
            is_blocked: false,
            speed_percent: 0,
            local_jobs: 0,
            load_milli: 0,
            memory_mib: 0,
            jobs_done: 0,
        }
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            netname: "TEST".into(),
            nodes: vec![picture(DESK, "desk", 2), picture(ANVIL, "anvil", 8)],
            ..Snapshot::default()
        }
    }

    struct Story {
        model: Model,
        now: Time,
    }

    impl Story {
        fn new() -> Self {
            let mut story = Self {
                model: Model::default(),
                now: Time(1_000_000),
            };
            story.event(Event::Found("10.0.0.9:8765".into()));
            story.event(Event::Snapshot(snapshot()));
            story
        }

        fn event(&mut self, event: Event) -> bool {
            self.model.on_event(event, self.now)
        }

        fn hear(&mut self, news: News) {
            let news = vec![news];
            self.event(Event::News { skipped: 0, news });
        }

        fn pass(&mut self, seconds: u64) {
            self.now = self.now.after(Duration::from_secs(seconds));
            self.event(Event::Tick);
        }

        fn queue(&mut self, job: u64) {
            self.hear(News::Queued {
                job: JobNumber(job),
                submitter: DESK,
                file: "a.c".into(),
            });
        }

        fn start(&mut self, job: u64, worker: NodeId) {
            self.hear(News::Started {
                job: JobNumber(job),
                submitter: DESK,
                worker,
                file: "a.c".into(),
            });
        }

        fn end(&mut self, job: u64, ending: Ending) {
            self.hear(News::Ended {
                job: JobNumber(job),
                ending,
            });
        }

        fn row(&self, node: NodeId) -> &NodeRow {
            &self.model.nodes()[&node]
        }
    }

    fn done(cpu_us: u64) -> Ending {
        Ending::Done {
            usage: Usage {
                cpu_us,
                ..Usage::default()
            },
            output_bytes: 1000,
        }
    }

    #[test]
    fn a_job_is_followed_from_its_queue_to_its_end() {
        let mut story = Story::new();
        story.queue(1);
        assert_eq!((story.model.waiting(), story.row(DESK).waiting), (1, 1));
        story.pass(2);
        story.start(1, ANVIL);
        assert_eq!((story.model.waiting(), story.row(DESK).waiting), (0, 0));
        assert_eq!((story.row(ANVIL).guests, story.row(DESK).away), (1, 1));
        assert_eq!(story.model.jobs()[&JobNumber(1)].waited.as_secs(), 2);
        story.pass(3);
        story.end(1, done(2_500_000));
        assert!(story.model.jobs().is_empty());
        assert_eq!((story.row(ANVIL).guests, story.row(DESK).away), (0, 0));
        assert_eq!((story.row(ANVIL).done_in, story.row(DESK).done_out), (1, 1));
        assert_eq!(story.row(DESK).cpu_out_us, 2_500_000);
        let pair = story.model.pairs()[&(DESK, ANVIL)];
        assert_eq!((pair.running, pair.done, pair.cpu_us), (0, 1, 2_500_000));
        let Some(Recent::Job(past)) = story.model.recent().back() else {
            panic!("{:?}", story.model.recent());
        };
        assert_eq!(past.lasted().as_secs(), 3);
        assert_eq!(story.model.totals().remote, 1);
    }

    #[test]
    fn every_ending_counts_where_it_belongs() {
        let failed = Ending::Failed {
            failure: Failure::Memory,
            dead: false,
        };
        // Remote, own, failed in the totals; here for the submitter, failures for the worker.
        for (worker, ending, totals, here, failures) in [
            (ANVIL, done(1), (1, 0, 0), 0, 0),
            (DESK, Ending::Own, (0, 1, 0), 1, 0),
            (DESK, done(1), (0, 1, 0), 1, 0),
            (ANVIL, failed, (0, 0, 1), 0, 1),
            (ANVIL, Ending::Unused, (0, 0, 0), 0, 0),
            (ANVIL, Ending::Lost, (0, 0, 0), 0, 0),
        ] {
            let mut story = Story::new();
            story.start(1, worker);
            story.end(1, ending.clone());
            let sums = story.model.totals();
            assert_eq!((sums.remote, sums.own, sums.failed), totals, "{ending:?}");
            assert_eq!(story.row(DESK).done_here, here, "{ending:?}");
            assert_eq!(story.row(worker).failures, failures, "{ending:?}");
            assert_eq!(story.model.busy(), 0, "{ending:?}");
        }
    }

    #[test]
    fn a_slot_is_a_row_that_is_used_again() {
        let mut story = Story::new();
        for job in 1..=3 {
            story.start(job, ANVIL);
        }
        story.end(2, done(1));
        story.start(4, ANVIL);
        let lanes: Vec<_> = story
            .row(ANVIL)
            .lanes
            .iter()
            .flatten()
            .map(|j| j.0)
            .collect();
        assert_eq!(lanes, [1, 4, 3]);
    }

    #[test]
    fn local_jobs_are_counted_by_reason_and_the_reasons_are_bounded() {
        let mut story = Story::new();
        for number in 0..200 {
            story.hear(News::Local {
                node: DESK,
                reason: format!("reason-{number}"),
                jobs: 2,
                file: Bytes::default(),
            });
        }
        let reasons = story.model.reasons();
        assert_eq!(reasons.values().sum::<u64>(), 400);
        assert_eq!(reasons.len(), crate::news::REASONS_MAX + 1);
        assert_eq!(story.row(DESK).done_here, 400);
        assert_eq!(story.row(DESK).reasons.len(), crate::news::REASONS_MAX + 1);
    }

    #[test]
    fn a_lost_scheduler_leaves_its_picture_and_the_next_one_replaces_it() {
        let mut story = Story::new();
        story.start(1, ANVIL);
        story.end(1, done(7));
        story.start(2, ANVIL);
        story.pass(5);
        story.event(Event::Lost("gone".into()));
        assert!(matches!(story.model.link(), Link::Lost(_, why) if why == "gone"));
        assert_eq!((story.model.nodes().len(), story.model.busy()), (2, 1));
        story.pass(3);
        // The next scheduler numbers the nodes otherwise, and job 2 is unknown to it.
        story.event(Event::Found("10.0.0.8:8765".into()));
        let anew = Snapshot {
            nodes: vec![
                picture(NodeId(1), "anvil", 8),
                picture(NodeId(9), "desk", 2),
            ],
            ..snapshot()
        };
        story.event(Event::Snapshot(anew));
        assert_eq!(story.model.link(), &Link::Up);
        assert_eq!(story.model.busy(), 0);
        let (anvil, desk) = (story.row(NodeId(1)), story.row(NodeId(9)));
        assert_eq!((&*anvil.picture.name, anvil.done_in), ("anvil", 1));
        assert_eq!((&*desk.picture.name, desk.cpu_out_us), ("desk", 7));
        assert_eq!(story.model.pairs()[&(NodeId(9), NodeId(1))].done, 1);
        let Some(Recent::Job(past)) = story.model.recent().front() else {
            panic!("{:?}", story.model.recent());
        };
        assert_eq!(
            (past.job.submitter, past.job.worker),
            (NodeId(9), Some(NodeId(1)))
        );
        assert!(
            story
                .model
                .notice()
                .is_some_and(|notice| notice.contains("new scheduler"))
        );
        story.pass(60);
        assert_eq!(story.model.notice(), None);
    }

    #[test]
    fn missed_news_are_counted_and_call_for_a_snapshot() {
        let mut story = Story::new();
        let news = Vec::new();
        assert!(story.event(Event::News { skipped: 7, news }));
        assert_eq!(story.model.missed(), 7);
        // The end of a job whose start was missed is no harm.
        story.end(99, done(1));
        assert_eq!(story.model.busy(), 0);
    }

    #[test]
    fn everything_that_can_grow_is_bounded() {
        let mut story = Story::new();
        for job in 0..3 * RECENT_MAX as u64 {
            story.start(job, ANVIL);
            story.end(job, done(1));
        }
        assert_eq!(story.model.recent().len(), RECENT_MAX);
        assert_eq!(story.row(ANVIL).past.len(), 2000);
        assert_eq!(story.row(ANVIL).lanes.len(), 1);
    }

    #[test]
    fn names_from_outside_can_be_shown() {
        let mut story = Story::new();
        story.hear(News::Node(picture(NodeId(3), "\x1b[2Jevil\n", 1)));
        story.hear(News::Started {
            job: JobNumber(1),
            submitter: NodeId(3),
            worker: NodeId(3),
            file: Bytes::from(&b"\x1b]0;title\x07\xff.c"[..]),
        });
        let printable = |text: &str| !text.chars().any(char::is_control);
        assert!(printable(story.model.name(NodeId(3))));
        assert!(printable(&story.model.jobs()[&JobNumber(1)].file));
    }
}
