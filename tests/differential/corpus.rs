//! What all trials share: the places, the cluster, the list of known differences.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::cluster::Cluster;
use crate::known::Known;
use crate::run::World;
use crate::user;

/// What all trials share.
#[derive(Debug)]
pub struct Corpus {
    // Dropped, and so stopped, before its files go.
    cluster: OnceLock<Cluster>,
    world: OnceLock<World>,
    /// The list.
    pub known: Known,
    /// Files that cases share.
    pub with: PathBuf,
    root: PathBuf,
    _root: Option<TempDir>,
}

impl Corpus {
    /// Reads what is at `here`. The cluster is not started yet.
    pub fn open(here: &Path) -> Self {
        let text = fs::read_to_string(here.join("known.txt")).expect("read known.txt");
        let known = Known::parse(&text).unwrap_or_else(|why| panic!("known.txt: {why}"));
        let root = tempfile::Builder::new().prefix("ice-diff-").tempdir();
        let root = root.expect("make a directory");
        let path = root.path().to_owned();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("open it");
        let root = match std::env::var_os("ICE_DIFFERENTIAL_KEEP") {
            Some(_) => {
                eprintln!("files are kept in {}", root.keep().display());
                None
            }
            None => Some(root),
        };
        Self {
            cluster: OnceLock::new(),
            world: OnceLock::new(),
            known,
            with: here.join("with"),
            root: path,
            _root: root,
        }
    }

    /// The places outside of cases.
    pub fn world(&self) -> &World {
        self.world.get_or_init(|| {
            let home = self.directory("home");
            let ice = self.root.join("ice");
            // Another process writes it: a descriptor of ours could be inherited by what another
            // thread is just starting, and then the program would be busy.
            let mut copy = Command::new("cp");
            let copy = copy.arg(env!("CARGO_BIN_EXE_ice")).arg(&ice).status();
            assert!(copy.expect("run cp").success());
            let masquerade = home.join("links");
            let mut links = Command::new(&ice);
            links.arg("symlinks").arg(&masquerade).env("HOME", &home);
            user::become_user(&mut links);
            assert!(
                links
                    .stdout(Stdio::null())
                    .status()
                    .expect("run ice")
                    .success()
            );
            std::os::unix::fs::symlink(&ice, masquerade.join("ice")).expect("make a link");
            World {
                ice,
                masquerade,
                home,
            }
        })
    }

    /// Starts the cluster. The calling thread must outlive all trials: the kernel ends a daemon
    /// when the thread that started it ends.
    pub fn begin(&self) {
        self.cluster.get_or_init(|| {
            let directory = self.directory("cluster");
            Cluster::start(&self.world().ice, &directory)
        });
    }

    /// The running cluster.
    pub fn cluster(&self) -> &Cluster {
        self.cluster.get().expect("it was started")
    }

    /// A new directory of the user.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.root.join(name);
        let missing: Vec<_> = path.ancestors().take_while(|path| !path.exists()).collect();
        fs::create_dir_all(&path).expect("make a directory");
        missing.into_iter().for_each(user::give);
        path
    }
}

/// Names, without their suffix, and texts of all cases.
pub fn case_files(directory: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for group in sorted(directory) {
        for file in sorted(&group) {
            let name = file.strip_prefix(directory).expect("it is below");
            let name = name.with_extension("");
            let name = name.to_str().expect("a plain name").to_owned();
            found.push((name, fs::read_to_string(&file).expect("read a case")));
        }
    }
    found
}

/// What is in a directory, in order.
pub fn sorted(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|e| panic!("{directory:?}: {e}"));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("list").path()).collect();
    paths.sort();
    paths
}
