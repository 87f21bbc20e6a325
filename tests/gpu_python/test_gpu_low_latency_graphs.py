"""CUDA graphs with low latency calls follow the contents of their inputs, routing included."""

from collections.abc import Callable
from typing import Any

import moelink
import pytest
import torch
from gpu_ranks import DEVICE, RankPool
from low_latency_cases import Round, Shape, current_stream, open_low_latency, refusal, synchronize

pytestmark = pytest.mark.any_device

SHAPE = Shape(max_tokens=16, num_topk=4, routing="distinct")
Outputs = list[tuple[str, Any]]
"""What the operations of a step return, with the name of what it must be."""


class Captured:
    """A step as a CUDA graph; without a GPU the step itself, again at each replay."""

    def __init__(self, step: Callable[[], Outputs]) -> None:
        self._step = step
        self._graph = None
        if DEVICE == "cuda":
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self.outputs = step()

    def replay(self) -> Outputs:
        if self._graph is None:
            self.outputs = self._step()
        else:
            self._graph.replay()
        return self.outputs

    def end(self) -> None:
        synchronize()
        self._graph, self.outputs = None, []


def check_outputs(one: Round, outputs: Outputs, what: str) -> None:
    for name, output in outputs:
        if name == "received":
            one.check_received(output, what)
        else:
            one.check_combined(output, name, what)


def single_dispatch(buffer: moelink.Buffer, one: Round) -> Outputs:
    return [("received", one.dispatch(buffer))]


def pair(buffer: moelink.Buffer, one: Round) -> Outputs:
    result = one.dispatch(buffer)
    return [("received", result), ("exact", one.combine(buffer, result))]


def three_operations(buffer: moelink.Buffer, one: Round) -> Outputs:
    result = one.dispatch(buffer)
    combined = one.combine(buffer, result, numerics="pre_reduced")
    again = one.dispatch(buffer)
    return [("received", result), ("pre_reduced", combined), ("received", again)]


def seven_operations(buffer: moelink.Buffer, one: Round) -> Outputs:
    outputs = pair(buffer, one) + three_operations(buffer, one)
    return outputs + pair(buffer, one)


def hooks(buffer: moelink.Buffer, one: Round) -> Outputs:
    """Two operations outstanding at a time."""
    results = [one.dispatch(buffer, return_hook=True) for _ in range(2)]
    for result in results:
        result.hook()
    combines = [one.combine(buffer, result, return_hook=True) for result in results]
    for combined in combines:
        combined.hook()
    return [
        *(("received", result) for result in results),
        *(("exact", combined.combined_x) for combined in combines),
    ]


def asynchronous(buffer: moelink.Buffer, one: Round) -> Outputs:
    result = one.dispatch(buffer, async_finish=True)
    combined = one.combine(buffer, result, previous_event=result.event, async_finish=True)
    combined.event.wait_on(current_stream())
    return [("received", result), ("exact", combined.combined_x)]


def zero_copy(buffer: moelink.Buffer, one: Round) -> Outputs:
    result = one.dispatch(buffer)
    area = buffer.low_latency_combine_buffer(result.handle)
    area.copy_(one.rows)
    return [("exact", one.combine(buffer, result, x=area, zero_copy=True))]


STEPS: dict[str, Callable[[moelink.Buffer, Round], Outputs]] = {
    "one": single_dispatch,
    "pair": pair,
    "three": three_operations,
    "seven": seven_operations,
    "hooks": hooks,
    "async": asynchronous,
    "zero_copy": zero_copy,
}


def replayed(group: moelink.Group, step: str, fp8: str | None, layout: str) -> None:
    kind = {"fp8": fp8, "layout": layout}
    slot = Round(group, SHAPE, **kind)
    rounds = [Round(group, SHAPE, salt, **kind) for salt in range(1, 4)]
    with open_low_latency(group) as buffer:
        check_outputs(slot, STEPS[step](buffer, slot), "before the capture")
        captured = Captured(lambda: STEPS[step](buffer, slot))
        for i in range(6):
            one = rounds[i % len(rounds)]
            slot.load(one)
            check_outputs(one, captured.replay(), f"replay {i}")
        for _ in range(20):  # without the host in between
            captured.replay()
        check_outputs(rounds[2], captured.outputs, "20 replays")
        group.barrier()
        captured.end()


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
@pytest.mark.parametrize("step", STEPS)
def test_a_graph_is_replayed_with_other_routings(pool: RankPool, step: str, num_ranks: int):
    pool.run(replayed, step, None, "per_expert", num_ranks=num_ranks)


@pytest.mark.parametrize("layout", ["per_expert", "per_rank"])
@pytest.mark.parametrize("fp8", ["float32", "ue8m0"])
def test_a_graph_quantises(pool: RankPool, fp8: str, layout: str):
    pool.run(replayed, "pair", fp8, layout, num_ranks=4)


def two_graphs(group: moelink.Group) -> None:
    """In turn, with eager calls between them, which may leave an odd number of operations."""
    slots = [Round(group, SHAPE), Round(group, SHAPE, 1, fp8="float32")]
    eager = Round(group, SHAPE, 9, fp8="power_of_two")
    with open_low_latency(group) as buffer:
        for slot in slots:
            pair(buffer, slot)
        graphs = [
            Captured(lambda: three_operations(buffer, slots[0])),
            Captured(lambda: pair(buffer, slots[1])),
        ]
        for i, which in enumerate([0, 1, 0, 0, 1, 1, 0, 1]):
            one = Round(group, SHAPE, 20 + i, fp8=slots[which].call.fp8)
            slots[which].load(one)
            outputs = graphs[which].replay()
            held = eager.dispatch(buffer) if i % 3 == 0 else None
            check_outputs(one, outputs, f"replay {i} of graph {which}")
            if held is not None:
                eager.check_received(held, f"after replay {i}")
                eager.check_combined(eager.combine(buffer, held))
        group.barrier()
        for graph in graphs:
            graph.end()


@pytest.mark.parametrize("num_ranks", [2, 4, 8])
def test_two_graphs_take_turns(pool: RankPool, num_ranks: int):
    pool.run(two_graphs, num_ranks=num_ranks)


def graphs_of_other_buffers(group: moelink.Group) -> None:
    """A graph of one buffer does not disturb calls on another one."""
    slot, one = Round(group, SHAPE), Round(group, SHAPE, 3)
    with open_low_latency(group) as first, open_low_latency(group) as second:
        pair(first, slot)
        captured = Captured(lambda: pair(first, slot))
        for i in range(3):
            outputs = captured.replay()
            one.check_round_trip(second, f"second buffer, {i}")
            check_outputs(slot, outputs, f"replay {i}")
        group.barrier()
        captured.end()


def test_two_buffers_do_not_disturb_each_other(pool: RankPool):
    pool.run(graphs_of_other_buffers, num_ranks=2)


def many_layers(group: moelink.Group) -> None:
    """As the layers of a decoding step."""
    slot = Round(group, SHAPE, fp8="float32")
    with open_low_latency(group) as buffer:

        def step() -> Outputs:
            outputs = [pair(buffer, slot) for _ in range(40)]
            return outputs[0] + outputs[-1]

        step()
        captured = Captured(step)
        for salt in range(1, 4):
            one = Round(group, SHAPE, salt, fp8="float32")
            slot.load(one)
            check_outputs(one, captured.replay(), f"replay {salt}")
        group.barrier()
        captured.end()


@pytest.mark.parametrize("num_ranks", [2, 8])
def test_a_graph_of_forty_pairs(pool: RankPool, num_ranks: int):
    pool.run(many_layers, num_ranks=num_ranks)


def capture_of_a_new_shape(group: moelink.Group) -> None:
    one = Round(group, SHAPE)
    with open_low_latency(group) as buffer:
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            one.x.mul_(1)
            text = refusal(lambda: one.dispatch(buffer))
        assert "before the capture" in text, text
        one.check_round_trip(buffer)


@pytest.mark.skipif(DEVICE == "cpu", reason="the CPU has no graphs")
def test_the_first_call_of_a_shape_cannot_be_captured(pool: RankPool):
    pool.run(capture_of_a_new_shape, num_ranks=2)


def hook_outside_of_its_graph(group: moelink.Group) -> None:
    """The send half is in a graph, the receive half is in a second one."""
    one = Round(group, SHAPE)
    with open_low_latency(group) as buffer:
        one.check_round_trip(buffer)
        halves = []

        def send() -> Outputs:
            halves.append(one.dispatch(buffer, return_hook=True))
            return []

        def receive() -> Outputs:
            halves[-1].hook()
            return [("received", halves[-1])]

        graphs = [Captured(send), Captured(receive)]
        for i in range(4):
            graphs[0].replay()
            check_outputs(one, graphs[1].replay(), f"replay {i}")
        group.barrier()
        for graph in graphs:
            graph.end()


def test_the_halves_of_an_operation_may_be_in_two_graphs(pool: RankPool):
    pool.run(hook_outside_of_its_graph, num_ranks=2)


def layers_in_little_memory(group: moelink.Group) -> None:
    """What a layer lets go of serves the next one: a graph takes the memory of a few layers."""
    slot = Round(group, SHAPE, fp8="float32")

    def live_bytes() -> int:
        synchronize()
        return buffer.memory_statistics().live_bytes

    def step() -> Outputs:
        outputs = pair(buffer, slot)
        for _ in range(39):
            outputs = pair(buffer, slot)
        return outputs

    with open_low_latency(group) as buffer:
        step()
        before = live_bytes()
        held = pair(buffer, slot)
        of_a_layer = live_bytes() - before
        del held
        captured = Captured(step)
        assert live_bytes() - before <= 4 * of_a_layer
        for salt in range(1, 4):
            one = Round(group, SHAPE, salt, fp8="float32")
            slot.load(one)
            outputs = captured.replay()
            Round(group, SHAPE, 7 + salt).check_round_trip(buffer)  # takes none of it
            check_outputs(one, outputs, f"replay {salt}")
        group.barrier()
        captured.end()


def test_a_graph_reuses_the_memory_that_its_layers_drop(pool: RankPool):
    pool.run(layers_in_little_memory, num_ranks=2)
