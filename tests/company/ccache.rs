//! ccache in front of ice, and beside it in `PATH` in both orders.

use std::path::Path;

use crate::build::{Build, write};
use crate::have;
use crate::world::World;

const SOURCES: &[(&str, &str)] = &[
    ("a.h", "#include <stdio.h>\n#define GREETING \"a\"\n"),
    (
        "a.c",
        "#include \"a.h\"\nint a(void) { return puts(GREETING); }\n",
    ),
    (
        "b.c",
        "#include \"a.h\"\nint b(int x) { int unused; return x; }\n",
    ),
    (
        "c.cc",
        "#include <vector>\nint c() { std::vector<int> v(3); return v[1]; }\n",
    ),
];

const COMPILE: &str = "
export CCACHE_DIR=$PWD/cache
$CCACHE $CC -O2 -g -Wall -MD -c a.c -o a.o
$CCACHE $CC -O2 -g -Wall -c b.c -o b.o 2>b.err
$CCACHE $CXX -O2 -g -c c.cc -o c.o
mkdir again
$CCACHE $CC -O2 -g -Wall -MD -c a.c -o a.o
$CCACHE $CXX -O2 -g -c c.cc -o again/c.o
test -s b.err
";

fn sources(directory: &Path) {
    write(directory, SOURCES);
}

fn check(world: &World, name: &str, plain: &str, with: &[(&str, &str)]) {
    let script = format!("if [ -z \"$ICE\" ]; then {plain}\nfi\n{COMPILE}");
    let build = Build {
        name,
        prepare: &sources,
        script: &script,
        with,
        compiles_min: 3,
    };
    let jobs = build.check(world).jobs;
    // What is in the cache asks nobody: the two repetitions are no compiles.
    let remote = jobs.iter().filter(|job| job.is_remote()).count();
    assert_eq!(remote, 3, "{name}: {jobs:#?}");
}

#[test]
fn ccache_calls_ice_by_its_prefix() {
    if !have(&["ccache"]) {
        return;
    }
    let world = World::start();
    let with = [
        ("CCACHE", "ccache"),
        ("CCACHE_PREFIX", "ice"),
        ("CC", "gcc"),
        ("CXX", "g++"),
    ];
    check(&world, "prefix", "CC=gcc; CXX=g++", &with);
}

#[test]
fn links_of_ccache_and_ice_work_in_both_orders() {
    if !have(&["ccache"]) {
        return;
    }
    for (name, order) in [
        ("ccache-first", ["/usr/lib/ccache", "LINKS"]),
        ("ice-first", ["LINKS", "/usr/lib/ccache"]),
    ] {
        let world = World::start();
        let links = world.text("links");
        let order = order.map(|place| if place == "LINKS" { &links } else { place });
        let path = format!("{}:{}:/usr/bin:/bin", order[0], order[1]);
        let with = [("PATH", &path[..]), ("CC", "gcc"), ("CXX", "g++")];
        if name == "ice-first" {
            // ice steps over ccache: every call is compiled, none is looked up.
            let script = format!("if [ -z \"$ICE\" ]; then CC=gcc; CXX=g++\nfi\n{COMPILE}");
            let build = Build {
                name,
                prepare: &sources,
                script: &script,
                with: &with,
                compiles_min: 5,
            };
            build.check(&world);
        } else {
            check(&world, name, "CC=gcc; CXX=g++", &with);
        }
    }
}
