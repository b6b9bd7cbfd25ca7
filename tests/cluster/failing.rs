//! The cluster can't break a build: whatever fails, `make` ends well, in time, with the compiler's
//! own objects.

use std::io::Write;
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cluster::{Build, Cluster, Shape, Worker, two_workers};
use crate::joblog::{self, JobLine};
use crate::netns;
use crate::node::{ALICE, ROOT};
use crate::project::{Project, slow, slower, small};
use crate::wait::{BOUND, wait_until};

/// How long a build may take in which something fails: what it takes by itself, on a machine that
/// others use, and a few seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A fault is to be noticed within two seconds; the rest is for a machine that is busy.
const NOTICED: Duration = Duration::from_secs(4);

fn cluster() -> Option<Cluster> {
    netns::possible().then(|| Cluster::start(&two_workers(ALICE)))
}

/// Builds files that take a second each, two at a time.
fn make_slowly(cluster: &Cluster) -> Build {
    make_two_at_a_time(cluster, slow())
}

fn make_two_at_a_time(cluster: &Cluster, project: &'static Project) -> Build {
    cluster.make_with("slow", project, cluster.ground.user, |command| {
        let compiler = cluster.called_by_word("gcc");
        command.arg(format!("CC={compiler}")).arg("-j2");
    })
}

/// Sixteen files that take no time.
fn few() -> &'static Project {
    static FEW: std::sync::OnceLock<Project> = std::sync::OnceLock::new();
    FEW.get_or_init(|| small(16))
}

/// Jobs that were tried on more than one node.
fn retried(jobs: &[JobLine]) -> usize {
    jobs.iter().filter(|job| job.tries > 1).count()
}

#[test]
fn a_build_survives_that_there_is_no_scheduler_and_no_daemon() {
    let Some(mut cluster) = cluster() else { return };
    cluster.scheduler.kill();
    let jobs = cluster.make("without-scheduler", few()).finish(PATIENCE);
    joblog::assert_places(&jobs, &["no-node"]);
    cluster.submitter.kill();
    let jobs = cluster.make("without-daemon", few()).finish(PATIENCE);
    joblog::assert_places(&jobs, &["no-daemon"]);
    // All come back, and so do the jobs.
    cluster.scheduler.restart();
    cluster.submitter.restart();
    cluster.wait_for_nodes(3);
    let jobs = cluster.make("with-all", few()).finish(PATIENCE);
    joblog::assert_places(&jobs, &[]);
}

#[test]
fn a_build_survives_the_death_of_its_scheduler() {
    let Some(mut cluster) = cluster() else { return };
    let build = make_slowly(&cluster);
    cluster.busy_worker();
    cluster.scheduler.kill();
    build.wait_for_jobs(1);
    cluster.scheduler.restart();
    let jobs = build.finish(PATIENCE);
    joblog::assert_places(&jobs, &["no-node"]);
    let remote = jobs.iter().filter(|job| job.is_remote()).count();
    assert!(remote >= 2, "what runs goes on: {jobs:#?}");
    cluster.wait_for_nodes(3);
    let jobs = cluster.make("afterwards", few()).finish(PATIENCE);
    joblog::assert_places(&jobs, &[]);
}

#[test]
fn a_job_survives_the_death_of_its_worker() {
    let Some(mut cluster) = cluster() else { return };
    let build = make_slowly(&cluster);
    let busy = cluster.busy_worker();
    cluster.workers[busy].kill();
    assert_went_elsewhere(&cluster, busy, build);
    cluster.workers[busy].restart();
    cluster.wait_for_nodes(3);
}

#[test]
fn a_job_survives_that_its_worker_hangs() {
    let Some(cluster) = cluster() else { return };
    let build = make_two_at_a_time(&cluster, slower());
    let busy = cluster.busy_worker();
    cluster.workers[busy].freeze();
    assert_went_elsewhere(&cluster, busy, build);
    // When it wakes up, it is a worker as before and does nothing that nobody wants.
    cluster.workers[busy].thaw();
    cluster.wait_for_nodes(3);
    wait_until("the forgotten job ends", BOUND, || {
        !cluster.workers[busy].runs("cc1")
    });
}

#[test]
fn a_job_survives_that_its_workers_cable_is_pulled() {
    let Some(cluster) = cluster() else { return };
    let build = make_two_at_a_time(&cluster, slower());
    let busy = cluster.busy_worker();
    cluster.workers[busy].host.unplug();
    assert_went_elsewhere(&cluster, busy, build);
}

#[test]
fn a_build_survives_that_its_scheduler_hangs() {
    let Some(cluster) = cluster() else { return };
    let build = make_slowly(&cluster);
    cluster.busy_worker();
    cluster.scheduler.freeze();
    let jobs = build.finish(PATIENCE);
    joblog::assert_places(&jobs, &["no-node"]);
    cluster.scheduler.thaw();
    cluster.wait_for_nodes(3);
    let jobs = cluster.make("afterwards", few()).finish(PATIENCE);
    joblog::assert_places(&jobs, &[]);
}

#[test]
fn a_build_survives_that_its_own_cable_is_pulled() {
    let Some(cluster) = cluster() else { return };
    let build = make_slowly(&cluster);
    cluster.busy_worker();
    cluster.submitter.host.unplug();
    let jobs = build.finish(PATIENCE);
    joblog::assert_places(&jobs, &["no-node", "nodes-failed"]);
    assert!(jobs.iter().any(|job| !job.is_remote()), "{jobs:#?}");
    wait_until("the workers let go", BOUND, || {
        !cluster.workers.iter().any(|worker| worker.runs("cc1"))
    });
}

#[test]
fn a_daemon_that_hangs_costs_each_call_a_second() {
    let Some(cluster) = cluster() else { return };
    cluster.submitter.freeze();
    let jobs = cluster.make("hung", few()).finish(PATIENCE);
    joblog::assert_places(&jobs, &["silent-daemon"]);
    for job in &jobs {
        assert!((1000..4000).contains(&job.wall_ms), "{job:?}");
    }
    cluster.submitter.thaw();
    cluster.wait_for_nodes(3);
    let jobs = cluster.make("awake", few()).finish(PATIENCE);
    joblog::assert_places(&jobs, &[]);
}

/// The failure of the worker `busy` is noticed, and its jobs are compiled by the other one.
fn assert_went_elsewhere(cluster: &Cluster, busy: usize, build: Build) {
    let name = &cluster.workers[busy].name;
    wait_until("the fault is noticed", NOTICED, || {
        cluster.submitter.said().contains(&format!(" on {name}: "))
    });
    let jobs = build.finish(PATIENCE);
    joblog::assert_places(&jobs, &[]);
    assert!(retried(&jobs) > 0, "{jobs:#?}");
    let other = if busy == 0 { "w2" } else { "w1" };
    for job in jobs.iter().filter(|job| job.tries > 1) {
        assert_eq!(job.node.as_deref(), Some(other), "{job:?}");
    }
}

#[test]
fn a_worker_whose_store_is_full_costs_nothing_but_time() {
    if !netns::possible() {
        return;
    }
    let tiny = Worker {
        options: &["--cache-limit", "2M"],
        ..Worker::default()
    };
    let mut cluster = Cluster::start(&Shape {
        user: ALICE,
        workers: vec![tiny, Worker::default()],
    });
    let jobs = cluster.make("one-is-full", few()).finish(PATIENCE);
    joblog::assert_places(&jobs, &[]);
    assert_eq!(joblog::by_node(&jobs), [("w2", jobs.len())].into());
    cluster.workers[0].wait_for_word("(Full)");
    cluster.workers[1].kill();
    let jobs = cluster.make("all-are-full", few()).finish(PATIENCE);
    joblog::assert_places(&jobs, &["no-node", "nodes-failed"]);
    assert_eq!(joblog::by_node(&jobs), [].into());
}

#[test]
fn a_worker_that_cannot_run_the_toolchain_costs_nothing_but_time() {
    if !netns::possible() {
        return;
    }
    // Nothing in its cache can be executed, which shows only when it is tried.
    const NO_EXECUTION: &str = "mkdir -p \"$HOME/cache\" && \
        mount -t tmpfs -o noexec none \"$HOME/cache\" && exec \"$@\"";
    let broken = Worker {
        wrapper: &["unshare", "-m", "sh", "-c", NO_EXECUTION, "sh"],
        ..Worker::default()
    };
    let cluster = Cluster::start(&Shape {
        user: ROOT,
        workers: vec![broken, Worker::default()],
    });
    // While it still fetches the toolchain, the other may have done everything.
    let found_out = || {
        cluster.workers[0]
            .said()
            .contains("execute the job's program")
    };
    let mut builds = 0;
    while !found_out() {
        builds += 1;
        assert!(builds < 10, "{} was never tried", cluster.workers[0].name);
        let name = format!("one-is-broken-{builds}");
        let jobs = cluster.make(&name, few()).finish(PATIENCE);
        joblog::assert_places(&jobs, &[]);
        assert_eq!(joblog::by_node(&jobs), [("w2", jobs.len())].into());
    }
}

#[test]
fn a_worker_whose_cache_was_spoiled_fetches_it_anew() {
    let Some(mut cluster) = cluster() else { return };
    let jobs = cluster.make("before", few()).finish(PATIENCE);
    joblog::assert_places(&jobs, &[]);
    for worker in &mut cluster.workers {
        worker.kill();
        let spoiled = spoil(&worker.directory.join("cache"));
        assert!(spoiled > 0, "{}: nothing was kept", worker.name);
        worker.restart();
    }
    cluster.wait_for_nodes(3);
    let jobs = cluster.make("after", few()).finish(PATIENCE);
    joblog::assert_places(&jobs, &[]);
    // Nor is a connection that was kept taken for the worker's death.
    assert_eq!(retried(&jobs), 0, "{jobs:#?}");
    for worker in &cluster.workers {
        worker.wait_for_word("was spoiled");
    }
}

/// Overwrites the middle of every large file below `directory`, as a dying disk may; says how many.
fn spoil(directory: &Path) -> usize {
    use std::os::unix::fs::FileExt;
    let mut spoiled = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let found = std::fs::symlink_metadata(&path).unwrap();
        if found.is_dir() {
            spoiled += spoil(&path);
        } else if found.len() > 1 << 20 {
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.write_all_at(&[0xcc; 4096], found.len() / 2).unwrap();
            spoiled += 1;
        }
    }
    spoiled
}

#[test]
fn a_worker_that_loses_its_cache_while_it_runs_costs_nothing_but_time() {
    let Some(cluster) = cluster() else { return };
    let jobs = cluster.make("before", few()).finish(PATIENCE);
    joblog::assert_places(&jobs, &[]);
    for worker in &cluster.workers {
        std::fs::remove_dir_all(worker.directory.join("cache")).unwrap();
    }
    // New files can't be kept any more.
    let jobs = cluster.make("after", slow()).finish(PATIENCE);
    println!("{jobs:#?}");
    joblog::assert_places(&jobs, &["no-node", "nodes-failed"]);
}

#[test]
fn a_worker_of_another_kind_gets_no_jobs() {
    if !netns::possible() {
        return;
    }
    let other = Worker {
        wrapper: &["setarch", "i686"],
        ..Worker::default()
    };
    let mut cluster = Cluster::start(&Shape {
        user: ALICE,
        workers: vec![other, Worker::default()],
    });
    let jobs = cluster.make("one-is-different", few()).finish(PATIENCE);
    joblog::assert_places(&jobs, &[]);
    assert_eq!(joblog::by_node(&jobs), [("w2", jobs.len())].into());
    assert_eq!(retried(&jobs), 0, "none was even tried there: {jobs:#?}");
    cluster.workers[1].kill();
    let jobs = cluster.make("all-are-different", few()).finish(PATIENCE);
    joblog::assert_places(&jobs, &["no-node", "nodes-failed"]);
}

#[test]
fn garbage_and_idle_connections_on_every_port_disturb_nobody() {
    let Some(mut cluster) = cluster() else { return };
    let at = |node: &crate::node::Node, port: u16| format!("{}:{port}", node.host.address());
    let mut ports = vec![at(&cluster.scheduler, 8765)];
    ports.extend(cluster.workers.iter().map(|worker| at(worker, 10245)));
    let scheduler = at(&cluster.scheduler, 8765);
    let idle: Vec<TcpStream> = cluster.outsider().enter(|| {
        ports.iter().for_each(|port| throw_garbage(port));
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for seed in 0..100 {
            socket.send_to(&noise(seed), &scheduler).unwrap();
        }
        let idle = ports.iter().flat_map(|port| (0..300).map(move |_| port));
        idle.map(|port| connect(port)).collect()
    });
    let jobs = cluster.make("disturbed", few()).finish(PATIENCE);
    joblog::assert_places(&jobs, &[]);
    assert!(cluster.scheduler.is_alive() && cluster.submitter.is_alive());
    assert!(cluster.workers.iter_mut().all(|worker| worker.is_alive()));
    drop(idle);
}

fn connect(port: &str) -> TcpStream {
    TcpStream::connect(port).unwrap_or_else(|error| panic!("{port}: {error}"))
}

/// Says nonsense of many kinds to a port.
fn throw_garbage(port: &str) {
    for seed in 0..60 {
        // It may be hung up on at any time.
        let _ = connect(port).write_all(&noise(seed));
    }
}

/// Bytes that look random, or like the beginning of something large.
fn noise(seed: u32) -> Vec<u8> {
    let length = [1, 4, 64, 1000, 20_000][seed as usize % 5];
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let random = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    });
    let mut bytes = match seed % 3 {
        0 => vec![],
        1 => vec![0xff; 8],
        _ => vec![0x10, 0, 0, 0],
    };
    bytes.extend(random.take(length));
    bytes
}

#[test]
fn two_clients_that_write_one_output_leave_one_of_the_two() {
    let Some(cluster) = cluster() else { return };
    let user = cluster.ground.user;
    let home = cluster.home(user);
    let project = few();
    let directory = home.join("race");
    project.write(&directory, user);
    let plain: Vec<&Vec<u8>> = ["s0.o", "s1.o"].map(|name| &project.plain()[name]).into();
    for round in 0..12 {
        let clients = ["s0.c", "s1.c"].map(|source| {
            let mut command = cluster.ice(user, &["gcc", "-O1", "-c", source, "-o", "out/x.o"]);
            command.current_dir(&directory);
            cluster.here(|| command.spawn()).unwrap()
        });
        for mut client in clients {
            assert!(client.wait().unwrap().success(), "round {round}");
        }
        let left = crate::project::read_tree(&directory.join("out"));
        assert_eq!(left.keys().collect::<Vec<_>>(), ["x.o"], "round {round}");
        assert!(plain.contains(&&left["x.o"]), "round {round}");
    }
}

#[test]
fn a_build_survives_the_death_of_its_own_daemon() {
    if !netns::possible() {
        return;
    }
    // One is a single process, the other has an agent for the user.
    for user in [ALICE, ROOT] {
        let mut cluster = Cluster::start(&two_workers(user));
        let build = cluster.make_with("orphaned", slow(), ALICE, |command| {
            let compiler = cluster.called_by_word("gcc");
            command.arg(format!("CC={compiler}")).arg("-j2");
        });
        cluster.busy_worker();
        cluster.submitter.kill();
        let jobs = build.finish(PATIENCE);
        joblog::assert_places(&jobs, &["lost-daemon", "no-daemon"]);
        wait_until("the workers let go", NOTICED, || {
            !cluster.workers.iter().any(|worker| worker.runs("cc1"))
        });
        cluster.submitter.restart();
        cluster.wait_for_nodes(3);
        let jobs = cluster.make_with("reborn", few(), ALICE, |command| {
            let compiler = cluster.called_by_word("gcc");
            command.arg(format!("CC={compiler}")).arg("-j8");
        });
        joblog::assert_places(&jobs.finish(PATIENCE), &[]);
    }
}

#[test]
fn a_killed_client_takes_its_job_with_it_and_leaves_nothing() {
    let Some(cluster) = cluster() else { return };
    let user = cluster.ground.user;
    let directory = cluster.home(user).join("killed");
    slow().write(&directory, user);
    use nix::sys::signal::Signal;
    for signal in [Signal::SIGKILL, Signal::SIGINT, Signal::SIGTERM] {
        let mut command = cluster.ice(user, &["gcc", "-O2", "-c", "slow0.c", "-o", "out/slow0.o"]);
        command.current_dir(&directory);
        let mut client = cluster.here(|| command.spawn()).unwrap();
        let busy = cluster.busy_worker();
        let pid = nix::unistd::Pid::from_raw(client.id() as i32);
        nix::sys::signal::kill(pid, signal).unwrap();
        let began = Instant::now();
        wait_until("the compiler is gone", NOTICED, || {
            !cluster.workers[busy].runs("cc1")
        });
        println!("{signal}: the compiler is gone after {:?}", began.elapsed());
        let status = client.wait().unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(signal as i32)
        );
        let left = crate::project::read_tree(&directory.join("out"));
        assert!(left.is_empty(), "{signal}: {:?}", left.keys());
    }
}

#[test]
fn an_interrupted_build_leaves_nothing_half_done() {
    let Some(cluster) = cluster() else { return };
    let build = make_slowly(&cluster);
    cluster.busy_worker();
    // As a terminal does it: everybody gets the signal.
    build.interrupt();
    wait_until("the compilers are gone", NOTICED, || {
        !cluster.workers.iter().any(|worker| worker.runs("cc1"))
    });
    let directory = build.directory.clone();
    assert!(!build.end(PATIENCE).success());
    let left = crate::project::read_tree(&directory.join("out"));
    for (object, bytes) in left {
        assert!(slow().plain().get(&object) == Some(&bytes), "{object}");
    }
    let jobs = cluster.make("again", few()).finish(PATIENCE);
    joblog::assert_places(&jobs, &[]);
}

#[test]
fn five_hundred_jobs_at_once_are_an_ordinary_load() {
    static MANY: std::sync::OnceLock<Project> = std::sync::OnceLock::new();
    if !netns::possible() {
        return;
    }
    // With all that there can be between a client and its submitter.
    let cluster = Cluster::start(&two_workers(ROOT));
    let make = |name: &str, project, parallel: &str| {
        cluster.make_with(name, project, ALICE, |command| {
            let compiler = cluster.called_by_word("gcc");
            command.arg(format!("CC={compiler}")).arg(parallel);
        })
    };
    joblog::assert_places(&make("first", few(), "-j4").finish(PATIENCE), &[]);
    let project = MANY.get_or_init(|| small(520));
    project.plain();
    let mut build = make("many", project, "-j500");
    let pid = cluster.agent_of(ALICE);
    let (mut memory_kib, mut descriptors) = (0, 0);
    while !build.is_done() {
        memory_kib = memory_kib.max(peak_memory_kib(pid));
        descriptors = descriptors.max(open_descriptors(pid));
        std::thread::sleep(Duration::from_millis(50));
    }
    let jobs = build.finish(2 * PATIENCE);
    println!("peak: {memory_kib} KiB, {descriptors} descriptors");
    joblog::assert_places(&jobs, &[]);
    assert!(memory_kib < 150 << 10, "{memory_kib} KiB");
    // One for each client, one for each connection, pipes of the preprocessors, and a few.
    assert!(descriptors < 700, "{descriptors} descriptors");
    wait_until("the clients are forgotten", BOUND, || {
        open_descriptors(pid) < 100
    });
}

#[test]
fn a_daemon_that_may_open_few_files_loses_no_job() {
    let Some(mut cluster) = cluster() else { return };
    static SOME: std::sync::OnceLock<Project> = std::sync::OnceLock::new();
    let project = SOME.get_or_init(|| small(120));
    cluster.submitter.kill();
    let wrapper = ["prlimit", "--nofile=64:64"];
    cluster.submitter = cluster
        .ground
        .start("sub", &["daemon", "-m", "0"], &wrapper);
    cluster.wait_for_nodes(3);
    let build = cluster.make_with("crowded", project, cluster.ground.user, |command| {
        let compiler = cluster.called_by_word("gcc");
        command.arg(format!("CC={compiler}")).arg("-j120");
    });
    let jobs = build.finish(PATIENCE);
    let words: std::collections::BTreeSet<&str> = jobs.iter().map(JobLine::word).collect();
    println!("{words:?}");
    // It may still have to hear that those who gave up are gone.
    let mut round = 0;
    wait_until("it recovers", BOUND, || {
        round += 1;
        let build = cluster.make(&format!("alone-{round}"), few());
        build.finish(PATIENCE).iter().any(JobLine::is_remote)
    });
}

fn peak_memory_kib(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.expect("the kernel counts it").parse().unwrap()
}

fn open_descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count()
}
