//! icecream's own monitor for terminals looks on at a build.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex};

use ice::message::Terminal;
use ice::sys;

use crate::cluster::{Cluster, two_workers};
use crate::netns;
use crate::node::ALICE;
use crate::project::slow;
use crate::wait::{BOUND, wait_until};

const SUNDAE: &str = "/usr/bin/icecream-sundae";

#[test]
fn icecream_sundae_shows_nodes_and_jobs() {
    if !netns::possible() {
        return;
    }
    if !Path::new(SUNDAE).exists() {
        return crate::support::skipped("there is no icecream-sundae");
    }
    let mut cluster = Cluster::start(&two_workers(ALICE));
    cluster.scheduler.kill();
    let words = ["scheduler", "--icecream-monitors", "--memory", "-"];
    cluster.scheduler = cluster.ground.start("sched", &words, &[]);
    cluster.wait_for_nodes(3);

    let size = Terminal {
        rows: 24,
        columns: 100,
    };
    let (screen, terminal) = sys::open_terminal(size).unwrap();
    let mut command = cluster.command(ALICE, Path::new(SUNDAE));
    command
        .args(["-s", cluster.scheduler.host.address()])
        .env("TERM", "xterm")
        .stdin(terminal.as_fd().try_clone_to_owned().unwrap())
        .stdout(terminal.as_fd().try_clone_to_owned().unwrap())
        .stderr(terminal);
    let mut sundae = cluster.here(|| command.spawn()).unwrap();
    drop(command);
    let drawn = Arc::new(Mutex::new(String::new()));
    let pen = drawn.clone();
    std::thread::spawn(move || {
        let (mut screen, mut piece) = (File::from(screen), [0; 4096]);
        while let Ok(count @ 1..) = screen.read(&mut piece) {
            pen.lock()
                .unwrap()
                .push_str(&String::from_utf8_lossy(&piece[..count]));
        }
    });
    // A bar of equals signs is a node's jobs; an escape before one belongs to the terminal.
    let has = |what: &str| drawn.lock().unwrap().replace("\x1b=", "").contains(what);
    wait_until("the nodes are listed", BOUND, || {
        ["sub", "w1", "w2", "ICECREAM"].into_iter().all(has)
    });
    assert!(!has("="), "{:?}", drawn.lock().unwrap());
    let build = cluster.make("build", slow());
    wait_until("jobs are shown", BOUND, || has("="));
    build.finish(4 * BOUND);
    sundae.kill().unwrap();
    sundae.wait().unwrap();
}
