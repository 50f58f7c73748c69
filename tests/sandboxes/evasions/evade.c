// Ways around the limits of a sandbox: `evade NAME SIZE`. What was really taken, in bytes, processes or milliseconds, is
// counted in the file `taken`, which all processes share.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB (1L << 20)

static _Atomic long *taken;
static long size;
static char piece[1 << 16];

static void take(long count) { atomic_fetch_add(taken, count); }

static void rest(void) {
    for (;;) pause();
}

static void *anonymous(long bytes, int flags) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static void fill(char *memory, long bytes) {
    for (long at = 0; memory && at < bytes; at += 4096) {
        memory[at] = 1;
        take(4096);
    }
}

static int in_children(int count, void (*work)(int)) {
    for (int index = 0; index < count; index++)
        if (fork() == 0) {
            work(index);
            rest();
        }
    rest();
    return 0;
}

// Processes

static void *sleeper(void *nothing) { rest(); return nothing; }

static int threads(void) {
    for (long count = 1;; count++) {
        pthread_t thread;
        pthread_attr_t small;
        pthread_attr_init(&small);
        pthread_attr_setstacksize(&small, 1 << 16);
        if (pthread_create(&thread, &small, sleeper, NULL)) break;
        take(1);
    }
    sleep(1);
    return 0;
}

static int orphans(void) {
    for (;;) {
        pid_t child = fork();
        if (child < 0) break;
        if (child == 0) {
            setsid();
            pid_t grandchild = fork();
            if (grandchild == 0) {
                take(1);
                rest();
            }
            _exit(grandchild < 0);
        }
        int status;
        waitpid(child, &status, 0);
        if (status) break;
    }
    sleep(1);
    return 0;
}

#ifdef __x86_64__
static long call_as(pid_t pid, struct user_regs_struct *before, long number, long a, long b, long c, long d) {
    struct user_regs_struct now = *before;
    now.rip = before->rip - 2; // the system call that it was stopped in
    now.rax = number, now.orig_rax = -1;
    now.rdi = a, now.rsi = b, now.rdx = c, now.r10 = d;
    int status;
    ptrace(PTRACE_SETREGS, pid, NULL, &now);
    ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL);
    if (waitpid(pid, &status, __WALL) < 0 || !WIFSTOPPED(status)) return -ESRCH;
    ptrace(PTRACE_GETREGS, pid, NULL, &now);
    return now.rax;
}

static int traced_first(void) {
    struct user_regs_struct before;
    int status;
    if (ptrace(PTRACE_ATTACH, 1, NULL, NULL)) return perror("attach"), 1;
    waitpid(1, &status, __WALL);
    ptrace(PTRACE_GETREGS, 1, NULL, &before);
    struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
    long place = before.rsp - 512;
    for (unsigned at = 0; at < sizeof all; at += 8) ptrace(PTRACE_POKEDATA, 1, place + at, ((long *)&all)[at / 8]);
    for (int kind = 0; kind < 16; kind++) call_as(1, &before, SYS_prlimit64, 0, kind, place, 0);
    while (call_as(1, &before, SYS_fork, 0, 0, 0, 0) > 0) take(1);
    sleep(1);
    return 0;
}
#else
static int traced_first(void) { return 0; }
#endif

// Memory

static void *outlives(void *nothing) {
    char *memory = anonymous(size * MIB, MAP_PRIVATE);
    usleep(100000);
    fill(memory, size * MIB);
    rest();
    return nothing;
}

static void without_leader(int index) {
    pthread_t thread;
    (void)index;
    pthread_create(&thread, NULL, outlives, NULL);
    pthread_exit(NULL);
}

static int dead_leaders(void) { return in_children(6, without_leader); }

static void plain(int index) {
    (void)index;
    fill(anonymous(size * MIB, MAP_PRIVATE), size * MIB);
}

static int forks(void) { return in_children(6, plain); }

static void huge(int index) {
    (void)index;
    char *memory = anonymous(size * MIB, MAP_PRIVATE);
    madvise(memory, size * MIB, MADV_HUGEPAGE);
    fill(memory, size * MIB);
}

static int huge_pages(void) { return in_children(6, huge); }

static int shared_by_children(void) {
    for (int count = 0; count < 8; count++) {
        char *memory = anonymous(size * MIB / 2, MAP_SHARED);
        if (!memory) break;
        if (fork() == 0) {
            fill(memory, size * MIB / 2);
            _exit(0);
        }
        wait(NULL);
    }
    sleep(1);
    return 0;
}

static int shared_dropped(void) {
    for (int count = 0; count < 60; count++) {
        char *memory = anonymous(8 * MIB, MAP_SHARED);
        if (!memory) break;
        fill(memory, 8 * MIB);
        madvise(memory, 8 * MIB, MADV_DONTNEED);
    }
    sleep(1);
    return 0;
}

static int shared_unmapped(void) {
    for (int count = 0; count < 200; count++) {
        char *memory = anonymous(4 * MIB, MAP_SHARED);
        if (!memory) break;
        fill(memory, 4 * MIB);
        munmap(memory + 4096, 4 * MIB - 4096);
    }
    sleep(1);
    return 0;
}

static void tables(int index) {
    (void)index;
    long bytes = 64L << 30;
    volatile char *memory = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return;
    for (long at = 0; at < bytes; at += 2 * MIB) {
        (void)memory[at];
        take(4096);
    }
}

static int page_tables(void) { return in_children(6, tables); }

static int areas(void) {
    for (int child = 0; child < 12; child++)
        if (fork() == 0) {
            char *memory = mmap(NULL, 65000 * 4096L, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            for (long at = 0; at < 65000; at += 2) {
                if (mprotect(memory + at * 4096, 4096, PROT_NONE)) break;
                take(2 * 256);
            }
            rest();
        }
    rest();
    return 0;
}

static void flood(int from) {
    int bytes;
    while ((bytes = send(from, piece, sizeof piece, MSG_DONTWAIT)) > 0) take(bytes);
}

static int pairs(int type) {
    struct rlimit files = {1 << 20, 1 << 20};
    setrlimit(RLIMIT_NOFILE, &files);
    for (int child = 0; child < 8; child++) {
        if (fork()) continue;
        int ends[2], largest = 4 << 20;
        while (socketpair(AF_UNIX, type, 0, ends) == 0)
            for (int end = 0; end < 2; end++) {
                setsockopt(ends[end], SOL_SOCKET, SO_SNDBUF, &largest, sizeof largest);
                flood(ends[end]);
            }
        rest();
    }
    rest();
    return 0;
}

static int streams(void) { return pairs(SOCK_STREAM); }
static int datagrams(void) { return pairs(SOCK_DGRAM); }

static int carry(int through, int file) {
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec part = {piece, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS, header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &file, sizeof file);
    return sendmsg(through, &message, MSG_DONTWAIT);
}

static int carried_sockets(void) {
    int carrier[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, carrier);
    for (;;) {
        int ends[2];
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends)) break;
        flood(ends[0]), flood(ends[1]);
        if (carry(carrier[0], ends[0]) < 0 || carry(carrier[0], ends[1]) < 0)
            if (socketpair(AF_UNIX, SOCK_STREAM, 0, carrier)) break;
        close(ends[0]), close(ends[1]);
    }
    rest();
    return 0;
}

static int connection(int listening, struct sockaddr_in *address, int ends[2]) {
    ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    if (ends[0] < 0 || connect(ends[0], (void *)address, sizeof *address)) return -1;
    ends[1] = accept(listening, NULL, NULL);
    return ends[1] < 0 ? -1 : 0;
}

static int connections(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listening = socket(AF_INET, SOCK_STREAM, 0);
    bind(listening, (void *)&address, sizeof address);
    listen(listening, 128);
    getsockname(listening, (void *)&address, &length);
    for (int count = 0; count < 400; count++) {
        int ends[2];
        char *large = malloc(1 << 20);
        if (connection(listening, &address, ends)) break;
        for (int round = 0; round < 60; round++) { // the buffers grow while they are read
            long sent = 0, got, bytes;
            while (sent < 8 * MIB && (bytes = send(ends[0], large, 1 << 20, MSG_DONTWAIT)) > 0) sent += bytes;
            for (got = 0; got < sent; got += bytes)
                if ((bytes = recv(ends[1], large, 1 << 20, 0)) <= 0) break;
        }
        long idle = 0;
        while (idle < 3) {
            long bytes = send(ends[0], large, 1 << 20, MSG_DONTWAIT);
            if (bytes > 0) take(bytes), idle = 0;
            else usleep(1000), idle++;
        }
        free(large);
    }
    rest();
    return 0;
}

static int pipes(void) {
    for (int child = 0; child < 8; child++) {
        if (fork()) continue;
        int ends[2];
        while (pipe2(ends, O_NONBLOCK) == 0) {
            long bytes;
            fcntl(ends[1], F_SETPIPE_SZ, 1 << 20);
            while ((bytes = write(ends[1], piece, 4096)) > 0) take(bytes);
        }
        rest();
    }
    rest();
    return 0;
}

static int terminals(void) {
    for (int child = 0; child < 8; child++) {
        if (fork()) continue;
        for (;;) {
            int terminal = open("/dev/ptmx", O_RDWR | O_NONBLOCK | O_NOCTTY);
            if (terminal < 0) break;
            unlockpt(terminal);
            int other = open(ptsname(terminal), O_RDWR | O_NONBLOCK | O_NOCTTY);
            long bytes;
            if (other < 0) break;
            while ((bytes = write(terminal, piece, 4096)) > 0) take(bytes);
        }
        rest();
    }
    rest();
    return 0;
}

static int shared_files(void) {
    int file = open("/dev/shm/x", O_CREAT | O_RDWR, 0600);
    unlink("/dev/shm/x");
    long bytes;
    while ((bytes = write(file, piece, sizeof piece)) > 0) take(bytes);
    fill(anonymous(size * MIB, MAP_PRIVATE), size * MIB * 9 / 10);
    rest();
    return 0;
}

static int empty_shared_files(void) {
    for (long count = 0; count < 2000000; count++) {
        char name[40];
        sprintf(name, "/dev/shm/%ld", count);
        if (close(open(name, O_CREAT | O_RDWR, 0600))) break;
        take(1100);
    }
    rest();
    return 0;
}

static int events(void) {
    for (int child = 0; child < 12; child++) {
        if (fork()) continue;
        int polls[500], files[500];
        for (int index = 0; index < 480; index++) files[index] = eventfd(0, 0), polls[index] = epoll_create1(0);
        for (int poll = 0; poll < 480; poll++)
            for (int index = 0; index < 480; index++) {
                struct epoll_event event = {.events = EPOLLIN};
                if (epoll_ctl(polls[poll], EPOLL_CTL_ADD, files[index], &event) == 0) take(200);
            }
        rest();
    }
    rest();
    return 0;
}

static int locks(void) {
    for (int child = 0; child < 12; child++) {
        if (fork()) continue;
        for (int number = 0; number < 900; number++) {
            char name[60];
            sprintf(name, "/tmp/lock-%d-%d", child, number);
            int file = open(name, O_CREAT | O_RDWR, 0600);
            for (int at = 0; at < 1000; at++) {
                struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 2 * at, .l_len = 1};
                if (fcntl(file, F_SETLK, &range) == 0) take(200);
            }
        }
        rest();
    }
    rest();
    return 0;
}

static int notifications(void) {
    mkdir("/tmp/watched", 0700);
    char name[300] = "/tmp/watched/";
    memset(name + 13, 'n', 240);
    for (int count = 0; count < 120; count++) {
        int queue = inotify_init1(IN_NONBLOCK);
        if (queue < 0 || inotify_add_watch(queue, "/tmp/watched", IN_ALL_EVENTS) < 0) break;
    }
    for (int count = 0; count < 8000; count++) {
        name[13] = 'a' + count % 26;
        int file = open(name, O_CREAT | O_RDWR, 0600);
        take(120L * 290 * 2);
        close(file);
    }
    rest();
    return 0;
}

// CPU time

static long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void burn(long ms) {
    while (now_ms() < ms) {
    }
    take(ms);
    _exit(0);
}

static int unwaited(long ms) {
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        if (fork() == 0) burn(ms);
        while (wait(NULL) > 0) {
        }
    }
    return 0;
}

static int unwaited_long(void) { return unwaited(300); }
static int unwaited_short(void) { return unwaited(5); }

static int orphaned_burns(void) {
    for (;;) {
        if (fork() == 0) {
            if (fork() == 0) burn(100);
            _exit(0);
        }
        wait(NULL);
        usleep(60000);
    }
}

static void *burn_thread(void *nothing) {
    struct timespec now = {0};
    while (now.tv_nsec < 50000000 && now.tv_sec == 0) clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    take(50);
    return nothing;
}

static int ended_threads(void) {
    for (;;) {
        pthread_t thread;
        pthread_create(&thread, NULL, burn_thread, NULL);
        pthread_join(thread, NULL);
    }
    return 0;
}

// Disk

static int new_file(const char *folder, long number) {
    char name[100];
    sprintf(name, "%s/file-%d-%ld", folder, getpid(), number);
    int file = open(name, O_CREAT | O_RDWR, 0600);
    unlink(name);
    return file;
}

static void write_file(int file, long bytes) {
    long done = 0, wrote;
    for (; done < bytes; done += wrote, take(wrote))
        if ((wrote = write(file, piece, sizeof piece)) <= 0) break;
}

static int deleted_open(void) {
    for (long number = 0; number < 60; number++) write_file(new_file("/tmp", number), size * MIB / 2);
    rest();
    return 0;
}

static int deleted_mapped(void) {
    for (long number = 0; number < 60; number++) {
        int file = new_file("/tmp", number);
        write_file(file, size * MIB / 2);
        if (mmap(NULL, 4096, PROT_READ, MAP_SHARED, file, 0) == MAP_FAILED) break;
        close(file);
    }
    rest();
    return 0;
}

static int deleted_carried(void) {
    int carrier[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, carrier);
    for (long number = 0; number < 60; number++) {
        int file = new_file("/tmp", number);
        write_file(file, size * MIB / 2);
        if (carry(carrier[0], file) < 0) break;
        close(file);
    }
    rest();
    return 0;
}

static int deleted_hidden(void) {
    prctl(PR_SET_DUMPABLE, 0);
    return deleted_open();
}

static int deleted_unreadable(void) {
    if (access("/proc/self/exe", R_OK) == 0) {
        int from = open("/proc/self/exe", O_RDONLY), to = open("/tmp/unreadable", O_CREAT | O_WRONLY, 0700);
        long bytes;
        while ((bytes = read(from, piece, sizeof piece)) > 0) write(to, piece, bytes);
        close(to), chmod("/tmp/unreadable", 0111);
        char text[20];
        sprintf(text, "%ld", size);
        execl("/tmp/unreadable", "unreadable", "deleted_unreadable", text, NULL);
    }
    return deleted_open();
}

static void *private_files(void *nothing) {
    if (syscall(SYS_unshare, CLONE_FILES)) return perror("unshare"), nothing;
    deleted_open();
    return nothing;
}

static int deleted_of_a_thread(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, private_files, NULL);
    pthread_join(thread, NULL);
    return 1;
}

static int closed_folder(void) {
    mkdir("/tmp/closed", 0700);
    chdir("/tmp/closed");
    int folder = open(".", O_RDONLY | O_DIRECTORY);
    for (long number = 0; number < 60; number++) {
        char name[40];
        sprintf(name, "file-%ld", number);
        fchmod(folder, 0700);
        int file = open(name, O_CREAT | O_RDWR, 0600);
        fchmod(folder, 0);
        write_file(file, size * MIB / 2);
        close(file);
    }
    rest();
    return 0;
}

static int tiny_files(void) {
    for (long number = 0; number < 3000000; number++) {
        char name[60];
        sprintf(name, "/tmp/tiny-%ld", number);
        if (close(open(name, O_CREAT | O_RDWR, 0600))) break;
        take(1024);
    }
    rest();
    return 0;
}

static int allocated(void) {
    for (long number = 0; number < 60; number++) {
        int file = new_file("/tmp", number);
        if (fallocate(file, FALLOC_FL_KEEP_SIZE, 0, size * MIB / 2)) return perror("fallocate"), 1;
        take(size * MIB / 2);
        usleep(2000);
    }
    rest();
    return 0;
}

static int through_mappings(void) {
    for (long number = 0; number < 60; number++) {
        int file = new_file("/tmp", number);
        ftruncate(file, size * MIB / 2);
        char *memory = mmap(NULL, size * MIB / 2, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (memory == MAP_FAILED) return 1;
        fill(memory, size * MIB / 2);
        munmap(memory, size * MIB / 2);
    }
    rest();
    return 0;
}

static const struct {
    const char *name;
    int (*run)(void);
} all[] = {
#define EVASION(name) {#name, name}
    EVASION(threads), EVASION(orphans), EVASION(traced_first), EVASION(dead_leaders), EVASION(forks), EVASION(huge_pages),
    EVASION(shared_by_children), EVASION(shared_dropped), EVASION(shared_unmapped), EVASION(page_tables), EVASION(areas),
    EVASION(streams), EVASION(datagrams), EVASION(carried_sockets), EVASION(connections), EVASION(pipes),
    EVASION(terminals), EVASION(shared_files), EVASION(empty_shared_files), EVASION(events), EVASION(locks),
    EVASION(notifications), EVASION(unwaited_long), EVASION(unwaited_short), EVASION(orphaned_burns),
    EVASION(ended_threads), EVASION(deleted_open), EVASION(deleted_mapped), EVASION(deleted_carried),
    EVASION(deleted_hidden), EVASION(deleted_unreadable), EVASION(deleted_of_a_thread), EVASION(closed_folder),
    EVASION(tiny_files), EVASION(allocated), EVASION(through_mappings),
};

int main(int count, char **arguments) {
    if (count != 3) return 2;
    size = atol(arguments[2]);
    int file = open("/workspace/taken", O_CREAT | O_RDWR, 0600);
    if (ftruncate(file, 4096)) return 2;
    taken = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    for (unsigned index = 0; index < sizeof all / sizeof *all; index++)
        if (!strcmp(all[index].name, arguments[1])) return all[index].run();
    return 2;
}
