/* SPDX-License-Identifier: BSD-2-Clause */
/* Listening at a path, for nobody but this user. */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/unix_socket_priv.h"

#define BACKLOG 128

static bool path_answers(const struct sockaddr_un *sa)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool yes;

	if (fd < 0)
		return true;
	/* anything but "refused" is no proof that its owner is gone */
	yes = !connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) || errno != ECONNREFUSED;
	close(fd);
	return yes;
}

/* The path is taken. 0: it was a dead one's and is free now. */
static int path_take(const struct sockaddr_un *sa, const char *label, bool replace, char *why)
{
	const char *path = sa->sun_path;
	struct stat st, again;

	if (lstat(path, &st) || !S_ISSOCK(st.st_mode)) {
		backend_why(
			why, "%s%.150s: exists and is no socket; use another path", label, path);
		return -EEXIST;
	}
	if (path_answers(sa)) {
		backend_why(
			why, "%s%.150s: in use by another process; use another path", label, path);
		return -EADDRINUSE;
	}
	if (!replace) {
		backend_why(why, "%s%.150s: left behind by a process that is gone; remove it",
			label, path);
		return -EEXIST;
	}
	/* two that start at once: the later one leaves the socket of the other alone */
	if (!lstat(path, &again) && again.st_dev == st.st_dev && again.st_ino == st.st_ino)
		unlink(path);
	return 0;
}

static int socket_bind(struct unix_socket *s, const char *label, bool replace, char *why)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int rc;

	memcpy(sa.sun_path, s->path, sizeof(sa.sun_path));
	/* the mode of the descriptor becomes the path's: there is no moment in which others could
	 * connect, and the process's umask is left alone */
	fchmod(s->fd, 0600);
	rc = bind(s->fd, (struct sockaddr *)&sa, sizeof(sa)) ? -errno : 0;
	if (rc == -EADDRINUSE) {
		rc = path_take(&sa, label, replace, why);
		if (rc)
			return rc;
		rc = bind(s->fd, (struct sockaddr *)&sa, sizeof(sa)) ? -errno : 0;
	}
	if (rc)
		backend_why(why, "%s%.150s: %s", label, s->path, strerror(-rc));
	else
		s->bound = true;
	return rc;
}

int unix_socket_listen(struct unix_socket *s, const char *label, const char *path, bool replace,
	char why[BACKEND_WHY_MAX])
{
	struct stat st;
	int rc;

	*s = (struct unix_socket){.fd = -1};
	if (!*path || strlen(path) >= sizeof(s->path)) {
		backend_why(why, "%s%.100s: a path of 1 to %zu bytes is needed", label, path,
			sizeof(s->path) - 1);
		return *path ? -ENAMETOOLONG : -EINVAL;
	}
	memcpy(s->path, path, strlen(path) + 1);
	s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->fd < 0) {
		rc = -errno;
		backend_why(why, "%s%.150s: %s", label, path, strerror(-rc));
		return rc;
	}
	rc = socket_bind(s, label, replace, why);
	if (rc)
		goto fail;
	if (lstat(s->path, &st) || (st.st_mode & 0777) != 0600 || listen(s->fd, BACKLOG)) {
		backend_why(why, "%s%.150s: cannot be listened on", label, path);
		rc = -EACCES;
		goto fail;
	}
	s->dev = st.st_dev;
	s->ino = st.st_ino;
	return 0;
fail:
	unix_socket_close(s);
	return rc;
}

void unix_socket_close(struct unix_socket *s)
{
	struct stat st;

	if (s->fd < 0)
		return;
	/* whoever has put something else there keeps it */
	if (s->bound && !lstat(s->path, &st) &&
		(!s->ino || (st.st_dev == s->dev && st.st_ino == s->ino)))
		unlink(s->path);
	s->bound = false;
	close(s->fd);
	s->fd = -1;
}

int unix_socket_open(
	struct unix_socket **out, const char *label, const char *path, char why[BACKEND_WHY_MAX])
{
	struct unix_socket *s = malloc(sizeof(*s));
	int rc;

	*out = NULL;
	if (!s) {
		backend_why(why, "%s%.150s: no memory", label, path);
		return -ENOMEM;
	}
	rc = unix_socket_listen(s, label, path, true, why);
	if (rc)
		free(s);
	else
		*out = s;
	return rc;
}

int unix_socket_fd(const struct unix_socket *s)
{
	return s->fd;
}

void unix_socket_free(struct unix_socket *s)
{
	if (!s)
		return;
	unix_socket_close(s);
	free(s);
}
