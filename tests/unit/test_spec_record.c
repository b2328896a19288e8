/* What is written of a session: events, configuration, layout, checkpoint heads; to bytes and back,
 * and every record that ends too early. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "service/session/record.h"
#include "tests/lib/tensors.h"

static struct packer packer;
static struct fault fault;

static void setup(void)
{
    packer = (struct packer){0};
}

static void teardown(void)
{
    packer_close(&packer);
}

static struct spec make_spec(size_t rule_index, enum dtype dtype)
{
    struct spec spec;

    spec_init(&spec);
    spec.dtype = dtype;
    spec_set_rule(&spec, optimizer_at(rule_index, dtype));
    for (size_t i = 0; i < spec.rule->hyper_count; i++) {
        const struct hyper *hyper = &spec.rule->hypers[i];
        double value = hyper->kind == HYPER_NUMBER ? 0.01 * (double)(i + 1) : 1;
        char why[160];
        if (hyper_allows(hyper, value, why, sizeof why))
            spec.hyper[i] = value;
    }
    spec.gradient.rescale = -0.5;
    spec.gradient.clip_norm = 2;
    spec.gradient.nonfinite = NONFINITE_ZERO;
    spec.durability.mode = DURABILITY_CHECKPOINT;
    spec.durability.seconds = 0.25;
    spec.durability.steps = 17;
    spec.keep_steps = 31;
    spec.seed = UINT64_MAX;
    ck_assert_int_eq(spec_add_label(&spec, "name", "value", NULL), STATUS_OK);
    ck_assert_int_eq(spec_add_label(&spec, "empty", "", NULL), STATUS_OK);
    schedule_set(&spec.schedule, schedule_find("multi_factor"));
    spec.schedule.value[SCHEDULE_WARMUP_STEPS] = 3;
    spec.schedule.value[hyper_find(spec.schedule.schedule->hypers,
                                   spec.schedule.schedule->hyper_count, "steps")] = 2;
    spec.schedule.steps[0] = 10;
    spec.schedule.steps[1] = 20;
    spec.ema.on = spec.ema.debias = true;
    spec.ema.decay = 0.5;
    spec.ema.eps = 0.25;
    struct group group = {.lr_mult = 0.5, .weight_decay_mult = 0, .adapt = false};
    ck_assert_int_eq(spec_add_group(&spec, &group, NULL), STATUS_OK);
    ck_assert_int_eq(spec_add_pattern(&spec, "*.bias", NULL), STATUS_OK);
    ck_assert_int_eq(spec_add_pattern(&spec, "b?", NULL), STATUS_OK);
    ck_assert_int_eq(spec_add_group(&spec, &group, NULL), STATUS_OK);
    ck_assert_int_eq(spec_add_pattern(&spec, "w", NULL), STATUS_OK);
    return spec;
}

static void same_spec(const struct spec *one, const struct spec *other)
{
    ck_assert_int_eq(one->dtype, other->dtype);
    ck_assert_ptr_eq(one->rule, other->rule);
    for (size_t i = 0; i < one->rule->hyper_count; i++)
        ck_assert(one->hyper[i] == other->hyper[i]);
    ck_assert(one->gradient.rescale == other->gradient.rescale);
    ck_assert(isnan(one->gradient.clip_value) == isnan(other->gradient.clip_value));
    ck_assert(one->gradient.clip_norm == other->gradient.clip_norm);
    ck_assert_int_eq(one->gradient.nonfinite, other->gradient.nonfinite);
    ck_assert_int_eq(one->durability.mode, other->durability.mode);
    ck_assert(one->durability.seconds == other->durability.seconds);
    ck_assert_uint_eq(one->durability.steps, other->durability.steps);
    ck_assert_uint_eq(one->keep_steps, other->keep_steps);
    ck_assert_uint_eq(one->seed, other->seed);
    ck_assert_uint_eq(one->label_count, other->label_count);
    ck_assert_uint_eq(one->label_bytes, other->label_bytes);
    ck_assert_mem_eq(one->labels, other->labels, one->label_bytes);
    ck_assert_ptr_eq(one->schedule.schedule, other->schedule.schedule);
    for (size_t i = 0; i < one->schedule.schedule->hyper_count; i++)
        ck_assert(one->schedule.value[i] == other->schedule.value[i]);
    ck_assert_mem_eq(one->schedule.steps, other->schedule.steps, sizeof one->schedule.steps);
    ck_assert(one->ema.on == other->ema.on && one->ema.debias == other->ema.debias);
    ck_assert(one->ema.decay == other->ema.decay && one->ema.eps == other->ema.eps);
    ck_assert_uint_eq(one->groups.count, other->groups.count);
    for (size_t i = 0; i < one->groups.count; i++) {
        const struct group *left = &one->groups.group[i], *right = &other->groups.group[i];
        ck_assert_uint_eq(left->pattern_count, right->pattern_count);
        ck_assert(left->lr_mult == right->lr_mult && left->adapt == right->adapt);
        ck_assert(left->weight_decay_mult == right->weight_decay_mult);
    }
    ck_assert_uint_eq(one->groups.pattern_bytes, other->groups.pattern_bytes);
    ck_assert_mem_eq(one->groups.patterns, other->groups.patterns, one->groups.pattern_bytes);
}

/* The first `size` bytes of the record, in memory that ends there. */
static unsigned char *cut(size_t size)
{
    unsigned char *copy = malloc(size > 0 ? size : 1);

    ck_assert_ptr_nonnull(copy);
    memcpy(copy, packer.data, size);
    return copy;
}

START_TEST(every_rule_comes_back_with_its_configuration)
{
    for (size_t i = 0; optimizer_at(i, DTYPE_F32) != NULL; i++)
        for (int k = 0; k < 2; k++) {
            struct spec spec = make_spec(i, k == 0 ? DTYPE_F32 : DTYPE_F64), read;
            packer.used = 0;
            spec_pack(&packer, &spec);
            struct unpacker unpacker = {.data = packer.data, .size = packer.used};
            ck_assert_int_eq(spec_unpack(&unpacker, &read, &fault), STATUS_OK);
            ck_assert_uint_eq(unpacker.used, packer.used);
            same_spec(&spec, &read);
        }
}
END_TEST

START_TEST(a_configuration_cut_at_any_byte_is_refused)
{
    struct spec spec = make_spec(0, DTYPE_F32), read;

    spec_pack(&packer, &spec);
    for (size_t size = 0; size < packer.used; size++) {
        unsigned char *copy = cut(size);
        struct unpacker unpacker = {.data = copy, .size = size};
        ck_assert_msg(spec_unpack(&unpacker, &read, &fault) == STATUS_STORAGE_FAILED,
                      "%zu bytes are enough", size);
        ck_assert_str_ne(fault.detail, "");
        free(copy);
    }
}
END_TEST

/* A record of an older program, with fewer hyperparameters: the rest take their defaults. */
START_TEST(hyperparameters_that_an_old_record_lacks_take_defaults)
{
    struct spec spec = make_spec(0, DTYPE_F64), read;
    struct packer full = {0}, head = {0};

    spec_pack(&full, &spec);
    pack_fixed(&head, full.data, 8); /* format and dtype */
    pack_text(&head, spec.rule->name);
    pack_fixed(&packer, head.data, head.used);
    pack_u32(&head, (uint32_t)spec.rule->hyper_count);
    for (size_t i = 0; i < spec.rule->hyper_count; i++) {
        pack_text(&head, spec.rule->hypers[i].name);
        pack_f64(&head, spec.hyper[i]);
    }
    ck_assert_mem_eq(head.data, full.data, head.used);
    pack_u32(&packer, 1);
    pack_text(&packer, "lr");
    pack_f64(&packer, 0.125);
    pack_fixed(&packer, full.data + head.used, full.used - head.used);
    struct unpacker unpacker = {.data = packer.data, .size = packer.used};
    ck_assert_int_eq(spec_unpack(&unpacker, &read, &fault), STATUS_OK);
    ck_assert(read.hyper[HYPER_LR] == 0.125);
    for (size_t i = HYPER_WEIGHT_DECAY; i < spec.rule->hyper_count; i++)
        ck_assert(read.hyper[i] == spec.rule->hypers[i].initial);
    ck_assert(read.seed == UINT64_MAX);
    packer_close(&full);
    packer_close(&head);
}
END_TEST

/* What no client could have set was not written by this program: it would index arrays. */
START_TEST(values_that_cannot_be_are_refused)
{
    static const struct {
        const char *rule, *hyper;
        double value;
    } bad[] = {
        {"dcasgd", "revisions", 1e9},    {"dcasgd", "compensate", 7}, {"sgd", "lr", -1},
        {"lbsgd", "batch_scale", 0.5},   {"adam", "amsgrad", 2},      {"adam", "beta1", 1},
        {"rmsprop", "eps", (double)NAN}, {"lbsgd", "batch_scale", 0},
    };

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct spec spec, read;
        spec_init(&spec);
        spec_set_rule(&spec, optimizer_find(bad[i].rule, DTYPE_F32));
        size_t index = optimizer_hyper(spec.rule, bad[i].hyper);
        ck_assert_uint_lt(index, spec.rule->hyper_count);
        spec.hyper[index] = bad[i].value;
        packer.used = 0;
        spec_pack(&packer, &spec);
        struct unpacker unpacker = {.data = packer.data, .size = packer.used};
        ck_assert_msg(spec_unpack(&unpacker, &read, &fault) == STATUS_STORAGE_FAILED,
                      "%s.%s = %g is taken", bad[i].rule, bad[i].hyper, bad[i].value);
    }
    struct spec spec, read;
    spec_init(&spec);
    spec_set_rule(&spec, optimizer_find("sgd", DTYPE_F32));
    schedule_set(&spec.schedule, schedule_find("factor")); /* its step must be given */
    packer.used = 0;
    spec_pack(&packer, &spec);
    struct unpacker unpacker = {.data = packer.data, .size = packer.used};
    ck_assert_int_eq(spec_unpack(&unpacker, &read, &fault), STATUS_STORAGE_FAILED);
}
END_TEST

START_TEST(an_unknown_rule_or_hyperparameter_is_named)
{
    struct spec spec = make_spec(0, DTYPE_F32), read;
    const char *words[] = {spec.rule->name, "weight_decay"};

    for (int i = 0; i < 2; i++) {
        packer.used = 0;
        spec_pack(&packer, &spec);
        unsigned char *at = memmem(packer.data, packer.used, words[i], strlen(words[i]));
        ck_assert_ptr_nonnull(at);
        *at = '#';
        struct unpacker unpacker = {.data = packer.data, .size = packer.used};
        ck_assert_int_eq(spec_unpack(&unpacker, &read, &fault), STATUS_STORAGE_FAILED);
        ck_assert_ptr_nonnull(strstr(fault.detail, "#"));
    }
}
END_TEST

START_TEST(labels_are_bounded)
{
    struct spec spec;
    char value[LABEL_BYTES_MAX];

    spec_init(&spec);
    for (int i = 0; i < LABELS_MAX; i++)
        ck_assert_int_eq(spec_add_label(&spec, "n", "v", &fault), STATUS_OK);
    ck_assert_int_ne(spec_add_label(&spec, "n", "v", &fault), STATUS_OK);
    spec_init(&spec);
    memset(value, 'v', sizeof value);
    value[sizeof value - 1] = '\0'; /* with "n" two bytes too many */
    ck_assert_int_ne(spec_add_label(&spec, "n", value, &fault), STATUS_OK);
    value[sizeof value - 3] = '\0';
    ck_assert_int_eq(spec_add_label(&spec, "n", value, &fault), STATUS_OK);
    ck_assert_uint_eq(spec.label_bytes, LABEL_BYTES_MAX);
}
END_TEST

static struct event make_event(bool whole)
{
    struct event event = {.kind = EVENT_GRADIENT,
                          .step = 1,
                          .base_step = 2,
                          .created_us = 3,
                          .wire = DTYPE_BF16,
                          .grad_norm = 4,
                          .clip_scale = 5,
                          .loss = 6,
                          .examples = 7,
                          .lr = 8,
                          .momentum = (double)NAN,
                          .beta1 = 10,
                          .beta2 = 11,
                          .seq = 12,
                          .payload = hash_bytes("payload", 7)};

    if (whole) {
        event.keyed = true;
        event.key = hash_bytes("key", 3);
        memset(event.worker, 'w', WORKER_BYTES);
        event.cursor = "{\"epoch\":1}";
        event.cursor_size = 11;
    }
    return event;
}

START_TEST(events_come_back)
{
    for (int i = 0; i < 2; i++) {
        struct event event = make_event(i == 1), read;
        packer.used = 0;
        event_pack(&packer, &event);
        ck_assert_int_eq(event_unpack(packer_span(&packer), &read, &fault), STATUS_OK);
        ck_assert(read.kind == event.kind && read.step == 1 && read.base_step == 2);
        ck_assert(read.created_us == 3 && read.wire == DTYPE_BF16 && read.seq == 12);
        ck_assert(read.grad_norm == 4 && read.clip_scale == 5 && read.loss == 6);
        ck_assert(read.examples == 7 && read.lr == 8 && isnan(read.momentum));
        ck_assert(read.beta1 == 10 && read.beta2 == 11 && read.keyed == event.keyed);
        ck_assert_mem_eq(&read.key, &event.key, sizeof read.key);
        ck_assert_mem_eq(&read.payload, &event.payload, sizeof read.payload);
        ck_assert_str_eq(read.worker, event.worker);
        ck_assert_uint_eq(read.cursor_size, event.cursor_size);
        ck_assert((read.cursor == NULL) == (event.cursor == NULL));
        if (read.cursor != NULL)
            ck_assert_mem_eq(read.cursor, event.cursor, event.cursor_size);
    }
}
END_TEST

START_TEST(an_empty_cursor_is_not_none)
{
    struct event event = make_event(false), read;

    event.cursor = "";
    event_pack(&packer, &event);
    ck_assert_int_eq(event_unpack(packer_span(&packer), &read, &fault), STATUS_OK);
    ck_assert_ptr_nonnull(read.cursor);
    ck_assert_uint_eq(read.cursor_size, 0);
}
END_TEST

START_TEST(an_event_cut_at_any_byte_is_refused)
{
    struct event event = make_event(true), read;

    event_pack(&packer, &event);
    for (size_t size = 0; size < packer.used; size++) {
        unsigned char *copy = cut(size);
        ck_assert_msg(event_unpack(span_of(copy, size), &read, &fault) == STATUS_STORAGE_FAILED,
                      "%zu bytes are enough", size);
        free(copy);
    }
}
END_TEST

START_TEST(a_session_comes_back_with_its_layout)
{
    struct session_record record = {.created_us = 99,
                                    .request = hash_bytes("request", 7),
                                    .spec = make_spec(0, DTYPE_F64),
                                    .layout = tensors_layout("w[31,3] b[7] e[0] s[]")};
    struct session_record read;

    session_record_pack(&packer, &record);
    ck_assert_int_eq(session_record_unpack(packer_span(&packer), &read, &fault), STATUS_OK);
    ck_assert_uint_eq(read.created_us, 99);
    ck_assert_mem_eq(&read.request, &record.request, sizeof read.request);
    same_spec(&record.spec, &read.spec);
    ck_assert_mem_eq(&read.layout->digest, &record.layout->digest, sizeof(struct digest));
    ck_assert_uint_eq(read.layout->count, 101);
    layout_release(read.layout);
    for (size_t size = 0; size < packer.used; size++) {
        unsigned char *copy = cut(size);
        ck_assert_msg(session_record_unpack(span_of(copy, size), &read, &fault) != STATUS_OK,
                      "%zu bytes are enough", size);
        free(copy);
    }
    layout_release(record.layout);
}
END_TEST

START_TEST(a_checkpoint_head_comes_back_with_its_ledger)
{
    char cursor[CURSOR_BYTES + 1];
    struct checkpoint_head head = {.step = 1,
                                   .lineage = 2,
                                   .updates = 3,
                                   .last = {.kind = RECEIPT_APPLIED, .step = 1},
                                   .cursor = cursor,
                                   .spec = make_spec(0, DTYPE_F32),
                                   .slots = 5};
    struct checkpoint_head read;
    struct ledger ledger = {0}, read_ledger;
    struct digest key = hash_bytes("key", 3);

    memset(cursor, 'c', CURSOR_BYTES); /* as long as it may be */
    cursor[CURSOR_BYTES] = '\0';
    ck_assert(ledger_reserve(&ledger, 1));
    ledger_add_key(&ledger, &key, &key, &head.last);
    ledger_add_worker(
        &ledger, &(struct ledger_worker){
                     .name = "worker", .seq = 1, .payload = key, .receipt = head.last, .clock = 1});
    checkpoint_head_pack(&packer, &head, &ledger);
    ck_assert_int_eq(checkpoint_head_unpack(packer_span(&packer), &read, &read_ledger, &fault),
                     STATUS_OK);
    ck_assert(read.step == 1 && read.lineage == 2 && read.updates == 3 && read.slots == 5);
    ck_assert(read.last.kind == RECEIPT_APPLIED && read.last.step == 1);
    ck_assert_str_eq(read.cursor, cursor);
    same_spec(&head.spec, &read.spec);
    ck_assert_ptr_nonnull(ledger_find_key(&read_ledger, &key, 1));
    ck_assert_ptr_nonnull(ledger_find_worker(&read_ledger, "worker"));
    ledger_close(&read_ledger);
    free(read.cursor);
    for (size_t size = 0; size < packer.used; size++) {
        unsigned char *copy = cut(size);
        ck_assert_msg(checkpoint_head_unpack(span_of(copy, size), &read, &read_ledger, &fault) ==
                          STATUS_STORAGE_FAILED,
                      "%zu bytes are enough", size);
        free(copy);
    }
    ledger_close(&ledger);
}
END_TEST

START_TEST(a_newer_format_is_refused)
{
    struct event event = make_event(true), read;

    event_pack(&packer, &event);
    packer.data[0]++;
    ck_assert_int_eq(event_unpack(packer_span(&packer), &read, &fault), STATUS_STORAGE_FAILED);
    ck_assert_ptr_nonnull(strstr(fault.detail, "another version"));
}
END_TEST

Suite *suite_spec_record(void);
Suite *suite_spec_record(void)
{
    Suite *suite = suite_create("spec_record");
    TCase *cases = tcase_create("records");

    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_add_test(cases, every_rule_comes_back_with_its_configuration);
    tcase_add_test(cases, a_configuration_cut_at_any_byte_is_refused);
    tcase_add_test(cases, hyperparameters_that_an_old_record_lacks_take_defaults);
    tcase_add_test(cases, values_that_cannot_be_are_refused);
    tcase_add_test(cases, an_unknown_rule_or_hyperparameter_is_named);
    tcase_add_test(cases, labels_are_bounded);
    tcase_add_test(cases, events_come_back);
    tcase_add_test(cases, an_empty_cursor_is_not_none);
    tcase_add_test(cases, an_event_cut_at_any_byte_is_refused);
    tcase_add_test(cases, a_session_comes_back_with_its_layout);
    tcase_add_test(cases, a_checkpoint_head_comes_back_with_its_ledger);
    tcase_add_test(cases, a_newer_format_is_refused);
    suite_add_tcase(suite, cases);
    return suite;
}
