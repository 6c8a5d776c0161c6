"""Archives into folders: whole or not at all, and never outside of the folder."""

import os
import shutil
import tarfile
import zipfile
from pathlib import Path


class BadArchive(Exception):
    """The archive is damaged, or a member of it would leave the folder."""


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .zip or .tar(.gz) to a folder that appears when all of it is there.

    An archive that holds nothing but a folder of that name, as train2014.zip does, becomes that folder, not one in it.

    Raises:
        BadArchive: it cannot be unpacked, or a member is a link or a path out of the folder.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                for member in opened.namelist():
                    if Path(member).is_absolute() or ".." in Path(member).parts:
                        raise BadArchive(f"{archive.name} holds {member!r}, which would leave the folder")
                opened.extractall(partial)
        else:
            with tarfile.open(archive) as opened_tar:
                opened_tar.extractall(partial, filter="data")
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError) as error:
        raise BadArchive(f"{archive.name} cannot be unpacked: {error}") from error
    inside = [entry for entry in partial.iterdir() if entry.name != "__MACOSX"]
    alone = len(inside) == 1 and inside[0].is_dir() and inside[0].name == folder.name
    os.replace(inside[0] if alone else partial, folder)
    shutil.rmtree(partial, ignore_errors=True)
