//! The door: everything else is in the library.
//!
//! With the GNU C library, `main` is the C one. What Rust's own start does before a program's first
//! line (reading the stack's bounds from `/proc`, a signal stack, handlers) costs a client as much
//! as the rest of its work, and serves messages about overflowing stacks. The two things of it that
//! matter are done here: no descriptor below 3 is free for a socket to take, and a reader who has
//! gone is an error, not a death.

#![cfg_attr(all(target_os = "linux", target_env = "gnu"), no_main)]

use std::io::Write;

/// The exit status of a panic, as Rust's own start has it.
const PANIC_STATUS: u8 = 101;

fn run() -> u8 {
    ice::sys::prepare_process();
    let status = ice::cli::run(std::env::args_os().collect());
    // What is not a whole line still waits in the buffer; a reader may be gone.
    let _ = std::io::stdout().flush();
    status
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
// A C symbol of this name is what the C library calls; the lint can't know that it is the only one.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
extern "C" fn main(_: i32, _: *const *const u8) -> i32 {
    // The arguments come from `std::env`, which has them from the C library.
    i32::from(std::panic::catch_unwind(run).unwrap_or(PANIC_STATUS))
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(std::panic::catch_unwind(run).unwrap_or(PANIC_STATUS))
}
