/* one_cycle: up to a maximum, then down far below where it began.
 *
 *     initial = max_lr / div_factor;  final = initial / final_div_factor;  s = n - 1
 *     peak = pct_start max_steps - 1
 *     s <= peak:  from initial to max_lr as s goes from 0 to peak
 *     else:       from max_lr to final as s goes from peak to max_steps - 1; final after
 *
 * along half a cosine or a line. Source: PyTorch torch.optim.lr_scheduler.OneCycleLR in two phases,
 * boundaries and all (peak may fall between two steps); Smith & Topin 2018. Choices: max_lr null is
 * the optimizer's lr, so that an lr that is changed scales the cycle; where PyTorch divides by 0
 * (peak = 0) step 1 has max_lr; where it fails or turns up again (n > max_steps) the rate stays at
 * final. Momentum is not cycled. The warm-up does not shift it (it has its own). */
#include "service/optim/declare.h"
#include "service/optim/schedule.h"

enum { MAX_STEPS = SCHEDULE_OWN, MAX_LR, PCT_START, DIV_FACTOR, FINAL_DIV_FACTOR, ANNEAL };

static const char *const anneals[] = {"cosine", "linear", NULL};

static const struct hyper hypers[] = {
    WARMUP,
    [MAX_STEPS] =
        WHOLE("max_steps", MUST_BE_GIVEN, 1, SCHEDULE_STEP_MAX, "steps", "length of the cycle"),
    [MAX_LR] = OPTIONAL("max_lr", 0, SCHEDULE_LR_MAX, "the highest rate; null: the optimizer's lr"),
    [PCT_START] = NUMBER("pct_start", 0.3, 0, 1, "share of the steps that go up"),
    [DIV_FACTOR] = NUMBER("div_factor", 25, 1, 1e30, "max_lr over the first rate"),
    [FINAL_DIV_FACTOR] = NUMBER("final_div_factor", 1e4, 1, 1e30, "first rate over the last"),
    [ANNEAL] = CHOICE("anneal", 0, anneals, "the curve of both phases"),
};

static double rate(const struct schedule_setting *setting, double lr, uint64_t n)
{
    double (*anneal)(double, double, double, double) =
        setting->value[ANNEAL] == 0 ? anneal_cosine : anneal_linear;
    double max_steps = setting->value[MAX_STEPS], last = max_steps - 1, step = (double)(n - 1);
    double peak = setting->value[PCT_START] * max_steps - 1;
    double highest = isnan(setting->value[MAX_LR]) ? lr : setting->value[MAX_LR];
    double initial = highest / setting->value[DIV_FACTOR];
    double final_lr = initial / setting->value[FINAL_DIV_FACTOR];

    if (step > last)
        return final_lr;
    if (step > peak)
        return anneal(highest, final_lr, step - peak, last - step);
    return step == peak ? highest : anneal(initial, highest, step, peak - step);
}

extern const struct schedule schedule_one_cycle;
const struct schedule schedule_one_cycle = {
    .name = "one_cycle",
    .summary = "Up from max_lr/div_factor to max_lr, then down far below where it began",
    .formula = "max_lr/div_factor -> max_lr as n-1 goes from 0 to pct_start max_steps - 1, then -> "
               "max_lr/(div_factor final_div_factor) at n = max_steps",
    .source = "PyTorch OneCycleLR; Smith & Topin 2018",
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .rate = rate,
    .check = schedule_check_max_steps,
};
