/* Runs a program and kills it at its n-th system call: when that has returned, or while it is under way. All of the program's
 * threads count and die with it. Prints "killed" or "ended".
 *
 * usage: tdi_kill after|during N PROGRAM [ARGUMENT]... */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SYSCALL_STOP = SIGTRAP | 0x80, EVENT_SHIFT = 16 };

static void must(int holds, const char *what) {
    if (holds)
        return;
    fprintf(stderr, "tdi_kill: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void go_on(pid_t thread, int signal) {
    if (ptrace(PTRACE_SYSCALL, thread, 0, signal))
        must(errno == ESRCH, "PTRACE_SYSCALL");
}

/* Waits until nobody is left. */
static void drain(void) {
    while (waitpid(-1, 0, __WALL) > 0 || errno == EINTR)
        ;
}

static char is_inside[1 << 22]; /* whether a thread, by its number, is in a system call */

int main(int argc, char **argv) {
    if (argc < 4)
        return fprintf(stderr, "usage: tdi_kill after|during N PROGRAM [ARGUMENT]...\n"), 2;
    int is_after = !strcmp(argv[1], "after");
    long calls = atol(argv[2]);
    pid_t program = fork(), thread;
    if (!program) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        execv(argv[3], argv + 3);
        _exit(127);
    }
    int status;
    must(waitpid(program, &status, 0) == program && WIFSTOPPED(status), "PTRACE_TRACEME");
    long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
    must(!ptrace(PTRACE_SETOPTIONS, program, 0, options), "PTRACE_SETOPTIONS");
    int is_started = 0; /* counting begins with the program's own calls */
    go_on(program, 0);
    while ((thread = waitpid(-1, &status, __WALL)) > 0) {
        if (!WIFSTOPPED(status))
            continue;
        int signal = WSTOPSIG(status), event = status >> EVENT_SHIFT;
        if (signal != SYSCALL_STOP) {
            is_started |= event == PTRACE_EVENT_EXEC;
            go_on(thread, event || signal == SIGSTOP ? 0 : signal);
            continue;
        }
        is_inside[thread] = !is_inside[thread];
        int is_counted = is_started && is_inside[thread] != is_after;
        if (is_counted && --calls == 0) {
            if (!is_after) /* let the call reach whoever answers it */
                go_on(thread, 0), usleep(1000);
            kill(program, SIGKILL);
            drain();
            return puts("killed"), 0;
        }
        go_on(thread, 0);
    }
    return puts("ended"), 0;
}
