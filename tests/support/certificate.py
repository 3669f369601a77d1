"""A certificate for 127.0.0.1, made when it is needed."""

import shutil
import subprocess
from pathlib import Path

import pytest


def make_certificate(folder: Path) -> Path:
    """Make ``key``, ``ca.crt`` (it signs itself) and ``both`` (one file with these two) in a folder, and return that.

    Skips the test where there is no openssl.
    """
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    argv += ["-days", "1", "-subj", "/CN=redisha", "-addext", "subjectAltName=IP:127.0.0.1"]
    argv += ["-keyout", str(folder / "key"), "-out", str(folder / "ca.crt")]
    subprocess.run(argv, check=True, capture_output=True, timeout=30)
    (folder / "both").write_bytes((folder / "key").read_bytes() + (folder / "ca.crt").read_bytes())
    return folder
