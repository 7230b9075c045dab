"""python -m simulations {run,compare,phantom,pretrain,...}: whole federations on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.runtime.cli import run_command
from common.runtime.offline import go_offline
from common.runtime.pulse import signs_of_life

if TYPE_CHECKING:
    from common.config.run import Run

EXAMPLES = """examples:
  python -m simulations run curriculum=quickstart
  python -m simulations run curriculum=smoke name=try1 runtime.workers=1
  python -m simulations plan curriculum=quickstart --machine
  python -m simulations compare curriculum=quickstart
  python -m simulations run curriculum=smoke seed=1,2 training.lr=1e-3,3e-3
  python -m simulations options steps.relapse.training
  python -m simulations flower curriculum=smoke
  python -m simulations federation
  python -m simulations bench
  python -m simulations bench --check
  python -m simulations bench rounds
  python -m simulations bench sizes
  python -m simulations bench aggregation
  python -m simulations bench release
  python -m simulations bench masking
  python -m simulations accept --weights runs/shapes/shapes.safetensors --root ../shared/data/sts7
  python -m simulations audit
  python -m simulations phantom --out data/phantom --scale 0.2 --seed 11
"""


LONG = ("accept", "audit", "bench", "compare", "federation", "flower", "phantom", "plan", "pretrain", "run")


def make_parser() -> argparse.ArgumentParser:
    """Every command with its options; `simulations.reference` writes a page from it."""
    parser = argparse.ArgumentParser(
        prog="python -m simulations",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a curriculum over LocalGrid and write its report")
    run.add_argument("overrides", nargs="*", help="Hydra overrides, e.g. curriculum=quickstart name=mine")
    plan = commands.add_parser("plan", help="the resolved run and every broken rule; nothing is started")
    plan.add_argument("overrides", nargs="*", help="Hydra overrides, e.g. curriculum=quickstart")
    plan.add_argument("--machine", action="store_true", help="also weights, device, disk, and every center's cases")
    comparison = commands.add_parser("compare", help="federated, centralized, local and controls in one report")
    comparison.add_argument("overrides", nargs="*", help="Hydra overrides, e.g. curriculum=quickstart")
    for swept in (run, comparison):
        swept.add_argument("-m", "--multirun", action="store_true", help="Hydra's word: lists are swept without it too")
    listing = commands.add_parser("options", help="every option with default, unit and meaning")
    listing.add_argument("prefix", nargs="?", default="", help="e.g. steps.relapse.training")
    listing.add_argument("--markdown", action="store_true", help="as a page instead of a table")
    flower = commands.add_parser("flower", help="the same under Flower's simulation runtime (Ray)")
    flower.add_argument("overrides", nargs="*", help="Hydra overrides, e.g. curriculum=smoke")
    about = "what a federation, aggregation, real sizes, the release gate, or secure sums cost"
    bench = commands.add_parser("bench", help=about)
    asked = ["ratios", "rounds", "aggregation", "sizes", "release", "masking"]
    bench.add_argument("what", nargs="?", choices=asked, default="ratios")
    bench.add_argument("--check", action="store_true", help="ratios: end with 2 where one is above the committed one")
    bench.add_argument("--out", type=Path, default=None, help="default: runs/bench.json, runs/bench_WHAT.json")
    bench.add_argument("--cpu", action="store_true", help="sizes: time the real sizes on the CPU, minutes each")
    bench.add_argument("--only", nargs="+", default=[], metavar="MODEL", help="sizes: e.g. unetr_fs16")
    audit = commands.add_parser("audit", help="attack what private steps release: what leaks, with and without noise")
    audit.add_argument("--out", type=Path, default=Path("runs/audit"))
    audit.add_argument("--seed", type=int, default=0)
    federation = commands.add_parser("federation", help="a coordinator and three hospitals as processes, two crashes")
    federation.add_argument("--out", type=Path, default=Path("runs/federation"))
    phantom = commands.add_parser("phantom", help="make the synthetic cohort on disk")
    phantom.add_argument("--out", type=Path, required=True)
    phantom.add_argument("--scale", type=float, default=0.2, help="1.0 is HECKTOR's 524 patients")
    phantom.add_argument("--seed", type=int, default=11)
    dicom = commands.add_parser("dicom", help="a center's cases as DICOM, to try python -m client prepare on")
    dicom.add_argument("--root", type=Path, required=True, help="folder in a HECKTOR layout")
    dicom.add_argument("--center", required=True, help="code of the center, e.g. CHUM")
    dicom.add_argument("--out", type=Path, required=True)
    pretrain = commands.add_parser("pretrain", help="pre-train the mini CT-CLIP on synthetic chest cases, or a U-Net")
    pretrain.add_argument("what", nargs="?", choices=["mini", "shapes"], default="mini", help="shapes: the U-Net")
    pretrain.add_argument("--out", type=Path, default=None, help="default: common/backbones/mini, or runs/shapes")
    pretrain.add_argument("--seed", type=int, default=7)
    pretrain.add_argument("--cases", type=int, default=2400, help="mini: chest cases")
    pretrain.add_argument("--epochs", type=int, default=20, help="mini: passes over them")
    pretrain.add_argument("--steps", type=int, default=5000, help="shapes: optimizer steps; a stopped one goes on")
    pretrain.add_argument("--side", type=int, default=32, help="shapes: voxels of a crop")
    accepting = commands.add_parser("accept", help="judge a pre-trained U-Net of shapes on cases that are set aside")
    accepting.add_argument("--weights", type=Path, required=True, help="shapes.safetensors")
    accepting.add_argument("--config", default="base", help="size of the network")
    accepting.add_argument("--root", type=Path, required=True, help="folder of the sts7 cases; half of them is opened")
    accepting.add_argument("--phantoms", type=int, nargs="+", default=[101, 102, 103], help="seeds of fresh phantoms")
    accepting.add_argument("--scale", type=float, default=0.14, help="of a phantom; 1.0 is HECKTOR's 524 patients")
    accepting.add_argument("--out", type=Path, default=Path("runs/accept_shapes"))
    reference = commands.add_parser("docs", help="write the pages of docs/ that code and schema make")
    reference.add_argument("--out", type=Path, default=Path("docs"))
    return parser


def main(argv: list[str] | None = None) -> int:
    """Parse, call one function, print."""
    arguments = make_parser().parse_args(argv)
    go_offline()
    actions = {
        "run": _run,
        "plan": _plan,
        "audit": _audit,
        "compare": _compare,
        "accept": _accept,
        "pretrain": _pretrain,
        "phantom": _phantom,
        "dicom": _dicom,
        "federation": _federation,
        "flower": _flower,
        "bench": _bench,
        "docs": _docs,
        "options": _options,
    }
    if arguments.command not in LONG:
        return run_command(lambda: actions[arguments.command](arguments))
    with signs_of_life():
        return run_command(lambda: actions[arguments.command](arguments))


def _check(overrides: Sequence[str]) -> Run:
    """The run, complained about before anything heavy is imported."""
    from common.config.rules import check_run
    from server.run.composed import composed_run

    run = composed_run(overrides)
    if run.study is None:  # a study composes runs of its own
        check_run(run, may_be_open=True)
    return run


def _sweep(arguments: argparse.Namespace) -> int:
    """Each combination of a command line with comma lists; exit code 2 where one could not run."""
    from rich.console import Console

    from simulations.sweep import run_sweep, sweep_table

    folder, points = run_sweep(arguments.overrides, command=arguments.command)
    Console(width=max(Console().width, 132)).print(sweep_table(points))
    print(f"tables: {folder / 'sweep.csv'}, {folder / 'sweep.json'}")
    return 2 if any(point.problem for point in points) else 0


def _options(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from simulations.options import options, options_markdown, options_table

    found = options(arguments.prefix)
    if arguments.markdown:
        print(options_markdown(found), end="")
    else:
        Console(width=max(Console().width, 132)).print(options_table(found))


def _run(arguments: argparse.Namespace) -> int | None:
    import json

    from simulations.sweep import varied

    if varied(arguments.overrides):
        return _sweep(arguments)
    run = _check(arguments.overrides)
    if run.study is not None:
        _study(run, arguments.overrides)
        return None
    from rich.console import Console

    from server.report.console import summary_table
    from simulations.simulate import simulate

    folder = simulate(arguments.overrides)
    Console(width=max(Console().width, 100)).print(summary_table(json.loads(folder.results.read_text())))
    print(f"report: {folder.report}")
    return None


def _plan(arguments: argparse.Namespace) -> int:
    from server.commands.plan import plan
    from server.run.composed import composed_run

    if not arguments.machine:
        return plan(composed_run(arguments.overrides), machine=False, may_be_open=True)
    from simulations.virtual.own_data import settled
    from simulations.virtual.planning import cohort_found

    return plan(composed_run(settled(arguments.overrides)), machine=True, cohort=cohort_found)


def _federation(arguments: argparse.Namespace) -> None:
    from simulations.virtual.demo import demonstrate

    found = demonstrate(arguments.out.resolve(), say=lambda line: print(line, flush=True))
    print(f"{found.rounds} rounds, {found.round_s:.1f} s each, {found.overhead_s:.1f} s of it beside training")
    print(
        f"a hospital's round: {found.up_mb:.2f} MB up, {found.down_mb:.2f} MB down; recovery {found.recovery_s:.0f} s"
    )
    print("the adapters are those of the simulation, bit for bit")
    print(f"report: {arguments.out / 'deployed' / 'report.html'}")


def _compare(arguments: argparse.Namespace) -> int | None:
    from simulations.sweep import varied

    if varied(arguments.overrides):
        return _sweep(arguments)
    run = _check(arguments.overrides)
    if run.study is not None:
        _study(run, arguments.overrides)
        return None
    from rich.console import Console

    from simulations.comparison.page import compare, comparison_table

    folder, found = compare(arguments.overrides)
    Console(width=max(Console().width, 132)).print(comparison_table(found))
    print(f"report: {folder.report}")
    return None


def _study(run: Run, overrides: Sequence[str]) -> None:
    from rich.console import Console

    from simulations.studies.page import console_table
    from simulations.studies.run import run_study, study_folder

    folder = study_folder(run)
    page = run_study(run, overrides, folder=folder)
    for table in page.tables:
        Console(width=max(Console().width, 132)).print(console_table(table))
    print(f"report: {folder / 'report.html'}")


def _pretrain(arguments: argparse.Namespace) -> None:
    if arguments.what == "shapes":
        from simulations.pretraining.shapes.training import Recipe, pretrain_shapes

        out, recipe = arguments.out or Path("runs/shapes"), Recipe(side=arguments.side)
        print(pretrain_shapes(out, steps=arguments.steps, seed=arguments.seed, recipe=recipe))
        return
    from simulations.pretraining.pretrain import pretrain

    out = arguments.out or Path("common/backbones/mini")
    print(pretrain(out, cases=arguments.cases, epochs=arguments.epochs, seed=arguments.seed, progress=print))


def _accept(arguments: argparse.Namespace) -> None:
    from simulations.pretraining.acceptance.accept import RESULTS, Asked, accept

    asked = Asked(
        arguments.weights, arguments.config, arguments.root, tuple(dict.fromkeys(arguments.phantoms)), arguments.scale
    )
    accept(asked, arguments.out, say=lambda line: print(line, flush=True))
    print(f"figures: {arguments.out / RESULTS}")


def _flower(arguments: argparse.Namespace) -> None:
    import json

    _check(arguments.overrides)

    from rich.console import Console

    from server.report.console import summary_table
    from simulations.virtual.ray import simulate_with_flower

    folder = simulate_with_flower(arguments.overrides)
    Console(width=max(Console().width, 100)).print(summary_table(json.loads(folder.results.read_text())))
    print(f"report: {folder.report}")


def _bench(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    if arguments.what == "sizes":
        from simulations.benchmarks.sizes import bench_sizes, sizes_table

        out = arguments.out or Path("runs/bench_sizes.json")
        tables = [sizes_table(bench_sizes(out, only=arguments.only, cpu=arguments.cpu))]
    elif arguments.what == "aggregation":
        from simulations.benchmarks.aggregation import aggregation_tables, bench_aggregation

        out = arguments.out or Path("runs/bench_aggregation.json")
        tables = list(aggregation_tables(bench_aggregation(out)))
    elif arguments.what == "release":
        from simulations.benchmarks.release import bench_release, release_table

        out = arguments.out or Path("runs/bench_release.json")
        tables = [release_table(bench_release(out))]
    elif arguments.what == "masking":
        from simulations.benchmarks.masking import bench_masking, masking_table

        out = arguments.out or Path("runs/bench_masking.json")
        tables = [masking_table(bench_masking(out))]
    elif arguments.what == "rounds":
        from simulations.benchmarks.rounds import bench, bench_tables

        out = arguments.out or Path("runs/bench_rounds.json")
        tables = list(bench_tables(bench(out)))
    else:
        from simulations.benchmarks.ratios import bench_ratios, check, ratio_rows

        out = arguments.out or Path("runs/bench.json")
        ratios = bench_ratios(out)
        tables = [ratio_rows(ratios)]
    for table in tables:
        Console(width=max(Console().width, 110)).print(table)
    print(f"figures: {out}")
    if arguments.what == "ratios" and arguments.check:
        check(ratios)


def _audit(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from simulations.leakage.page import run_audit
    from simulations.studies.page import console_table

    command = f"python -m simulations audit --seed {arguments.seed}"
    for table in run_audit(arguments.out, seed=arguments.seed, command=command).tables:
        Console(width=max(Console().width, 110)).print(console_table(table))
    print(f"report: {arguments.out / 'report.html'}, numbers: {arguments.out / 'study.json'}")


def _dicom(arguments: argparse.Namespace) -> None:
    from client.data.layouts import find_cases
    from simulations.phantom.dicom import export_cohort, export_tables

    cases = find_cases(arguments.root, center=arguments.center)
    count = export_cohort(cases, arguments.out)
    tables = export_tables(cases, arguments.root, arguments.out)
    print(f"{arguments.out}: {count} made-up persons as DICOM, {', '.join(path.name for path in tables)}")


def _docs(arguments: argparse.Namespace) -> None:
    from simulations.reference import write_pages

    changed = write_pages(arguments.out)
    print("\n".join(map(str, changed)) if changed else f"{arguments.out}: every page is as code and schema say")


def _phantom(arguments: argparse.Namespace) -> None:
    from simulations.phantom import make_cohort

    card = make_cohort(arguments.out, scale=arguments.scale, seed=arguments.seed)
    print(f"{arguments.out}: {card}")


if __name__ == "__main__":
    raise SystemExit(main())
