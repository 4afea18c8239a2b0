"""The `glauber` command. Results go to standard output, progress and messages to standard error.

Exit codes: 0 done; 1 failed while running; 2 wrong input; 3 no such device; 4 the device cannot run it; 130 Ctrl-C.
"""

from __future__ import annotations

import math
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from glauber.calibration_cli import calibrate, diff, history, rollback, twin
from glauber.conformance import conformance
from glauber.console import AsJson
from glauber.console import err as _err
from glauber.console import errors as _errors
from glauber.console import print_json as _print_json
from glauber.console import print_table as _table
from glauber.console import progress_bar as _progress
from glauber.energy_cli import energy
from glauber.errors import InvalidModelError
from glauber.jobs_cli import jobs, usage
from glauber.pool import pool
from glauber.server.commands import audit_app, serve, token_app

app = typer.Typer(
    name="glauber",
    help="Describe probabilistic computers, run jobs on them, and solve Ising problems. Begin with: glauber devices",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(conformance)
app.add_typer(jobs)
app.command()(usage)
app.command()(energy)
app.command()(serve)
app.add_typer(token_app)
app.add_typer(audit_app)
app.command()(pool)
for command in (calibrate, history, diff, rollback, twin):
    app.command()(command)

DeviceOption = Annotated[
    str, typer.Option("--device", "-d", help="Address of the device, such as sim://ideal or sim://pbit-king-64.")
]
Seed = Annotated[
    int | None, typer.Option(help="0 to 2^64 - 1; the same seed gives the same samples.", show_default=False)
]


@app.command()
def devices(
    scan: Annotated[
        bool, typer.Option("--scan", help="Ask on every serial port who is there, and list the boards that answer.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List every device that can be opened, simulated ones included."""
    from glauber.registry import available_devices, scanned_devices

    with _errors(as_json):
        listed = list(scanned_devices() if scan else available_devices())
        if as_json:
            _print_json([{"address": address, **spec.model_dump(mode="json")} for address, spec in listed])
            return
        rows = []
        for address, spec in listed:
            units = "-" if spec.units is None else str(spec.units).split(",")[0].removesuffix(" 1")
            topology = "any graph" if spec.any_graph else "not published"
            shape = spec.topology.describe() if spec.topology is not None else topology
            rows.append((address, spec.kind, spec.status, units, shape, spec.title))
        _table(f"{len(rows)} devices", ("address", "kind", "status", "p-bits", "graph", "title"), rows)
        if scan and not rows:
            typer.echo("\nno board answers: check cable, power and your right to use the ports (group dialout)")
        elif not scan:
            typer.echo(
                "\nsim:// simulates the described device, and firmware:// runs a board's controller without the board;"
                " --scan looks for boards on the serial ports"
            )


@app.command()
def describe(
    name: Annotated[
        str, typer.Argument(help="Name in the catalogue (z1), or an address (sim://z1?width=24&height=24).")
    ],
    as_json: AsJson = False,
) -> None:
    """Show what a device is and can, with the provenance of every number."""
    from glauber.catalogue import load_spec
    from glauber.device import open_device
    from glauber.spec import summary_rows

    with _errors(as_json):
        if "://" in name:
            with open_device(name) as device:
                spec = device.spec
        else:
            spec = load_spec(name)
        if as_json:
            _print_json(spec.model_dump(mode="json"))
        else:
            _table("", ("", ""), summary_rows(spec))


@app.command()
def run(
    model: Annotated[Path, typer.Argument(help="Model file: .npz, .json, .qubo, .coo or Gset.")],
    device: DeviceOption,
    samples: Annotated[int, typer.Option(help="States to keep per chain.")] = 1000,
    chains: Annotated[int, typer.Option(help="Independent chains.")] = 8,
    warmup: Annotated[int, typer.Option(help="Sweeps before the first kept state.")] = 100,
    thin: Annotated[int, typer.Option(help="Sweeps from one kept state to the next.")] = 1,
    beta: Annotated[float, typer.Option(help="Inverse temperature.")] = 1.0,
    seed: Seed = None,
    clamp: Annotated[
        list[str] | None, typer.Option(help="Hold a spin: SITE=VALUE; may be given again.", show_default=False)
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Stop after this time.", show_default=False)] = None,
    scale: Annotated[bool, typer.Option(help="Scale coefficients into the device's range.")] = False,
    embed: Annotated[bool, typer.Option(help="Place the model on the device's graph if it does not fit.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the result here (.npz).", show_default=False)
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            help="Store jobs in this file instead of GLAUBER_STORE or your data folder; none: in no file.",
            show_default=False,
        ),
    ] = None,
    reuse: Annotated[
        bool, typer.Option(help="Take a stored result of the same model, device and seed if there is one.")
    ] = False,
    meter: Annotated[
        str | None,
        typer.Option(help="Address of a meter of the joules, such as rapl:// or nvml://0.", show_default=False),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            help="Correct the job by this calibration: a file, an id, or latest for the one in force.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw samples of a model on a device. The job is stored: glauber jobs list."""
    from glauber.device import open_device
    from glauber.formats import read_model
    from glauber.request import Budget, JobRequest
    from glauber.schedule import SamplingSchedule

    with _errors(as_json):
        _check_output(output)
        read = read_model(model)
        schedule = SamplingSchedule(
            n_samples=samples, n_chains=chains, n_warmup=warmup, sweeps_per_sample=thin, beta=beta
        )
        request = JobRequest(
            read,
            schedule,
            clamp=_clamps(clamp) or None,  # type: ignore[arg-type]  # checked and converted by JobRequest
            seed=seed,
            budget=None if seconds is None else Budget(seconds=seconds),
            on_overflow="scale" if scale else "error",
            embed=embed,
            partial=True,
            reuse=reuse,
        )
        if reuse and store == "none":
            raise InvalidModelError("--reuse looks into the store, so it cannot go with --store none")
        where: str | Literal[True] | None = None if store == "none" else store or True
        with open_device(device, store=where, meter=meter, calibration=calibration) as opened:
            if calibration is not None and opened.calibration is None:
                _err.print(f"no calibration of {device} is in force; glauber calibrate makes one. Nothing is corrected")
            if opened.calibration is not None and opened.calibration.expired(datetime.now(UTC)):
                _err.print(f"calibration {opened.calibration.id} expired at {opened.calibration.expires}; it is used")
            left = len(opened.queued) + (opened.running is not None)
            if left:
                _err.print(f"{left} jobs of a process that ended go first; glauber jobs list shows them")
            job = opened.submit_request(request)
            with _progress(not as_json) as bar:
                task = bar.add_task("sampling", total=schedule.n_sweeps)
                try:
                    for progress in job.watch():
                        bar.update(task, completed=progress.sweeps_done)
                except KeyboardInterrupt:
                    job.ask_to_cancel()  # it may have ended just now
                    _err.print("stopping; what was drawn is kept")
            result = job.result()
        diagnostics = result.diagnostics()
        if output is not None:
            result.save(output)
        if as_json:
            best = result.lowest(1) if result.fields is None else None
            _print_json(
                {
                    "n_chains": result.n_chains,
                    "n_samples": result.n_samples,
                    "mean_energy": float(result.energies.mean()),
                    "lowest_energy": float(result.energies.min()),
                    "lowest_state": None if best is None else best.states[0].tolist(),
                    "job": job.id if opened.store is not None else None,
                    "seed": result.provenance.seed,
                    "calibration": result.provenance.kernel.get("calibration"),
                    "stopped_by": result.provenance.stopped_by,
                    "timing": dict(result.timing),
                    "energy_report": result.energy_report.as_dict(),
                    "diagnostics": diagnostics.as_dict(),
                    "output": None if output is None else str(output),
                }
            )
            return
        typer.echo(repr(result))
        typer.echo(f"energy: mean {result.energies.mean():.6g}, lowest {result.energies.min():.6g}")
        typer.echo(str(diagnostics))
        quantisation = result.provenance.quantisation
        exact = "exact" if quantisation.exact else f"largest error {quantisation.largest_error:.3g}"
        typer.echo(f"coefficients: step {quantisation.step:.6g}, {exact}")
        for assumption in quantisation.assumptions:
            typer.echo(f"! {assumption}")
        if "correction" in result.provenance.kernel:
            typer.echo(result.provenance.kernel["correction"])
        typer.echo(f"device energy: {result.energy_report}")
        if opened.store is not None:
            typer.echo(f"job {job.id}")
        if output is not None:
            typer.echo(f"written: {output}")


def _check_output(path: Path | None) -> None:
    """A path that cannot be written is refused before the work, not after it."""
    if path is None:
        return
    if path.suffix != ".npz":
        raise InvalidModelError(f"results are written as .npz, not {path.name!r}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder")
    with tempfile.TemporaryFile(dir=path.parent):  # what the folder refuses, it shall refuse before the work
        pass


def _clamps(texts: list[str] | None) -> list[tuple[Any, int]]:
    pairs: list[tuple[Any, int]] = []
    for text in texts or []:
        site, separator, value = text.partition("=")
        try:
            if not separator:
                raise ValueError
            pairs.append((int(site) if site.lstrip("-").isdigit() else site, int(value)))
        except ValueError:
            raise InvalidModelError(f"--clamp {text!r} must look like SITE=VALUE, as in --clamp 3=-1") from None
    return pairs


@contextmanager
def _first_ctrl_c() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C is only noted, for who asks; a second one interrupts as ever."""
    came = False

    def note(number: int, frame: Any) -> None:
        nonlocal came
        came = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: came
    finally:
        signal.signal(signal.SIGINT, before)


@app.command()
def solve(
    problem: Annotated[Path, typer.Argument(help="Problem: Gset (MaxCut), .qubo, .coo, .lp, .json or .npz.")],
    device: DeviceOption,
    seconds: Annotated[float | None, typer.Option(help="Time to search; 20 if nothing else is given.")] = None,
    sweeps: Annotated[
        int | None, typer.Option(help="Sweeps over all chains instead of a time: reproducible.", show_default=False)
    ] = None,
    target: Annotated[
        float | None, typer.Option(help="Stop when this good (cut or energy).", show_default=False)
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Solve with so many seeds, for the time to the target.")] = 1,
    penalty: Annotated[
        float | None, typer.Option(help="Cost of breaking a constraint of an .lp file by 1.", show_default=False)
    ] = None,
    best_known: Annotated[
        float | None, typer.Option(help="Best value in the literature, to print beside.", show_default=False)
    ] = None,
    seed: Seed = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the best states here (.npz).", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search for the lowest energy, or the largest cut of a Gset file; every value is recounted from the file."""
    from glauber.device import open_device
    from glauber.request import Budget
    from glauber.solve_view import solve_view
    from glauber.solver import solve as run_solver
    from glauber.time_to_solution import time_to_solution

    with _errors(as_json):
        _check_output(output)
        if best_known is not None and not math.isfinite(best_known):
            raise InvalidModelError(f"--best-known must be a finite number, not {best_known}")
        if runs > 1 and target is None:
            raise InvalidModelError("--runs measures the time to a target: give --target too")
        limit = 20.0 if seconds is None and sweeps is None else seconds
        budget = Budget(seconds=limit, sweeps=sweeps)
        total, by_sweeps = (float(sweeps), True) if sweeps is not None else (limit or 0.0, False)
        found = []
        with open_device(device) as opened, _first_ctrl_c() as asked_to_stop:
            first = opened.derive_seed() if seed is None else seed
            for k in range(runs):
                with solve_view(_err, _progress(not as_json), total, by_sweeps=by_sweeps) as show:
                    found.append(
                        run_solver(
                            problem,
                            device=opened,
                            budget=budget,
                            target=target,
                            seed=(first + k) % 2**64,
                            penalty=penalty,
                            on_progress=lambda now, show=show: show(now) or asked_to_stop(),  # type: ignore[misc]
                        )
                    )
                if asked_to_stop():
                    _err.print("stopped; the best so far is kept")
                    break
        best = min(found, key=lambda one: one.energy)
        reached = None
        if target is not None:
            reached = time_to_solution([one.seconds_to_target for one in found], [one.seconds for one in found])
        if output is not None:
            _write_solution(output, best)
        if as_json:
            times = None if reached is None else reached.as_dict()
            _print_json({**best.as_dict(), "best_known": best_known, "time_to_solution": times})
            return
        _print_solution(best, best_known)
        if reached is not None:
            upper = f"{reached.high:.3g} s" if math.isfinite(reached.high) else "unknown"
            typer.echo(
                f"target reached in {reached.hits} of {reached.runs} runs; time to reach it with 99 %:"
                f" {reached.seconds_99:.3g} s (95 % interval {reached.low:.3g} s to {upper})"
            )
        if output is not None:
            typer.echo(f"written: {output}")


def _print_solution(found: Any, best_known: float | None) -> None:
    typer.echo(f"{found.objective}: {found.value:g}")
    check = "recounted edge by edge from the file" if found.objective == "cut" else "recounted from the file"
    typer.echo(f"verified: {check} ({len(found.spins)} spins)")
    if found.proven:
        typer.echo("proven: no state is better")
    if found.violations is not None:
        broken = ", ".join(f"{label} by {amount:g}" for label, amount in found.violations.items())
        typer.echo(f"constraints: {'broken: ' + broken + '; try a larger --penalty' if broken else 'all kept'}")
    if best_known is not None:
        gap = found.value - best_known
        typer.echo(f"best known: {best_known:g} ({'reached' if gap == 0 else f'{gap:+g}'})")
    typer.echo(
        f"found after {found.trace[-1].seconds:.2f} s of {found.seconds:.2f} s, {found.sweeps:.3g} sweeps of"
        f" {found.n_searched} spins; seed {found.seed}; {found.method} on {found.device}"
    )


def _write_solution(path: Path, found: Any) -> None:
    from glauber.formats import write_archive

    header = {key: value for key, value in found.as_dict().items() if key != "spins"}
    arrays = {"states": found.solutions.states, "energies": found.solutions.energies}
    write_archive(path, "glauber.solution", 1, header, arrays)


@app.command()
def schema(as_json: AsJson = False) -> None:
    """Print the JSON Schema of a device description."""
    from glauber.spec import json_schema

    with _errors(as_json):
        _print_json(json_schema())


@app.command()
def version(as_json: AsJson = False) -> None:
    """Print versions: of glauber, of the machine contract, and what this computer's core can use."""
    from importlib.metadata import version as installed

    from glauber.registry import factory

    with _errors(as_json):
        found: dict[str, Any] = {"glauber": installed("glauber")}
        about: Callable[[], dict[str, Any]] | None = getattr(factory("sim"), "about", None)
        if about is not None:
            found |= about()
        if as_json:
            _print_json(found)
        else:
            for name, value in found.items():
                typer.echo(f"{name}: {value}")


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":
    main()
