"""Whoever asks for a port gets one that nobody else was given."""

from itertools import islice

from tests.process.ports import cycle, free_port, free_ports, share


def test_no_port_is_given_out_twice() -> None:
    given = [free_port() for _ in range(200)]
    assert len(set(given)) == 200


def test_ports_with_offsets_are_given_out_whole() -> None:
    given = [free_ports([0, 1, 10, 11]) for _ in range(20)]
    singles = {free_port() for _ in range(100)}
    taken = [first + offset for first in given for offset in (0, 1, 10, 11)]
    assert len(set(taken)) == 80
    assert not singles & set(taken)


def test_workers_share_no_port() -> None:
    shares = [share(worker, 7) for worker in range(7)]
    assert len(set().union(*shares)) == sum(map(len, shares))


def test_a_round_begins_anywhere_and_leaves_nothing_out() -> None:
    assert sorted(islice(cycle(range(5), 3), 5)) == [0, 1, 2, 3, 4]
