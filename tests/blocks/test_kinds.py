"""Properties of all blocks. Their registration is tested in tests/flows/test_storage.py, with a Prefect server."""

from __future__ import annotations

import importlib
import pkgutil
import re
from types import NoneType
from typing import get_args, get_origin

import pytest
from prefect.blocks.core import Block
from pydantic import SecretStr

import blocks
from blocks.kinds import BLOCKS
from blocks.services import ServiceBlock

EVERY = pytest.mark.parametrize("kind", BLOCKS, ids=lambda kind: kind.__name__)
SECRET = re.compile(r"key|token|secret|password", re.IGNORECASE)


def own_fields(kind):
    return {name: field for name, field in kind.model_fields.items() if name not in Block.model_fields}


def test_all_blocks_are_listed_once():
    kinds = {
        value
        for module in pkgutil.iter_modules(blocks.__path__)
        for value in vars(importlib.import_module(f"blocks.{module.name}")).values()
        if isinstance(value, type) and issubclass(value, Block) and value not in (Block, ServiceBlock)
    }
    assert set(BLOCKS) == kinds
    assert len({kind.get_block_type_slug() for kind in BLOCKS}) == len(BLOCKS) == len(kinds)


@EVERY
def test_block_and_its_fields_have_descriptions(kind):
    assert kind._description
    assert "_block_type_name" in vars(kind)
    assert kind.get_description() == kind._description
    assert own_fields(kind)
    for name, field in own_fields(kind).items():
        assert field.description, name
        assert field.description[0].isupper(), name
        assert field.description.endswith("."), name


@EVERY
def test_no_external_address_is_shown(kind):
    assert kind._logo_url is None
    assert kind._documentation_url is None


@EVERY
def test_secrets_have_the_type_secret_str(kind):
    for name, field in own_fields(kind).items():
        types = {item for item in get_args(field.annotation) or (field.annotation,) if item is not NoneType}
        if get_origin(field.annotation) is dict:
            types -= {str}  # the type of its keys
        assert (SecretStr in types) == bool(SECRET.search(name)), name
        if SECRET.search(name):
            assert types == {SecretStr}, name


@EVERY
def test_every_block_can_be_checked(kind):
    check = kind.check
    assert check.__annotations__ == {"return": "str"}
    assert "Raises" in check.__doc__
