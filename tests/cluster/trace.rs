//! `ice trace`: what the trace of a real build says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::cluster::{Cluster, two_workers};
use crate::netns;
use crate::node::ALICE;

/// What is built: three files, of which one includes a header that takes a while.
const FILES: [(&str, &str); 3] = [
    (
        "a.c",
        "#include <stdio.h>\nint a(void) { return printf(\"a\"); }\n",
    ),
    (
        "b.c",
        "#include <stdlib.h>\nint b(void) { return rand(); }\n",
    ),
    (
        "c.c",
        "int a(void), b(void);\nint main(void) { return a() + b(); }\n",
    ),
];

#[test]
fn a_trace_has_each_call_with_its_phases_within_it() {
    if !netns::possible() {
        return;
    }
    let cluster = Cluster::start(&two_workers(ALICE));
    let home = cluster.home(ALICE);
    for (name, text) in FILES {
        fs::write(home.join(name), text).unwrap();
    }
    let script = "for f in a b c; do gcc -O1 -c $f.c & done; wait; gcc -o program a.o b.o c.o";
    let mut command = cluster.ice(ALICE, &["trace", "trace.json", "--", "sh", "-c", script]);
    let output = cluster.here(|| command.output()).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(home.join("program").exists());

    let trace = fs::read(home.join("trace.json")).unwrap();
    let trace: serde_json::Value = serde_json::from_slice(&trace).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let mut nodes = BTreeMap::new();
    for event in events
        .iter()
        .filter(|event| event["name"] == "process_name")
    {
        let name = event["args"]["name"].as_str().unwrap();
        nodes.insert(event["pid"].as_u64().unwrap(), name);
    }
    let of = |event: &serde_json::Value| {
        let number = |key: &str| event[key].as_u64().unwrap();
        let row = (number("pid"), number("tid"));
        (row, number("ts"), number("ts") + number("dur"))
    };
    let jobs = || events.iter().filter(|event| event["cat"] == "job");
    let mut places = BTreeMap::new();
    for job in jobs() {
        let (row, from, to) = of(job);
        let phases: BTreeSet<&str> = events
            .iter()
            .filter(|event| event["cat"] == "phase")
            .filter(|event| {
                let (other, begin, end) = of(event);
                other == row && from <= begin && end <= to
            })
            .map(|event| event["name"].as_str().unwrap())
            .collect();
        places.insert(job["name"].as_str().unwrap(), (nodes[&row.0], phases));
    }
    for file in ["a.c", "b.c", "c.c"] {
        let (node, phases) = &places[file];
        assert!(matches!(*node, "w1" | "w2"), "{file}: {node}");
        for phase in ["classify", "scan", "send", "compile", "commit"] {
            assert!(phases.contains(phase), "{file}: {phases:?}");
        }
    }
    // The link, which names no one file, is here with its reason.
    let mut links = jobs().filter(|job| nodes[&of(job).0.0] == "this machine");
    let link = links.next().expect("there is a link");
    assert!(
        link["args"]["reason"].as_str().unwrap().starts_with("link"),
        "{link}"
    );
    assert!(links.next().is_none());
    // Every phase is within a job.
    for phase in events.iter().filter(|event| event["cat"] == "phase") {
        let (row, from, to) = of(phase);
        let around = |job: &serde_json::Value| {
            let (other, begin, end) = of(job);
            other == row && begin <= from && to <= end
        };
        assert!(jobs().any(around), "{phase}");
    }
}
