"""A second instance of a flow, in a process of its own: `python flow_sibling.py CONFIG_DIR STATE_DIR NAME`.

It turns its loop and looks for segments to fetch until its standard input ends, and prints its counters then.
With a fourth argument, `consume`, it takes messages too.
"""

from __future__ import annotations

import json
import os
import select
import sys

from sarrapipe.clock import SYSTEM_CLOCK
from sarrapipe.config.load import ConfigHome, load_flow
from sarrapipe.flow.components import Place, assemble
from sarrapipe.instance import stop_flow
from sarrapipe.ledger.keys import new_incarnation
from sarrapipe.shm.slots import SLOT_SIZE, Counter, Slot


def main(config_dir: str, state_dir: str, name: str, role: str = "help") -> None:
    config = load_flow(ConfigHome(config_dir, state_dir), "sarra", name)
    slot = Slot(0, memoryview(bytearray(SLOT_SIZE)))
    place = Place(instance=2, incarnation=new_incarnation(), slot_number=2, slot=slot, wake_fd=0)
    assembled = assemble(config, place)
    with assembled.closing:
        for consumer in assembled.consumers if role == "help" else ():
            consumer.pause()  # it helps, and takes no messages
        print("ready", flush=True)
        while True:
            if select.select([0], [], [], 0)[0]:
                if not os.read(0, 100):
                    break
                assembled.segments.work_announced()
            assembled.flow.turn()
        stop_flow(assembled, SYSTEM_CLOCK, SYSTEM_CLOCK.monotonic_s() + 5)
    print(
        json.dumps({counter.name: slot.get(counter) for counter in Counter if slot.get(counter)}), flush=True
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
