"""Who may found a cluster, and how a repeated call is recognised."""

import pytest

from raftkv.node.events import Bootstrapped
from raftkv.node.founding import check_founding, founding_configuration
from raftkv.node.messages import Failure, FailureCode
from raftkv.raft.messages import Member
from raftkv.storage.identity import Identity

MEMBERS = tuple(Member(n, f"n{n}", f"n{n}:1", f"http://n{n}") for n in (3, 1, 2))
EMPTY = Identity(member_id=1)
FOUNDER = Identity(1, "c1", founding_configuration(MEMBERS))
JOINED = Identity(2, "c1")


def test_the_configuration_lists_everybody_as_voter_sorted() -> None:
    conf = founding_configuration(MEMBERS)
    assert conf.voters == (1, 2, 3)
    assert [member.id for member in conf.members] == [1, 2, 3]
    assert conf.sessions == ((1, 1), (2, 1), (3, 1))


def test_an_empty_node_in_the_list_may_found() -> None:
    assert check_founding(EMPTY, "c1", MEMBERS) is None


@pytest.mark.parametrize("identity", [FOUNDER, JOINED])
def test_the_same_call_again_is_answered_as_the_first(identity: Identity) -> None:
    assert check_founding(identity, "c1", MEMBERS) == Bootstrapped("c1", repeated=True)


@pytest.mark.parametrize(
    ("identity", "cluster_id", "members"),
    [(FOUNDER, "c2", MEMBERS), (JOINED, "c2", MEMBERS), (FOUNDER, "c1", MEMBERS[:2])],
)
def test_a_contradicting_call_is_a_conflict(
    identity: Identity, cluster_id: str, members: tuple[Member, ...]
) -> None:
    verdict = check_founding(identity, cluster_id, members)
    assert isinstance(verdict, Failure)
    assert verdict.code is FailureCode.CONFLICT


@pytest.mark.parametrize(
    ("cluster_id", "members"),
    [
        ("", MEMBERS),
        ("c1", ()),
        ("c1", MEMBERS[:1]),  # without this node
        ("c1", (*MEMBERS, MEMBERS[0])),
        ("c1", (*MEMBERS, Member(0, "zero", "z:1", "http://z"))),
        ("c1", (*MEMBERS, Member(9, "n1", "n9:1", "http://n9"))),
    ],
)
def test_a_bad_list_is_refused(cluster_id: str, members: tuple[Member, ...]) -> None:
    verdict = check_founding(EMPTY, cluster_id, members)
    assert isinstance(verdict, Failure)
    assert verdict.code is FailureCode.INVALID
