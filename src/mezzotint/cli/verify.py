"""`mezzotint verify`."""

# ruff: noqa: PLC0415  (verbs import what they need when they run)

from __future__ import annotations

from mezzotint.cli._app import app, examples
from mezzotint.cli._arguments import AsJson, Quantized
from mezzotint.cli._output import show
from mezzotint.errors import CheckpointError


@app.command(epilog=examples("verify owl-w4a8", "verify owl-w4a8/unet", "verify owl-w4a8 --json"))
def verify(folder: Quantized, as_json: AsJson = False) -> None:
    """Compare every tensor of DIR with the SHA-256 that was saved with it.

    Loading does the same. DIR may be a pipeline, its denoiser alone, or a bank of quantized layers,
    such as `mezzotint sample` keeps beside its labels. Files without digests, which
    older versions and other programs write, are named; where no file has any, the command fails.
    """
    from mezzotint.bank import BankIndex, verify_bank
    from mezzotint.checkpoint.verify import verify_checkpoint
    from mezzotint.cli.tables import verified_table

    if (folder / BankIndex.FILE).is_file():
        found = verify_bank(folder)
    else:
        found = verify_checkpoint(folder)
    if not any(each.verified for each in found):
        raise CheckpointError(
            f"{folder}: has no digests, so nothing tells whether it is what was saved; every file "
            "can be read, and holds no NaN; quantize or load it and save it again to have some"
        )
    show([each.to_dict() for each in found], [verified_table(found)], as_json=as_json)
