"""Packages of third parties, installed without a network: what pip leaves behind when it unpacks a wheel."""

from collections.abc import Mapping
from pathlib import Path

__all__ = ["install_package"]


def install_package(
    folder: Path, name: str, source: str, entry_points: Mapping[str, Mapping[str, str]], *, version: str = "1.0"
) -> Path:
    """Put a module and its metadata into a folder, which then is to be on sys.path or in PYTHONPATH."""
    (folder / f"{name}.py").write_text(source, encoding="utf-8")
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    groups = [
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
        for group, entries in entry_points.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups), encoding="utf-8")
    (info / "RECORD").write_text(
        f"{name}.py,,\n{info.name}/METADATA,,\n{info.name}/entry_points.txt,,\n", encoding="utf-8"
    )
    return folder
