import base64
from pathlib import Path

import pytest

from rollmill.errors import InputError
from rollmill.problems import Prompting, build_messages, to_openai
from rollmill.records import Image, Problem

PLAIN = Prompting()
FIRST, SECOND = (Image(path=f"/images/{name}.png", media_type="image/png", sha256=name) for name in "ab")


def text(content: str) -> dict:
    return {"type": "text", "text": content}


def shown(image: Image) -> dict:
    return {"type": "image", "image": image.path, "media_type": "image/png"}


def user_content(prompt, *images, prompting=PLAIN):
    return build_messages(Problem(instance_id="i", prompt=prompt, images=images), prompting)[0]["content"]


def test_text_prompt():
    assert build_messages(Problem(instance_id="i", prompt="q"), PLAIN) == [{"role": "user", "content": "q"}]


def test_system_prompt_examples_and_template():
    prompting = Prompting(template="Q: {prompt}", system_prompt="S", few_shot=(("a", "{1}"), ("b", "2")))
    assert build_messages(Problem(instance_id="i", prompt="q"), prompting) == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Q: a"},
        {"role": "assistant", "content": "{1}"},
        {"role": "user", "content": "Q: b"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "Q: q"},
    ]


def test_chat_prompt():
    chat = [
        {"role": "system", "content": "own"},
        {"role": "user", "content": "first <image>"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "last"},
    ]
    problem = Problem(instance_id="i", prompt=chat, images=(FIRST,))
    assert build_messages(Problem(instance_id="i", prompt=chat), PLAIN) == chat
    prompting = Prompting(template="{prompt}!", system_prompt="S", few_shot=(("a", "b"),))
    assert build_messages(problem, prompting) == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "a!"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": [text("first "), shown(FIRST)]},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "last!"},
    ]
    assert problem.prompt == chat


def test_missing_column_names_the_row():
    with pytest.raises(InputError, match="problem row-7 has no column 'topic'"):
        build_messages(Problem(instance_id="row-7", prompt="q"), Prompting(template="{prompt} {topic}"))


def test_images_without_markers_come_first():
    assert user_content("q", FIRST, SECOND) == [shown(FIRST), shown(SECOND), text("q")]


def test_as_many_markers_as_images_interleave():
    assert user_content("a <image> b <image>c", FIRST, SECOND) == [
        text("a "),
        shown(FIRST),
        text(" b "),
        shown(SECOND),
        text("c"),
    ]
    assert user_content("<image><image>", FIRST, SECOND) == [shown(FIRST), shown(SECOND)]


def test_other_number_of_markers_leaves_the_text_unchanged():
    assert user_content("a <image> b", FIRST, SECOND) == [shown(FIRST), shown(SECOND), text("a <image> b")]
    assert user_content("a <image> b") == "a <image> b"


def test_markers_in_the_template_are_used():
    prompting = Prompting(template="<image>\n{prompt}")
    assert user_content("q", FIRST, prompting=prompting) == [shown(FIRST), text("\nq")]


def test_to_openai_reads_the_files(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"bytes")
    image = Image(path="a.png", media_type="image/png", sha256="a")
    messages = build_messages(Problem(instance_id="i", prompt="q", images=(image,)), Prompting(system_prompt="s"))
    before = [dict(message) for message in messages]
    url = "data:image/png;base64," + base64.b64encode(b"bytes").decode()
    assert to_openai(messages, tmp_path) == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}, text("q")]},
    ]
    assert messages == before
    (tmp_path / "a.png").unlink()
    with pytest.raises(InputError, match=r"cannot read the image .*a\.png: No such file"):
        to_openai(messages, tmp_path)


def test_each_turn_shows_the_images_that_it_marks():
    chat = [
        {"role": "user", "content": "one <image>"},
        {"role": "assistant", "content": "a literal <image>"},
        {"role": "user", "content": "<image> other"},
    ]
    first, answer, second = build_messages(Problem(instance_id="i", prompt=chat, images=(FIRST, SECOND)), PLAIN)
    assert first["content"] == [text("one "), shown(FIRST)]
    assert answer == chat[1]
    assert second["content"] == [shown(SECOND), text(" other")]
