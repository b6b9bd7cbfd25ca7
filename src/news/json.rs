//! The news as objects of JSON, for programs: `event` says which.
//!
//! `ice monitor --json` prints them as lines, and the scheduler's page hears the same ones. Nodes are
//! called by name, since their numbers change from scheduler to scheduler. The schema is in
//! `ice-monitor(1)`; a test holds both together.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::id::NodeId;
use crate::news::{Ending, News, NodePicture, Snapshot};

/// Every word that `event` may be.
pub const EVENTS: [&str; 10] = [
    "found", "lost", "snapshot", "missed", "node", "left", "queued", "started", "ended", "local",
];

/// Writes events, each as an object without white space around it; knows the names of nodes from those before.
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    names: BTreeMap<NodeId, String>,
    /// When the events that are written now were heard, in milliseconds after 1970.
    pub time_ms: u64,
}

impl Encoder {
    /// A scheduler was found, at this address.
    pub fn found(&self, scheduler: &str) -> String {
        self.stamped(json!({ "event": "found", "scheduler": scheduler }))
    }

    /// There is no scheduler, and why.
    pub fn lost(&self, why: &str) -> String {
        self.stamped(json!({ "event": "lost", "why": why }))
    }

    /// So many news were left out.
    pub fn missed(&self, news: u64) -> String {
        self.stamped(json!({ "event": "missed", "news": news }))
    }

    /// The cluster at this moment.
    pub fn snapshot(&mut self, snapshot: &Snapshot) -> String {
        let value = self.snapshot_value(snapshot);
        self.stamped(value)
    }

    /// Something that happened.
    pub fn news(&mut self, news: &News) -> String {
        let value = self.news_value(news);
        self.stamped(value)
    }

    fn stamped(&self, mut value: Value) -> String {
        value["time"] = json!(self.time_ms as f64 / 1000.0);
        value.to_string()
    }

    fn snapshot_value(&mut self, snapshot: &Snapshot) -> Value {
        self.names.clear();
        let nodes: Vec<Value> = snapshot.nodes.iter().map(|of| self.node(of)).collect();
        let jobs: Vec<Value> = snapshot
            .jobs
            .iter()
            .map(|job| {
                json!({
                    "job": job.job.0,
                    "submitter": self.name(job.submitter),
                    "worker": job.worker.map(|worker| self.name(worker)),
                    "file": job.file.to_string(),
                    "age_ms": job.age_ms,
                })
            })
            .collect();
        let totals = &snapshot.totals;
        let local: BTreeMap<&str, u64> = totals
            .local
            .iter()
            .map(|(reason, count)| (&reason[..], *count))
            .collect();
        json!({
            "event": "snapshot",
            "netname": snapshot.netname,
            "version": snapshot.version,
            "uptime_s": snapshot.uptime_s,
            "nodes": nodes,
            "jobs": jobs,
            "jobs_omitted": snapshot.jobs_omitted,
            "totals": {
                "remote": totals.remote,
                "own": totals.own,
                "failed": totals.failed,
                "remote_cpu_us": totals.remote_cpu_us,
                "output_bytes": totals.output_bytes,
                "local": local,
            },
        })
    }

    fn node(&mut self, of: &NodePicture) -> Value {
        self.names.insert(of.node, of.name.clone());
        json!({
            "name": of.name,
            "address": of.address,
            "platform": of.platform,
            "slots": of.slots,
            "no_remote": of.no_remote,
            "blocked": of.is_blocked,
            "speed_percent": (of.speed_percent > 0).then_some(of.speed_percent),
            "local_jobs": of.local_jobs,
            "load": f64::from(of.load_milli) / 1000.0,
            "memory_mib": of.memory_mib,
            "jobs_done": of.jobs_done,
        })
    }

    fn news_value(&mut self, news: &News) -> Value {
        match news {
            News::Node(picture) => {
                let mut value = self.node(picture);
                value["event"] = json!("node");
                value
            }
            News::Left { node } => {
                let name = self.names.remove(node);
                json!({ "event": "left", "name": name })
            }
            News::Queued {
                job,
                submitter,
                file,
            } => json!({
                "event": "queued",
                "job": job.0,
                "submitter": self.name(*submitter),
                "file": file.to_string(),
            }),
            News::Started {
                job,
                submitter,
                worker,
                file,
            } => json!({
                "event": "started",
                "job": job.0,
                "submitter": self.name(*submitter),
                "worker": self.name(*worker),
                "file": file.to_string(),
            }),
            News::Ended { job, ending } => {
                let mut value = outcome(ending);
                value["event"] = json!("ended");
                value["job"] = json!(job.0);
                value
            }
            News::Local {
                node,
                reason,
                jobs,
                file,
            } => json!({
                "event": "local",
                "submitter": self.name(*node),
                "reason": reason,
                "jobs": jobs,
                "file": (!file.is_empty()).then(|| file.to_string()),
            }),
        }
    }

    fn name(&self, node: NodeId) -> Option<&str> {
        self.names.get(&node).map(String::as_str)
    }
}

fn outcome(ending: &Ending) -> Value {
    let outcome = ending.outcome();
    match ending {
        Ending::Done {
            usage,
            output_bytes,
        } => json!({
            "outcome": outcome,
            "cpu_us": usage.cpu_us,
            "wall_us": usage.wall_us,
            "setup_us": usage.setup_us,
            "rss_kib": usage.rss_kib,
            "output_bytes": output_bytes,
        }),
        Ending::Failed { failure, .. } => json!({
            "outcome": outcome,
            "failure": format!("{failure:?}").to_lowercase(),
        }),
        Ending::Denied(why) => json!({ "outcome": outcome, "why": why }),
        Ending::Own | Ending::Unused | Ending::Lost | Ending::Withdrawn => {
            json!({ "outcome": outcome })
        }
    }
}
