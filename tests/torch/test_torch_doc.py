"""docs/torch.md runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra torch: pip install -e '.[torch]'")

PAGE = (Path(__file__).parents[2] / "docs" / "torch.md").read_text()


def test_the_page_works(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 8
    names: dict[str, object] = {}
    exec(compile("".join(blocks), "torch.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "1 jobs" in printed
    assert "rao-blackwell" in printed
    assert names["step"] == 500
    assert names["found"].lines == 1
    assert "auroc" in printed
    import glauber

    named = set(re.findall(r"gl\.torch\.(\w+)", PAGE)) | set(re.findall(r"^\| `(\w+)`", PAGE, re.MULTILINE))
    assert named <= {*glauber.torch.__all__}
