//! Several schedulers: when the master goes, the next one takes over, and a build hardly notices.

use std::time::{Duration, Instant};

use crate::cluster::{Cluster, two_workers};
use crate::joblog;
use crate::netns;
use crate::node::{ALICE, Node};
use crate::project::{Project, slow, small};
use crate::wait::{BOUND, wait_until};

/// How long a build may take in which something fails, on a machine that others use.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a call may take longer than without a change of the scheduler.
const CHANGE: Duration = Duration::from_millis(2000);

/// A cluster with a second scheduler, on a machine of its own.
fn cluster() -> Option<(Cluster, Node)> {
    if !netns::possible() {
        return None;
    }
    let cluster = Cluster::start(&two_workers(ALICE));
    let standby = cluster.ground.start("guest", &["scheduler"], &[]);
    standby.wait_for_word("this scheduler stands by");
    Some((cluster, standby))
}

/// Many files that take no time.
fn many() -> &'static Project {
    static MANY: std::sync::OnceLock<Project> = std::sync::OnceLock::new();
    MANY.get_or_init(|| small(240))
}

/// What the longest call of a build takes, in milliseconds, when nothing happens and the toolchain has
/// travelled before.
fn usual_ms(cluster: &Cluster) -> u64 {
    joblog::assert_places(&cluster.make("first", many()).finish(PATIENCE), &[]);
    let quiet = cluster.make("quiet", many()).finish(PATIENCE);
    joblog::assert_places(&quiet, &[]);
    let longest = quiet.iter().map(|job| job.wall_ms).max();
    longest.expect("it has jobs")
}

fn wait_for_nodes(cluster: &Cluster, scheduler: &Node, count: usize) {
    wait_until(
        &format!("{} has {count} nodes", scheduler.name),
        BOUND,
        || {
            cluster.status_of(scheduler)["nodes"]
                .as_array()
                .map(Vec::len)
                == Some(count)
        },
    );
}

#[test]
fn a_build_of_many_files_loses_no_job_and_little_time_when_the_master_dies() {
    let Some((mut cluster, standby)) = cluster() else {
        return;
    };
    let usual = usual_ms(&cluster);
    let build = cluster.make("disturbed", many());
    build.wait_for_jobs(60);
    cluster.scheduler.kill();
    let killed = Instant::now();
    standby.wait_for_word("this scheduler is the master");
    wait_for_nodes(&cluster, &standby, 3);
    println!(
        "all nodes are with the next master after {:?}",
        killed.elapsed()
    );
    let jobs = build.finish(PATIENCE);
    joblog::assert_places(&jobs, &[]);
    let longest = jobs.iter().map(|job| job.wall_ms).max().unwrap_or_default();
    println!("the longest call took {longest} ms, otherwise {usual} ms");
    assert!(
        longest < usual + CHANGE.as_millis() as u64,
        "{longest} ms, {usual} ms"
    );
}

#[test]
fn what_runs_when_the_master_dies_goes_on() {
    let Some((mut cluster, standby)) = cluster() else {
        return;
    };
    let build = cluster.make_with("slow", slow(), cluster.ground.user, |command| {
        let compiler = cluster.called_by_word("gcc");
        command.arg(format!("CC={compiler}")).arg("-j2");
    });
    cluster.busy_worker();
    cluster.scheduler.kill();
    wait_for_nodes(&cluster, &standby, 3);
    let jobs = build.finish(PATIENCE);
    joblog::assert_places(&jobs, &[]);
    assert!(jobs.iter().all(|job| job.tries == 1), "{jobs:#?}");
    // The first one comes back and finds that it is not needed.
    cluster.scheduler.restart();
    wait_until("the first one stands by", BOUND, || {
        cluster
            .scheduler
            .said()
            .matches("this scheduler stands by")
            .count()
            == 1
    });
    // Whoever asks it is sent on.
    wait_for_nodes(&cluster, &cluster.scheduler, 3);
    let jobs = cluster.make("afterwards", many()).finish(PATIENCE);
    joblog::assert_places(&jobs, &[]);
}

#[test]
fn a_master_that_hangs_is_replaced_and_obeys_when_it_wakes() {
    let Some((cluster, standby)) = cluster() else {
        return;
    };
    let usual = usual_ms(&cluster);
    let build = cluster.make("disturbed", many());
    build.wait_for_jobs(60);
    cluster.scheduler.freeze();
    let jobs = build.finish(PATIENCE);
    joblog::assert_places(&jobs, &[]);
    let longest = jobs.iter().map(|job| job.wall_ms).max().unwrap_or_default();
    println!("the longest call took {longest} ms, otherwise {usual} ms");
    assert!(
        longest < usual + CHANGE.as_millis() as u64,
        "{longest} ms, {usual} ms"
    );
    wait_for_nodes(&cluster, &standby, 3);
    cluster.scheduler.thaw();
    cluster.scheduler.wait_for_word("this scheduler stands by");
    wait_for_nodes(&cluster, &cluster.scheduler, 3);
    assert_eq!(
        standby
            .said()
            .matches("this scheduler is the master")
            .count(),
        1
    );
}
