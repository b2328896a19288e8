/* Every storage backend keeps the promises of storage/store.h. Loop index _i is the backend. */
#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/store.h"
#include "tests/lib/testing.h"

static struct fault fault;
static unsigned char head_out[STORE_HEAD_BYTES], body_out[STORE_CHUNK_BYTES];
static unsigned char noise[STORE_CHUNK_BYTES];

#define OK(call) ck_assert_msg((call) == STATUS_OK, "%s: %s", #call, fault.detail)
#define FAILS(status, call) ck_assert_uint_eq(call, STATUS_##status)

static void noise_make(void)
{
    uint64_t state = testing_seed() ^ 0x5708;

    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (unsigned char)testing_random(&state);
}

static struct store *open_at(int i, const char *folder)
{
    const struct store_options options = {.folder = folder, .create = true};
    struct store *store = NULL;

    noise_make();
    OK(store_backend_at((size_t)i)->open(&options, &store, &fault));
    return store;
}

static struct store *open_new(int i)
{
    return open_at(i, testing_folder());
}

#define CALL(verb, ...) store->backend->verb(store, __VA_ARGS__)

static enum status put_session(struct store *store, int64_t key, const char *id, size_t size)
{
    const struct store_session session = {key, id, span_of(noise, size)};

    return CALL(session_put, &session, &fault);
}

static enum status append(struct store *store, uint64_t lsn, uint32_t chunk, uint32_t chunks,
                          size_t head_size, size_t body_size)
{
    const struct store_event event = {
        .lsn = lsn,
        .session = 3,
        .step = UINT64_MAX - lsn,
        .kind = 2,
        .chunk = chunk,
        .chunks = chunks,
        .head = span_of(noise + 1, head_size),
        .body = span_of(noise, body_size),
    };

    return CALL(event_append, &event, &fault);
}

static enum status event_at(struct store *store, uint64_t lsn)
{
    struct store_event event;

    return CALL(event_read, lsn, head_out, body_out, &event, &fault);
}

static enum status chunk_at(struct store *store, uint64_t id, uint32_t chunk)
{
    size_t size;

    return CALL(checkpoint_read, id, chunk, body_out, &size, &fault);
}

static void put_checkpoint(struct store *store, uint64_t id, uint32_t chunks, bool seal)
{
    for (uint32_t i = 0; i < chunks; i++)
        OK(CALL(checkpoint_put, id, 3, i, span_of(noise, 7 + i), &fault));
    const struct store_checkpoint checkpoint = {id, 3, 40 + id, 4, chunks, 7};
    if (seal)
        OK(CALL(checkpoint_seal, &checkpoint, &fault));
}

/* What a scan saw, as text: "s3:m c2@42 e5". */
struct seen {
    char text[512];
    uint64_t bytes;   /* of the events */
    enum status stop; /* what the first event is answered with */
};

static enum status see_session(void *context, const struct store_session *session)
{
    struct seen *seen = context;
    size_t used = strlen(seen->text);

    ck_assert(session->record.size <= sizeof noise);
    if (session->record.size > 0)
        ck_assert_mem_eq(session->record.data, noise, session->record.size);
    snprintf(seen->text + used, sizeof seen->text - used, "s%d:%s:%zu ", (int)session->key,
             session->id, session->record.size);
    return STATUS_OK;
}

static enum status see_checkpoint(void *context, const struct store_checkpoint *checkpoint)
{
    struct seen *seen = context;
    size_t used = strlen(seen->text);

    ck_assert_int_eq(checkpoint->session, 3);
    ck_assert_uint_eq(checkpoint->step, 4);
    ck_assert_uint_eq(checkpoint->bytes, 7);
    snprintf(seen->text + used, sizeof seen->text - used, "c%d@%d:%u ", (int)checkpoint->id,
             (int)checkpoint->lsn, checkpoint->chunks);
    return STATUS_OK;
}

static enum status see_event(void *context, const struct store_event *event)
{
    struct seen *seen = context;
    size_t used = strlen(seen->text);

    ck_assert_uint_eq(event->step, UINT64_MAX - event->lsn);
    ck_assert_uint_eq(event->kind, 2);
    ck_assert_uint_eq(event->chunk, 0);
    ck_assert(event->head.data == NULL && event->body.data == NULL);
    seen->bytes += event->head.size + event->body.size;
    snprintf(seen->text + used, sizeof seen->text - used, "e%d:%u ", (int)event->lsn,
             event->chunks);
    return seen->stop;
}

static enum status see_chunk(void *context, const struct store_event *event)
{
    struct seen *seen = context;

    ck_assert(event->chunk > 0 && event->chunk < event->chunks);
    ck_assert(event->head.data == NULL && event->body.data == NULL);
    seen->bytes += event->head.size + event->body.size;
    return STATUS_OK;
}

static struct seen scanned;

static const char *scan(struct store *store)
{
    const struct store_visitor visitor = {&scanned, see_session, see_checkpoint, see_event,
                                          see_chunk};

    scanned = (struct seen){.stop = STATUS_OK};
    OK(CALL(scan, &visitor, &fault));
    return scanned.text;
}

START_TEST(new_store_is_empty)
{
    struct store *store = open_new(_i);

    ck_assert_str_eq(scan(store), "");
    FAILS(NOT_FOUND, event_at(store, 1));
    FAILS(NOT_FOUND, chunk_at(store, 1, 0));
    bool more = true;
    OK(CALL(maintain, &more, &fault));
    ck_assert(!more);
    store_close(store);
}
END_TEST

START_TEST(rollback_leaves_the_state_before_begin)
{
    struct store *store = open_new(_i);

    OK(CALL(begin, &fault));
    OK(put_session(store, 3, "m", 7));
    OK(append(store, 5, 0, 1, 1, 1031));
    put_checkpoint(store, 2, 3, true);
    OK(CALL(commit, &fault));
    OK(CALL(begin, &fault));
    OK(put_session(store, 3, "renamed", 1031));
    OK(put_session(store, 4, "n", 1));
    OK(append(store, 6, 0, 1, 0, 7));
    OK(append(store, 7, 0, 1, 0, 7));
    OK(CALL(event_drop, 5, 6, &fault));
    OK(CALL(checkpoint_drop, 2, &fault));
    put_checkpoint(store, 3, 2, true);
    OK(CALL(session_drop, 3, &fault));
    store->backend->rollback(store);
    ck_assert_str_eq(scan(store), "s3:m:7 c2@42:3 e5:1 ");
    OK(event_at(store, 5));
    FAILS(NOT_FOUND, event_at(store, 6));
    OK(chunk_at(store, 2, 2));
    FAILS(NOT_FOUND, chunk_at(store, 3, 0));
    OK(CALL(begin, &fault)); /* the number is free again */
    OK(append(store, 6, 0, 1, 0, 7));
    OK(CALL(commit, &fault));
    ck_assert_str_eq(scan(store), "s3:m:7 c2@42:3 e5:1 e6:1 ");
    store_close(store);
}
END_TEST

START_TEST(committed_state_survives_a_new_open_where_the_backend_is_durable)
{
    const char *folder = testing_folder();
    struct store *store = open_at(_i, folder);

    OK(CALL(begin, &fault));
    OK(put_session(store, 3, "m", STORE_CHUNK_BYTES));
    OK(append(store, 5, 0, 2, STORE_HEAD_BYTES, STORE_CHUNK_BYTES));
    OK(append(store, 6, 1, 2, 0, 1));
    put_checkpoint(store, 2, 3, true);
    OK(CALL(commit, &fault));
    OK(CALL(begin, &fault));
    OK(append(store, 9, 0, 1, 0, 7));
    store->backend->rollback(store);
    store_close(store);
    store = open_at(_i, folder);
    ck_assert_str_eq(scan(store), store->backend->durable ? "s3:m:524288 c2@42:3 e5:2 " : "");
    ck_assert_uint_eq(scanned.bytes,
                      store->backend->durable ? STORE_HEAD_BYTES + STORE_CHUNK_BYTES + 1 : 0);
    store_close(store);
}
END_TEST

START_TEST(repeats_and_absent_drops_are_harmless)
{
    struct store *store = open_new(_i);
    size_t size = 0;

    for (int round = 0; round < 2; round++) {
        OK(CALL(begin, &fault));
        OK(put_session(store, 3, "m", 1031));
        OK(CALL(checkpoint_put, 2, 3, 0, span_of(noise + round, 7), &fault));
        OK(CALL(event_drop, 1, UINT64_MAX, &fault));
        OK(CALL(checkpoint_drop, 17, &fault));
        OK(CALL(session_drop, 17, &fault));
        OK(CALL(commit, &fault));
    }
    ck_assert_str_eq(scan(store), "s3:m:1031 ");
    OK(CALL(checkpoint_read, 2, 0, body_out, &size, &fault));
    ck_assert_uint_eq(size, 7);
    ck_assert_mem_eq(body_out, noise + 1, 7);
    store_close(store);
}
END_TEST

START_TEST(event_chunks_come_back_with_the_same_bytes)
{
    static const size_t sizes[] = {0, 1, 7, 1031, 65536, STORE_CHUNK_BYTES - 1, STORE_CHUNK_BYTES};
    static const size_t heads[] = {0, 1, STORE_HEAD_BYTES};
    struct store *store = open_new(_i);
    struct store_event event;
    uint64_t lsn = 0;

    OK(CALL(begin, &fault));
    for (size_t h = 0; h < 3; h++)
        for (size_t s = 0; s < 7; s++)
            OK(append(store, ++lsn, 0, 1, heads[h], sizes[s]));
    OK(append(store, 101, 0, 2, 5, 9));
    OK(append(store, 102, 1, 2, 0, 3));
    OK(CALL(commit, &fault));
    lsn = 0;
    for (size_t h = 0; h < 3; h++)
        for (size_t s = 0; s < 7; s++) {
            OK(CALL(event_read, ++lsn, head_out, body_out, &event, &fault));
            ck_assert_uint_eq(event.head.size, heads[h]);
            ck_assert_uint_eq(event.body.size, sizes[s]);
            ck_assert_mem_eq(head_out, noise + 1, heads[h]);
            ck_assert_mem_eq(body_out, noise, sizes[s]);
        }
    OK(CALL(event_read, 102, head_out, body_out, &event, &fault));
    ck_assert_uint_eq(event.lsn, 102);
    ck_assert_int_eq(event.session, 3);
    ck_assert_uint_eq(event.step, UINT64_MAX - 102);
    ck_assert_uint_eq(event.chunk, 1);
    ck_assert_uint_eq(event.chunks, 2);
    ck_assert_ptr_eq(event.body.data, body_out);
    store_close(store);
}
END_TEST

START_TEST(event_that_is_not_the_newest_is_refused)
{
    static const uint64_t old[] = {1, 6, 7};

    for (size_t i = 0; i < 3; i++) {
        struct store *store = open_new(_i);
        OK(CALL(begin, &fault));
        OK(append(store, 7, 0, 1, 0, 7));
        OK(CALL(commit, &fault));
        OK(CALL(begin, &fault));
        FAILS(INTERNAL, append(store, old[i], 0, 1, 0, 7));
        FAILS(INTERNAL, CALL(commit, &fault)); /* spoiled */
        ck_assert_str_eq(scan(store), "e7:1 ");
        OK(CALL(begin, &fault));
        OK(append(store, 8, 0, 1, 0, 7));
        OK(CALL(commit, &fault));
        store_close(store);
    }
}
END_TEST

START_TEST(scan_gives_sessions_then_checkpoints_then_events_in_order)
{
    struct store *store = open_new(_i);

    OK(CALL(begin, &fault));
    OK(append(store, 2, 0, 2, 0, 7));
    OK(append(store, 3, 1, 2, 0, 7));
    put_checkpoint(store, 9, 1, true);
    put_checkpoint(store, 4, 2, true);
    put_checkpoint(store, 5, 2, false);
    OK(put_session(store, 8, "a", 1));
    OK(put_session(store, 3, "z", 0));
    OK(append(store, 11, 0, 1, 0, 0));
    OK(CALL(commit, &fault));
    ck_assert_str_eq(scan(store), "s3:z:0 s8:a:1 c4@44:2 c9@49:1 e2:2 e11:1 ");
    store_close(store);
}
END_TEST

START_TEST(scan_stops_with_what_the_visitor_says)
{
    struct seen seen = {.stop = STATUS_TOO_LARGE};
    const struct store_visitor visitor = {&seen, see_session, see_checkpoint, see_event, NULL};
    struct store *store = open_new(_i);

    OK(CALL(begin, &fault));
    OK(append(store, 1, 0, 1, 0, 0));
    OK(append(store, 2, 0, 1, 0, 0));
    OK(CALL(commit, &fault));
    FAILS(TOO_LARGE, CALL(scan, &visitor, &fault));
    ck_assert_str_eq(seen.text, "e1:1 ");
    ck_assert_str_eq(scan(store), "e1:1 e2:1 ");
    store_close(store);
}
END_TEST

START_TEST(event_drop_takes_exactly_its_range)
{
    struct store *store = open_new(_i);

    OK(CALL(begin, &fault));
    for (uint64_t lsn = 1; lsn <= 9; lsn++)
        OK(append(store, lsn, 0, 1, 0, lsn == 4 ? STORE_CHUNK_BYTES : 7));
    OK(CALL(event_drop, 3, 5, &fault));
    OK(CALL(event_drop, 8, 8, &fault));
    OK(CALL(event_drop, 7, 6, &fault)); /* nothing lies between */
    OK(CALL(commit, &fault));
    ck_assert_str_eq(scan(store), "e1:1 e2:1 e6:1 e7:1 e9:1 ");
    FAILS(NOT_FOUND, event_at(store, 4));
    OK(event_at(store, 6));
    store_close(store);
}
END_TEST

START_TEST(unsealed_checkpoint_is_not_seen_and_vanishes_at_the_next_open)
{
    const char *folder = testing_folder();
    struct store *store = open_at(_i, folder);

    OK(CALL(begin, &fault));
    put_checkpoint(store, 2, 3, false);
    put_checkpoint(store, 3, 1, true);
    put_checkpoint(store, 4, 2, false);
    OK(CALL(commit, &fault));
    ck_assert_str_eq(scan(store), "c3@43:1 ");
    OK(chunk_at(store, 2, 1));
    store_close(store);
    store = open_at(_i, folder);
    FAILS(NOT_FOUND, chunk_at(store, 2, 1));
    FAILS(NOT_FOUND, chunk_at(store, 4, 0));
    ck_assert_uint_eq(chunk_at(store, 3, 0),
                      store->backend->durable ? STATUS_OK : STATUS_NOT_FOUND);
    store_close(store);
}
END_TEST

START_TEST(incomplete_checkpoint_cannot_be_sealed)
{
    const struct store_checkpoint checkpoint = {2, 3, 1, 4, 3, 7};
    struct store *store = open_new(_i);

    OK(CALL(begin, &fault));
    put_checkpoint(store, 1, 3, true);
    put_checkpoint(store, 2, 2, false);
    FAILS(INTERNAL, CALL(checkpoint_seal, &checkpoint, &fault));
    store->backend->rollback(store);
    ck_assert_str_eq(scan(store), "");
    store_close(store);
}
END_TEST

START_TEST(dropped_checkpoint_is_gone_with_its_chunks)
{
    struct store *store = open_new(_i);

    OK(CALL(begin, &fault));
    put_checkpoint(store, 1, 3, true);
    put_checkpoint(store, 2, 3, true);
    put_checkpoint(store, 3, 3, true);
    OK(CALL(checkpoint_drop, 2, &fault));
    OK(CALL(commit, &fault));
    ck_assert_str_eq(scan(store), "c1@41:3 c3@43:3 ");
    OK(chunk_at(store, 1, 2));
    FAILS(NOT_FOUND, chunk_at(store, 2, 0));
    FAILS(NOT_FOUND, chunk_at(store, 2, 2));
    OK(chunk_at(store, 3, 0));
    store_close(store);
}
END_TEST

START_TEST(id_of_another_session_is_refused)
{
    struct store *store = open_new(_i);

    OK(CALL(begin, &fault));
    OK(put_session(store, 3, "mnist", 7));
    OK(put_session(store, 4, "other", 7));
    OK(CALL(commit, &fault));
    OK(CALL(begin, &fault));
    FAILS(SESSION_EXISTS, put_session(store, 4, "mnist", 7));
    store->backend->rollback(store);
    OK(CALL(begin, &fault));
    FAILS(SESSION_EXISTS, put_session(store, 5, "mnist", 7));
    store->backend->rollback(store);
    ck_assert_str_eq(scan(store), "s3:mnist:7 s4:other:7 ");
    OK(CALL(begin, &fault)); /* a dropped session's id is free */
    OK(CALL(session_drop, 3, &fault));
    OK(put_session(store, 5, "mnist", 1));
    OK(CALL(commit, &fault));
    ck_assert_str_eq(scan(store), "s4:other:7 s5:mnist:1 ");
    store_close(store);
}
END_TEST

/* Each thread adds 20 events under the next number; a read in between must find no half of a pair.
 */
static struct store *shared;
static uint64_t shared_lsn; /* guarded by the transaction */

static void *add_pairs(void *unused)
{
    struct store *store = shared;
    struct fault mine;

    (void)unused;
    for (int i = 0; i < 20; i++) {
        struct store_event event = {.session = 1, .kind = 1, .chunks = 1};
        if (CALL(begin, &mine) != STATUS_OK)
            return store;
        for (int k = 0; k < 2; k++) {
            event.lsn = ++shared_lsn;
            if (CALL(event_append, &event, &mine) != STATUS_OK)
                return store;
        }
        if (CALL(commit, &mine) != STATUS_OK)
            return store;
    }
    return NULL;
}

static enum status count_event(void *context, const struct store_event *event)
{
    (void)event;
    ++*(size_t *)context;
    return STATUS_OK;
}

START_TEST(threads_take_turns_and_reads_see_whole_transactions)
{
    size_t count = 0;
    const struct store_visitor visitor = {&count, NULL, NULL, count_event, NULL};
    struct store *store = shared = open_new(_i);
    pthread_t threads[4];
    void *failed;

    shared_lsn = 0;
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, add_pairs, NULL), 0);
    while (count < 4 * 20 * 2) {
        count = 0;
        OK(CALL(scan, &visitor, &fault));
        ck_assert_uint_eq(count % 2, 0);
        OK(CALL(maintain, NULL, &fault));
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], &failed);
        ck_assert_ptr_null(failed);
    }
    store_close(store);
}
END_TEST

START_TEST(url_chooses_the_backend)
{
    struct store *store = NULL;
    char url[512];

    OK(store_open("memory:", true, &store, &fault));
    ck_assert_str_eq(store_backend(store)->scheme, "memory");
    store_close(store);
    snprintf(url, sizeof url, "sqlite:%s", testing_folder());
    OK(store_open(url, true, &store, &fault));
    ck_assert_str_eq(store_backend(store)->scheme, "sqlite");
    store_close(store);
    OK(store_open(testing_folder(), true, &store, &fault));
    ck_assert_str_eq(store_backend(store)->scheme, "sqlite");
    store_close(store);
    FAILS(INVALID_FIELD, store_open("postgresql://here", true, &store, &fault));
    ck_assert_ptr_nonnull(strstr(fault.detail, "\"postgresql\""));
    FAILS(INVALID_FIELD, store_open("sqlite:", true, &store, &fault));
    FAILS(INVALID_FIELD, store_open("", true, &store, &fault));
}
END_TEST

Suite *suite_stores(void);

Suite *suite_stores(void)
{
    Suite *suite = suite_create("stores");
    TCase *tcase = tcase_create("every backend");
    int backends = 0;

    while (store_backend_at((size_t)backends) != NULL)
        backends++;
    tcase_add_loop_test(tcase, new_store_is_empty, 0, backends);
    tcase_add_loop_test(tcase, rollback_leaves_the_state_before_begin, 0, backends);
    tcase_add_loop_test(tcase, committed_state_survives_a_new_open_where_the_backend_is_durable, 0,
                        backends);
    tcase_add_loop_test(tcase, repeats_and_absent_drops_are_harmless, 0, backends);
    tcase_add_loop_test(tcase, event_chunks_come_back_with_the_same_bytes, 0, backends);
    tcase_add_loop_test(tcase, event_that_is_not_the_newest_is_refused, 0, backends);
    tcase_add_loop_test(tcase, scan_gives_sessions_then_checkpoints_then_events_in_order, 0,
                        backends);
    tcase_add_loop_test(tcase, scan_stops_with_what_the_visitor_says, 0, backends);
    tcase_add_loop_test(tcase, event_drop_takes_exactly_its_range, 0, backends);
    tcase_add_loop_test(tcase, unsealed_checkpoint_is_not_seen_and_vanishes_at_the_next_open, 0,
                        backends);
    tcase_add_loop_test(tcase, incomplete_checkpoint_cannot_be_sealed, 0, backends);
    tcase_add_loop_test(tcase, dropped_checkpoint_is_gone_with_its_chunks, 0, backends);
    tcase_add_loop_test(tcase, id_of_another_session_is_refused, 0, backends);
    tcase_add_loop_test(tcase, threads_take_turns_and_reads_see_whole_transactions, 0, backends);
    tcase_set_timeout(tcase, 30);
    suite_add_tcase(suite, tcase);
    tcase = tcase_create("choice");
    tcase_add_test(tcase, url_chooses_the_backend);
    suite_add_tcase(suite, tcase);
    return suite;
}
