//! A cluster of ice: a scheduler, a submitter that compiles nothing itself, and workers, each on a
//! machine of its own, and builds that run on the submitter.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use tempfile::TempDir;

use crate::joblog::{self, JobLine};
use crate::netns::{Host, Network};
use crate::node::{Node, ROOT, User};
use crate::project::Project;
use crate::tree;
use crate::wait::{BOUND, output_within, wait_until};

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Whose daemons they are.
    pub user: User,
    /// Its workers, with four slots each.
    pub workers: Vec<Worker>,
}

/// How a worker differs from the usual one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Worker {
    /// Options beyond the usual.
    pub options: &'static [&'static str],
    /// A command that runs the daemon, whose own command follows.
    pub wrapper: &'static [&'static str],
}

/// Two usual workers.
pub fn two_workers(user: User) -> Shape {
    Shape {
        user,
        workers: vec![Worker::default(); 2],
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    /// The scheduler.
    pub scheduler: Node,
    /// The daemon on the machine where builds run.
    pub submitter: Node,
    /// The others.
    pub workers: Vec<Node>,
    /// What is below them; gone after them.
    pub ground: Ground,
}

/// What a cluster stands on: a network, a directory and a key.
#[derive(Debug)]
pub struct Ground {
    /// Its machines: `sched`, `sub`, `w1` and so on, and `guest`, which takes no part by itself.
    pub network: Network,
    /// Where everything lies.
    pub directory: PathBuf,
    /// The program.
    pub ice: PathBuf,
    /// Whose daemons they are.
    pub user: User,
    _directory: TempDir,
}

impl Ground {
    fn new(user: User, workers: &[String]) -> Self {
        let mut machines = vec!["sched", "sub", "guest"];
        machines.extend(workers.iter().map(String::as_str));
        let network = Network::new(&machines);
        let temporary = tempfile::Builder::new().prefix("ice-").tempdir().unwrap();
        let directory = temporary.path().to_owned();
        // An ordinary user must get to his files in it, and to the program.
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        let ice = directory.join("ice");
        copy(Path::new(env!("CARGO_BIN_EXE_ice")), &ice);
        let ground = Self {
            network,
            directory,
            ice,
            user,
            _directory: temporary,
        };
        ground.make_key("key");
        ground
    }

    /// Makes a key file of this name, and returns where it is.
    pub fn make_key(&self, name: &str) -> PathBuf {
        let key = self.directory.join(name);
        let mut command = Command::new(&self.ice);
        command.args(["key", "create", "--key-file"]).arg(&key);
        assert!(command.stdout(Stdio::null()).status().unwrap().success());
        key
    }

    /// Starts `ice words` on the machine `name`, with the cluster's key unless the words say
    /// something else.
    pub fn start(&self, name: &str, words: &[&str], wrapper: &[&str]) -> Node {
        let home = self.directory.join(name);
        self.user.make_directory(&home);
        let mut command: Vec<String> = wrapper.iter().map(|word| (*word).to_owned()).collect();
        let mut add = |word: &str| command.push(word.to_owned());
        add(self.ice.to_str().expect("a plain path"));
        words.iter().copied().for_each(&mut add);
        add("-v");
        let mut add_path = |option: &str, file: &str| {
            add(option);
            add(home.join(file).to_str().expect("a plain path"));
        };
        if !words.contains(&"--open") {
            let key = home.join("key");
            if !key.exists() {
                fs::copy(self.directory.join("key"), &key).unwrap();
                self.user.own(&key);
            }
            add_path("--key-file", "key");
        }
        if words[0] == "daemon" {
            add_path("--socket", "sock");
            add_path("--cache-dir", "cache");
            command.extend(["--name".to_owned(), name.to_owned()]);
        }
        Node::start(name, self.network.host(name), &home, command, self.user)
    }
}

impl Cluster {
    /// Starts a cluster and waits until all its nodes are known to its scheduler.
    pub fn start(shape: &Shape) -> Self {
        let count = shape.workers.len();
        let names: Vec<String> = (1..=count).map(|number| format!("w{number}")).collect();
        let ground = Ground::new(shape.user, &names);
        let workers = names.iter().zip(&shape.workers).map(|(name, worker)| {
            let words = [&["daemon", "-m", "4", "--verify-trees"], worker.options].concat();
            ground.start(name, &words, worker.wrapper)
        });
        let cluster = Self {
            workers: workers.collect(),
            scheduler: ground.start("sched", &["scheduler", "--memory", "-"], &[]),
            submitter: ground.start("sub", &["daemon", "-m", "0"], &[]),
            ground,
        };
        cluster.wait_for_nodes(1 + count);
        cluster
    }

    /// Waits until the scheduler knows so many nodes.
    pub fn wait_for_nodes(&self, count: usize) {
        wait_until(&format!("{count} nodes are known"), BOUND, || {
            self.status()["nodes"].as_array().map(Vec::len) == Some(count)
        });
        wait_until("clients are welcome", BOUND, || self.socket().exists());
    }

    /// What `ice status --json` says; null when it fails.
    pub fn status(&self) -> serde_json::Value {
        self.status_of(&self.scheduler)
    }

    /// The same, asked of this scheduler.
    pub fn status_of(&self, scheduler: &Node) -> serde_json::Value {
        let scheduler = format!("{}:8765", scheduler.host.address());
        let mut command = self.command(ROOT, &self.ground.ice);
        command.args(["status", "--json", "--scheduler", &scheduler, "--key-file"]);
        command.arg(self.ground.directory.join("key"));
        let output = self.here(|| command.output()).unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// The machine that takes no part.
    pub fn outsider(&self) -> &Host {
        self.ground.network.host("guest")
    }

    /// Where clients reach the submitter.
    pub fn socket(&self) -> PathBuf {
        self.submitter.directory.join("sock")
    }

    /// The submitter of `user` below the daemon of root.
    pub fn agent_of(&self, user: User) -> i32 {
        let all = tree::descendants(self.submitter.pid());
        let mut of_user = all
            .into_iter()
            .filter(|pid| tree::owner(*pid) == Some(user.0));
        of_user.next().expect("the user has an agent")
    }

    /// Does something on the submitter's machine.
    pub fn here<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        self.submitter.host.enter(action)
    }

    /// A command of `user` for the submitter's machine, whose compiles go to the cluster. To be
    /// started by [`Cluster::here`].
    pub fn command(&self, user: User, program: &Path) -> Command {
        let home = self.home(user);
        // Tests that run in the background inherit that interrupts are ignored, and so would this.
        let mut command = Command::new("/usr/bin/env");
        command
            .args(["--default-signal=INT,QUIT", "--"])
            .arg(program)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C")
            .env("ICE_SOCKET", self.socket())
            .current_dir(&home)
            .stdin(Stdio::null());
        user.become_in(&mut command, &home);
        command
    }

    /// A user's home on the submitter's machine.
    pub fn home(&self, user: User) -> PathBuf {
        let home = self.ground.directory.join(format!("home-{}", user.0));
        if !home.exists() {
            user.make_directory(&home);
        }
        home
    }

    /// `ice arguments` as `user`, on the submitter's machine.
    pub fn ice(&self, user: User, arguments: &[&str]) -> Command {
        let mut command = self.command(user, &self.ground.ice);
        command.args(arguments);
        command
    }

    /// `ice gcc` and the like, in Makefiles.
    pub fn called_by_word(&self, compiler: &str) -> String {
        format!("{} {compiler}", self.ground.ice.display())
    }

    /// A directory of links to be put first in `PATH`, made by `ice symlinks`.
    pub fn masquerade(&self) -> PathBuf {
        let links = self.home(self.ground.user).join("links");
        let mut command = self.ice(self.ground.user, &["symlinks"]);
        let output = command.arg(&links).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        links
    }

    /// Starts a build of `project` in a directory of that name.
    pub fn make(&self, name: &str, project: &'static Project) -> Build {
        self.make_with(name, project, self.ground.user, |command| {
            let compiler = self.called_by_word(project.compiler);
            command.arg(format!("CC={compiler}")).arg("-j8");
        })
    }

    /// The same, as `user`, with what `adapt` says of the command.
    pub fn make_with(
        &self,
        name: &str,
        project: &'static Project,
        user: User,
        adapt: impl FnOnce(&mut Command),
    ) -> Build {
        let directory = self.home(user).join(name);
        project.write(&directory, user);
        let log = self.home(user).join(format!("{name}.jobs"));
        let mut command = self.command(user, Path::new("/usr/bin/make"));
        command
            .arg("-s")
            .env("ICE_JOB_LOG", &log)
            .current_dir(&directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        adapt(&mut command);
        let child = self.here(|| command.spawn()).unwrap();
        Build {
            child,
            project,
            directory,
            log,
        }
    }

    /// Waits until one of the workers runs a compiler, and says which.
    pub fn busy_worker(&self) -> usize {
        let mut busy = None;
        wait_until("a worker compiles", BOUND, || {
            busy = self.workers.iter().position(|worker| worker.runs("cc1"));
            busy.is_some()
        });
        busy.expect("it was waited for")
    }
}

/// A `make` that runs.
#[derive(Debug)]
pub struct Build {
    child: Child,
    project: &'static Project,
    /// Where it builds.
    pub directory: PathBuf,
    log: PathBuf,
}

impl Build {
    /// Waits until `count` calls have ended.
    pub fn wait_for_jobs(&self, count: usize) {
        wait_until(&format!("{count} jobs are done"), 2 * BOUND, || {
            joblog::read(&self.log).len() >= count
        });
    }

    /// Interrupts `make` and everything that it has started, as Ctrl-C does.
    pub fn interrupt(&self) {
        let group = Pid::from_raw(self.child.id() as i32);
        killpg(group, Signal::SIGINT).expect("it runs");
    }

    /// Waits for its end, good or bad.
    pub fn end(self, bound: Duration) -> ExitStatus {
        output_within("an interrupted make", bound, self.child).status
    }

    /// Whether `make` has ended.
    pub fn is_done(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)) | Err(_))
    }

    /// Waits for its end and checks that it went well: the status, all objects as the plain
    /// compiler makes them elsewhere, and a line for each in the job log, which is returned.
    #[track_caller]
    pub fn finish(self, bound: Duration) -> Vec<JobLine> {
        let (project, directory) = (self.project, self.directory.clone());
        let jobs = self.finish_unseen(bound);
        project.assert_built(&directory);
        jobs
    }

    /// The same, but for the objects.
    #[track_caller]
    pub fn finish_unseen(self, bound: Duration) -> Vec<JobLine> {
        let what = format!("make in {}", self.directory.display());
        let output = output_within(&what, bound, self.child);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success(),
            "make ended with {}: {said}",
            output.status
        );
        assert_eq!(said, "", "nothing is said that the compiler does not say");
        let jobs = joblog::read(&self.log);
        let mut files: Vec<_> = jobs.iter().map(|job| job.file.as_deref()).collect();
        files.sort_unstable();
        let units = self.project.units().iter().map(|unit| Some(unit.as_str()));
        // The client knows no file when there is no daemon to tell it.
        if files[0].is_some() {
            assert_eq!(files, units.collect::<Vec<_>>());
        }
        assert_eq!(jobs.len(), self.project.count(), "{jobs:#?}");
        jobs
    }
}

/// Copies a program, in place of what is there. Another process writes it: a descriptor of ours could
/// be inherited by what another test is just starting, and then the program would be busy.
pub fn copy(from: &Path, to: &Path) {
    let mut command = Command::new("cp");
    let status = command
        .arg("--remove-destination")
        .args([from, to])
        .status();
    assert!(status.unwrap().success());
}
