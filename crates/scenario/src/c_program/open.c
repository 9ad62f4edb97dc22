/* ---- What the program has open ---------------------------------------------------------------- */

struct device {
	char path[64];		/* its file, below /dev/vfio/devices */
	char address[32];	/* its PCI address */
	int vfio;
	__u32 id, parent, viommu, vdevice;
};

static struct device devices[DEVICES];
static int iommu;

static void must(int done, const char *what)
{
	if (done)
		return;
	fprintf(stderr, "cannot set up: %s: %s\n%s", what, strerror(errno), NEEDS);
	exit(2);
}

/* 0 or an error number. */
static int answer(long result)
{
	return result < 0 ? errno : 0;
}

/* Opens a file under a number that no other open() gets, even once it is closed. */
static int open_apart(const char *path)
{
	int low = open(path, O_RDWR | O_CLOEXEC), fd;

	must(low >= 0, path);
	fd = fcntl(low, F_DUPFD_CLOEXEC, 100);
	must(fd >= 0, path);
	close(low);
	return fd;
}

/* Finds the device's address. Returns 0, or -1 where no device is named. */
static int name_device(struct device *device, unsigned int number, const char *given)
{
	char link[128], target[256];
	ssize_t length;

	if (given)
		snprintf(device->path, sizeof(device->path), "%s", given);
	else if (getenv("BINDERY_CDEV"))
		snprintf(device->path, sizeof(device->path), "/dev/vfio/devices/vfio%u", number);
	else
		return -1;
	given = strrchr(device->path, '/');
	snprintf(link, sizeof(link), "/sys/class/vfio-dev%s/device", given ? given : "");
	length = readlink(link, target, sizeof(target) - 1);
	must(length > 0, link);
	target[length] = '\0';
	given = strrchr(target, '/');
	snprintf(device->address, sizeof(device->address), "%.31s", given ? given + 1 : target);
	return 0;
}
