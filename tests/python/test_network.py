"""measure_network: the report between threads and processes, and what it refuses."""

import moelink
import pytest
from thread_ranks import errors_of, run_threads


def test_every_pair_of_threads_is_measured_and_all_ranks_know_all():
    reports = run_threads(3, moelink.measure_network)
    assert reports[0] == reports[1] == reports[2]
    report = reports[0]
    assert [rank.transport for rank in report.ranks] == ["loopback"] * 3
    assert [(link.source, link.target) for link in report.links] == [
        (0, 1),
        (0, 2),
        (1, 0),
        (1, 2),
        (2, 0),
        (2, 1),
    ]
    for link in report.links:
        assert link.problem == ""
        assert link.num_wrong_bytes == 0
        assert min(link.small_put_us, link.row_put_us, link.gb_per_s) > 0


def test_rails_of_one_host_are_all_its_pairs():
    reports = run_threads(2, lambda group: moelink.measure_network(group, pairs="rails"))
    assert len(reports[0].links) == 2


def test_one_rank_alone_has_no_links():
    (report,) = run_threads(1, moelink.measure_network)
    assert report.links == []
    assert len(report.ranks) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pairs": "some"}, ["pairs 'some'", "'hosts', 'rails', 'all'"]),
        ({"transport": "pigeons"}, ["measure_network (rank", "transport is 'pigeons'"]),
        ({"max_nics": -2}, ["max_nics is -2"]),
        ({"timeout": 0.0}, ["measure_network (rank", "timeout 0.0 s"]),
    ],
)
def test_wrong_options_are_named_at_all_ranks(options, words):
    for error in errors_of(2, lambda group: moelink.measure_network(group, **options)):
        assert error is not None
        assert error.code == moelink.ErrorCode.INVALID_ARGUMENT
        assert all(word in str(error) for word in words), error
