/* One byte of the database is wrong. The file of several sessions, with checkpoints and journaled
 * events after them, is damaged at one byte, and opened; every session is read and takes a step.
 * Then each answer is right to the last bit, or a sentence that names what is damaged. A session
 * that is said not to exist, another step, other bits or a crash are wrong.
 *
 * The bytes: the file's header; of every page its header and the cell pointers after it; of
 * every row its beginning; and random ones, each with a random wrong value. DESCENT_FAULT_LONG:
 * many more of them. */
#include <check.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "service/core/log.h"
#include "service/session/session.h"
#include "storage/store.h"
#include "tests/fault/story.h"
#include "tests/lib/shim_vfs.h"
#include "tests/lib/testing.h"

enum { SESSIONS = 5, WORKERS = 4, PAGE_BYTES = 32768, FILE_HEADER_BYTES = 100 };

static const struct kind {
    const char *id, *rule;
    enum dtype dtype;
    size_t count, before, after; /* steps before and after a checkpoint */
    enum durability mode;
} kinds[SESSIONS] = {
    {"one", "adam", DTYPE_F32, 1031, 3, 4, DURABILITY_STEP},
    {"two", "sgd", DTYPE_F64, 7, 0, 2, DURABILITY_STEP},
    {"wide", "adam", DTYPE_F32, 30011, 1, 1, DURABILITY_STEP},
    {"late", "adagrad", DTYPE_F32, 257, 2, 3, DURABILITY_INTERVAL},
    {"kept", "sgd", DTYPE_F32, 131, 4, 0, DURABILITY_CHECKPOINT},
};

static struct digest stands[SESSIONS], goes_on[SESSIONS]; /* as stored; after a step more */
static unsigned char *image;                              /* the database, undamaged */
static size_t image_bytes;

struct tally {
    size_t index; /* of the byte that is under way */
    uint64_t runs, refused, unreadable, unwritable, unharmed, wrong;
};

struct byte {
    size_t offset;
    unsigned char wrong; /* xor, not 0 */
};

static struct byte *bytes;
static size_t byte_count;

static bool is_long(void)
{
    const char *text = getenv("DESCENT_FAULT_LONG");

    return text != NULL && strcmp(text, "1") == 0;
}

static enum status take_step(struct session *session, size_t s, size_t number, struct fault *fault)
{
    uint64_t random = testing_seed() ^ (1000 * s + number);
    struct buffer *gradient = engines_gradient(DTYPE_F32, kinds[s].count, &random);
    struct submission submission = engines_submission(gradient, DTYPE_F32);

    submission.worker = "w";
    submission.seq = number;
    enum status status = engines_submit(session, &submission, NULL, NULL, fault);
    buffer_release(gradient);
    return status;
}

static void take_steps(struct engine *engine, bool after)
{
    for (size_t s = 0; s < SESSIONS; s++) {
        struct session *session = engines_find(engine, kinds[s].id);
        size_t first = after ? kinds[s].before : 0;
        size_t last = after ? kinds[s].before + kinds[s].after : kinds[s].before;
        struct fault fault;
        for (size_t number = first + 1; number <= last; number++)
            ck_assert_msg(take_step(session, s, number, &fault) == STATUS_OK, "%s", fault.detail);
        session_release(session);
    }
}

static void read_image(const char *path)
{
    struct stat information;
    int descriptor = open(path, O_RDONLY);

    ck_assert_int_eq(fstat(descriptor, &information), 0);
    image_bytes = (size_t)information.st_size;
    ck_assert_ptr_nonnull(image = malloc(image_bytes));
    ck_assert_int_eq(read(descriptor, image, image_bytes), (ssize_t)image_bytes);
    close(descriptor);
}

static void write_image(const char *folder)
{
    char path[512];

    snprintf(path, sizeof path, "%s/descent.db", folder);
    int descriptor = open(path, O_RDWR | O_CREAT, 0600);
    ck_assert_int_eq(write(descriptor, image, image_bytes), (ssize_t)image_bytes);
    close(descriptor);
}

/* Makes the database and learns what it holds. The file is taken while the engine runs, as a kill
 * would leave it: an orderly stop would leave no event after the checkpoints. */
static void make_image(void)
{
    char path[512];
    const char *folder = testing_folder(), *aside = testing_folder();
    struct engine *engine = engines_open(folder, NULL);

    for (size_t s = 0; s < SESSIONS; s++) {
        struct spec spec = engines_spec(kinds[s].dtype, kinds[s].rule);
        spec.durability.mode = (int)kinds[s].mode;
        spec.durability.seconds = 0.001;
        spec.durability.steps = 4;
        session_release(engines_create(engine, kinds[s].id, &spec, kinds[s].count));
    }
    take_steps(engine, false);
    engine_save(engine);
    take_steps(engine, true);
    usleep(300000); /* the interval is over */
    snprintf(path, sizeof path, "%s/descent.db", folder);
    read_image(path);
    write_image(aside);
    engine_close(engine);
    engine = engines_open(aside, NULL);
    for (size_t s = 0; s < SESSIONS; s++) {
        struct session *session = engines_find(engine, kinds[s].id);
        struct fault fault;
        ck_assert_uint_eq(engines_view(session).step, kinds[s].before + kinds[s].after);
        ck_assert_uint_eq(engines_view(session).durable_step, kinds[s].before + kinds[s].after);
        stands[s] = engines_digest(session, false);
        size_t number = kinds[s].before + kinds[s].after + 1;
        ck_assert_msg(take_step(session, s, number, &fault) == STATUS_OK, "%s", fault.detail);
        goes_on[s] = engines_digest(session, false);
        session_release(session);
    }
    engine_close(engine);
}

static void add_byte(size_t offset, uint64_t *random)
{
    unsigned char wrong = (unsigned char)(testing_random(random) % 255 + 1);

    if (testing_random(random) % 2 == 0)
        wrong = (unsigned char)(1u << testing_random(random) % 8); /* a single bit */
    bytes[byte_count++] = (struct byte){offset, wrong};
}

/* The beginnings of the rows on a page of a table: sizes, row numbers, types, and the numbers that
 * say whose a record is, which a checksum over the record must not leave out. */
static void add_rows(size_t page, size_t each, uint64_t *random)
{
    enum { LEAF_OF_TABLE = 13, LEAF_HEADER = 8 };
    const unsigned char *start = image + page * PAGE_BYTES;
    const unsigned char *header = start + (page == 0 ? FILE_HEADER_BYTES : 0);
    size_t rows = (size_t)header[3] << 8 | header[4];

    if (header[0] != LEAF_OF_TABLE || rows > 100)
        return;
    for (size_t i = 0; i < rows; i++) {
        const unsigned char *pointer = header + LEAF_HEADER + 2 * i;
        size_t cell = (size_t)pointer[0] << 8 | pointer[1];
        for (size_t k = 0; k < each && cell + k < PAGE_BYTES; k++)
            add_byte(page * PAGE_BYTES + cell + k, random);
    }
}

static void choose_bytes(void)
{
    uint64_t random = testing_seed() ^ 0xF11B;
    size_t pages = image_bytes / PAGE_BYTES, drawn = is_long() ? 6000 : 300;
    size_t heads = is_long() ? 64 : 10, tails = is_long() ? 64 : 4;

    bytes = calloc(FILE_HEADER_BYTES + pages * (heads + tails + 100 * 32) + drawn, sizeof *bytes);
    ck_assert_ptr_nonnull(bytes);
    for (size_t i = 0; i < FILE_HEADER_BYTES; i++)
        add_byte(i, &random);
    for (size_t page = 0; page < pages; page++) {
        size_t start = page == 0 ? FILE_HEADER_BYTES : page * PAGE_BYTES;
        for (size_t i = 0; i < heads; i++)
            add_byte(start + i, &random);
        add_rows(page, is_long() ? 32 : 20, &random);
        for (size_t i = 0; i < tails; i++) /* cells grow from the end */
            add_byte((page + 1) * PAGE_BYTES - 1 - testing_random(&random) % 1024, &random);
    }
    for (size_t i = 0; i < drawn; i++)
        add_byte(testing_random(&random) % image_bytes, &random);
}

/* --- one damaged file --- */

static void say_wrong(struct tally *tally, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void say_wrong(struct tally *tally, const char *format, ...)
{
    const struct byte *byte = &bytes[tally->index];
    va_list arguments;

    va_start(arguments, format);
    printf("  byte %zu (page %zu + %zu) ^ 0x%02x: ", byte->offset, byte->offset / PAGE_BYTES + 1,
           byte->offset % PAGE_BYTES, byte->wrong);
    vprintf(format, arguments);
    printf("\n");
    fflush(stdout);
    va_end(arguments);
    tally->wrong++;
}

/* A sentence is wanted that tells what is damaged. */
static bool names_damage(const struct fault *fault)
{
    static const char *const words[] = {"descent.db", "checkpoint", "journal", "stored", "event"};

    if (fault->status != STATUS_STORAGE_FAILED && fault->status != STATUS_STORAGE_FULL)
        return false;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strstr(fault->detail, words[i]) != NULL)
            return true;
    return false;
}

static bool digest_is(struct session *session, const struct digest *digest)
{
    struct digest now = engines_digest(session, false);

    return memcmp(now.bytes, digest->bytes, sizeof now.bytes) == 0;
}

/* Reads a session and takes a step. */
static void try_session(struct engine *engine, size_t s, struct tally *tally)
{
    struct session *session = NULL;
    struct fault fault = {.status = STATUS_OK};
    size_t last = kinds[s].before + kinds[s].after;

    if (engine_find(engine, "", kinds[s].id, &session, &fault) != STATUS_OK) {
        say_wrong(tally, "session %s does not exist any more", kinds[s].id);
        return;
    }
    enum status status = session_enter(session, &fault);
    if (status != STATUS_OK) {
        tally->unreadable++;
        if (!names_damage(&fault))
            say_wrong(tally, "%s: %s: %s", kinds[s].id, status_code(status), fault.detail);
        session_release(session);
        return;
    }
    if (engines_view(session).step != last)
        say_wrong(tally, "%s stands at step %d, not %d", kinds[s].id,
                  (int)engines_view(session).step, (int)last);
    else if (!digest_is(session, &stands[s]))
        say_wrong(tally, "%s has other bits", kinds[s].id);
    session_leave(session);
    status = take_step(session, s, last + 1, &fault);
    if (status != STATUS_OK) {
        tally->unwritable++;
        if (!names_damage(&fault))
            say_wrong(tally, "%s: a step: %s: %s", kinds[s].id, status_code(status), fault.detail);
    } else if (!digest_is(session, &goes_on[s])) {
        say_wrong(tally, "%s: a step more gives other bits", kinds[s].id);
    }
    session_release(session);
}

static void try_byte(int descriptor, const char *folder, struct tally *tally)
{
    const struct byte *byte = &bytes[tally->index];
    unsigned char wrong = image[byte->offset] ^ byte->wrong;
    struct engine_options options = engines_options();
    struct fault fault = {.status = STATUS_OK};
    struct engine *engine;
    struct tally before = *tally;

    ck_assert_int_eq(ftruncate(descriptor, (off_t)image_bytes), 0);
    ck_assert_int_eq(pwrite(descriptor, image, image_bytes, 0), (ssize_t)image_bytes);
    ck_assert_int_eq(pwrite(descriptor, &wrong, 1, (off_t)byte->offset), 1);
    tally->runs++;
    enum status status = store_open(folder, false, &options.take_store, &fault);
    if (status == STATUS_OK)
        status = engine_open(&options, &engine, &fault);
    if (status != STATUS_OK) {
        tally->refused++;
        if (!names_damage(&fault))
            say_wrong(tally, "opening: %s: %s", status_code(status), fault.detail);
        return;
    }
    for (size_t s = 0; s < SESSIONS; s++)
        try_session(engine, s, tally);
    tally->unharmed += tally->unreadable == before.unreadable &&
                       tally->unwritable == before.unwritable && tally->wrong == before.wrong;
    engine_close(engine);
}

static void try_bytes(size_t worker, struct tally *tally)
{
    const char *folder = testing_folder();
    char path[512];

    snprintf(path, sizeof path, "%s/descent.db", folder);
    int descriptor = open(path, O_RDWR | O_CREAT, 0600);
    ck_assert_int_ge(descriptor, 0);
    for (tally->index = worker; tally->index < byte_count; tally->index += WORKERS)
        try_byte(descriptor, folder, tally);
    close(descriptor);
}

START_TEST(flipped_byte_is_found_or_does_no_harm)
{
    struct tally *tallies = mmap(NULL, WORKERS * sizeof *tallies, PROT_READ | PROT_WRITE,
                                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct tally all = {0};
    pid_t workers[WORKERS];

    ck_assert_ptr_ne(tallies, MAP_FAILED);
    log_set_level(LOG_OFF);
    shim_vfs_install(); /* for its quick syncs */
    make_image();
    choose_bytes();
    for (size_t w = 0; w < WORKERS; w++) {
        fflush(stdout);
        ck_assert_int_ge(workers[w] = fork(), 0);
        if (workers[w] == 0) {
            try_bytes(w, &tallies[w]);
            _exit(0);
        }
    }
    for (size_t w = 0; w < WORKERS; w++) {
        int state;
        ck_assert_int_eq(waitpid(workers[w], &state, 0), workers[w]);
        if (!WIFEXITED(state) || WEXITSTATUS(state) != 0)
            say_wrong(&tallies[w], "the process ended with %x", (unsigned)state);
        all.runs += tallies[w].runs;
        all.refused += tallies[w].refused;
        all.unreadable += tallies[w].unreadable;
        all.unwritable += tallies[w].unwritable;
        all.unharmed += tallies[w].unharmed;
        all.wrong += tallies[w].wrong;
    }
    printf("  %d bytes of a database of %d pages: %d files refused, %d sessions could not be read "
           "and %d not stepped, %d files had all their bits, %d wrong\n",
           (int)all.runs, (int)(image_bytes / PAGE_BYTES), (int)all.refused, (int)all.unreadable,
           (int)all.unwritable, (int)all.unharmed, (int)all.wrong);
    ck_assert_uint_eq(all.runs, byte_count);
    ck_assert_uint_gt(all.refused, 0);
    ck_assert_uint_gt(all.unreadable, 0);
    ck_assert_uint_eq(all.wrong, 0);
}
END_TEST

Suite *suite_flipped_byte(void);

Suite *suite_flipped_byte(void)
{
    Suite *suite = suite_create("flipped_byte");
    TCase *tcase = tcase_create("the database");

    tcase_set_timeout(tcase, is_long() ? 1200 : 120);
    tcase_add_test(tcase, flipped_byte_is_found_or_does_no_harm);
    suite_add_tcase(suite, tcase);
    return suite;
}
