//! What several test crates need.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Says aloud that a test, or a part of one, is skipped and why. In CI nothing is skipped.
///
/// The test harness keeps what a passing test prints to itself, unless it is written to the stream
/// directly.
pub fn skipped(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// Where cargo has put a package of `tests/projects`; the first time it is fetched.
#[allow(dead_code, reason = "not every test crate needs it")]
pub fn package(name: &str) -> PathBuf {
    static METADATA: OnceLock<serde_json::Value> = OnceLock::new();
    let metadata = METADATA.get_or_init(|| {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/projects/Cargo.toml");
        let metadata = |more: &[&str]| {
            Command::new(env!("CARGO"))
                .args(["metadata", "--locked", "--format-version=1"])
                .args(["--manifest-path", manifest])
                .args(more)
                .output()
                .unwrap()
        };
        let mut output = metadata(&["--offline"]);
        if !output.status.success() {
            output = metadata(&[]);
        }
        assert!(
            output.status.success(),
            "fetch the test projects: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    });
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == name);
    let manifest = package.expect(name)["manifest_path"].as_str().unwrap();
    Path::new(manifest).parent().unwrap().to_owned()
}
