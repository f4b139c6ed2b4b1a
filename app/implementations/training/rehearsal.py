"""A few steps of a run, in a process that ends with them, to see what the whole will take."""

import time

from app.core.entities.forecasts import Forecast
from app.implementations.training.forecast import Sizes
from app.implementations.training.loop import TrainingLoop

SECONDS = 12.0  # after which no further pass begins
LARGEST_SECONDS = 30.0  # a pass that would take longer is not made: its memory follows from a smaller one


def rehearse(loop: TrainingLoop, sizes: Sizes, available: int) -> Forecast:
    """Take a few steps of ``loop``'s plan in a process that ends with them; nothing is saved.

    The largest micro-batch is left out where a smaller one has shown that it needs more than ``available`` bytes,
    or too long.
    """
    meter, plan = loop.meter, loop.plan()
    meter.start(loop.device, sizes.state_bytes(loop.config))
    work = loop.work(plan, 0)
    tokens = [row.tokens for row in loop.train_rows]
    micro_batches = sorted(
        {tuple(places) for step, _ in plan for places in step}, key=lambda places: sum(tokens[p] for p in places)
    )
    middle = len(micro_batches) // 2
    typical = [micro_batches[(middle + shift) % len(micro_batches)] for shift in (0, -1, 1)]
    loop.rehearse(typical[0][:1], prepare=[*typical, micro_batches[-1]])  # warms up
    loop.rehearse(typical[0])
    too_long = meter.token_seconds * work.largest > LARGEST_SECONDS
    too_large = meter.resting_bytes + meter.token_bytes * work.largest > available
    if not loop.strategy.agree(too_long or too_large):
        loop.rehearse(micro_batches[-1])
    for places in (*typical[1:], *typical):
        if not loop.strategy.agree(time.perf_counter() - meter.started > SECONDS):
            loop.rehearse(places)
    with meter.forward_only(sum(tokens[place] for place in typical[0])):
        loop.score(typical[0])
    meter.stop()
    return meter.forecast(loop.config, work, sizes)
