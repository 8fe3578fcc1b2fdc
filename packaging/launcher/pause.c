/* Holds the namespaces of a pod: waits, takes in children that have lost their parent, and ends when it is told to. */
#include <signal.h>
#include <sys/wait.h>

int main(void) {
    sigset_t wanted;
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGINT);
    sigaddset(&wanted, SIGTERM);
    sigaddset(&wanted, SIGCHLD);
    /* Blocked ones are kept for sigwait, for the first process of a namespace, too. */
    sigprocmask(SIG_BLOCK, &wanted, 0);
    for (;;) {
        int signal;
        if (sigwait(&wanted, &signal)) return 1;
        if (signal != SIGCHLD) return 0;
        while (waitpid(-1, 0, WNOHANG) > 0) {}
    }
}
