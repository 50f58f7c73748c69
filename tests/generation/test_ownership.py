import json
import shutil

import orjson
import pytest

from rollmill.errors import InputError
from rollmill.files.names import MANIFEST
from rollmill.generation.reverify import reverify
from rollmill.verifiers import VerifierPool
from tests.generation.run_factory import append, completed_rollout, identity, opened, owner

IDENTITY, OTHER = identity(), identity(model="other")


def rows_of(folder, name="0001"):
    return [orjson.loads(line) for line in (folder / "rollouts" / f"{name}.jsonl").read_bytes().splitlines()]


def begun(folder, *, rows=4, same=None, **fields):
    """A run with some rows, left in the middle."""
    with opened(folder, same=same) as run:
        for at in range(rows):
            append(run.journal, f"p{at % 3}", at // 3, **fields)
    return folder


def refusal(folder, **settings):
    with pytest.raises(InputError) as caught, opened(folder, **settings):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "data.jsonl"}


def without_identities(folder):
    """Makes the run one of an older version."""
    manifest = orjson.loads((folder / MANIFEST).read_bytes())
    del manifest["older_rows"]
    (folder / MANIFEST).write_bytes(orjson.dumps(manifest))
    path = folder / "rollouts" / "0001.jsonl"
    rows = rows_of(folder)
    for row in rows:
        del row["run_identity"]
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))


def test_every_row_says_of_which_run_it_is(tmp_path):
    rows = rows_of(begun(tmp_path))
    manifest = orjson.loads((tmp_path / MANIFEST).read_bytes())
    assert {row["run_identity"] for row in rows} == {manifest["identity_key"][:16]}
    assert list(rows[0])[-1] == "run_identity"


def test_what_stood_in_the_line_before_does_not_count(tmp_path):
    line = completed_rollout("p0").line.replace(b"{", b'{"run_identity":"0000000000000000",', 1)
    assert orjson.loads(owner().stamp(line))["run_identity"] == IDENTITY.row_key


def test_without_its_manifest_a_run_continues_as_what_it_is(tmp_path):
    begun(tmp_path)
    (tmp_path / MANIFEST).unlink()
    with opened(tmp_path) as run:
        assert run.missing() == 2
    with opened(tmp_path) as run:
        assert run.missing() == 2


def test_without_its_manifest_a_run_becomes_no_other(tmp_path):
    begun(tmp_path)
    (tmp_path / MANIFEST).unlink()
    before = contents(tmp_path)
    message = refusal(tmp_path, same=OTHER, flags="--place")
    assert message == (
        f"{tmp_path}/rollouts/0001.jsonl: line 1 is of the run {IDENTITY.row_key}, the run asked for is "
        f"{OTHER.row_key}, and {tmp_path} has no {MANIFEST}: put the {MANIFEST} back, or give another --place"
    )
    assert contents(tmp_path) == before
    assert refusal(tmp_path, same=OTHER, flags="--place") == message


@pytest.mark.parametrize("has_manifest", [True, False])
def test_a_row_of_another_run_is_named(tmp_path, has_manifest):
    begun(tmp_path / "here", rows=2)
    begun(tmp_path / "there", same=OTHER)
    journal = tmp_path / "here" / "rollouts" / "0001.jsonl"
    with journal.open("ab") as file:
        file.write((tmp_path / "there" / "rollouts" / "0001.jsonl").read_bytes() + b'{"torn')
    if not has_manifest:
        (tmp_path / "here" / MANIFEST).unlink()
    before = contents(tmp_path / "here")
    message = refusal(tmp_path / "here")
    assert message.startswith(f"{journal}: line 3 is of the run {OTHER.row_key}, ")
    assert IDENTITY.row_key in message
    assert contents(tmp_path / "here") == before


def test_manifest_of_another_run_does_not_claim_the_rows(tmp_path):
    begun(tmp_path / "here")
    begun(tmp_path / "there", same=OTHER)
    shutil.copy(tmp_path / "there" / MANIFEST, tmp_path / "here" / MANIFEST)
    message = refusal(tmp_path / "here", same=OTHER)
    assert "line 1 is of the run " + IDENTITY.row_key in message
    assert f"a journal or a {MANIFEST} was copied or edited" in message


@pytest.mark.parametrize("old", [True, False])
def test_edited_manifest_does_not_change_the_run(tmp_path, old):
    begun(tmp_path)
    if old:
        without_identities(tmp_path)
    manifest = orjson.loads((tmp_path / MANIFEST).read_bytes())
    manifest["identity"]["generation"]["model"] = "other"
    (tmp_path / MANIFEST).write_bytes(orjson.dumps(manifest))
    assert f"{tmp_path / MANIFEST} was edited: " in refusal(tmp_path, same=OTHER)
    manifest["identity_key"] = OTHER.key
    (tmp_path / MANIFEST).write_bytes(orjson.dumps(manifest))
    if not old:
        assert "line 1 is of the run " + IDENTITY.row_key in refusal(tmp_path, same=OTHER)


def key_paths(value, *path):
    """Yield the path of keys to every value in a JSON value."""
    inner = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for key, item in inner:
        yield (*path, key)
        yield from key_paths(item, *path, key)


LARGE = 10**30
EDITS = [7, "\x1b[2J\n\x7f\u202e", {"x\ny": [LARGE]}]


def test_any_manifest_edit_is_accepted_or_refused_in_one_line(tmp_path):
    begun(tmp_path, rows=1)
    path = tmp_path / MANIFEST
    manifest = path.read_text()
    messages = []
    for location in key_paths({**json.loads(manifest), "versions": {}}):
        for edit in EDITS:
            edited = json.loads(manifest)
            inner = edited
            for key in location[:-1]:
                inner = inner[key]
            inner[location[-1]] = edit
            path.write_text(json.dumps(edited))
            try:
                with opened(tmp_path):
                    pass
            except InputError as error:
                messages.append(str(error))
    assert len(messages) > 50
    assert [message for message in messages if not message.isprintable()] == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"sampling":{', '"sampling":7,"x":{', "identity.generation.sampling has no number as max_tokens"),
        ("rollouts/0001.jsonl", "rollouts/\u0660\u0660\u0660\u0661.jsonl", "(journal: String should match"),
        ("rollouts/0001.jsonl", f"rollouts/{'1' * 300}.jsonl", "(journal: String should match"),
        ('"temperature":1.0', f'"temperature":{LARGE}', "cannot be written again: Integer exceeds 64-bit range"),
    ],
)
def test_a_manifest_of_another_shape_is_refused(tmp_path, old, new, words):
    path = begun(tmp_path) / MANIFEST
    content = orjson.dumps(orjson.loads(path.read_bytes())).decode()
    assert old in content
    path.write_text(content.replace(old, new))
    assert words in refusal(tmp_path)


@pytest.mark.parametrize(("name", "counts"), [("9999", True), ("10000", True), ("\u0660\u0660\u0660\u0661", False)])
def test_the_newest_journal_counts_without_a_manifest(tmp_path, name, counts):
    journal = begun(tmp_path) / "rollouts" / "0001.jsonl"
    shutil.copy(journal, journal.with_stem("9998"))
    journal.replace(journal.with_stem(name))
    (tmp_path / MANIFEST).unlink()
    with opened(tmp_path) as run:
        assert run.manifest.journal == f"rollouts/{name if counts else '9998'}.jsonl"


def test_rows_of_older_versions_continue_with_their_manifest_only(tmp_path):
    begun(tmp_path)
    without_identities(tmp_path)
    with opened(tmp_path) as run:
        assert run.missing() == 2
        append(run.journal, "p1", 1)
    with opened(tmp_path) as run:
        assert run.missing() == 1
    assert [row.get("run_identity") for row in rows_of(tmp_path)] == [None] * 4 + [IDENTITY.row_key]
    (tmp_path / MANIFEST).unlink()
    for _ in range(2):  # the first try leaves nothing that the second would take for the run
        assert "line 1 does not say of which run it is" in refusal(tmp_path)


def test_unstamped_rows_do_not_belong_to_a_new_run(tmp_path):
    begun(tmp_path / "old", same=OTHER)
    without_identities(tmp_path / "old")
    begun(tmp_path / "new", rows=0)
    shutil.copy(tmp_path / "old/rollouts/0001.jsonl", tmp_path / "new/rollouts/0001.jsonl")
    assert (
        f"line 1 does not say of which run it is, and {tmp_path}/new is the run {IDENTITY.row_key}: a journal"
        in refusal(tmp_path / "new")
    )


@pytest.mark.parametrize("stored", [7, [], {}, "", "x" * 5000, True, IDENTITY.key])
def test_an_invalid_row_identity_is_refused(tmp_path, stored):
    begun(tmp_path)
    with (tmp_path / "rollouts" / "0001.jsonl").open("ab") as file:
        file.write(orjson.dumps(orjson.loads(completed_rollout("p2", 1).line) | {"run_identity": stored}) + b"\n")
    message = refusal(tmp_path)
    assert "line 5 is of the run" in message
    assert len(message) < 1000


def test_a_raised_limit_keeps_the_rows_and_nothing_else_does(tmp_path):
    begun(tmp_path, finish_reason="length")
    raised = identity(max_tokens=200)
    with opened(tmp_path, same=raised, retry="truncated") as run:
        append(run.journal, "p0", 0, max_tokens=200)
    with opened(tmp_path, same=raised) as run:
        assert run.missing() == 5
    assert {row["run_identity"] for row in rows_of(tmp_path)} == {IDENTITY.row_key, raised.row_key}
    with (tmp_path / "rollouts" / "0001.jsonl").open("ab") as file:
        file.write(owner(identity(max_tokens=300)).stamp(completed_rollout("p1", 1, max_tokens=300).line))
    assert "line 6 is of the run" in refusal(tmp_path, same=raised)


def test_without_a_manifest_a_raised_limit_is_another_run(tmp_path):
    begun(tmp_path)
    (tmp_path / MANIFEST).unlink()
    assert "line 1 is of the run" in refusal(tmp_path, same=identity(max_tokens=200))


def test_a_run_that_was_scored_again(tmp_path):
    begun(tmp_path)
    pool = VerifierPool("numeric", accept_error=3.0)
    scored = IDENTITY.model_copy(update={"verification": pool.identity})
    with opened(tmp_path, same=scored, reverify=True) as run:
        assert reverify(run, pool) == 4
    assert {row["run_identity"] for row in rows_of(tmp_path, "0002")} == {scored.row_key}
    with opened(tmp_path, same=scored) as run:
        append(run.journal, "p1", 1)
    (tmp_path / MANIFEST).unlink()
    assert "0002.jsonl: line 1 is of the run" in refusal(tmp_path)
    with opened(tmp_path, same=scored) as run:
        assert (run.manifest.journal, run.missing()) == ("rollouts/0002.jsonl", 1)


def test_a_journal_elsewhere_is_none(tmp_path):
    begun(tmp_path)
    manifest = orjson.loads((tmp_path / MANIFEST).read_bytes())
    for name in ("/etc/passwd", "../0001.jsonl", "rollouts/../0001.jsonl", "rollouts/a.jsonl", "rollouts/0001.jsonl\n"):
        (tmp_path / MANIFEST).write_bytes(orjson.dumps(manifest | {"journal": name}))
        assert "is not a manifest that this version reads (journal:" in refusal(tmp_path)
