"""Pipelines: load, find the denoiser, follow its data flow, sample, record its calls."""

from mezzotint.models.adapters import check_no_adapters
from mezzotint.models.blocks import MAX_HOPS, Block, BlockKind, blocks_of
from mezzotint.models.call_arguments import component_of
from mezzotint.models.calls import (
    Call,
    Example,
    completed_calls,
    device_of,
    on_device,
    output_tensor,
)
from mezzotint.models.chosen_components import denoising_module
from mezzotint.models.defaults import with_generation_defaults
from mezzotint.models.denoiser import denoises, find_denoiser, find_denoisers, model_name
from mezzotint.models.devices import usable_device
from mezzotint.models.evaluating import evaluating
from mezzotint.models.examples import example_call
from mezzotint.models.folder import (
    check_folder,
    check_model_folder,
    components,
    contents,
    leads_outside,
    shard_files,
)
from mezzotint.models.given_pipeline import check_module, check_pipeline
from mezzotint.models.graph import Graph, Node, NodeInput, NodeKind
from mezzotint.models.graph_files import save_weight_graph, writer_for
from mezzotint.models.graph_joining import joined_graphs, trace_calls
from mezzotint.models.groups import LayerGroup, layer_groups, text_readers
from mezzotint.models.home import home_of
from mezzotint.models.inner_pipelines import with_components
from mezzotint.models.inventory import Layer, inventory, layers_in
from mezzotint.models.joins import joined_inputs
from mezzotint.models.joint import (
    Joint,
    component_names,
    denoising_parts,
    parts_of,
    quantized_alone,
    quantized_parts,
    split_name,
    to_quantize,
    touches,
)
from mezzotint.models.kinds import Kind, layer_input
from mezzotint.models.loading import load_pipeline, local_folder
from mezzotint.models.lora_files import (
    LoraFile,
    LoraName,
    check_loras,
    lora_files,
    merge_loras,
    merged_loras,
)
from mezzotint.models.own_dtype import folder_dtype
from mezzotint.models.pipeline_call import (
    GENERATION_FILE,
    default_steps,
    generation_defaults,
    takes_prompts,
    usual_sampling,
)
from mezzotint.models.pipeline_type import Pipeline
from mezzotint.models.prompts import read_prompts
from mezzotint.models.quiet import quiet_libraries
from mezzotint.models.recording import record_calls, record_first_calls, recording
from mezzotint.models.roles import Role, role_of
from mezzotint.models.rows import batch_size, rows_of
from mezzotint.models.sampling import flat_frames, generate
from mezzotint.models.skeleton import floating_skeleton, skeleton
from mezzotint.models.source import ResolvedSource, SourceOptions, list_embedded, resolve
from mezzotint.models.source_dtypes import note_source_dtypes
from mezzotint.models.stored_files import model_files
from mezzotint.models.tracing import trace_graph
from mezzotint.models.weight_graph import CombineNode, WeightGraph, WeightNode
from mezzotint.models.weight_graph_builder import weight_graph
from mezzotint.models.weight_variants import (
    check_variant,
    files_of_variant,
    is_weights,
    without_variant,
)
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
    "Joint",
    "Kind",
    "Layer",
    "LayerGroup",
    "LoraFile",
    "LoraName",
    "Node",
    "NodeInput",
    "NodeKind",
    "Pipeline",
    "ResolvedSource",
    "Role",
    "Sampling",
    "SourceOptions",
    "WeightGraph",
    "WeightNode",
    "batch_size",
    "blocks_of",
    "check_folder",
    "check_loras",
    "check_model_folder",
    "check_module",
    "check_no_adapters",
    "check_pipeline",
    "check_variant",
    "completed_calls",
    "component_names",
    "component_of",
    "components",
    "contents",
    "default_steps",
    "denoises",
    "denoising_module",
    "denoising_parts",
    "device_of",
    "evaluating",
    "example_call",
    "files_of_variant",
    "find_denoiser",
    "find_denoisers",
    "flat_frames",
    "floating_skeleton",
    "folder_dtype",
    "generate",
    "generation_defaults",
    "home_of",
    "inventory",
    "is_weights",
    "joined_graphs",
    "joined_inputs",
    "layer_groups",
    "layer_input",
    "layers_in",
    "leads_outside",
    "list_embedded",
    "load_pipeline",
    "local_folder",
    "lora_files",
    "merge_loras",
    "merged_loras",
    "model_files",
    "model_name",
    "note_source_dtypes",
    "on_device",
    "output_tensor",
    "parts_of",
    "quantized_alone",
    "quantized_parts",
    "quiet_libraries",
    "read_prompts",
    "record_calls",
    "record_first_calls",
    "recording",
    "resolve",
    "role_of",
    "rows_of",
    "save_weight_graph",
    "shard_files",
    "skeleton",
    "split_name",
    "takes_prompts",
    "text_readers",
    "to_quantize",
    "touches",
    "trace_calls",
    "trace_graph",
    "usable_device",
    "usual_sampling",
    "weight_graph",
    "with_components",
    "with_generation_defaults",
    "without_variant",
    "writer_for",
]
