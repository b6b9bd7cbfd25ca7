//! Real projects, built on a cluster: everything is compiled elsewhere and comes out as the plain
//! compiler makes it.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use crate::cluster::{Cluster, Shape, Worker, two_workers};
use crate::joblog;
use crate::netns;
use crate::node::{ALICE, ROOT, User};
use crate::project::{Project, leveldb, lua, lua_with_debug_information, objects};

/// Far more than a build takes on a machine that others use, too.
const PATIENCE: Duration = Duration::from_secs(150);

#[test]
fn real_projects_are_compiled_elsewhere_with_root_daemons() {
    build_all(ROOT);
}

#[test]
fn real_projects_are_compiled_elsewhere_with_an_ordinary_users_daemons() {
    build_all(ALICE);
}

#[test]
fn debug_information_is_the_compilers_own() {
    if !netns::possible() {
        return;
    }
    let cluster = Cluster::start(&two_workers(ALICE));
    for (name, project) in [("gcc", &*GCC), ("clang", &*CLANG)] {
        if !Path::new("/usr/bin").join(name).exists() {
            crate::support::skipped(&format!("there is no {name}"));
            continue;
        }
        let build = cluster.make(name, project);
        let directory = build.directory.clone();
        let jobs = build.finish_unseen(PATIENCE);
        joblog::assert_places(&jobs, &[]);
        assert!(jobs.iter().all(|job| job.mode == "source"), "{jobs:#?}");
        let ours = objects(&directory);
        let plain = project.build_plain(&directory);
        assert_eq!(
            ours.keys().collect::<Vec<_>>(),
            plain.keys().collect::<Vec<_>>()
        );
        let names = plain.keys();
        let different: Vec<_> = names.filter(|name| ours[*name] != plain[*name]).collect();
        assert!(different.is_empty(), "other files by {name}: {different:?}");
    }
}

static GCC: LazyLock<Project> = LazyLock::new(|| lua_with_debug_information("gcc"));
static CLANG: LazyLock<Project> = LazyLock::new(|| lua_with_debug_information("clang"));

fn build_all(user: User) {
    if !netns::possible() {
        return;
    }
    let cluster = Cluster::start(&two_workers(user));
    let links = cluster.masquerade();
    let by_links = |name: &str, project: &'static Project| {
        cluster.make_with(name, project, user, |command| {
            command
                .env("PATH", format!("{}:/usr/bin:/bin", links.display()))
                .arg(format!("CC={}", project.compiler))
                .arg("-j8");
        })
    };
    // Each project under both names, over both kinds of daemons.
    let builds = match user {
        ROOT => [cluster.make("lua", lua()), by_links("leveldb", leveldb())],
        _ => [by_links("lua", lua()), cluster.make("leveldb", leveldb())],
    };
    for build in builds {
        let jobs = build.finish(PATIENCE);
        joblog::assert_places(&jobs, &[]);
        let by_node = joblog::by_node(&jobs);
        assert_eq!(by_node.keys().collect::<Vec<_>>(), [&"w1", &"w2"]);
    }
}

#[test]
fn a_worker_in_a_container_of_an_ordinary_user_compiles() {
    if !netns::possible() {
        return;
    }
    // What distrobox and the like start from: a root who is nobody but the user, and mounts of his own.
    let container = Worker {
        wrapper: &[
            "unshare",
            "--user",
            "--map-root-user",
            "--pid",
            "--fork",
            "--mount-proc",
        ],
        ..Worker::default()
    };
    let cluster = Cluster::start(&Shape {
        user: ALICE,
        workers: vec![container],
    });
    let jobs = cluster.make("lua", lua()).finish(PATIENCE);
    joblog::assert_places(&jobs, &[]);
    assert!(!cluster.workers[0].said().contains("no remote jobs"));
}
