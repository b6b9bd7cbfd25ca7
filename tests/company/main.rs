//! ice in the company of the tools that call compilers, and of those that stand between.
//!
//! Every test takes the real tool and builds the same thing twice at the same place: plainly, and
//! through a cluster of its own. Whatever a compiler wrote must be the same byte for byte, and the
//! compiles must have run elsewhere: the job log is counted. A test says aloud that it is skipped
//! where its tool is not there.
//!
//! `ICE_COMPANY=all cargo test --test company projects -- --nocapture` builds the large projects too,
//! for some ten minutes, and prints the table of docs/what-runs-remotely.md; without the variable only
//! small ones are built. `ICE_COMPANY=jemalloc,leveldb` builds these two.

mod autotools;
mod build;
mod ccache;
mod cmake;
mod cross;
mod icecream;
mod kernel;
mod projects;
#[path = "../support/role.rs"]
mod role;
#[path = "../support/mod.rs"]
mod support;
#[path = "../differential/user.rs"]
mod user;
mod world;

/// Whether all these programs are in `PATH`, and these absolute paths anywhere; says aloud which is not.
fn have(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |name: &str| std::env::split_paths(&path).any(|dir| dir.join(name).exists());
    let missing = programs.iter().find(|name| !is_there(name));
    if let Some(name) = missing {
        support::skipped(&format!("{name} is not there"));
    }
    missing.is_none()
}
