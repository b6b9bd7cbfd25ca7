//! How fast nodes are and how large jobs are, learned from the jobs that came back.
//!
//! Bytes of output say little about the work behind them, so nodes are compared on the same work:
//! a file that was compiled before has a known cost, and a node that needs twice as much is half as
//! fast. For a file that is new, output bytes have to do, and count less.
//!
//! The unit of cost is a microsecond of an imagined *reference node*. Each job gives two unknowns one
//! equation, cost × slowness = processor time, and both are moved towards it, by logarithms, since
//! twice and half are equal errors. Whichever is more in doubt moves further: what a file is thought to cost after one
//! job on a node that nobody knew says little about the next node. Only ratios mean anything; that the unit drifts is harmless.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{Bytes, Digest};
use crate::message::{Size, Want};

/// Files whose cost is remembered, at most: two generations of half as many.
const WORKS_MAX: usize = 65_536;
/// Nodes whose speed is remembered, at most, connected or not; twice as many as can be connected. When
/// there is one more, the half that worked longest ago is forgotten.
const NODES_MAX: usize = 2 * crate::scheduler::state::NODES_MAX;
/// One job moves a node's logarithm by no more than this ratio would: a liar or an accident is one job.
const RATIO_MAX: f64 = 8.0;
/// Variances of what is not known, as logarithms: the speed of a node of which nothing is known, which differs by a
/// factor of two or so;
const DOUBT_NODE: f64 = 0.5;
/// the cost of a file by its bytes of output, and by nothing;
const DOUBT_BY_BYTES: f64 = 0.3;
const DOUBT_BY_NOTHING: f64 = 1.0;
/// and how one job differs from another of the same file on the same node.
const DOUBT_JOB: f64 = 0.02;
/// However often they were seen, nodes change, and files do so more often.
const DOUBT_NODE_LEAST: f64 = 0.002;
const DOUBT_WORK_LEAST: f64 = 0.01;
/// How far a new measurement moves the memory and the output of a file, and the cluster's averages.
const GAIN_WORK: f64 = 0.3;
const GAIN_MEAN: f64 = 0.05;
/// A node that was overlooked while so many jobs were done elsewhere may have changed since.
const OVERLOOKED_JOBS: u64 = 64;
/// How much is in doubt from then on.
const DOUBT_OVERLOOKED: f64 = 0.3;
/// A job that ran out of memory is taken to need so many times what there was.
const HUNGRY: f64 = 1.25;
/// What a job costs as long as nothing is known, in microseconds.
const COST_UNKNOWN_US: f64 = 1_000_000.0;

/// What is compiled, as far as it tells the size of the job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Work {
    /// In which directory and with which flags, as a digest. First, since works are compared in this
    /// order, and this tells most of them apart in one step.
    pub variant: u64,
    /// Which file.
    pub file: Bytes,
    /// With which toolchain.
    pub toolchain: Digest,
}

impl Work {
    /// What a request is for.
    pub fn of(want: &Want) -> Self {
        Self {
            toolchain: want.toolchain,
            file: want.file.clone(),
            variant: want.variant,
        }
    }
}

impl From<Want> for Work {
    fn from(want: Want) -> Self {
        Self {
            variant: want.variant,
            file: want.file,
            toolchain: want.toolchain,
        }
    }
}

/// What is remembered of a work.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// In reference microseconds.
    cost_us: f64,
    /// How much in doubt that is: the variance of its logarithm.
    doubt: f64,
    /// The most that it was seen to use, in MiB; fades when it uses less.
    memory_mib: f64,
    /// What it writes.
    output_bytes: f64,
}

/// What a job took on its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consumed {
    /// Processor time, in microseconds.
    pub cpu_us: u64,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Bytes that it wrote.
    pub output_bytes: u64,
}

/// What was learned.
#[derive(Clone, Debug, Default)]
pub struct Speeds {
    nodes: BTreeMap<String, NodeSpeed>,
    /// Two generations: what is used moves to the young one, and when that is full the old one is
    /// forgotten.
    young: BTreeMap<Work, Known>,
    old: BTreeMap<Work, Known>,
    /// Means over all jobs, as logarithms: cost, and cost per byte of output.
    cost_log: Option<f64>,
    cost_per_byte_log: Option<f64>,
    jobs: u64,
}

/// What is remembered of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeSpeed {
    slowness_log: f64,
    /// How much in doubt that is: its variance.
    doubt: f64,
    last_job: u64,
}

impl Default for NodeSpeed {
    fn default() -> Self {
        Self {
            slowness_log: 0.0,
            doubt: DOUBT_NODE,
            last_job: 0,
        }
    }
}

/// All that was learned, as it is kept in a file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recollection {
    nodes: Vec<(String, NodeSpeed)>,
    works: Vec<(Work, Known)>,
    cost_log: Option<f64>,
    cost_per_byte_log: Option<f64>,
    jobs: u64,
}

impl Speeds {
    /// What an earlier scheduler has learned. Numbers that it can't have learned are left out.
    pub fn recalling(recollection: Recollection) -> Self {
        let is_sane = |number: &f64| number.is_finite() && number.abs() < 100.0;
        let nodes = recollection.nodes.into_iter().filter(|(_, speed)| {
            is_sane(&speed.slowness_log) && (DOUBT_NODE_LEAST..=DOUBT_NODE).contains(&speed.doubt)
        });
        let works = recollection.works.into_iter().filter(|(_, known)| {
            let numbers = [known.cost_us, known.memory_mib, known.output_bytes];
            numbers.iter().all(|number| (0.0..1e15).contains(number))
                && (0.0..100.0).contains(&known.doubt)
        });
        Self {
            nodes: nodes.take(NODES_MAX).collect(),
            young: BTreeMap::new(),
            old: works.take(WORKS_MAX / 2).collect(),
            cost_log: recollection.cost_log.filter(is_sane),
            cost_per_byte_log: recollection.cost_per_byte_log.filter(is_sane),
            jobs: recollection.jobs,
        }
    }

    /// All that was learned so far; of the jobs, those that were seen last.
    pub fn recollection(&self) -> Recollection {
        let pairs = |works: &BTreeMap<Work, Known>| -> Vec<(Work, Known)> {
            works
                .iter()
                .map(|(work, known)| (work.clone(), *known))
                .collect()
        };
        let mut works = pairs(&self.young);
        works.extend(pairs(&self.old));
        works.truncate(WORKS_MAX / 2);
        Recollection {
            nodes: self
                .nodes
                .iter()
                .map(|(name, speed)| (name.clone(), speed.clone()))
                .collect(),
            works,
            cost_log: self.cost_log,
            cost_per_byte_log: self.cost_per_byte_log,
            jobs: self.jobs,
        }
    }

    /// How many jobs were learned from.
    pub fn jobs(&self) -> u64 {
        self.jobs
    }

    /// A job came back from `node`.
    pub fn learn(&mut self, node: &str, work: &Work, job: Consumed) {
        let Consumed {
            cpu_us,
            memory_mib,
            output_bytes,
        } = job;
        if cpu_us == 0 {
            // A compile takes time; who says otherwise did not measure.
            return;
        }
        self.jobs += 1;
        let cpu_log = (cpu_us as f64).ln();
        let known = self.recall(work).copied();
        let known = known.filter(|known| known.cost_us > 0.0);
        let by_bytes = || Some(self.cost_per_byte_log? + (output_bytes.max(1) as f64).ln());
        let expected = match known {
            Some(known) => Some((known.cost_us.ln(), known.doubt)),
            None => by_bytes()
                .map(|cost_log| (cost_log, DOUBT_BY_BYTES))
                .or_else(|| Some((self.cost_log?, DOUBT_BY_NOTHING))),
        };
        let jobs = self.jobs;
        let speed = self.node_mut(node);
        speed.last_job = jobs;
        let (cost_log, doubt) = match expected {
            Some(expected) => speed.compare(cpu_log, expected),
            None => (cpu_log - speed.slowness_log, speed.doubt + DOUBT_JOB),
        };
        let (memory_mib, written) = (memory_mib as f64, output_bytes as f64);
        let (memory_mib, written) = match known {
            Some(old) => (
                memory_mib.max(old.memory_mib - GAIN_WORK * (old.memory_mib - memory_mib)),
                old.output_bytes + GAIN_WORK * (written - old.output_bytes),
            ),
            None => (memory_mib, written),
        };
        let now_known = Known {
            cost_us: cost_log.exp(),
            doubt,
            memory_mib,
            output_bytes: written,
        };
        self.remember(work, now_known);
        blend(&mut self.cost_log, cost_log);
        if output_bytes > 0 {
            blend(
                &mut self.cost_per_byte_log,
                cost_log - (output_bytes as f64).ln(),
            );
        }
    }

    /// A job was given up on `node` when its compiler had run for so long, since it had ended elsewhere: it takes
    /// longer here. Tells something only when it should have ended by then, and of the node alone: what the job
    /// costs was seen elsewhere.
    pub fn learn_lag(&mut self, node: &str, work: &Work, ran_us: u64) {
        let Some(known) = self.recall(work).filter(|known| known.cost_us > 0.0) else {
            return;
        };
        let expected = (known.cost_us.ln(), known.doubt);
        let ran_log = (ran_us.max(1) as f64).ln();
        if ran_log > expected.0 + self.slowness(node).ln() {
            self.node_mut(node).compare(ran_log, expected);
        }
    }

    /// A job did not have enough with `memory_mib`: it is not to be sent again where there is no more.
    pub fn learn_hunger(&mut self, work: &Work, memory_mib: u64) {
        let known = self.recall(work).copied();
        let hungry = HUNGRY * memory_mib as f64;
        self.remember(
            work,
            Known {
                cost_us: known.map_or(0.0, |known| known.cost_us),
                doubt: known.map_or(DOUBT_BY_NOTHING, |known| known.doubt),
                memory_mib: known.map_or(hungry, |known| known.memory_mib.max(hungry)),
                output_bytes: known.map_or(0.0, |known| known.output_bytes),
            },
        );
    }

    /// A node has had no job for long. Whether others had many meanwhile: then what is known of its speed is
    /// in doubt, and its next jobs count for more than its past. Where nobody worked, nothing was missed.
    pub fn doubt(&mut self, node: &str) -> bool {
        let jobs = self.jobs;
        let Some(speed) = self.nodes.get_mut(node) else {
            return false;
        };
        if jobs - speed.last_job.min(jobs) < OVERLOOKED_JOBS {
            return false;
        }
        speed.doubt = speed.doubt.max(DOUBT_OVERLOOKED);
        true
    }

    /// How many times slower than the reference node `node` is; 1 as long as it is unknown.
    pub fn slowness(&self, node: &str) -> f64 {
        self.nodes
            .get(node)
            .map_or(1.0, |speed| speed.slowness_log.exp())
    }

    /// Whether anything is known of the speed of `node`.
    pub fn knows(&self, node: &str) -> bool {
        self.nodes.contains_key(node)
    }

    /// What `work` took before; zero where that is not known.
    pub fn size(&self, work: &Work) -> Size {
        let known = self.young.get(work).or_else(|| self.old.get(work));
        known.map_or(Size::default(), |known| Size {
            cost_us: known.cost_us.round() as u64,
            memory_mib: known.memory_mib.round() as u64,
            output_bytes: known.output_bytes.round() as u64,
        })
    }

    /// What a job costs of which nothing is known, on the reference node, in microseconds: the mean of all.
    pub fn mean_cost_us(&self) -> f64 {
        self.cost_log.map_or(COST_UNKNOWN_US, f64::exp)
    }

    /// The same, and its output. Its memory is not guessed.
    pub fn mean(&self) -> Size {
        let output_log = self.cost_log.zip(self.cost_per_byte_log);
        Size {
            cost_us: self.mean_cost_us() as u64,
            memory_mib: 0,
            output_bytes: output_log.map_or(0, |(cost, per_byte)| (cost - per_byte).exp() as u64),
        }
    }

    /// What is known of a work, which is young again.
    fn recall(&mut self, work: &Work) -> Option<&mut Known> {
        if !self.young.contains_key(work) {
            let known = self.old.remove(work)?;
            self.remember(work, known);
        }
        self.young.get_mut(work)
    }

    fn remember(&mut self, work: &Work, known: Known) {
        if let Some(young) = self.young.get_mut(work) {
            *young = known;
            return;
        }
        if self.young.len() >= WORKS_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(work.clone(), known);
    }

    fn node_mut(&mut self, node: &str) -> &mut NodeSpeed {
        let is_new = !self.nodes.contains_key(node);
        if is_new && self.nodes.len() >= NODES_MAX {
            let mut jobs: Vec<u64> = self.nodes.values().map(|speed| speed.last_job).collect();
            jobs.sort_unstable();
            let stale = jobs[jobs.len() / 2];
            self.nodes.retain(|_, speed| speed.last_job > stale);
        }
        if is_new {
            self.nodes.insert(node.to_owned(), NodeSpeed::default());
        }
        self.nodes.get_mut(node).expect("it is there now")
    }
}

impl NodeSpeed {
    /// A job took what it took here, and its file is expected to cost so much, with so much doubt. What is wrong
    /// with both together is shared out by how much each is in doubt; what the file costs is returned, with
    /// what doubt is left.
    fn compare(&mut self, cpu_log: f64, (cost_log, doubt): (f64, f64)) -> (f64, f64) {
        let limit = RATIO_MAX.ln();
        let wrong = cpu_log - cost_log - self.slowness_log;
        let all = self.doubt + doubt + DOUBT_JOB;
        let (gain, gain_work) = (self.doubt / all, doubt / all);
        // No one job says that a machine is a hundred times slower; a file may well take a hundred times longer.
        self.slowness_log += gain * wrong.clamp(-limit, limit);
        self.doubt = (self.doubt * (1.0 - gain)).max(DOUBT_NODE_LEAST);
        let doubt = (doubt * (1.0 - gain_work)).max(DOUBT_WORK_LEAST);
        (cost_log + gain_work * wrong, doubt)
    }
}

fn blend(mean: &mut Option<f64>, sample: f64) {
    *mean = Some(mean.map_or(sample, |old| old + GAIN_MEAN * (sample - old)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(name: &str) -> Work {
        Work {
            toolchain: Digest([0; 32]),
            file: Bytes::from(name),
            variant: 0,
        }
    }

    fn consumed(cpu_us: u64, output_bytes: u64) -> Consumed {
        Consumed {
            cpu_us,
            memory_mib: 0,
            output_bytes,
        }
    }

    fn cost(speeds: &Speeds, name: &str) -> f64 {
        speeds.size(&work(name)).cost_us as f64
    }

    /// Files of very different sizes, compiled on two nodes of which one needs twice the time.
    #[test]
    fn a_node_that_needs_twice_as_long_for_the_same_files_is_half_as_fast() {
        let mut speeds = Speeds::default();
        for round in 0..20 {
            for file in 0..10u64 {
                let slow = (round + file) % 2 == 0;
                let (node, factor) = if slow { ("slow", 2) } else { ("fast", 1) };
                let cpu_us = (10_000 << file) * factor;
                speeds.learn(node, &work(&format!("{file}.c")), consumed(cpu_us, 1000));
            }
        }
        let ratio = speeds.slowness("slow") / speeds.slowness("fast");
        assert!((1.8..2.2).contains(&ratio), "{ratio}");
        let ratio = cost(&speeds, "9.c") / cost(&speeds, "5.c");
        assert!((14.0..18.0).contains(&ratio), "{ratio}");
    }

    #[test]
    fn files_that_are_seen_once_are_compared_by_their_output() {
        let mut speeds = Speeds::default();
        for file in 0..400u64 {
            let (node, factor) = [("slow", 4), ("fast", 1)][(file % 2) as usize];
            let bytes = 10_000 + 100 * file;
            speeds.learn(
                node,
                &work(&format!("{file}.c")),
                consumed(bytes * 10 * factor, bytes),
            );
        }
        let ratio = speeds.slowness("slow") / speeds.slowness("fast");
        assert!((2.5..6.0).contains(&ratio), "{ratio}");
    }

    #[test]
    fn one_absurd_job_does_not_spoil_a_good_name() {
        let mut speeds = Speeds::default();
        for _ in 0..30 {
            speeds.learn("a", &work("x.c"), consumed(100_000, 1000));
        }
        speeds.learn("a", &work("x.c"), consumed(u64::MAX, 1000));
        assert!(speeds.slowness("a") < 1.5);
        assert!(speeds.slowness("a").is_finite());
    }

    #[test]
    fn a_node_whose_jobs_all_end_elsewhere_first_is_known_to_be_slow() {
        let mut speeds = Speeds::default();
        for file in 0..8 {
            let work = work(&format!("{file}.c"));
            for _ in 0..3 {
                speeds.learn("fast", &work, consumed(100_000, 1000));
            }
            // Given up too soon to tell anything, and of a file of which nothing is known.
            speeds.learn_lag("slow", &work, 50_000);
        }
        speeds.learn_lag("slow", &work("new.c"), 900_000);
        assert!(speeds.slowness("slow") <= speeds.slowness("fast") * 1.2);
        let cost_before = cost(&speeds, "0.c");
        for file in 0..4 {
            speeds.learn_lag("slow", &work(&format!("{file}.c")), 300_000);
        }
        let ratio = speeds.slowness("slow") / speeds.slowness("fast");
        assert!((2.0..3.5).contains(&ratio), "{ratio}");
        assert_eq!(cost(&speeds, "0.c"), cost_before);
    }

    #[test]
    fn what_is_unknown_counts_as_average() {
        let mut speeds = Speeds::default();
        assert_eq!(speeds.slowness("a"), 1.0);
        assert!(!speeds.knows("a"));
        assert_eq!(speeds.mean_cost_us(), COST_UNKNOWN_US);
        speeds.learn("a", &work("y.c"), consumed(0, 0));
        assert_eq!(speeds.mean_cost_us(), COST_UNKNOWN_US);
        speeds.learn("a", &work("y.c"), consumed(5000, 0));
        assert!((speeds.mean_cost_us() - 5000.0).abs() < 1.0);
        assert_eq!(speeds.size(&work("x.c")), Size::default());
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_survives() {
        let mut speeds = Speeds::default();
        for file in 0..WORKS_MAX * 2 {
            speeds.learn("a", &work(&file.to_string()), consumed(1000, 10));
            if file % 1000 == 0 {
                speeds.learn("a", &work("often.c"), consumed(77_000, 10));
            }
        }
        assert!(speeds.young.len() + speeds.old.len() <= WORKS_MAX);
        assert!(speeds.recall(&work("often.c")).is_some());
        assert!(speeds.recall(&work("0")).is_none());
    }

    #[test]
    fn a_node_that_has_changed_while_others_worked_is_learned_anew_within_a_few_jobs() {
        let mut speeds = Speeds::default();
        for _ in 0..40 {
            speeds.learn("a", &work("x.c"), consumed(400_000, 1000));
            speeds.learn("b", &work("x.c"), consumed(100_000, 1000));
        }
        assert!(!speeds.doubt("a") && !speeds.doubt("stranger"));
        for _ in 0..OVERLOOKED_JOBS {
            speeds.learn("b", &work("x.c"), consumed(100_000, 1000));
        }
        let before = speeds.slowness("a") / speeds.slowness("b");
        let mut trusted = speeds.clone();
        assert!(speeds.doubt("a"));
        assert_eq!(speeds.slowness("a") / speeds.slowness("b"), before);
        for speeds in [&mut speeds, &mut trusted] {
            for _ in 0..3 {
                speeds.learn("a", &work("x.c"), consumed(100_000, 1000));
            }
        }
        let now = |speeds: &Speeds| speeds.slowness("a") / speeds.slowness("b");
        assert!(now(&speeds) < 2.0, "{}", now(&speeds));
        assert!(now(&trusted) > 2.5, "{}", now(&trusted));
    }

    #[test]
    fn nodes_that_worked_longest_ago_are_forgotten_first() {
        let mut speeds = Speeds::default();
        for node in 0..NODES_MAX + 1 {
            speeds.learn(&node.to_string(), &work("x.c"), consumed(1000, 10));
            speeds.learn("busy", &work("x.c"), consumed(1000, 10));
        }
        assert!((NODES_MAX / 3..NODES_MAX).contains(&speeds.nodes.len()));
        assert!(speeds.knows("busy") && speeds.knows(&NODES_MAX.to_string()));
        assert!(!speeds.knows("0"));
    }

    #[test]
    fn memory_is_learned_at_its_highest_and_fades() {
        let mut speeds = Speeds::default();
        let mut use_of = |memory_mib| {
            let job = Consumed {
                cpu_us: 1000,
                memory_mib,
                output_bytes: 10,
            };
            speeds.learn("a", &work("x.c"), job);
            speeds.size(&work("x.c")).memory_mib
        };
        assert_eq!(use_of(1000), 1000);
        assert_eq!(use_of(4000), 4000);
        assert_eq!(use_of(1000), 3100);
        speeds.learn_hunger(&work("x.c"), 8000);
        assert_eq!(speeds.size(&work("x.c")).memory_mib, 10_000);
        // Hunger says nothing of the time, and a job that only starved has no cost yet.
        speeds.learn_hunger(&work("new.c"), 100);
        assert_eq!(speeds.size(&work("new.c")).cost_us, 0);
        speeds.learn("a", &work("new.c"), consumed(5000, 1));
        assert!(speeds.size(&work("new.c")).cost_us > 0);
    }

    #[test]
    fn flags_make_another_job_of_the_same_file() {
        let mut speeds = Speeds::default();
        let plain = work("x.c");
        let optimised = Work {
            variant: 1,
            ..plain.clone()
        };
        for _ in 0..10 {
            speeds.learn("a", &plain, consumed(10_000, 1));
            speeds.learn("a", &optimised, consumed(40_000, 1));
        }
        let ratio = speeds.size(&optimised).cost_us as f64 / speeds.size(&plain).cost_us as f64;
        assert!((3.5..4.5).contains(&ratio), "{ratio}");
    }
}
