//! What each role is told when it starts: every value resolved, nothing left to look up.
//!
//! Options, environment and defaults meet in `cli::resolve`; here are the results, and the rules
//! for defaults and sizes, from arguments alone.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::id::Bytes;
use crate::scheduler::policy::Algorithm;

/// Why a configuration can't be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A default lies below the home directory, and there is none.
    #[error("no place for the {what}: HOME is not set; name one with {option}")]
    NoHome {
        /// What has no place.
        what: &'static str,
        /// The option that names one.
        option: &'static str,
    },
}

/// What becomes of a compile that can't travel as a source job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Declined {
    /// It travels as preprocessed text where the object is the same, and is local otherwise.
    #[default]
    Local,
    /// It travels as preprocessed text, even where that changes its debug information.
    Preprocessed,
}

impl Declined {
    /// The word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Preprocessed => "preprocessed",
        }
    }
}

/// Reads the value of `--declined`.
pub fn parse_declined(text: &str) -> Result<Declined, String> {
    [Declined::Local, Declined::Preprocessed]
        .into_iter()
        .find(|declined| declined.name() == text)
        .ok_or_else(|| "local or preprocessed is expected".to_owned())
}

/// What the scheduler is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// TCP and UDP port; the text control is on the next one.
    pub port: u16,
    /// How nodes are chosen.
    pub algorithm: Algorithm,
    /// Where what is learned of nodes and jobs is kept; none to forget it.
    pub memory: Option<PathBuf>,
    /// The interface to take connections on; none for all.
    pub interface: Option<String>,
    /// Other schedulers of the cluster, each as `HOST` or `HOST:PORT`.
    pub others: Vec<String>,
    /// Whether it serves whoever connects, even when another scheduler is the master.
    pub persistent: bool,
    /// Where the text control listens.
    pub control: IpAddr,
    /// Where the page for browsers is served, as `HOST:PORT`, `HOST` or `:PORT`; none for nowhere.
    pub http: Option<String>,
    /// Whether icecream's monitors may look on.
    pub icecream_monitors: bool,
    /// Whether there is no other scheduler and nobody looks for this one.
    pub alone: bool,
    /// Which cluster.
    pub cluster: ClusterConfig,
    /// How the process is run.
    pub process: ProcessConfig,
}

/// What a daemon is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonConfig {
    /// Compiles at a time; 0 only submits; none for as many as there are processors.
    pub max_jobs: Option<u32>,
    /// The schedulers, each as `HOST` or `HOST:PORT`; none to look for them in the network.
    pub schedulers: Vec<String>,
    /// The node's name; none for the machine's.
    pub name: Option<String>,
    /// TCP port for jobs.
    pub port: u16,
    /// The interface to take jobs on; none for all.
    pub interface: Option<String>,
    /// Where toolchains and headers are kept.
    pub cache_dir: PathBuf,
    /// How much is kept, in bytes.
    pub cache_limit: u64,
    /// Whether jobs of others are refused.
    pub no_remote: bool,
    /// Whether this machine's own jobs go through its worker and sandbox too: so that the private
    /// cluster of `ice run` is a whole one.
    pub loopback: bool,
    /// Whether each job's tree is compared with what the job declared.
    pub verify_trees: bool,
    /// What becomes of a compile whose headers can't be told.
    pub declined: Declined,
    /// Niceness of the compiles for others, 0 to 19.
    pub nice: u8,
    /// Whom the worker becomes when it is started by root; none for the default.
    pub user: Option<String>,
    /// Where clients connect.
    pub socket: PathBuf,
    /// Which cluster.
    pub cluster: ClusterConfig,
    /// How the process is run.
    pub process: ProcessConfig,
}

/// What `ice status` is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusConfig {
    /// The schedulers, each as `HOST` or `HOST:PORT`; none to look for them in the network.
    pub schedulers: Vec<String>,
    /// Whether to print JSON.
    pub json: bool,
    /// Which cluster.
    pub cluster: ClusterConfig,
}

/// What `ice monitor` is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorConfig {
    /// The schedulers, each as `HOST` or `HOST:PORT`; none to look for them in the network.
    pub schedulers: Vec<String>,
    /// What is watched.
    pub watched: Watched,
    /// Whether to print a picture and end.
    pub is_once: bool,
    /// Whether to print JSON.
    pub is_json: bool,
    /// Whether there are colours.
    pub has_colors: bool,
    /// Whether there are characters beyond ASCII.
    pub has_unicode: bool,
    /// Whether the mouse is listened to.
    pub has_mouse: bool,
}

/// What a monitor shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// This cluster.
    Cluster(ClusterConfig),
    /// One that does not exist, of so many nodes.
    Demo(u32),
}

/// What `ice build-native` is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildNativeConfig {
    /// The compilers, as names or paths; none for gcc with g++.
    pub compilers: Vec<PathBuf>,
    /// Files that go into the archive too.
    pub files: Vec<PathBuf>,
    /// The name of the compression; empty for gzip.
    pub compression: Bytes,
    /// Whether icecream's scripts read what is printed.
    pub as_icecream: bool,
}

/// What `ice key` is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyConfig {
    /// The file that holds the key.
    pub key_file: PathBuf,
    /// What to do with it.
    pub action: KeyAction,
}

/// What `ice key` does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyAction {
    /// Print the key.
    Show,
    /// Make a new key where there is none.
    Create,
    /// Take over the key in this file, or on standard input.
    Import(Option<PathBuf>),
}

/// To which cluster a process belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Its name, where several share a network.
    pub netname: String,
    /// Whether it does without a key.
    pub open: bool,
    /// The file that holds its key.
    pub key_file: PathBuf,
}

/// How a process that stays is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessConfig {
    /// The file to append the log to; none for standard error.
    pub log_file: Option<PathBuf>,
    /// Whether to go into the background.
    pub daemonize: bool,
    /// 0 for warnings, 1 for what happens, 2 and more for everything.
    pub verbosity: u8,
    /// The process to end with. The kernel forgets this wish when a process changes its user, so
    /// a role that does must arm it again.
    pub with_parent: Option<i32>,
}

/// Where a user's, or the system's, files are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Whether the process is root, whose places are the system's.
    pub is_root: bool,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `XDG_CACHE_HOME`.
    pub cache_home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`.
    pub config_home: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
    /// `XDG_STATE_HOME`.
    pub state_home: Option<PathBuf>,
}

impl Places {
    /// The default of `--cache-dir`.
    pub fn cache_dir(&self) -> Result<PathBuf, ConfigError> {
        if self.is_root {
            return Ok("/var/cache/ice".into());
        }
        self.below(&self.cache_home, ".cache")
            .map(|directory| directory.join("ice"))
            .ok_or(ConfigError::NoHome {
                what: "cache",
                option: "--cache-dir",
            })
    }

    /// The default of `--memory`.
    pub fn memory(&self) -> Result<PathBuf, ConfigError> {
        let directory = self.cache_dir()?;
        Ok(directory.join("scheduler-memory"))
    }

    /// The default of `--key-file`.
    pub fn key_file(&self) -> Result<PathBuf, ConfigError> {
        if self.is_root {
            return Ok("/etc/ice/key".into());
        }
        self.below(&self.config_home, ".config")
            .map(|directory| directory.join("ice/key"))
            .ok_or(ConfigError::NoHome {
                what: "cluster key",
                option: "--key-file",
            })
    }

    /// The default of `--socket`.
    pub fn socket(&self) -> Result<PathBuf, ConfigError> {
        if self.is_root {
            return Ok("/run/ice/ice.sock".into());
        }
        match (&self.runtime_dir, &self.home) {
            (Some(directory), _) => Ok(directory.join("ice/ice.sock")),
            (None, Some(home)) => Ok(home.join(".ice/ice.sock")),
            (None, None) => Err(ConfigError::NoHome {
                what: "socket",
                option: "--socket",
            }),
        }
    }

    /// The configuration files: the system's, then the user's. Those that come later count more.
    pub fn config_files(&self) -> Vec<PathBuf> {
        let system = PathBuf::from("/etc/ice/ice.toml");
        let user = (!self.is_root)
            .then(|| self.below(&self.config_home, ".config"))
            .flatten();
        let user = user.map(|directory| directory.join("ice/ice.toml"));
        [Some(system), user].into_iter().flatten().collect()
    }

    /// Where the process that serves this word logs when it is in the background and was told nothing else.
    pub fn log_file(&self, word: &str) -> Result<PathBuf, ConfigError> {
        let file = format!("{word}.log");
        if self.is_root {
            return Ok(Path::new("/var/log/ice").join(file));
        }
        self.below(&self.state_home, ".local/state")
            .map(|directory| directory.join("ice").join(file))
            .ok_or(ConfigError::NoHome {
                what: "log",
                option: "--log-file",
            })
    }

    fn below(&self, named: &Option<PathBuf>, in_home: &str) -> Option<PathBuf> {
        // A relative path in these variables is to be ignored (XDG Base Directory Specification).
        named
            .clone()
            .filter(|path| path.is_absolute())
            .or_else(|| self.home.as_deref().map(|home: &Path| home.join(in_home)))
    }
}

/// Reads a size: a number with K, M, G or T (powers of 1024); without one, MiB, as icecream has it.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.char_indices().last() {
        Some((at, unit)) if !unit.is_ascii_digit() => (&text[..at], Some(unit)),
        _ => (text, None),
    };
    let shift = match unit.map(|unit| unit.to_ascii_uppercase()) {
        Some('K') => 10,
        None | Some('M') => 20,
        Some('G') => 30,
        Some('T') => 40,
        Some(_) => return Err("the unit must be K, M, G or T".to_owned()),
    };
    number
        .parse::<u64>()
        .ok()
        .filter(|_| number.bytes().all(|digit| digit.is_ascii_digit()))
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "a number is expected, such as 512M or 4G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_and_mib_without_one() {
        for (text, expect) in [
            ("512M", Some(512 << 20)),
            ("4G", Some(4 << 30)),
            ("4g", Some(4 << 30)),
            ("256", Some(256 << 20)),
            ("1T", Some(1 << 40)),
            ("8K", Some(8 << 10)),
            ("0", Some(0)),
            ("", None),
            ("G", None),
            ("-1", None),
            ("+1", None),
            ("4GB", None),
            ("4 G", None),
            ("1.5G", None),
            ("4µ", None),
            ("99999999999T", None),
        ] {
            assert_eq!(parse_size(text).ok(), expect, "{text:?}");
        }
    }

    #[test]
    fn a_user_has_places_of_his_own_and_root_those_of_the_system() {
        let user = |home: Option<&str>, named: Option<&str>| Places {
            is_root: false,
            home: home.map(PathBuf::from),
            cache_home: named.map(PathBuf::from),
            config_home: named.map(PathBuf::from),
            runtime_dir: named.map(PathBuf::from),
            state_home: named.map(PathBuf::from),
        };
        let root = Places {
            is_root: true,
            ..user(Some("/root"), Some("/x"))
        };
        let rows = [
            (
                root,
                ["/var/cache/ice", "/etc/ice/key", "/run/ice/ice.sock"],
            ),
            (
                user(Some("/h"), Some("/x")),
                ["/x/ice", "/x/ice/key", "/x/ice/ice.sock"],
            ),
            (
                user(Some("/h"), None),
                ["/h/.cache/ice", "/h/.config/ice/key", "/h/.ice/ice.sock"],
            ),
            (user(None, None), ["", "", ""]),
        ];
        for (places, expect) in rows {
            let found = [places.cache_dir(), places.key_file(), places.socket()];
            let found = found.map(|place| place.unwrap_or_default());
            assert_eq!(found, expect.map(PathBuf::from), "{places:?}");
        }
    }
}
