/* The memory of exactly once: what it finds, what it forgets, and the way to bytes and back. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/session/ledger.h"

static struct ledger ledger;

static void setup(void)
{
    ledger = (struct ledger){0};
}

static void teardown(void)
{
    ledger_close(&ledger);
}

static struct digest digest_of(uint64_t number)
{
    return hash_bytes(&number, sizeof number);
}

static struct receipt receipt_of(uint64_t step)
{
    return (struct receipt){.kind = RECEIPT_APPLIED,
                            .step = step,
                            .lineage = step + 1,
                            .durable_step = step + 2,
                            .base_step = step + 3,
                            .staleness = step + 4,
                            .lr = (double)step + 0.1,
                            .grad_norm = (double)step + 0.2,
                            .clip_scale = (double)step + 0.3,
                            .update_norm = (double)step + 0.4,
                            .param_norm = (double)step + 0.5,
                            .loss = (double)step + 0.6};
}

static void same_receipt(const struct receipt *one, const struct receipt *other)
{
    struct packer a = {0}, b = {0};

    receipt_pack(&a, one);
    receipt_pack(&b, other);
    ck_assert_uint_eq(a.used, b.used);
    ck_assert_mem_eq(a.data, b.data, a.used);
    packer_close(&a);
    packer_close(&b);
}

static void add_key(uint64_t number)
{
    struct digest key = digest_of(number), payload = digest_of(~number);
    struct receipt receipt = receipt_of(number);

    ck_assert(ledger_reserve(&ledger, 1));
    ledger_add_key(&ledger, &key, &payload, &receipt);
}

static void add_worker(const char *name, uint64_t seq)
{
    struct digest payload = digest_of(seq);
    struct receipt receipt = receipt_of(seq);

    ck_assert(ledger_reserve(&ledger, 1));
    struct ledger_worker worker = {
        .seq = seq, .payload = payload, .receipt = receipt, .step = receipt.step};
    strcpy(worker.name, name);
    ledger_add_worker(&ledger, &worker);
}

static const struct ledger_key *find(const struct ledger *in, uint64_t number, uint64_t step)
{
    struct digest key = digest_of(number);

    return ledger_find_key(in, &key, step);
}

START_TEST(an_empty_ledger_knows_nothing)
{
    ck_assert_ptr_null(find(&ledger, 1, 1));
    ck_assert_ptr_null(ledger_find_worker(&ledger, ""));
}
END_TEST

/* Twice around the ring and some: exactly the last thousand steps are known. */
START_TEST(the_last_thousand_steps_are_known)
{
    for (uint64_t step = 1; step <= 2531; step++) {
        add_key(step);
        if (step % 97 != 0 && step < 2500)
            continue;
        for (uint64_t past = 1; past <= step; past++) {
            const struct ledger_key *entry = find(&ledger, past, step);
            ck_assert_msg((entry != NULL) == (past + LEDGER_STEPS > step),
                          "at step %d, the key of step %d", (int)step, (int)past);
            if (entry == NULL)
                continue;
            struct receipt receipt = receipt_of(past);
            struct digest payload = digest_of(~past);
            same_receipt(&entry->receipt, &receipt);
            ck_assert_mem_eq(&entry->payload, &payload, sizeof payload);
        }
    }
}
END_TEST

START_TEST(a_key_ages_by_steps_without_keys)
{
    add_key(5);
    ck_assert_ptr_nonnull(find(&ledger, 5, 5 + LEDGER_STEPS - 1));
    ck_assert_ptr_null(find(&ledger, 5, 5 + LEDGER_STEPS));
}
END_TEST

START_TEST(keys_with_the_same_mark_are_told_apart)
{
    struct digest one = digest_of(1), other = one;
    struct receipt receipt = receipt_of(1), later = receipt_of(2);

    other.bytes[15] ^= 1; /* beyond the eight bytes that a search reads first */
    ck_assert(ledger_reserve(&ledger, 2));
    ledger_add_key(&ledger, &one, &one, &receipt);
    ck_assert_ptr_null(ledger_find_key(&ledger, &other, 2));
    ledger_add_key(&ledger, &other, &other, &later);
    ck_assert_uint_eq(ledger_find_key(&ledger, &other, 2)->receipt.step, 2);
    ck_assert_uint_eq(ledger_find_key(&ledger, &one, 2)->receipt.step, 1);
}
END_TEST

START_TEST(a_worker_is_known_by_its_last_seq)
{
    char longest[WORKER_BYTES + 1];

    memset(longest, 'w', WORKER_BYTES);
    longest[WORKER_BYTES] = '\0';
    add_worker("a", 1);
    add_worker("b", 7);
    add_worker(longest, 9);
    add_worker("a", 2);
    ck_assert_uint_eq(ledger.worker_count, 3);
    ck_assert_uint_eq(ledger_find_worker(&ledger, "a")->seq, 2);
    ck_assert_uint_eq(ledger_find_worker(&ledger, "a")->receipt.step, 2);
    ck_assert_uint_eq(ledger_find_worker(&ledger, "b")->seq, 7);
    ck_assert_uint_eq(ledger_find_worker(&ledger, longest)->seq, 9);
    ck_assert_ptr_null(ledger_find_worker(&ledger, "w"));
}
END_TEST

START_TEST(what_was_reserved_fits_without_growing)
{
    ck_assert(ledger_reserve(&ledger, 100));
    struct ledger_key *keys = ledger.keys;
    struct ledger_worker *workers = ledger.workers;
    for (uint64_t i = 1; i <= 100; i++) {
        struct digest key = digest_of(i);
        struct receipt receipt = receipt_of(i);
        char name[16];
        snprintf(name, sizeof name, "w%d", (int)i);
        ledger_add_key(&ledger, &key, &key, &receipt);
        struct ledger_worker worker = {
            .seq = i, .payload = key, .receipt = receipt, .step = receipt.step};
        strcpy(worker.name, name);
        ledger_add_worker(&ledger, &worker);
    }
    ck_assert(ledger.keys == keys && ledger.workers == workers);
    for (uint64_t i = 1; i <= 100; i++)
        ck_assert_ptr_nonnull(find(&ledger, i, 100));
}
END_TEST

/* Bytes of bytes: what is read back packs the same. */
static void check_round_trip(uint64_t step)
{
    struct packer packer = {0}, again = {0};
    struct ledger read;

    ledger_pack(&packer, &ledger);
    ck_assert(!packer.failed);
    struct unpacker unpacker = {.format = 4, .data = packer.data, .size = packer.used};
    ck_assert(ledger_unpack(&unpacker, &read));
    ck_assert_uint_eq(unpacker.used, packer.used);
    ledger_pack(&again, &read);
    ck_assert_uint_eq(again.used, packer.used);
    ck_assert_mem_eq(again.data, packer.data, packer.used);
    for (uint64_t past = 1; past <= step; past++)
        ck_assert((find(&read, past, step) != NULL) == (find(&ledger, past, step) != NULL));
    packer_close(&packer);
    packer_close(&again);
    ledger_close(&read);
}

START_TEST(a_ledger_comes_back_from_its_bytes)
{
    const uint64_t steps[] = {0, 1, 16, 17, 999, 1000, 1001, 1531};
    uint64_t step = 0;

    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        while (step < steps[i]) {
            char name[16];
            snprintf(name, sizeof name, "w%d", (int)(step % 37));
            add_key(++step);
            add_worker(name, step);
        }
        check_round_trip(step);
    }
}
END_TEST

/* The ring that comes back is unrolled: going on must drop the oldest all the same. */
START_TEST(a_ledger_read_back_goes_on_forgetting_the_oldest)
{
    struct packer packer = {0};

    for (uint64_t step = 1; step <= 1531; step++)
        add_key(step);
    ledger_pack(&packer, &ledger);
    ledger_close(&ledger);
    struct unpacker unpacker = {.format = 4, .data = packer.data, .size = packer.used};
    ck_assert(ledger_unpack(&unpacker, &ledger));
    for (uint64_t step = 1532; step <= 1600; step++)
        add_key(step);
    for (uint64_t past = 1; past <= 1600; past++)
        ck_assert((find(&ledger, past, 1600) != NULL) == (past > 600));
    packer_close(&packer);
}
END_TEST

START_TEST(a_record_cut_at_any_byte_is_refused)
{
    struct packer packer = {0};

    for (uint64_t i = 1; i <= 3; i++)
        add_key(i);
    add_worker("one", 1);
    add_worker("two", 2);
    ledger_pack(&packer, &ledger);
    for (size_t size = 0; size < packer.used; size++) {
        struct unpacker unpacker = {.format = 4, .data = packer.data, .size = size};
        struct ledger read = {0};
        ck_assert_msg(!ledger_unpack(&unpacker, &read), "%zu bytes are enough", size);
        ck_assert_ptr_null(read.keys);
    }
    packer_close(&packer);
}
END_TEST

START_TEST(a_receipt_with_nan_comes_back)
{
    struct packer packer = {0};
    struct receipt receipt = receipt_of(1), read;

    receipt.loss = (double)NAN;
    receipt_pack(&packer, &receipt);
    struct unpacker unpacker = {.format = 4, .data = packer.data, .size = packer.used};
    receipt_unpack(&unpacker, &read);
    ck_assert(!unpacker.failed && unpacker.used == unpacker.size);
    same_receipt(&read, &receipt);
    ck_assert(isnan(read.loss));
    ck_assert(read.step == 1 && read.lineage == 2 && read.durable_step == 3);
    ck_assert(read.base_step == 4 && read.staleness == 5 && read.kind == RECEIPT_APPLIED);
    ck_assert(read.lr == 1.1 && read.grad_norm == 1.2 && read.clip_scale == 1.3);
    ck_assert(read.update_norm == 1.4 && read.param_norm == 1.5);
    packer_close(&packer);
}
END_TEST

Suite *suite_ledger(void);
Suite *suite_ledger(void)
{
    Suite *suite = suite_create("ledger");
    TCase *cases = tcase_create("ledger");

    tcase_set_timeout(cases, 60);
    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_add_test(cases, an_empty_ledger_knows_nothing);
    tcase_add_test(cases, the_last_thousand_steps_are_known);
    tcase_add_test(cases, a_key_ages_by_steps_without_keys);
    tcase_add_test(cases, keys_with_the_same_mark_are_told_apart);
    tcase_add_test(cases, a_worker_is_known_by_its_last_seq);
    tcase_add_test(cases, what_was_reserved_fits_without_growing);
    tcase_add_test(cases, a_ledger_comes_back_from_its_bytes);
    tcase_add_test(cases, a_ledger_read_back_goes_on_forgetting_the_oldest);
    tcase_add_test(cases, a_record_cut_at_any_byte_is_refused);
    tcase_add_test(cases, a_receipt_with_nan_comes_back);
    suite_add_tcase(suite, cases);
    return suite;
}
