//! A busy cluster that does not exist: news made up from a seed.
//!
//! For looking at the monitor without a cluster, and for tests and measurements: the same seed makes
//! the same news. Some machines start builds now and then; their jobs wait, run on whichever node is
//! least busy, and end; some stay local, a few fail, a node leaves and comes again.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::id::{Bytes, NodeId, Time};
use crate::message::{Failure, ToScheduler, Usage};
use crate::news::{Ending, JobNumber, News, NodePicture, Snapshot};

const NAMES: [&str; 24] = [
    "anvil", "basalt", "cedar", "dolmen", "ember", "flint", "granite", "hazel", "iris", "jasper",
    "kelp", "larch", "marble", "nimbus", "onyx", "pine", "quartz", "rowan", "slate", "topaz",
    "umber", "violet", "willow", "zephyr",
];
const PLACES: [&str; 8] = [
    "src/core",
    "src/net",
    "src/render",
    "lib/json",
    "lib/text",
    "tools",
    "tests/unit",
    "src/audio",
];
const FILES: [&str; 16] = [
    "parser", "lexer", "socket", "shader", "buffer", "widget", "session", "matrix", "stream",
    "codec", "table", "format", "router", "cache", "scene", "timer",
];
/// Why jobs of builds are local, each as often as the others.
const REASONS: [&str; 5] = [
    "link",
    "several-inputs",
    "stdin",
    "march-native",
    "output-place",
];
/// Between two words on loads.
const LOADS_EVERY: u64 = 1_000_000;

/// The cluster that does not exist.
#[derive(Clone, Debug)]
pub struct Demo {
    dice: Dice,
    now: Time,
    nodes: BTreeMap<NodeId, DemoNode>,
    builds: Vec<Build>,
    waiting: VecDeque<Job>,
    running: BTreeMap<JobNumber, (Job, NodeId)>,
    /// What will happen, by when.
    agenda: BTreeMap<(Time, u64), Plan>,
    plans_so_far: u64,
    jobs_so_far: u64,
    /// How long a job takes on a node of mean speed, in microseconds.
    job_us: u64,
}

#[derive(Clone, Debug)]
struct DemoNode {
    picture: NodePicture,
    busy: u32,
    is_here: bool,
}

#[derive(Clone, Debug)]
struct Build {
    submitter: NodeId,
    /// Jobs at a time; 0 while there is no build.
    width: u32,
    outstanding: u32,
}

#[derive(Clone, Debug)]
struct Job {
    number: JobNumber,
    build: usize,
    file: String,
}

#[derive(Clone, Debug)]
enum Plan {
    End(JobNumber),
    /// A build starts or ends.
    Turn(usize),
    Local(usize),
    Loads,
    Leave,
    Return(NodeId),
}

impl Demo {
    /// A cluster of `nodes` nodes, 2 at least, whose jobs take `job` on average.
    pub fn new(seed: u64, nodes: u32, job: Duration) -> Self {
        let mut demo = Self {
            dice: Dice(seed),
            now: Time(0),
            nodes: BTreeMap::new(),
            builds: Vec::new(),
            waiting: VecDeque::new(),
            running: BTreeMap::new(),
            agenda: BTreeMap::new(),
            plans_so_far: 0,
            jobs_so_far: 0,
            job_us: (job.as_micros() as u64).max(1),
        };
        for number in 1..=nodes.max(2) {
            let node = demo.node(number);
            demo.nodes.insert(node.picture.node, node);
        }
        // About every fourth machine is somebody's who builds.
        for number in (1..=nodes.max(2)).filter(|number| number % 4 == 2) {
            demo.builds.push(Build {
                submitter: NodeId(number),
                width: 0,
                outstanding: 0,
            });
            let build = demo.builds.len() - 1;
            let soon = demo.dice.below(4_000_000);
            demo.plan(soon, Plan::Turn(build));
        }
        demo.plan(LOADS_EVERY, Plan::Loads);
        demo.plan(20_000_000, Plan::Leave);
        demo
    }

    /// The cluster before anything happened.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            netname: "DEMO".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: 0,
            nodes: self
                .nodes
                .values()
                .map(|node| node.picture.clone())
                .collect(),
            ..Snapshot::default()
        }
    }

    /// What happens until `now`.
    pub fn advance(&mut self, now: Time) -> Vec<News> {
        let mut news = Vec::new();
        while let Some((&key, _)) = self.agenda.first_key_value()
            && key.0 <= now
        {
            if let Some(plan) = self.agenda.remove(&key) {
                self.now = key.0;
                self.happen(plan, &mut news);
                self.submit(&mut news);
            }
        }
        self.now = now;
        news
    }

    /// Does what a scheduler would do that is asked for this.
    pub fn obey(&mut self, request: &ToScheduler) {
        if let ToScheduler::Block { node, is_blocked } = request {
            let mut nodes = self.nodes.values_mut();
            if let Some(named) = nodes.find(|known| known.picture.name == *node) {
                named.picture.is_blocked = *is_blocked;
            }
        }
    }

    /// Jobs that run now.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    fn node(&mut self, number: u32) -> DemoNode {
        let name = NAMES[(number as usize - 1) % NAMES.len()];
        let name = match (number as usize - 1) / NAMES.len() {
            0 => name.to_owned(),
            round => format!("{name}{}", round + 1),
        };
        let submits = number % 8 == 2;
        let slots = match submits {
            true => 0,
            false => [4, 8, 8, 12, 16, 16, 24, 32][self.dice.below(8) as usize],
        };
        let no_remote = number % 16 == 15;
        let platform = if number.is_multiple_of(11) {
            "aarch64"
        } else {
            "x86_64"
        };
        DemoNode {
            picture: NodePicture {
                node: NodeId(number),
                name,
                address: format!(
                    "10.0.{}.{}:{}",
                    number / 250,
                    number % 250 + 1,
                    if submits { 0 } else { 10245 }
                ),
                platform: platform.to_owned(),
                slots,
                no_remote: no_remote.then(|| "no user namespaces".to_owned()),
                is_blocked: number % 40 == 12,
                speed_percent: 60 + self.dice.below(90) as u32,
                local_jobs: 0,
                load_milli: self.dice.below(900) as u32,
                memory_mib: 1024 * (2 + self.dice.below(60)),
                jobs_done: 0,
            },
            busy: 0,
            is_here: true,
        }
    }

    fn plan(&mut self, after_us: u64, plan: Plan) {
        self.plans_so_far += 1;
        let at = self.now.after(Duration::from_micros(after_us));
        self.agenda.insert((at, self.plans_so_far), plan);
    }

    fn happen(&mut self, plan: Plan, news: &mut Vec<News>) {
        match plan {
            Plan::End(job) => self.end(job, news),
            Plan::Turn(build) => {
                let slots: u32 = self.nodes.values().map(|node| node.picture.slots).sum();
                let most = u64::from(slots) * 3 / 2 / self.builds.len() as u64;
                let width = match self.builds[build].width {
                    0 => 4 + self.dice.below(most.max(4)) as u32,
                    _ => 0,
                };
                self.builds[build].width = width;
                let lasts = match width {
                    0 => 4_000_000 + self.dice.below(20_000_000),
                    _ => 15_000_000 + self.dice.below(45_000_000),
                };
                self.plan(lasts, Plan::Turn(build));
                if width > 0 {
                    self.plan(500_000, Plan::Local(build));
                }
            }
            Plan::Local(build) => {
                if self.builds[build].width > 0 {
                    let reason = self.dice.pick(&REASONS);
                    news.push(News::Local {
                        node: self.builds[build].submitter,
                        reason: reason.to_owned(),
                        jobs: 1 + self.dice.below(3) as u32,
                        file: Bytes::from(&*self.file()),
                    });
                    let next = 700_000 + self.dice.below(3_000_000);
                    self.plan(next, Plan::Local(build));
                }
            }
            Plan::Loads => {
                for node in self.nodes.values_mut().filter(|node| node.is_here) {
                    let aim = node.busy * 1000 + self.dice.below(800) as u32;
                    let load = node.picture.load_milli;
                    node.picture.load_milli = load - load / 8 + aim / 8;
                    news.push(News::Node(node.picture.clone()));
                }
                self.plan(LOADS_EVERY, Plan::Loads);
            }
            Plan::Leave => {
                let workers = self
                    .nodes
                    .values()
                    .filter(|node| node.busy > 0 && node.is_here);
                let workers: Vec<NodeId> = workers.map(|node| node.picture.node).collect();
                let builders: Vec<NodeId> = self.builds.iter().map(|b| b.submitter).collect();
                let leaver = workers.into_iter().find(|node| !builders.contains(node));
                if let Some(node) = leaver {
                    self.leave(node, news);
                    self.plan(9_000_000, Plan::Return(node));
                }
                self.plan(60_000_000, Plan::Leave);
            }
            Plan::Return(id) => {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.is_here = true;
                    news.push(News::Node(node.picture.clone()));
                }
            }
        }
    }

    fn leave(&mut self, id: NodeId, news: &mut Vec<News>) {
        let on_it = self.running.iter().filter(|(_, (_, worker))| *worker == id);
        let lost: Vec<JobNumber> = on_it.map(|(number, _)| *number).collect();
        for number in lost {
            if let Some((job, _)) = self.running.remove(&number) {
                self.builds[job.build].outstanding -= 1;
                let ending = Ending::Lost;
                news.push(News::Ended {
                    job: number,
                    ending,
                });
            }
        }
        if let Some(node) = self.nodes.get_mut(&id) {
            node.is_here = false;
            node.busy = 0;
        }
        news.push(News::Left { node: id });
    }

    fn end(&mut self, number: JobNumber, news: &mut Vec<News>) {
        let Some((job, worker)) = self.running.remove(&number) else {
            // Its node left.
            return;
        };
        self.builds[job.build].outstanding -= 1;
        let cpu_us = self.job_us / 2 + self.dice.below(self.job_us);
        let usage = Usage {
            cpu_us,
            wall_us: cpu_us * 11 / 10,
            rss_kib: 40_000 + self.dice.below(400_000),
            setup_us: 300,
        };
        let submitter = self.builds[job.build].submitter;
        if let Some(node) = self.nodes.get_mut(&worker) {
            node.busy = node.busy.saturating_sub(1);
            node.picture.jobs_done += u64::from(worker != submitter);
        }
        let ending = match self.dice.below(400) {
            0 => Ending::Failed {
                failure: Failure::Memory,
                dead: false,
            },
            _ if worker == submitter => Ending::Own,
            _ => Ending::Done {
                usage,
                output_bytes: 10_000 + self.dice.below(300_000),
            },
        };
        news.push(News::Ended {
            job: number,
            ending,
        });
    }

    /// Every build keeps as many jobs going as it is wide, and whatever is free takes one.
    fn submit(&mut self, news: &mut Vec<News>) {
        while let Some(job) = self.waiting.pop_front() {
            if let Some(job) = self.place(job, news) {
                self.waiting.push_front(job);
                break;
            }
        }
        for build in 0..self.builds.len() {
            while self.builds[build].outstanding < self.builds[build].width {
                self.jobs_so_far += 1;
                self.builds[build].outstanding += 1;
                let job = Job {
                    number: JobNumber(self.jobs_so_far),
                    build,
                    file: self.file(),
                };
                if !self.waiting.is_empty() {
                    self.wait(job, news);
                } else if let Some(job) = self.place(job, news) {
                    self.wait(job, news);
                }
            }
        }
    }

    fn wait(&mut self, job: Job, news: &mut Vec<News>) {
        news.push(News::Queued {
            job: job.number,
            submitter: self.builds[job.build].submitter,
            file: Bytes::from(&*job.file),
        });
        self.waiting.push_back(job);
    }

    /// Starts a job on the node that is least busy; gives it back when none is free.
    fn place(&mut self, job: Job, news: &mut Vec<News>) -> Option<Job> {
        let free = self.nodes.values_mut().filter(|node| {
            let picture = &node.picture;
            node.is_here
                && picture.no_remote.is_none()
                && !picture.is_blocked
                && node.busy < picture.slots
        });
        let best = free.min_by_key(|node| node.busy * 1000 / node.picture.slots);
        let Some(node) = best else {
            return Some(job);
        };
        node.busy += 1;
        let worker = node.picture.node;
        let speed = u64::from(node.picture.speed_percent);
        news.push(News::Started {
            job: job.number,
            submitter: self.builds[job.build].submitter,
            worker,
            file: Bytes::from(&*job.file),
        });
        // Most jobs are short, some are long.
        let share = self.dice.below(1000) + 1;
        let takes = self.job_us * share * share * share / 1_000_000 * 4 / 1000 + self.job_us / 10;
        let number = job.number;
        self.running.insert(number, (job, worker));
        self.plan(takes * 100 / speed, Plan::End(number));
        None
    }

    fn file(&mut self) -> String {
        let place = self.dice.pick(&PLACES);
        let (first, second) = (self.dice.pick(&FILES), self.dice.pick(&FILES));
        let ending = self.dice.pick(&["cpp", "cpp", "c", "cc"]);
        format!("{place}/{first}_{second}.{ending}")
    }
}

/// Numbers that look random and are the same for the same seed (SplitMix64).
#[derive(Clone, Debug)]
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_news() {
        let news = |seed| Demo::new(seed, 12, Duration::from_secs(1)).advance(Time(30_000_000));
        assert_eq!(news(1), news(1));
        assert_ne!(news(1), news(2));
    }

    #[test]
    fn the_cluster_is_busy_and_its_news_are_in_order() {
        let mut demo = Demo::new(7, 12, Duration::from_secs(1));
        let mut running = std::collections::BTreeSet::new();
        let (mut ended, mut locals) = (0, 0);
        for second in 1..120 {
            for news in demo.advance(Time(second * 1_000_000)) {
                match news {
                    News::Started { job, .. } => assert!(running.insert(job)),
                    News::Ended { job, .. } => {
                        assert!(running.remove(&job), "{job:?} ends once, after its start");
                        ended += 1;
                    }
                    News::Local { .. } => locals += 1,
                    _ => {}
                }
            }
        }
        assert!(ended > 1000 && locals > 10, "{ended} {locals}");
        assert_eq!(running.len(), demo.running());
    }
}
