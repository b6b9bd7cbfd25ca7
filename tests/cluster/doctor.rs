//! `ice doctor` on a machine of a cluster, whole and with one thing broken at a time.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use ice::connection::Connection;
use ice::key::{ClusterKey, Credentials};
use ice::message::{NodeState, ToScheduler};
use ice::reactor::Timer;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::cluster::{Cluster, two_workers};
use crate::netns;
use crate::node::{ALICE, ROOT, User};
use crate::peer;
use crate::wait::{BOUND, wait_until};

/// What a doctor says: its exit status, and each finding as group, grade, what and mend.
struct Report {
    status: Option<i32>,
    findings: Vec<[String; 4]>,
}

impl Report {
    /// What `command`, which runs a doctor, says on the submitter's machine.
    fn of(cluster: &Cluster, mut command: Command) -> Self {
        Self::read(&cluster.here(|| command.output()).unwrap())
    }

    fn read(output: &Output) -> Self {
        let said: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        let text = |finding: &serde_json::Value, key: &str| {
            finding[key].as_str().unwrap_or_default().to_owned()
        };
        let findings = said["findings"].as_array().unwrap();
        let findings = findings
            .iter()
            .map(|finding| ["group", "grade", "what", "mend"].map(|key| text(finding, key)));
        Self {
            status: output.status.code(),
            findings: findings.collect(),
        }
    }

    /// The one finding in this group that is not well.
    #[track_caller]
    fn ill(&self, group: &str) -> &[String; 4] {
        let mut ill = self.findings.iter().filter(|finding| {
            finding[0] == group && matches!(&finding[1][..], "broken" | "warning")
        });
        let found = ill.next();
        assert!(ill.next().is_none(), "{:#?}", self.findings);
        found.unwrap_or_else(|| panic!("nothing in {group}: {:#?}", self.findings))
    }

    /// Checks what is wrong in a group.
    #[track_caller]
    fn assert_ill(&self, group: &str, grade: &str, what: &str, mend: &str) {
        let ill = self.ill(group);
        assert_eq!(ill[1], grade, "{ill:?}");
        assert!(ill[2].contains(what), "{ill:?}");
        assert!(ill[3].contains(mend), "{ill:?}");
        if grade == "broken" {
            assert_eq!(self.status, Some(1));
        }
    }
}

/// A doctor with these options beyond those that say where the cluster's files are.
fn doctor(cluster: &Cluster, user: User, options: &[&str]) -> Command {
    let mut command = cluster.ice(user, &["doctor", "--json"]);
    with_options(&mut command, cluster, options);
    command
}

fn with_options(command: &mut Command, cluster: &Cluster, options: &[&str]) {
    let home = &cluster.submitter.directory;
    if !options.contains(&"--key-file") {
        command.arg("--key-file").arg(home.join("key"));
    }
    if !options.contains(&"--cache-dir") {
        command.arg("--cache-dir").arg(home.join("cache"));
    }
    command.args(["--name", "sub"]).args(options);
}

#[test]
fn the_doctor_finds_nothing_broken_in_a_cluster_that_works() {
    if !netns::possible() {
        return;
    }
    let cluster = Cluster::start(&two_workers(ALICE));
    let report = Report::of(&cluster, doctor(&cluster, ALICE, &[]));
    assert_eq!(report.status, Some(0), "{:#?}", report.findings);
    // There are no links.
    report.assert_ill("calls", "warning", "leads to ice", "ice symlinks");
    let nodes: Vec<&str> = (report.findings.iter())
        .filter(|finding| finding[0] == "nodes")
        .map(|finding| &finding[2][..])
        .collect();
    assert_eq!(nodes.len(), 2, "{nodes:?}");
    for (node, name) in nodes.iter().zip(["w1", "w2"]) {
        assert!(node.starts_with(&format!("{name} compiled")), "{node}");
        assert!(node.ends_with("the object is the compiler's own"), "{node}");
    }
    let has = |what: &str| {
        report
            .findings
            .iter()
            .any(|finding| finding[2].contains(what))
    };
    for what in [
        "answers; it is this user's",
        "found by broadcast",
        "in its list as sub",
        "agree within",
        "this machine can take jobs",
    ] {
        assert!(has(what), "{what}: {:#?}", report.findings);
    }

    // With links all is well, and every line of the text fits a terminal.
    let links = cluster.masquerade();
    let mut command = cluster.ice(ALICE, &["doctor"]);
    with_options(&mut command, &cluster, &[]);
    command.env("PATH", format!("{}:/usr/bin:/bin", links.display()));
    let output = cluster.here(|| command.output()).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.ends_with("all is well\n"), "{text}");
    for line in text
        .lines()
        .filter(|line| line.split_whitespace().count() > 1)
    {
        let longest = line
            .split_whitespace()
            .map(str::len)
            .max()
            .unwrap_or_default();
        assert!(line.chars().count() <= 80.max(20 + longest), "{line}");
    }
}

#[test]
fn the_doctor_names_each_thing_that_is_broken() {
    if !netns::possible() {
        return;
    }
    let mut cluster = Cluster::start(&two_workers(ALICE));
    let scheduler = format!("{}:8765", cluster.scheduler.host.address());
    let named = ["--no-trial", "--scheduler", &scheduler[..]];

    // Another key.
    let other = cluster.ground.make_key("other-key");
    ALICE.own(&other);
    let options = [&named[..], &["--key-file", other.to_str().unwrap()]].concat();
    let report = Report::of(&cluster, doctor(&cluster, ALICE, &options));
    report.assert_ill("scheduler", "broken", "another key", "ice key import");

    // No key, and one that everybody may read.
    let options = ["--no-trial", "--key-file", "/nonexistent/key"];
    let report = Report::of(&cluster, doctor(&cluster, ALICE, &options));
    report.assert_ill("key", "broken", "there is none", "ice key import");
    let key = cluster.submitter.directory.join("key");
    let mode = |mode| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(&key, permissions).unwrap();
    };
    mode(0o644);
    let report = Report::of(&cluster, doctor(&cluster, ALICE, &named));
    report.assert_ill("key", "broken", "mode is 0644", "chmod 600");
    mode(0o600);

    // A full disk.
    let disk = cluster.ground.directory.join("disk");
    fs::create_dir(&disk).unwrap();
    let size = Some("size=64k,mode=1777");
    mount(Some("none"), &disk, Some("tmpfs"), MsFlags::empty(), size).unwrap();
    let options = ["--no-trial", "--cache-dir", disk.to_str().unwrap()];
    let report = Report::of(&cluster, doctor(&cluster, ALICE, &options));
    umount2(&disk, MntFlags::MNT_DETACH).unwrap();
    report.assert_ill("limits", "broken", "No space left", "--cache-dir");

    // No user namespaces: in one that allows no more of them.
    let shut = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
    let mut command = cluster.command(ALICE, Path::new("unshare"));
    command.args(["--user", "--map-root-user", "sh", "-c", shut, "sh"]);
    command.arg(&cluster.ground.ice).args(["doctor", "--json"]);
    with_options(&mut command, &cluster, &["--no-trial"]);
    let worker = &cluster.workers[0].host;
    let report = Report::read(&worker.enter(|| command.output()).unwrap());
    let mend = "sysctl user.max_user_namespaces=10000";
    report.assert_ill("sandbox", "broken", "takes no jobs of others", mend);
    // Where no jobs of others are wanted, nothing is wrong.
    let report = Report::of(&cluster, command);
    let only_submits = |finding: &[String; 4]| {
        finding[0] == "sandbox" && finding[1] == "ok" && finding[2].contains("none is needed")
    };
    assert!(
        report.findings.iter().any(only_submits),
        "{:#?}",
        report.findings
    );

    // An archive that is not there.
    let mut command = doctor(&cluster, ALICE, &["--no-trial"]);
    command.env("ICECC_VERSION", "/nonexistent/archive.tar.gz");
    let report = Report::of(&cluster, command);
    report.assert_ill(
        "compilers",
        "broken",
        "/nonexistent/archive.tar.gz",
        "build-native",
    );

    // No daemon where a client looks for it.
    let mut command = doctor(&cluster, ALICE, &["--no-trial"]);
    command.env("ICE_SOCKET", "/nonexistent/sock");
    let report = Report::of(&cluster, command);
    report.assert_ill(
        "daemon",
        "broken",
        "none listens at /nonexistent/sock",
        "ice daemon",
    );

    // A worker whose packets are lost on the way, as behind a firewall that drops them. It is in the
    // scheduler's list all the while.
    let address = cluster.workers[0].host.address().to_owned();
    cluster.here(|| shell(LOSE, &address));
    let report = Report::of(&cluster, doctor(&cluster, ALICE, &["--no-trial"]));
    cluster.here(|| shell(FIND, &address));
    let what = format!("nothing comes back from {address}:10245");
    report.assert_ill("nodes", "broken", &what, "10245/tcp");

    // A dead scheduler, named and not.
    cluster.scheduler.kill();
    let report = Report::of(&cluster, doctor(&cluster, ALICE, &named));
    report.assert_ill(
        "scheduler",
        "broken",
        "refuses connections",
        "ice scheduler -d",
    );
    let report = Report::of(&cluster, doctor(&cluster, ALICE, &["--no-trial"]));
    report.assert_ill(
        "scheduler",
        "broken",
        "answers a broadcast",
        "--scheduler HOST",
    );
}

#[test]
fn the_doctor_tells_whose_clock_is_wrong() {
    if !netns::possible() {
        return;
    }
    let cluster = Cluster::start(&two_workers(ALICE));
    let key = ClusterKey::read(&cluster.ground.directory.join("key")).unwrap();
    let credentials = Credentials::Key(Arc::new(key));
    let scheduler = format!("{}:8765", cluster.scheduler.host.address());
    let scheduler = scheduler.parse().unwrap();
    // No clock of this machine can be turned for one process, so the node with the wrong one is the test's.
    let (go, stop) = smol::channel::bounded::<()>(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let stopped = async {
                let _ = stop.recv().await;
            };
            let dream = dream(scheduler, &credentials);
            let dreaming = || ice::executor::block_on(smol::future::or(stopped, dream));
            cluster.outsider().enter(dreaming);
        });
        // The other thread ends with this, whatever becomes of the test.
        let _go = go;
        let mut report = None;
        wait_until("the doctor sees a wrong clock", BOUND, || {
            let heard = Report::of(&cluster, doctor(&cluster, ALICE, &["--no-trial"]));
            let is_wrong = |finding: &[String; 4]| finding[0] == "clocks" && finding[1] != "ok";
            let sees = heard.findings.iter().any(is_wrong);
            report = Some(heard);
            sees
        });
        let what = "dreamer's clock is 60 min behind the scheduler's";
        let report = report.unwrap();
        report.assert_ill("clocks", "broken", what, "timedatectl set-ntp true");
    });
}

/// A node whose clock is an hour late, and who comes back when the scheduler has lost it.
async fn dream(scheduler: SocketAddr, credentials: &Credentials) {
    loop {
        let connection = Connection::connect(scheduler, credentials, BOUND);
        let connection = connection.await.unwrap();
        let (mut sender, _receiver) = peer::log_in(connection, "dreamer", "ICECREAM").await;
        loop {
            let state = NodeState {
                clock_ms: ice::clock::now_ms() - HOUR_MS,
                ..NodeState::default()
            };
            if sender.send(&ToScheduler::State(state)).await.is_err() {
                break;
            }
            Timer::after(Duration::from_millis(200)).await;
        }
    }
}

/// An hour, in milliseconds.
const HOUR_MS: u64 = 3_600_000;

#[test]
fn the_doctor_tells_an_old_toolchain() {
    if !netns::possible() {
        return;
    }
    let cluster = Cluster::start(&two_workers(ALICE));
    let home = cluster.home(ROOT);
    let mut command = cluster.ice(ROOT, &["build-native", "gcc"]);
    command.env("ICECC_ENV_COMPRESSION", "none");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let archive = String::from_utf8(output.stdout).unwrap();
    let archive = home.join(archive.trim());
    let judged = |archive: &Path| {
        fs::set_permissions(archive, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        let mut command = doctor(&cluster, ALICE, &["--no-trial"]);
        command.env("ICECC_VERSION", archive);
        Report::of(&cluster, command)
    };
    fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let report = judged(&archive);
    let is_same = |finding: &[String; 4]| finding[2].ends_with("is the installed compiler");
    assert!(
        report.findings.iter().any(is_same),
        "{:#?}",
        report.findings
    );

    // The same with a compiler that is not quite the same.
    let tree = home.join("old");
    fs::create_dir(&tree).unwrap();
    let script = "tar xf \"$1\" -C \"$2\" && for f in $(find \"$2\" -name cc1 -type f); do \
                  chmod u+w $f && echo >> $f || exit 1; done && tar cf \"$3\" -C \"$2\" .";
    let old = home.join("old.tar");
    let arguments: [&OsStr; 3] = [archive.as_ref(), tree.as_ref(), old.as_ref()];
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).args(arguments);
    assert!(command.status().unwrap().success());
    let report = judged(&old);
    report.assert_ill(
        "compilers",
        "warning",
        "old toolchain",
        "unset ICECC_VERSION",
    );
}

/// Makes this machine send what is for another one to where nobody is.
const LOSE: &str = "ip neigh replace $1 lladdr 02:00:00:00:00:99 nud permanent dev \
                    $(ip -o route get $1 | sed 's/.* dev \\([^ ]*\\).*/\\1/')";
/// Ends that.
const FIND: &str = "ip neigh del $1 dev $(ip -o route get $1 | sed 's/.* dev \\([^ ]*\\).*/\\1/')";

fn shell(script: &str, argument: &str) {
    let mut command = Command::new("sh");
    let status = command.args(["-c", script, "sh", argument]).status();
    assert!(status.unwrap().success(), "{script} {argument}");
}
