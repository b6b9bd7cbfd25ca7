//! The door: everything else is in the library.

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("sandbox-zygote") => ice::sandbox::zygote_main(),
        Some("sandbox-probe") => ice::sandbox::probe_main(),
        _ => {}
    }
}
