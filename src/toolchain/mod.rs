//! A compiler with all the files it needs: found, named, and read from archives.
//!
//! [`elf`], [`closure`] and [`manifest`] decide and touch nothing; [`probe`] asks the compiler and
//! the file system; [`archive`] reads and writes the archives of `ICECC_VERSION`.

//pub mod archive;
pub mod closure;
pub mod elf;
mod gzip;
pub mod manifest;
//pub mod probe;

pub use closure::Closure;
pub use manifest::{ManifestError, name};
//pub use probe::{Located, ProbeError, Toolchain, Toolchains};
