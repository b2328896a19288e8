"""PyTorch's single-tensor Adam on one thread. Says its version; then for every line
`COUNT REPEATS` on stdin, nanoseconds a parameter on stdout."""

import sys
import time

try:
    import torch
except ImportError:
    sys.exit(1)


def make(count):
    parameter = torch.nn.Parameter(torch.randn(count) * 0.01)
    parameter.grad = torch.randn(count) * 0.01
    optimizer = torch.optim.Adam([parameter], lr=1e-3, foreach=False)
    optimizer.step()  # makes the state
    return optimizer


torch.set_num_threads(1)
torch.manual_seed(0)
print(torch.__version__, flush=True)
size, adam = 0, None
for line in sys.stdin:
    count, repeats = (int(word) for word in line.split())
    if count != size:
        adam = None  # its memory first
        size, adam = count, make(count)
    # PyTorch is slower than we are: fewer repeats take as long.
    repeats = max(1, repeats // 4)
    began = time.perf_counter()
    for _ in range(repeats):
        adam.step()
    print((time.perf_counter() - began) * 1e9 / repeats / count, flush=True)
