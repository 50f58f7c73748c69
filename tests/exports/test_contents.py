"""Contents in one form for all rows of a file."""

import msgspec
import pytest

from rollmill.corpus.message import Message
from rollmill.exports.contents import NeedsPartsError, UnnamedImageError, convert_contents

TEXT = {"type": "text", "text": "a"}


def message(*parts):
    return Message("user", msgspec.Raw(msgspec.json.encode(list(parts))))


@pytest.mark.parametrize(
    ("form", "part", "needed"),
    [
        ("text", {"type": "video", "video": "v.mp4"}, "parts"),
        ("text", {"type": "image", "image": "i.png"}, "images"),
        ("parts", {"type": "image", "image": "i.png"}, "images"),
    ],
)
def test_a_content_that_needs_a_richer_form_names_it(form, part, needed):
    with pytest.raises(NeedsPartsError) as raised:
        convert_contents([message(TEXT, part)], form, str)
    assert raised.value.form == needed


def test_an_image_without_a_file_is_an_error():
    with pytest.raises(UnnamedImageError):
        convert_contents([message(TEXT, {"type": "image"})], "images", str)


def test_a_video_is_a_part_with_columns_of_its_own():
    converted = convert_contents([message(TEXT, {"type": "video", "video": "v.mp4"})], "parts", str)
    assert converted.images == []
    assert converted.columns == {"content.type: str", "content.video: str"}
