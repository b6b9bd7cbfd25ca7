//! What is seen of the file system: by the zygote, built once, and by a job, built for each.
//!
//! The zygote's root is a small tmpfs that holds
//!
//! ```text
//! /trees      the tmpfs of all trees; the daemon has its root as a descriptor and fills it
//! /view       the same, read-only
//! /toolchain  the toolchain's files, read-only
//! /devices    null, zero, full, random, urandom of the host
//! /job        nothing: where a job's root is put together, in the job's own mount namespace
//! ```
//!
//! and nothing of the host. A job's root is its tree out of `/view`, with its writable directories
//! out of `/trees`, the toolchain's files over their placeholders, the devices and a private
//! `/tmp`. A copy of a mount inherits its restrictions, so a file of the toolchain costs one copy.
//!
//! Nothing that is made writable is reached through a symlink: a tree is made of what a stranger declared, and a
//! symlink in it could otherwise lead to another tree (`RESOLVE_NO_SYMLINKS`), and what it leads to
//! would become writable.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{chdir, chown, fchdir, fchown, mkdir, pivot_root};

use super::spec::{Fault, Launch, Refusal, Rung, ZygoteSpec};
use crate::id::AbsPath;
use crate::message::EntryKind;
use crate::sys::{move_mount, open_tree, restrict_mount};

/// The devices that a job has.
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// What the zygote keeps for its jobs.
pub(super) struct Base {
    /// The toolchain's files: where they are in the zygote's root, and where in a job's.
    files: Vec<(CString, CString)>,
    rung: Rung,
}

/// Makes an [`Errno`] a sentence.
pub(super) fn refused(
    fault: Fault,
    tried: impl std::fmt::Display,
) -> impl FnOnce(Errno) -> Refusal {
    move |errno| Refusal {
        fault,
        tried: tried.to_string(),
        errno: errno as i32,
    }
}

/// Makes this process's mount namespace the zygote's, and returns the root of the trees. Before
/// it, the namespace is a private copy of the host's.
pub(super) fn build_base(spec: &ZygoteSpec) -> Result<(Base, OwnedFd), Refusal> {
    let toolchain = spec.toolchain_root.as_path();
    let files = spec
        .toolchain
        .iter()
        .filter(|entry| matches!(entry.kind, EntryKind::File { .. }))
        .map(|entry| {
            let path = entry.path.as_bytes();
            (
                c_string([b"/toolchain", path].concat()),
                c_string([b"/job", path].concat()),
            )
        })
        .collect();

    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(refused(Fault::Sandbox, "make the mounts private"))?;

    // Copied before the host's root goes, since a mount that is nowhere can't be copied.
    let toolchain_root = open_path(toolchain)
        .and_then(|root| copy_mount(root.as_fd(), false))
        .map_err(refused(
            Fault::Sandbox,
            format_args!("show {} read-only", toolchain.display()),
        ))?;
    let mut devices = Vec::new();
    for name in DEVICES {
        let device = open(
            &Path::new("/dev").join(name),
            OFlag::O_PATH | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .and_then(|device| copy_mount(device.as_fd(), true))
        .map_err(refused(Fault::Sandbox, format_args!("show /dev/{name}")))?;
        devices.push((name, device));
    }

    // `/proc` is the one directory that is always there, since this program was started from it.
    let tmpfs = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(
        Some("ice"),
        "/proc",
        Some("tmpfs"),
        tmpfs,
        Some("size=1m,nr_inodes=64,mode=0755"),
    )
    .map_err(refused(Fault::Sandbox, "mount a tmpfs"))?;
    chdir("/proc").map_err(refused(Fault::Sandbox, "enter the new root"))?;
    for name in ["trees", "view", "toolchain", "devices", "job"] {
        mkdir(name, Mode::from_bits_truncate(0o755))
            .map_err(refused(Fault::Sandbox, format_args!("make /{name}")))?;
    }
    for (name, _) in &devices {
        open(
            &Path::new("devices").join(name),
            OFlag::O_CREAT | OFlag::O_WRONLY | OFlag::O_CLOEXEC,
            Mode::from_bits_truncate(0o644),
        )
        .map_err(refused(
            Fault::Sandbox,
            format_args!("make /devices/{name}"),
        ))?;
    }
    pivot().map_err(refused(Fault::Sandbox, "leave the host's root"))?;
    // Now, as long as nothing else is mounted below it. A job's /dev is a part of it.
    open_path(Path::new("/"))
        .and_then(|root| restrict_mount(root.as_fd(), true, false))
        .map_err(refused(Fault::Sandbox, "make the root read-only"))?;

    let options = format!(
        "size={},nr_inodes={},mode=0755",
        spec.tree_bytes, spec.tree_inodes
    );
    mount(
        Some("ice-trees"),
        "/trees",
        Some("tmpfs"),
        tmpfs,
        Some(options.as_str()),
    )
    .map_err(refused(Fault::Sandbox, "mount the trees"))?;
    if let Rung::Root { uid, gid } = spec.rung {
        chown("/trees", Some(uid.into()), Some(gid.into()))
            .map_err(refused(Fault::Sandbox, "give the trees to the jobs' user"))?;
    }
    let trees = open(
        "/trees",
        OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .map_err(refused(Fault::Sandbox, "open the trees"))?;

    copy_mount(trees.as_fd(), false)
        .and_then(|copy| attach(copy.as_fd(), "/view"))
        .map_err(refused(Fault::Sandbox, "show the trees read-only"))?;
    attach(toolchain_root.as_fd(), "/toolchain")
        .map_err(refused(Fault::Sandbox, "mount the toolchain"))?;
    for (name, device) in devices {
        attach(device.as_fd(), &format!("/devices/{name}"))
            .map_err(refused(Fault::Sandbox, format_args!("mount /dev/{name}")))?;
    }
    let base = Base {
        files,
        rung: spec.rung,
    };
    Ok((base, trees))
}

/// Makes this process's mount namespace, a copy of the zygote's, the job's.
pub(super) fn build_job(base: &Base, launch: &Launch) -> Result<(), Refusal> {
    let sandbox = |tried: &'static str| refused(Fault::Sandbox, tried);
    let tree = open_path(Path::new(&format!("/trees/tree{}", launch.tree))).map_err(refused(
        Fault::Job,
        format_args!("open tree {}", launch.tree),
    ))?;

    let view = open_path(Path::new("/view")).map_err(sandbox("open the trees"))?;
    let name = CString::new(format!("tree{}", launch.tree)).expect("digits contain no NUL");
    let copy = open_tree(view.as_fd(), &name, false).map_err(sandbox("copy the tree's mount"))?;
    let target = open_path(Path::new("/job")).map_err(sandbox("open the job's root"))?;
    move_mount(copy.as_fd(), target.as_fd(), c"").map_err(sandbox("mount the tree"))?;
    // The copy's descriptor is the mounted root; the target's is what lies under it.
    let root = copy;

    let mut writable: Vec<&AbsPath> = launch.writable.iter().collect();
    writable.sort();
    let private_tmp = has_private_tmp(tree.as_fd(), launch)?;
    let tmp = AbsPath::parse("/tmp").expect("it is plain");
    if !private_tmp {
        writable.retain(|path| !path.is_within(&tmp));
        writable.insert(0, &tmp);
    }
    let mut shown: Option<&AbsPath> = None;
    for path in writable {
        if shown.is_some_and(|outer| path.is_within(outer)) {
            continue;
        }
        show_writable(base, tree.as_fd(), root.as_fd(), path).map_err(refused(
            Fault::Job,
            format_args!("make {path} writable (a directory reached without symlinks)"),
        ))?;
        shown = Some(path);
    }

    // By name, which costs half of what descriptors do, and there are many. The placeholders are
    // the tree's; would a symlink lead one of them astray, then something in this namespace, which
    // is left in a moment, is covered by a file that can only be read.
    for (source, target) in &base.files {
        mount(
            Some(source.as_c_str()),
            target.as_c_str(),
            None::<&CStr>,
            MsFlags::MS_BIND,
            None::<&CStr>,
        )
        .map_err(refused(
            Fault::Job,
            format_args!("mount {}", source.to_string_lossy()),
        ))?;
    }

    let devices = open_path(Path::new("/devices")).map_err(sandbox("open the devices"))?;
    let copy = open_tree(devices.as_fd(), c"", true).map_err(sandbox("copy the devices"))?;
    let target = own_directory(tree.as_fd(), root.as_fd(), c"dev")
        .map_err(refused(Fault::Job, "open /dev"))?;
    move_mount(copy.as_fd(), target.as_fd(), c"").map_err(sandbox("mount /dev"))?;

    if private_tmp {
        let target = own_directory(tree.as_fd(), root.as_fd(), c"tmp")
            .map_err(refused(Fault::Job, "open /tmp"))?;
        let options = format!(
            "size={},nr_inodes={},mode=1777",
            launch.limits.tmp_bytes, TMP_INODES
        );
        fchdir(&target)
            .and_then(|()| {
                mount(
                    Some("tmp"),
                    ".",
                    Some("tmpfs"),
                    MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
                    Some(options.as_str()),
                )
            })
            .map_err(sandbox("mount /tmp"))?;
    }

    fchdir(&root)
        .and_then(|()| pivot())
        .map_err(sandbox("leave the zygote's root"))
}

/// Files in a job's private `/tmp`, at most.
const TMP_INODES: u32 = 16384;

/// A detached copy of a mount, restricted: a device, or else read-only and without devices.
fn copy_mount(source: BorrowedFd<'_>, device: bool) -> nix::Result<OwnedFd> {
    let copy = open_tree(source, c"", true)?;
    restrict_mount(copy.as_fd(), !device, device)?;
    Ok(copy)
}

fn attach(mount: BorrowedFd<'_>, at: &str) -> nix::Result<()> {
    let target = open(at, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    move_mount(mount, target.as_fd(), c"")
}

/// The current directory, a mount, becomes the root; the old root is gone. `pivot_root(".", ".")`
/// stacks the old root on the new one, which saves a directory to put it into.
fn pivot() -> nix::Result<()> {
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")
}

/// A job that has files in `/tmp` has the tree's own.
fn has_private_tmp(tree: BorrowedFd<'_>, launch: &Launch) -> Result<bool, Refusal> {
    let tmp = AbsPath::parse("/tmp").expect("it is plain");
    if launch.cwd.is_within(&tmp) || launch.writable.iter().any(|path| path.is_within(&tmp)) {
        return Ok(false);
    }
    let directory = match openat2(tree, c"tmp", how(OFlag::O_RDONLY | OFlag::O_DIRECTORY)) {
        Err(Errno::ENOENT) => return Ok(true),
        other => other.map_err(refused(Fault::Job, "open /tmp"))?,
    };
    let mut entries =
        nix::dir::Dir::from_fd(directory).map_err(refused(Fault::Sandbox, "list /tmp"))?;
    let empty = entries
        .iter()
        .flatten()
        .all(|entry| matches!(entry.file_name().to_bytes(), b"." | b".."));
    Ok(empty)
}

fn show_writable(
    base: &Base,
    tree: BorrowedFd<'_>,
    root: BorrowedFd<'_>,
    path: &AbsPath,
) -> nix::Result<()> {
    let path = below_root(path);
    let path: &CStr = if path.is_empty() { c"." } else { &path };
    let source = openat2(tree, path, how(OFlag::O_RDONLY | OFlag::O_DIRECTORY))?;
    if let Rung::Root { uid, gid } = base.rung {
        fchown(&source, Some(uid.into()), Some(gid.into()))?;
    }
    let target = openat2(root, path, how(OFlag::O_PATH | OFlag::O_DIRECTORY))?;
    let copy = open_tree(source.as_fd(), c"", false)?;
    move_mount(copy.as_fd(), target.as_fd(), c"")
}

/// A directory that every job has, whether its tree has it or not.
fn own_directory(tree: BorrowedFd<'_>, root: BorrowedFd<'_>, name: &CStr) -> nix::Result<OwnedFd> {
    let directory = how(OFlag::O_PATH | OFlag::O_DIRECTORY);
    match openat2(root, name, directory) {
        Err(Errno::ENOENT) => {
            mkdirat(tree, name, Mode::from_bits_truncate(0o755))?;
            openat2(root, name, directory)
        }
        other => other,
    }
}

fn how(flags: OFlag) -> OpenHow {
    OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS)
}

fn open_path(path: &Path) -> nix::Result<OwnedFd> {
    open(
        path,
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
}

fn below_root(path: &AbsPath) -> CString {
    c_string(path.relative().as_os_str().as_bytes().to_vec())
}

fn c_string(path: Vec<u8>) -> CString {
    CString::new(path).expect("a plain path contains no NUL")
}
