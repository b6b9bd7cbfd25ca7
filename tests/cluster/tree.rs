//! Processes as the kernel lists them: who descends from whom, and signals to all of them.
//!
//! A node's sandboxes are in other namespaces, sessions and groups, but always its descendants.

use std::collections::BTreeMap;
use std::fs;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// A process, as far as it matters here.
#[derive(Clone, Debug)]
struct Process {
    parent: i32,
    state: char,
    command: String,
}

/// All descendants of `root`, itself first.
pub fn descendants(root: i32) -> Vec<i32> {
    let all = all();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(
            all.iter()
                .filter(|(_, process)| process.parent == parent)
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    found
}

/// The descendants of `root` that run a program of this name; the dead that nobody has waited for
/// are not among them.
pub fn running(root: i32, command: &str) -> Vec<i32> {
    let all = all();
    let lives = |pid: &i32| {
        let process = all.get(pid);
        process.is_some_and(|process| process.command == command && process.state != 'Z')
    };
    descendants(root).into_iter().filter(lives).collect()
}

/// Who owns a process. What can't be dumped belongs to root in `/proc`, so its status is read.
pub fn owner(pid: i32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Kills a process; one that is gone is no matter.
pub fn kill(pid: i32) {
    let _ = signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
}

/// Sends a signal to all descendants of `root` and to itself, until a look finds no new ones.
pub fn signal_all(root: i32, what: Signal) {
    let mut told = Vec::new();
    loop {
        let untold: Vec<i32> = descendants(root)
            .into_iter()
            .filter(|pid| !told.contains(pid))
            .collect();
        if untold.is_empty() {
            return;
        }
        for pid in untold {
            let _ = signal::kill(Pid::from_raw(pid), what);
            told.push(pid);
        }
    }
}

fn all() -> BTreeMap<i32, Process> {
    let entries = fs::read_dir("/proc").expect("list /proc");
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers
        .filter_map(|pid: i32| Some((pid, process(pid)?)))
        .collect()
}

/// What `/proc` says of it; none when it is gone.
fn process(pid: i32) -> Option<Process> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat).into_owned();
    // The command is in parentheses and may itself contain any.
    let (start, rest) = stat.rsplit_once(')')?;
    let mut words = rest.split_whitespace();
    Some(Process {
        command: start.split_once('(')?.1.to_owned(),
        state: words.next()?.chars().next()?,
        parent: words.next()?.parse().ok()?,
    })
}
