//! Only who has the cluster key takes part, and who has another one is told what to do.

use std::fs;

use crate::cluster::{Cluster, two_workers};
use crate::netns;
use crate::node::{ALICE, ROOT};
use crate::wait::BOUND;
use crate::wait::wait_until;

/// What tells a person how to get in.
const ADVICE: &str = "ice key import";

#[test]
fn a_node_without_the_key_is_refused_and_told_how_to_get_it() {
    if !netns::possible() {
        return;
    }
    let cluster = Cluster::start(&two_workers(ALICE));
    let scheduler = format!("{}:8765", cluster.scheduler.host.address());
    let words = ["daemon", "-m", "2", "--scheduler", &scheduler];

    // Another key.
    let home = cluster.ground.directory.join("guest");
    ALICE.make_directory(&home);
    let other = cluster.ground.make_key("other-key");
    fs::copy(&other, home.join("key")).unwrap();
    ALICE.own(&home.join("key"));
    let mut guest = cluster.ground.start("guest", &words, &[]);
    guest.wait_for_word(ADVICE);
    assert_eq!(nodes(&cluster), 3, "{}", cluster.status());
    guest.kill();

    // No key at all: it makes one of its own, which is another one.
    fs::remove_file(home.join("key")).unwrap();
    fs::write(home.join("log"), "").unwrap();
    guest.restart();
    guest.wait_for_word(ADVICE);
    assert_eq!(nodes(&cluster), 3);

    // Whoever asks for the status is told the same.
    for option in [
        ["--key-file", other.to_str().unwrap()],
        ["--open", "-nICECREAM"],
    ] {
        let mut command = cluster.ice(ROOT, &["status", "--scheduler", &scheduler]);
        let output = cluster.here(|| command.args(option).output()).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{option:?}");
        assert!(output.stdout.is_empty(), "{option:?}");
        assert!(said.contains("key"), "{option:?}: {said}");
    }

    // With the key it is welcome.
    guest.kill();
    let show = |file: &str| {
        let mut command = cluster.ice(ROOT, &["key", "show", "--key-file"]);
        let output = command.arg(cluster.ground.directory.join(file)).output();
        let output = output.unwrap();
        assert!(output.status.success());
        output.stdout
    };
    let shown = cluster.ground.directory.join("shown");
    fs::write(&shown, show("key")).unwrap();
    let mut import = cluster.ice(ALICE, &["key", "import"]);
    import.arg(&shown).arg("--key-file").arg(home.join("key"));
    let output = import.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(show("guest/key"), show("key"));
    guest.restart();
    cluster.wait_for_nodes(4);
}

#[test]
fn an_open_node_and_a_cluster_with_a_key_do_not_mix() {
    if !netns::possible() {
        return;
    }
    let mut cluster = Cluster::start(&two_workers(ALICE));
    let scheduler = format!("{}:8765", cluster.scheduler.host.address());
    let words = ["daemon", "-m", "2", "--open", "--scheduler", &scheduler];
    let mut guest = cluster.ground.start("guest", &words, &[]);
    wait_until("it is refused", BOUND, || {
        guest.said().contains("no scheduler: ")
    });
    let said = guest.said();
    assert!(said.contains("--open"), "{said}");
    assert_eq!(nodes(&cluster), 3);
    // Neither gets in by the back door: a worker takes jobs only from who has the key.
    assert!(guest.is_alive());
    guest.kill();

    // A whole cluster without a key works, and says that it is open.
    cluster.scheduler.kill();
    cluster.scheduler =
        cluster
            .ground
            .start("sched", &["scheduler", "--open", "--memory", "-"], &[]);
    cluster.scheduler.wait_for_word("open");
    guest.restart();
    let status = || {
        let mut command = cluster.ice(ROOT, &["status", "--open", "--scheduler", &scheduler]);
        let output = cluster.here(|| command.output()).unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    wait_until("the open node joins", BOUND, || status().contains("guest"));
    assert!(
        status().starts_with("workers: 1  slots: 2  "),
        "{}",
        status()
    );
}

fn nodes(cluster: &Cluster) -> usize {
    cluster.status()["nodes"].as_array().map_or(0, Vec::len)
}
