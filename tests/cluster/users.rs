//! Two users on one machine whose daemon root has started: each is served with his own rights.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::cluster::{Cluster, two_workers};
use crate::joblog;
use crate::netns;
use crate::node::{ALICE, BOB, ROOT, User};
use crate::project::{Project, small};
use crate::tree;

fn few() -> &'static Project {
    static FEW: std::sync::OnceLock<Project> = std::sync::OnceLock::new();
    FEW.get_or_init(|| small(12))
}

#[test]
fn users_of_one_daemon_get_their_own_files_and_no_others() {
    if !netns::possible() {
        return;
    }
    let cluster = Cluster::start(&two_workers(ROOT));
    let builds = [ALICE, BOB].map(|user| {
        let build = cluster.make_with("project", few(), user, |command| {
            let compiler = cluster.called_by_word("gcc");
            command.arg(format!("CC={compiler}")).arg("-j4");
        });
        (user, build)
    });
    for (user, build) in builds {
        let directory = build.directory.clone();
        let jobs = build.finish(Duration::from_secs(60));
        joblog::assert_places(&jobs, &[]);
        for entry in fs::read_dir(directory.join("out")).unwrap() {
            let object = entry.unwrap().metadata().unwrap();
            assert_eq!((object.uid(), object.gid()), (user.0, user.0));
        }
    }
    bob_reads_nothing_of_alices(&cluster);
    // Two users with one compiler: their jobs never share a sandbox, and so no tree.
    for worker in &cluster.workers {
        let sandboxes = tree::descendants(worker.pid())
            .into_iter()
            .filter(|pid| is_zygote_of_the_node(*pid))
            .count();
        assert!(sandboxes >= 2, "{}: {sandboxes}", worker.name);
    }
}

#[test]
fn what_one_user_does_to_his_agent_is_his_own_loss() {
    if !netns::possible() {
        return;
    }
    let cluster = Cluster::start(&two_workers(ROOT));
    let compiler = cluster.called_by_word("gcc");
    let make = |name: &str, project, user| {
        cluster.make_with(name, project, user, |command| {
            command.arg(format!("CC={compiler}")).arg("-j400");
        })
    };
    let bound = Duration::from_secs(60);
    joblog::assert_places(&make("first", few(), ALICE).finish(bound), &[]);
    // She kills it, and gets another one.
    let killed = cluster.agent_of(ALICE);
    tree::kill(killed);
    // A call may reach it while it dies.
    let second = make("second", few(), ALICE).finish(bound);
    joblog::assert_places(&second, &["lost-daemon"]);
    joblog::assert_places(&make("third", few(), ALICE).finish(bound), &[]);
    assert_ne!(cluster.agent_of(ALICE), killed);
    assert_eq!(
        leftovers(&cluster),
        1 + 1,
        "of the one that was killed, and of the other"
    );
    // She stops it, and calls it all the same, more often than calls can wait for it.
    tree::signal_all(cluster.agent_of(ALICE), Signal::SIGSTOP);
    let hers = make("stopped", many(), ALICE);
    hers.wait_for_jobs(many().count() - 20);
    joblog::assert_places(&make("bobs", few(), BOB).finish(bound), &[]);
    joblog::assert_places(&hers.finish(bound), &["silent-daemon", "lost-daemon"]);
    tree::signal_all(cluster.agent_of(ALICE), Signal::SIGCONT);
    joblog::assert_places(&make("awake", few(), ALICE).finish(bound), &[]);
}

fn many() -> &'static Project {
    static MANY: std::sync::OnceLock<Project> = std::sync::OnceLock::new();
    MANY.get_or_init(|| small(400))
}

/// Directories of agents.
fn leftovers(cluster: &Cluster) -> usize {
    let temporary = cluster.submitter.directory.join("tmp");
    fs::read_dir(temporary).unwrap().count()
}

/// Whatever way Bob asks for what only Alice may read, he is told what the compiler tells him.
fn bob_reads_nothing_of_alices(cluster: &Cluster) {
    let secret = cluster.home(ALICE).join("secret.c");
    fs::write(&secret, "int the_secret_of_alice;\n").unwrap();
    ALICE.own(&secret);
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    // She compiles it herself, so that the cluster has it.
    let compile = |user: User, compiler: &str, arguments: &str| {
        let mut command = cluster.command(user, Path::new("/bin/sh"));
        command.args(["-c", &format!("{compiler} {arguments}")]);
        command.env("ICE_JOB_LOG", cluster.home(user).join("jobs"));
        cluster.here(|| command.output()).unwrap()
    };
    let ours = cluster.called_by_word("gcc");
    let secret = secret.display();
    let of_alice = compile(ALICE, &ours, &format!("-c {secret} -o secret.o"));
    assert!(of_alice.status.success());
    assert!(joblog::read(&cluster.home(ALICE).join("jobs"))[0].is_remote());

    let bobs = cluster.home(BOB);
    fs::write(bobs.join("one.c"), format!("#include \"{secret}\"\n")).unwrap();
    fs::write(bobs.join("two.c"), "int two;\n").unwrap();
    for arguments in [
        format!("-c {secret} -o stolen.o"),
        "-c one.c -o stolen.o".to_owned(),
        format!("-include {secret} -c two.c -o stolen.o"),
        format!("-c two.c @{secret} -o stolen.o"),
    ] {
        let [plain, ours] = ["gcc", &ours].map(|compiler| compile(BOB, compiler, &arguments));
        assert!(!plain.status.success(), "{arguments}");
        assert_eq!(ours.status, plain.status, "{arguments}");
        assert_eq!(
            String::from_utf8_lossy(&ours.stderr),
            String::from_utf8_lossy(&plain.stderr),
            "{arguments}"
        );
        assert!(!bobs.join("stolen.o").exists(), "{arguments}");
    }
    // Nor may he end or look into the process that works for her.
    let agent = cluster.agent_of(ALICE);
    for attack in [
        format!("cat /proc/{agent}/environ"),
        format!("kill {agent}"),
    ] {
        let mut command = cluster.command(BOB, Path::new("/bin/sh"));
        let output = command.args(["-c", &attack]).output().unwrap();
        assert!(!output.status.success(), "{attack}");
    }
}

/// Whether this is the first process of a sandbox, whose parent is the node itself.
fn is_zygote_of_the_node(pid: i32) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = command.split(|&byte| byte == 0);
    words.nth(1) == Some(b"sandbox-zygote")
}
