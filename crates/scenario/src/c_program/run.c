/* ---- The order, and what came of it ---------------------------------------------------------- */

enum { ERRORS = 600, PATIENCE_S = 10 };

static unsigned int answers[THREADS][CALLS][ERRORS];
static double delay_ms = 10;
static struct timespec start;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned int ended;	/* threads */
static int under_way[THREADS];	/* each thread's call, by its place; CALLS: none */

static const char *name_of(int error)
{
	static char number[16];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (names[i].error == error)
			return names[i].name;
	snprintf(number, sizeof(number), "%d", error);
	return number;
}

static struct timespec after(struct timespec from, double ms)
{
	long long ns = from.tv_nsec + (long long)(ms * 1e6);

	from.tv_sec += ns / 1000000000;
	from.tv_nsec = ns % 1000000000;
	return from;
}

static struct timespec at_slot(unsigned int slot)
{
	return after(start, slot * delay_ms);
}

static void set_under_way(unsigned int thread, int call)
{
	pthread_mutex_lock(&lock);
	under_way[thread] = call;
	pthread_mutex_unlock(&lock);
}

static void *run_thread(void *number)
{
	unsigned int thread = (unsigned int)(size_t)number;

	for (unsigned int i = 0; i < CALLS && threads[thread][i].name; i++) {
		const struct call *call = &threads[thread][i];
		struct timespec at = at_slot(call->slot);
		int error;

		while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR)
			;
		set_under_way(thread, (int)i);
		error = call->make(&devices[call->device]);
		set_under_way(thread, CALLS);
		answers[thread][i][error < ERRORS ? error : 0]++;
	}
	pthread_mutex_lock(&lock);
	ended++;
	pthread_cond_signal(&changed);
	pthread_mutex_unlock(&lock);
	return NULL;
}

static int is_expected(const struct call *call, int error)
{
	for (int i = 0; i < call->expected_count; i++)
		if (call->expected[i] == error)
			return 1;
	return call->expected_count == 0;
}

/* Prints what each call answered and how often. Returns how many answers were not expected. */
static unsigned int report(void)
{
	unsigned int surprises = 0;

	for (unsigned int thread = 0; thread < THREADS; thread++)
		for (unsigned int i = 0; i < CALLS && threads[thread][i].name; i++) {
			const struct call *call = &threads[thread][i];

			printf("T%u %-22s", thread, call->name);
			for (int error = 0; error < ERRORS; error++) {
				unsigned int times = answers[thread][i][error];

				if (times == 0)
					continue;
				printf(" %s x%u", name_of(error), times);
				if (!is_expected(call, error)) {
					printf(" (not expected)");
					surprises += times;
				}
			}
			printf("%s", call->expected_count ? "   expected" : "   anything is expected");
			for (int e = 0; e < call->expected_count; e++)
				printf(" %s", name_of(call->expected[e]));
			printf("\n");
		}
	return surprises;
}

/* Waits until all threads have ended. One that does not is told, and nothing can be undone. */
static void wait_for_threads(void)
{
	struct timespec until = at_slot(SLOTS);
	int late = 0;

	until.tv_sec += PATIENCE_S;
	pthread_mutex_lock(&lock);
	while (ended < THREADS && !late)
		late = pthread_cond_timedwait(&changed, &lock, &until) == ETIMEDOUT;
	for (unsigned int thread = 0; late && thread < THREADS; thread++)
		if (under_way[thread] < CALLS)
			printf("T%u %s has not returned after %d s\n", thread,
			       threads[thread][under_way[thread]].name, PATIENCE_S);
	pthread_mutex_unlock(&lock);
	if (late) {
		report();
		fflush(stdout);
		_exit(1);
	}
}

static void run_once(void)
{
	pthread_t running[THREADS];

	set_up();
	for (const struct call *call = set_up_calls; call->name; call++) {
		errno = call->make(&devices[call->device]);
		must(call->expected_count ? is_expected(call, errno) : errno == 0, call->name);
	}
	ended = 0;
	clock_gettime(CLOCK_MONOTONIC, &start);
	start = after(start, 5);	/* by then all threads are there */
	for (size_t thread = 0; thread < THREADS; thread++) {
		under_way[thread] = CALLS;
		errno = pthread_create(&running[thread], NULL, run_thread, (void *)thread);
		must(errno == 0, "make a thread");
	}
	wait_for_threads();
	for (size_t thread = 0; thread < THREADS; thread++)
		pthread_join(running[thread], NULL);
	tear_down();
}

static void use(const char *program)
{
	fprintf(stderr, "usage: %s [-d MS] [-n ROUNDS] [DEVICE...]\n%s", program, NEEDS);
	exit(2);
}

int main(int argc, char **argv)
{
	pthread_condattr_t monotonic;
	long rounds = 1;
	int option;

	while ((option = getopt(argc, argv, "d:n:")) != -1) {
		if (option == 'd')
			delay_ms = atof(optarg);
		else if (option == 'n')
			rounds = atol(optarg);
		else
			use(argv[0]);
	}
	if (delay_ms < 0 || rounds < 1)
		use(argv[0]);
	for (unsigned int n = 0; n < DEVICES; n++)
		if (name_device(&devices[n], n, optind + (int)n < argc ? argv[optind + n] : NULL))
			use(argv[0]);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&changed, &monotonic);
	while (rounds--)
		run_once();
	return report() ? 1 : 0;
}
