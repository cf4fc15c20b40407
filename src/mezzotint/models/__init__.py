"""Pipelines: load, find the denoiser, follow its data flow, sample, record its calls."""

from mezzotint.models.adapters import check_no_adapters
from mezzotint.models.blocks import MAX_HOPS, Block, BlockKind, blocks_of
from mezzotint.models.calls import (
    Call,
    Example,
    completed_calls,
    device_of,
    on_device,
    output_tensor,
)
from mezzotint.models.defaults import with_generation_defaults
from mezzotint.models.denoiser import denoises, find_denoiser, model_name
from mezzotint.models.evaluating import evaluating
from mezzotint.models.examples import example_call
from mezzotint.models.folder import (
    check_folder,
    check_model_folder,
    components,
    leads_outside,
    shard_files,
)
from mezzotint.models.given_pipeline import check_module, check_pipeline
from mezzotint.models.graph import Graph, Node, NodeInput, NodeKind
from mezzotint.models.graph_files import save_weight_graph, writer_for
from mezzotint.models.groups import LayerGroup, layer_groups, text_readers
from mezzotint.models.inventory import Layer, inventory, layers_in
from mezzotint.models.joins import joined_inputs
from mezzotint.models.kinds import Kind
from mezzotint.models.loading import (
    download_pipeline,
    load_pipeline,
    quiet_libraries,
    usable_device,
)
from mezzotint.models.pipeline_call import (
    GENERATION_FILE,
    default_steps,
    generation_defaults,
    takes_prompts,
    usual_sampling,
)
from mezzotint.models.pipeline_type import Pipeline
from mezzotint.models.prompts import read_prompts
from mezzotint.models.recording import record_calls, recording
from mezzotint.models.roles import Role, role_of
from mezzotint.models.rows import batch_size, rows_of
from mezzotint.models.sampling import flat_frames, generate
from mezzotint.models.skeleton import floating_skeleton, skeleton
from mezzotint.models.source import ResolvedSource, list_embedded, resolve
from mezzotint.models.source_dtypes import note_source_dtypes
from mezzotint.models.tracing import trace_graph
from mezzotint.models.weight_graph import CombineNode, WeightGraph, WeightNode
from mezzotint.models.weight_graph_builder import weight_graph
from mezzotint.plan import CallSelection, Sampling

__all__ = [
    "GENERATION_FILE",
    "MAX_HOPS",
    "Block",
    "BlockKind",
    "Call",
    "CallSelection",
    "CombineNode",
    "Example",
    "Graph",
    "Kind",
    "Layer",
    "LayerGroup",
    "Node",
    "NodeInput",
    "NodeKind",
    "Pipeline",
    "ResolvedSource",
    "Role",
    "Sampling",
    "WeightGraph",
    "WeightNode",
    "batch_size",
    "blocks_of",
    "check_folder",
    "check_model_folder",
    "check_module",
    "check_no_adapters",
    "check_pipeline",
    "completed_calls",
    "components",
    "default_steps",
    "denoises",
    "device_of",
    "download_pipeline",
    "evaluating",
    "example_call",
    "find_denoiser",
    "flat_frames",
    "floating_skeleton",
    "generate",
    "generation_defaults",
    "inventory",
    "joined_inputs",
    "layer_groups",
    "layers_in",
    "leads_outside",
    "list_embedded",
    "load_pipeline",
    "model_name",
    "note_source_dtypes",
    "on_device",
    "output_tensor",
    "quiet_libraries",
    "read_prompts",
    "record_calls",
    "recording",
    "resolve",
    "role_of",
    "rows_of",
    "save_weight_graph",
    "shard_files",
    "skeleton",
    "takes_prompts",
    "text_readers",
    "trace_graph",
    "usable_device",
    "usual_sampling",
    "weight_graph",
    "with_generation_defaults",
    "writer_for",
]
