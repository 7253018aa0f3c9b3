"""Which `kubectl get` goes by plain HTTP, and where to."""

import pytest

from tests.e2e.api_proxy import path_of


@pytest.mark.parametrize(
    ("args", "path"),
    [
        (("nodes",), "/api/v1/nodes"),
        (("node", "n1"), "/api/v1/nodes/n1"),
        (("pods", "-n", "a"), "/api/v1/namespaces/a/pods"),
        (("pods", "-n", "a", "-l", "b=c"), "/api/v1/namespaces/a/pods?labelSelector=b%3Dc"),
        (("rkv", "demo", "-n", "a"), "/apis/raftkv.io/v1alpha1/namespaces/a/raftkvclusters/demo"),
        (("statefulset", "demo", "-n", "a"), "/apis/apps/v1/namespaces/a/statefulsets/demo"),
        (("pods",), None),
        (("crd", "x"), None),
        (("pods", "-A"), None),
        (("pod/x", "-n", "a"), None),
        (("pods", "-n", "a", "--show-labels"), None),
    ],
)  # fmt: skip
def test_what_can_be_asked_without_kubectl(args: tuple[str, ...], path: str | None) -> None:
    assert path_of(args) == path
