from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.errors import UsageError
from mezzotint.models import read_prompts


@given(st.lists(st.from_regex(r"[a-zé☃]+( [a-z]+)?", fullmatch=True), min_size=1))
def test_one_prompt_a_line_in_order(tmp_path_factory: pytest.TempPathFactory, prompts: list[str]):
    path = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    path.write_text("\n".join(prompts), "utf-8")
    assert read_prompts(path) == tuple(prompts)


def test_blank_lines_margins_and_byte_order_mark_are_dropped(tmp_path: Path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeff  owl, noto style \r\n\r\nfox\n".encode())
    assert read_prompts(path) == ("owl, noto style", "fox")


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such prompt file"), (b" \n", "holds no prompt"), (b"\xff\xfe\xff", "UTF-8")],
    ids=["missing", "empty", "binary"],
)
def test_unusable_files_are_named(tmp_path: Path, content: bytes | None, message: str):
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=f"{path}.*{message}"):
        read_prompts(path)
