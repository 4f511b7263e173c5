"""Where the processes of a run find each other, also when torchrun has started them again.

torchrun keeps one key-value store for all its starts. What processes that have died left in it,
such as their addresses, would be read by those that take their places, which then call the dead
(pytorch/pytorch#135712). So at each start the main process draws a new name, and everything is
written under it.
"""

import time
from uuid import uuid4

from torch.distributed import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous


def meet() -> Store:
    """A store that holds only what the processes of this start write."""
    store, rank, world_size = next(rendezvous("env://"))
    mine = uuid4().hex
    if rank == 0:
        for other in range(1, world_size):
            _call(store, other, mine)
        return PrefixStore(mine, store)
    store.set(f"here/{rank}", mine)
    name = store.get(f"come/{mine}").decode()  # waits for it
    store.set(f"came/{name}/{rank}", "")
    return PrefixStore(name, store)


def _call(store: Store, rank: int, name: str) -> None:
    """Tell process `rank` the name, until it answers: who is there at first may have died."""
    while not store.check([f"came/{name}/{rank}"]):
        if store.check([f"here/{rank}"]):
            store.set(f"come/{store.get(f'here/{rank}').decode()}", name)
        time.sleep(0.01)
