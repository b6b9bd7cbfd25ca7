//! A daemon that is told to stop finishes what it does; one that is told to look reads its configuration anew.

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::{Cluster, two_workers};
use crate::joblog;
use crate::netns;
use crate::node::{ALICE, Node, ROOT, User};
use crate::project::slow;
use crate::wait::{BOUND, wait_until};

const PATIENCE: Duration = Duration::from_secs(120);

fn signal(node: &Node, signal: Signal) {
    kill(Pid::from_raw(node.pid()), signal).expect("it runs");
}

fn slots(cluster: &Cluster, name: &str) -> Option<u64> {
    let status = cluster.status();
    let nodes = status["nodes"].as_array()?;
    nodes.iter().find(|node| node["name"] == name)?["slots"].as_u64()
}

fn make_slowly(cluster: &Cluster, user: User) -> crate::cluster::Build {
    cluster.make_with("slow", slow(), user, |command| {
        let compiler = cluster.called_by_word("gcc");
        command.arg(format!("CC={compiler}")).arg("-j2");
    })
}

#[test]
fn a_worker_that_is_told_to_stop_finishes_its_jobs_and_ends() {
    if !netns::possible() {
        return;
    }
    for user in [ALICE, ROOT] {
        let mut cluster = Cluster::start(&two_workers(user));
        let build = make_slowly(&cluster, ALICE);
        let busy = cluster.busy_worker();
        signal(&cluster.workers[busy], Signal::SIGTERM);
        let jobs = build.finish(PATIENCE);
        joblog::assert_places(&jobs, &[]);
        // Nothing was lost, and so nothing was done twice.
        assert!(jobs.iter().all(|job| job.tries == 1), "{jobs:#?}");
        wait_until("the worker has ended", BOUND, || {
            !cluster.workers[busy].is_alive()
        });
        let name = cluster.workers[busy].name.clone();
        // It may even have done all: what takes long here is started a second time there.
        let by_node = joblog::by_node(&jobs);
        let here = by_node.get(&name[..]).copied().unwrap_or_default();
        assert!(here < jobs.len(), "the other had to help: {by_node:?}");
        cluster.wait_for_nodes(2);
    }
}

#[test]
fn a_submitter_that_is_told_to_stop_finishes_its_clients_calls_and_ends() {
    if !netns::possible() {
        return;
    }
    for user in [ALICE, ROOT] {
        let mut cluster = Cluster::start(&two_workers(user));
        let build = make_slowly(&cluster, ALICE);
        cluster.busy_worker();
        signal(&cluster.submitter, Signal::SIGTERM);
        let jobs = build.finish(PATIENCE);
        // What had begun ends where it began; what comes later finds no daemon.
        joblog::assert_places(&jobs, &["no-daemon"]);
        assert!(jobs.iter().any(|job| job.is_remote()), "{jobs:#?}");
        wait_until("the daemon has ended", BOUND, || {
            !cluster.submitter.is_alive()
        });
    }
}

#[test]
fn a_daemon_that_is_told_twice_ends_at_once() {
    if !netns::possible() {
        return;
    }
    for user in [ALICE, ROOT] {
        let mut cluster = Cluster::start(&two_workers(user));
        let build = make_slowly(&cluster, ALICE);
        let busy = cluster.busy_worker();
        signal(&cluster.workers[busy], Signal::SIGTERM);
        cluster.workers[busy].wait_for_word("those that run are awaited");
        signal(&cluster.workers[busy], Signal::SIGTERM);
        wait_until("the worker has ended", BOUND, || {
            !cluster.workers[busy].is_alive()
        });
        let jobs = build.finish(PATIENCE);
        joblog::assert_places(&jobs, &[]);
        assert!(jobs.iter().any(|job| job.tries == 2), "{jobs:#?}");
    }
}

#[test]
fn a_daemon_reads_its_number_of_slots_anew() {
    if !netns::possible() {
        return;
    }
    for user in [ALICE, ROOT] {
        let cluster = Cluster::start(&two_workers(user));
        let home = cluster.ground.directory.join("guest");
        user.make_directory(&home);
        let file = home.join("ice.toml");
        let say = |text: &str| {
            fs::write(&file, text).unwrap();
            user.own(&file);
        };
        say("[daemon]\nmax-jobs = 3\n");
        let config = format!("ICE_CONFIG={}", file.display());
        let guest = cluster
            .ground
            .start("guest", &["daemon"], &["env", &config]);
        cluster.wait_for_nodes(4);
        assert_eq!(slots(&cluster, "guest"), Some(3));
        say("[daemon]\nmax-jobs = 5\n");
        signal(&guest, Signal::SIGHUP);
        wait_until("there are five", BOUND, || {
            slots(&cluster, "guest") == Some(5)
        });
        // A mistake changes nothing.
        say("[daemon]\nmax-jobs = many\n");
        signal(&guest, Signal::SIGHUP);
        guest.wait_for_word("the configuration stays as it was");
        assert_eq!(slots(&cluster, "guest"), Some(5));
    }
}
