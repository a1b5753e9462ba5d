#!/usr/bin/env python3
"""Which versions, cipher suites, groups and signatures the TLS port takes, asked one by one with `openssl s_client`.

A server with a certificate on P-256 and one with RSA are each offered everything that this machine's OpenSSL can still say,
weak things too (security level 0). Taken must be exactly TLS 1.3 with its three usual suites, and 1.2 with ECDHE and AEAD.

Results go to bench/runs/<date>-<kernel>-<cores>-tls-scan/. Exit code 0 if it is so, 99 if not.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import recovery
from place import Place

TLS13 = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
TLS13_OTHERS = ["TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"]
AEAD = ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"]
GROUPS = {"X25519": True, "P-256": True, "P-384": True, "P-521": False, "X448": False, "ffdhe2048": False}
WEAK = "ALL:COMPLEMENTOFALL:@SECLEVEL=0"
#: Without the system's own lower bounds: they are not what is asked about.
ENV = {**os.environ, "OPENSSL_CONF": "/dev/null"}


def openssl(*args):
    """What OpenSSL prints."""
    done = subprocess.run(
        ["openssl", *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, env=ENV, timeout=20, check=False
    )
    return done.stdout + done.stderr


def offers(key):
    """What is offered to a server with a key of this kind: its name, the flags, whether it is to be taken."""
    for flag, name in (("-tls1", "TLS 1.0"), ("-tls1_1", "TLS 1.1")):
        yield name, [flag, "-cipher", WEAK], False
    yield "TLS 1.2", ["-tls1_2"], True
    yield "TLS 1.3", ["-tls1_3"], True
    for suite in TLS13 + TLS13_OTHERS:
        yield suite, ["-tls1_3", "-ciphersuites", suite], suite in TLS13
    wanted = [f"ECDHE-{key}-{cipher}" for cipher in AEAD]
    listed = openssl("ciphers", "-s", "-tls1_2", WEAK).split()[-1].split(":")
    for suite in (suite for suite in listed if not suite.startswith("TLS_")):
        yield suite, ["-tls1_2", "-cipher", f"{suite}:@SECLEVEL=0"], suite in wanted
    for group, is_wanted in GROUPS.items():
        yield f"group {group}", ["-tls1_3", "-groups", group], is_wanted
    weak = f"{key}+SHA1"
    yield f"signature {weak}", ["-tls1_2", "-sigalgs", weak, "-cipher", WEAK], False


def is_taken(address, flags):
    """Whether the server completes a handshake with these flags."""
    said = openssl("s_client", "-connect", address, "-servername", "localhost", *flags)
    if "no cipher match" in said or "Error with command" in said or "Call to SSL_CONF_cmd" in said:
        return None
    cipher = re.search(r"Cipher is (\S+)", said)
    return bool(cipher) and cipher[1] != "(NONE)"


def scan(key, directory):
    """What a server with a key of this kind takes: a row for each offer."""
    cert, secret = directory / f"{key}.pem", directory / f"{key}-key.pem"
    kind = ["rsa:2048"] if key == "RSA" else ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    openssl("req", "-x509", "-newkey", *kind, "-nodes", "-keyout", str(secret), "-out", str(cert), "-days", "2",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-config", "/etc/ssl/openssl.cnf")  # fmt: skip
    secret.chmod(0o600)
    certs = f'[{{ cert = "{cert}", key = "{secret}" }}]'
    settings = {"IRIS_LISTEN__TLS": "127.0.0.1:0", "IRIS_TLS__CERTS": certs}
    server = recovery.Server(directory / f"data-{key}", settings)
    try:
        return [(name, is_taken(server.ports["tls"], flags), wanted) for name, flags, wanted in offers(key)]
    finally:
        server.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", help="directory for the results")
    args = parser.parse_args()
    place = Place("tls-scan", args.out)
    with tempfile.TemporaryDirectory(dir=os.environ.get("IRIS_BENCH_DIR")) as temporary:
        found = {key: scan(key, pathlib.Path(temporary)) for key in ("ECDSA", "RSA")}
    version = openssl("version").split(" (")[0].strip()
    lines = [
        f"{place.title('What the TLS port takes')}, {version}",
        "",
        "`python3 bench/tls_scan.py`; each row is one `openssl s_client`. What this OpenSSL cannot offer is not counted.",
        "",
    ]
    wrong = []
    for key, rows in found.items():
        offered = [(name, taken, wanted) for name, taken, wanted in rows if taken is not None]
        wrong += [f"{key}: {name} is {'taken' if taken else 'refused'}" for name, taken, wanted in offered if taken != wanted]
        refused = [name for name, taken, _ in offered if not taken]
        lines += [f"## A certificate with a key of {key}: {len(offered)} offers", ""]
        lines += ["Taken: " + ", ".join(name for name, taken, _ in offered if taken) + ".", ""]
        lines += [f"Refused ({len(refused)}): " + ", ".join(refused) + ".", ""]
    lines += [f"As it should be: {'yes' if not wrong else '**no**: ' + '; '.join(wrong)}."]
    text = "\n".join(lines) + "\n"
    (place.out / "summary.md").write_text(text)
    print(text)
    return 99 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
