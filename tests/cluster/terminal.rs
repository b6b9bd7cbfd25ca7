//! What a compiler says to a terminal is what it says to a terminal here: colours, width, quotes.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;

use ice::message::Terminal;
use ice::sys;

use crate::cluster::{Cluster, two_workers};
use crate::joblog;
use crate::netns;
use crate::node::ALICE;

const SOURCE: &str = "int wide(int number) { int nobody_uses_this_one; if (number = 1) return \"text\"; return undeclared_and_far_to_the_right; }\n";

#[test]
fn a_terminal_shows_what_the_compiler_shows_it() {
    if !netns::possible() {
        return;
    }
    let cluster = Cluster::start(&two_workers(ALICE));
    let home = cluster.home(ALICE);
    std::fs::write(home.join("wide.c"), SOURCE).unwrap();
    ALICE.own(&home.join("wide.c"));
    let log = home.join("jobs");
    let ours = cluster.called_by_word("gcc");
    // A terminal without a width is what a pipe for standard input amounts to.
    for (columns, variables) in [
        (40, ""),
        (200, ""),
        (0, ""),
        (80, "LC_ALL=C.UTF-8"),
        (80, "COLUMNS=50"),
        (80, "TERM=dumb"),
        (80, "GCC_COLORS="),
    ] {
        let [plain, ours] = ["gcc", &ours].map(|gcc| {
            let (screen, terminal) = sys::open_terminal(Terminal { rows: 24, columns }).unwrap();
            let call = format!("{variables} exec {gcc} -Wall -Wextra -c wide.c -o wide.o");
            let mut command = cluster.command(ALICE, Path::new("/bin/sh"));
            command
                .args(["-c", &call])
                .env("TERM", "xterm-256color")
                .env("ICE_JOB_LOG", &log);
            for (stream, set) in [0, 1, 2].into_iter().zip([
                std::process::Command::stdin::<Stdio>,
                std::process::Command::stdout::<Stdio>,
                std::process::Command::stderr::<Stdio>,
            ]) {
                let end = terminal.as_fd().try_clone_to_owned();
                set(
                    &mut command,
                    end.unwrap_or_else(|_| panic!("stream {stream}")).into(),
                );
            }
            drop(terminal);
            cluster.here(|| {
                let mut child = command.spawn().unwrap();
                // The child's ends of the terminal are the only ones from here on.
                drop(command);
                let said = everything(screen);
                (child.wait().unwrap().code(), said)
            })
        });
        assert_eq!(plain, ours, "{columns} columns, {variables:?}");
        assert!(plain.1.contains("warning"), "{plain:?}");
    }
    let jobs = joblog::read(&log);
    assert_eq!(jobs.len(), 7);
    assert!(jobs.iter().all(joblog::JobLine::is_remote), "{jobs:#?}");
}

/// What is written to a terminal until all of its other ends are closed: then reading fails.
fn everything(screen: OwnedFd) -> String {
    let mut said = Vec::new();
    let mut piece = [0; 4096];
    let mut screen = File::from(screen);
    while let Ok(count @ 1..) = screen.read(&mut piece) {
        said.extend_from_slice(&piece[..count]);
    }
    String::from_utf8_lossy(&said).into_owned()
}
