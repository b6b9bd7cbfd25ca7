//! The directory of one trial: made once, and copied for every run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::case::{Case, Content, Family};
use crate::corpus::{Corpus, sorted};
use crate::run::{self, Outcome, Way, World};
use crate::user;

/// The directory of one trial.
pub struct Ground<'a> {
    case: &'a Case,
    family: Family,
    /// What is outside of it.
    pub world: World,
    directory: PathBuf,
    template: PathBuf,
    scratch: PathBuf,
}

impl<'a> Ground<'a> {
    /// Makes it, with the files of the case.
    pub fn prepare(
        corpus: &Corpus,
        name: &str,
        case: &'a Case,
        family: Family,
    ) -> Result<Self, String> {
        let directory = corpus.directory(&format!("{name}/{}/d", family.name()));
        let scratch = corpus.directory(&format!("{name}/{}/s", family.name()));
        for with in &case.with {
            copy(&corpus.with.join(with), &directory);
        }
        for (path, content) in &case.files {
            write(&directory, path, content);
        }
        give_all(&directory);
        let world = corpus.world().clone();
        if !case.prepare.is_empty() {
            let script = format!("set -e\n{}", case.prepare.join("\n"));
            let script = run::spelled(&script, family, &Way::Plain);
            let output = run::shell(&script, &directory, &world)
                .output()
                .expect("run sh");
            if !output.status.success() || !output.stderr.is_empty() {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                return Err(format!("it can't be prepared: {said}"));
            }
        }
        let template = directory.with_file_name("t");
        fs::rename(&directory, &template).expect("move a directory");
        Ok(Self {
            case,
            family,
            world,
            directory,
            template,
            scratch,
        })
    }

    /// Runs the case in a fresh copy of its directory.
    pub fn run(&self, way: &Way) -> Outcome {
        copy(&self.template, &self.directory);
        for (name, size) in &self.case.tmpfs {
            let path = self.directory.join(name);
            let options = format!("size={size},mode=777");
            let tmpfs = Some("tmpfs");
            mount(
                tmpfs,
                &path,
                tmpfs,
                MsFlags::empty(),
                Some(options.as_str()),
            )
            .unwrap_or_else(|errno| panic!("mount {name}: {errno}"));
        }
        let (case, family, world) = (self.case, self.family, &self.world);
        let outcome = run::run(case, family, way, world, &self.directory, &self.scratch);
        for (name, _) in &self.case.tmpfs {
            umount2(&self.directory.join(name), MntFlags::MNT_DETACH)
                .unwrap_or_else(|errno| panic!("unmount {name}: {errno}"));
        }
        wipe(&self.directory);
        outcome
    }
}

impl Drop for Ground<'_> {
    fn drop(&mut self) {
        if std::env::var_os("ICE_DIFFERENTIAL_KEEP").is_none() {
            let whole = self.directory.parent().expect("it is below the root");
            wipe(whole);
        }
    }
}

/// Copies what is in a directory, with times, modes, owners, links and all.
fn copy(from: &Path, to: &Path) {
    let mut command = Command::new("cp");
    command.arg("-a").arg("-T").args([from, to]);
    assert!(command.status().expect("run cp").success(), "copy {from:?}");
}

fn wipe(directory: &Path) {
    if fs::remove_dir_all(directory).is_err() {
        // A directory that may not be read or written.
        let mut open = Command::new("chmod");
        let _ = open.args(["-R", "u+rwx"]).arg(directory).status();
        fs::remove_dir_all(directory).expect("remove a directory");
    }
}

fn write(directory: &Path, path: &Path, content: &Content) {
    let path = directory.join(path);
    let parent = path.parent().expect("it is below");
    fs::create_dir_all(parent).expect("make a directory");
    let set_mode = |mode: u32| {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set a mode");
    };
    match content {
        Content::Text(text, mode) => {
            fs::write(&path, text).expect("write a file");
            set_mode(*mode);
        }
        Content::Directory(mode) => {
            fs::create_dir_all(&path).expect("make a directory");
            set_mode(*mode);
        }
        Content::Link(target) => {
            std::os::unix::fs::symlink(target, &path).expect("make a link");
        }
        Content::Twin(other) => {
            fs::hard_link(directory.join(other), &path).expect("make a hard link");
        }
        Content::Fifo => {
            let mode = nix::sys::stat::Mode::from_bits_truncate(0o644);
            nix::unistd::mkfifo(&path, mode).expect("make a FIFO");
        }
    }
}

fn give_all(path: &Path) {
    user::give(path);
    if path
        .symlink_metadata()
        .is_ok_and(|metadata| metadata.is_dir())
    {
        for path in sorted(path) {
            give_all(&path);
        }
    }
}
