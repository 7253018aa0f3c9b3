"""Render what is generated: the CRD from its Python types, the plain manifests from the chart.

`make manifests` writes them, `test_manifests.py` compares them. Without Helm the comparison falls
back on a digest of the chart's sources, which is stored in the manifest itself.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from raftkv_operator.crd import build_crd

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "raftkv-operator"
CRD_IN_CHART = CHART / "files" / "raftkvclusters.yaml"
CRD = ROOT / "manifests" / "crd.yaml"
INSTALL = ROOT / "manifests" / "install.yaml"

NAMESPACE = "raftkv-system"
_DIGEST_MARK = "# Digest of the chart's sources: "


def crd_yaml() -> str:
    """The CustomResourceDefinition as it stands in the chart and in manifests/."""
    text = yaml.safe_dump(build_crd(), sort_keys=False, width=100)
    return "# Made from operator/raftkv_operator/api.py by `make manifests`. Do not edit.\n" + text


def chart_digest() -> str:
    """Hash of every file that the rendered chart depends on."""
    digest = hashlib.sha256()
    sources = sorted(path for path in CHART.rglob("*") if path.is_file())
    for path in sources:
        digest.update(f"{path.relative_to(CHART)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def stored_digest() -> str:
    """The digest that manifests/install.yaml was rendered from."""
    for line in INSTALL.read_text().splitlines():
        if line.startswith(_DIGEST_MARK):
            return line.removeprefix(_DIGEST_MARK)
    return ""


def has_helm() -> bool:
    """Whether the chart can be rendered here."""
    return shutil.which("helm") is not None


def render_chart(*options: str) -> str:
    """What Helm makes of the chart."""
    command = ["helm", "template", "raftkv", str(CHART), "--namespace", NAMESPACE, *options]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def install_yaml() -> str:
    """The plain manifest: the namespace, then the rendered chart, as one file to apply."""
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": NAMESPACE,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        },
    }
    documents = [namespace, *(item for item in yaml.safe_load_all(render_chart()) if item)]
    for item in documents:
        labels = item["metadata"].get("labels", {})
        if labels.get("app.kubernetes.io/managed-by") == "Helm":
            labels["app.kubernetes.io/managed-by"] = "kubectl"
        template = item.get("spec", {}).get("template", {}).get("metadata", {}).get("labels", {})
        if "app.kubernetes.io/managed-by" in template:
            template["app.kubernetes.io/managed-by"] = "kubectl"
    body = yaml.safe_dump_all(documents, sort_keys=False, width=100, explicit_start=True)
    return (
        "# charts/raftkv-operator with its default values, rendered by `make manifests`.\n"
        f"{_DIGEST_MARK}{chart_digest()}\n{body}"
    )


def main() -> int:
    """Write the files, or say which are out of date."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--write", action="store_true", help="write instead of comparing")
    is_writing = parser.parse_args().write
    CRD_IN_CHART.parent.mkdir(exist_ok=True)
    outdated = _update({CRD_IN_CHART: crd_yaml(), CRD: crd_yaml()}, is_writing=is_writing)
    if not has_helm():
        sys.stderr.write("helm is not installed: manifests/install.yaml was left as it is\n")
        return 1
    outdated += _update({INSTALL: install_yaml()}, is_writing=is_writing)
    for path in outdated:
        sys.stdout.write(f"{path.relative_to(ROOT)} {'written' if is_writing else 'differs'}\n")
    return int(bool(outdated) and not is_writing)


def _update(wanted: dict[Path, str], *, is_writing: bool) -> list[Path]:
    outdated = [
        path for path, text in wanted.items() if not path.exists() or path.read_text() != text
    ]
    if is_writing:
        for path in outdated:
            path.write_text(wanted[path])
    return outdated


if __name__ == "__main__":
    sys.exit(main())
