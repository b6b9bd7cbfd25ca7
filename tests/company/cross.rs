//! Compilers for other machines: mingw-w64 as Wine uses it, arm, and clang with `-target`.

use std::path::Path;

use crate::build::{Build, write};
use crate::have;
use crate::world::World;

fn free_standing(directory: &Path) {
    write(
        directory,
        &[
            (
                "a.h",
                "#include <stddef.h>\n#include <stdint.h>\nstruct s { uint64_t a; char b; };\n",
            ),
            (
                "a.c",
                "#include \"a.h\"\nsize_t a(void) { return sizeof(struct s) + offsetof(struct s, b); }\n",
            ),
            (
                "b.c",
                "#include \"a.h\"\nint b(struct s *s) { return s->b * __CHAR_BIT__; }\n",
            ),
            (
                "c.S",
                "#define VALUE 3\n\t.text\n\t.globl c\nc:\n\t.long VALUE\n",
            ),
        ],
    );
}

fn hosted(directory: &Path) {
    free_standing(directory);
    write(
        directory,
        &[
            (
                "d.c",
                "#include <stdio.h>\n#include <string.h>\nint d(const char *s) { return printf(\"%zu\", strlen(s)); }\n",
            ),
            (
                "main.c",
                "int d(const char *);\nint main(void) { return d(__FILE__) == 0; }\n",
            ),
        ],
    );
}

#[test]
fn mingw_compilers_work_as_wines_configure_uses_them() {
    if !have(&["x86_64-w64-mingw32-gcc"]) {
        return;
    }
    let sources = |directory: &Path| {
        hosted(directory);
        write(
            directory,
            &[
                (
                    "w.c",
                    "#include <windows.h>\n#include <winsock2.h>\nBOOL WINAPI DllMain(HINSTANCE i, DWORD r, void *p) { return TRUE; }\n",
                ),
                // As Wine's own makefiles have it, and a probe of its configure.
                ("conftest.c", "int main(void) { return 0; }\n"),
                (
                    "Makefile",
                    "CC = $(ICE) gcc
x86_64_CC = $(ICE) x86_64-w64-mingw32-gcc
PE = -g -O2 -Wall -pipe -fno-strict-aliasing -Wdeclaration-after-statement -gdwarf-4 -mno-cygwin \\
  -D__WINESRC__ -D_UCRT -DWINE_CROSS -fvisibility=hidden -mcx16
NAMES = a b d main w
all: $(NAMES:%=x86_64-windows/%.o) a.o b.o d.o x86_64-windows/w.dll
x86_64-windows/%.o: %.c
\t@mkdir -p x86_64-windows
\t$(x86_64_CC) -c -o $@ $< -I. $(filter-out -mno-cygwin,$(PE))
%.o: %.c
\t$(CC) -c -o $@ $< -I. -g -O2 -fPIC -fasynchronous-unwind-tables
x86_64-windows/w.dll: x86_64-windows/w.o
\t$(x86_64_CC) -shared -o $@ $< -Wl,--no-insert-timestamp
",
                ),
            ],
        );
    };
    let build = Build {
        name: "mingw",
        prepare: &sources,
        script: "$ICE x86_64-w64-mingw32-gcc -c conftest.c && rm conftest.o && make -j8",
        with: &[],
        compiles_min: 8,
    };
    build.check(&World::start());
}

const ARM: &str = "
$CC -O2 -g -mthumb -c a.c -MD
$CC -O2 -g -mcpu=cortex-a7 -mfpu=neon-vfpv4 -c b.c
$CC -c c.S
$CC -O1 -g3 -c d.c
$CC -c main.c
$CC -o program main.o d.o
";

#[test]
fn an_arm_compiler_works_under_its_name_and_by_a_link() {
    if !have(&["arm-linux-gnueabihf-gcc"]) {
        return;
    }
    let world = World::start();
    for (name, with) in [("arm-front", false), ("arm-link", true)] {
        let path = format!("{}:/usr/bin:/bin", world.text("links"));
        let links = [("PATH", &path[..]), ("ICE", "")];
        let script = format!("CC=\"$ICE arm-linux-gnueabihf-gcc\"\n{ARM}");
        let build = Build {
            name,
            prepare: &hosted,
            script: &script,
            with: if with { &links } else { &[] },
            compiles_min: 5,
        };
        build.check(&world);
    }
}

#[test]
fn clang_compiles_for_other_targets_elsewhere() {
    if !have(&["clang"]) {
        return;
    }
    let script = "
for target in arm-linux-gnueabihf aarch64-linux-gnu riscv64-unknown-elf x86_64-w64-mingw32; do
  for unit in a b; do
    $ICE clang -target $target -ffreestanding -O2 -g -c $unit.c -o $unit-$target.o
    $ICE clang --target=$target -ffreestanding -O1 -MD -c $unit.c -o $unit-$target-2.o
  done
  $ICE clang -target $target -c c.S -o c-$target.o
done
";
    let build = Build {
        name: "clang",
        prepare: &free_standing,
        script,
        with: &[],
        compiles_min: 20,
    };
    build.check(&World::start());
}
