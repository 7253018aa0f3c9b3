"""The files of an older version, as the simulation writes them."""

from raftkv.raft import ConfState
from raftkv.raft.messages import EntryId, HardState, decode_conf_state, encode_conf_state
from raftkv.storage.record import SegmentStart, decode_record, encode_record
from tests.simulation.old_formats import older_version
from tests.simulation.run import SHORT, run


def test_a_shorter_array_says_the_same() -> None:
    conf = ConfState(voters=(1, 2), sessions=((1, 1), (2, 1)))
    start = SegmentStart(1, 4096, 1, EntryId(0, 0), HardState(0, None, 0))
    with older_version():
        older_conf, older_start = encode_conf_state(conf), encode_record(start)
    assert decode_conf_state(older_conf) == conf
    assert decode_record(older_start) == start
    # Two arrays that were left out, and a nil.
    assert len(older_conf) == len(encode_conf_state(conf)) - 2
    assert len(older_start) == len(encode_record(start)) - 1


def test_nothing_that_says_anything_is_left_out() -> None:
    conf = ConfState(voters=(1,), sessions=((1, 1),), removed=(7,))
    with older_version():
        older = encode_conf_state(conf)
    assert older == encode_conf_state(conf)


def test_nodes_are_rolled_up_and_down_between_the_versions() -> None:
    reached = run(5, SHORT).reached
    assert reached["rolled up"]
    assert reached["rolled down"]
