"""Throwaway authorities and certificates, made by the `openssl` command."""

import os
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

_CONFIG = """
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = CA:FALSE
subjectAltName = ${ENV::NAMES}
extendedKeyUsage = ${ENV::USAGE}
authorityKeyIdentifier = keyid
"""
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
LOOPBACK = "IP:127.0.0.1,DNS:localhost"
BOTH_WAYS = "serverAuth,clientAuth"


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, as PEM files."""

    cert: Path
    key: Path


class Authority:
    """Issues certificates into a directory."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._config = directory / f"{name}.cnf"
        self._config.write_text(_CONFIG)
        self.cert = directory / f"{name}.pem"
        self._key = directory / f"{name}.key"
        self._openssl(
            *("req", "-x509", "-extensions", "authority", *_NEW_KEY, "-subj", f"/CN={name}"),
            *("-keyout", str(self._key), "-out", str(self.cert), "-days", "2"),
        )

    def issue(
        self, name: str, *, names: str = LOOPBACK, usage: str = BOTH_WAYS, days: int = 1
    ) -> Issued:
        """A new certificate; with ``days=-1`` one that has expired."""
        request = self._directory / f"{name}.csr"
        issued = Issued(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        self._openssl(
            *("req", *_NEW_KEY, "-subj", f"/CN={name}"),
            *("-keyout", str(issued.key), "-out", str(request)),
        )
        self._openssl(
            *("x509", "-req", "-in", str(request), "-CA", str(self.cert)),
            *("-CAkey", str(self._key), "-CAcreateserial", "-days", str(days)),
            *("-extfile", str(self._config), "-extensions", "leaf", "-out", str(issued.cert)),
            NAMES=names,
            USAGE=usage,
        )
        return issued

    def client_context(self, issued: Issued | None = None) -> ssl.SSLContext:
        """For a client that trusts this authority, and shows ``issued``."""
        context = ssl.create_default_context(cafile=str(self.cert))
        if issued is not None:
            context.load_cert_chain(issued.cert, issued.key)
        return context

    def _openssl(self, *arguments: str, **variables: str) -> None:
        command = ["openssl", *arguments]
        if arguments[0] == "req":
            command += ["-config", str(self._config)]
        environment = {**os.environ, "NAMES": "DNS:unused", "USAGE": "serverAuth", **variables}
        subprocess.run(command, check=True, capture_output=True, timeout=30, env=environment)
