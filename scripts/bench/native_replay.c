/*
 * Replays on the C library's malloc what the bench replays on Slabtown: the same streams, the same loops.
 *
 * `slabtown bench` compiles this file into a temporary folder, and runs it once plain and once per allocator library
 * that it finds, loaded in front (LD_PRELOAD). It has no state of its own on the heap that is measured: the stream and
 * the table of blocks are mapped. The result is one line of JSON.
 *
 *   stream FILE SHIFT WARMUP OPS MAXMS CHECK   a recorded stream (stream_file.ts); SHIFT 12: sizes are orders of pages
 *   pairs  SIZE BURST WARMUP OPS MAXMS CHECK   BURST allocations, then as many frees
 *   churn  THREADS PAIRS                       larson, as parallel_workloads.ts: arrays of objects are exchanged
 *   pipe   THREADS PAIRS                       one thread allocates, the next one frees
 *
 * CHECK 1: each block is stamped at both ends and checked before it is freed; damaged stamps are counted as `damaged`.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 4096, MAGIC = 0x31525453, HEADER_WORDS = 4 };

struct block {
  unsigned char *at;
  size_t bytes;
};

static int isChecking;
static long nrFailed, nrDamaged;

static double nowNs(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return t.tv_sec * 1e9 + t.tv_nsec;
}

static void *mapZeroes(size_t bytes) {
  void *at = mmap(NULL, bytes + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) exit(2);
  return at;
}

/* A compiler may leave out a malloc whose block nobody reads: the address goes where it cannot look. */
static void *volatile sink;

static inline void allocBlock(struct block *block, size_t bytes, unsigned stamp) {
  block->at = malloc(bytes);
  block->bytes = bytes;
  sink = block->at;
  if (block->at == NULL) {
    nrFailed++;
  } else if (isChecking) {
    block->at[0] = block->at[bytes - 1] = (unsigned char)stamp;
  }
}

static inline void freeBlock(struct block *block, unsigned stamp) {
  if (isChecking && block->at != NULL) {
    unsigned char want = (unsigned char)stamp;
    if (block->at[0] != want || block->at[block->bytes - 1] != want) nrDamaged++;
  }
  free(block->at);
}

/* ── one thread ─────────────────────────────────────────────────────────────────────────────────────────────────── */

struct replay {
  /* stream */
  const int32_t *words;
  const uint16_t *sizes;
  int64_t next, end;
  int shift;
  /* pairs */
  size_t size;
  int burst;
  struct block *blocks;
};

static int64_t streamChunk(struct replay *r, int64_t max) {
  int64_t end = r->next + max < r->end ? r->next + max : r->end, start = r->next;
  for (int64_t i = start; i < end; i++) {
    uint32_t word = (uint32_t)r->words[i], slot = word >> 1;
    if ((word & 1) == 0) {
      allocBlock(&r->blocks[slot], r->shift == 0 ? r->sizes[i] : (size_t)1 << (r->shift + r->sizes[i]), slot);
    } else {
      freeBlock(&r->blocks[slot], slot);
    }
  }
  r->next = end;
  return end - start;
}

static int64_t pairsChunk(struct replay *r, int64_t max) {
  int64_t rounds = max / (2 * r->burst);
  if (rounds < 1) rounds = 1;
  for (int64_t i = 0; i < rounds; i++) {
    for (int j = 0; j < r->burst; j++) allocBlock(&r->blocks[j], r->size, j);
    for (int j = 0; j < r->burst; j++) freeBlock(&r->blocks[j], j);
  }
  return rounds * 2 * r->burst;
}

struct timing {
  int64_t ops;
  double wallNs, cpuNs, worstNs;
};

/* Runs up to `ops` operations in chunks, until `maxMs` of CPU time have gone. */
static struct timing run(struct replay *r, int64_t ops, double maxMs) {
  struct timing t = {0, 0, 0, 0};
  double start = nowNs(CLOCK_MONOTONIC), last = start, cpuStart = nowNs(CLOCK_PROCESS_CPUTIME_ID), cpu = cpuStart;
  while (t.ops < ops && cpu - cpuStart < maxMs * 1e6) {
    int64_t max = ops - t.ops < CHUNK ? ops - t.ops : CHUNK;
    int64_t done = r->words != NULL ? streamChunk(r, max) : pairsChunk(r, max);
    if (done == 0) break;
    double now = nowNs(CLOCK_MONOTONIC);
    if ((now - last) / done > t.worstNs) t.worstNs = (now - last) / done;
    last = now;
    cpu = nowNs(CLOCK_PROCESS_CPUTIME_ID);
    t.ops += done;
  }
  t.wallNs = last - start;
  t.cpuNs = cpu - cpuStart;
  return t;
}

static const char *library(void) {
  Dl_info info;
  void *(*function)(size_t) = malloc;
  return dladdr(*(void **)&function, &info) != 0 && info.dli_fname != NULL ? info.dli_fname : "?";
}

static int single(struct replay *r, int64_t fill, char **rest) {
  int64_t warmup = atoll(rest[0]), ops = atoll(rest[1]);
  double maxMs = atof(rest[2]);
  isChecking = atoi(rest[3]);
  if (fill > 0) run(r, fill, 1e9);
  run(r, warmup, maxMs);
  struct timing t = run(r, ops, maxMs);
  printf("{\"nrOps\":%lld,\"nsPerOp\":%.4f,\"cpuNsPerOp\":%.4f,\"worstNsPerOp\":%.4f,\"nrFailed\":%ld,\"damaged\":%ld,"
         "\"library\":\"%s\"}\n",
         (long long)t.ops, t.wallNs / t.ops, t.cpuNs / t.ops, t.worstNs, nrFailed, nrDamaged, library());
  return 0;
}

static int stream(char **argv) {
  int fd = open(argv[0], O_RDONLY);
  struct stat info;
  if (fd < 0 || fstat(fd, &info) != 0) return 2;
  const int32_t *file = mmap(NULL, info.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
  if (file == MAP_FAILED || file[0] != MAGIC) return 2;
  int64_t nrOps = file[1];
  struct replay r = {.words = file + HEADER_WORDS, .end = nrOps, .shift = atoi(argv[1])};
  r.sizes = (const uint16_t *)(r.words + nrOps);
  r.blocks = mapZeroes(file[2] * sizeof(struct block));
  return single(&r, file[3], argv + 2);
}

static int pairs(char **argv) {
  struct replay r = {.size = (size_t)atoll(argv[0]), .burst = atoi(argv[1])};
  r.blocks = mapZeroes(r.burst * sizeof(struct block));
  return single(&r, 0, argv + 2);
}

/* ── threads ────────────────────────────────────────────────────────────────────────────────────────────────────── */

enum { SLOTS = 1000, SWAP = 20000, RANDOMS = 1 << 16, RING = 4096, BATCH = 64, PIPE_OBJECT = 64, MAX_THREADS = 64 };

struct pipe {
  _Alignas(128) atomic_uint head;
  _Alignas(128) atomic_uint tail;
  _Alignas(128) void *slots[RING];
};

struct thread {
  pthread_t id;
  int number, nrThreads;
  long pairs;
  void **array;
  uint32_t *randoms;
  double startNs, endNs;
};

static _Atomic(void **) spareArray;
static struct pipe *pipes;
static pthread_barrier_t atStart;
static int isPipe;

static void *place(uint32_t random) { return malloc(16 + (random & 0xffff) % 497); }

static void churn(struct thread *t, long nrPairs) {
  uint32_t position = 0;
  for (long i = 0; i < nrPairs; i++) {
    uint32_t random = t->randoms[position++ & (RANDOMS - 1)];
    void **slot = &t->array[(random >> 16) % SLOTS];
    free(*slot);
    *slot = place(random);
    if (*slot == NULL) abort();
    if (i % SWAP == SWAP - 1) t->array = atomic_exchange(&spareArray, t->array);
  }
}

static void produce(struct pipe *p, uint32_t head) {
  for (uint32_t i = 0; i < BATCH; i++) {
    uint32_t *object = malloc(PIPE_OBJECT);
    if (object == NULL) abort();
    *object = head + i;
    p->slots[(head + i) % RING] = object;
  }
  atomic_store_explicit(&p->head, head + BATCH, memory_order_release);
}

static void consume(struct pipe *p, uint32_t tail) {
  for (uint32_t i = 0; i < BATCH; i++) {
    uint32_t *object = p->slots[(tail + i) % RING];
    if (*object != tail + i) abort();
    free(object);
  }
  atomic_store_explicit(&p->tail, tail + BATCH, memory_order_release);
}

static void relax(long look) {
  if (look > 2000) sched_yield();
}

static void pump(struct thread *t, long nrPairs, uint32_t *position) {
  struct pipe *p = &pipes[t->number / 2];
  int isAlone = (t->number ^ 1) >= t->nrThreads;
  for (long done = 0; done < nrPairs; done += BATCH, *position += BATCH) {
    if (isAlone) {
      produce(p, *position);
      consume(p, *position);
    } else if (t->number % 2 == 0) {
      for (long look = 0; *position - atomic_load_explicit(&p->tail, memory_order_acquire) > RING - BATCH; look++)
        relax(look);
      produce(p, *position);
    } else {
      for (long look = 0; atomic_load_explicit(&p->head, memory_order_acquire) - *position < BATCH; look++)
        relax(look);
      consume(p, *position);
    }
  }
}

static void *threadMain(void *argument) {
  struct thread *t = argument;
  uint32_t position = 0;
  for (int round = 0; round < 2; round++) {
    pthread_barrier_wait(&atStart);
    t->startNs = nowNs(CLOCK_MONOTONIC);
    long nrPairs = round == 0 ? t->pairs / 10 : t->pairs;
    if (isPipe) pump(t, nrPairs, &position);
    else churn(t, nrPairs);
    t->endNs = nowNs(CLOCK_MONOTONIC);
  }
  return NULL;
}

static int threads(char **argv) {
  static struct thread all[MAX_THREADS];
  int nr = atoi(argv[0]);
  if (nr < 1 || nr > MAX_THREADS) return 2;
  uint32_t random = 12345;
  pthread_barrier_init(&atStart, NULL, nr);
  pipes = mapZeroes(MAX_THREADS * sizeof *pipes);
  for (int n = 0; n <= nr; n++) {
    void **array = mapZeroes(SLOTS * sizeof *array);
    for (int i = 0; i < SLOTS; i++) array[i] = isPipe ? NULL : place(random = random * 1664525u + 1013904223u);
    if (n == nr) {
      atomic_store(&spareArray, array);
      break;
    }
    struct thread *t = &all[n];
    t->number = n, t->nrThreads = nr, t->array = array, t->pairs = atol(argv[1]) / BATCH * BATCH;
    t->randoms = mapZeroes(RANDOMS * sizeof *t->randoms);
    for (int i = 0; i < RANDOMS; i++) {
      random = random * 1664525u + 1013904223u;
      t->randoms[i] = random ^ random >> 15;
    }
  }
  for (int n = 0; n < nr; n++)
    if (pthread_create(&all[n].id, NULL, threadMain, &all[n]) != 0) return 2;
  double start = 0, end = 0, pairsDone = 0;
  for (int n = 0; n < nr; n++) {
    pthread_join(all[n].id, NULL);
    if (start == 0 || all[n].startNs < start) start = all[n].startNs;
    if (all[n].endNs > end) end = all[n].endNs;
    /* Both sides of a pipe do half of each pair. */
    pairsDone += isPipe && (all[n].number ^ 1) < nr ? all[n].pairs / 2.0 : all[n].pairs;
  }
  printf("{\"millionPairsPerSecond\":%.4f,\"library\":\"%s\"}\n", pairsDone / (end - start) * 1000, library());
  return 0;
}

int main(int argc, char **argv) {
  const char *mode = argc > 1 ? argv[1] : "";
  if (argc == 8 && strcmp(mode, "stream") == 0) return stream(argv + 2);
  if (argc == 8 && strcmp(mode, "pairs") == 0) return pairs(argv + 2);
  isPipe = strcmp(mode, "pipe") == 0;
  if (argc == 4 && (isPipe || strcmp(mode, "churn") == 0)) return threads(argv + 2);
  fprintf(stderr, "usage: see the head of native_replay.c\n");
  return 2;
}
