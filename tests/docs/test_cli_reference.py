"""Help texts and their copy in docs/cli.md."""

import typer

from mezzotint.cli import app
from mezzotint.cli.reference import helps, reference
from tests.docs.pages import PAGES, ROOT

ROOT_COMMAND = typer.main.get_command(app)
HELP = dict(helps(ROOT_COMMAND, "mezzotint"))
VERBS = [path for path in HELP if path not in ("mezzotint", "mezzotint plan")]


def test_the_reference_is_up_to_date():
    assert (ROOT / "docs" / "cli.md").read_text("utf-8") == reference(), "run `make docs`"


def test_every_verb_is_documented_by_a_page_of_its_own():
    prose = "".join(p.read_text("utf-8") for p in PAGES if p.name not in ("cli.md", "CHANGELOG.md"))
    assert [verb for verb in VERBS if verb not in prose] == []


def test_every_verb_has_examples():
    assert [verb for verb in VERBS if f"Examples:\n    {verb}" not in HELP[verb]] == []


def test_every_option_is_explained():
    def parameters(command):
        yield from command.params
        for child in getattr(command, "commands", {}).values():
            yield from parameters(child)

    assert [each.name for each in parameters(ROOT_COMMAND) if not each.help] == []


def test_no_summary_is_cut_short():
    assert "..." not in HELP["mezzotint"].partition("Commands:")[2]
