/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stream sockets between a stock Linux guest, by its own vsock driver, and programs of the host.
 * Static: it runs in a guest that has no library.
 *
 *   vsock guest         connects to the host's port 2000, sends a pattern, closes its sending side
 *                       and checks that the same bytes come back; tries port 2001, where nobody
 *                       listens; says so when it listens on port 3000, and echoes twice
 *   vsock echo SOCKET   on the host: listens at SOCKET_2000 and echoes one connection
 *   vsock dial SOCKET   on the host: asks for the guest's port 3000 and checks the pattern's echo
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define TOTAL      (4u << 20)
#define BLOCK      65536u
#define PATIENCE_S 120

static uint8_t buffer[BLOCK];

__attribute__((noreturn)) static void fail(const char *what)
{
	printf("FAIL %s: %s\n", what, strerror(errno));
	exit(1);
}

static void write_all(int fd, const uint8_t *b, size_t n)
{
	while (n) {
		ssize_t done = write(fd, b, n);

		if (done <= 0)
			fail("write");
		b += done;
		n -= (size_t)done;
	}
}

static void echo(int fd)
{
	ssize_t n;

	while ((n = read(fd, buffer, BLOCK)) > 0)
		write_all(fd, buffer, (size_t)n);
	if (n < 0)
		fail("read");
	close(fd);
}

static uint8_t pattern(uint32_t at)
{
	return (uint8_t)(at * 7 + (at >> 8) * 13 + (at >> 16) * 5);
}

static void pattern_send(int fd)
{
	for (uint32_t at = 0; at < TOTAL; at += BLOCK) {
		for (uint32_t i = 0; i < BLOCK; i++)
			buffer[i] = pattern(at + i);
		write_all(fd, buffer, BLOCK);
	}
	shutdown(fd, SHUT_WR);
}

/* Out by a child, back here. */
static void pattern_check(int fd)
{
	pid_t child = fork();
	uint32_t at = 0;
	int status;
	ssize_t n;

	if (child < 0)
		fail("fork");
	if (!child) {
		pattern_send(fd);
		_exit(0);
	}
	while ((n = read(fd, buffer, BLOCK)) > 0) {
		for (ssize_t i = 0; i < n; i++)
			if (buffer[i] != pattern(at + (uint32_t)i))
				fail("other bytes came back");
		at += (uint32_t)n;
	}
	if (n < 0)
		fail("read");
	if (at != TOTAL || waitpid(child, &status, 0) != child || status)
		fail("bytes are missing");
	close(fd);
}

/* ------------------------------------------------------------------ the guest */

static int guest_socket(void)
{
	struct timeval patience = {PATIENCE_S, 0};
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		fail("socket");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	return fd;
}

static int guest_dial(int fd, unsigned port)
{
	struct sockaddr_vm sa = {
		.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = port};

	return connect(fd, (struct sockaddr *)&sa, sizeof(sa));
}

static void guest_serve(unsigned times)
{
	struct sockaddr_vm sa = {
		.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = 3000};
	int listener = guest_socket();

	if (bind(listener, (struct sockaddr *)&sa, sizeof(sa)) || listen(listener, 4))
		fail("listen");
	printf("vsock listening\n");
	while (times--) {
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			fail("accept");
		echo(fd);
	}
}

static void guest(void)
{
	int fd = open("/dev/vsock", O_RDONLY | O_CLOEXEC);
	unsigned cid = 0;

	if (fd < 0 || ioctl(fd, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid))
		fail("/dev/vsock");
	close(fd);
	printf("vsock address %u\n", cid);
	fd = guest_socket();
	if (guest_dial(fd, 2000))
		fail("connect");
	pattern_check(fd);
	printf("PASS the guest connects: 4 MiB out and back\n");
	fd = guest_socket();
	if (!guest_dial(fd, 2001) || errno != ECONNRESET)
		fail("a port where nobody listens");
	close(fd);
	printf("PASS a port where nobody listens\n");
	guest_serve(2);
	printf("PASS the guest served two connections\n");
}

/* ------------------------------------------------------------------ the host */

static int host_socket(struct sockaddr_un *sa, const char *path, const char *suffix)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		fail("socket");
	*sa = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(sa->sun_path, sizeof(sa->sun_path), "%s%s", path, suffix);
	return fd;
}

static void host_echo(const char *path)
{
	struct sockaddr_un sa;
	int fd, listener = host_socket(&sa, path, "_2000");

	if (bind(listener, (struct sockaddr *)&sa, sizeof(sa)) || listen(listener, 4))
		fail(sa.sun_path);
	fd = accept(listener, NULL, NULL);
	if (fd < 0)
		fail("accept");
	unlink(sa.sun_path);
	echo(fd);
}

static void host_dial(const char *path)
{
	static const char ask[] = "CONNECT 3000\n";
	struct sockaddr_un sa;
	int fd = host_socket(&sa, path, "");
	char c = 0;

	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)))
		fail(path);
	write_all(fd, (const uint8_t *)ask, sizeof(ask) - 1);
	while (c != '\n')
		if (read(fd, &c, 1) != 1)
			fail("the guest refused");
	pattern_check(fd);
	printf("PASS the host connects: 4 MiB out and back\n");
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOLBF, 0);
	alarm(4 * PATIENCE_S);
	if (argc == 2 && !strcmp(argv[1], "guest"))
		guest();
	else if (argc == 3 && !strcmp(argv[1], "echo"))
		host_echo(argv[2]);
	else if (argc == 3 && !strcmp(argv[1], "dial"))
		host_dial(argv[2]);
	else
		return 2;
	return 0;
}
