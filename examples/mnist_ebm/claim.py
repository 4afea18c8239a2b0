"""The published factor of 10,000, read with the catalogue's figures beside it."""

from __future__ import annotations

from glauber.catalogue import load_spec
from glauber.errors import InvalidModelError
from glauber.spec import AnySpec, Quantity


def reading() -> str:
    """What the claim compares, what it leaves out, and which other figures bear on it: Markdown, figures sourced.

    All figures are the catalogue's, with its provenance; quotients of them are computed here and called so.
    """
    paper, chip, board = load_spec("dtm-l70"), load_spec("z1"), load_spec("kv260")
    cell, image = _cost(paper, "joules_per_update"), _fact(paper, "joules_per_step_and_sample")
    if paper.units is None:
        raise InvalidModelError("the catalogue's dtm-l70 has no number of p-bits any more; the reading needs it")
    cells = paper.units.best
    update, write, read = (_cost(chip, f"joules_per_{what}") for what in ("update", "write", "read"))
    token, fpga, gpu = (_fact(chip, f"joules_per_token_{what}") for what in ("z1", "fpga", "h100"))
    metered = _cost(board, "joules_per_update")
    whole = _fact(board, "joules_per_update_whole_board")
    bit = _fact(load_spec("x0"), "joules_per_random_bit")
    lines = [
        "The claim (arXiv 2510.23972 v2, December 2025): on binarised Fashion-MNIST a machine of p-bits reaches the"
        " image quality of models on a GPU with about 10,000 times less energy.",
        "",
        "- **One side is a model, of a machine that is not built.**"
        f" {image.best:.3g} J for each denoising step and image ({image.provenance}), from a cell of {cell.best:.3g} J"
        f" an update ({cell.provenance}); with {cells:,.0f} cells that is {image.best / (cell.best * cells):,.0f}"
        " updates of each (quotient). The same authors measured a random-number cell:"
        f" {bit.best:.3g} J a bit ({bit.provenance}). Couplings and a machine of them are not in that figure.",
        "- **The other side is a GPU running other models.** It is no comparison of one model on two machines: the"
        " factor holds the algorithm's share as well as the hardware's. Which GPU and which models stand behind it, and"
        " how their joules were had, is not in the sources read here.",
        "- **Counted is sampling.** For that machine the catalogue has no published figure for writing, reading,"
        " idling, control or transfer. For the same maker's Z1 it has some: one p-bit written costs"
        f" {write.best / update.best:,.0f} updates, one read {read.best / update.best:,.0f} (quotients of"
        f" {write.best:.4g}, {read.best:.4g} and {update.best:.3g} J, provenance {update.provenance}: circuit"
        " simulation). A chain writes fields at each step of each image.",
        "- **With what surrounds the chip the factor shrinks.** The maker's own estimate for another task, a language"
        f" model's token: {token.best:.3g} J in the chip and {fpga.best:.3g} J in the FPGA beside it"
        f" ({token.provenance}) against {gpu.best:.3g} J on an H100 at 10 % of its peak ({gpu.provenance} by a third"
        f" party). Chip alone: {gpu.best / token.best:,.0f} times less; with the FPGA"
        f" {gpu.best / (token.best + fpga.best):,.0f} times (quotients).",
        "- **What has been metered is far from the model.** An FPGA board with 1,024 p-bits:"
        f" {metered.best:.4g} J an update above idle ({metered.provenance}), {whole.best:.3g} J with the whole board"
        f" ({whole.provenance}): {metered.best / cell.best:,.0f} and {whole.best / cell.best:,.0f} times the modelled"
        " cell (quotients). It is another technology, so this bounds nothing; it shows what lies between a modelled"
        " cell and a metered system.",
        "",
        "So 10,000 is a projection for one benchmark of small binary images. What would test it: the same model, to the"
        " same quality, on a built machine and on a GPU, both metered at the wall, writing and reading included.",
        "",
        "Sources: "
        + "; ".join(dict.fromkeys(one.source for one in (cell, image, bit, update, token, gpu, metered)))
        + ".",
    ]
    return "\n".join(lines)


def _cost(spec: AnySpec, name: str) -> Quantity:
    quantity = getattr(spec.costs, name)
    if not isinstance(quantity, Quantity):
        raise InvalidModelError(f"the catalogue's {spec.name} has no {name} any more; the reading needs it")
    return quantity


def _fact(spec: AnySpec, name: str) -> Quantity:
    if name not in spec.facts:
        raise InvalidModelError(f"the catalogue's {spec.name} has no {name} any more; the reading needs it")
    return spec.facts[name]
