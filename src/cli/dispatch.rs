//! From a word to its role.

use std::error::Error;
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::net::Ipv6Addr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::CommandFactory;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

use super::options::{Ice, Word};
use super::resolve::World;
use super::settings::Settings;
use super::{doctor, entry, explain, in_force, log_output, run, symlinks};
use crate::client::{self, Invocation, Variables};
use crate::config::{
    BuildNativeConfig, KeyAction, KeyConfig, MonitorConfig, ProcessConfig, SchedulerConfig,
    StatusConfig, Watched,
};
use crate::daemon::process::Reload;
use crate::id::Bytes;
use crate::key::{ClusterKey, Credentials, KeyError};
use crate::masquerade::{self, Language};
use crate::message::CallKind;
use crate::monitor::run::{self as monitor, Mode, Source};
use crate::monitor::term::TermConfig;
use crate::monitor::theme::Theme;
use crate::monitor::watch::Finding;
use crate::scheduler::ServerConfig;
use crate::scheduler::http::HttpConfig;
use crate::toolchain::archive::{self, Compression};
use crate::{background, daemon, executor, sandbox, scheduler, signal, status, sys, whereabouts};

/// What a role returns: it has said all it has to say, or this is to be said.
type Done = Result<(), Failure>;

type Failure = Box<dyn Error + Send + Sync>;

/// How long `ice status` looks for a scheduler.
const DISCOVERY_WAIT: Duration = Duration::from_secs(2);

/// What the cluster of a demo is made from.
const DEMO_SEED: u64 = 10245;

/// Runs what was asked for and returns the exit status.
pub(super) fn dispatch(
    ice: Ice,
    world: &World,
    settings: &Settings,
    argv: &[Bytes],
) -> Result<u8, Failure> {
    match ice.word {
        Word::Scheduler(options) => {
            let config = world.scheduler(options)?;
            if let Some(status) = settle(&config.process)? {
                return Ok(status);
            }
            let is_in_background = config.process.daemonize;
            noted(is_in_background, scheduler(config))?;
        }
        Word::Daemon(options) => {
            let config = world.daemon(options)?;
            if let Some(status) = settle(&config.process)? {
                return Ok(status);
            }
            let is_in_background = config.process.daemonize;
            noted(is_in_background, daemon::run(config, reload(argv, world)))?;
        }
        Word::Status(options) => status(world.status(options)?)?,
        Word::Doctor(options) => return doctor::doctor(options, world, settings),
        Word::Monitor(options) => watch(world.monitor(options)?)?,
        Word::BuildNative(options) => {
            let variable = || {
                world
                    .variables
                    .get(OsStr::new("ICECC_ENV_COMPRESSION"))
                    .cloned()
            };
            let compression = options.compression.or_else(variable).unwrap_or_default();
            let config = BuildNativeConfig {
                compilers: options.compilers,
                files: options.addfile,
                compression: compression.into(),
                as_icecream: options.as_icecream,
            };
            build_native(config, world)?;
        }
        Word::Key(options) => key(world.key(options)?)?,
        Word::Run(options) => return run::run(options.command, world, None),
        Word::Trace(options) => {
            let file = world.cwd.join(options.file);
            return run::run(options.command, world, Some(&file));
        }
        Word::Local(options) => {
            return Ok(client::run(Invocation {
                kind: CallKind::Local,
                argv: options.command.into_iter().map(Bytes::from).collect(),
            }));
        }
        Word::Explain(options) => {
            let command: Vec<Bytes> = options.command.into_iter().map(Bytes::from).collect();
            explain::print(&command, options.files, options.declined)?;
        }
        Word::Symlinks(options) => symlinks::print(&world.cwd.join(options.directory))?,
        Word::Config(options) => {
            let text = in_force::report(options.word.as_deref(), world, settings)?;
            let _ = io::stdout().write_all(text.as_bytes());
        }
        Word::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Ice::command(), "ice", &mut text);
            let _ = io::stdout().write_all(&text);
        }
        Word::Agent { verbose, declined } => {
            log_output::start(&ProcessConfig {
                verbosity: verbose,
                ..ProcessConfig::default()
            })?;
            daemon::agent::run(declined)?;
        }
        Word::SandboxZygote { words } => sandbox::zygote_main(&words),
        Word::SandboxProbe { .. } => sandbox::probe_main(),
    }
    Ok(0)
}

/// Makes this process what a process that stays has to be. No thread is started: the daemon forks
/// its zygote after this. In front of one that is to go into the background, it returns the status to end with.
fn settle(process: &ProcessConfig) -> Result<Option<u8>, Failure> {
    if daemon::broker::is_child() {
        // It has its broker's command line, ends with it, and logs to where the broker has led its
        // standard error: it may not be allowed to open that file itself.
        let verbosity = process.verbosity;
        log_output::start(&ProcessConfig {
            verbosity,
            ..ProcessConfig::default()
        })?;
        return Ok(None);
    }
    let failed = |error| format!("can't go into the background: {error}");
    if process.daemonize && !background::is_here() {
        return Ok(Some(background::start().map_err(failed)?));
    }
    if let Some(parent) = process.with_parent {
        set_pdeathsig(Signal::SIGTERM)?;
        if getppid() != Pid::from_raw(parent) {
            return Err(format!("process {parent}, to end with, has ended already").into());
        }
    }
    log_output::start(process)?;
    if process.daemonize {
        background::enter().map_err(failed)?;
    }
    Ok(None)
}

/// Logs what ended a process in the background: nobody sees what it prints.
fn noted(is_in_background: bool, ended: Done) -> Done {
    ended.inspect_err(|error| {
        if is_in_background {
            log::error!("{error}");
        }
    })
}

/// Reads the configuration of a daemon anew, from the same command line and from files that may have changed.
fn reload(argv: &[Bytes], world: &World) -> Reload {
    let (argv, world) = (argv.to_vec(), world.clone());
    Box::new(move || {
        let settings = Settings::read(&world.config_files())?;
        match entry::parse(&argv, &world, &settings)?.word {
            Word::Daemon(options) => Ok(world.daemon(options)?),
            _ => Err("the command line is not a daemon's".into()),
        }
    })
}

fn scheduler(config: SchedulerConfig) -> Done {
    let credentials = Credentials::of(&config.cluster, true)?;
    // Its configuration is not read anew, and the log file begins anew by itself.
    let _hangups = signal::hangups()?;
    let stops = signal::stops()?;
    // Each node and each stranger is a descriptor.
    daemon::process::prepare();
    let bind = match &config.interface {
        None => Ipv6Addr::UNSPECIFIED.into(),
        Some(name) => {
            sys::interface_address(name).map_err(|error| format!("interface {name}: {error}"))?
        }
    };
    let http = match &config.http {
        None => None,
        Some(place) => Some(HttpConfig::at(place)?),
    };
    let mut others = Vec::new();
    for other in &config.others {
        let (host, port) = whereabouts::host_and_port(other)
            .filter(|(host, _)| !host.is_empty())
            .ok_or_else(|| format!("{other:?} is no HOST and no HOST:PORT"))?;
        others.push((host.to_owned(), port));
    }
    executor::block_on(scheduler::serve(
        ServerConfig {
            port: config.port,
            netname: config.cluster.netname,
            credentials,
            bind,
            algorithm: config.algorithm,
            memory: config.memory,
            others,
            is_persistent: config.persistent,
            control: Some(config.control),
            alone: config.alone,
            http,
            icecream_monitors: config.icecream_monitors,
        },
        async {
            let _ = stops.recv().await;
        },
    ))
    .map_err(Failure::from)
}

fn status(config: StatusConfig) -> Done {
    let credentials = Credentials::of(&config.cluster, false)?;
    let netname = config.cluster.netname;
    let text = executor::block_on(async {
        let names = &config.schedulers;
        let addresses = whereabouts::locate(names, &credentials, &netname, DISCOVERY_WAIT).await;
        let addresses = addresses.map_err(|why| match names.is_empty() {
            true => format!("{why}: start `ice scheduler`, or name its machine with --scheduler"),
            false => why,
        })?;
        status::status(&addresses, &credentials, config.json)
            .await
            .map_err(Failure::from)
    })?;
    // Whoever pipes it to `head` has seen what he wanted.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(())
}

fn watch(config: MonitorConfig) -> Done {
    let theme = Theme {
        has_colors: config.has_colors,
        has_unicode: config.has_unicode,
    };
    let mode = match (config.is_json, config.is_once) {
        (true, once) => Mode::Json { once },
        (false, true) => Mode::List(theme),
        (false, false) => Mode::Screen(TermConfig {
            theme,
            has_mouse: config.has_mouse,
        }),
    };
    let source = match config.watched {
        Watched::Demo(nodes) => Source::Demo {
            seed: DEMO_SEED,
            nodes,
        },
        Watched::Cluster(cluster) => {
            let credentials = Credentials::of(&cluster, false)?;
            let (names, netname) = (config.schedulers, cluster.netname);
            let key = credentials.clone();
            // It is looked for anew whenever it is lost: the next one may be elsewhere.
            let find = move || -> Finding {
                let (names, key, netname) = (names.clone(), key.clone(), netname.clone());
                Box::pin(async move {
                    whereabouts::locate(&names, &key, &netname, DISCOVERY_WAIT).await
                })
            };
            Source::Cluster(Box::new(find), credentials)
        }
    };
    Ok(monitor::run(source, mode)?)
}

fn build_native(config: BuildNativeConfig, world: &World) -> Done {
    let search_path = world.variables.get(OsStr::new("PATH"));
    let search_path = search_path.map(|path| path.as_bytes()).unwrap_or_default();
    let variables = Variables::of_this_process();
    let mut named = config.compilers;
    if named.is_empty() {
        named.push(PathBuf::from("gcc"));
    }
    let mut compilers = Vec::new();
    for name in &named {
        let command = Bytes::from(name.as_path());
        let language = masquerade::language(&command).unwrap_or(Language::C);
        let found = client::lookup::compiler(&command, language, &variables, &world.cwd);
        let found = found.ok_or_else(|| format!("there is no {} in PATH", name.display()))?;
        compilers.push(found.path);
    }
    let compilers: Vec<&Path> = compilers.iter().map(Bytes::as_path).collect();
    let files = config.files.iter().map(|file| world.cwd.join(file));
    let archive = archive::build(
        &compilers,
        &files.collect::<Vec<_>>(),
        search_path,
        Compression::parse(&config.compression)?,
        &world.cwd,
    )?;
    if !config.as_icecream {
        println!("{}", archive.display());
        return Ok(());
    }
    let name = archive.file_name().unwrap_or_default().display();
    println!("creating {name}");
    // Whoever runs icecream's script may have opened this one to read the name from.
    if let Ok(mut reader) = OpenOptions::new().append(true).open("/proc/self/fd/5") {
        let _ = writeln!(reader, "{name}");
    }
    Ok(())
}

fn key(config: KeyConfig) -> Done {
    let path = &config.key_file;
    match config.action {
        KeyAction::Show => println!("{}", ClusterKey::read(path)?.reveal()),
        KeyAction::Create => {
            let (_, made) = ClusterKey::read_or_create(path)?;
            if !made {
                return Err(format!("there is a key in {} already", path.display()).into());
            }
            println!("made a new key in {}", path.display());
        }
        KeyAction::Import(from) => {
            let key = match from {
                Some(from) => ClusterKey::read(&from)?,
                None => {
                    let mut text = String::new();
                    io::stdin().take(4096).read_to_string(&mut text)?;
                    ClusterKey::parse(&text)
                        .ok_or_else(|| KeyError::Malformed("standard input".to_owned()))?
                }
            };
            key.install(path)?;
            println!("the key is in {} now; restart what uses it", path.display());
        }
    }
    Ok(())
}
