/* Adam in f32 on one thread at every size, in nanoseconds a parameter: beside a triad a = b + s c
 * in bytes a second, and beside PyTorch's Adam. Adam moves 28 B a parameter (g, w read; w'
 * written; m, v read and written), the triad 12 B an element. Then what the pipeline costs beyond
 * the rule. Best of several rounds, each measuring all in turn. The crew is not started, so that a
 * step has one thread too. */
#include <math.h>
#include <stdlib.h>

#include "service/session/sample.h"
#include "tests/bench/bench.h"
#include "tests/bench/subject.h"

enum { ROUNDS = 25, TRIAD_BYTES = 12 };

static const size_t counts[] = {1000, 16000, 250000, 1000000, 4000000, 16000000, 64000000};
enum { COUNTS = sizeof counts / sizeof *counts, AIMED = 5 /* 16 M: beyond every cache */ };

static const char *size_text(size_t count)
{
    return count < 1000000 ? bench_text("%zu K", count / 1000)
                           : bench_text("%zu M", count / 1000000);
}

static void report(const char *what, size_t index, double bytes, double ours, double triad_ns,
                   double torch_ns, const char *version)
{
    const char *name = bench_text("%s, %s parameters", what, size_text(counts[index]));
    const char *mine = bench_text("%.3f ns/parameter, %.1f GB/s", ours, bytes / ours);

    bench_row(name, mine, bench_text("triad %.1f GB/s", TRIAD_BYTES / triad_ns),
              bytes / ours / (TRIAD_BYTES / triad_ns), index == AIMED ? AIM_AT_LEAST : AIM_NONE,
              0.85);
    if (torch_ns > 0)
        bench_row(name, mine, bench_text("PyTorch %s %.3f ns/parameter", version, torch_ns),
                  torch_ns / ours, AIM_AT_LEAST, 4);
}

static void measure(size_t index, struct torch *torch)
{
    double triads[ROUNDS], rules[ROUNDS], steps[ROUNDS], torches[ROUNDS];
    size_t repeats = 4000000 / counts[index] + 1; /* short, to fall between disturbances */
    size_t rounds = index < AIMED ? ROUNDS : ROUNDS / 3;
    struct subject subject;

    subject_open(&subject, "adam", counts[index] / 1000, 1000);
    for (size_t round = 0; round < rounds; round++) {
        triads[round] = subject_time(subject_triad, &subject, repeats);
        rules[round] = subject_time(subject_update, &subject, repeats);
        steps[round] = subject_time(subject_step, &subject, repeats);
        torches[round] = torch_time(torch, "adam", counts[index], repeats);
    }
    double triad_ns = bench_minimum(triads, rounds), torch_ns = bench_minimum(torches, rounds);
    double bytes = subject_bytes(&subject);
    report("Adam, the rule alone", index, bytes, bench_minimum(rules, rounds), triad_ns, torch_ns,
           torch->version);
    report("Adam with norms", index, bytes, bench_minimum(steps, rounds), triad_ns, torch_ns,
           torch->version);
    subject_close(&subject);
}

/* A step with something on beside the same step without: no further pass over memory, so about 1.
 * The last lends the comparison its scale: it is what one more pass costs. */
static void measure_pipeline(void)
{
    static const struct {
        const char *what;
        double rescale, clip_value, clip_scale, weight_decay;
        enum weight_decay_mode mode;
        bool averages, measures;
    } settings[] = {
        {"rescaling", 0.5, HUGE_VAL, 1, 0, DECAY_L2, false, false},
        {"clip_value", 1, 0.01, 1, 0, DECAY_L2, false, false},
        {"rescaling, both clips and l2 decay", 0.5, 0.01, 0.5, 0.01, DECAY_L2, false, false},
        {"decoupled decay", 1, HUGE_VAL, 1, 0.01, DECAY_DECOUPLED, false, false},
        {"the moving average (8 B more a parameter)", 1, HUGE_VAL, 1, 0, DECAY_L2, true, false},
        {"the pass before it that measures", 1, HUGE_VAL, 1, 0, DECAY_L2, false, true},
    };
    enum { SETTINGS = sizeof settings / sizeof *settings, TIMES = 9 };
    double plain[TIMES], with[SETTINGS][TIMES];
    struct subject subject;

    subject_open(&subject, "adam", 16000, 1000);
    struct buffer *average = buffer_new_zeroed(subject.count * sizeof(float));
    if (average == NULL)
        bench_fail("memory");
    const struct advance without = subject.advance;
    double decay = subject.hyper[HYPER_WEIGHT_DECAY];
    for (size_t round = 0; round < TIMES; round++) {
        plain[round] = subject_time(subject_step, &subject, 1);
        for (size_t i = 0; i < SETTINGS; i++) {
            subject.advance.rescale = settings[i].rescale;
            subject.advance.clip_value = settings[i].clip_value;
            subject.advance.clip_scale = settings[i].clip_scale;
            subject.hyper[HYPER_WEIGHT_DECAY] = settings[i].weight_decay;
            subject.hyper[HYPER_WEIGHT_DECAY_MODE] = settings[i].mode;
            subject.advance.average = settings[i].averages ? average->data : NULL;
            subject.advance.next_average = settings[i].averages ? average->data : NULL;
            double began = bench_now();
            if (settings[i].measures)
                advance_f32.measure(&subject.advance.gradient,
                                    &(struct measure){.rescale = 1, .clip_value = HUGE_VAL});
            double measured = (bench_now() - began) * 1e9 / (double)subject.count;
            with[i][round] = measured + subject_time(subject_step, &subject, 1);
            uint64_t update = subject.advance.update;
            subject.advance = without;
            subject.advance.update = update;
            subject.hyper[HYPER_WEIGHT_DECAY] = decay;
            subject.hyper[HYPER_WEIGHT_DECAY_MODE] = DECAY_L2;
        }
    }
    double ours = bench_minimum(plain, TIMES);
    for (size_t i = 0; i < SETTINGS; i++) {
        double took = bench_minimum(with[i], TIMES);
        bench_row(bench_text("Adam step, 16 M, with %s", settings[i].what),
                  bench_text("%.3f ns/parameter", took),
                  bench_text("without %.3f ns/parameter", ours), took / ours, AIM_NONE, 0);
    }
    buffer_release(average);
    subject_close(&subject);
}

/* What the notes of every tensor cost: measuring a gradient and a step of Adam with them and their
 * sample of the gradient, beside the same without. */
static void measure_notes(void)
{
    static const struct {
        size_t tensors, rows, columns;
    } models[] = {{1, 16000, 1000}, {1, 1000, 1000}, {300, 33, 101}, {10000, 10, 10}};
    enum { MODELS = sizeof models / sizeof *models, TIMES = 25 };

    for (size_t i = 0; i < MODELS; i++) {
        double took[2][TIMES];
        struct subject subject;
        subject_open_many(&subject, "adam", models[i].tensors, models[i].rows, models[i].columns);
        struct tensor_note *notes = calloc(models[i].tensors, sizeof *notes);
        struct sample *sample = sample_new(subject.layout);
        if (notes == NULL || sample == NULL)
            bench_fail("memory");
        for (size_t round = 0; round < TIMES; round++)
            for (size_t noted = 0; noted < 2; noted++) {
                double began = bench_now();
                struct measure measure = {.rescale = 1,
                                          .clip_value = HUGE_VAL,
                                          .layout = noted ? subject.layout : NULL,
                                          .notes = noted ? notes : NULL};
                advance_f32.measure(&subject.advance.gradient, &measure);
                subject.advance.notes = measure.notes;
                subject_step(&subject);
                if (noted)
                    sample_turn(sample, subject.layout, &subject.advance.gradient, notes);
                took[noted][round] = (bench_now() - began) * 1e3;
            }
        double without = bench_minimum(took[0], TIMES), with = bench_minimum(took[1], TIMES);
        bench_row(bench_text("Adam, measured and stepped, notes of %zu x %zu", models[i].tensors,
                             models[i].rows * models[i].columns),
                  bench_text("%.3f ms", with), bench_text("without %.3f ms", without),
                  with / without, AIM_NONE, 0);
        sample_free(sample);
        free(notes);
        subject_close(&subject);
    }
}

void bench_kernel(const struct bench *bench)
{
    struct torch torch;

    torch_start(&torch, bench);
    for (size_t i = 0; i < COUNTS; i++)
        measure(i, &torch);
    torch_stop(&torch);
    measure_pipeline();
    measure_notes();
}
