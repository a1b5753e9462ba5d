"""The Debian package: built, installed, started and removed under a real systemd."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.machine import ROOT, Machine, make
from support.wait import PATIENCE

PROGRAMS = ("/usr/bin/iris", "/usr/bin/iris-loadgen", "/usr/bin/iris-tune")
UNITS = ("iris.service", "iris-core.service", "iris-edge@.service", "iris.slice")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Return a booted systemd without Iris."""
    machine = Machine(tmp_path_factory.mktemp("machine"))
    try:
        yield machine
    finally:
        machine.cleanup()


def test_it_holds_what_make_install_installs_and_its_configuration_is_kept(package: Path, tmp_path: Path) -> None:
    make("install", DESTDIR=str(tmp_path), PREFIX="/usr", SYSCONFDIR="/etc")
    installed = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    listed = subprocess.run(["dpkg-deb", "--contents", package], text=True, capture_output=True, check=True).stdout
    rows = [line.split(None, 5) for line in listed.splitlines()]
    packed = {row[5].removeprefix("./"): row for row in rows if not row[0].startswith("d")}
    of_debian = {f"usr/share/doc/iris/{name}" for name in ("copyright", "changelog.Debian.gz", "changelog.gz")}
    # Debian wants long pages compressed.
    assert {name.removesuffix(".gz") for name in packed if name not in of_debian} == installed
    assert {row[1] for row in packed.values()} == {"0/0"}
    assert all(packed[name.lstrip("/")][0] == "-rwxr-xr-x" for name in PROGRAMS)
    control = subprocess.run(["dpkg-deb", "--field", package], text=True, capture_output=True, check=True).stdout
    assert "Package: iris\n" in control and "systemd (>= 252)" in control
    conffiles = subprocess.run(
        ["dpkg-deb", "--info", package, "conffiles"], text=True, capture_output=True, check=True
    ).stdout
    assert conffiles.split() == ["/etc/iris/iris.toml"]


def test_it_is_installed_started_upgraded_removed_and_purged(package: Path, machine: Machine) -> None:
    machine.write("/root/iris.deb", package.read_bytes())

    def dpkg(*args: str) -> None:
        # What the package depends on is this machine's affair.
        machine.run("dpkg", "--force-depends", *args)

    dpkg("--install", "/root/iris.deb")
    for name in (*PROGRAMS, *(f"/usr/lib/systemd/system/{unit}" for unit in UNITS)):
        assert machine.path(name).exists(), name
    assert machine.run("id", "-un", "iris").stdout == "iris\n"
    assert machine.run("stat", "-c", "%U %a", "/etc/iris/keys").stdout.split() == ["root", "700"]
    # Nothing runs that nobody configured, and what is missing is said.
    assert machine.show("ActiveState") == "inactive"
    machine.write("/etc/systemd/system/iris.service.d/log.conf", "[Service]\nStandardError=append:/var/log/iris.log\n")
    machine.systemctl("daemon-reload")
    assert machine.systemctl("start", "iris.service", check=False).returncode != 0
    assert "keys_jwt" in machine.log()
    machine.systemctl("reset-failed", "iris.service")

    machine.configure()
    machine.systemctl("enable", "--now", "iris.service")
    pid = machine.main_pid()
    with machine.login("a") as a:
        assert a.ask("a", b"kept") == "accepted"
    # An upgrade changes files and no process, and asks nobody about the configuration.
    dpkg("--force-confold", "--install", "/root/iris.deb")
    assert machine.main_pid() == pid
    machine.systemctl("restart", "iris.service")
    with machine.login("a") as a:
        assert [delivery.payload for delivery in a.take(1)] == [b"kept"]

    dpkg("--remove", "iris")
    assert not any(machine.path(name).exists() for name in PROGRAMS)
    assert machine.systemctl("is-active", "iris.service", check=False).stdout.strip() != "active"
    assert not machine.path("/etc/systemd/system/multi-user.target.wants/iris.service").is_symlink()
    assert not Path(f"/proc/{pid}").exists()
    assert machine.path("/etc/iris/iris.toml").exists()
    dpkg("--purge", "iris")
    assert not machine.path("/etc/iris/iris.toml").exists()
    # Keys and messages are nobody's to delete but their owner's.
    assert machine.path("/etc/iris/keys/jwt").exists() and machine.path("/var/lib/iris/node").exists()


def test_make_deb_names_the_tool_it_needs() -> None:
    done = subprocess.run(
        ["make", "-C", str(ROOT), "-n", "deb"], text=True, capture_output=True, timeout=PATIENCE, check=True
    )
    assert "cargo install cargo-deb" in done.stdout
