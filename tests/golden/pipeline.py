"""What happens before every rule, and the norms it needs."""
import math

import numpy as np


def square_sum(x):
    """Rounded once, whatever the length; longdouble has bits to spare."""
    return np.sum(x * x) if x.dtype == np.longdouble else math.fsum(x.astype(np.float64).ravel() ** 2)


def norm(x):
    return np.sqrt(square_sum(x))


def clip_value(h, x):
    bound = h["clip_value"]
    return x if bound is None else np.minimum(np.maximum(x, -bound), bound)


def clip_scale(h, x):
    """clip_norm is over all tensors: x is the flat vector."""
    limit, length = h["clip_norm"], norm(x)
    return 1.0 if limit is None or length <= limit else limit / length


def decayed(h, c, w, lr):
    """q and the weights a rule starts from, for c that is not yet clipped by value."""
    wd, mode = h["weight_decay"], h["weight_decay_mode"]
    if mode == "l2":
        return clip_value(h, c) + wd * w, w
    if mode == "l2_clipped":
        return clip_value(h, c + wd * w), w
    assert mode == "decoupled"
    return clip_value(h, c), w - lr * wd * w


OWN_DECAY = {"signum", "lars", "lamb", "lans", "ftrl"}  # mode l2 is in their formula: they get c


def pipeline(rule, h, w, g, lr):
    """h with own_decay, q, the weights the rule starts from, the norm of rescale*g and the clip scale."""
    wd, mode = h["weight_decay"], h["weight_decay_mode"]
    own = wd if rule in OWN_DECAY and mode == "l2" else 0.0
    h = {**h, "own_decay": own}
    c = h["rescale"] * g
    length = norm(c)
    if rule == "lbsgd":  # conditions the mean of a macro-batch by itself
        scale = clip_scale(h, c)
        return h, scale * g, w, length, scale
    if mode == "l2_clipped":  # clip_value comes after the decay; clip_norm still bounds the gradient itself
        scale = clip_scale(h, c)
        return h, clip_value(h, scale * c + wd * w), w, length, scale
    c = clip_value(h, c)
    scale = clip_scale(h, c)
    c = scale * c
    if mode == "decoupled":
        return h, c, w - lr * wd * w, length, scale
    assert mode == "l2"
    return h, c if own != 0 else c + wd * w, w, length, scale
