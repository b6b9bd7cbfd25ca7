//! What a job occupies, seen from outside: the memory of all processes below its init.
//!
//! A cgroup would know it exactly, but an ordinary user has none to give. `/proc` of the host shows
//! every process of the job, since a pid namespace hides the outside from the inside and not the
//! other way round. A process that ends while we look counts nothing.

use std::fs;

/// How many threads of a process are looked at, at most.
const THREADS_MAX: usize = 4096;

/// Memory of `init` and everything below it, in bytes: anonymous and shared pages, and what is
/// swapped out. Pages of files are not counted: the kernel takes them back when it needs them.
/// None when there are more than `processes_max` of them below the init: the kernel counts them
/// too, but not those of a user that is root outside.
pub(super) fn occupied_bytes(init: i32, processes_max: u64) -> Option<u64> {
    let mut pending = vec![init];
    let mut seen = 0_u64;
    let mut total = 0;
    while let Some(pid) = pending.pop() {
        if seen > processes_max {
            return None;
        }
        seen += 1;
        total += own_bytes(pid);
        children(pid, &mut pending);
    }
    Some(total)
}

fn own_bytes(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status_bytes(&status)
}

/// Sums the fields of `/proc/<pid>/status` that are memory of the process's own.
fn status_bytes(status: &str) -> u64 {
    status
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.split_once(':')?;
            matches!(name, "RssAnon" | "RssShmem" | "VmSwap")
                .then(|| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok())?
        })
        .map(|kib| kib.saturating_mul(1024))
        .fold(0, u64::saturating_add)
}

fn children(pid: i32, pending: &mut Vec<i32>) {
    // A child belongs to the thread that forked it.
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return;
    };
    for thread in threads.flatten().take(THREADS_MAX) {
        let list = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        pending.extend(
            list.split_ascii_whitespace()
                .filter_map(|child| child.parse::<i32>().ok()),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_counts_what_is_the_process_s_own() {
        let status = "Name:\tcc1\nVmRSS:\t  900 kB\nRssAnon:\t     100 kB\nRssFile:\t 700 kB\n\
                      RssShmem:\t      10 kB\nVmSwap:\t 1 kB\nThreads:\t1\n";
        assert_eq!(status_bytes(status), 111 * 1024);
        assert_eq!(status_bytes("RssAnon:\tmuch kB\n"), 0);
    }

    #[test]
    fn a_process_occupies_something_and_a_missing_one_nothing() {
        assert!(occupied_bytes(std::process::id() as i32, 1000).unwrap() > 0);
        assert_eq!(occupied_bytes(i32::MAX, 1), Some(0));
    }
}
