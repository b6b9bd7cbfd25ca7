//! The language of the text port: icecream's commands, and answers of the shape that icecream's have, so that
//! scripts go on working.
//!
//! Reads a line, prints an answer. What is different on purpose: a blocked node stays connected, so that its own
//! compiles still go out, and `internals` tells what the scheduler knows instead of asking each node.
//! Knows no socket; [`super::text_port`] has them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use crate::id::Bytes;
use crate::message::{NodeStatus, Status};

/// What somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The nodes and the jobs on each.
    ListNodes,
    /// The names that are blocked.
    ListBlocks,
    /// All jobs.
    ListJobs,
    /// Place no jobs on these nodes from now on.
    Block(Vec<String>),
    /// Place jobs on them again.
    Unblock(Vec<String>),
    /// End the connections of these nodes.
    Remove(Vec<String>),
    /// All that is known of these nodes, or of all.
    Internals(Vec<String>),
    /// The commands.
    Help,
    /// The end.
    Quit,
    /// None of these; the line as it was.
    Unknown(String),
}

/// Hosts that are blocked, at most.
pub const BLOCKS_MAX: usize = 4096;

/// What a block may be called, in bytes.
const HOST_BYTES_MAX: usize = 255;

const HELP: &str =
    "listcs\nlistblocks\nlistjobs\nremovecs\nblockcs\nunblockcs\ninternals\nhelp\nquit\n";

const DONE: &str = "200 done\n";

/// Reads a line without its end. Words are separated by white space; the first may be in any case.
pub fn parse(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let Some(word) = words.next() else {
        return Command::Unknown(String::new());
    };
    let hosts = || words.map(str::to_owned).collect::<Vec<_>>();
    match &word.to_ascii_lowercase()[..] {
        "listcs" => Command::ListNodes,
        "listblocks" => Command::ListBlocks,
        "listjobs" => Command::ListJobs,
        "blockcs" => Command::Block(hosts()),
        "unblockcs" => Command::Unblock(hosts()),
        "removecs" => Command::Remove(hosts()),
        "internals" => Command::Internals(hosts()),
        "help" => Command::Help,
        "quit" | "exit" => Command::Quit,
        _ => Command::Unknown(printable(line.trim())),
    }
}

/// What the scheduler knows.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// Nodes and queue; none when the scheduler stands by.
    pub status: Option<Status>,
    /// The master, when the scheduler stands by.
    pub master: Option<SocketAddr>,
    /// Jobs that wait and run.
    pub jobs: Vec<Job>,
    /// Names of hosts.
    pub blocks: BTreeSet<String>,
    /// Jobs that were placed since the start.
    pub placed: u64,
    /// Since the start.
    pub uptime: Duration,
}

/// A job as the scheduler knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The number of its lease, or of its request while it has none.
    pub number: u64,
    /// The node whose job it is.
    pub submitter: String,
    /// Where it runs.
    pub node: Option<String>,
    /// What is compiled.
    pub file: Bytes,
}

/// What is said first.
pub fn banner(picture: &Picture) -> String {
    let (nodes, waiting) = picture
        .status
        .as_ref()
        .map_or((0, 0), |status| (status.nodes.len(), status.waiting));
    format!(
        "200-ICE {}: {}s uptime, {nodes} hosts, {waiting} jobs in queue ({} total).\n\
         200 Use 'help' for help and 'quit' to quit.\n",
        env!("CARGO_PKG_VERSION"),
        picture.uptime.as_secs(),
        picture.placed,
    )
}

/// The answer to a command. What it changes has been changed already: `removed` are the nodes whose connections ended.
pub fn answer(command: &Command, picture: &Picture, removed: &[String]) -> String {
    let mut text = String::new();
    let status = picture.status.as_ref();
    let needs_nodes = !matches!(
        command,
        Command::Help | Command::Quit | Command::Unknown(_) | Command::ListBlocks
    );
    if needs_nodes && status.is_none() {
        text.push_str(&match picture.master {
            Some(at) => format!("400 This scheduler stands by; the master is at {at}.\n"),
            None => "400 This scheduler looks for the master.\n".to_owned(),
        });
        text.push_str(DONE);
        return text;
    }
    let nodes = status.map_or(&[][..], |status| &status.nodes);
    match command {
        Command::ListNodes => {
            for node in nodes {
                text.push_str(&node_line(node));
                let here = |job: &&Job| job.node.as_ref() == Some(&node.name);
                for job in picture.jobs.iter().filter(here) {
                    text.push_str(&format!("   {}", job_line(job)));
                }
            }
        }
        Command::ListBlocks => {
            for host in &picture.blocks {
                text.push_str(&format!("   {host}\n"));
            }
        }
        Command::ListJobs => {
            for job in &picture.jobs {
                text.push_str(&format!(" {}", job_line(job)));
            }
        }
        Command::Block(hosts) | Command::Remove(hosts) if hosts.is_empty() => {
            text.push_str("401 Sure. But which hosts?\n");
        }
        Command::Unblock(hosts) if hosts.is_empty() => {
            text.push_str("401 Sure. But which host?\n");
        }
        Command::Remove(_) => {
            for name in removed {
                text.push_str(&format!("removing host {name}\n"));
            }
        }
        Command::Block(_) | Command::Unblock(_) => {}
        Command::Internals(hosts) => {
            let wanted = |node: &&NodeStatus| {
                hosts.is_empty() || hosts.iter().any(|host| is_called(node, host))
            };
            for node in nodes.iter().filter(wanted) {
                text.push_str(&internals(node));
            }
        }
        Command::Help => text.push_str(HELP),
        Command::Quit => return "200 Good Bye!\n".to_owned(),
        Command::Unknown(line) => text.push_str(&format!("Invalid command '{line}'\n")),
    }
    text.push_str(DONE);
    text
}

/// Whether a user who writes `host` means this node: its name, its address, or its address with the port.
pub fn is_called(node: &NodeStatus, host: &str) -> bool {
    let ip = |address: &SocketAddr| address.ip().to_string();
    node.name == host
        || node.address == host
        || node.address.parse().as_ref().map(ip).ok().as_deref() == Some(host)
}

/// Adds what is to be blocked: names that can be printed, up to [`BLOCKS_MAX`] of them.
pub fn block(blocks: &mut BTreeSet<String>, hosts: &[String]) {
    for host in hosts {
        let fits = host.len() <= HOST_BYTES_MAX && !host.chars().any(char::is_control);
        if fits && blocks.len() < BLOCKS_MAX {
            blocks.insert(host.clone());
        }
    }
}

fn node_line(node: &NodeStatus) -> String {
    let NodeStatus {
        name,
        address,
        platform,
        running,
        slots,
        ..
    } = node;
    let mut line = format!(
        " {} ({address}) [{}] speed={:.2} jobs={running}/{slots} load={}",
        printable(name),
        printable(platform),
        f64::from(node.speed_percent) / 100.0,
        load(node)
    );
    if let Some(why) = &node.no_remote {
        line.push_str(&format!(" no remote: {}", printable(why)));
    }
    line.push('\n');
    line
}

/// How busy a node is, from 0 to 1000, as icecream counts it.
fn load(node: &NodeStatus) -> u32 {
    (node.load_milli / node.slots.max(1)).min(1000)
}

fn job_line(job: &Job) -> String {
    let (state, on) = match &job.node {
        Some(node) => ("COMP", printable(node)),
        None => ("PEND", "<unknown>".to_owned()),
    };
    format!(
        "{} {state} sub:{} on:{on} {}\n",
        job.number,
        printable(&job.submitter),
        printable(&String::from_utf8_lossy(&job.file))
    )
}

fn internals(node: &NodeStatus) -> String {
    let remote = match &node.no_remote {
        Some(why) => format!("no: {}", printable(why)),
        None => "yes".to_owned(),
    };
    format!(
        "Node Name: {}\n  Remote name: {}\n  Architecture: {}\n  Current kids: {} (max: {})\n  \
         Local jobs: {}\n  Jobs done: {}\n  Speed: {}%\n  load: {}\n  Takes remote jobs: {remote}\n",
        printable(&node.name),
        node.address,
        printable(&node.platform),
        node.running,
        node.slots,
        node.local_jobs,
        node.jobs_done,
        node.speed_percent,
        load(node),
    )
}

/// The text with nothing that moves a terminal's cursor or begins a line of its own.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Picture {
        let node = |name: &str, last: u8, no_remote: Option<&str>| NodeStatus {
            name: name.into(),
            address: format!("10.0.0.{last}:10245"),
            platform: "x86_64".into(),
            slots: 4,
            running: 1,
            local_jobs: 0,
            jobs_done: 7,
            speed_percent: 150,
            no_remote: no_remote.map(str::to_owned),
            load_milli: 2000,
            skew_ms: None,
        };
        let job = |number, node: Option<&str>, file: &str| Job {
            number,
            submitter: "anvil".into(),
            node: node.map(str::to_owned),
            file: file.into(),
        };
        Picture {
            status: Some(Status {
                nodes: vec![node("anvil", 1, Some("blocked")), node("bellows", 2, None)],
                waiting: 1,
                ..Status::default()
            }),
            master: None,
            jobs: vec![job(5, Some("bellows"), "a.c"), job(6, None, "b\n.c")],
            blocks: BTreeSet::from(["anvil".to_owned()]),
            placed: 9,
            uptime: Duration::from_secs(61),
        }
    }

    fn said(line: &str) -> String {
        answer(&parse(line), &picture(), &[])
    }

    #[test]
    fn a_command_is_a_word_in_any_case_and_the_rest_are_hosts() {
        let hosts = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        for (line, command) in [
            ("listcs", Command::ListNodes),
            ("  LISTCS \t", Command::ListNodes),
            ("ListBlocks", Command::ListBlocks),
            ("listjobs", Command::ListJobs),
            ("blockcs a  b", Command::Block(hosts(&["a", "b"]))),
            ("unblockcs a", Command::Unblock(hosts(&["a"]))),
            ("removecs", Command::Remove(vec![])),
            ("internals A", Command::Internals(hosts(&["A"]))),
            ("help", Command::Help),
            ("quit", Command::Quit),
            ("exit now", Command::Quit),
            ("Foo Bar", Command::Unknown("Foo Bar".into())),
            ("\x1b[2J", Command::Unknown("?[2J".into())),
            ("", Command::Unknown(String::new())),
        ] {
            assert_eq!(parse(line), command, "{line:?}");
        }
    }

    /// What icecc-scheduler 1.4 answered to the same lines, but for what the nodes and jobs are.
    #[test]
    fn answers_have_the_shape_of_icecreams() {
        for (line, expect) in [
            (
                "listcs",
                " anvil (10.0.0.1:10245) [x86_64] speed=1.50 jobs=1/4 load=500 no remote: blocked\n \
                 bellows (10.0.0.2:10245) [x86_64] speed=1.50 jobs=1/4 load=500\n   \
                 5 COMP sub:anvil on:bellows a.c\n200 done\n",
            ),
            ("listblocks", "   anvil\n200 done\n"),
            (
                "listjobs",
                " 5 COMP sub:anvil on:bellows a.c\n 6 PEND sub:anvil on:<unknown> b?.c\n200 done\n",
            ),
            ("blockcs", "401 Sure. But which hosts?\n200 done\n"),
            ("removecs", "401 Sure. But which hosts?\n200 done\n"),
            ("unblockcs", "401 Sure. But which host?\n200 done\n"),
            ("blockcs nobody", "200 done\n"),
            ("unblockcs nobody", "200 done\n"),
            ("removecs nobody", "200 done\n"),
            (
                "help",
                "listcs\nlistblocks\nlistjobs\nremovecs\nblockcs\nunblockcs\ninternals\nhelp\nquit\n\
                 200 done\n",
            ),
            ("foo bar", "Invalid command 'foo bar'\n200 done\n"),
            ("internals nobody", "200 done\n"),
            ("quit", "200 Good Bye!\n"),
        ] {
            assert_eq!(said(line), expect, "{line}");
        }
        let removed = ["bellows".to_owned()];
        let command = parse("removecs bellows");
        assert_eq!(
            answer(&command, &picture(), &removed),
            "removing host bellows\n200 done\n"
        );
        assert!(said("internals bellows").starts_with("Node Name: bellows\n  Remote name: "));
        assert_eq!(said("internals").matches("Node Name: ").count(), 2);
        let banner = banner(&picture());
        assert!(banner.starts_with("200-ICE "), "{banner}");
        let end = "61s uptime, 2 hosts, 1 jobs in queue (9 total).\n200 Use 'help' for help and 'quit' to quit.\n";
        assert!(banner.ends_with(end), "{banner}");
    }

    #[test]
    fn a_scheduler_that_stands_by_says_who_is_to_be_asked() {
        let picture = Picture {
            master: Some("10.0.0.9:8765".parse().unwrap()),
            ..Picture::default()
        };
        assert_eq!(
            answer(&Command::ListNodes, &picture, &[]),
            "400 This scheduler stands by; the master is at 10.0.0.9:8765.\n200 done\n"
        );
        assert_eq!(answer(&Command::ListBlocks, &picture, &[]), "200 done\n");
    }

    #[test]
    fn a_node_is_called_by_name_or_address() {
        let node = &picture().status.unwrap().nodes[0];
        for (host, is) in [
            ("anvil", true),
            ("10.0.0.1", true),
            ("10.0.0.1:10245", true),
            ("10.0.0.10", false),
            ("", false),
        ] {
            assert_eq!(is_called(node, host), is, "{host}");
        }
    }

    #[test]
    fn blocks_are_bounded() {
        let mut blocks = BTreeSet::new();
        let many: Vec<String> = (0..2 * BLOCKS_MAX)
            .map(|number| number.to_string())
            .collect();
        block(&mut blocks, &["x".repeat(256)]);
        block(&mut blocks, &many);
        assert_eq!(blocks.len(), BLOCKS_MAX);
    }
}
