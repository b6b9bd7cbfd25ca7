//! ice: a distributed compiler for C and C++.
//!
//! This page is the architecture: who the processes are, how a job travels, where what lives, and
//! which rules hold everywhere. `tests/tidy.rs` holds the rules that can be held.
//!
//! # Processes
//!
//! ```text
//!  make ──► client (as gcc) ──unix socket──► daemon: submitter ══pooled, encrypted TCP══► daemon: worker ──► sandbox: gcc
//!                                                 │  leases, state                            │
//!                                                 └────────────► scheduler ◄──────────────────┘ ◄── ice status
//! ```
//!
//! - The [`client`] is the process that was called as `gcc`. It finds the real compiler beyond every
//!   masquerade, hands its command line to the submitter and waits for a status. When the answer is
//!   "here", it executes the compiler in its own place; its open socket is the local slot.
//! - The [`submitter`] decides where a compile runs, sends it, and puts the results in place. It has
//!   the rights of the user who compiles: it is part of the daemon when the daemon is his, and an
//!   [agent](daemon::agent) of his own beside a daemon that root started.
//! - The [`worker`] compiles for others, in a [`sandbox`], and shares nothing with the submitter but
//!   the process.
//! - The [`scheduler`] lends slots. It sees file names, never sources or objects, and has no state
//!   that the nodes could not tell it again.
//! - The [`daemon`] joins a submitter and a worker to a node.
//!
//! # The life of a job
//!
//! 1. The client sends a [`message::Call`]. [`args::classify`] says from the command line alone
//!    whether it may travel, or why not.
//! 2. [`submitter::placement`] takes a lease that it holds, or asks for one.
//! 3. [`submitter::inputs`] finds out what the job consists of: the [`include`](mod@include) scanner names every
//!    file that the compiler could open. What it declines may travel as preprocessed text, or not.
//! 4. [`submitter::attempt`] sends a [`message::JobSpec`]: **a set of files at absolute paths, plus an
//!    unchanged command.** Files travel by digest; the worker asks for those that it lacks.
//! 5. [`worker::job`] shows the files at their original paths in a [`worker::tree`], over the
//!    toolchain, and runs the command in the sandbox.
//! 6. What the command printed and wrote comes back; [`submitter::output`] renames it into place.
//! 7. Whatever goes wrong leads to another node, then home: [`submitter::course`].
//!
//! # Layers
//!
//! Words ([`id`], [`message`]) < cores < effects < roles < front ([`cli`]). Arrows point down. Words
//! and cores are pure: no file, socket, clock, thread, environment or randomness, no map whose order
//! differs from run to run; what they need of the world is an argument. So every decision can be
//! tested without a socket and without waiting. Roles never use each other; they meet in
//! [`message`], and only the daemon joins two of them. `unsafe` lives in [`sys`] and in the
//! sandbox's `enter`, nowhere else.
//!
//! # Where what lives
//!
//! - *Whoever waits.* [`executor`] runs all tasks of a process on one thread, [`reactor`] wakes them, and
//!   [`threads`] do what blocks: files, hashing, asking a compiler. Those without work sleep, and then end.
//! - *How processes meet.* [`discover`] and [`whereabouts`] find a scheduler, [`greetings`] bound the handshakes
//!   of one listener, [`connection`] is the channel behind them. [`sight`] tells a daemon whether its client
//!   sees the same files: one in a container may not, and is then compiled where it is.
//! - *The scheduler.* [`scheduler::state`] is the core, with a noun a file beside it. Its shell is private:
//!   `dispatcher` is the one task that owns the core, `peers` are those who are connected, each with an
//!   `outbox` that bounds what waits for it and a `line` that carries it; `door` lets connections in.
//!   [`scheduler::tally`] counts what became of jobs, whether anybody looks on or not.
//! - *A node.* [`daemon::node`] is the task that owns the slots, [`daemon::session`] the core of its connection
//!   to the scheduler; in that, `dealings` are what is said of slots: requests outlive a connection, leases
//!   do not. [`daemon::link`] is its shell.
//! - *The submitter.* [`submitter::job`] goes through the life of a job, [`submitter::holdings`] is the core that
//!   gives leases to jobs, [`submitter::ways`] what was measured of lines and travel.
//! - *The worker.* [`worker::server`] takes connections, [`worker::conversation`] hears and speaks during a job,
//!   [`worker::fetching`] lets one job fetch a toolchain for all that want it, [`worker::tenancy`] keeps
//!   each submitter's trees apart from all others'.
//! - *Those who look.* [`status`], [`monitor`] and [`doctor`] ask the cluster as anybody can who has the key;
//!   [`news`] is what they are told.
//!
//! # Promises, and what keeps them
//!
//! - *The compiler's own result.* The command, its directory, the paths, times and contents of its
//!   files are the original ones, so nothing has to be rewritten afterwards. A tree is exact: what the
//!   job did not declare is not there, so a mistake of the scanner is a compiler's error and not
//!   another object; such a job is compiled again, locally. Digests are verified where bytes come in
//!   ([`worker::store`]), and what is hashed is what is sent.
//! - *The cluster can't break a build.* A worker with a job says something every 600 ms, and is
//!   left after 1.8 s of silence. Three nodes, then the local compiler. Without a daemon the client
//!   executes the compiler at once.
//! - *No root, nobody's trust.* One key per cluster ([`key`]), one Noise handshake per connection
//!   ([`connection`]). Strangers get no further than [`greetings`], which bound them apart from
//!   those who have the key. A foreign compiler sees its toolchain and its files and nothing else.
//!
//! # Decisions that are not obvious
//!
//! - **The binary is linked statically and without PIE**, for the client's sake: it starts once per
//!   compile. The price is that the C library can't load name services, hence [`names`].
//! - **The client prints what the compiler printed**, not the daemon through passed descriptors: a
//!   terminal that is not read then holds up its own client and nobody else, and a call that must be
//!   repeated locally has printed nothing yet.
//! - **There is no Landlock rung.** Without the right to mount, a tree can't be shown at the original
//!   paths, and a job *is* files at their original paths. Such a node takes no remote jobs and says so.
//! - **A submitter draws a random number when it starts** and is known by it at its workers. It needs no
//!   registry, and nobody can pose as another to reach his trees.
//! - **Files below a directory that a job may write are copies in its tree**, all others are hard
//!   links: see [`worker::tree`].
//! - **A lease is one slot for one submitter until he returns it**, job after job, so that a running
//!   build waits for no round trip. What [`submitter::holdings`] does with them is a pure core, and
//!   `tests/simulation` runs it with the scheduler's by the hundred.
//! - **The daemons wait for their sockets in a [`reactor`] of our own.** The library's serves any number
//!   of threads and hands its polling from one to the other; at the rate of a build, these switches
//!   were most of what a job cost: 1.98 ms of the agent's CPU time per C job and 43 context switches,
//!   against 1.37 ms and 20 now; for large C++ objects 31 against 9 ms.
//! - **The client starts without Rust's runtime**, from C's `main`: it needs none of what that prepares.
//! - **Several schedulers elect one by terms** ([`scheduler::election`]). A grant carries its term, and a
//!   worker that knows a later one refuses it: what a frozen master lends when it wakes up is worth nothing.

pub mod account;
pub mod args;
pub mod background;
pub mod child;
pub mod cli;
pub mod client;
pub mod clock;
pub mod compress;
pub mod config;
pub mod connection;
pub mod daemon;
pub mod dictionary;
pub mod discover;
pub mod doctor;
pub mod executor;
pub mod frame;
pub mod greetings;
pub mod id;
pub mod include;
pub mod key;
pub mod masquerade;
pub mod message;
pub mod monitor;
pub mod names;
pub mod news;
pub mod reactor;
pub mod sandbox;
pub mod scheduler;
pub mod sight;
pub mod signal;
pub mod status;
pub mod submitter;
pub mod sys;
pub mod threads;
pub mod toolchain;
pub mod whereabouts;
pub mod worker;
