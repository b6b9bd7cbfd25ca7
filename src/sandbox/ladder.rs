//! Which sandbox this machine allows, found out by building one and looking around in it.
//!
//! Reading sysctls does not tell: a container's seccomp profile, AppArmor and the kernel's
//! configuration each forbid something else, some of them only halfway through. So at start the
//! whole sequence runs once, with this very program as the job, which checks from inside that
//! nothing of the host is there.
//!
//! There is no rung below these two. Landlock with seccomp needs no namespace, but it can only
//! take away paths of the host and not put a job's files at theirs, and a compiler must see its
//! headers at the submitter's paths or its output differs. A machine where no rung holds takes no
//! remote jobs.

use std::fs;
use std::io::Read;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};

use super::spec::{Ended, Launch, Limits, Rung, ZygoteSpec};
use super::zygote::{OURSELVES, SandboxError, Starter, Zygote};
use crate::id::{AbsPath, Bytes, Digest};
use crate::message::{Entry, EntryKind, Mtime};

/// The argument with which this program is the job of a probe; see [`probe_main`].
pub const PROBE_ARGUMENT: &str = "sandbox-probe";

/// The first of `rungs` that holds, each with how its zygotes are started, or why none does: a
/// sentence for each. `program` is this program's file.
pub async fn probe(
    program: &Path,
    rungs: &[(Rung, Starter)],
) -> Result<(Rung, Starter), Vec<(Rung, String)>> {
    let mut failures = Vec::new();
    if !sees_itself() {
        // A job's memory is watched there, and would be another process's.
        let why = "/proc is that of other processes: mount this PID namespace's own";
        return Err(rungs
            .iter()
            .map(|(rung, _)| (*rung, why.to_owned()))
            .collect());
    }
    for (rung, starter) in rungs {
        match try_rung(program, *rung, starter).await {
            Ok(()) => return Ok((*rung, starter.clone())),
            Err(failure) => failures.push((*rung, failure)),
        }
    }
    Err(failures)
}

/// Whether `/proc` belongs to the PID namespace of this process. In a container it may be the host's.
fn sees_itself() -> bool {
    let own = std::process::id().to_string();
    fs::read_link("/proc/self").is_ok_and(|name| name.as_os_str() == &*own)
}

/// This program's file.
pub fn own_program() -> PathBuf {
    fs::read_link(OURSELVES).unwrap_or_else(|_| OURSELVES.into())
}

async fn try_rung(program: &Path, rung: Rung, starter: &Starter) -> Result<(), String> {
    let (Some(directory), Some(name)) = (program.parent(), program.file_name()) else {
        return Err(format!("{} is no program", program.display()));
    };
    let path = AbsPath::parse([b"/", name.as_encoded_bytes()].concat())
        .map_err(|error| error.to_string())?;
    let spec = ZygoteSpec {
        toolchain_root: Bytes::from(directory),
        toolchain: vec![Entry {
            path: path.clone(),
            kind: EntryKind::File {
                digest: Digest([0; 32]),
                size: 0,
                executable: true,
                mtime: Mtime::default(),
            },
        }],
        tree_bytes: 1 << 20,
        tree_inodes: 64,
        rung,
    };
    let zygote = Zygote::start(starter, &spec)
        .await
        .map_err(|error| explain(rung, is_contained(), &error))?;
    make_tree(&zygote, &path).map_err(|errno| format!("make a tree: {errno}"))?;

    let launch = Launch {
        tree: 0,
        program: path.clone(),
        argv: vec![
            Bytes::from(path.as_bytes()),
            Bytes::from(PROBE_ARGUMENT),
            Bytes::from(name.as_encoded_bytes()),
        ],
        env: Vec::new(),
        cwd: AbsPath::parse("/work").map_err(|error| error.to_string())?,
        umask: 0o022,
        writable: vec![AbsPath::parse("/work").map_err(|error| error.to_string())?],
        limits: Limits {
            wall_seconds: 10,
            ..Limits::default()
        },
    };
    let (mut reader, writer) = std::io::pipe().map_err(|error| error.to_string())?;
    let stderr = writer.try_clone().map_err(|error| error.to_string())?;
    let mut running = zygote
        .launch(&launch, OwnedFd::from(writer), OwnedFd::from(stderr))
        .await
        .map_err(|error| explain(rung, is_contained(), &error))?;
    let (ended, _) = running.wait().await.map_err(|error| error.to_string())?;
    // The job is gone, so the pipe ends; what it says is shorter than a pipe holds.
    let mut said = String::new();
    let _ = reader.read_to_string(&mut said);
    match ended {
        Ended::Exited(0) => Ok(()),
        _ => Err(format!(
            "the sandbox can be built but does not hold: {} ({ended:?})",
            said.trim()
        )),
    }
}

fn make_tree(zygote: &Zygote, program: &AbsPath) -> nix::Result<()> {
    let directory = Mode::from_bits_truncate(0o755);
    mkdirat(zygote.tree_root(), "tree0", directory)?;
    mkdirat(zygote.tree_root(), "tree0/work", directory)?;
    let placeholder = Path::new("tree0").join(program.relative());
    openat(
        zygote.tree_root(),
        &placeholder,
        OFlag::O_CREAT | OFlag::O_WRONLY | OFlag::O_CLOEXEC,
        Mode::from_bits_truncate(0o444),
    )
    .map(drop)
}

/// Whether a container's policy is in force: a filter of system calls, or a profile that is named after containers.
/// It forbids what the machine itself would allow, with the same error numbers.
fn is_contained() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let is_filtered = status.lines().any(|line| line == "Seccomp:\t2");
    let profile = fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
    is_filtered || profile.starts_with("docker-") || profile.starts_with("containers-")
}

/// What happened, and what a user can do about it.
fn explain(rung: Rung, is_contained: bool, error: &SandboxError) -> String {
    let SandboxError::Refused { tried, errno } = error else {
        return error.to_string();
    };
    let advice = match (rung, errno) {
        (Rung::UserNamespaces, Errno::ENOSPC) => {
            "user namespaces are switched off; `sysctl user.max_user_namespaces=10000` allows them"
        }
        (Rung::UserNamespaces, Errno::EACCES | Errno::EPERM | Errno::ENOSYS) if is_contained => {
            "the policy of a container forbids it; start that with `--security-opt \
             seccomp=unconfined --security-opt apparmor=unconfined`"
        }
        (Rung::UserNamespaces, Errno::EACCES) => ADVICE_APPARMOR,
        (Rung::UserNamespaces, Errno::EPERM) if tried.contains("user namespace") => {
            "user namespaces are forbidden to this user; `sysctl kernel.unprivileged_userns_clone=1` \
             allows them"
        }
        (Rung::UserNamespaces, Errno::EPERM) => ADVICE_APPARMOR,
        (Rung::Root { .. }, Errno::EPERM) => {
            "without user namespaces this needs root with all its capabilities (CAP_SYS_ADMIN)"
        }
        (_, Errno::ENOSYS | Errno::EINVAL) => "this needs Linux 5.12 or newer, with namespaces",
        _ => return error.to_string(),
    };
    format!("{error} ({advice})")
}

const ADVICE_APPARMOR: &str = "user namespaces exist but may not mount, which is AppArmor's doing \
     on Ubuntu: `sysctl kernel.apparmor_restrict_unprivileged_userns=0` allows it, or a profile \
     for ice with `userns,`";

/// The job of a probe: looks around, and exits with 0 when it is alone.
pub fn probe_main() -> ! {
    let own_name = std::env::args_os().nth(2).unwrap_or_default();
    let failure = look_around(Path::new(&own_name));
    if let Some(failure) = &failure {
        println!("{failure}");
    }
    std::process::exit(i32::from(failure.is_some()))
}

fn look_around(own_name: &Path) -> Option<String> {
    for path in ["/etc/passwd", "/proc", "/sys", "/home", "/root", "/usr"] {
        if Path::new(path).symlink_metadata().is_ok() {
            return Some(format!("{path} of the host is visible"));
        }
    }
    let expected = ["dev", "tmp", "work"];
    for entry in fs::read_dir("/").into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name != own_name && !expected.iter().any(|expected| name == *expected) {
            return Some(format!("/{} is visible", name.display()));
        }
    }
    if UdpSocket::bind("127.0.0.1:0").is_ok() {
        return Some("the network can be used".to_owned());
    }
    for path in ["/file", "/dev/file"] {
        if fs::write(path, "").is_ok() {
            return Some(format!("{path} can be written"));
        }
    }
    if fs::OpenOptions::new()
        .append(true)
        .open(Path::new("/").join(own_name))
        .is_ok()
    {
        return Some("the toolchain can be written".to_owned());
    }
    for path in ["/work/file", "/tmp/file", "/dev/null"] {
        if let Err(error) = fs::write(path, "") {
            return Some(format!("{path} can't be written: {error}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_known_failure_comes_with_advice() {
        let refused = |tried: &str, errno| SandboxError::Refused {
            tried: tried.to_owned(),
            errno,
        };
        let root = Rung::Root { uid: 9, gid: 9 };
        let user = Rung::UserNamespaces;
        let namespace = "make a user namespace";
        for (rung, contained, tried, errno, expect) in [
            (user, false, namespace, Errno::ENOSPC, "max_user_namespaces"),
            (user, true, namespace, Errno::ENOSPC, "max_user_namespaces"),
            (user, false, namespace, Errno::EPERM, "userns_clone=1"),
            (user, true, namespace, Errno::EPERM, "seccomp=unconfined"),
            (user, false, "mount a tmpfs", Errno::EACCES, "AppArmor"),
            (user, true, "mount a tmpfs", Errno::EACCES, "apparmor=unco"),
            (root, false, "make namespaces", Errno::EPERM, "needs root"),
            (root, false, "show the trees", Errno::ENOSYS, "Linux 5.12"),
        ] {
            let sentence = explain(rung, contained, &refused(tried, errno));
            assert!(sentence.contains(expect), "{sentence}");
            assert!(sentence.contains(tried), "{sentence}");
        }
    }
}
