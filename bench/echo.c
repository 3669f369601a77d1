/* The floor: the least that anything between a client and a Redis has to do.
 *
 * One thread, level-triggered epoll. A readable connection is read once; the complete RESP requests in what came are
 * counted, and as many "+OK\r\n" go back in one write. Nothing is stored, looked up or passed on.
 *
 * Requests are arrays of bulk strings, as redis-benchmark sends them. The scan resumes where it stopped, so a request
 * may come in any number of pieces.
 *
 *     cc -O2 -o echo echo.c && ./echo PORT
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_SIZE = 64 * 1024, EVENTS = 512, OK_SIZE = 5 };

/* Where the scan of one connection stands. */
struct scan {
    long skip;   /* bytes of the current bulk string, and its line end, that are still to come */
    long number; /* the number of the current line */
    int bulks;   /* bulk strings of the current request that are still to come */
    char kind;   /* '*' or '$' while in a line, 0 between lines */
};

/* Scan `size` bytes; returns how many requests ended in them, or -1 when they are not RESP. */
static int scan_requests(struct scan *s, const char *data, long size) {
    int requests = 0;
    long at = 0;
    while (at < size) {
        if (s->skip > 0) {
            long step = s->skip < size - at ? s->skip : size - at;
            at += step;
            s->skip -= step;
            if (s->skip == 0 && --s->bulks == 0) requests++;
            continue;
        }
        char c = data[at++];
        if (s->kind == 0) {
            if (c != (s->bulks ? '$' : '*')) return -1;
            s->kind = c;
            s->number = 0;
        } else if (c >= '0' && c <= '9') {
            s->number = s->number * 10 + (c - '0');
        } else if (c == '\n') {
            if (s->kind == '*') s->bulks = (int)s->number;
            else s->skip = s->number + 2;
            s->kind = 0;
        } else if (c != '\r') {
            return -1;
        }
    }
    return requests;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

int main(int argc, char **argv) {
    static struct scan scans[1 << 16];
    static char input[READ_SIZE], replies[READ_SIZE];
    if (argc != 2) {
        fprintf(stderr, "usage: %s PORT\n", argv[0]);
        return 2;
    }
    for (size_t i = 0; i + OK_SIZE <= sizeof replies; i += OK_SIZE) memcpy(replies + i, "+OK\r\n", OK_SIZE);

    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0), poll = epoll_create1(0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argv[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024)) die("bind");
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[EVENTS];
    if (epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event)) die("epoll_ctl");

    for (;;) {
        int ready = epoll_wait(poll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                if (fd < 0) continue;
                if (fd >= (int)(sizeof scans / sizeof *scans)) {
                    close(fd);
                    continue;
                }
                memset(&scans[fd], 0, sizeof *scans);
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                event = (struct epoll_event){.events = EPOLLIN, .data.fd = fd};
                epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
                continue;
            }
            ssize_t size = read(fd, input, sizeof input);
            if (size < 0 && (errno == EAGAIN || errno == EINTR)) continue;
            int requests = size > 0 ? scan_requests(&scans[fd], input, size) : -1;
            /* The smallest request is longer than its reply, so `replies` is large enough for any read. */
            if (requests < 0 || (requests > 0 && write(fd, replies, (size_t)requests * OK_SIZE) < 0)) close(fd);
        }
    }
}
