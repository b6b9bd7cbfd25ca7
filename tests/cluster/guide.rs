//! The guide, followed to the letter: the blocks of its pages that name a machine are typed there, by a
//! person who has nothing but ice and a compiler.
//!
//! A block that begins with ```` ```sh alpha ```` is for the machine `alpha`, with `in=DIRECTORY` in that
//! directory of the home there; `both` is for one after the other. Blocks without a machine are not
//! run: they are for other networks, need hours, or are one of several ways.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use crate::cluster::copy;
use crate::netns::{self, Host, Network};
use crate::node::ALICE;
use crate::tree;
use crate::wait::BOUND;

/// What makes a shell of its own on a machine of its own: nothing of the real system's state is seen.
const BOOT: &str = r#"
name=$1
ground=$2
more=$3
echo "$name" >/proc/sys/kernel/hostname
mount --bind "$ground" /home
for place in /run /tmp /var/cache /etc/ice; do
    if [ -d $place ]; then mount -t tmpfs -o mode=1777 tmpfs $place; fi
done
eval "$more"
cd /home
exec setpriv --reuid=54321 --regid=54321 --clear-groups env -i \
    HOME=/home PATH=/home/.cargo/bin:/usr/local/bin:/usr/bin:/bin USER=alice LC_ALL=C bash --norc --noprofile
"#;

/// What a distribution has set up for podman: a user with a name and numbers for the users of his containers, a
/// directory of sockets, control groups of the second version, and mounts that are shared.
const FOR_PODMAN: &str = r#"
for file in passwd group subuid subgid; do
    touch /etc/$file
    cp /etc/$file /tmp/$file
done
echo alice:x:54321:54321::/home:/bin/bash >>/tmp/passwd
echo alice:x:54321: >>/tmp/group
for file in subuid subgid; do echo alice:20000000:65536 >/tmp/$file; done
for file in passwd group subuid subgid; do mount --bind /tmp/$file /etc/$file; done
mkdir -p /run/user
mkdir -m 700 /run/user/54321
chown 54321:54321 /run/user/54321
if [ $(stat -f -c %T /sys/fs/cgroup) != cgroup2fs ]; then mount -t cgroup2 none /sys/fs/cgroup; fi
mount --make-rshared /
"#;

/// Images under the names of the guide with programs and, mounted, libraries of this machine: no registry can be
/// asked here.
const IMAGES: &str = r#"
export XDG_RUNTIME_DIR=/run/user/54321
mkdir -p ~/.config/containers ~/image && cd ~/image
printf '[storage]\ndriver = "overlay"\n' >~/.config/containers/storage.conf
volumes=
mkdir -p dev etc home proc root run sys tmp usr/bin usr/sbin var
for name in include lib lib64 libexec; do
    if [ -d /usr/$name ]; then
        mkdir usr/$name
        volumes="$volumes\"/usr/$name:/usr/$name:ro\", "
    fi
done
echo "[containers]
volumes = [$volumes]" >~/.config/containers/containers.conf
cp -P /usr/bin/{sh,dash,make,mkdir,rm} /usr/bin/gcc* /usr/bin/g++* /usr/bin/*-linux-gnu-{gcc,g++,as,ld}* usr/bin
ln -s /usr/bin/$(uname -m)-linux-gnu-as usr/bin/as
ln -s /usr/bin/$(uname -m)-linux-gnu-ld usr/bin/ld
for name in bin sbin lib lib64; do ln -s usr/$name $name; done
printf 'root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n' >etc/passwd
tar -c . | podman import --quiet - gcc:12
podman tag gcc:12 debian:12
cd ~
"#;

/// A person at a shell of a machine.
struct Person {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    home: std::path::PathBuf,
}

impl Person {
    fn sits_down(name: &str, host: &Host, home: &Path, more: &str) -> Self {
        ALICE.make_directory(&home.join(".cargo/bin"));
        ALICE.own(home);
        copy(
            Path::new(env!("CARGO_BIN_EXE_ice")),
            &home.join(".cargo/bin/ice"),
        );
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--uts", "--propagation", "private"])
            .args(["sh", "-euc", BOOT, "sh", name])
            .arg(home)
            .arg(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0);
        let mut child = host.enter(|| command.spawn()).unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (say, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.split(b'\n').map_while(Result::ok) {
                let _ = say.send(String::from_utf8_lossy(&line).into_owned());
            }
        });
        Self {
            stdin: child.stdin.take().unwrap(),
            child,
            lines,
            home: home.to_owned(),
        }
    }

    /// Types these lines. What the machine says, and the commands that failed.
    fn types(&mut self, lines: &str) -> (String, String) {
        fs::write(self.home.join("typed"), lines).unwrap();
        let typed = "failed=; trap 'failed=\"$failed$BASH_COMMAND; \"' ERR; \
                     source ~/typed </dev/null 2>&1; trap - ERR; echo \"@done $failed\"\n";
        self.stdin.write_all(typed.as_bytes()).unwrap();
        let (began, mut said) = (Instant::now(), String::new());
        loop {
            let left = (4 * BOUND).saturating_sub(began.elapsed());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("no end of\n{lines}\n{said}"));
            match line.split_once("@done ") {
                Some((before, failed)) => return (said + before, failed.to_owned()),
                None => said += &line,
            }
            said.push('\n');
        }
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        for pid in tree::descendants(self.child.id() as i32) {
            tree::kill(pid);
        }
        let _ = self.child.wait();
    }
}

/// A block of a page that is to be typed.
#[derive(Debug)]
struct Block {
    machines: &'static [&'static str],
    directory: Option<String>,
    text: String,
}

/// The blocks of a page that name a machine, in their order.
fn blocks(page: &str) -> Vec<Block> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(words) = line.strip_prefix("```") else {
            continue;
        };
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let mut words = words.split(' ');
        if words.next() != Some("sh") {
            continue;
        }
        let machines: &[&str] = match words.next() {
            None => continue,
            Some("alpha") => &["alpha"],
            Some("beta") => &["beta"],
            Some("both") => &["alpha", "beta"],
            Some(other) => panic!("{page}: there is no machine {other}"),
        };
        let directory = words.next().map(|word| {
            let directory = word.strip_prefix("in=");
            directory
                .unwrap_or_else(|| panic!("{page}: {word}"))
                .to_owned()
        });
        blocks.push(Block {
            machines,
            directory,
            text: body.join("\n") + "\n",
        });
    }
    blocks
}

/// Two machines, and who sits there.
struct Desks {
    people: Vec<(&'static str, Person)>,
    _network: Network,
    _ground: tempfile::TempDir,
}

impl Desks {
    fn new() -> Self {
        Self::with("")
    }

    /// After `more` was done as root on each of the machines.
    fn with(more: &str) -> Self {
        let network = Network::new(&["alpha", "beta"]);
        let ground = tempfile::Builder::new().prefix("ice-").tempdir().unwrap();
        let people = ["alpha", "beta"].map(|name| {
            let home = ground.path().join(name);
            (
                name,
                Person::sits_down(name, network.host(name), &home, more),
            )
        });
        Self {
            people: people.into(),
            _network: network,
            _ground: ground,
        }
    }

    fn at(&mut self, machine: &str) -> &mut Person {
        let mut people = self.people.iter_mut();
        &mut people.find(|(name, _)| *name == machine).unwrap().1
    }

    /// Types a page, and has each block judged with what was said to it.
    #[track_caller]
    fn follow(&mut self, page: &str, mut judge: impl FnMut(&str, &str)) {
        let mut key = String::new();
        let blocks = blocks(page);
        assert!(!blocks.is_empty(), "{page} has nothing to type");
        for block in blocks {
            if block.text == "ice status\n" {
                // Who looks too early looks again.
                self.wait_for_both();
                continue;
            }
            for machine in block.machines {
                let mut text = block.text.replace("what alpha showed", &key);
                if let Some(directory) = &block.directory {
                    text = format!("cd ~/{directory}\n{text}cd ~\n");
                }
                let (said, failed) = self.at(machine).types(&text);
                assert_eq!(failed, "", "{page}, on {machine}:\n{text}\n{said}");
                let shown = said.lines().find(|line| {
                    line.len() == 64 && line.bytes().all(|byte| byte.is_ascii_hexdigit())
                });
                if let Some(shown) = shown {
                    key = shown.to_owned();
                }
                judge(&text, &said);
            }
        }
    }

    /// Starts a cluster on `alpha` with this, and takes its key to `beta`, where this is done next.
    #[track_caller]
    fn share_key(&mut self, start: &str, then: &str) {
        let alpha = self.at("alpha");
        let (said, failed) = alpha.types(&format!("{start} && ice key show >~/key\n"));
        assert_eq!(failed, "", "{said}");
        let key = fs::read_to_string(alpha.home.join("key")).unwrap();
        let import = format!("ice key import <<< '{key}'{then}\n");
        let (said, failed) = self.at("beta").types(&import);
        assert_eq!(failed, "", "{said}");
    }

    /// Waits until both machines are in the scheduler's list, as a person would.
    fn wait_for_both(&mut self) {
        let began = Instant::now();
        loop {
            let (said, _) = self.at("alpha").types("ice status\n");
            let rows = said
                .lines()
                .filter(|line| line.starts_with("alpha ") || line.starts_with("beta "));
            if rows.count() == 2 {
                return;
            }
            assert!(began.elapsed() < BOUND, "{said}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Puts the project that comes with ice into a directory on `alpha`.
    fn with_project(&mut self, directory: &str) {
        let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/demo");
        let home = &self.at("alpha").home;
        let mut copy = Command::new("cp");
        copy.args(["-r", demo]).arg(home.join(directory));
        assert!(copy.status().unwrap().success());
        // Who has built it where it comes from has nothing to build here.
        let _ = fs::remove_dir_all(home.join(directory).join("build"));
        let mut own = Command::new("chown");
        own.args(["-R", "54321:54321"]).arg(home.join(directory));
        assert!(own.status().unwrap().success());
    }
}

/// The last line of `ice run` in what was said.
#[track_caller]
fn tally(said: &str) -> &str {
    let tally = said.lines().rfind(|line| line.starts_with("ice: "));
    tally.unwrap_or_else(|| panic!("no last line:\n{said}"))
}

#[test]
fn the_first_cluster_is_what_the_guide_says() {
    if !netns::possible() {
        return;
    }
    let mut desks = Desks::new();
    desks.with_project("project");
    let mut builds = 0;
    desks.follow("docs/first-cluster.md", |typed, said| {
        if typed.contains("ice run") {
            builds += 1;
            // How many alpha keeps for itself, while it is free, is a matter of time.
            let tally = tally(said);
            assert!(tally.starts_with("ice: 29 compiles: "), "{tally}");
            assert!(tally.ends_with("link: 2)"), "{tally}");
            assert!(tally.contains(" on 1 node (beta: "), "{tally}");
        }
    });
    assert_eq!(builds, 1);
    let (said, _) = desks
        .at("alpha")
        .types("command -v gcc; ice doctor --no-trial\n");
    assert!(said.starts_with("/home/ice-bin/gcc\n"), "{said}");
    assert!(said.ends_with("all is well\n"), "{said}");
}

#[test]
fn the_readme_is_true() {
    if !netns::possible() {
        return;
    }
    let mut desks = Desks::new();
    desks.with_project("project");
    let mut builds = 0;
    desks.follow("README.md", |typed, said| {
        if typed.contains("ice run") {
            builds += 1;
            let tally = tally(said);
            assert!(tally.contains(" on 1 node (beta: "), "{tally}");
        }
    });
    assert_eq!(builds, 1);
}

#[test]
fn what_the_guide_says_of_build_systems_works() {
    if !netns::possible() {
        return;
    }
    let mut desks = Desks::new();
    for project in [
        "make",
        "cmake",
        "autotools",
        "linux",
        "wine",
        "ccache",
        "cross",
    ] {
        desks.with_project(project);
    }
    let alpha = desks.at("alpha");
    for project in [CMAKE, AUTOTOOLS, LINUX, WINE] {
        let (said, failed) = alpha.types(project);
        assert_eq!(failed, "", "{said}");
    }
    // The other machine has no C++ here, and no numbers of 128 bits.
    alpha.types(
        "sed -i 's,^all: .*,all: $(filter-out %sha256.o;$(C_OBJECTS)),;s/;/,/' ~/cross/Makefile\n",
    );
    // What this machine takes itself, while it is free, would say nothing.
    desks.share_key(
        "ice scheduler -d && ice daemon -d -m 0",
        " && ice daemon -d",
    );
    desks.wait_for_both();
    desks.at("alpha").types("export ICE_JOB_LOG=$HOME/jobs\n");
    let log = desks.at("alpha").home.join("jobs");
    desks.follow("docs/build-systems.md", |typed, said| {
        let jobs = crate::joblog::read(&log);
        fs::remove_file(&log).unwrap_or_else(|_| panic!("no call of a compiler:\n{typed}\n{said}"));
        let remote = jobs.iter().filter(|job| job.is_remote()).count();
        assert!(remote > 0, "{remote} remote jobs of\n{typed}\n{said}");
        // So many that each of the three compilers must be among them.
        let of_two = 2 * 6;
        assert!(
            !typed.contains("i386_CC") || remote > of_two,
            "{remote} remote jobs of\n{typed}\n{said}"
        );
    });
}

/// A description of the demonstration's C program for CMake.
const CMAKE: &str = "cat >~/cmake/CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.16)
project(digest C CXX)
file(GLOB sources c/*.c)
add_executable(digest ${sources})
END
mkdir ~/cmake/build
";

/// A configure that takes compilers and tries the first, as autoconf's do; autoconf's own is built in
/// `tests/company`.
const AUTOTOOLS: &str = r#"cd ~/autotools
sed 's/^CC = .*/CC = @CC@/; s/^CXX = .*/CXX = @CXX@/' Makefile >Makefile.in
rm Makefile
cat >configure <<'END'
#!/bin/sh -e
for word; do export "$word"; done
echo 'int main(void) { return 0; }' >conftest.c
$CC -c conftest.c
sed "s/@CC@/$CC/; s/@CXX@/$CXX/" Makefile.in >Makefile
END
chmod +x configure
cd ~
"#;

/// A tree in the kernel's manner: a tool for this machine writes a header that each file includes.
const LINUX: &str = r##"cd ~/linux
mkdir scripts
cat >scripts/conf.c <<'END'
#include <stdio.h>
int main(void) { return puts("#define CONFIG_SMP 1") < 0; }
END
cat >Makefile <<'END'
HOSTCC = gcc
built-in.a: $(patsubst %.c,%.o,$(wildcard c/*.c))
	ar cDPrST $@ $^
%.o: %.c include/generated/autoconf.h
	$(CC) -Wp,-MMD,$(@D)/.$(@F).d -include ./include/generated/autoconf.h -fno-PIE -O2 -c -o $@ $<
include/generated/autoconf.h: scripts/conf
	mkdir -p $(@D) && scripts/conf >$@
scripts/conf: scripts/conf.o
	$(HOSTCC) -o $@ $<
scripts/conf.o: scripts/conf.c
	$(HOSTCC) -Wp,-MMD,scripts/.conf.o.d -c -o $@ $<
END
cd ~
"##;

/// Six files for this machine and for two kinds of Windows.
const WINE: &str = r##"cd ~/wine
mkdir dlls
for name in a b c d e f; do echo "#include <stddef.h>
size_t $name(void) { return sizeof(void *); }" >dlls/$name.c; done
cat >configure <<'END'
#!/bin/sh -e
echo "archs = unix" >Makefile
for word; do
    case $word in
        --enable-archs=*) echo "$word" | sed 's/.*=/archs += /; s/,/ /g' ;;
        *) echo "$word" ;;
    esac
done >>Makefile
cat >>Makefile <<'RULES'
names = $(basename $(notdir $(wildcard dlls/*.c)))
all: $(foreach arch,$(archs),$(names:%=$(arch)/%.o))
unix/%.o: dlls/%.c
	mkdir -p $(@D) && $(CC) -O2 -fPIC -c -o $@ $<
i386/%.o: dlls/%.c
	mkdir -p $(@D) && $(i386_CC) -O2 -c -o $@ $<
x86_64/%.o: dlls/%.c
	mkdir -p $(@D) && $(x86_64_CC) -O2 -c -o $@ $<
RULES
END
chmod +x configure
cd ~
"##;

#[test]
fn what_the_guide_says_of_containers_works() {
    if !netns::possible() {
        return;
    }
    for program in ["podman", "newuidmap"] {
        if !Path::new("/usr/bin").join(program).exists() {
            crate::support::skipped(&format!("there is no {program}"));
            return;
        }
    }
    let mut desks = Desks::with(FOR_PODMAN);
    desks.with_project("container");
    desks.share_key("ice scheduler -d", "");
    for machine in ["alpha", "beta"] {
        let (said, failed) = desks.at(machine).types(IMAGES);
        assert_eq!(failed, "", "{said}");
    }
    let mut builds = 0;
    desks.follow("docs/containers.md", |typed, said| {
        if typed.contains("ice run") {
            builds += 1;
            let tally = tally(said);
            assert!(tally.contains(" 27 on 1 node (beta: 27)"), "{said}");
        }
    });
    assert_eq!(builds, 1);
    // What the doctor says from within, and where the guide says that a container is not enough.
    let doctor = "podman exec --latest ice doctor --no-trial\n";
    let (said, failed) = desks.at("beta").types(doctor);
    assert!(
        said.contains("this machine can take jobs"),
        "{failed}\n{said}"
    );
}

#[test]
fn the_guide_on_monitoring_and_troubles_can_be_typed() {
    if !netns::possible() {
        return;
    }
    for (page, before) in [
        ("docs/monitoring.md", ""),
        (
            "docs/troubleshooting.md",
            "ice scheduler -d && ice daemon -d",
        ),
    ] {
        let mut desks = Desks::new();
        desks.with_project("project");
        let before = format!("{before}\necho 'int a;' >~/project/a.c\n");
        let (said, failed) = desks.at("alpha").types(&before);
        assert_eq!(failed, "", "{said}");
        desks.follow(page, |_, _| {});
    }
}
