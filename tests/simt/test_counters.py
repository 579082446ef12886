"""Operations, sectors and wavefronts of kernels for which they are known by counting on paper.

A request is one instruction of one warp. Global memory moves in sectors of 32 bytes, shared memory
in wavefronts over 32 banks of 4 bytes. None of the counts depends on the order of the threads.
"""

from __future__ import annotations

import pytest

SCHEDULES = ("forward", "reverse", "random")


@pytest.fixture(params=SCHEDULES)
def results(programs, request):
    return programs["check"].results(request.param)


def total(result, name, **wanted):
    """Sum of a field over the lines with those properties."""
    return sum(
        line[name]
        for line in result.requests
        if all(bool(line[key]) == value for key, value in wanted.items())
    )


def test_operations_of_a_gemm(results):
    assert results["sgemm"].counters["flops"] == 2 * 64 * 64 * 48


def test_operations_of_each_kind(results):
    counters = results["operations"].counters
    assert (counters["flops"], counters["special"]) == (8 * 64, 2 * 64)


def test_matrix_operations(results):
    counters = results["matrix_operations"].counters
    assert counters["mma_flops"] == 2 * (2 * 16 * 8 * 8 + 2 * 16 * 8 * 16)  # of two warps
    assert counters["flops"] == 0


@pytest.mark.parametrize(
    ("name", "requests", "sectors", "ideal"),
    [
        ("copy_rows", 128, 4, 4),  # 32 lanes of 4 bytes: 128 bytes
        ("copy_columns", 128, 32, 4),  # one sector a lane
        ("copy_vectors", 32, 16, 16),  # 32 lanes of 16 bytes
        ("broadcast", 2, 1, 1),  # all lanes read the same word
    ],
)
def test_sectors(results, name, requests, sectors, ideal):
    assert total(results[name], "requests", write=False) == requests
    assert total(results[name], "sectors", write=False) == requests * sectors
    assert total(results[name], "ideal_sectors", write=False) == requests * ideal


def test_sectors_of_stores(results):
    for name, sectors in (("copy_rows", 4), ("copy_columns", 32)):
        assert total(results[name], "sectors", write=True) == 128 * sectors
        assert total(results[name], "bytes", write=True) == 4096 * 4


def test_sectors_of_a_shifted_row(results):
    # 128 bytes that begin one word into a sector touch five sectors.
    result = results["copy_shifted"]
    assert total(result, "sectors", write=False) == 126 * 5
    assert total(result, "ideal_sectors", write=False) == 126 * 4
    assert total(result, "sectors", write=True) == 126 * 4


def test_sectors_of_lanes_that_take_turns(results):
    # A group of eight lanes is a sector; of the eight groups of a block, (group + step) % 3 rests.
    resting = sum((group + step) % 3 == 0 for group in range(8) for step in range(32))
    result = results["conditional_loads"]
    assert total(result, "sectors", write=False) == 2 * 32 * 4 + (8 * 32 - resting)
    assert total(result, "ideal_sectors", write=False) == total(result, "sectors", write=False)


@pytest.mark.parametrize(("name", "worst"), [("transpose_unpadded", 32), ("transpose_padded", 1)])
def test_bank_conflicts_of_a_transpose(results, name, worst):
    result = results[name]
    for write, wavefronts in ((True, 1), (False, worst)):
        assert total(result, "requests", shared=True, write=write) == 32
        assert total(result, "wavefronts", shared=True, write=write) == 32 * wavefronts
        assert total(result, "ideal_wavefronts", shared=True, write=write) == 32


def test_wavefronts_of_vectors(results):
    # Sixteen bytes a lane: a quarter warp fills the banks once.
    for write in (True, False):
        assert total(results["shared_vectors"], "requests", shared=True, write=write) == 2
        assert total(results["shared_vectors"], "wavefronts", shared=True, write=write) == 8
        assert total(results["shared_vectors"], "ideal_wavefronts", shared=True, write=write) == 8


def test_wavefronts_of_a_gemm(results):
    # Of A's tile a warp reads two words, in rows 17 words apart; of B's tile 16 in a row.
    result = results["sgemm"]
    assert total(result, "wavefronts", shared=True, write=False) == 16 * 3 * 8 * 16 * 2
    assert total(result, "ideal_wavefronts", shared=True, write=False) == 16 * 3 * 8 * 16 * 2


def test_lines_are_named(results):
    lines = {(line["file"], line["kernel"].partition("(")[0]) for line in results["sgemm"].requests}
    assert lines == {("counters.cu", "sgemm_kernel")}
