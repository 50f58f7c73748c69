"""All block types that are registered."""

from __future__ import annotations

from prefect.blocks.core import Block

from blocks.cluster import DaskCluster
from blocks.inference import InferenceEndpoint, VLLMServer
from blocks.services import EvaluationService, SandboxService, SearchService
from blocks.storage import ResultStore

BLOCKS: tuple[type[Block], ...] = (
    VLLMServer,
    InferenceEndpoint,
    SandboxService,
    EvaluationService,
    SearchService,
    DaskCluster,
    ResultStore,
)
"""In the order in which a new user needs them."""
