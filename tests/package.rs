//! The Debian package, built by its one command, installed, used, removed and purged: on a copy of
//! this system that is a mount namespace's own, so that nothing is left behind.

use std::path::Path;
use std::process::Command;

mod support;
use support::skipped;

#[test]
fn the_package_installs_works_and_leaves_nothing_behind() {
    if !nix::unistd::geteuid().is_root() {
        return skipped("installing a package wants root");
    }
    if !Path::new("/usr/bin/dpkg-deb").exists() {
        return skipped("there is no dpkg here");
    }
    let place = tempfile::tempdir().unwrap();
    let built = Command::new("contrib/debian/build")
        .arg(place.path())
        .env("ICE_BINARY", env!("CARGO_BIN_EXE_ice"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{said}");
    let package = String::from_utf8(built.stdout).unwrap();

    let tried = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-euc", TRY])
        .env("PLACE", place.path())
        .env("PACKAGE", package.trim())
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&tried.stdout),
        String::from_utf8_lossy(&tried.stderr),
    );
    assert!(tried.status.success(), "{out}\n{err}");
    for expect in [
        "version: ice ",
        "link: /usr/bin/ice",
        "key: 640 root:ice",
        "setting: nice = 5",
        "compiled: same",
        "removed: no binary, configuration kept",
        "purged: nothing left",
    ] {
        assert!(out.contains(expect), "{expect:?} in\n{out}\n{err}");
    }
}

/// What is done in the namespace. The copy of the system is an overlay: what changes is in memory.
const TRY: &str = r#"
mkdir "$PLACE/layers"
mount -t tmpfs tmpfs "$PLACE/layers"
mkdir "$PLACE/layers/upper" "$PLACE/layers/work" "$PLACE/layers/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$PLACE/layers/upper,workdir=$PLACE/layers/work" "$PLACE/layers/root"
cd "$PLACE/layers/root"
mount --rbind /proc proc
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
cp "$PACKAGE" tmp/ice.deb
inside() { chroot . /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root sh -euc "$1"; }
inside '
export DEBIAN_FRONTEND=noninteractive
dpkg -i /tmp/ice.deb
echo "version: $(ice --version)"
echo "link: $(readlink -f /usr/lib/ice/bin/gcc)"
echo "key: $(stat -c "%a %U:%G" /etc/ice/key)"
echo "setting: $(ice config daemon | grep "^nice" | sed "s/ *#.*//")"
cd /tmp
echo "int main(void) { return 0; }" >a.c
gcc -c a.c -o plain.o
PATH=/usr/lib/ice/bin:$PATH gcc -c a.c -o ours.o
cmp plain.o ours.o && echo "compiled: same"
dpkg -r ice
test ! -e /usr/bin/ice && test ! -e /usr/lib/ice/bin/gcc && test -e /etc/ice/ice.toml
echo "removed: no binary, configuration kept"
dpkg -P ice
test ! -e /etc/ice && ! getent passwd ice
echo "purged: nothing left"
'
"#;
