//! The grammar of the command line. Short options are icecream's; its long ones are understood.
//!
//! Nothing is decided here: [`super::resolve`] adds the environment and the defaults.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::scheduler::Algorithm;

/// Compile C and C++ on all machines of a network.
#[derive(Debug, Parser)]
#[command(
    name = "ice",
    version,
    arg_required_else_help = true,
    override_usage = "ice COMPILER [ARGUMENT]...\n       ice <WORD> [OPTION]...",
    after_help = "Any other first word is a command: a compiler compiles on the cluster, \
                  anything else runs here under a local slot."
)]
pub(super) struct Ice {
    #[command(subcommand)]
    pub(super) word: Word,
}

#[derive(Debug, Subcommand)]
pub(super) enum Word {
    /// Place the jobs of a cluster.
    Scheduler(SchedulerOptions),
    /// Compile for others, and send this machine's compiles to them.
    Daemon(DaemonOptions),
    /// Show the nodes of the cluster.
    Status(StatusOptions),
    /// Find out what is wrong with this machine's part in the cluster, and say what mends it.
    Doctor(DoctorOptions),
    /// Watch the cluster.
    Monitor(MonitorOptions),
    /// Write the archive of a compiler with all that it needs, and print its name.
    BuildNative(BuildNativeOptions),
    /// Show, make or import the cluster key.
    Key(KeyOptions),
    /// Run a command whose compiles go to the cluster, or to one of its own.
    Run(RunOptions),
    /// Run a command as `run` does, and write a trace of its compiles for Perfetto or Chrome.
    Trace(TraceOptions),
    /// Run a command here, under a local slot.
    Local(LocalOptions),
    /// Say where a compile would run and why, what would travel for it, and compile nothing.
    Explain(ExplainOptions),
    /// Make links to ice under the names of all compilers.
    Symlinks(SymlinksOptions),
    /// Print the settings in force, and where each comes from.
    Config(ConfigOptions),
    /// Print the completions of a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// The submitter of one user beside a system daemon.
    #[command(hide = true)]
    Agent {
        /// Log more.
        #[arg(short, long, action = ArgAction::Count)]
        verbose: u8,
        /// As for the daemon.
        #[arg(long, default_value = "local", value_parser = crate::config::parse_declined)]
        declined: crate::config::Declined,
    },
    /// The process that starts compilers in their sandboxes.
    #[command(hide = true)]
    SandboxZygote {
        /// What it may be asked for.
        words: Vec<OsString>,
    },
    /// The job that tries out a sandbox.
    #[command(hide = true)]
    SandboxProbe {
        /// What the sandbox gives its job as arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
}

#[derive(Debug, Args)]
pub(super) struct SchedulerOptions {
    /// TCP and UDP port; the text control is on the next one.
    #[arg(short, long, value_name = "PORT", default_value_t = 8765)]
    pub(super) port: u16,
    /// How nodes are chosen: finish, by the expected end of a job; or, as icecream does, fastest,
    /// round_robin, least_busy or random.
    #[arg(short, long, value_name = "NAME", default_value = "finish", value_parser = Algorithm::parse)]
    pub(super) algorithm: Algorithm,
    /// Where what is learned of nodes and jobs is kept, otherwise in the cache directory; - to forget it.
    #[arg(long, value_name = "FILE")]
    pub(super) memory: Option<PathBuf>,
    /// Take connections on this interface only.
    #[arg(short, long, value_name = "INTERFACE")]
    pub(super) interface: Option<String>,
    /// Other schedulers that broadcasts don't reach; this one may be among them.
    #[arg(
        short,
        long,
        value_name = "HOST[:PORT],...",
        alias = "scheduler-host",
        value_delimiter = ','
    )]
    pub(super) scheduler: Vec<String>,
    /// Serve whoever connects, even when another scheduler is the master.
    #[arg(short = 'r', long)]
    pub(super) persistent_client_connection: bool,
    /// Where the text control listens; 0.0.0.0 or :: for everybody.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(super) control_address: IpAddr,
    /// Serve a page for browsers, /metrics and /healthz; 127.0.0.1:8767 unless another address is given.
    #[arg(
        long,
        value_name = "[HOST][:PORT]",
        num_args = 0..=1,
        default_missing_value = "127.0.0.1:8767"
    )]
    pub(super) http: Option<String>,
    /// Let icecream's monitors (icemon, icecream-sundae) look on, at the TCP port.
    #[arg(long)]
    pub(super) icecream_monitors: bool,
    /// There is no other scheduler and nobody looks for this one.
    #[arg(long, hide = true)]
    pub(super) alone: bool,
    #[command(flatten)]
    pub(super) cluster: ClusterOptions,
    #[command(flatten)]
    pub(super) process: ProcessOptions,
}

#[derive(Debug, Args)]
pub(super) struct DaemonOptions {
    /// Compiles at a time; 0 only submits. Otherwise as many as there are processors.
    #[arg(short, long, value_name = "N", alias = "max-processes")]
    pub(super) max_jobs: Option<u32>,
    /// The schedulers; otherwise they are looked for in the network.
    #[arg(
        short,
        long,
        value_name = "HOST[:PORT],...",
        alias = "scheduler-host",
        value_delimiter = ','
    )]
    pub(super) scheduler: Vec<String>,
    /// The node's name; otherwise the machine's.
    #[arg(short = 'N', long, value_name = "NAME")]
    pub(super) name: Option<String>,
    /// TCP port for jobs.
    #[arg(short, long, value_name = "PORT", default_value_t = 10245)]
    pub(super) port: u16,
    /// Take jobs on this interface only.
    #[arg(short, long, value_name = "INTERFACE")]
    pub(super) interface: Option<String>,
    /// Where toolchains and headers are kept.
    #[arg(short = 'b', long, value_name = "DIRECTORY", alias = "env-basedir")]
    pub(super) cache_dir: Option<PathBuf>,
    /// How much is kept: a number with K, M, G or T; without one, MiB.
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = crate::config::parse_size)]
    pub(super) cache_limit: u64,
    /// Take no jobs of others.
    #[arg(long)]
    pub(super) no_remote: bool,
    /// What becomes of compiles whose headers can't be told: `local`, unless their objects are the
    /// same from preprocessed text, or `preprocessed`, though debug information loses its columns.
    #[arg(long, value_name = "HOW", default_value = "local", value_parser = crate::config::parse_declined)]
    pub(super) declined: crate::config::Declined,
    /// Niceness of the compiles for others.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=19))]
    pub(super) nice: u8,
    /// Whom the worker becomes when it is started by root.
    #[arg(short, long, value_name = "USER", alias = "user-uid")]
    pub(super) user: Option<String>,
    /// Compile own jobs in the sandbox too, like those of others.
    #[arg(long, hide = true)]
    pub(super) loopback: bool,
    /// Compare each job's tree with what the job declared: for tests.
    #[arg(long, hide = true)]
    pub(super) verify_trees: bool,
    /// Where clients connect.
    #[arg(long, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
    #[command(flatten)]
    pub(super) cluster: ClusterOptions,
    #[command(flatten)]
    pub(super) process: ProcessOptions,
}

#[derive(Debug, Args)]
pub(super) struct StatusOptions {
    /// The schedulers; otherwise they are looked for in the network.
    #[arg(short, long, value_name = "HOST[:PORT],...", value_delimiter = ',')]
    pub(super) scheduler: Vec<String>,
    /// Print one JSON object.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) cluster: ClusterOptions,
}

#[derive(Debug, Args)]
pub(super) struct DoctorOptions {
    /// The schedulers; otherwise those of the daemon's settings.
    #[arg(short, long, value_name = "HOST[:PORT],...", value_delimiter = ',')]
    pub(super) scheduler: Vec<String>,
    /// The daemon's name for this node.
    #[arg(short = 'N', long, value_name = "NAME")]
    pub(super) name: Option<String>,
    /// The daemon's cache.
    #[arg(short = 'b', long, value_name = "DIRECTORY")]
    pub(super) cache_dir: Option<PathBuf>,
    /// Compile nothing on the nodes.
    #[arg(long)]
    pub(super) no_trial: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub(super) json: bool,
    /// The cluster's name; otherwise that of the daemon's settings.
    #[arg(short, long, value_name = "NAME")]
    pub(super) netname: Option<String>,
    /// Use no key.
    #[arg(long)]
    pub(super) open: bool,
    /// The file that holds the cluster key.
    #[arg(long, value_name = "FILE")]
    pub(super) key_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct MonitorOptions {
    /// The schedulers; otherwise they are looked for in the network.
    #[arg(short, long, value_name = "HOST[:PORT],...", value_delimiter = ',')]
    pub(super) scheduler: Vec<String>,
    /// Print the list of nodes and end.
    #[arg(long)]
    pub(super) once: bool,
    /// Print what happens as JSON, an object a line; with --once only the present state.
    #[arg(long)]
    pub(super) json: bool,
    /// Show a cluster that does not exist.
    #[arg(
        long,
        value_name = "NODES",
        num_args = 0..=1,
        default_missing_value = "12",
        value_parser = clap::value_parser!(u32).range(2..=4096)
    )]
    pub(super) demo: Option<u32>,
    /// Use no characters beyond ASCII.
    #[arg(long)]
    pub(super) ascii: bool,
    /// Leave the mouse to the terminal.
    #[arg(long)]
    pub(super) no_mouse: bool,
    #[command(flatten)]
    pub(super) cluster: ClusterOptions,
}

#[derive(Debug, Args)]
pub(super) struct BuildNativeOptions {
    /// The compilers, as names or paths; otherwise gcc with g++.
    #[arg(value_name = "COMPILER")]
    pub(super) compilers: Vec<PathBuf>,
    /// A file that goes into the archive too; a program takes its libraries along.
    #[arg(long, value_name = "FILE")]
    pub(super) addfile: Vec<PathBuf>,
    /// none, gzip, bzip2, xz or zstd; otherwise what ICECC_ENV_COMPRESSION says, or gzip.
    #[arg(long, value_name = "NAME")]
    pub(super) compression: Option<OsString>,
    /// Print what icecream's scripts expect.
    #[arg(long, hide = true)]
    pub(super) as_icecream: bool,
}

#[derive(Debug, Args)]
pub(super) struct KeyOptions {
    /// The file that holds the key.
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) key_file: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) action: Option<KeyWord>,
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyWord {
    /// Print the key, to be imported on another machine.
    Show,
    /// Make a new key where there is none.
    Create,
    /// Take over a key that was shown on another machine.
    Import {
        /// The file to read it from; otherwise standard input.
        #[arg(value_name = "FILE")]
        from: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(super) struct RunOptions {
    /// The command.
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    pub(super) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(super) struct TraceOptions {
    /// The file that the trace is written to.
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// The command.
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    pub(super) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(super) struct LocalOptions {
    /// The command.
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    pub(super) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(super) struct ExplainOptions {
    /// List the files that would travel, with their sizes.
    #[arg(long)]
    pub(super) files: bool,
    /// What becomes of compiles that the scanner declines, as told to the daemon.
    #[arg(long, value_name = "HOW", default_value = "local", value_parser = crate::config::parse_declined)]
    pub(super) declined: crate::config::Declined,
    /// The compiler's call.
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    pub(super) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(super) struct SymlinksOptions {
    /// Where; it is made when it is not there.
    #[arg(value_name = "DIRECTORY")]
    pub(super) directory: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct ConfigOptions {
    /// Only those of `ice WORD`.
    #[arg(value_name = "WORD")]
    pub(super) word: Option<String>,
}

/// What says to which cluster a process belongs.
#[derive(Debug, Args)]
pub(super) struct ClusterOptions {
    /// The cluster's name, where several share a network.
    #[arg(short, long, value_name = "NAME", default_value = "ICECREAM")]
    pub(super) netname: String,
    /// Use no key: anybody who reaches the port can take part.
    #[arg(long)]
    pub(super) open: bool,
    /// The file that holds the cluster key.
    #[arg(long, value_name = "FILE")]
    pub(super) key_file: Option<PathBuf>,
}

/// How a process that stays is run.
#[derive(Debug, Args)]
pub(super) struct ProcessOptions {
    /// Append the log to a file.
    #[arg(short, long, value_name = "FILE")]
    pub(super) log_file: Option<PathBuf>,
    /// Go into the background.
    #[arg(short, long)]
    pub(super) daemonize: bool,
    /// Log more; twice for all.
    #[arg(short, long, action = ArgAction::Count)]
    pub(super) verbose: u8,
    /// End with the process of this number, which started us.
    #[arg(long, value_name = "PID", hide = true)]
    pub(super) with_parent: Option<i32>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::*;
    use crate::cli::entry::WORDS;

    #[test]
    fn the_grammar_is_consistent() {
        Ice::command().debug_assert();
    }

    #[test]
    fn the_words_of_the_entry_are_the_words_of_the_grammar() {
        let mut words = Ice::command()
            .get_subcommands()
            .map(|word| word.get_name().to_owned())
            .collect::<BTreeSet<_>>();
        words.insert("help".to_owned());
        assert_eq!(words, WORDS.iter().map(|&w| w.to_owned()).collect());
    }

    #[test]
    fn icecreams_options_are_understood() {
        for line in [
            "ice daemon -m 4 -s host:1 -N me -p 2 -i eth0 -n net -b /x --cache-limit 256 \
             --no-remote --nice 7 -u me -l f -d -vvv",
            "ice daemon --max-processes 4 --scheduler-host h --env-basedir /x --user-uid me",
            "ice daemon -s a,b:2 -s c",
            "ice scheduler -p 8765 -n net -l f -d -vv -i eth0 -r",
            "ice scheduler --persistent-client-connection -s a,b --control-address ::1",
            "ice run -- make -j4",
            "ice run make -j4",
        ] {
            Ice::try_parse_from(line.split_whitespace()).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }

    /// The options of a page: its lines that begin with `.It Fl`.
    fn options_in_page(page: &str) -> BTreeSet<String> {
        let path = format!("{}/man/{page}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let lines = text.lines().filter_map(|line| line.strip_prefix(".It Fl "));
        lines
            .flat_map(|line| {
                let line = line.replace(" , Fl ", "\n");
                line.lines()
                    .map(|option| {
                        let option = option.split(' ').next().unwrap_or_default();
                        format!("-{}", option.replace("\\-", "-"))
                    })
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    fn options_in_grammar(command: &clap::Command) -> BTreeSet<String> {
        let visible = command.get_arguments().filter(|arg| !arg.is_hide_set());
        visible
            .filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version"))
            .flat_map(|arg| {
                let short = arg.get_short().map(|short| format!("-{short}"));
                let long = arg.get_long().map(|long| format!("--{long}"));
                [short, long].into_iter().flatten().collect::<Vec<_>>()
            })
            .collect()
    }

    #[test]
    fn the_manual_has_exactly_the_options_of_the_grammar() {
        for (page, words) in [
            ("ice-scheduler.8", &["scheduler"][..]),
            ("ice-daemon.8", &["daemon"]),
            ("ice-build-native.1", &["build-native"]),
            ("ice-doctor.1", &["doctor"]),
            ("ice-run.1", &["run", "trace"]),
            (
                "ice.1",
                &["status", "key", "local", "explain", "symlinks", "config"],
            ),
        ] {
            let grammar = Ice::command();
            let expect = words
                .iter()
                .map(|word| grammar.find_subcommand(word).expect(word))
                .flat_map(options_in_grammar)
                .collect::<BTreeSet<_>>();
            assert_eq!(options_in_page(page), expect, "{page}");
        }
    }
}
