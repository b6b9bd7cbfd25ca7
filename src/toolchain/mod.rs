//! A compiler with all the files it needs: found, named, and read from archives.
//!
//! `elf`, `closure`, `manifest` and `selection` decide and touch nothing; `probe` asks the compiler,
//! `archive` reads and writes the archives of `ICECC_VERSION`, and `known` remembers both.

pub mod archive;
pub mod closure;
mod disk;
pub mod elf;
mod gzip;
pub mod known;
pub mod manifest;
pub mod probe;
pub mod selection;
pub mod stamp;

pub use known::{ToolchainError, Toolchains};
pub use probe::{Located, Toolchain};
