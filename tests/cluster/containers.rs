//! Clients that don't see what their daemon sees.

use std::fs;
use std::path::Path;

use crate::cluster::{Cluster, two_workers};
use crate::joblog;
use crate::netns;
use crate::node::ROOT;

#[test]
fn a_client_that_sees_other_files_than_its_daemon_is_not_served_by_it() {
    if !netns::possible() {
        return;
    }
    let cluster = Cluster::start(&two_workers(ROOT));
    let home = cluster.home(ROOT);
    for (directory, value) in [("here", "1"), ("there", "2")] {
        fs::create_dir(home.join(directory)).unwrap();
        fs::write(home.join(directory).join("value.h"), value).unwrap();
        let source = "int value =\n#include \"value.h\"\n;\n";
        fs::write(home.join(directory).join("a.c"), source).unwrap();
    }
    let log = home.join("jobs");
    let ice = cluster.ground.ice.display().to_string();
    // A namespace of one's own, as services have one, is no reason.
    for (mount, reasons) in [
        (":", &[][..]),
        ("mount --bind there here", &["other-files"]),
        (
            "cp /usr/bin/gcc gcc && mount --bind gcc $(readlink -f /usr/bin/gcc)",
            &["other-files"],
        ),
    ] {
        let script = format!(
            "{mount}; cd here; {ice} gcc -g -c a.c -o ../ours.o; gcc -g -c a.c -o ../plain.o"
        );
        let mut command = cluster.command(ROOT, Path::new("unshare"));
        command
            .args(["--mount", "sh", "-euc", &script])
            .env("ICE_JOB_LOG", &log)
            .env("ICECC_PREFERRED_HOST", "w1");
        let status = cluster.here(|| command.status().unwrap());
        assert!(status.success(), "{script}");
        let jobs = joblog::read(&log);
        fs::remove_file(&log).unwrap();
        let local = jobs.iter().filter(|job| !job.is_remote());
        let words: Vec<_> = local.map(joblog::JobLine::word).collect();
        assert_eq!((jobs.len(), &words[..]), (1, reasons), "{mount}: {jobs:?}");
        let [ours, plain] = ["ours.o", "plain.o"].map(|name| fs::read(home.join(name)).unwrap());
        assert!(ours == plain, "{mount}: another object");
    }
}
