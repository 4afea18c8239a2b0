/* The firmware as a process: it talks on standard input and output, or on a descriptor given as its argument. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "hal.h"

enum { WATCHDOG_SECONDS = 1 };

extern char **environ;

/* What survives a reset: on a board, a few words of memory that start-up code leaves alone. Here, the environment. */
static uint32_t boots;
static uint32_t watchdogs;
static char program[4096];
static uint32_t rounds; /* since the watchdog was set anew; 0: it is not set */

static _Noreturn void restart(uint32_t by_watchdog) {
    char text[2][40] = {"GLB_BOOTS=", "GLB_WATCHDOGS="};
    const uint32_t value[2] = {boots + 1, watchdogs + by_watchdog};
    char *const arguments[] = {program, NULL};
    char *variables[] = {text[0], text[1], NULL};
    for (int k = 0; k < 2; k++) { /* sprintf is not for signal handlers */
        char digits[12];
        int n = 0;
        uint32_t x = value[k];
        do {
            digits[n++] = (char)('0' + x % 10);
            x /= 10;
        } while (x != 0);
        char *end = text[k] + strlen(text[k]);
        while (n > 0) {
            *end++ = digits[--n];
        }
        *end = 0;
    }
    sigset_t none;
    sigemptyset(&none); /* the alarm is blocked in its own handler, and exec inherits that */
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(program, arguments, variables);
    _exit(1);
}

static void bark(int number) {
    (void)number;
    restart(1);
}

static uint32_t number_in(const char *name) {
    const char *text = getenv(name);
    return text == NULL ? 0 : (uint32_t)strtoul(text, NULL, 10);
}

void hal_init(void) {
    struct sigaction action;
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    program[length > 0 ? length : 0] = 0; /* without a path a reset ends the process, and the host starts another */
    boots = number_in("GLB_BOOTS");
    watchdogs = number_in("GLB_WATCHDOGS");
    fcntl(0, F_SETFL, fcntl(0, F_GETFL) | O_NONBLOCK);
    memset(&action, 0, sizeof action);
    action.sa_handler = bark;
    sigaction(SIGALRM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

size_t hal_read(uint8_t *bytes, size_t room) {
    ssize_t count = read(0, bytes, room);
    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)) {
        _exit(0); /* the other end is gone */
    }
    return count < 0 ? 0 : (size_t)count;
}

void hal_write(const uint8_t *bytes, size_t count) {
    while (count > 0) {
        ssize_t done = write(1, bytes, count);
        if (done > 0) {
            bytes += done;
            count -= (size_t)done;
        } else if (errno == EAGAIN || errno == EINTR) {
            struct pollfd out = {1, POLLOUT, 0};
            alarm(0); /* a host that does not read is no reason to start anew */
            rounds = 0;
            poll(&out, 1, -1);
            if (out.revents & (POLLERR | POLLNVAL)) {
                _exit(0);
            }
        } else {
            _exit(0);
        }
    }
}

uint64_t hal_ticks(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

uint32_t hal_ticks_per_second(void) { return 1000000; }

void hal_idle(void) {
    struct pollfd in = {0, POLLIN, 0};
    alarm(0);
    rounds = 0;
    poll(&in, 1, -1);
}

uint32_t hal_room(void) { return 32768; }

uint32_t hal_overruns(void) { return 0; /* a pipe loses nothing */ }

void hal_watchdog(void) {
    if (rounds++ % 64 == 0) { /* a system call is dearer than a round */
        alarm(WATCHDOG_SECONDS + 1);
    }
}

_Noreturn void hal_reset(void) { restart(0); }

uint32_t hal_boots(void) { return boots; }

uint32_t hal_watchdogs(void) { return watchdogs; }
