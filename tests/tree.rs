//! A job's tree, on a real file system: exact whatever jobs came before and whatever they did.
//!
//! The test plays the job: between `take` and `give_back` it does to the writable directories what
//! a compiler, or an attacker, could do. Seeds are fixed; `ICE_SEED=n` adds one.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ice::id::{AbsPath, Digest};
use ice::message::{Entry, EntryKind, Mtime, Standing};
use ice::worker::tree::{
    Inexact, Tree, TreeError, TreeLimits, Trees, Written, WrittenKind, verify,
};

const LIMITS: TreeLimits = TreeLimits {
    trees: 3,
    bytes: 64 << 20,
    inodes: 100_000,
};

/// A pool in a directory of its own.
struct Space {
    directory: tempfile::TempDir,
    trees: Trees,
}

impl Space {
    fn new(toolchain: &[Entry], limits: TreeLimits) -> Self {
        let tmpfs = Path::new("/dev/shm");
        let directory = if tmpfs.is_dir() {
            tempfile::tempdir_in(tmpfs)
        } else {
            tempfile::tempdir()
        };
        let directory = directory.unwrap();
        let root: OwnedFd = fs::File::open(directory.path()).unwrap().into();
        let trees = Trees::new(root, toolchain, limits).unwrap();
        Self { directory, trees }
    }

    fn take(&mut self, job: &Job) -> Tree {
        self.try_take(job).unwrap()
    }

    /// Adds what is missing and takes a tree.
    fn try_take(&mut self, job: &Job) -> Result<Tree, TreeError> {
        let entries = job.entries();
        for entry in self
            .trees
            .missing(&entries)
            .into_iter()
            .cloned()
            .collect::<Vec<_>>()
        {
            let content = &job.contents[&entry.path];
            self.trees.add(&entry, &mut &content[..])?;
        }
        self.trees.take(&entries, &job.writable, &job.cwd)
    }

    /// The real path of a job's path.
    fn at(&self, tree: &Tree, path: &str) -> PathBuf {
        self.directory.path().join(tree.name()).join(&path[1..])
    }

    /// How many names the store or the trash has.
    fn count(&self, name: &str) -> usize {
        fs::read_dir(self.directory.path().join(name))
            .unwrap()
            .count()
    }

    /// Panics unless the tree holds exactly what the job declared.
    fn check(&self, tree: &Tree, job: &Job, toolchain: &[Entry]) {
        let mut found = BTreeMap::new();
        let real = self.directory.path().join(tree.name());
        walk(&real, Path::new("/"), &mut found);
        assert_eq!(found, job.expected(toolchain));
        self.verify(tree, job, toolchain).unwrap();
    }
}

impl Space {
    /// What the worker's own comparison says of it.
    fn verify(&self, tree: &Tree, job: &Job, toolchain: &[Entry]) -> Result<(), Inexact> {
        let (entries, directory) = (job.entries(), tree.as_fd());
        verify(directory, toolchain, &entries, &job.writable, &job.cwd)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // A failed test may leave directories that can't be entered.
        let _ = std::process::Command::new("chmod")
            .args(["-R", "u+rwx"])
            .arg(self.directory.path())
            .stderr(std::process::Stdio::null())
            .status();
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Node {
    File {
        content: Vec<u8>,
        mode: u32,
        mtime: (i64, i64),
    },
    Symlink(PathBuf),
    Directory(u32),
}

fn walk(real: &Path, path: &Path, found: &mut BTreeMap<PathBuf, Node>) {
    for entry in fs::read_dir(real).unwrap() {
        let entry = entry.unwrap();
        let (real, path) = (entry.path(), path.join(entry.file_name()));
        let data = real.symlink_metadata().unwrap();
        let mode = data.mode() & 0o7777;
        let node = if data.is_dir() {
            walk(&real, &path, found);
            Node::Directory(mode)
        } else if data.is_symlink() {
            Node::Symlink(fs::read_link(&real).unwrap())
        } else {
            assert!(data.is_file(), "{path:?}");
            Node::File {
                content: fs::read(&real).unwrap(),
                mode,
                mtime: (data.mtime(), data.mtime_nsec()),
            }
        };
        found.insert(path, node);
    }
}

/// A declaration, and the contents of its files.
#[derive(Clone, Debug)]
struct Job {
    kinds: BTreeMap<AbsPath, EntryKind>,
    contents: BTreeMap<AbsPath, Vec<u8>>,
    writable: Vec<AbsPath>,
    cwd: AbsPath,
}

impl Job {
    fn new(writable: &[&str]) -> Self {
        Self {
            kinds: BTreeMap::new(),
            contents: BTreeMap::new(),
            writable: writable.iter().map(|w| path(w)).collect(),
            cwd: path("/cwd"),
        }
    }

    fn file(mut self, at: &str, content: &[u8], seconds: i64) -> Self {
        self.add(path(at), content.to_vec(), seconds, false);
        self
    }

    fn symlink(mut self, at: &str, target: &str) -> Self {
        let kind = EntryKind::Symlink(target.into());
        self.kinds.insert(path(at), kind);
        self
    }

    fn directory(mut self, at: &str) -> Self {
        self.kinds.insert(path(at), EntryKind::Directory);
        self
    }

    fn add(&mut self, at: AbsPath, content: Vec<u8>, seconds: i64, executable: bool) {
        let kind = EntryKind::File {
            digest: Digest(*blake3::hash(&content).as_bytes()),
            size: content.len() as u64,
            executable,
            mtime: Mtime {
                seconds,
                nanoseconds: 123_456_789,
            },
        };
        self.kinds.insert(at.clone(), kind);
        self.contents.insert(at, content);
    }

    fn entries(&self) -> Vec<Entry> {
        let entry = |(path, kind): (&AbsPath, &EntryKind)| Entry {
            path: path.clone(),
            kind: kind.clone(),
        };
        self.kinds.iter().map(entry).collect()
    }

    fn expected(&self, toolchain: &[Entry]) -> BTreeMap<PathBuf, Node> {
        let mut expected = BTreeMap::new();
        let mut put = |path: &AbsPath, node: Node| {
            for parent in path.as_path().ancestors().skip(1) {
                if parent != Path::new("/") {
                    expected.insert(parent.to_owned(), Node::Directory(0o755));
                }
            }
            if path.as_bytes() != b"/" {
                expected.insert(path.as_path().to_owned(), node);
            }
        };
        for path in self.writable.iter().chain([&self.cwd]) {
            put(path, Node::Directory(0o755));
        }
        let theirs = toolchain
            .iter()
            .map(|entry| (&entry.path, &entry.kind, true));
        let ours = self.kinds.iter().map(|(path, kind)| (path, kind, false));
        for (path, kind, is_toolchain) in ours.chain(theirs) {
            let node = match kind {
                EntryKind::Directory => Node::Directory(0o755),
                EntryKind::Symlink(target) => Node::Symlink(target.as_path().to_owned()),
                EntryKind::File { .. } if is_toolchain => Node::File {
                    content: Vec::new(),
                    mode: 0o444,
                    mtime: (0, 0),
                },
                EntryKind::File {
                    executable, mtime, ..
                } => Node::File {
                    content: self.contents[path].clone(),
                    mode: if *executable { 0o555 } else { 0o444 },
                    mtime: (mtime.seconds, mtime.nanoseconds.into()),
                },
            };
            put(path, node);
        }
        expected
    }
}

fn path(text: &str) -> AbsPath {
    AbsPath::parse(text).unwrap()
}

fn toolchain() -> Vec<Entry> {
    let job = Job::new(&[])
        .file("/usr/bin/cc", b"compiler", 0)
        .file("/usr/lib/libc.so", b"library", 0)
        .symlink("/lib", "usr/lib")
        .directory("/tmp");
    job.entries()
}

/// splitmix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn path(&mut self) -> AbsPath {
        let mut names = String::new();
        for _ in 0..1 + self.below(4) {
            names.push('/');
            names.push_str(["a", "b", "c d", "e\n", "\u{e9}"][self.below(5) as usize]);
        }
        path(&names)
    }

    /// Few paths with few contents, so that jobs resemble each other and kinds change places.
    fn job(&mut self) -> Job {
        let mut job = Job::new(&[]);
        for _ in 0..self.below(30) {
            let path = self.path();
            let is_free = job.kinds.iter().all(|(other, kind)| {
                *other != path
                    && !other.is_within(&path)
                    && (!path.is_within(other) || *kind == EntryKind::Directory)
            });
            match self.below(6) {
                _ if !is_free => {}
                0 => drop(job.kinds.insert(path, EntryKind::Directory)),
                1 => {
                    let target = ["b", "../a", "/nowhere"][self.below(3) as usize];
                    let kind = EntryKind::Symlink(target.into());
                    job.kinds.insert(path, kind);
                }
                kind => {
                    let content = vec![b'x'; self.below(3) as usize * 5000];
                    let seconds = 1_000_000 + self.below(2) as i64;
                    job.add(path, content, seconds, kind == 2);
                }
            }
        }
        for _ in 0..self.below(3) {
            let path = self.path();
            let mut kinds = job.kinds.iter();
            if kinds.all(|(other, kind)| !path.is_within(other) || *kind == EntryKind::Directory) {
                job.writable.push(path);
            }
        }
        job
    }

    /// Does something bad to a directory that the job may write.
    fn misbehave(&mut self, writable: &Path) {
        let mut inside = Vec::new();
        let mut pending = vec![writable.to_owned()];
        while let Some(directory) = pending.pop() {
            let Ok(entries) = fs::read_dir(&directory) else {
                continue;
            };
            for entry in entries.flatten() {
                if entry.file_type().unwrap().is_dir() {
                    pending.push(entry.path());
                }
                inside.push(entry.path());
            }
        }
        inside.sort();
        let new = writable.join(format!("new{}", self.below(4)));
        let victim = match inside.len() as u64 {
            0 => new.clone(),
            count => inside[self.below(count) as usize].clone(),
        };
        let is =
            |kind: fn(&fs::Metadata) -> bool| victim.symlink_metadata().is_ok_and(|m| kind(&m));
        let set_mode = |mode| {
            drop(fs::set_permissions(
                &victim,
                fs::Permissions::from_mode(mode),
            ))
        };
        // Much of it fails, as it would for a job.
        match self.below(9) {
            0 => drop(fs::remove_file(&victim)),
            1 => drop(fs::remove_dir_all(&victim)),
            2 => drop(fs::rename(&victim, &new)),
            3 => drop(fs::hard_link(&victim, &new)),
            4 => drop(symlink("/", &new)),
            5 => drop(fs::create_dir_all(new.join("deep/er"))),
            6 if is(fs::Metadata::is_file) => {
                set_mode(0o644);
                drop(fs::write(&victim, b"changed"));
            }
            7 if !new.is_symlink() => drop(fs::write(&new, b"new")),
            8 if !is(fs::Metadata::is_symlink) => set_mode(0),
            _ => {}
        }
    }
}

#[test]
fn a_tree_is_exact_after_any_jobs() {
    let extra = std::env::var("ICE_SEED").ok();
    let extra = extra.map(|seed| seed.parse().expect("ICE_SEED is a number"));
    for seed in (1..=6).chain(extra) {
        eprintln!("ICE_SEED={seed}");
        let mut rng = Rng(seed);
        let toolchain = toolchain();
        let mut space = Space::new(&toolchain, LIMITS);
        let mut running: Vec<(Tree, Job)> = Vec::new();
        for _ in 0..150 {
            if running.len() == LIMITS.trees || rng.below(3) == 0 && !running.is_empty() {
                let at = rng.below(running.len() as u64) as usize;
                let (tree, job) = running.swap_remove(at);
                for _ in 0..rng.below(4) {
                    for writable in &job.writable {
                        rng.misbehave(&space.at(&tree, &writable.to_string()));
                    }
                }
                if rng.below(2) == 0 {
                    space.trees.collect(&tree).unwrap();
                }
                space.trees.give_back(tree);
            } else {
                let job = rng.job();
                let tree = space.take(&job);
                space.check(&tree, &job, &toolchain);
                running.push((tree, job));
            }
        }
        // What happened to one tree's files happened to no other's.
        for (tree, job) in running {
            space.check(&tree, &job, &toolchain);
            space.trees.give_back(tree);
        }
        assert_eq!(space.count("trash"), 0);
        for entry in fs::read_dir(space.directory.path().join("store")).unwrap() {
            let mode = entry.unwrap().metadata().unwrap().mode() & 0o7777;
            assert!(matches!(mode, 0o444 | 0o555), "{mode:o}");
        }
    }
}

#[test]
fn an_inode_is_one_path_with_one_content_at_one_time() {
    let mut space = Space::new(&[], LIMITS);
    let job = Job::new(&["/out"])
        .file("/a.h", b"same", 7)
        .file("/b.h", b"same", 7)
        .file("/out/a.h", b"same", 7);
    let newer = job.clone().file("/a.h", b"same", 8);
    let first = space.take(&job);
    let second = space.take(&job);
    let third = space.take(&newer);
    let inode = |tree: &Tree, at: &str| space.at(tree, at).metadata().unwrap().ino();
    let distinct: BTreeSet<u64> = [
        inode(&first, "/a.h"),
        inode(&first, "/b.h"),
        inode(&first, "/out/a.h"),
        inode(&second, "/out/a.h"),
        inode(&third, "/a.h"),
    ]
    .into();
    assert_eq!(distinct.len(), 5);
    assert_eq!(inode(&first, "/a.h"), inode(&second, "/a.h"));
    assert_eq!(inode(&first, "/b.h"), inode(&third, "/b.h"));
    for tree in [first, second, third] {
        space.trees.give_back(tree);
    }
}

#[test]
fn all_that_a_job_wrote_is_collected_and_nothing_else() {
    let toolchain = toolchain();
    let mut space = Space::new(&toolchain, LIMITS);
    let job = Job::new(&["/out", "/out/sub", "/other"])
        .file("/out/old.d", b"old", 1)
        .file("/out/kept.h", b"kept", 1)
        .file("/out/touched.h", b"touched", 1)
        .file("/out/gone.h", b"gone", 1)
        .file("/src/a.c", b"int a;", 1)
        .symlink("/out/link", "kept.h")
        .symlink("/out/relinked", "kept.h")
        .directory("/out/empty");
    for round in 0..3 {
        let tree = space.take(&job);
        space.check(&tree, &job, &toolchain);
        assert_eq!(space.trees.collect(&tree).unwrap(), [], "round {round}");
        space.trees.give_back(tree);

        let tree = space.take(&job);
        let at = |path: &str| space.at(&tree, path);
        write(&at("/out/a.o"), b"object", 0o640);
        write(&at("/out/secret"), b"secret", 0);
        // As compilers replace a file: another one is renamed over it.
        write(&at("/out/tmp"), b"new", 0o600);
        fs::rename(at("/out/tmp"), at("/out/old.d")).unwrap();
        set_mode(&at("/out/touched.h"), 0o644);
        write(&at("/out/touched.h"), b"TOUCHED", 0o644);
        fs::remove_file(at("/out/gone.h")).unwrap();
        fs::remove_file(at("/out/relinked")).unwrap();
        symlink("/etc/passwd", at("/out/relinked")).unwrap();
        fs::create_dir_all(at("/out/sub/x/y")).unwrap();
        write(&at("/out/sub/x/y/z.gcno"), b"", 0o644);
        set_mode(&at("/out/sub/x"), 0);
        symlink("nowhere", at("/other/dangling")).unwrap();
        nix::unistd::mkfifo(&at("/other/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        drop(std::os::unix::net::UnixListener::bind(at("/other/socket")).unwrap());

        let written = |at, kind| Written {
            path: path(at),
            kind,
        };
        let file = |at, mode, size| written(at, WrittenKind::File { mode, size });
        let link = |at, target: &str| written(at, WrittenKind::Symlink(target.into()));
        assert_eq!(
            space.trees.collect(&tree).unwrap(),
            [
                link("/other/dangling", "nowhere"),
                file("/out/a.o", 0o640, 6),
                file("/out/old.d", 0o600, 3),
                link("/out/relinked", "/etc/passwd"),
                file("/out/secret", 0, 6),
                written("/out/sub/x", WrittenKind::Directory),
                written("/out/sub/x/y", WrittenKind::Directory),
                file("/out/sub/x/y/z.gcno", 0o644, 0),
                file("/out/touched.h", 0o644, 7),
            ]
        );
        for (at, expect) in [("/out/secret", "secret"), ("/out/touched.h", "TOUCHED")] {
            let mut content = String::new();
            let mut file = tree.open(&path(at)).unwrap();
            file.read_to_string(&mut content).unwrap();
            assert_eq!(content, expect);
        }
        assert!(tree.open(&path("/other/dangling")).is_err());
        assert!(tree.open(&path("/out/relinked")).is_err());
        space.trees.give_back(tree);
    }
}

/// What a job does to `/w`, where `/w/a.h`, `/w/d/b.h` and `/w/s -> a.h` are declared. The second
/// path lies outside of all trees and must stay as it is.
type Misdeed = fn(&Path, &Path);

const MISDEEDS: &[(&str, Misdeed)] = &[
    ("nothing", |_, _| {}),
    ("locked directories", |w, _| {
        fs::create_dir_all(w.join("new/deep")).unwrap();
        write(&w.join("new/deep/file"), b"x", 0);
        for at in ["new/deep", "new", "d", ""] {
            set_mode(&w.join(at), 0);
        }
    }),
    ("a directory becomes a symlink out", |w, outside| {
        fs::remove_dir_all(w.join("d")).unwrap();
        symlink(outside, w.join("d")).unwrap();
        symlink(outside, w.join("e")).unwrap();
    }),
    ("a file becomes a directory", |w, _| {
        fs::remove_file(w.join("a.h")).unwrap();
        fs::create_dir_all(w.join("a.h/x")).unwrap();
    }),
    ("a directory moves", |w, _| {
        fs::rename(w.join("d"), w.join("e")).unwrap();
        fs::create_dir(w.join("d")).unwrap();
    }),
    ("two files change places", |w, _| {
        fs::rename(w.join("a.h"), w.join("tmp")).unwrap();
        fs::rename(w.join("d/b.h"), w.join("a.h")).unwrap();
        fs::rename(w.join("tmp"), w.join("d/b.h")).unwrap();
    }),
    ("a hard link between declared files", |w, _| {
        fs::remove_file(w.join("d/b.h")).unwrap();
        fs::hard_link(w.join("a.h"), w.join("d/b.h")).unwrap();
    }),
    ("another link that stays", |w, _| {
        fs::hard_link(w.join("a.h"), w.join("d/c.h")).unwrap();
    }),
    ("a write that hides behind the old time", |w, _| {
        let at = w.join("a.h");
        let time = at.metadata().unwrap().modified().unwrap();
        set_mode(&at, 0o644);
        fs::write(&at, b"B").unwrap();
        set_time(&at, time);
        set_mode(&at, 0o444);
    }),
    ("another time", |w, _| {
        let at = w.join("a.h");
        set_mode(&at, 0o644);
        set_time(&at, SystemTime::UNIX_EPOCH + Duration::from_secs(5));
        set_mode(&at, 0o444);
    }),
    ("another mode", |w, _| set_mode(&w.join("a.h"), 0o4755)),
    ("another symlink", |w, _| {
        fs::remove_file(w.join("s")).unwrap();
        symlink("d/b.h", w.join("s")).unwrap();
    }),
    ("everything removed", |w, _| {
        for entry in fs::read_dir(w).unwrap() {
            let at = entry.unwrap().path();
            let _ = fs::remove_file(&at);
            let _ = fs::remove_dir_all(&at);
        }
    }),
    ("strange names", |w, _| {
        for name in [&b"\xff\n"[..], b"...", b"-rf", &[b'n'; 255]] {
            fs::write(w.join(OsStr::from_bytes(name)), b"").unwrap();
        }
    }),
    ("thousands of files", |w, _| {
        for n in 0..5000 {
            fs::write(w.join(n.to_string()), b"").unwrap();
        }
    }),
    ("thousands of directories", |w, _| {
        for n in 0..5000 {
            fs::create_dir_all(w.join(format!("new/{n}"))).unwrap();
        }
    }),
    ("a thousand levels, deeper than any path", |w, _| {
        let mut at: OwnedFd = fs::File::open(w).unwrap().into();
        for _ in 0..1000 {
            let mode = nix::sys::stat::Mode::S_IRWXU;
            nix::sys::stat::mkdirat(at.as_fd(), "level-of-many", mode).unwrap();
            let flags = nix::fcntl::OFlag::O_DIRECTORY;
            at = nix::fcntl::openat(at.as_fd(), "level-of-many", flags, mode).unwrap();
        }
    }),
];

#[test]
fn each_difference_between_a_tree_and_its_declaration_is_found() {
    let toolchain = toolchain();
    let job = Job::new(&["/w"])
        .file("/src/a.h", b"first", 7)
        .symlink("/src/l", "a.h")
        .directory("/src/d");
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 13] = [
        ("/src/b.h is there", |tree| {
            fs::write(tree.join("src/b.h"), b"").unwrap()
        }),
        ("/w/x is there", |tree| {
            fs::create_dir(tree.join("w/x")).unwrap()
        }),
        ("/src/a.h was declared", |tree| {
            fs::remove_file(tree.join("src/a.h")).unwrap()
        }),
        ("/src/d was declared", |tree| {
            fs::remove_dir(tree.join("src/d")).unwrap()
        }),
        ("/usr/bin/cc was declared", |tree| {
            fs::remove_file(tree.join("usr/bin/cc")).unwrap()
        }),
        ("/src/l: its target", |tree| {
            fs::remove_file(tree.join("src/l")).unwrap();
            symlink("b.h", tree.join("src/l")).unwrap();
        }),
        ("/src/l: its kind", |tree| {
            fs::remove_file(tree.join("src/l")).unwrap();
            fs::copy(tree.join("src/a.h"), tree.join("src/l")).unwrap();
        }),
        ("/src/d: its kind", |tree| {
            fs::remove_dir(tree.join("src/d")).unwrap();
            fs::write(tree.join("src/d"), b"").unwrap();
        }),
        ("/src/d: its mode", |tree| {
            set_mode(&tree.join("src/d"), 0o775)
        }),
        ("/src/a.h: its mode", |tree| {
            anew(&tree.join("src/a.h"), b"first", 0o644, 7)
        }),
        ("/src/a.h: its time", |tree| {
            anew(&tree.join("src/a.h"), b"first", 0o444, 8)
        }),
        ("/src/a.h: its size", |tree| {
            anew(&tree.join("src/a.h"), b"firs", 0o444, 7)
        }),
        ("/src/a.h: its content", |tree| {
            anew(&tree.join("src/a.h"), b"other", 0o444, 7)
        }),
    ];
    fn anew(at: &Path, content: &[u8], mode: u32, seconds: u64) {
        fs::remove_file(at).unwrap();
        write(at, content, mode);
        let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, 123_456_789);
        set_time(at, time);
    }
    for (expect, harm) in harms {
        let mut space = Space::new(&toolchain, LIMITS);
        let tree = space.take(&job);
        space.check(&tree, &job, &toolchain);
        harm(&space.at(&tree, "/"));
        let told = space.verify(&tree, &job, &toolchain).unwrap_err();
        assert!(told.to_string().starts_with(expect), "{expect}: {told}");
        space.trees.give_back(tree);
    }
}

#[test]
fn of_what_stood_there_only_a_change_is_told() {
    let mut space = Space::new(&[], LIMITS);
    let job = Job::new(&["/w"]).file("/w/a.h", b"declared", 7);
    let standing = |name: &str, mode, is_empty| Standing {
        path: path(&format!("/w/{name}")),
        mode,
        is_empty,
    };
    let names = ["kept", "gone", "cut", "empty", "over", "anew", "a.h"];
    let all = names.map(|name| standing(name, 0o640, name == "empty"));
    let tree = space.take(&job);
    space.trees.stand(&tree, &all).unwrap();
    let at = |name: &str| space.at(&tree, &format!("/w/{name}"));
    assert_eq!(fs::read(at("empty")).unwrap(), b"");
    assert_ne!(fs::read(at("kept")).unwrap(), b"");
    assert_eq!(fs::read(at("a.h")).unwrap(), b"declared");
    fs::remove_file(at("gone")).unwrap();
    fs::write(at("cut"), b"").unwrap();
    // Nothing is written, but the file is opened to be overwritten.
    fs::write(at("empty"), b"").unwrap();
    fs::write(at("over"), b"written over").unwrap();
    fs::remove_file(at("anew")).unwrap();
    write(&at("anew"), b"anew", 0o644);
    let told = space.trees.collect(&tree).unwrap();
    let told = told
        .into_iter()
        .map(|written| (written.path.to_string(), written.kind));
    let file = |mode, size| WrittenKind::File { mode, size };
    let expect = [
        ("/w/anew", file(0o644, 4)),
        ("/w/cut", file(0o640, 0)),
        ("/w/empty", file(0o640, 0)),
        ("/w/gone", WrittenKind::Removed),
        ("/w/over", file(0o640, 12)),
    ];
    let expect = expect.map(|(path, kind)| (path.to_owned(), kind));
    assert_eq!(told.collect::<Vec<_>>(), expect);
    space.trees.give_back(tree);

    // The content that the job has kept is elsewhere: there is no result.
    for keep in [
        |at: &Path| set_mode(at, 0o600),
        |at: &Path| {
            let mut file = fs::File::options().append(true).open(at).unwrap();
            file.write_all(b"more").unwrap();
        },
    ] {
        let tree = space.take(&job);
        space.trees.stand(&tree, &all).unwrap();
        keep(&space.at(&tree, "/w/kept"));
        let told = space.trees.collect(&tree);
        assert!(matches!(told, Err(TreeError::Invalid { .. })), "{told:?}");
        space.trees.give_back(tree);
    }

    let tree = space.take(&job);
    space.check(&tree, &job, &[]);
    for elsewhere in ["/x", "/w", "/cwd/a.o"] {
        let elsewhere = Standing {
            path: path(elsewhere),
            mode: 0o644,
            is_empty: false,
        };
        let refused = space.trees.stand(&tree, &[elsewhere]);
        assert!(matches!(refused, Err(TreeError::Invalid { .. })));
    }
    space.trees.give_back(tree);
}

#[test]
fn no_misdeed_reaches_another_job() {
    let toolchain = toolchain();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("b.h"), b"outside").unwrap();
    let mut space = Space::new(&toolchain, LIMITS);
    let job = Job::new(&["/w"])
        .file("/w/a.h", b"A", 10)
        .file("/w/d/b.h", b"A", 10)
        .file("/src/a.c", b"int a;", 10)
        .symlink("/w/s", "a.h");
    let mut elsewhere = job.clone();
    elsewhere.writable = vec![path("/elsewhere")];
    let witness = space.take(&job);
    for collects in [false, true] {
        for (name, misdeed) in MISDEEDS {
            eprintln!("{name}, collects: {collects}");
            let tree = space.take(&job);
            space.check(&tree, &job, &toolchain);
            misdeed(&space.at(&tree, "/w"), outside.path());
            if collects {
                let collected = space.trees.collect(&tree);
                let is_too_much = matches!(collected, Err(TreeError::TooMuch));
                assert_eq!(is_too_much, name.contains("thousand"), "{collected:?}");
                assert_eq!(collected.is_err(), is_too_much, "{collected:?}");
            }
            space.trees.give_back(tree);
            space.check(&witness, &job, &toolchain);
            assert_eq!(fs::read(outside.path().join("b.h")).unwrap(), b"outside");
            assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
            assert_eq!(space.count("trash"), 0);
            // The same files where none is writable: what the job left must not serve as a link.
            let tree = space.take(&elsewhere);
            space.check(&tree, &elsewhere, &toolchain);
            space.trees.give_back(tree);
        }
    }
    space.trees.give_back(witness);
}

fn write(at: &Path, content: &[u8], mode: u32) {
    fs::write(at, content).unwrap();
    set_mode(at, mode);
}

fn set_mode(at: &Path, mode: u32) {
    fs::set_permissions(at, fs::Permissions::from_mode(mode)).unwrap();
}

fn set_time(at: &Path, time: SystemTime) {
    let file = fs::File::options().append(true).open(at).unwrap();
    file.set_modified(time).unwrap();
}

#[test]
fn a_copy_that_no_job_touches_is_kept() {
    let mut space = Space::new(&[], LIMITS);
    let job = Job::new(&["/w"]).file("/w/a.h", b"A", 10);
    let mut inodes = BTreeSet::new();
    for _ in 0..5 {
        let tree = space.take(&job);
        let at = space.at(&tree, "/w/a.h");
        inodes.insert(at.metadata().unwrap().ino());
        fs::write(space.at(&tree, "/w/a.o"), b"object").unwrap();
        space.trees.give_back(tree);
    }
    assert_eq!(inodes.len(), 1);
}

#[test]
fn what_a_killed_job_leaves_in_tmp_is_no_result_and_gone() {
    let mut space = Space::new(&toolchain(), LIMITS);
    let job = Job::new(&["/tmp/project"]).file("/tmp/project/a.c", b"int a;", 10);
    let tree = space.take(&job);
    let tmp = space.at(&tree, "/tmp");
    fs::write(tmp.join("ccXXXX.s"), b"half").unwrap();
    fs::create_dir_all(tmp.join("left/behind")).unwrap();
    assert_eq!(space.trees.collect(&tree).unwrap(), []);
    space.trees.give_back(tree);
    // The same tree, for a job of the same files: no reason to build it anew.
    let tree = space.take(&job);
    space.check(&tree, &job, &toolchain());
    space.trees.give_back(tree);
    assert_eq!(space.count("trash"), 0);
}

#[test]
fn a_tree_that_is_not_what_it_should_be_is_built_anew() {
    let mut space = Space::new(&toolchain(), LIMITS);
    let job = Job::new(&["/w"])
        .file("/src/a.h", b"A", 10)
        .file("/src/b.h", b"B", 10);
    let tree = space.take(&job);
    let real = space.at(&tree, "/src");
    space.trees.give_back(tree);
    fs::remove_file(real.join("a.h")).unwrap();
    fs::write(real.join("other"), b"").unwrap();
    let other = Job::new(&["/w"]).file("/b.h", b"B", 10);
    let tree = space.take(&other);
    space.check(&tree, &other, &toolchain());
    space.trees.give_back(tree);
    assert_eq!(space.count("trash"), 0);
}

#[test]
fn the_store_stays_within_its_limits() {
    let limits = TreeLimits {
        trees: 2,
        bytes: 40 << 12,
        inodes: 120,
    };
    let mut space = Space::new(&toolchain(), limits);
    let mut rng = Rng(4);
    let mut missing = 0;
    for round in 0..200 {
        let mut job = Job::new(&["/w"]);
        for _ in 0..8 {
            let n = rng.below(60);
            let directory = if n.is_multiple_of(4) { "w" } else { "src" };
            let at = path(&format!("/{directory}/{n}.h"));
            job.add(at, vec![b'x'; 4096], 1, false);
        }
        missing += space.trees.missing(&job.entries()).len();
        let tree = space.take(&job);
        space.check(&tree, &job, &toolchain());
        let used = space.trees.used();
        let is_within = used.bytes <= limits.bytes && used.inodes <= limits.inodes;
        assert!(is_within, "{used:?}");
        if round % 20 == 0 {
            let (bytes, names) = measure(space.directory.path());
            // Besides the names: the root, and trees that are yet to come.
            let yet_to_come = (0..limits.trees)
                .filter(|n| !space.directory.path().join(format!("tree{n}")).exists())
                .count() as u64;
            assert_eq!((bytes, names + 1 + yet_to_come), (used.bytes, used.inodes));
        }
        space.trees.give_back(tree);
    }
    assert!(missing > 60, "nothing was evicted");
    assert!(missing < 8 * 200, "nothing was kept");

    let mut large = Job::new(&["/w"]).file("/small.h", b"", 1);
    large.add(path("/large.h"), vec![b'x'; 41 << 12], 1, false);
    assert!(matches!(space.try_take(&large), Err(TreeError::Full)));
    let mut many = Job::new(&["/w"]);
    for n in 0..150 {
        many = many.directory(&format!("/d{n}"));
    }
    assert!(matches!(space.try_take(&many), Err(TreeError::Full)));
    let small = Job::new(&["/w"]).file("/small.h", b"", 1);
    let tree = space.take(&small);
    space.check(&tree, &small, &toolchain());
    space.trees.give_back(tree);
}

/// Bytes of content, an inode once, and names below a directory.
fn measure(directory: &Path) -> (u64, u64) {
    let mut inodes = BTreeSet::new();
    let (mut bytes, mut names) = (0, 0);
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let at = entry.unwrap().path();
            let data = at.symlink_metadata().unwrap();
            names += 1;
            if data.is_dir() {
                pending.push(at);
            } else if data.is_file() && inodes.insert(data.ino()) {
                bytes += data.len();
            }
        }
    }
    (bytes, names)
}

#[test]
fn what_a_running_job_has_is_not_evicted() {
    let limits = TreeLimits {
        trees: 2,
        bytes: 4 << 12,
        inodes: 1000,
    };
    let mut space = Space::new(&[], limits);
    let job = |name: &str| {
        let mut job = Job::new(&["/w"]);
        for n in 0..3 {
            job.add(path(&format!("/{name}{n}.h")), vec![b'x'; 4096], 1, false);
        }
        job
    };
    let (first, second) = (job("first"), job("second"));
    let tree = space.take(&first);
    assert!(matches!(space.try_take(&second), Err(TreeError::Full)));
    space.check(&tree, &first, &[]);
    space.trees.give_back(tree);
    let tree = space.take(&second);
    space.check(&tree, &second, &[]);
    assert!(!space.trees.missing(&first.entries()).is_empty());
    let refused = space
        .trees
        .take(&first.entries(), &first.writable, &first.cwd);
    assert!(matches!(refused, Err(TreeError::Missing(_))));
    space.trees.give_back(tree);
}

#[test]
fn senseless_jobs_are_refused_and_harm_nothing() {
    let toolchain = toolchain();
    let mut space = Space::new(&toolchain, LIMITS);
    let job = Job::new(&["/w"]).file("/src/a.h", b"A", 10);
    for (bad, expect) in [
        (
            job.clone().file("/usr/bin/cc", b"another", 0),
            "/usr/bin/cc belongs to the toolchain",
        ),
        (
            job.clone().file("/lib/x.h", b"x", 0),
            "/lib/x.h lies below a file or symlink",
        ),
        (
            job.clone().symlink("/src/a.h/x", "y"),
            "/src/a.h/x lies below a file or symlink",
        ),
        (job.clone().file("/", b"", 0), "/ can only be a directory"),
        (Job::new(&["/usr"]), "/usr belongs to the toolchain"),
        (Job::new(&["/"]), "/ can't be writable"),
    ] {
        assert_eq!(space.try_take(&bad).unwrap_err().to_string(), expect);
    }
    // The toolchain's own file, with a time of its own, is no conflict and needs no content.
    let mut same = job.clone().file("/usr/bin/cc", b"compiler", 99);
    same.contents.remove(&path("/usr/bin/cc"));
    let tree = space.take(&same);
    space.check(&tree, &job, &toolchain);

    let entry = Job::new(&[]).file("/new.h", b"new", 1).entries().remove(0);
    for content in [&b"ne"[..], b"newer"] {
        let refused = space.trees.add(&entry, &mut &content[..]);
        assert!(matches!(refused, Err(TreeError::Length(_))), "{refused:?}");
        let missing = space.trees.missing(std::slice::from_ref(&entry));
        assert_eq!(missing, [&entry]);
    }
    space.trees.add(&entry, &mut &b"new"[..]).unwrap();
    assert_eq!(space.trees.missing(std::slice::from_ref(&entry)).len(), 0);
    let mut timeless = entry.clone();
    if let EntryKind::File { mtime, .. } = &mut timeless.kind {
        mtime.nanoseconds = 0x3fff_ffff;
    }
    let refused = space.trees.add(&timeless, &mut &b"new"[..]);
    assert!(matches!(refused, Err(TreeError::Invalid { .. })));

    let others = [space.take(&job), space.take(&job)];
    assert!(matches!(space.try_take(&job), Err(TreeError::Busy)));
    for tree in others.into_iter().chain([tree]) {
        space.check(&tree, &job, &toolchain);
        space.trees.give_back(tree);
    }
}

#[test]
fn a_daemon_that_is_root_gives_writable_directories_to_the_jobs_user() {
    const USER: u32 = 12_345;
    if !nix::unistd::geteuid().is_root() {
        support::skipped("it needs root");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(directory.path(), Some(USER), Some(USER)).unwrap();
    let root: OwnedFd = fs::File::open(directory.path()).unwrap().into();
    let mut space = Space {
        trees: Trees::new(root, &toolchain(), LIMITS).unwrap(),
        directory,
    };
    let job = Job::new(&["/w/out"])
        .file("/w/a.h", b"A", 10)
        .file("/w/out/b.h", b"B", 10)
        .directory("/w/out/sub");
    for _ in 0..2 {
        let tree = space.take(&job);
        for (at, expect) in [
            ("/w", 0),
            ("/w/a.h", 0),
            ("/w/out", USER),
            ("/w/out/b.h", 0),
            ("/w/out/sub", USER),
            ("/cwd", 0),
        ] {
            let owner = space.at(&tree, at).metadata().unwrap().uid();
            assert_eq!(owner, expect, "{at}");
        }
        space.trees.give_back(tree);
    }
}
