"""Certificates for tests, made with the openssl command."""

from __future__ import annotations

import subprocess
from pathlib import Path


def openssl(*args: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run openssl to its end."""
    return subprocess.run(["openssl", *args], input=text, text=True, capture_output=True, timeout=60)


def made(*args: str) -> None:
    """Run openssl, which must succeed."""
    done = openssl(*args)
    assert done.returncode == 0, done.stderr


class Authority:
    """A CA in a directory."""

    def __init__(self, home: Path, name: str = "ca") -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.cert = home / f"{name}.pem"
        self.key = home / f"{name}-key.pem"
        made("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
             "-subj", f"/CN={name}", "-keyout", str(self.key), "-out", str(self.cert))  # fmt: skip

    def issue(self, name: str, alternative: str, kind: str = "P-256") -> tuple[Path, Path]:
        """Return certificate and key of a name; ``alternative`` is a subjectAltName, ``kind`` a curve or ``rsa``."""
        cert, key = self.home / f"{name}.pem", self.home / f"{name}-key.pem"
        request, extensions = self.home / f"{name}.csr", self.home / f"{name}.ext"
        extensions.write_text(f"subjectAltName={alternative}\nextendedKeyUsage=serverAuth,clientAuth\n")
        new = ["-newkey", "rsa:2048"] if kind == "rsa" else ["-newkey", "ec", "-pkeyopt", f"ec_paramgen_curve:{kind}"]
        made("req", *new, "-nodes", "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(request))
        made("x509", "-req", "-in", str(request), "-CA", str(self.cert), "-CAkey", str(self.key), "-CAcreateserial",
             "-days", "20", "-extfile", str(extensions), "-out", str(cert))  # fmt: skip
        return cert, key


def certs(*pairs: tuple[Path, Path]) -> str:
    """Return the value of tls.certs for these pairs."""
    return "[" + ", ".join(f'{{ cert = "{cert}", key = "{key}" }}' for cert, key in pairs) + "]"
