"""Files with secrets in them: nobody else's file or link is written to, whatever the umask."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from keyraft.storage.files import create_private


@pytest.mark.parametrize("there", ["nothing", "a file", "a link", "a dangling link"])
def test_a_private_file_takes_the_place_of_what_others_put_there(
    tmp_path: Path, there: str
) -> None:
    path, others = tmp_path / "a.db.part", tmp_path / "others"
    others.touch()
    others.chmod(0o666)
    if there == "a file":
        path.touch()
        path.chmod(0o666)
    elif there != "nothing":
        path.symlink_to(others if there == "a link" else tmp_path / "nowhere")
    before = os.umask(0)
    try:
        os.close(create_private(str(path)))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert stat.S_ISREG(path.lstat().st_mode)
    assert others.stat().st_size == 0 and not (tmp_path / "nowhere").exists()


def test_a_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    with pytest.raises(OSError, match=r"directory|permitted"):
        create_private(str(tmp_path / "part"))
