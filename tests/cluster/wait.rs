//! Waiting for a condition, with a bound.

use std::process::{Child, Output};
use std::thread;
use std::time::{Duration, Instant};

use crate::tree;

/// How long anything may take that takes a second on an idle machine.
pub const BOUND: Duration = Duration::from_secs(30);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until `condition` holds; panics when it does not within `bound`.
pub fn wait_until(what: &str, bound: Duration, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < bound, "not within {bound:?}: {what}");
        thread::sleep(PAUSE);
    }
}

/// Waits for the end of a process whose output goes into pipes; kills it and all below it, and
/// panics, when it does not end within `bound`.
pub fn output_within(what: &str, bound: Duration, child: Child) -> Output {
    let pid = child.id() as i32;
    let (done, waits) = std::sync::mpsc::channel();
    let reader = thread::spawn(move || {
        let output = child.wait_with_output();
        let _ = done.send(());
        output
    });
    if waits.recv_timeout(bound).is_err() {
        for pid in tree::descendants(pid) {
            tree::kill(pid);
        }
        let output = reader.join().expect("it only waits").expect("wait");
        panic!(
            "not ended within {bound:?}: {what}\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    reader.join().expect("it only waits").expect("wait")
}
