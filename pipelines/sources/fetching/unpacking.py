"""Unpack archives completely or not at all, and never outside their folder."""

import os
import shutil
import tarfile
import zipfile
from pathlib import Path


class BadArchive(Exception):
    """An archive that is damaged, or has a member outside its folder."""


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .zip or .tar(.gz) to a folder. The folder appears when it is complete.

    If the archive contains only a folder of the same name, as train2014.zip does, that folder becomes the target.

    Raises:
        BadArchive: the archive cannot be unpacked, or has a member outside the folder.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        if zipfile.is_zipfile(archive):
            # extractall would silently move such a member into the folder; the published archives have none.
            with zipfile.ZipFile(archive) as opened:
                for member in opened.namelist():
                    if Path(member).is_absolute() or ".." in Path(member).parts:
                        raise BadArchive(f"{archive.name} has the member {member!r}, which is outside the folder")
                opened.extractall(partial)
        else:
            with tarfile.open(archive) as opened_tar:
                opened_tar.extractall(partial, filter="data")  # rejects paths and links outside the folder
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError) as error:
        raise BadArchive(f"{archive.name} cannot be unpacked: {error}") from error
    inside = [entry for entry in partial.iterdir() if entry.name != "__MACOSX"]
    is_wrapped = len(inside) == 1 and inside[0].is_dir() and inside[0].name == folder.name
    os.replace(inside[0] if is_wrapped else partial, folder)
    shutil.rmtree(partial, ignore_errors=True)
