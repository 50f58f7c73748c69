"""The dataset card: a README.md beside the exports that describes them, and lets `datasets` load them by name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from rollmill.errors import InputError
from rollmill.exports.card_section import Provenance, make_config, render_section
from rollmill.exports.export_result import Exported
from rollmill.exports.output_files import parse_output_name
from rollmill.exports.splitting import TRAIN
from rollmill.files.atomic import atomic_write_bytes
from rollmill.files.regular import require_regular

if TYPE_CHECKING:
    from rollmill.corpus.corpus import Corpus

README = "README.md"

_BEGIN = re.compile(r"^<!-- rollmill:export (\{.*\}) -->$", re.MULTILINE)
_END = "\n<!-- rollmill:end -->"
_FRONT_MATTER = re.compile(r"\A---\n(.*?)^---\n", re.DOTALL | re.MULTILINE)
_CONFIGS = re.compile(r"^configs:.*\n(?:[ -].*\n)*", re.MULTILINE)
_TITLE = "\n# Training data from rollouts\n\nLoad an export with `datasets.load_dataset(folder, name)`.\n"


class Section(NamedTuple):
    """A section of rollmill in a card: its position in characters, and the export's configuration."""

    begin: int
    end: int
    config: dict[str, Any]


def read_sections(card: str) -> Iterator[Section]:
    """Yield a card's sections, in time linear in its length; text that only resembles one belongs to the user."""
    position = 0
    while (begin := _BEGIN.search(card, position)) and (end := card.find(_END, begin.end() + 1)) >= 0:
        position = end + len(_END)
        if card.startswith("\n", position):
            position += 1
        if (config := read_config(begin[1])) is not None:
            yield Section(begin.start(), position, config)


def read_config(text: str) -> dict[str, Any] | None:
    """Return the configuration of an export whose files are in the card's folder; None where the text is none."""
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    files = parsed.get("files")
    is_config = isinstance(parsed.get("name"), str) and isinstance(files, dict)
    return parsed if is_config and all(isinstance(name, str) and _is_inside(name) for name in files.values()) else None


def _is_inside(name: str) -> bool:
    path = PurePath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def write_card(
    exported: Exported,
    *,
    corpus: Corpus,
    filters: Sequence[str] = (),
    filtered: Mapping[str, int] | None = None,
    origin: Mapping[str, Any] | None = None,
) -> Path:
    """Write or update the card in the export's folder, and return its path.

    An earlier section of the same export is replaced; sections of other exports, and the user's own text, stay. A
    README.md without any section of rollmill is left unchanged, and the card is `<stem>.card.md`.

    Raises `RuntimeError` where the counts do not add up (a bug in rollmill), `InputError` where a card cannot be read.

    Args:
        exported: the result of the export.
        corpus: the rollouts that were read.
        filters: the rules in words, one each.
        filtered: rollouts by the reason for which they were filtered before the export: with those that the export kept
            and dropped they are all of the corpus.
        origin: as given to the export; its `model` or `models` (else the input's `model_name`) are the models.
    """
    provenance = Provenance(
        sources=corpus.sources,
        models=_models(corpus.metadata, origin or {}),
        origin=origin or {},
        filters=filters,
        filtered=filtered or {},
        read=corpus.table.height,
        quarantined=corpus.quarantined,
    )
    _check_sum(exported, provenance)
    file = exported.files[TRAIN]
    path = file.with_name(README)
    before = _read(path)
    if before and not any(read_sections(before)):
        path = file.with_name(f"{parse_output_name(file).stem}.card.md")
        before = ""
    atomic_write_bytes(path, _card(before, exported, provenance, path.parent).encode())
    return path


def _card(before: str, exported: Exported, provenance: Provenance, folder: Path) -> str:
    """Return the whole card: front matter, and the text with one section replaced or added.

    Args:
        before: the card so far, or an empty text.
        exported: the result of the export.
        provenance: the sources and counts of the section.
        folder: the card's, which the files of its sections are in.
    """
    front = _FRONT_MATTER.match(before)
    body = before[front.end() :] if front else before or _TITLE
    configured = make_config(exported)
    # The comment of the marker must not end inside of the JSON.
    marked = json.dumps(configured).replace(">", "\\u003e")
    new_section = (
        f"<!-- rollmill:export {marked} -->\n\n{render_section(exported, provenance)}\n\n<!-- rollmill:end -->\n"
    )
    earlier = next(
        (candidate for candidate in read_sections(body) if candidate.config["name"] == configured["name"]), None
    )
    begin, end = (earlier.begin, earlier.end) if earlier else (len(body), len(body))
    body = f"{body[:begin].rstrip()}\n\n{new_section}{body[end:]}"
    kept = _CONFIGS.sub("", front[1]) if front else ""
    front_matter = _configs(body, folder) + kept
    return (f"---\n{front_matter}---\n\n" if front_matter else "") + body.lstrip()


def _configs(body: str, folder: Path) -> str:
    """Return the `configs` of the front matter, as YAML: one for each section whose files exist."""
    configs = [section.config for section in read_sections(body)]
    usable = [
        entry
        for entry in configs
        if entry["files"] and all((folder / name).exists() for name in entry["files"].values())
    ]
    return "configs:\n" + "".join(map(_config, usable)) if usable else ""


def _config(entry: Mapping[str, Any]) -> str:
    lines = [f"- config_name: {_yaml(entry['name'])}", "  data_files:"]
    for split, name in entry["files"].items():
        lines += [f"  - split: {_yaml(split)}", f"    path: {_yaml(name)}"]
    if "field" in entry:
        lines.append(f"  field: {_yaml(entry['field'])}")
    return "\n".join(lines) + "\n"


def _yaml(text: str) -> str:
    """Return a string as JSON, which is YAML too."""
    return json.dumps(text, ensure_ascii=False)


def _read(path: Path) -> str:
    try:
        require_regular(path)
        return path.read_text("utf-8").replace("\r\n", "\n")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}, where the dataset card belongs: {error}") from error


def _models(metadata: Mapping[str, Any], origin: Mapping[str, Any]) -> list[str]:
    models = origin.get("models") or origin.get("model") or metadata.get("model_name") or []
    return [str(model) for model in (models if isinstance(models, list | tuple) else [models])]


def _check_sum(exported: Exported, provenance: Provenance) -> None:
    total = sum(provenance.filtered.values()) + exported.kept + exported.dropped.height
    if total != provenance.read:
        raise RuntimeError(
            f"rows lost before the export, a bug in rollmill: {provenance.read} read, "
            f"{sum(provenance.filtered.values())} filtered, {exported.kept} kept, {exported.dropped.height} dropped"
        )
