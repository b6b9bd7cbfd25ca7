/* What a hostile job tries. `attack NAME` exits with 0 when the attempt failed as it should, and
 * with 1 and a sentence when it succeeded. The other names are jobs that behave in one special
 * way. It is linked statically, so that it is a whole toolchain by itself. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static int succeeded(const char *what) {
    printf("succeeded: %s\n", what);
    return 1;
}

#define MUST_FAIL(call) \
    do { \
        if ((call) != -1) return succeeded(#call); \
    } while (0)

static int read_host(void) {
    static const char *paths[] = {"/etc/passwd", "/etc/shadow", "/etc/hostname", "/proc/self/status", "/proc/1/root/etc/passwd",
                                  "/sys/kernel", "/root", "/home", "/usr", "/var", "/dev/kmsg", "/dev/tty", "/dev/vda", "/dev/mem",
                                  "../../../../../../etc/passwd", "/..//etc/passwd", "/work/../../etc/passwd"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (open(paths[i], O_RDONLY) != -1 || errno != ENOENT) return succeeded(paths[i]);
    return 0;
}

static int only_own_entries(void) {
    DIR *root = opendir("/");
    for (struct dirent *entry; (entry = readdir(root));)
        if (!strstr(". .. bin dev tmp work locked escape", entry->d_name)) return succeeded(entry->d_name);
    DIR *devices = opendir("/dev");
    for (struct dirent *entry; (entry = readdir(devices));)
        if (!strstr(". .. null zero full random urandom", entry->d_name)) return succeeded(entry->d_name);
    return 0;
}

static int processes(void) {
    if (getpid() > 2) return succeeded("a pid of the host's");
    for (int pid = 3; pid < 70000; pid++)
        if (kill(pid, 0) != -1 || errno != ESRCH) return succeeded("see another process");
    kill(1, SIGKILL); /* The kernel protects an init from its own namespace. */
    kill(1, SIGSTOP);
    MUST_FAIL(ptrace(PTRACE_ATTACH, 1, 0, 0));
    MUST_FAIL(ptrace(PTRACE_TRACEME, 0, 0, 0));
    char byte;
    struct iovec local = {&byte, 1}, remote = {(void *)0x400000, 1};
    MUST_FAIL(process_vm_readv(1, &local, 1, &remote, 1, 0));
    int pidfd = syscall(SYS_pidfd_open, 1, 0);
    if (pidfd != -1) MUST_FAIL(syscall(SYS_pidfd_getfd, pidfd, 3, 0));
    if (pidfd != -1) MUST_FAIL(setns(pidfd, CLONE_NEWNS));
    return 0;
}

static int network(void) {
    MUST_FAIL(socket(AF_INET, SOCK_STREAM, 0));
    MUST_FAIL(socket(AF_INET6, SOCK_DGRAM, 0));
    MUST_FAIL(socket(AF_UNIX, SOCK_STREAM, 0));
    MUST_FAIL(socket(AF_NETLINK, SOCK_RAW, 0));
    MUST_FAIL(socket(AF_ALG, SOCK_SEQPACKET, 0));
    int pair[2];
    MUST_FAIL(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    return 0;
}

static int clone_into(unsigned long flags) {
    long pid = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) _exit(0);
    return pid;
}

static int namespaces(void) {
    MUST_FAIL(mount("none", "/tmp", "tmpfs", 0, ""));
    MUST_FAIL(mount("/bin", "/work", 0, MS_BIND, ""));
    MUST_FAIL(mount(0, "/", 0, MS_REMOUNT | MS_BIND, ""));
    MUST_FAIL(umount2("/dev", MNT_DETACH));
    MUST_FAIL(umount2("/bin/attack", MNT_DETACH));
    MUST_FAIL(unshare(CLONE_NEWUSER));
    MUST_FAIL(unshare(CLONE_NEWNS));
    MUST_FAIL(unshare(CLONE_NEWNET));
    MUST_FAIL(clone_into(CLONE_NEWUSER));
    MUST_FAIL(clone_into(CLONE_NEWUSER | CLONE_NEWNS));
    MUST_FAIL(clone_into(CLONE_NEWPID));
    MUST_FAIL(chroot("/work"));
    MUST_FAIL(syscall(SYS_pivot_root, ".", "."));
    MUST_FAIL(syscall(SYS_open_tree, -100, "/", 1));
    MUST_FAIL(syscall(SYS_fsopen, "tmpfs", 0));
    MUST_FAIL(sethostname("x", 1));
    return 0;
}

static int kernel(void) {
    MUST_FAIL(syscall(SYS_bpf, 0, 0, 0));
    MUST_FAIL(syscall(SYS_perf_event_open, 0, 0, -1, -1, 0));
    MUST_FAIL(syscall(SYS_userfaultfd, 1));
    MUST_FAIL(syscall(SYS_io_uring_setup, 1, 0));
    MUST_FAIL(syscall(SYS_keyctl, 0, -3, 1));
    MUST_FAIL(syscall(SYS_add_key, "user", "a", "b", 1, -3));
    MUST_FAIL(syscall(SYS_init_module, 0, 0, ""));
    MUST_FAIL(syscall(SYS_reboot, 0, 0, 0, 0));
    MUST_FAIL(syscall(SYS_kexec_load, 0, 0, 0, 0));
    MUST_FAIL(syscall(SYS_open_by_handle_at, 0, 0, 0));
    MUST_FAIL(syscall(SYS_memfd_create, "a", 0));
    MUST_FAIL(syscall(SYS_shmget, 0, 4096, 0600 | 01000));
    MUST_FAIL(syscall(SYS_personality, 0x0400000));
    if (syscall(SYS_personality, 0xffffffff) == -1) return succeeded("forbid to ask the personality");
    MUST_FAIL(ioctl(0, TIOCSTI, "x"));
    if (syscall(SYS_clone3, 0, 0) != -1 || errno != ENOSYS) return succeeded("clone3");
    if (syscall(600) != -1 || errno != ENOSYS) return succeeded("a system call of the future");
    return 0;
}

static int privileges(void) {
    MUST_FAIL(setuid(0));
    MUST_FAIL(setgid(0));
    MUST_FAIL(setpriority(PRIO_PROCESS, 0, -20) == -1 ? -1 : 0);
    if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1) return succeeded("gain privileges by exec");
    for (int capability = 0; capability < 40; capability++)
        if (prctl(PR_CAPBSET_READ, capability, 0, 0, 0) != 0) return succeeded("keep a capability bounded");
    MUST_FAIL(mknod("/work/device", S_IFCHR | 0600, 0x103));
    MUST_FAIL(mknod("/tmp/device", S_IFBLK | 0600, 0x800));
    MUST_FAIL(chown("/work", 0, 0));
    return 0;
}

static int write_elsewhere(void) {
    MUST_FAIL(open("/file", O_CREAT | O_WRONLY, 0600));
    MUST_FAIL(open("/bin/file", O_CREAT | O_WRONLY, 0600));
    MUST_FAIL(open("/dev/file", O_CREAT | O_WRONLY, 0600));
    MUST_FAIL(open("/locked/input", O_WRONLY));
    MUST_FAIL(chmod("/locked/input", 0666));
    MUST_FAIL(unlink("/locked/input"));
    MUST_FAIL(rename("/locked/input", "/work/input"));
    MUST_FAIL(link("/locked/input", "/work/input"));
    MUST_FAIL(utimensat(-100, "/locked/input", 0, 0));
    MUST_FAIL(mkdir("/directory", 0700));
    MUST_FAIL(rmdir("/locked"));
    /* A symlink of one's own, and one that came with the tree. */
    if (symlink("/locked/input", "/work/link")) return succeeded("forbid a symlink");
    MUST_FAIL(open("/work/link", O_WRONLY));
    MUST_FAIL(open("/escape/etc/passwd", O_RDONLY));
    MUST_FAIL(open("/work/../locked/input", O_WRONLY));
    int work = open("/work/file", O_CREAT | O_WRONLY, 0600);
    int tmp = open("/tmp/file", O_CREAT | O_WRONLY, 0600);
    if (work == -1 || tmp == -1) return succeeded("forbid what is allowed");
    return 0;
}

static int write_toolchain(void) {
    MUST_FAIL(open("/bin/attack", O_WRONLY));
    MUST_FAIL(open("/bin/attack", O_RDWR | O_TRUNC));
    MUST_FAIL(truncate("/bin/attack", 0));
    MUST_FAIL(chmod("/bin/attack", 0777));
    MUST_FAIL(unlink("/bin/attack"));
    MUST_FAIL(rename("/bin/attack", "/bin/other"));
    MUST_FAIL(link("/bin/attack", "/work/attack"));
    MUST_FAIL(utimensat(-100, "/bin/attack", 0, 0));
    MUST_FAIL(setxattr("/bin/attack", "user.x", "y", 1, 0));
    int file = open("/bin/attack", O_RDONLY);
    if (mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) != MAP_FAILED) return succeeded("map the toolchain");
    MUST_FAIL(fchmod(file, 0777));
    return 0;
}

static int descriptors(void) {
    for (int fd = 3; fd < 4096; fd++) MUST_FAIL(fcntl(fd, F_GETFD));
    char byte;
    if (read(0, &byte, 1) != 0) return succeeded("read from standard input");
    MUST_FAIL(fchdir(1));
    MUST_FAIL(openat(1, "etc/passwd", O_RDONLY));
    return 0;
}

static int fork_bomb(void) {
    int forks = 0;
    while (forks < 100000) {
        pid_t pid = fork();
        if (pid == 0) {
            pause();
            _exit(0);
        }
        if (pid == -1) break;
        forks++;
    }
    printf("%d", forks);
    return 0;
}

/* Children beyond what one process may address. */
static int eat_memory(int processes, size_t each) {
    for (int i = 0; i < processes; i++)
        if (fork() == 0) {
            char *memory = mmap(0, each, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (memory == MAP_FAILED) _exit(1);
            memset(memory, 1, each);
            pause();
        }
    while (wait(0) != -1) {}
    return 0;
}

static int fill(const char *path) {
    static char block[1 << 16];
    int file = open(path, O_CREAT | O_WRONLY, 0600);
    long total = 0;
    for (;;) {
        long written = write(file, block, sizeof block);
        if (written <= 0) break;
        total += written;
        if (total > 1L << 30) return succeeded("write a gigabyte");
    }
    printf("%ld %s", total, strerror(errno));
    return 0;
}

static int daemonise(void) {
    if (fork() != 0) return 0;
    setsid();
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    if (fork() != 0) _exit(0);
    for (;;) pause();
}

static int orphans(void) {
    for (int i = 0; i < 500; i++) {
        pid_t pid = fork();
        if (pid == -1) {
            printf("fork %d: %s\n", i, strerror(errno));
            return 1;
        }
        if (pid == 0) {
            if (fork() == 0) _exit(0); /* Becomes the init's child. */
            _exit(0);
        }
        waitpid(pid, 0, 0);
    }
    return 0;
}

static int show(int argc, char **argv) {
    char cwd[4096];
    mode_t mask = umask(0);
    char host[65] = "";
    gethostname(host, sizeof host);
    printf("%s|%03o|%s|%s|", getcwd(cwd, sizeof cwd), mask, host, getenv("LANG"));
    for (int i = 2; i < argc; i++) printf("<%s>", argv[i]);
    fprintf(stderr, "to standard error");
    return 42;
}

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "nothing";
    if (!strcmp(name, "nothing")) return 0;
    if (!strcmp(name, "read_host")) return read_host();
    if (!strcmp(name, "only_own_entries")) return only_own_entries();
    if (!strcmp(name, "processes")) return processes();
    if (!strcmp(name, "network")) return network();
    if (!strcmp(name, "namespaces")) return namespaces();
    if (!strcmp(name, "kernel")) return kernel();
    if (!strcmp(name, "privileges")) return privileges();
    if (!strcmp(name, "write_elsewhere")) return write_elsewhere();
    if (!strcmp(name, "write_toolchain")) return write_toolchain();
    if (!strcmp(name, "descriptors")) return descriptors();
    if (!strcmp(name, "fork_bomb")) return fork_bomb();
    if (!strcmp(name, "eat_memory")) return eat_memory(atoi(argv[2]), strtoul(argv[3], 0, 10));
    if (!strcmp(name, "fill")) return fill(argv[2]);
    if (!strcmp(name, "daemonise")) return daemonise();
    if (!strcmp(name, "orphans")) return orphans();
    if (!strcmp(name, "show")) return show(argc, argv);
    if (!strcmp(name, "wait")) for (;;) pause();
    if (!strcmp(name, "spin")) for (;;) {}
    if (!strcmp(name, "abort")) abort();
    return 99;
}
