//! Options (with the defaults from [`super::settings`]) + environment + defaults = one configuration
//! per role.
//!
//! The environment is read in [`world_of_this_process`] and nowhere else, so that the rest is a
//! function of its arguments.

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::options::{
    ClusterOptions, DaemonOptions, KeyOptions, KeyWord, MonitorOptions, ProcessOptions,
    SchedulerOptions, StatusOptions,
};
use super::settings;
use crate::config::{
    ClusterConfig, ConfigError, DaemonConfig, KeyAction, KeyConfig, MonitorConfig, Places,
    ProcessConfig, SchedulerConfig, StatusConfig, Watched,
};
use crate::daemon::broker;
use crate::names;

/// What a command line is resolved against.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    /// The environment.
    pub(super) variables: BTreeMap<OsString, OsString>,
    /// Where files are by default.
    pub(super) places: Places,
    /// The working directory: paths must hold when a daemon has left it.
    pub(super) cwd: PathBuf,
}

/// The environment, the user and the directory of this process.
pub(super) fn world_of_this_process() -> Result<World, Box<dyn Error + Send + Sync>> {
    let variables = std::env::vars_os().collect::<BTreeMap<_, _>>();
    let path = |name: &str| {
        let value = variables.get(Path::new(name).as_os_str());
        value.filter(|value| !value.is_empty()).map(PathBuf::from)
    };
    let places = Places {
        // A node below root's broker is another user, and has root's configuration all the same.
        is_root: names::is_root() || broker::is_child(),
        home: path("HOME"),
        cache_home: path("XDG_CACHE_HOME"),
        config_home: path("XDG_CONFIG_HOME"),
        runtime_dir: path("XDG_RUNTIME_DIR"),
        state_home: path("XDG_STATE_HOME"),
    };
    let cwd = std::env::current_dir()
        .map_err(|error| format!("can't tell the working directory: {error}"))?;
    Ok(World {
        places,
        cwd,
        variables,
    })
}

impl World {
    /// The configuration of `ice scheduler`.
    pub(super) fn scheduler(
        &self,
        options: SchedulerOptions,
    ) -> Result<SchedulerConfig, ConfigError> {
        Ok(SchedulerConfig {
            port: options.port,
            algorithm: options.algorithm,
            memory: match options.memory {
                Some(file) if file.as_os_str() == "-" => None,
                Some(file) => Some(self.absolute(file)),
                // Without a home it does without.
                None => self.places.memory().ok(),
            },
            interface: options.interface,
            others: self.schedulers(options.scheduler),
            persistent: options.persistent_client_connection,
            control: options.control_address,
            http: options.http,
            icecream_monitors: options.icecream_monitors,
            alone: options.alone,
            cluster: self.cluster(options.cluster)?,
            process: self.process(options.process, "scheduler")?,
        })
    }

    /// The configuration of `ice daemon`.
    pub(super) fn daemon(&self, options: DaemonOptions) -> Result<DaemonConfig, ConfigError> {
        let socket = options.socket.or_else(|| self.path("socket"));
        Ok(DaemonConfig {
            max_jobs: options.max_jobs,
            schedulers: self.schedulers(options.scheduler),
            name: options.name,
            port: options.port,
            interface: options.interface,
            cache_dir: match options.cache_dir {
                Some(directory) => self.absolute(directory),
                None => self.places.cache_dir()?,
            },
            cache_limit: options.cache_limit,
            no_remote: options.no_remote,
            loopback: options.loopback,
            verify_trees: options.verify_trees,
            declined: options.declined,
            nice: options.nice,
            user: options.user,
            socket: match socket {
                Some(socket) => self.absolute(socket),
                None => self.places.socket()?,
            },
            cluster: self.cluster(options.cluster)?,
            process: self.process(options.process, "daemon")?,
        })
    }

    /// The configuration of `ice status`.
    pub(super) fn status(&self, options: StatusOptions) -> Result<StatusConfig, ConfigError> {
        Ok(StatusConfig {
            schedulers: self.schedulers(options.scheduler),
            json: options.json,
            cluster: self.cluster(options.cluster)?,
        })
    }

    /// The configuration of `ice monitor`.
    pub(super) fn monitor(&self, options: MonitorOptions) -> Result<MonitorConfig, ConfigError> {
        let variable = |name: &str| {
            let value = self.variables.get(Path::new(name).as_os_str());
            value.and_then(|value| value.to_str()).unwrap_or_default()
        };
        // As setlocale(3) does: the first that is set counts.
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].map(variable);
        let locale = locale.into_iter().find(|value| !value.is_empty());
        let locale = locale.unwrap_or_default().to_ascii_lowercase();
        let is_utf8 = locale.ends_with("utf-8") || locale.ends_with("utf8");
        Ok(MonitorConfig {
            schedulers: self.schedulers(options.scheduler),
            watched: match options.demo {
                Some(nodes) => Watched::Demo(nodes),
                None => Watched::Cluster(self.cluster(options.cluster)?),
            },
            is_once: options.once,
            is_json: options.json,
            has_colors: variable("NO_COLOR").is_empty() && variable("TERM") != "dumb",
            has_unicode: is_utf8 && !options.ascii,
            has_mouse: !options.no_mouse,
        })
    }

    /// The configuration of `ice key`.
    pub(super) fn key(&self, options: KeyOptions) -> Result<KeyConfig, ConfigError> {
        Ok(KeyConfig {
            key_file: self.key_file(options.key_file)?,
            action: match options.action {
                None | Some(KeyWord::Show) => KeyAction::Show,
                Some(KeyWord::Create) => KeyAction::Create,
                Some(KeyWord::Import { from }) => KeyAction::Import(from),
            },
        })
    }

    fn cluster(&self, options: ClusterOptions) -> Result<ClusterConfig, ConfigError> {
        Ok(ClusterConfig {
            netname: options.netname,
            open: options.open,
            // Who needs no key needs no place for one.
            key_file: match self.key_file(options.key_file) {
                Err(_) if options.open => PathBuf::new(),
                key_file => key_file?,
            },
        })
    }

    fn process(&self, options: ProcessOptions, word: &str) -> Result<ProcessConfig, ConfigError> {
        let log_file = match options.log_file {
            Some(file) => Some(self.absolute(file)),
            // It has no terminal to complain to.
            None if options.daemonize => Some(self.places.log_file(word)?),
            None => None,
        };
        Ok(ProcessConfig {
            log_file,
            daemonize: options.daemonize,
            verbosity: options.verbose,
            with_parent: options.with_parent,
        })
    }

    fn key_file(&self, option: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
        match option.or_else(|| self.path("key-file")) {
            Some(file) => Ok(self.absolute(file)),
            None => self.places.key_file(),
        }
    }

    /// The configuration files of this user, or the one that `ICE_CONFIG` names.
    pub(super) fn config_files(&self) -> Vec<PathBuf> {
        let named = self.variables.get(OsStr::new("ICE_CONFIG"));
        match named.filter(|file| !file.is_empty()) {
            Some(file) => vec![self.absolute(file.into())],
            None => self.places.config_files(),
        }
    }

    /// The schedulers by option, or by the variables of icecream.
    fn schedulers(&self, option: Vec<String>) -> Vec<String> {
        let variable = self
            .variable("scheduler")
            .and_then(|v| v.into_string().ok());
        let listed = match (option.is_empty(), &variable) {
            (true, Some(listed)) => listed.split(',').collect(),
            _ => option.iter().map(|name| &name[..]).collect::<Vec<_>>(),
        };
        let names = listed.into_iter().map(str::trim);
        names
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// What the environment says in place of an option.
    fn variable(&self, option: &str) -> Option<OsString> {
        settings::variable(&self.variables, option).map(|(_, value)| value)
    }

    fn path(&self, option: &str) -> Option<PathBuf> {
        self.variable(option).map(PathBuf::from)
    }

    fn absolute(&self, path: PathBuf) -> PathBuf {
        self.cwd.join(path)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::options::{Ice, Word};

    fn world(variables: &[(&str, &str)]) -> World {
        World {
            variables: variables
                .iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            places: Places {
                home: Some("/home/u".into()),
                ..Places::default()
            },
            cwd: "/work".into(),
        }
    }

    fn daemon(line: &str, world: &World) -> DaemonConfig {
        match Ice::try_parse_from(line.split_whitespace()).unwrap().word {
            Word::Daemon(options) => world.daemon(options).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_daemon_without_options_has_defaults() {
        assert_eq!(
            daemon("ice daemon", &world(&[])),
            DaemonConfig {
                max_jobs: None,
                schedulers: vec![],
                name: None,
                port: 10245,
                interface: None,
                cache_dir: "/home/u/.cache/ice".into(),
                cache_limit: 4 << 30,
                no_remote: false,
                loopback: false,
                verify_trees: false,
                declined: crate::config::Declined::Local,
                nice: 5,
                user: None,
                socket: "/home/u/.ice/ice.sock".into(),
                cluster: ClusterConfig {
                    netname: "ICECREAM".to_owned(),
                    open: false,
                    key_file: "/home/u/.config/ice/key".into(),
                },
                process: ProcessConfig::default(),
            }
        );
    }

    #[test]
    fn an_option_beats_a_variable_and_a_variable_beats_the_default() {
        let world = world(&[
            ("ICE_SOCKET", "sock"),
            ("ICE_KEY_FILE", "/k"),
            ("ICECC_SCHEDULER", "a, a2:7"),
            ("USE_SCHEDULER", "b"),
        ]);
        let by_variable = daemon("ice daemon", &world);
        assert_eq!(by_variable.socket, Path::new("/work/sock"));
        assert_eq!(by_variable.cluster.key_file, Path::new("/k"));
        assert_eq!(by_variable.schedulers, ["a", "a2:7"]);
        let by_option = daemon(
            "ice daemon --socket /s --key-file k -s c:1,c2 -s c3 -b d -l e",
            &world,
        );
        assert_eq!(by_option.socket, Path::new("/s"));
        assert_eq!(by_option.cluster.key_file, Path::new("/work/k"));
        assert_eq!(by_option.schedulers, ["c:1", "c2", "c3"]);
        assert_eq!(by_option.cache_dir, Path::new("/work/d"));
        assert_eq!(
            by_option.process.log_file.as_deref(),
            Some(Path::new("/work/e"))
        );
    }

    #[test]
    fn who_goes_into_the_background_logs_to_a_file() {
        for (line, expect) in [
            ("ice daemon", None),
            ("ice daemon -d", Some("/home/u/.local/state/ice/daemon.log")),
            ("ice daemon -d -l x", Some("/work/x")),
        ] {
            let process = daemon(line, &world(&[])).process;
            assert_eq!(process.log_file.as_deref(), expect.map(Path::new), "{line}");
        }
        let mut root = world(&[]);
        root.places.is_root = true;
        let log = daemon("ice daemon -d", &root).process.log_file;
        assert_eq!(log.as_deref(), Some(Path::new("/var/log/ice/daemon.log")));
    }

    #[test]
    fn an_open_scheduler_needs_no_home() {
        for (line, works) in [("ice scheduler --open", true), ("ice scheduler", false)] {
            let Word::Scheduler(options) =
                Ice::try_parse_from(line.split_whitespace()).unwrap().word
            else {
                panic!("{line}");
            };
            assert_eq!(World::default().scheduler(options).is_ok(), works, "{line}");
        }
    }
}
