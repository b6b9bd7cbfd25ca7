//! Judges what belongs to this machine alone: sandbox, compilers, how they are called, what runs out.

use super::facts::{
    ArchiveFacts, ArchiveState, CallFacts, Called, CalledKind, CompilerFacts, DirectoryFacts,
    Facts, LimitFacts,
};
use super::finding::{Finding, Group};

/// Below so many watches a build of a large project does without them: its directories have one each.
const WATCHES_LOW: u64 = 16_384;
/// Each submitter has one, and so have desktops, editors and file managers.
const INSTANCES_LOW: u64 = 64;
/// Each waiting client, each connection and each file in flight is one.
const DESCRIPTORS_LOW: u64 = 4096;
/// Room for the objects of a few jobs.
const BYTES_BROKEN: u64 = 16 << 20;
/// Room for a toolchain and the headers of a project.
const BYTES_LOW: u64 = 1 << 30;
/// Files that a toolchain and a project have.
const INODES_LOW: u64 = 10_000;

/// What is to be said of them.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let needed = !facts.scheduler.only_submits();
    let sandbox = |probed| sandbox(probed, needed);
    findings.extend(facts.sandbox.as_ref().map(sandbox));
    compilers(&facts.compilers, &mut findings);
    findings.extend(facts.archive.as_ref().map(archive));
    calls(&facts.calls, &mut findings);
    limits(&facts.limits, &mut findings);
    findings
}

fn sandbox(probed: &Result<String, String>, needed: bool) -> Finding {
    let group = Group::Sandbox;
    match probed {
        Ok(rung) => Finding::fine(group, format!("{rung}: this machine can take jobs")),
        Err(_) if !needed => {
            let what = "none can be built, and none is needed: this machine only submits";
            Finding::fine(group, what)
        }
        Err(why) => Finding::broken(
            group,
            format!("none can be built, so this machine takes no jobs of others: {why}"),
            sandbox_mend(why),
        ),
    }
}

/// The command for a failure that the ladder has explained.
fn sandbox_mend(why: &str) -> &'static str {
    if why.contains("max_user_namespaces") {
        "sudo sysctl user.max_user_namespaces=10000"
    } else if why.contains("seccomp=unconfined") {
        "podman run --security-opt seccomp=unconfined --security-opt apparmor=unconfined ...   # or docker"
    } else if why.contains("apparmor_restrict") {
        "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    } else if why.contains("unprivileged_userns_clone") {
        "sudo sysctl kernel.unprivileged_userns_clone=1"
    } else {
        "sudo ice daemon -d   # root can build another kind of sandbox"
    }
}

fn compilers(facts: &[CompilerFacts], findings: &mut Vec<Finding>) {
    let group = Group::Compilers;
    let mut missing = Vec::new();
    for compiler in facts {
        let Some(program) = &compiler.program else {
            missing.push(&compiler.name[..]);
            continue;
        };
        findings.push(match &compiler.closure {
            Ok((files, bytes)) => Finding::fine(
                group,
                format!(
                    "{program} travels as {files} files, {} MB",
                    bytes.div_ceil(1_000_000)
                ),
            ),
            Err(why) => Finding::broken(
                group,
                format!("{program} can't be sent: {why}"),
                format!(
                    "install it anew, or name another: ICECC_VERSION=$(ice build-native {program})"
                ),
            ),
        });
    }
    if missing.len() == facts.len() {
        let what = format!("there is none in PATH: no {}", missing.join(", no "));
        findings.push(Finding::broken(group, what, "install gcc or clang"));
    }
}

fn archive(facts: &ArchiveFacts) -> Finding {
    let group = Group::Compilers;
    let make = "unset ICECC_VERSION\nexport ICECC_VERSION=$(ice build-native)   # or, to keep one";
    let Some(file) = &facts.file else {
        let what = format!(
            "ICECC_VERSION={}: no archive of it is for this machine's compiler",
            facts.value
        );
        return Finding::broken(group, what, make);
    };
    match &facts.state {
        Ok(ArchiveState::Same) => Finding::fine(
            group,
            format!("ICECC_VERSION: {file} is the installed compiler"),
        ),
        Ok(ArchiveState::Differs(program)) => Finding::warning(
            group,
            format!(
                "ICECC_VERSION: {file} is an old toolchain, or another one: \
                 the installed {program} is not in it"
            ),
            make,
        ),
        Err(why) => Finding::broken(group, format!("ICECC_VERSION: {file}: {why}"), make),
    }
}

fn calls(facts: &CallFacts, findings: &mut Vec<Finding>) {
    let before = findings.len();
    let set_up = "ice symlinks ~/.ice/bin && export PATH=~/.ice/bin:$PATH\n\
                  ice run -- make   # or, without links";
    let variable = |name: &str| facts.variables.get(name).map(|value| &value[..]);
    if let Some(value @ ("disable" | "no")) = variable("ICECC") {
        let what = format!("ICECC={value} is set: everything compiles here");
        findings.push(Finding::warning(Group::Calls, what, "unset ICECC"));
    }
    let leads_here = |called: &[Called]| {
        let first = called.first().map(|called| called.kind);
        match first {
            Some(CalledKind::ThisIce | CalledKind::OtherIce) => true,
            // ccache finds the next of this name, or what it is told to put before the compiler.
            Some(CalledKind::Ccache) => {
                let prefix = variable("CCACHE_PREFIX").unwrap_or_default();
                prefix.split('/').next_back() == Some("ice")
                    || matches!(
                        called
                            .iter()
                            .map(|called| called.kind)
                            .find(|&kind| kind != CalledKind::Ccache),
                        Some(CalledKind::ThisIce | CalledKind::OtherIce)
                    )
            }
            Some(CalledKind::Dangling | CalledKind::Compiler) | None => false,
        }
    };
    let mut astray = Vec::new();
    for (name, called) in &facts.by_name {
        for link in called {
            match link.kind {
                CalledKind::Dangling => findings.push(Finding::broken(
                    Group::Calls,
                    format!("{} is a link that leads nowhere", link.path),
                    format!("ice symlinks {}", directory(&link.path)),
                )),
                CalledKind::OtherIce => findings.push(Finding::warning(
                    Group::Calls,
                    format!("{} leads to another ice than this one", link.path),
                    format!("ice symlinks {}", directory(&link.path)),
                )),
                CalledKind::ThisIce | CalledKind::Ccache | CalledKind::Compiler => {}
            }
        }
        if !called.is_empty() && !leads_here(called) {
            astray.push((name, &called[0]));
        }
    }
    let all_astray = astray.len()
        == facts
            .by_name
            .values()
            .filter(|found| !found.is_empty())
            .count();
    for (name, called) in &astray {
        if called.kind == CalledKind::Dangling {
            continue;
        }
        let (path, is_all) = (&called.path, all_astray && astray.len() > 1);
        let (what, mend) = match called.kind {
            CalledKind::Ccache => (
                format!("{name} is ccache ({path}), which calls the compiler without ice"),
                "export CCACHE_PREFIX=ice",
            ),
            _ if is_all => (
                format!("no compiler in PATH leads to ice: {name} is {path}"),
                set_up,
            ),
            _ => (format!("{name} is {path}, and not ice"), set_up),
        };
        findings.push(Finding::warning(Group::Calls, what, mend));
        // One that stands for all.
        if all_astray && called.kind != CalledKind::Ccache {
            break;
        }
    }
    for name in ["CC", "CXX"] {
        let Some(value) = variable(name) else {
            continue;
        };
        let mut words = value
            .split_whitespace()
            .map(|word| word.rsplit('/').next().unwrap_or(word));
        let program = value.split_whitespace().next().unwrap_or_default();
        let through = words.any(|word| matches!(word, "ice" | "icecc" | "ccache"));
        let is_link = facts
            .by_name
            .values()
            .flatten()
            .any(|called| called.path == program && called.kind != CalledKind::Compiler);
        if program.contains('/') && !through && !is_link {
            findings.push(Finding::warning(
                Group::Calls,
                format!("{name}={value} goes past every link"),
                format!("export {name}=\"ice {value}\""),
            ));
        }
    }
    if findings.len() == before {
        let names: Vec<&str> = facts
            .by_name
            .iter()
            .filter(|(_, called)| !called.is_empty())
            .map(|(name, _)| &name[..])
            .collect();
        findings.push(match names.is_empty() {
            true => Finding::unknown(Group::Calls, "there is no compiler in PATH"),
            false => Finding::fine(Group::Calls, format!("{} come to ice", names.join(", "))),
        });
    }
}

fn directory(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some((directory, _)) if !directory.is_empty() => directory,
        _ => "/",
    }
}

fn limits(facts: &LimitFacts, findings: &mut Vec<Finding>) {
    let before = findings.len();
    let group = Group::Limits;
    let mut inotify = |limit: Option<(u64, bool)>, name: &str, low: u64, better: u64| {
        let (most, is_available) = limit?;
        let mend = format!("sudo sysctl fs.inotify.{name}={better}");
        if !is_available {
            let what = format!(
                "fs.inotify.{name}={most} is used up: every file is looked at for every job"
            );
            findings.push(Finding::warning(group, what, mend));
        } else if most < low {
            let what = format!("fs.inotify.{name}={most} is little for a large project");
            findings.push(Finding::warning(group, what, mend));
        }
        Some(())
    };
    inotify(facts.watches, "max_user_watches", WATCHES_LOW, 524_288);
    inotify(facts.instances, "max_user_instances", INSTANCES_LOW, 512);
    if facts.descriptors < DESCRIPTORS_LOW {
        findings.push(Finding::warning(
            group,
            format!(
                "a process may have {} descriptors at most: one is needed for each waiting compile",
                facts.descriptors
            ),
            "ulimit -Hn 65536   # as root; in a systemd unit: LimitNOFILE=65536",
        ));
    }
    for directory in &facts.directories {
        findings.extend(room(directory));
    }
    if findings.len() == before {
        findings.push(Finding::fine(
            group,
            "inotify, descriptors and disk space suffice",
        ));
    }
}

fn room(facts: &DirectoryFacts) -> Option<Finding> {
    let DirectoryFacts {
        purpose,
        path,
        free: (bytes, inodes),
        refusal,
    } = facts;
    let (group, path) = (Group::Limits, path.display());
    let mend = match *purpose {
        "cache" => format!(
            "free some space, or put it elsewhere: ice daemon --cache-dir DIRECTORY   # df -h {path}"
        ),
        _ => format!("free some space   # df -h {path}; df -i {path}"),
    };
    if let Some(why) = refusal {
        let what = format!("nothing can be written to the {purpose} directory {path}: {why}");
        return Some(Finding::broken(group, what, mend));
    }
    let left = format!("{} MB", bytes / 1_000_000);
    if *bytes < BYTES_BROKEN {
        let what = format!("the disk of the {purpose} directory {path} is full: {left} left");
        return Some(Finding::broken(group, what, mend));
    }
    if *bytes < BYTES_LOW {
        let what =
            format!("the disk of the {purpose} directory {path} is almost full: {left} left");
        return Some(Finding::warning(group, what, mend));
    }
    let few = (*inodes)?;
    (few < INODES_LOW).then(|| {
        let what = format!("the disk of the {purpose} directory {path} has only {few} inodes left");
        Finding::warning(group, what, mend)
    })
}

#[cfg(test)]
mod tests {
    use super::super::facts::healthy;
    use super::super::finding::Grade;
    use super::super::illness::{Illness, assert_each_is_named, assert_healthy};
    use super::*;
    use crate::message::NO_REMOTE_BY_CHOICE;

    #[test]
    fn a_healthy_machine_has_nothing_wrong() {
        assert_healthy(findings);
    }

    fn gcc_is(facts: &mut Facts, kinds: &[CalledKind]) {
        let called = kinds.iter().zip('a'..).map(|(&kind, letter)| Called {
            path: format!("/{letter}/gcc"),
            kind,
        });
        let called = called.collect();
        facts.calls.by_name.insert("gcc".into(), called);
    }

    fn archived(state: Result<ArchiveState, String>) -> Option<ArchiveFacts> {
        Some(ArchiveFacts {
            value: "/a.tar.gz".into(),
            file: Some("/a.tar.gz".into()),
            state,
        })
    }

    fn set(facts: &mut Facts, name: &str, value: &str) {
        facts.calls.variables.insert(name.into(), value.into());
    }

    const ILLNESSES: &[Illness] = &[
        (
            "no user namespaces",
            |facts| {
                let why =
                    "user namespaces: ENOSPC (`sysctl user.max_user_namespaces=10000` allows them)";
                facts.sandbox = Some(Err(why.into()));
            },
            Group::Sandbox,
            Grade::Broken,
            "takes no jobs of others",
            "sysctl user.max_user_namespaces=",
        ),
        (
            "user namespaces for root only",
            |facts| facts.sandbox = Some(Err("kernel.unprivileged_userns_clone=0".into())),
            Group::Sandbox,
            Grade::Broken,
            "takes no jobs of others",
            "sysctl kernel.unprivileged_userns_clone=1",
        ),
        (
            "AppArmor",
            |facts| {
                facts.sandbox = Some(Err("kernel.apparmor_restrict_unprivileged_userns=0".into()))
            },
            Group::Sandbox,
            Grade::Broken,
            "takes no jobs of others",
            "apparmor_restrict_unprivileged_userns=0",
        ),
        (
            "a container",
            |facts| facts.sandbox = Some(Err("`--security-opt seccomp=unconfined`".into())),
            Group::Sandbox,
            Grade::Broken,
            "takes no jobs of others",
            "podman run --security-opt",
        ),
        (
            "a compiler that can't be sent",
            |facts| facts.compilers[0].closure = Err("it is a script".into()),
            Group::Compilers,
            Grade::Broken,
            "/usr/bin/gcc can't be sent: it is a script",
            "ICECC_VERSION",
        ),
        (
            "no compiler",
            |facts| facts.compilers[0].program = None,
            Group::Compilers,
            Grade::Broken,
            "no gcc, no clang",
            "install",
        ),
        (
            "a missing archive",
            |facts| facts.archive = archived(Err("No such file".into())),
            Group::Compilers,
            Grade::Broken,
            "/a.tar.gz: No such file",
            "ice build-native",
        ),
        (
            "an old toolchain",
            |facts| facts.archive = archived(Ok(ArchiveState::Differs("/usr/libexec/cc1".into()))),
            Group::Compilers,
            Grade::Warning,
            "old toolchain",
            "ice build-native",
        ),
        (
            "an archive for another machine",
            |facts| {
                facts.archive = archived(Ok(ArchiveState::Same));
                facts.archive.as_mut().unwrap().file = None;
            },
            Group::Compilers,
            Grade::Broken,
            "no archive of it is for this machine",
            "unset ICECC_VERSION",
        ),
        (
            "no links in PATH",
            |facts| gcc_is(facts, &[CalledKind::Compiler]),
            Group::Calls,
            Grade::Warning,
            "gcc is /a/gcc, and not ice",
            "ice symlinks",
        ),
        (
            "links behind the compiler",
            |facts| gcc_is(facts, &[CalledKind::Compiler, CalledKind::ThisIce]),
            Group::Calls,
            Grade::Warning,
            "gcc is /a/gcc, and not ice",
            "PATH=",
        ),
        (
            "links to another ice",
            |facts| gcc_is(facts, &[CalledKind::OtherIce, CalledKind::Compiler]),
            Group::Calls,
            Grade::Warning,
            "/a/gcc leads to another ice",
            "ice symlinks /a",
        ),
        (
            "links to a removed ice",
            |facts| gcc_is(facts, &[CalledKind::Dangling, CalledKind::Compiler]),
            Group::Calls,
            Grade::Broken,
            "/a/gcc is a link that leads nowhere",
            "ice symlinks /a",
        ),
        (
            "ccache without ice",
            |facts| gcc_is(facts, &[CalledKind::Ccache, CalledKind::Compiler]),
            Group::Calls,
            Grade::Warning,
            "which calls the compiler without ice",
            "CCACHE_PREFIX=ice",
        ),
        (
            "ICECC=disable",
            |facts| set(facts, "ICECC", "disable"),
            Group::Calls,
            Grade::Warning,
            "ICECC=disable is set",
            "unset ICECC",
        ),
        (
            "CC with a path",
            |facts| set(facts, "CC", "/usr/bin/gcc -m32"),
            Group::Calls,
            Grade::Warning,
            "CC=/usr/bin/gcc -m32 goes past",
            "export CC=\"ice /usr/bin/gcc -m32\"",
        ),
        (
            "few watches",
            |facts| facts.limits.watches = Some((8192, true)),
            Group::Limits,
            Grade::Warning,
            "max_user_watches=8192",
            "sysctl fs.inotify.max_user_watches=",
        ),
        (
            "no watch left",
            |facts| facts.limits.watches = Some((1 << 20, false)),
            Group::Limits,
            Grade::Warning,
            "is used up",
            "sysctl fs.inotify.max_user_watches=",
        ),
        (
            "no instance left",
            |facts| facts.limits.instances = Some((128, false)),
            Group::Limits,
            Grade::Warning,
            "is used up",
            "sysctl fs.inotify.max_user_instances=",
        ),
        (
            "few descriptors",
            |facts| facts.limits.descriptors = 1024,
            Group::Limits,
            Grade::Warning,
            "1024 descriptors",
            "ulimit -Hn",
        ),
        (
            "a full disk",
            |facts| facts.limits.directories[0].free.0 = 1 << 20,
            Group::Limits,
            Grade::Broken,
            "is full: 1 MB left",
            "--cache-dir",
        ),
        (
            "a disk that takes nothing",
            |facts| facts.limits.directories[0].refusal = Some("Read-only file system".into()),
            Group::Limits,
            Grade::Broken,
            "Read-only file system",
            "--cache-dir",
        ),
        (
            "an almost full disk",
            |facts| facts.limits.directories[0].free.0 = 100 << 20,
            Group::Limits,
            Grade::Warning,
            "almost full",
            "df -h",
        ),
        (
            "no inodes",
            |facts| facts.limits.directories[0].free.1 = Some(3),
            Group::Limits,
            Grade::Warning,
            "only 3 inodes",
            "df -h",
        ),
    ];

    #[test]
    fn each_illness_is_named_with_what_mends_it_and_nothing_else_is() {
        assert_each_is_named(findings, ILLNESSES);
    }

    #[test]
    fn who_only_submits_needs_no_sandbox() {
        let mut facts = healthy();
        facts.sandbox = Some(Err("EPERM".into()));
        let broken = |facts: &Facts| findings(facts).iter().any(|of| of.grade == Grade::Broken);
        assert!(broken(&facts));
        let status = facts.scheduler.status.as_mut().unwrap();
        // Another machine's wish is not this one's.
        status.nodes[1].no_remote = Some(NO_REMOTE_BY_CHOICE.into());
        assert!(broken(&facts));
        let status = facts.scheduler.status.as_mut().unwrap();
        status.nodes[0].no_remote = Some(NO_REMOTE_BY_CHOICE.into());
        assert!(!broken(&facts));
    }

    #[test]
    fn what_leads_to_ice_is_fine_however_it_does() {
        type Row<'a> = (&'a [CalledKind], &'a [(&'a str, &'a str)]);
        let rows: [Row<'_>; 4] = [
            (
                &[
                    CalledKind::ThisIce,
                    CalledKind::Ccache,
                    CalledKind::Compiler,
                ],
                &[],
            ),
            (
                &[
                    CalledKind::Ccache,
                    CalledKind::ThisIce,
                    CalledKind::Compiler,
                ],
                &[],
            ),
            (
                &[CalledKind::Ccache, CalledKind::Compiler],
                &[("CCACHE_PREFIX", "/usr/bin/ice")],
            ),
            (
                &[CalledKind::ThisIce, CalledKind::Compiler],
                &[("CC", "gcc"), ("CXX", "ice /usr/bin/g++")],
            ),
        ];
        for (kinds, variables) in rows {
            let mut facts = healthy();
            gcc_is(&mut facts, kinds);
            for (name, value) in variables {
                set(&mut facts, name, value);
            }
            let found = findings(&facts);
            assert!(
                found.iter().all(|finding| finding.mend.is_none()),
                "{kinds:?}: {found:#?}"
            );
        }
    }
}
