"""PyTorch's single-tensor optimizers on one thread. Says its version; then for every line
`RULE COUNT REPEATS` on stdin, nanoseconds a parameter on stdout, or 0 where it has no such rule."""

import sys
import time

try:
    import torch
except ImportError:
    sys.exit(1)

RULES = {
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-3, foreach=False),
    "momentum": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, foreach=False),
    "adagrad": lambda p: torch.optim.Adagrad(p, foreach=False),
    "rmsprop": lambda p: torch.optim.RMSprop(p, foreach=False),
    "adadelta": lambda p: torch.optim.Adadelta(p, foreach=False),
    "adam": lambda p: torch.optim.Adam(p, foreach=False),
    "adamw": lambda p: torch.optim.AdamW(p, foreach=False),
    "adamax": lambda p: torch.optim.Adamax(p, foreach=False),
    "nadam": lambda p: torch.optim.NAdam(p, foreach=False),
    "radam": lambda p: torch.optim.RAdam(p, foreach=False),
}


def make(rule, count):
    parameter = torch.nn.Parameter(torch.randn(count) * 0.01)
    parameter.grad = torch.randn(count) * 0.01
    optimizer = RULES[rule]([parameter])
    optimizer.step()  # makes the state
    return optimizer


torch.set_num_threads(1)
torch.manual_seed(0)
print(torch.__version__, flush=True)
made, optimizer = None, None
for line in sys.stdin:
    rule, count, repeats = line.split()
    count, repeats = int(count), int(repeats)
    if rule not in RULES:
        print(0, flush=True)
        continue
    if made != (rule, count):
        optimizer = None  # its memory first
        made, optimizer = (rule, count), make(rule, count)
    # PyTorch is slower than we are: fewer repeats take as long.
    repeats = max(1, repeats // 4)
    began = time.perf_counter()
    for _ in range(repeats):
        optimizer.step()
    print((time.perf_counter() - began) * 1e9 / repeats / count, flush=True)
