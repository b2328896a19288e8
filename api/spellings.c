/* Other frameworks' words for what we have: of MXNet, PyTorch, objax, Keras and optax. */
#include "api/spellings.h"

#include <stddef.h>
#include <string.h>

#define HERE(name) name, "it is called " name " here"
#define ELSEWHERE NULL
#define SPEED_ONLY ELSEWHERE, "it changes how fast they are, not what they compute: leave it out"

static const struct {
    const char *there;
    const char *name; /* a hyperparameter: the clause holds for optimizers that have it */
    const char *clause;
} spellings[] = {
    {"learning_rate", HERE("lr")},
    {"wd", HERE("weight_decay")},
    {"epsilon", HERE("eps")},
    {"float_stable_eps", HERE("eps")},
    {"betas", "beta1", "here they are two, beta1 and beta2"},
    {"beta_1", HERE("beta1")},
    {"beta_2", HERE("beta2")},
    {"b1", HERE("beta1")},
    {"b2", HERE("beta2")},
    {"gamma1", HERE("rho")},
    {"gamma2", HERE("momentum")},
    {"alpha", HERE("rho")},
    {"decay", HERE("rho")},
    {"mu", HERE("momentum")},
    {"momentum_decay", HERE("schedule_decay")},
    {"initial_accumulator_value", HERE("initial_accumulator")},
    {"lamda1", HERE("lambda1")},
    {"lamda", HERE("lambda")},
    {"lambd", HERE("lambda")},
    {"eta", HERE("trust_coefficient")},
    {"tc", HERE("trust_coefficient")},
    {"clip_gradient", ELSEWHERE, "the session has it: \"gradient\": {\"clip_value\": ...}"},
    {"clipvalue", ELSEWHERE, "the session has it: \"gradient\": {\"clip_value\": ...}"},
    {"global_clipnorm", ELSEWHERE, "the session has it: \"gradient\": {\"clip_norm\": ...}"},
    {"rescale_grad", ELSEWHERE, "the session has it: \"gradient\": {\"rescale\": ...}"},
    {"maximize", ELSEWHERE, "the session can: \"gradient\": {\"rescale\": -1}"},
    {"lr_scheduler", ELSEWHERE, "the session has it: \"schedule\": {\"name\": ...}"},
    {"multi_precision", ELSEWHERE, "the session has it: \"dtype\": \"f32\" or \"f64\""},
    {"foreach", SPEED_ONLY},
    {"fused", SPEED_ONLY},
    {"capturable", SPEED_ONLY},
    {"differentiable", SPEED_ONLY},
    {"use_fused_step", SPEED_ONLY},
    {"aggregate_num", SPEED_ONLY},
    {"lazy_update", SPEED_ONLY},
};

const char *spelling_here(const char *field, bool (*has)(const void *context, const char *name),
                          const void *context)
{
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++)
        if (strcmp(spellings[i].there, field) == 0 &&
            (spellings[i].name == NULL || has(context, spellings[i].name)))
            return spellings[i].clause;
    return NULL;
}
