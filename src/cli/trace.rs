//! `ice trace`: from the job log of a build to a file that Perfetto and Chrome's `about:tracing` show.
//!
//! A process of the trace is a node, a thread of it one of as many rows as the node had jobs at a time. Each call is a
//! span with its phases within; two counters say how many calls waited and how many ran.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Where calls that ran here stand.
const HERE: &str = "this machine";
/// Phases in which a compiler, or the way to it and back, is at work; in all others the call waits.
const RUNNING: [&str; 5] = ["send", "compile", "fetch", "commit", "lost"];

/// The trace of the calls in a job log, as one JSON object. Lines that are none of ours are passed over.
pub(super) fn of(log: &[u8]) -> String {
    let mut calls: Vec<Call> = log
        .split(|&byte| byte == b'\n')
        .filter_map(Call::of)
        .collect();
    calls.sort_by_key(|call| call.began_us);
    let start = calls.first().map_or(0, |call| call.began_us);
    let mut rows = Rows::default();
    let mut events = Vec::new();
    let mut changes: BTreeMap<u64, [i64; 2]> = BTreeMap::new();
    for call in &calls {
        let at = call.began_us - start;
        let end = at + call.wall_us;
        let (node, row) = rows.of(&call.node, at, end);
        let span = |name: &str, kind: &str, from: u64, to: u64| {
            json!({
                "ph": "X", "name": name, "cat": kind, "pid": node, "tid": row,
                "ts": from, "dur": to - from,
            })
        };
        let mut whole = span(&call.file, "job", at, end);
        whole["args"] = json!({
            "place": call.line["place"],
            "reason": call.line["reason"],
            "exit": call.line["exit"],
            "tries": call.line["tries"],
            "files": call.line["files"],
        });
        events.push(whole);
        for (phase, from, to) in &call.phases {
            events.push(span(phase, "phase", at + from, at + to));
            let counter = usize::from(RUNNING.contains(&&phase[..]));
            changes.entry(at + from).or_default()[counter] += 1;
            changes.entry(at + to).or_default()[counter] -= 1;
        }
    }
    let mut counts = [0; 2];
    for (at, change) in changes {
        for (count, change) in counts.iter_mut().zip(change) {
            *count += change;
        }
        let [waiting, running] = counts;
        events.push(json!({
            "ph": "C", "name": "jobs", "pid": 0, "ts": at,
            "args": { "waiting": waiting, "running": running },
        }));
    }
    events.extend(rows.names());
    let whole = json!({ "displayTimeUnit": "ms", "traceEvents": events });
    format!("{whole}\n")
}

/// A line of the log.
struct Call {
    line: Value,
    node: String,
    file: String,
    began_us: u64,
    wall_us: u64,
    /// Each with its beginning and its end since the call's, within it and none overlapping another.
    phases: Vec<(String, u64, u64)>,
}

impl Call {
    fn of(line: &[u8]) -> Option<Self> {
        let line: Value = serde_json::from_slice(line).ok()?;
        let (began_us, wall_us) = (line["began_us"].as_u64()?, line["wall_us"].as_u64()?);
        let mut last = 0;
        let phases = line["phases"].as_array().into_iter().flatten();
        let phases = phases
            .filter_map(|phase| {
                let (name, from, to) = (phase[0].as_str()?, phase[1].as_u64()?, phase[2].as_u64()?);
                // Two processes have looked at the clock, so a phase may seem to end after its call.
                let from = from.clamp(last, wall_us.max(last));
                let to = to.clamp(from, wall_us.max(from));
                last = to;
                Some((name.to_owned(), from, to))
            })
            .collect();
        Some(Self {
            node: match line["place"].as_str() {
                Some("remote") => line["node"].as_str().unwrap_or("unknown").to_owned(),
                _ => HERE.to_owned(),
            },
            // What has no main file, a link say, is called by why it is here.
            file: match (line["file"].as_str(), line["reason"].as_str()) {
                (Some(file), _) => file.to_owned(),
                (None, Some(reason)) => reason.split(':').next().unwrap_or(reason).to_owned(),
                (None, None) => "no file".to_owned(),
            },
            began_us,
            wall_us,
            phases,
            line,
        })
    }
}

/// The rows of each node, with the time when each is free again.
#[derive(Default)]
struct Rows {
    by_node: BTreeMap<String, (u64, Vec<u64>)>,
}

impl Rows {
    /// The numbers of the node and of its first row that is free then; calls come in the order of their beginning.
    fn of(&mut self, node: &str, from: u64, to: u64) -> (u64, u64) {
        // Counters stand in process 0.
        let next = self.by_node.len() as u64 + 1;
        let (number, rows) = self
            .by_node
            .entry(node.to_owned())
            .or_insert_with(|| (next, Vec::new()));
        let row = rows.iter().position(|&free| free <= from);
        let row = row.unwrap_or_else(|| {
            rows.push(0);
            rows.len() - 1
        });
        rows[row] = to;
        (*number, row as u64)
    }

    fn names(&self) -> Vec<Value> {
        let name = |kind: &str, node: u64, row: u64, name: &str| json!({ "ph": "M", "name": kind, "pid": node, "tid": row, "args": { "name": name } });
        let mut names = vec![name("process_name", 0, 0, "all jobs")];
        for (node, (number, rows)) in &self.by_node {
            names.push(name("process_name", *number, 0, node));
            for row in 0..rows.len() as u64 {
                names.push(name(
                    "thread_name",
                    *number,
                    row,
                    &format!("slot {}", row + 1),
                ));
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(node: Option<&str>, file: &str, began: u64, wall: u64, phases: &Value) -> String {
        let place = if node.is_some() { "remote" } else { "local" };
        let line = json!({
            "place": place, "node": node, "file": file, "reason": "word: why", "exit": 0,
            "tries": 1, "files": 3, "began_us": began, "wall_us": wall, "phases": phases,
        });
        format!("{line}\n")
    }

    /// The spans of a trace by process and row, each with its beginning and its end.
    fn spans(trace: &Value, kind: &str) -> Vec<(u64, u64, String, u64, u64)> {
        let events = trace["traceEvents"].as_array().unwrap().iter();
        events
            .filter(|event| event["cat"] == kind)
            .map(|event| {
                let number = |key: &str| event[key].as_u64().unwrap();
                let name = event["name"].as_str().unwrap().to_owned();
                let (ts, end) = (number("ts"), number("ts") + number("dur"));
                (number("pid"), number("tid"), name, ts, end)
            })
            .collect()
    }

    #[test]
    fn phases_lie_within_their_call_and_calls_of_a_row_follow_each_other() {
        let remote = json!([["scan", 10, 20], ["wait", 20, 30], ["compile", 30, 90]]);
        // One that seems to end after its call, and overlaps the one before.
        let odd = json!([["classify", 0, 60], ["compile", 40, 500]]);
        let log = [
            line(Some("w1"), "b.c", 1050, 100, &remote),
            line(Some("w1"), "a.c", 1000, 100, &remote),
            line(Some("w1"), "c.c", 1100, 100, &odd),
            line(None, "d.c", 1100, 100, &odd),
            "noise\n{}\n".to_owned(),
        ];
        let trace: Value = serde_json::from_str(&of(log.concat().as_bytes())).unwrap();
        let jobs = spans(&trace, "job");
        let expect = [
            (1, 0, "a.c".to_owned(), 0, 100),
            (1, 1, "b.c".to_owned(), 50, 150),
            // The first row is free again.
            (1, 0, "c.c".to_owned(), 100, 200),
            (2, 0, "d.c".to_owned(), 100, 200),
        ];
        assert_eq!(jobs, expect);
        let phases = spans(&trace, "phase");
        assert_eq!(phases.len(), 10);
        for (pid, tid, name, from, to) in &phases {
            let around = jobs.iter().any(|job| {
                (job.0, job.1) == (*pid, *tid) && job.3 <= *from && *from <= *to && *to <= job.4
            });
            assert!(around, "{name}");
        }
        // All counters come back to nothing, and none is ever less.
        let events = trace["traceEvents"].as_array().unwrap().iter();
        let counts: Vec<(i64, i64)> = events
            .filter(|event| event["ph"] == "C")
            .map(|event| {
                let of = |key: &str| event["args"][key].as_i64().unwrap();
                (of("waiting"), of("running"))
            })
            .collect();
        assert_eq!(counts.last(), Some(&(0, 0)));
        assert!(
            counts
                .iter()
                .all(|&(waiting, running)| waiting >= 0 && running >= 0)
        );
        assert!(counts.iter().any(|&(_, running)| running == 2));
    }

    #[test]
    fn a_build_without_compiles_has_an_empty_trace() {
        let trace: Value = serde_json::from_str(&of(b"")).unwrap();
        assert_eq!(spans(&trace, "job"), []);
    }
}
