"""Packs a dataset in this process, into shards as small as a test wants them."""

from dataclasses import replace

from ssl_core.data.dataset import Source
from ssl_core.data.packing.index import assign_shards, make_plan, write_index
from ssl_core.data.packing.record import PackIndex
from ssl_core.data.packing.shard import Packing, finish_shard


def pack(source: Source, place, per_shard: int | None = None, **options) -> PackIndex:
    """All shards and the index, one after the other -> the index."""
    packing = Packing(**options)
    plan = make_plan(source, packing)
    if per_shard:
        plan = replace(plan, per_shard=dict.fromkeys(plan.per_shard, per_shard))
    records = [
        finish_shard(place / name, place / f"{name}.json", getattr(source, part), part, numbers, packing)
        for name, part, numbers in assign_shards(source, plan)
    ]
    for name, _, _ in assign_shards(source, plan):
        (place / f"{name}.json").unlink()
    return write_index(place, source, plan, records)
