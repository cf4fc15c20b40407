"""The report: what was chosen, why, and what it did to the pictures."""

from mezzotint.report.layer_table import LayerRow, RoleRow, layer_rows, role_rows
from mezzotint.report.page import Report, ReportedModel, render, save_report
from mezzotint.report.pictures import picture_grid, save_picture

__all__ = [
    "LayerRow",
    "Report",
    "ReportedModel",
    "RoleRow",
    "layer_rows",
    "picture_grid",
    "render",
    "role_rows",
    "save_picture",
    "save_report",
]
