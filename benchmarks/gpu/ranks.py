"""A rank of data-parallel steps, for torchrun: `-m benchmarks.gpu.ranks {real,dry} {graphs,none}`. Rank 0 says JSON."""

import json
import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from benchmarks.gpu.clock import times
from benchmarks.gpu.size import DRY, REAL
from benchmarks.gpu.step import Step
from fsr import distributed


def main() -> None:
    """The paper's two images a rank: the same bits in two runs and on all ranks, and the time of a step."""
    size, graphs = {"real": REAL, "dry": DRY}[sys.argv[1]], sys.argv[2] == "graphs"
    device = distributed.start()
    config = size.config(2, precision="bf16", graphs=graphs, ranks=distributed.world_size())
    ends = []
    for _ in range(2):
        step = Step(config, size)
        if not graphs:  # with them the gradients are averaged after the backward pass
            step.student = DistributedDataParallel(
                step.state.student, find_unused_parameters=True, gradient_as_bucket_view=True
            )
        for _ in range(3):
            step()
        ends.append(torch.cat([parameter.detach().flatten() for parameter in step.state.student.parameters()]))
    theirs = ends[0].clone()
    dist.broadcast(theirs, src=0)
    equal = torch.tensor([torch.equal(*ends), torch.equal(theirs, ends[0])], dtype=torch.int32, device=device)
    dist.all_reduce(equal, op=dist.ReduceOp.MIN)
    again, ranks = (bool(value) for value in equal.tolist())
    found = {"ranks": distributed.world_size(), "again": again, "all ranks": ranks, "ok": again and ranks}
    found |= times(step, size)
    if distributed.rank() == 0:
        print(json.dumps(found), flush=True)
    distributed.stop()


if __name__ == "__main__":
    main()
