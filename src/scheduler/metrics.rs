//! The cluster in numbers, as Prometheus reads them.
//!
//! Gauges are made of the same news that watchers hear, so that a metric and the monitor never tell two stories;
//! when news were left out, the snapshot that follows mends them. Counters are the core's own ([`Tally`]), lack
//! nothing, and go on across elections, and begin anew with the process. The number of series has a bound,
//! whatever the cluster is called and does: nodes by [`NODE_SERIES_MAX`], reasons by
//! [`REASONS_MAX`](crate::news::REASONS_MAX), and no label holds a file. Times are in seconds and sizes in bytes,
//! as Prometheus wants it. The names are told in `docs/monitoring.md`; a test holds both together.

mod page;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::NodeId;
use crate::news::{JobNumber, News, NodePicture, OUTCOMES, Snapshot};
use crate::scheduler::election::Role;
use crate::scheduler::metrics::page::Page;
use crate::scheduler::tally::Tally;

pub use page::CONTENT_TYPE;

/// Nodes with series of their own, at most; those with the lowest numbers have them, and the others are
/// counted in `ice_nodes_omitted`.
pub const NODE_SERIES_MAX: usize = 256;

/// What the shell knows at the moment of a question.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Since the process started.
    pub uptime: Duration,
    /// Who reads the stream of events.
    pub event_readers: usize,
    /// Monitors of icecream that are connected.
    pub icecream_monitors: usize,
}

/// What is known of the moment.
#[derive(Clone, Debug)]
pub struct Metrics {
    role: Role,
    terms: u64,
    nodes: BTreeMap<NodeId, NodePicture>,
    jobs: BTreeMap<JobNumber, Job>,
    missed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Job {
    submitter: NodeId,
    worker: Option<NodeId>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            role: Role::Undecided,
            terms: 0,
            nodes: BTreeMap::new(),
            jobs: BTreeMap::new(),
            missed: 0,
        }
    }
}

impl Metrics {
    /// This scheduler is something else now; what it knew of nodes and jobs is of the term before.
    pub fn on_role(&mut self, role: Role) {
        if matches!(role, Role::Master(_)) && role != self.role {
            self.terms += 1;
        }
        self.role = role;
        self.nodes.clear();
        self.jobs.clear();
    }

    /// The cluster at this moment.
    pub fn on_snapshot(&mut self, snapshot: &Snapshot) {
        self.nodes = snapshot
            .nodes
            .iter()
            .map(|node| (node.node, node.clone()))
            .collect();
        let jobs = snapshot.jobs.iter().map(|job| {
            let known = Job {
                submitter: job.submitter,
                worker: job.worker,
            };
            (job.job, known)
        });
        self.jobs = jobs.collect();
    }

    /// So many news were not heard.
    pub fn on_missed(&mut self, news: u64) {
        self.missed = self.missed.saturating_add(news);
    }

    /// Something happened.
    pub fn on_news(&mut self, news: &News) {
        match news {
            News::Node(picture) => {
                self.nodes.insert(picture.node, picture.clone());
            }
            News::Left { node } => {
                self.nodes.remove(node);
            }
            News::Queued { job, submitter, .. } => {
                let waiting = Job {
                    submitter: *submitter,
                    worker: None,
                };
                self.jobs.insert(*job, waiting);
            }
            News::Started {
                job,
                submitter,
                worker,
                ..
            } => {
                let running = Job {
                    submitter: *submitter,
                    worker: Some(*worker),
                };
                self.jobs.insert(*job, running);
            }
            News::Ended { job, .. } => {
                self.jobs.remove(job);
            }
            News::Local { .. } => {}
        }
    }

    /// All of it as text, with what was counted so far.
    pub fn render(&self, tally: &Tally, moment: Moment) -> String {
        let mut page = Page::default();
        self.render_scheduler(&mut page, moment);
        self.render_jobs(&mut page, tally);
        self.render_nodes(&mut page);
        page.text()
    }

    fn render_scheduler(&self, page: &mut Page, moment: Moment) {
        page.family("ice_build_info", "gauge", "The program; always 1.");
        let version = env!("CARGO_PKG_VERSION");
        page.sample("ice_build_info", &[("version", version)], 1.0);
        page.family(
            "ice_scheduler_uptime_seconds",
            "gauge",
            "Since the process started.",
        );
        page.sample(
            "ice_scheduler_uptime_seconds",
            &[],
            moment.uptime.as_secs_f64(),
        );
        page.family(
            "ice_scheduler_role",
            "gauge",
            "1 for what this scheduler is.",
        );
        let is = match self.role {
            Role::Undecided => "undecided",
            Role::Master(_) => "master",
            Role::Standby(_) => "standby",
        };
        for role in ["master", "standby", "undecided"] {
            let value = f64::from(u8::from(role == is));
            page.sample("ice_scheduler_role", &[("role", role)], value);
        }
        page.family(
            "ice_scheduler_term",
            "gauge",
            "Elections before the term of this master; 0 when it is none.",
        );
        let term = match self.role {
            Role::Master(term) => term.round(),
            Role::Undecided | Role::Standby(_) => 0,
        };
        page.sample("ice_scheduler_term", &[], term as f64);
        for (name, help, value) in [
            (
                "ice_scheduler_terms_total",
                "Terms in which this scheduler became the master.",
                self.terms,
            ),
            (
                "ice_scheduler_news_missed_total",
                "News that the gauges and readers of events did not hear; counters lack none.",
                self.missed,
            ),
        ] {
            page.family(name, "counter", help);
            page.sample(name, &[], value as f64);
        }
        page.family("ice_watchers", "gauge", "Who looks on, by how.");
        for (by, count) in [
            ("events", moment.event_readers),
            ("icecream", moment.icecream_monitors),
        ] {
            page.sample("ice_watchers", &[("by", by)], count as f64);
        }
    }

    fn render_jobs(&self, page: &mut Page, tally: &Tally) {
        let running = self.jobs.values().filter(|job| job.worker.is_some());
        let running = running.count();
        let mut own: BTreeMap<NodeId, u32> = BTreeMap::new();
        for job in self.jobs.values() {
            if job.worker == Some(job.submitter) {
                *own.entry(job.submitter).or_default() += 1;
            }
        }
        // Local jobs under a lease are among those that a node reports.
        let local = self.nodes.values().map(|of| {
            let own = own.get(&of.node).copied().unwrap_or(0);
            u64::from(of.local_jobs.saturating_sub(own))
        });
        let local: u64 = local.sum();
        page.family(
            "ice_jobs",
            "gauge",
            "Jobs that wait for a slot, run in one that was lent, or run locally without having asked.",
        );
        for (state, count) in [
            ("waiting", (self.jobs.len() - running) as u64),
            ("running", running as u64),
            ("local", local),
        ] {
            page.sample("ice_jobs", &[("state", state)], count as f64);
        }
        page.family(
            "ice_jobs_total",
            "counter",
            "Jobs that asked for a slot, by how they ended.",
        );
        for (outcome, count) in OUTCOMES.iter().zip(tally.outcomes) {
            page.sample("ice_jobs_total", &[("outcome", outcome)], count as f64);
        }
        page.family(
            "ice_local_jobs_total",
            "counter",
            "Jobs that ran on their own machine without asking, by reason.",
        );
        for (reason, count) in &tally.local {
            page.sample("ice_local_jobs_total", &[("reason", reason)], *count as f64);
        }
        page.histogram(
            "ice_job_wait_seconds",
            "From the request of a slot to the start of the job in it.",
            &tally.waited,
        );
        page.histogram(
            "ice_job_compile_seconds",
            "From the start of the compiler to its end, on a worker.",
            &tally.compiled,
        );
        page.histogram(
            "ice_job_setup_seconds",
            "What a worker spent on the job's files and sandbox.",
            &tally.set_up,
        );
        page.family(
            "ice_job_cpu_seconds_total",
            "counter",
            "Processor time of compilers on workers.",
        );
        page.sample("ice_job_cpu_seconds_total", &[], tally.cpu_us as f64 / 1e6);
        page.family(
            "ice_job_output_bytes_total",
            "counter",
            "Output of jobs that came from workers.",
        );
        page.sample("ice_job_output_bytes_total", &[], tally.output_bytes as f64);
    }

    fn render_nodes(&self, page: &mut Page) {
        let is_open = |of: &&NodePicture| of.no_remote.is_none() && !of.is_blocked;
        let count = |matches: &dyn Fn(&NodePicture) -> bool| {
            self.nodes.values().filter(|of| matches(of)).count() as f64
        };
        page.family(
            "ice_nodes",
            "gauge",
            "Nodes: that compile for others, that somebody has blocked, that only submit.",
        );
        for (state, number) in [
            ("open", count(&|of| is_open(&of))),
            (
                "blocked",
                count(&|of| of.is_blocked && of.no_remote.is_none()),
            ),
            ("no-remote", count(&|of| of.no_remote.is_some())),
        ] {
            page.sample("ice_nodes", &[("state", state)], number);
        }
        page.family("ice_slots", "gauge", "Slots of nodes that are open.");
        let slots = self.nodes.values().filter(is_open);
        let slots: u64 = slots.map(|of| u64::from(of.slots)).sum();
        page.sample("ice_slots", &[], slots as f64);
        page.family(
            "ice_nodes_omitted",
            "gauge",
            "Nodes that have no series of their own.",
        );
        let omitted = self.nodes.len().saturating_sub(NODE_SERIES_MAX);
        page.sample("ice_nodes_omitted", &[], omitted as f64);

        let mut lent: BTreeMap<NodeId, u32> = BTreeMap::new();
        for worker in self.jobs.values().filter_map(|job| job.worker) {
            *lent.entry(worker).or_default() += 1;
        }
        type Value<'a> = &'a dyn Fn(&NodePicture) -> Option<f64>;
        let families: [(&str, &str, &str, Value<'_>); 8] = [
            ("ice_node_slots", "gauge", "Slots.", &|of| {
                Some(f64::from(of.slots))
            }),
            (
                "ice_node_open",
                "gauge",
                "Whether it gets jobs of others.",
                &|of| Some(f64::from(u8::from(is_open(&of)))),
            ),
            ("ice_node_jobs", "gauge", "Slots that are lent.", &|of| {
                Some(f64::from(lent.get(&of.node).copied().unwrap_or(0)))
            }),
            (
                "ice_node_local_jobs",
                "gauge",
                "Local jobs that hold a slot, under a lease or not.",
                &|of| Some(f64::from(of.local_jobs)),
            ),
            (
                "ice_node_jobs_done_total",
                "counter",
                "Jobs that it compiled for others since it came.",
                &|of| Some(of.jobs_done as f64),
            ),
            (
                "ice_node_load1",
                "gauge",
                "One-minute load average.",
                &|of| Some(f64::from(of.load_milli) / 1000.0),
            ),
            (
                "ice_node_memory_available_bytes",
                "gauge",
                "Memory that is available.",
                &|of| Some(of.memory_mib as f64 * 1_048_576.0),
            ),
            (
                "ice_node_speed_ratio",
                "gauge",
                "Learned speed, relative to the mean of all; absent while it is unknown.",
                &|of| (of.speed_percent > 0).then(|| f64::from(of.speed_percent) / 100.0),
            ),
        ];
        for (name, kind, help, value) in families {
            page.family(name, kind, help);
            for of in self.nodes.values().take(NODE_SERIES_MAX) {
                if let Some(value) = value(of) {
                    page.sample(name, &[("node", &of.name)], value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::page::reader::parse;
    use super::*;
    use crate::id::Term;
    use crate::message::Usage;
    use crate::news::{Ending, REASONS_MAX};

    const MOMENT: Moment = Moment {
        uptime: Duration::from_millis(1500),
        event_readers: 2,
        icecream_monitors: 1,
    };

    fn picture(number: u32, name: &str) -> NodePicture {
        NodePicture {
            node: NodeId(number),
            name: name.into(),
            address: "10.0.0.1:10245".into(),
            platform: "x86_64".into(),
            slots: 4,
            no_remote: None,
            is_blocked: false,
            speed_percent: 150,
            local_jobs: 1,
            load_milli: 250,
            memory_mib: 2,
            jobs_done: 7,
        }
    }

    fn started(job: u64) -> News {
        News::Started {
            job: JobNumber(job),
            submitter: NodeId(1),
            worker: NodeId(2),
            file: "a.c".into(),
        }
    }

    fn done(wall_ms: u64) -> Ending {
        Ending::Done {
            usage: Usage {
                cpu_us: 1_250_000,
                wall_us: wall_ms * 1000,
                ..Usage::default()
            },
            output_bytes: 1000,
        }
    }

    fn samples(metrics: &Metrics) -> BTreeMap<String, f64> {
        parse(&metrics.render(&Tally::default(), MOMENT))
    }

    #[test]
    fn a_scheduler_that_knows_nothing_has_a_valid_page() {
        let samples = samples(&Metrics::default());
        assert_eq!(samples["ice_scheduler_role{role=\"undecided\"}"], 1.0);
        assert_eq!(samples["ice_scheduler_uptime_seconds"], 1.5);
        assert_eq!(samples["ice_watchers{by=\"events\"}"], 2.0);
        assert_eq!(samples["ice_jobs_total{outcome=\"done\"}"], 0.0);
    }

    #[test]
    fn histograms_count_up_to_each_bound_and_the_bound_belongs_to_it() {
        let mut tally = Tally::default();
        for wall_ms in [10, 11, 400_000] {
            tally.ended(&done(wall_ms), false);
        }
        let samples = parse(&Metrics::default().render(&tally, MOMENT));
        assert_eq!(samples["ice_jobs_total{outcome=\"done\"}"], 3.0);
        for (bound, count) in [("0.01", 1.0), ("0.025", 2.0), ("300", 2.0), ("+Inf", 3.0)] {
            let series = format!("ice_job_compile_seconds_bucket{{le=\"{bound}\"}}");
            assert_eq!(samples[&series], count, "{bound}");
        }
        assert_eq!(samples["ice_job_compile_seconds_count"], 3.0);
        assert_eq!(samples["ice_job_compile_seconds_sum"], 400.021);
        assert_eq!(samples["ice_job_cpu_seconds_total"], 3.75);
        assert_eq!(samples["ice_job_output_bytes_total"], 3000.0);
    }

    #[test]
    fn a_job_waits_and_then_runs_and_then_is_gone() {
        let mut metrics = Metrics::default();
        let queued = News::Queued {
            job: JobNumber(1),
            submitter: NodeId(1),
            file: "a.c".into(),
        };
        metrics.on_news(&queued);
        assert_eq!(samples(&metrics)["ice_jobs{state=\"waiting\"}"], 1.0);
        metrics.on_news(&started(1));
        metrics.on_news(&started(2));
        let samples = samples(&metrics);
        assert_eq!(samples["ice_jobs{state=\"waiting\"}"], 0.0);
        assert_eq!(samples["ice_jobs{state=\"running\"}"], 2.0);
        metrics.on_news(&News::Ended {
            job: JobNumber(1),
            ending: Ending::Own,
        });
        let samples = parse(&metrics.render(&Tally::default(), MOMENT));
        assert_eq!(samples["ice_jobs{state=\"running\"}"], 1.0);
    }

    #[test]
    fn nodes_are_told_by_name_and_a_name_can_make_up_no_series() {
        let mut metrics = Metrics::default();
        metrics.on_role(Role::Master(Term::default().next(5)));
        let evil = "a\"} 1\nevil{x=\"\\";
        let blocked = NodePicture {
            is_blocked: true,
            ..picture(3, evil)
        };
        metrics.on_news(&News::Node(picture(2, "anvil")));
        metrics.on_news(&News::Node(blocked));
        metrics.on_news(&started(1));
        let told = samples(&metrics);
        assert!(told.keys().all(|series| series.starts_with("ice_")));
        assert_eq!(told["ice_node_jobs{node=\"anvil\"}"], 1.0);
        assert_eq!(told["ice_node_speed_ratio{node=\"anvil\"}"], 1.5);
        assert_eq!(
            told["ice_node_memory_available_bytes{node=\"anvil\"}"],
            2_097_152.0
        );
        assert_eq!(told["ice_nodes{state=\"open\"}"], 1.0);
        assert_eq!(told["ice_nodes{state=\"blocked\"}"], 1.0);
        assert_eq!(told["ice_slots"], 4.0);
        assert_eq!(told["ice_scheduler_term"], 1.0);
        metrics.on_role(Role::Standby("10.0.0.9:8765".parse().unwrap()));
        let told = samples(&metrics);
        assert_eq!(told["ice_nodes{state=\"open\"}"], 0.0);
        assert_eq!(told["ice_scheduler_terms_total"], 1.0);
    }

    #[test]
    fn the_number_of_series_is_bounded() {
        let (mut metrics, mut tally) = (Metrics::default(), Tally::default());
        for number in 0..2000 {
            let node = News::Node(picture(number, &format!("node-{number}")));
            metrics.on_news(&node);
            tally.local(&format!("reason-{number}"), 1);
        }
        let told = parse(&metrics.render(&tally, MOMENT));
        let count = |name: &str| {
            told.keys()
                .filter(|series| series.starts_with(name))
                .count()
        };
        assert_eq!(count("ice_node_slots{"), NODE_SERIES_MAX);
        assert_eq!(count("ice_local_jobs_total{"), REASONS_MAX + 1);
        assert_eq!(told["ice_nodes_omitted"], 2000.0 - NODE_SERIES_MAX as f64);
        assert!(told.len() < 3000, "{}", told.len());
    }

    #[test]
    fn the_guide_tells_every_family() {
        let guide = include_str!("../../docs/monitoring.md");
        let text = Metrics::default().render(&Tally::default(), MOMENT);
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let name = line.split(' ').next().unwrap();
            assert!(guide.contains(&format!("`{name}")), "{name}");
        }
    }
}
