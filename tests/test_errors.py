import errno
import os

import pytest

from rollmill.errors import InputError, RunStoppedError, file_error

KINDS = {
    errno.EISDIR: InputError,
    errno.ENOTDIR: InputError,
    errno.EEXIST: InputError,
    errno.ELOOP: InputError,
    errno.ENAMETOOLONG: InputError,
    errno.ENOSPC: RunStoppedError,
    errno.EDQUOT: RunStoppedError,
    errno.EROFS: RunStoppedError,
    errno.EACCES: RunStoppedError,
    errno.EPERM: RunStoppedError,
    errno.EIO: RunStoppedError,
    errno.EMFILE: RunStoppedError,
    errno.ENOENT: RunStoppedError,
    errno.ESTALE: RunStoppedError,
}


@pytest.mark.parametrize(("number", "kind"), KINDS.items(), ids=[errno.errorcode[number] for number in KINDS])
def test_file_system_error_is_one_line(number, kind):
    failure = file_error(OSError(number, os.strerror(number), "/data/a\nb"))
    assert type(failure) is kind
    assert str(failure).startswith(f"{os.strerror(number)}: /data/a b; ")


@pytest.mark.parametrize("number", [errno.ECONNREFUSED, errno.EPIPE, errno.EBADF, errno.EINTR, errno.ECHILD, None])
def test_what_is_no_file_is_not_told_as_one(number):
    assert file_error(OSError(number, "no", "/data")) is None


def test_a_missing_file_without_a_name_is_a_bug():
    assert file_error(FileNotFoundError(errno.ENOENT, "No such file or directory")) is None


def test_rename_error_names_the_target(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(IsADirectoryError) as caught:
        (tmp_path / "file").replace(tmp_path / "folder")
    assert str(file_error(caught.value)).startswith(
        f"Is a directory: {tmp_path}/folder; a folder is where a file belongs"
    )


def test_error_without_a_path_uses_the_given_one():
    error = OSError(errno.ENOSPC, "No space left on device")
    assert str(file_error(error)).startswith("No space left on device; free some space")
    assert str(file_error(error, "/given")).startswith("No space left on device: /given; free some space")
    of_a_descriptor = OSError(errno.ENOSPC, "No space left on device", 3)
    assert str(file_error(of_a_descriptor, "/given")).startswith("No space left on device: /given; free some space")


def test_a_long_path_is_shortened():
    message = str(file_error(OSError(errno.ENAMETOOLONG, "File name too long", "/a" * 5000 + "/end")))
    assert len(message) < 400
    assert "/end; choose a shorter name" in message
