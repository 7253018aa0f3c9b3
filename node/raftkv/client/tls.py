"""How a client proves who it talks to, and who it is."""

import ssl
from pathlib import Path


def ssl_context(
    *, cacert: Path | None = None, cert: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """For https endpoints.

    ``cacert`` is the authority (PEM) that nodes' certificates must come from (default: the
    system's); ``cert`` and ``key`` are this client's own, for nodes that ask for one.

    Raises:
        ValueError: a file cannot be read or is not what it should be; the text names it.
    """
    if (key is not None) and (cert is None):
        raise ValueError("a key needs the certificate that it belongs to")
    try:
        context = ssl.create_default_context(cafile=None if cacert is None else str(cacert))
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"{cacert} holds no certificates that can be read: {error}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert is not None:
        try:
            context.load_cert_chain(cert, key)
        except (OSError, ssl.SSLError) as error:
            raise ValueError(f"{cert} and its key cannot be used: {error}") from None
    return context
