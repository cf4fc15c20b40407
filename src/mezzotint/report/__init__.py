"""The report: what was chosen, why, and what it did to the pictures; and the page of insights."""

from mezzotint.report.drawing import check_drawing
from mezzotint.report.explaining import Explaining, explained
from mezzotint.report.findings import Finding, findings_of
from mezzotint.report.insights import (
    Insights,
    box_plots,
    check_insights_folder,
    chosen_bars,
    render_insights,
    save_insights,
)
from mezzotint.report.layer_table import LayerRow, RoleRow, layer_rows, role_rows
from mezzotint.report.page import Report, ReportedModel, render, save_report
from mezzotint.report.pictures import picture_grid, save_picture
from mezzotint.report.scored_layers import ScoredLayers
from mezzotint.report.sweep_folder import check_sweep_folder, save_sweep
from mezzotint.report.sweep_picture import sweep_picture

__all__ = [
    "Explaining",
    "Finding",
    "Insights",
    "LayerRow",
    "Report",
    "ReportedModel",
    "RoleRow",
    "ScoredLayers",
    "box_plots",
    "check_drawing",
    "check_insights_folder",
    "check_sweep_folder",
    "chosen_bars",
    "explained",
    "findings_of",
    "layer_rows",
    "picture_grid",
    "render",
    "render_insights",
    "role_rows",
    "save_insights",
    "save_picture",
    "save_report",
    "save_sweep",
    "sweep_picture",
]
