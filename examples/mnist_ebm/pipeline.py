"""The whole study, stage by stage; what is done is kept, and a study that was stopped goes on."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import glauber as gl

from benchmarks.machine import provenance
from examples.mnist_ebm import stages
from examples.mnist_ebm.classifier import Classifier, train_classifier
from examples.mnist_ebm.config import DataConfig, read_config
from examples.mnist_ebm.data import Dataset, load
from examples.mnist_ebm.evaluate import train_and_judge, trained
from examples.mnist_ebm.files import write_whole
from examples.mnist_ebm.models import ImageModel
from examples.mnist_ebm.search import SearchConfig, read_search, search

Report = Callable[[float, str], None]
PACKAGES = ("glauber", "torch", "numpy", "thrml", "jax")


@dataclass(frozen=True)
class Result:
    """What a stage found, and where and when."""

    figures: Any
    made: dict[str, Any]


class Study:
    """Stages of one folder.

    Args:
        configs: folder with a TOML file for each run, and `search.toml`.
        out: folder for everything that is made.
        sizes: of the stages that are no trainings.
        data: folder with MNIST's files, or None to look for them.
        report: told the fraction of a stage, and what it is at.

    Raises:
        ValueError: a configuration is wrong, or one that stages look at is missing or of another kind.
        OSError: one cannot be read.
    """

    def __init__(
        self, configs: Path, out: Path, sizes: stages.Sizes, data: Path | None = None, report: Report | None = None
    ) -> None:
        self.out, self.sizes, self.data, self.report = out, sizes, data, report
        self.runs = {path.stem: read_config(path) for path in sorted(configs.glob("*.toml")) if path.stem != "search"}
        for name, kind in stages.LOOKED_AT.items():
            if name not in self.runs or self.runs[name].model.kind != kind:
                raise ValueError(
                    f"{configs / name}.toml must be there, with a model of kind {kind!r}: stages look at it"
                )
        if empty := [name for name, config in self.runs.items() if not config.seeds]:
            raise ValueError(f"{configs / empty[0]}.toml: seeds must be one or more")
        self.searched: SearchConfig = read_search(configs / "search.toml")
        self._datasets: dict[DataConfig, Dataset] = {}
        self._classifier: Classifier | None = None

    def dataset(self, config: DataConfig) -> Dataset:
        """Images of a configuration, loaded once.

        Raises:
            ValueError: they are from another source than those that the folder's results are of.
        """
        if config not in self._datasets:
            found = load(**config.model_dump(), path=self.data)
            note = self.out / "source.txt"
            held = note.read_text(encoding="utf-8").strip() if note.exists() else None
            if held is None:
                write_whole(note, found.source + "\n")
            elif held != found.source:
                raise ValueError(
                    f"{self.out} holds results of other images ({held}) than there are now ({found.source}): take"
                    " another --out, or name the folder with the images by --data"
                )
            self._datasets[config] = found
        return self._datasets[config]

    @property
    def classifier(self) -> Classifier:
        """The judge, trained once."""
        if self._classifier is None:
            images = self.dataset(DataConfig(n_train=self.sizes.n_classifier, n_test=self.sizes.n_test))
            self._classifier = train_classifier(images, 0, self.report, self.out / "classifier.pt")
        return self._classifier

    @property
    def pictures(self) -> Path:
        """Folder of all pictures."""
        found = self.out / "pictures"
        found.mkdir(parents=True, exist_ok=True)
        return found

    def folder(self, name: str, seed: int) -> Path:
        """Of one training."""
        return self.out / "runs" / f"{name}-{seed}"

    def stage(self, name: str, key: str, make: Callable[[], Any]) -> Result:
        """What `make` returns, kept in `name`.json; made again only if `key` changes."""
        path = self.out / f"{name}.json"
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            if held["key"] == digest:
                return Result(held["figures"], held["made"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            pass  # none yet, or one that was damaged
        if self.report is not None:
            self.report(0.0, name)
        figures = plain(make())
        made = provenance(PACKAGES)
        content = {"key": digest, "made": made, "figures": figures}
        write_whole(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
        return Result(figures, made)

    def trained(self, name: str, seed: int) -> Result:
        """Figures of one run."""
        config, folder = self.runs[name], self.folder(name, seed)

        def make() -> Any:
            dataset = self.dataset(config.data)
            classifier = self.classifier if dataset.side == 28 else None
            return train_and_judge(config, dataset, classifier, seed, folder, self.report)

        return self.stage(f"runs/{name}-{seed}/figures", config.digest, make)

    def model(self, name: str, device: gl.Device) -> ImageModel:
        """The model of a run's first seed, trained now as far as it was not."""
        config = self.runs[name]
        seed = config.seeds[0]
        return trained(config, self.dataset(config.data), device, seed, self.folder(name, seed), self.report)

    def stages(self) -> dict[str, Callable[[], Result]]:
        """All stages by name, in order; each returns what it found, made now or before."""
        every: dict[str, Callable[[], Result]] = {"explore": self._of("explore", stages.explored, ())}
        every["search"] = lambda: self.stage(
            "search", self.searched.model_dump_json(), lambda: search(self.searched, *self._for_search())
        )
        for name, config in self.runs.items():
            for seed in config.seeds:
                every[f"train {name}, seed {seed}"] = partial(self.trained, name, seed)
        for name, (make, runs) in stages.STAGES.items():
            every[name] = self._of(name, make, self.runs if runs is None else runs)
        return every

    def _for_search(self) -> tuple[Dataset, Path, Report | None]:
        return self.dataset(self.searched.base.data), self.out / "search", self.report

    def _of(self, name: str, make: Callable[[Study], Any], runs: Iterable[str]) -> Callable[[], Result]:
        held = [(self.runs[run].digest, self.runs[run].title, self.runs[run].seeds[0]) for run in runs]
        key = f"{self.sizes!r} {held}"
        return lambda: self.stage(name, key, lambda: make(self))

    def run(self, only: str = "") -> dict[str, Result]:
        """Every stage whose name begins with `only`."""
        self.out.mkdir(parents=True, exist_ok=True)
        return {name: make() for name, make in self.stages().items() if name.startswith(only)}


def plain(value: Any) -> Any:
    """Numbers, texts, lists and dicts for JSON; what is no number there is None."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if hasattr(value, "item") and not isinstance(value, str):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
