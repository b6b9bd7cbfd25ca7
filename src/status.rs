//! `ice status`: asks the scheduler for a picture of the cluster and puts it into words.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::reactor::Timer;
use smol::future::FutureExt;

use crate::connection::{Connection, ConnectionError};
use crate::key::Credentials;
use crate::message::{FromScheduler, NodeStatus, Status, ToScheduler};
use crate::news::Totals;
use crate::whereabouts;

/// How long connecting may take, and then the answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Schedulers that stand by may be asked in turn, at most so many; one names the master, so two are enough but when it
/// has just changed.
const HOPS_MAX: usize = 8;

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// None of the schedulers can be reached; a sentence.
    #[error("{0}")]
    Unreachable(String),
    /// The connection broke.
    #[error("ask the scheduler at {0}: {1}")]
    Connection(SocketAddr, ConnectionError),
    /// It did not answer.
    #[error("ask the scheduler at {0}: it ended the connection")]
    Ended(SocketAddr),
    /// It does not do what is asked.
    #[error("ask the scheduler at {0}: it answers something else")]
    Other(SocketAddr),
    /// The schedulers send us in circles.
    #[error("ask the scheduler at {0}: there is no master, after {HOPS_MAX} schedulers were asked")]
    NoMaster(SocketAddr),
}

/// The cluster of a scheduler at one of these addresses, as lines of text or as JSON; ends with a newline.
pub async fn status(
    addresses: &[SocketAddr],
    credentials: &Credentials,
    json: bool,
) -> Result<String, StatusError> {
    let status = fetch(addresses, credentials).await?;
    Ok(match json {
        true => as_json(&status),
        false => as_text(&status),
    })
}

/// The same, unworded.
pub async fn fetch(
    addresses: &[SocketAddr],
    credentials: &Credentials,
) -> Result<Status, StatusError> {
    let mut addresses = addresses.to_vec();
    let mut hop = 0;
    loop {
        hop += 1;
        let connection = whereabouts::reach_within(&addresses, credentials, TIMEOUT).await;
        let connection = connection.map_err(StatusError::Unreachable)?;
        let at = connection.peer();
        match ask(connection).await? {
            FromScheduler::Status(status) => return Ok(status),
            FromScheduler::Elsewhere(_) if hop >= HOPS_MAX => {
                return Err(StatusError::NoMaster(at));
            }
            FromScheduler::Elsewhere(mut master) => {
                if master.ip().to_canonical().is_loopback() {
                    // It is on the same machine as the one that says so.
                    master.set_ip(at.ip());
                }
                addresses = vec![master];
            }
            _ => return Err(StatusError::Other(at)),
        }
    }
}

async fn ask(connection: Connection) -> Result<FromScheduler, StatusError> {
    let at = connection.peer();
    let broken = |error| StatusError::Connection(at, error);
    let (mut sender, mut receiver) = connection.split();
    let answer = async {
        sender.send(&ToScheduler::Status).await.map_err(broken)?;
        let answer = receiver.receive().await.map_err(broken)?;
        answer.ok_or(StatusError::Ended(at))
    };
    let late = async {
        Timer::after(TIMEOUT).await;
        Err(broken(ConnectionError::Timeout(TIMEOUT)))
    };
    answer.or(late).await
}

/// A summary line, then a line for each node in aligned columns.
pub fn as_text(status: &Status) -> String {
    let summary = Summary::of(status);
    let mut text = format!(
        "workers: {}  slots: {}  running: {}  waiting: {}\n",
        summary.workers, summary.slots, summary.running, summary.waiting
    );
    text.push_str(&so_far(&status.totals));
    if status.nodes.is_empty() {
        return text;
    }
    let heads = [
        "NAME", "ADDRESS", "PLATFORM", "SLOTS", "RUNNING", "LOCAL", "DONE", "SPEED", "LOAD",
        "REMOTE",
    ];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(status.nodes.iter().map(row));
    let widths: Vec<usize> = (0..heads.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max())
        .map(Option::unwrap_or_default)
        .collect();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            // Numbers to the right, words to the left.
            match (3..=8).contains(&column) {
                true => line.push_str(&format!("{cell:>width$}  ")),
                false => line.push_str(&format!("{cell:<width$}  ")),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Where the jobs went since the scheduler started, and why some went nowhere; empty when there were none.
fn so_far(totals: &Totals) -> String {
    let mut text = String::new();
    let other: u64 = totals.local.iter().map(|(_, jobs)| jobs).sum();
    if totals.remote + totals.own + totals.failed + other == 0 {
        return text;
    }
    text.push_str(&format!(
        "so far: {} remote, {} on their own node",
        totals.remote, totals.own
    ));
    if totals.failed > 0 {
        text.push_str(&format!(", {} not delivered", totals.failed));
    }
    text.push('\n');
    if other > 0 {
        let mut reasons: Vec<_> = totals.local.iter().collect();
        reasons.sort_by_key(|(reason, jobs)| (std::cmp::Reverse(*jobs), reason));
        let reasons: Vec<String> = reasons
            .into_iter()
            .map(|(reason, jobs)| format!("{reason}: {jobs}"))
            .collect();
        text.push_str(&format!("local: {other} ({})\n", reasons.join(", ")));
    }
    text
}

/// One JSON object with the same facts.
pub fn as_json(status: &Status) -> String {
    let summary = Summary::of(status);
    let nodes: Vec<serde_json::Value> = status
        .nodes
        .iter()
        .map(|node| {
            serde_json::json!({
                "name": node.name,
                "address": node.address,
                "platform": node.platform,
                "worker": is_worker(node),
                "slots": node.slots,
                "running": node.running,
                "local_jobs": node.local_jobs,
                "jobs_done": node.jobs_done,
                "speed_percent": (node.speed_percent > 0).then_some(node.speed_percent),
                "load": f64::from(node.load_milli) / 1000.0,
                "no_remote": node.no_remote,
                "skew_ms": node.skew_ms,
            })
        })
        .collect();
    let whole = serde_json::json!({
        "workers": summary.workers,
        "slots": summary.slots,
        "running": summary.running,
        "waiting": summary.waiting,
        "jobs_remote": status.totals.remote,
        "jobs_own": status.totals.own,
        "jobs_failed": status.totals.failed,
        "jobs_local": status.totals.local.iter().cloned().collect::<BTreeMap<_, _>>(),
        "clock_ms": status.clock_ms,
        "nodes": nodes,
    });
    format!("{whole}\n")
}

struct Summary {
    workers: usize,
    slots: u64,
    running: u64,
    waiting: u32,
}

impl Summary {
    fn of(status: &Status) -> Self {
        let workers = || status.nodes.iter().filter(|node| is_worker(node));
        Self {
            workers: workers().count(),
            slots: workers().map(|node| u64::from(node.slots)).sum(),
            running: status.nodes.iter().map(|n| u64::from(n.running)).sum(),
            waiting: status.waiting,
        }
    }
}

/// Whether the node takes jobs of others.
fn is_worker(node: &NodeStatus) -> bool {
    node.slots > 0 && node.no_remote.is_none() && !node.address.ends_with(":0")
}

fn row(node: &NodeStatus) -> Vec<String> {
    let speed = match node.speed_percent {
        0 => "-".to_owned(),
        percent => format!("{percent}%"),
    };
    let remote = match &node.no_remote {
        Some(why) => format!("no: {why}"),
        None if is_worker(node) => "yes".to_owned(),
        None => "no: submits only".to_owned(),
    };
    vec![
        node.name.clone(),
        node.address.clone(),
        node.platform.clone(),
        node.slots.to_string(),
        node.running.to_string(),
        node.local_jobs.to_string(),
        node.jobs_done.to_string(),
        speed,
        format!("{:.2}", f64::from(node.load_milli) / 1000.0),
        remote,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Status {
        let node = |name: &str, port: u16, slots, no_remote: Option<&str>| NodeStatus {
            name: name.into(),
            address: format!("10.0.0.1:{port}"),
            platform: "x86_64".into(),
            slots,
            running: slots / 2,
            local_jobs: 1,
            jobs_done: 12,
            speed_percent: slots * 10,
            no_remote: no_remote.map(str::to_owned),
            load_milli: 1250,
            skew_ms: None,
        };
        Status {
            nodes: vec![
                node("anvil", 10245, 16, None),
                node("bare", 10245, 4, Some("no sandbox")),
                node("console", 0, 0, None),
            ],
            waiting: 3,
            totals: Totals {
                remote: 90,
                own: 4,
                failed: 1,
                local: vec![("link".into(), 2), ("no-node".into(), 30)],
                ..Totals::default()
            },
            clock_ms: 0,
        }
    }

    #[test]
    fn the_cluster_is_one_line_and_a_table() {
        let expect = "\
workers: 1  slots: 16  running: 10  waiting: 3
so far: 90 remote, 4 on their own node, 1 not delivered
local: 32 (no-node: 30, link: 2)
NAME     ADDRESS         PLATFORM  SLOTS  RUNNING  LOCAL  DONE  SPEED  LOAD  REMOTE
anvil    10.0.0.1:10245  x86_64       16        8      1    12   160%  1.25  yes
bare     10.0.0.1:10245  x86_64        4        2      1    12    40%  1.25  no: no sandbox
console  10.0.0.1:0      x86_64        0        0      1    12      -  1.25  no: submits only
";
        assert_eq!(as_text(&cluster()), expect);
    }

    #[test]
    fn an_empty_cluster_is_one_line() {
        assert_eq!(
            as_text(&Status::default()),
            "workers: 0  slots: 0  running: 0  waiting: 0\n"
        );
    }

    #[test]
    fn json_has_the_same_facts() {
        let value: serde_json::Value = serde_json::from_str(&as_json(&cluster())).unwrap();
        for (pointer, expect) in [
            ("/workers", serde_json::json!(1)),
            ("/slots", serde_json::json!(16)),
            ("/running", serde_json::json!(10)),
            ("/waiting", serde_json::json!(3)),
            ("/nodes/0/worker", serde_json::json!(true)),
            ("/nodes/1/no_remote", serde_json::json!("no sandbox")),
            ("/nodes/2/worker", serde_json::json!(false)),
            ("/nodes/2/speed_percent", serde_json::json!(null)),
            ("/nodes/0/load", serde_json::json!(1.25)),
            ("/jobs_local/no-node", serde_json::json!(30)),
            ("/jobs_remote", serde_json::json!(90)),
        ] {
            assert_eq!(value.pointer(pointer), Some(&expect), "{pointer}");
        }
    }
}
