//! Judges what belongs to the cluster: key, daemon, scheduler, clocks, nodes.

use super::facts::{
    DaemonFacts, DaemonState, Facts, KeyFacts, KeyState, NodeFacts, Reach, SchedulerFacts,
    SchedulerState, Trial, only_submits,
};
use super::finding::{Finding, Group};
use crate::message::NodeStatus;

/// A clock that is off by less is right, in milliseconds: a report waits half a second, and time servers do no
/// better on a busy machine.
const SKEW_FINE_MS: u64 = 2_000;
/// A clock that is off by more is wrong, in milliseconds: what is compiled there then has the wrong `__TIME__`.
const SKEW_BROKEN_MS: u64 = 60_000;

/// What is to be said of them.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![key(&facts.key), daemon(&facts.daemon)];
    scheduler(&facts.scheduler, &mut findings);
    clocks(&facts.scheduler, &mut findings);
    nodes(facts, &mut findings);
    findings
}

fn key(facts: &KeyFacts) -> Finding {
    let (group, file) = (Group::Key, facts.file.display());
    if facts.is_open {
        let what = "none: --open lets in whoever reaches the port";
        return Finding::warning(group, what, "start everything without --open");
    }
    match &facts.state {
        KeyState::Missing => Finding::broken(
            group,
            format!("there is none in {file}"),
            "ice key show | ssh THIS-MACHINE ice key import   # on one that has it",
        ),
        KeyState::Unreadable(why) => Finding::broken(
            group,
            format!("{file} can't be read: {why}"),
            format!("sudo chown $(id -un) {file}; chmod 600 {file}"),
        ),
        KeyState::Malformed => Finding::broken(
            group,
            format!("{file} holds no key: 64 hexadecimal digits are expected"),
            "ice key show | ssh THIS-MACHINE ice key import   # on one that has it",
        ),
        KeyState::Read(fingerprint) if facts.mode & 0o077 != 0 => Finding::broken(
            group,
            format!(
                "{file} (fingerprint {fingerprint}) may be read by others: its mode is {:04o}",
                facts.mode & 0o7777
            ),
            format!("chmod 600 {file}"),
        ),
        KeyState::Read(fingerprint) => {
            Finding::fine(group, format!("{file}, fingerprint {fingerprint}"))
        }
    }
}

fn daemon(facts: &DaemonFacts) -> Finding {
    let group = Group::Daemon;
    match &facts.state {
        DaemonState::Absent => {
            let places: Vec<String> = facts
                .places
                .iter()
                .map(|place| place.display().to_string())
                .collect();
            Finding::broken(
                group,
                format!(
                    "none listens at {}: everything compiles here",
                    places.join(" or ")
                ),
                "ice daemon -d",
            )
        }
        DaemonState::Forbidden(place) => Finding::broken(
            group,
            format!("{} is there, and may not be used", place.display()),
            format!("ls -l {}   # it belongs to another user", place.display()),
        ),
        DaemonState::Silent(place) => Finding::broken(
            group,
            format!(
                "the one at {} takes connections and says nothing within a second",
                place.display()
            ),
            "stop it and start it anew: ice daemon -d",
        ),
        DaemonState::OtherVersion(place, why) => Finding::broken(
            group,
            format!("the one at {} is another version: {why}", place.display()),
            "stop it and start it anew: ice daemon -d",
        ),
        DaemonState::OtherFiles(place) => Finding::broken(
            group,
            format!(
                "the one at {} sees other files: it is not in this container, so all compiles are local",
                place.display()
            ),
            "export ICE_SOCKET=/var/tmp/ice.sock && ice daemon -d -m 0",
        ),
        DaemonState::Answers(place, owner) => {
            let whose = match *owner {
                owner if owner == facts.user => "this user's",
                0 => "root's, for all users",
                _ => "another user's",
            };
            Finding::fine(group, format!("{} answers; it is {whose}", place.display()))
        }
    }
}

fn scheduler(facts: &SchedulerFacts, findings: &mut Vec<Finding>) {
    let group = Group::Scheduler;
    let is_named = facts.named.iter().any(|name| !name.starts_with(':'));
    match &facts.state {
        SchedulerState::Untried => {
            findings.push(Finding::unknown(group, "not tried, for lack of a key"));
        }
        SchedulerState::NotFound(why) => findings.push(Finding::broken(
            group,
            why,
            match is_named {
                true => "name it rightly: --scheduler HOST, or in /etc/ice/ice.toml".to_owned(),
                false => format!(
                    "ice scheduler -d   # on one machine with this key; if one runs, name it:\n\
                     ice daemon -d --scheduler HOST   # broadcasts to UDP {} don't reach it",
                    facts.port
                ),
            },
        )),
        SchedulerState::Unreached(address, reach) => {
            findings.push(unreached(group, "the scheduler", address, reach));
        }
        SchedulerState::Answers(address) => {
            let how = match is_named {
                true => "named",
                false => "found by broadcast",
            };
            findings.push(Finding::fine(group, format!("{address} answers ({how})")));
            findings.push(membership(facts));
        }
    }
    if is_named {
        findings.push(discovery(facts));
    }
}

/// Whether others would find the scheduler that is named here.
fn discovery(facts: &SchedulerFacts) -> Finding {
    let group = Group::Scheduler;
    let mend = "name it on every machine: [cluster] scheduler = \"HOST\" in /etc/ice/ice.toml";
    let port = facts.port;
    if let Some(why) = &facts.unasked {
        return Finding::warning(
            group,
            format!("nobody can be asked by broadcast: {why}"),
            mend,
        );
    }
    if !facts.discovered.is_empty() {
        let found = facts.discovered.join(", ");
        return Finding::fine(group, format!("it is found by broadcast, too: {found}"));
    }
    if !matches!(facts.state, SchedulerState::Answers(_)) {
        let what = format!("none answers a broadcast to UDP port {port}");
        return Finding::unknown(group, what);
    }
    let what = format!(
        "TCP works, but nothing answers a broadcast to UDP port {port}: \
         whoever does not name it does not find it"
    );
    Finding::warning(group, what, mend)
}

fn membership(facts: &SchedulerFacts) -> Finding {
    let group = Group::Scheduler;
    match &facts.own_nodes[..] {
        [] => Finding::broken(
            group,
            "this machine is not in its list",
            "ice daemon -d   # if it runs, its log says why it is not let in",
        ),
        names if names.contains(&facts.name) => {
            Finding::fine(group, format!("this node is in its list as {}", facts.name))
        }
        names => Finding::warning(
            group,
            format!(
                "this node is in its list as {}, and not as {}",
                names.join(" and "),
                facts.name
            ),
            "another node may have the name: ice daemon -d --name NAME",
        ),
    }
}

fn unreached(group: Group, whom: &str, address: &str, reach: &Reach) -> Finding {
    let port = address.rsplit(':').next().unwrap_or_default();
    let (what, mend) = match reach {
        Reach::Reached => return Finding::fine(group, format!("{whom} at {address} answers")),
        Reach::Refused => (
            format!("{address} refuses connections: {whom} does not run there"),
            match group {
                Group::Nodes => "ice daemon -d   # on that machine".to_owned(),
                _ => "ice scheduler -d   # on that machine".to_owned(),
            },
        ),
        Reach::Silent => (
            format!(
                "nothing comes back from {address}: it is off, or a firewall drops what is sent there"
            ),
            format!(
                "sudo ufw allow {port}/tcp   # on that machine, where it has ufw\n\
                 sudo firewall-cmd --add-port={port}/tcp   # where it has firewalld"
            ),
        ),
        Reach::NoRoute(why) => (
            format!("there is no way to {address}: {why}"),
            format!(
                "ip route get {}   # and mend the network",
                address.trim_end_matches(&format!(":{port}"))
            ),
        ),
        Reach::OtherKey(why) => (
            format!("another key: {whom} at {address} is there, but {why}"),
            "ice key show   # there\nice key import   # here".to_owned(),
        ),
        Reach::Other(why) => (
            format!("{whom} at {address} can't be talked to: {why}"),
            "install the same version of ice on both".to_owned(),
        ),
    };
    Finding::broken(group, what, mend)
}

fn clocks(facts: &SchedulerFacts, findings: &mut Vec<Finding>) {
    let group = Group::Clocks;
    let Some(status) = &facts.status else {
        findings.push(Finding::unknown(
            group,
            "not compared: there is no scheduler",
        ));
        return;
    };
    let before = findings.len();
    let (here_ms, took_ms) = facts.clock;
    if status.clock_ms > 0 {
        // The answer was on its way for half of that, about.
        let ahead = i128::from(here_ms) - i128::from(took_ms / 2) - i128::from(status.clock_ms);
        let ahead = i64::try_from(ahead).unwrap_or(i64::MAX);
        findings.extend(clock("this machine's clock", ahead));
    }
    // One's own would be said twice.
    let others = |node: &&NodeStatus| !facts.own_nodes.contains(&node.name);
    for node in status.nodes.iter().filter(others) {
        if let Some(ahead) = node.skew_ms {
            findings.extend(clock(&format!("{}'s clock", node.name), ahead));
        }
    }
    if findings.len() == before {
        let what = format!("scheduler and nodes agree within {} s", SKEW_FINE_MS / 1000);
        findings.push(Finding::fine(group, what));
    }
}

/// What is wrong with a clock that is so many milliseconds ahead of the scheduler's, if anything.
fn clock(whose: &str, ahead_ms: i64) -> Option<Finding> {
    let off = ahead_ms.unsigned_abs();
    if off < SKEW_FINE_MS {
        return None;
    }
    let direction = if ahead_ms > 0 { "ahead of" } else { "behind" };
    let what = format!("{whose} is {} {direction} the scheduler's", duration(off));
    let mend = "timedatectl set-ntp true   # there, or on the scheduler's machine";
    Some(match off < SKEW_BROKEN_MS {
        true => Finding::warning(Group::Clocks, what, mend),
        false => Finding::broken(
            Group::Clocks,
            format!("{what}: __DATE__ and __TIME__ are wrong in what it compiles"),
            mend,
        ),
    })
}

fn duration(ms: u64) -> String {
    match ms / 1000 {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

fn nodes(facts: &Facts, findings: &mut Vec<Finding>) {
    let group = Group::Nodes;
    let Some(status) = &facts.scheduler.status else {
        findings.push(Finding::unknown(
            group,
            "not tried: there is no scheduler to name them",
        ));
        return;
    };
    for node in &facts.nodes {
        let status = status.nodes.iter().find(|other| other.name == node.name);
        findings.push(this_node(node, status));
    }
    if facts.nodes_left_out > 0 {
        let what = format!("{} more were not tried", facts.nodes_left_out);
        findings.push(Finding::unknown(group, what));
    }
    if facts.nodes.is_empty() {
        findings.push(Finding::warning(
            group,
            "there is no other node: everything compiles here",
            "ice daemon -d   # on other machines with this key",
        ));
    }
}

fn this_node(node: &NodeFacts, status: Option<&NodeStatus>) -> Finding {
    let (group, name) = (Group::Nodes, &node.name);
    if status.is_some_and(only_submits) || node.address.ends_with(":0") {
        return Finding::fine(group, format!("{name} only submits"));
    }
    if let Some(why) = status.and_then(|status| status.no_remote.as_ref()) {
        let mend = match &why[..] {
            "blocked" => "unblock it in `ice monitor`",
            _ => "ice doctor   # on that machine",
        };
        return Finding::warning(group, format!("{name} takes no jobs: {why}"), mend);
    }
    if node.reach != Reach::Reached {
        return unreached(group, name, &node.address, &node.reach);
    }
    match &node.trial {
        None => Finding::fine(group, format!("{name} at {} answers", node.address)),
        Some(Trial::Same(ms)) => Finding::fine(
            group,
            format!("{name} compiled in {ms} ms; the object is the compiler's own"),
        ),
        Some(Trial::Differs) => Finding::broken(
            group,
            format!("{name} compiled, and the object is not the compiler's own"),
            "block it in `ice monitor`, and report it: the manual says how",
        ),
        Some(Trial::Elsewhere(reason)) => Finding::broken(
            group,
            format!("{name} answers, but did not compile: {reason}"),
            format!("ICECC_DEBUG=debug ICECC_PREFERRED_HOST={name} ice gcc -c FILE"),
        ),
        Some(Trial::Failed(why)) => Finding::broken(
            group,
            format!("a compile on {name} came to nothing: {why}"),
            format!("ICECC_DEBUG=debug ICECC_PREFERRED_HOST={name} ice gcc -c FILE"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::healthy;
    use super::super::finding::Grade;
    use super::super::illness::{Illness, assert_each_is_named, assert_healthy};
    use super::*;
    use crate::message::NO_REMOTE_BY_CHOICE;

    #[test]
    fn a_healthy_cluster_has_nothing_wrong() {
        assert_healthy(findings);
    }

    const ILLNESSES: &[Illness] = &[
        (
            "no key",
            |facts| facts.key.state = KeyState::Missing,
            Group::Key,
            Grade::Broken,
            "there is none in /home/u/.config/ice/key",
            "ice key import",
        ),
        (
            "an unreadable key",
            |facts| facts.key.state = KeyState::Unreadable("Permission denied".into()),
            Group::Key,
            Grade::Broken,
            "Permission denied",
            "chmod 600",
        ),
        (
            "a damaged key",
            |facts| facts.key.state = KeyState::Malformed,
            Group::Key,
            Grade::Broken,
            "64 hexadecimal digits",
            "ice key import",
        ),
        (
            "a key for everybody",
            |facts| facts.key.mode = 0o644,
            Group::Key,
            Grade::Broken,
            "its mode is 0644",
            "chmod 600",
        ),
        (
            "no daemon",
            |facts| facts.daemon.state = DaemonState::Absent,
            Group::Daemon,
            Grade::Broken,
            "none listens at /run/user/7/ice/ice.sock",
            "ice daemon -d",
        ),
        (
            "somebody else's socket",
            |facts| facts.daemon.state = DaemonState::Forbidden("/s".into()),
            Group::Daemon,
            Grade::Broken,
            "may not be used",
            "ls -l /s",
        ),
        (
            "a daemon that hangs",
            |facts| facts.daemon.state = DaemonState::Silent("/s".into()),
            Group::Daemon,
            Grade::Broken,
            "says nothing",
            "start it anew",
        ),
        (
            "an old daemon",
            |facts| facts.daemon.state = DaemonState::OtherVersion("/s".into(), "2, not 1".into()),
            Group::Daemon,
            Grade::Broken,
            "another version",
            "start it anew",
        ),
        (
            "a daemon beyond the container",
            |facts| facts.daemon.state = DaemonState::OtherFiles("/s".into()),
            Group::Daemon,
            Grade::Broken,
            "sees other files",
            "ICE_SOCKET=",
        ),
        (
            "no scheduler in the network",
            |facts| facts.scheduler.state = SchedulerState::NotFound("no scheduler answers".into()),
            Group::Scheduler,
            Grade::Broken,
            "no scheduler answers",
            "--scheduler HOST",
        ),
        (
            "a dead scheduler",
            |facts| {
                facts.scheduler.named = vec!["a".into()];
                facts.scheduler.state =
                    SchedulerState::Unreached("10.0.0.1:8765".into(), Reach::Refused);
            },
            Group::Scheduler,
            Grade::Broken,
            "refuses connections",
            "ice scheduler -d",
        ),
        (
            "a scheduler behind a firewall",
            |facts| {
                facts.scheduler.state =
                    SchedulerState::Unreached("10.0.0.1:8765".into(), Reach::Silent);
            },
            Group::Scheduler,
            Grade::Broken,
            "a firewall drops",
            "8765/tcp",
        ),
        (
            "the wrong key",
            |facts| {
                facts.scheduler.state = SchedulerState::Unreached(
                    "10.0.0.1:8765".into(),
                    Reach::OtherKey("the keys differ".into()),
                );
            },
            Group::Scheduler,
            Grade::Broken,
            "another key",
            "ice key import",
        ),
        (
            "no broadcasts",
            |facts| {
                facts.scheduler.named = vec!["a".into()];
                facts.scheduler.discovered = Vec::new();
            },
            Group::Scheduler,
            Grade::Warning,
            "TCP works, but nothing answers a broadcast",
            "ice.toml",
        ),
        (
            "not in the list",
            |facts| facts.scheduler.own_nodes.clear(),
            Group::Scheduler,
            Grade::Broken,
            "not in its list",
            "ice daemon -d",
        ),
        (
            "under another name",
            |facts| facts.scheduler.own_nodes = vec!["anvil2".into()],
            Group::Scheduler,
            Grade::Warning,
            "as anvil2, and not as anvil",
            "--name",
        ),
        (
            "this clock off by an hour",
            |facts| facts.scheduler.clock.0 += 3_600_000,
            Group::Clocks,
            Grade::Broken,
            "this machine's clock is 60 min ahead of",
            "set-ntp",
        ),
        (
            "a node's clock off by an hour",
            |facts| skew(facts, -3_600_000),
            Group::Clocks,
            Grade::Broken,
            "bellows's clock is 60 min behind",
            "set-ntp",
        ),
        (
            "a node's clock off by some seconds",
            |facts| skew(facts, 9_000),
            Group::Clocks,
            Grade::Warning,
            "bellows's clock is 9 s ahead of",
            "set-ntp",
        ),
        (
            "a closed port",
            |facts| facts.nodes[0].reach = Reach::Refused,
            Group::Nodes,
            Grade::Broken,
            "10.0.0.2:10245 refuses connections",
            "ice daemon -d",
        ),
        (
            "a node behind a firewall",
            |facts| facts.nodes[0].reach = Reach::Silent,
            Group::Nodes,
            Grade::Broken,
            "nothing comes back from 10.0.0.2:10245",
            "10245/tcp",
        ),
        (
            "no route",
            |facts| facts.nodes[0].reach = Reach::NoRoute("unreachable".into()),
            Group::Nodes,
            Grade::Broken,
            "no way to 10.0.0.2:10245",
            "ip route get 10.0.0.2 ",
        ),
        (
            "a node that can't compile",
            |facts| {
                facts.nodes[0].trial = Some(Trial::Elsewhere("nodes-failed: why".into()));
            },
            Group::Nodes,
            Grade::Broken,
            "nodes-failed: why",
            "ICECC_PREFERRED_HOST=bellows",
        ),
        (
            "a node that lies",
            |facts| facts.nodes[0].trial = Some(Trial::Differs),
            Group::Nodes,
            Grade::Broken,
            "is not the compiler's own",
            "block it",
        ),
        (
            "a node without a sandbox",
            |facts| {
                let status = facts.scheduler.status.as_mut().unwrap();
                status.nodes[1].no_remote = Some("no sandbox".into());
            },
            Group::Nodes,
            Grade::Warning,
            "bellows takes no jobs: no sandbox",
            "ice doctor",
        ),
        (
            "alone",
            |facts| facts.nodes.clear(),
            Group::Nodes,
            Grade::Warning,
            "no other node",
            "ice daemon -d",
        ),
    ];

    fn skew(facts: &mut Facts, ms: i64) {
        facts.scheduler.status.as_mut().unwrap().nodes[1].skew_ms = Some(ms);
    }

    #[test]
    fn each_illness_is_named_with_what_mends_it_and_nothing_else_is() {
        assert_each_is_named(findings, ILLNESSES);
    }

    #[test]
    fn a_node_that_only_submits_is_as_it_should_be() {
        let mut facts = healthy();
        let status = facts.scheduler.status.as_mut().unwrap();
        status.nodes[1].no_remote = Some(NO_REMOTE_BY_CHOICE.into());
        let only_submits = Finding::fine(Group::Nodes, "bellows only submits");
        assert!(findings(&facts).contains(&only_submits));
    }

    #[test]
    fn what_depends_on_a_missing_scheduler_is_unknown_and_not_broken() {
        let mut facts = healthy();
        facts.scheduler.state = SchedulerState::NotFound("none".into());
        facts.scheduler.status = None;
        facts.nodes.clear();
        let found = findings(&facts);
        let of = |group| found.iter().find(|finding| finding.group == group).unwrap();
        assert_eq!(of(Group::Clocks).grade, Grade::Unknown);
        assert_eq!(of(Group::Nodes).grade, Grade::Unknown);
    }
}
