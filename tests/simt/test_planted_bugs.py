"""Each planted bug is found, at its kernel, block, thread and lines; its correction is not.

A kernel marks the lines that a finding must name with `found: <bug>`. No finding depends on the
order in which the threads run, so every schedule must show the same.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import pytest

from .build import CHECKED, KERNELS


class Bug(NamedTuple):
    kind: str
    who: str = r"block \(\d,0,0\) thread \(\d+,0,0\)"  # a pattern; exact where one thread is guilty


def by(block: int, thread: int) -> str:
    return re.escape(f"block ({block},0,0) thread ({thread},0,0)")


BUGS = {
    # races.cu
    "missing_syncwarp": Bug("race-shared"),
    "shuffle_as_barrier": Bug("race-shared"),
    "overwritten_in_warp": Bug("race-shared"),
    "two_lanes_write": Bug("race-shared"),
    "narrow_syncwarp": Bug("race-shared"),
    "missing_syncthreads": Bug("race-shared"),
    "overwritten_tile": Bug("race-shared"),
    "two_warps_write": Bug("race-shared"),
    "reused_dynamic": Bug("race-shared"),
    "bytes_of_a_word": Bug("race-shared"),
    "threads_share_an_element": Bug("race-global"),
    "blocks_share_an_element": Bug("race-global"),
    "blocks_in_sequence": Bug("race-global"),
    "global_scratch": Bug("race-global"),
    "plain_read_of_atomic": Bug("race-shared"),
    # divergence.cu
    "divergent_barrier": Bug("divergent-barrier"),
    "mixed_votes": Bug("divergent-barrier"),
    "early_exit": Bug("early-exit"),
    "uneven_loop": Bug("early-exit"),
    "deadlock": Bug("deadlock", r"block \(0,0,0\);"),
    "divergent_shuffle": Bug("divergent-warp"),
    "different_masks": Bug("divergent-warp"),
    "mask_without_caller": Bug("divergent-warp", by(0, 31)),
    "inactive_lane": Bug("inactive-lane"),
    "partial_mma": Bug("divergent-warp", by(0, 32)),
    # accesses.cu
    "past_the_end": Bug("out-of-bounds", by(1, 31)),
    "before_the_start": Bug("out-of-bounds", by(0, 0)),
    "vector_over_the_end": Bug("out-of-bounds", by(0, 15)),
    "null_pointer": Bug("out-of-bounds"),
    "released_memory": Bug("out-of-bounds"),
    "past_dynamic_shared": Bug("out-of-bounds", by(0, 63)),
    "static_shared_index": Bug("undefined"),
    "static_shared_pointer": Bug("out-of-bounds", by(0, 32)),
    "unwritten_static_shared": Bug("uninitialised", by(0, 63)),
    "left_by_another_block": Bug("uninitialised", r"block \(1,0,0\) thread \(\d+,0,0\)"),
    "unwritten_global": Bug("uninitialised"),
    "unwritten_workspace": Bug("uninitialised"),
    "incomplete_output": Bug("unwritten", "3 words or bytes of the output y"),
    "writes_an_input": Bug("read-only"),
    "misaligned_vector": Bug("misaligned"),
    "signed_overflow": Bug("undefined", by(0, 31)),
    "wide_shift": Bug("undefined", by(0, 31)),
    "division_by_zero": Bug("undefined", by(0, 0)),
    # asynchrony.cu
    "missing_wait": Bug("pending-copy"),
    "overwritten_target": Bug("pending-copy"),
    "wait_for_too_few": Bug("pending-copy"),
    "wait_without_barrier": Bug("race-shared"),
    "misaligned_copy": Bug("misaligned"),
    "missing_mbarrier_wait": Bug("pending-copy"),
    "early_release": Bug("race-shared", by(0, 64)),
    "no_mbarrier_init": Bug("mbarrier"),
    "extra_arrival": Bug("mbarrier", by(0, 64)),
    "misaligned_bulk": Bug("misaligned", by(0, 64)),
}
# Kinds that end the launch with an exception, which says the same.
FATAL = {"divergent-barrier", "divergent-warp", "deadlock", "out-of-bounds", "misaligned"}
FATAL |= {"undefined", "mbarrier"}
SCHEDULES = ("forward", "reverse", "random")


def marked_lines(bug: str) -> list[str]:
    """As file:line."""
    return [
        f"{path.name}:{number}"
        for path in sorted(KERNELS.glob("*.cu"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if bug in re.sub(r".*// found: |^(?!.*// found: ).*", "", line).split()
    ]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", BUGS)
def test_bug_is_found(programs, name, schedule):
    result = programs["check"].results(schedule)[f"{name}/broken"]
    bug, lines = BUGS[name], marked_lines(name)
    mine = [
        finding
        for finding in result.findings
        if finding["kind"] == bug.kind
        and re.search(bug.who, finding["text"])
        and all(re.search(rf"\b{re.escape(line)}\b", finding["text"]) for line in lines)
    ]
    assert mine, f"{lines} not in {result.findings}"
    assert "_kernel" in mine[0]["kernel"]
    assert lines or bug.kind == "unwritten"
    if bug.kind in FATAL:
        for part in (bug.kind, mine[0]["kernel"], mine[0]["text"]):
            assert part in result.failure
    elif name != "missing_mbarrier_wait":  # the producer meets its barrier too early as well
        assert result.failure == ""


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", BUGS)
def test_correction_is_clean(programs, name, schedule):
    result = programs["check"].results(schedule)[f"{name}/corrected"]
    assert (result.failure, result.findings) == ("", [])


def test_every_bug_is_tested():
    text = "".join((KERNELS / f"{name}.cu").read_text() for name in CHECKED)
    assert set(re.findall(r"^PLANTED\((\w+)\)", text, re.MULTILINE)) == set(BUGS)
    # Markers that name no bug would be ignored.
    marked = " ".join(re.findall(r"// found: (.*)", text)).split()
    assert set(marked) <= set(BUGS)
