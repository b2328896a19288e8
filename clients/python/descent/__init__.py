"""Client of descent, the optimizer service: send gradients over HTTP, get parameters back.

    import descent

    client = descent.Client("http://127.0.0.1:8080")
    session = client.create({"w": [[0.1, 0.2], [0.3, 0.4]]}, {"name": "adam", "lr": 0.01})
    receipt = session.step({"w": [[1.0, -1.0], [0.5, 0.0]]}, loss=0.7)
    print(receipt.step, session.parameters()["w"])
    session.delete()

Only the standard library is needed. Where numpy is installed, tensors come back as numpy arrays
(and any array-like may be sent); without it they come back as nested lists.
"""

from .client import Client
from .compression import Int8, Rows, Sign, SparseRows, TopK, TwoBit
from .errors import ConnectionFailed, Error
from .events import Event
from .session import Parameters, Receipt, Session

__version__ = "0.1.0"
__all__ = [
    "Client",
    "ConnectionFailed",
    "Error",
    "Event",
    "Int8",
    "Parameters",
    "Receipt",
    "Rows",
    "Session",
    "Sign",
    "SparseRows",
    "TopK",
    "TwoBit",
]
