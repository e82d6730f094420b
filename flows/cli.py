"""The command line. Nothing heavy is imported before it is needed: help, status and a finished run start at once.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 stopped by a gate, 130 interrupted.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer

DONE, FAILED, USAGE, STOPPED, INTERRUPTED = 0, 1, 2, 3, 130
DEFAULT_WORKSPACE = "./workspace"

app = typer.Typer(
    name="gristmill",
    help="From raw text to a trained model, as one graph of stages that can be stopped, resumed and re-run one by one.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
server_app = typer.Typer(help="The local Prefect server of a workspace.", no_args_is_help=True)
app.add_typer(server_app, name="server")


class UsageError(ValueError):
    """Something on the command line that cannot be (exit code 2)."""


Command = TypeVar("Command", bound=Callable[..., Any])

ConfigArgument = Annotated[str, typer.Argument(metavar="CONFIG", help="Configuration file (YAML).")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a setting; may be given several times.")
]
NameOption = Annotated[str | None, typer.Option("--name", help="Name of the run, instead of the configuration's.")]
WorkspaceOption = Annotated[
    str | None,
    typer.Option(
        "--workspace",
        envvar="GRISTMILL_WORKSPACE",
        metavar="URL",
        help=f"Folder or fsspec URL where outputs lie; otherwise the configuration's, or {DEFAULT_WORKSPACE}.",
    ),
]
WorkersOption = Annotated[int | None, typer.Option("--workers", min=0, help="Worker processes; 0: one a core.")]
FromOption = Annotated[str | None, typer.Option("--from", metavar="STAGE", help="Begin with this stage.")]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="STAGE", help="This stage and what it reads.")]
OnlyOption = Annotated[str | None, typer.Option("--only", metavar="STAGE", help="This stage alone.")]
ForceOption = Annotated[
    list[str] | None, typer.Option("--force", metavar="STAGE", help="Make a new output; may be given several times.")
]
VerifyOption = Annotated[
    bool, typer.Option("--verify", help="Hash every input file, instead of trusting its size and time stamp.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
RunOption = Annotated[str | None, typer.Option("--run", metavar="RUN", help="Which run; otherwise the last one.")]
RunArgument = Annotated[str | None, typer.Argument(metavar="RUN", help="Name of a run; otherwise the last one.")]


def main() -> int:
    """The entry point: runs one command and leaves with its exit code."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    if "--debug" in sys.argv:
        sys.argv.remove("--debug")
        os.environ["GRISTMILL_DEBUG"] = "1"
    app()
    return DONE


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors (anywhere on the line).")] = False,
) -> None:
    # Read and removed by `main`, so that it may stand anywhere.
    return None


def guarded(command: Command) -> Command:
    """A command whose errors end in one readable message and the right exit code."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            code = command(*arguments, **options)
        except (typer.Exit, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - the outermost place: everything becomes an exit code
            raise typer.Exit(_report(error)) from None
        if code:
            raise typer.Exit(code)

    return run  # type: ignore[return-value]


def _report(error: BaseException) -> int:
    code, text = _outcome(error)
    if os.environ.get("GRISTMILL_DEBUG"):
        traceback.print_exception(error)
    print(f"gristmill: {text}", file=sys.stderr)
    return code


def _outcome(error: BaseException) -> tuple[int, str]:
    """The exit code and the message that an error comes to."""
    if isinstance(error, KeyboardInterrupt) or not isinstance(error, Exception):
        return INTERRUPTED, "interrupted; what is done is kept, and the same command goes on from there"
    if isinstance(error, UsageError):
        return USAGE, str(error)
    from stages.base import GateError, SettingError, StageError

    if isinstance(error, GateError):
        return STOPPED, f"stopped by a gate: {error}"
    if isinstance(error, SettingError):
        return USAGE, str(error)
    if isinstance(error, StageError):
        return FAILED, str(error)
    config = sys.modules.get("flows.config")
    if config is not None and isinstance(error, config.ConfigError):
        return USAGE, str(error)
    server = sys.modules.get("flows.server")
    if isinstance(error, ValueError | OSError) or (server is not None and isinstance(error, server.ServerError)):
        return FAILED, str(error)
    return FAILED, f"{type(error).__name__}: {error} (--debug shows where)"


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False, default=str))


# -------------------------------------------------------------------- running


@app.command()
@guarded
def plan(
    config: ConfigArgument,
    set_: SetOption = None,
    name: NameOption = None,
    workspace: WorkspaceOption = None,
    workers: WorkersOption = None,
    from_: FromOption = None,
    until: UntilOption = None,
    only: OnlyOption = None,
    force: ForceOption = None,
    verify: VerifyOption = False,
    json_: JsonOption = False,
) -> None:
    """Say for every stage what would happen and why, without doing anything."""
    from flows import running, show

    session = running.open_session(
        config, set_, name, workspace, workers, (from_, until, only, force or []), verify=verify
    )
    rows = session.plan()
    if json_:
        _print_json({"run": session.config.name, "workspace": session.store.url, "stages": [r.as_dict() for r in rows]})
    else:
        show.plan(session.config.name, session.store.url, rows)


@app.command()
@guarded
def run(
    config: ConfigArgument,
    set_: SetOption = None,
    name: NameOption = None,
    workspace: WorkspaceOption = None,
    workers: WorkersOption = None,
    from_: FromOption = None,
    until: UntilOption = None,
    only: OnlyOption = None,
    force: ForceOption = None,
    verify: VerifyOption = False,
    no_prefect: Annotated[bool, typer.Option("--no-prefect", help="Do the same work without Prefect.")] = False,
    json_: JsonOption = False,
) -> None:
    """Bring all stages to completion, doing only what is not done yet; shows the plan, then follows it."""
    from flows import running, show

    running.catch_signals()
    session = running.open_session(
        config, set_, name, workspace, workers, (from_, until, only, force or []), verify=verify
    )
    rows = session.plan()
    if not json_:
        show.plan(session.config.name, session.store.url, rows)
    outputs = running.follow(session, rows, prefect=not no_prefect and session.config.orchestrator == "prefect")
    from stages import explain

    summary = explain.summary(outputs)
    if json_:
        _print_json({"run": session.config.name, "workspace": session.store.url, **summary})
    else:
        show.summary(summary)


# -------------------------------------------------------------------- looking


@app.command()
@guarded
def status(run: RunArgument = None, workspace: WorkspaceOption = None, json_: JsonOption = False) -> None:
    """All runs of a workspace, or one run with its stages and attempts."""
    from flows import looking, show

    store = looking.open_store(workspace or DEFAULT_WORKSPACE)
    if run is None:
        records = looking.all_records(store)
        if json_:
            _print_json(records)
        else:
            show.runs(store.url, records)
        return
    record = looking.record(store, run)
    if json_:
        _print_json(record)
    else:
        show.run(record)


@app.command(name="show")
@guarded
def show_(
    what: Annotated[str, typer.Argument(metavar="STAGE|RUN", help="A stage of a run, or a run.")],
    run: RunOption = None,
    workspace: WorkspaceOption = None,
    samples: Annotated[int, typer.Option("--samples", min=0, help="Documents shown for every reason.")] = 3,
    json_: JsonOption = False,
) -> None:
    """What is in the output of a stage (manifest, samples, the ledger of ingest), or what a run came to."""
    from flows import looking, show

    store = looking.open_store(workspace or DEFAULT_WORKSPACE)
    if looking.is_stage(what):
        found = looking.stage_output(store, looking.record(store, run), what, samples)
        if json_:
            _print_json(found)
        else:
            show.stage(found)
        return
    if run is not None:
        raise UsageError(looking.no_stage(what))
    record = looking.record(store, what, or_stage=True)
    summary = looking.summary_of(store, record)
    if json_:
        _print_json({"run": record, "summary": summary})
    else:
        show.run(record)
        show.summary(summary)


@app.command()
@guarded
def why(
    query: Annotated[str, typer.Argument(metavar="ID|URI#RECORD", help="32 hex digits, or e.g. a.jsonl.gz#17.")],
    run: RunOption = None,
    workspace: WorkspaceOption = None,
    json_: JsonOption = False,
) -> None:
    """All evidence and the decision on one document."""
    from flows import looking, show
    from stages import explain

    store = looking.open_store(workspace or DEFAULT_WORKSPACE)
    answer = explain.why(store, looking.record(store, run), query)
    if json_:
        _print_json(answer)
    else:
        show.why(answer)


@app.command(name="what-if")
@guarded
def what_if(
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="RULE=VALUE…", help="Another threshold; RULE=off and RULE=on switch a rule."),
    ] = None,
    preset: Annotated[
        list[str] | None, typer.Option("--preset", metavar="NAME", help="Add a preset; may be given several times.")
    ] = None,
    set_: SetOption = None,
    run: RunOption = None,
    workspace: WorkspaceOption = None,
    samples: Annotated[int, typer.Option("--samples", "-n", min=0, help="Documents shown of each side.")] = 3,
    json_: JsonOption = False,
) -> None:
    """What other rules would keep and drop, from what is measured already; nothing is changed."""
    from flows import looking, questions, show_questions

    store = looking.open_store(workspace or DEFAULT_WORKSPACE)
    record = looking.record(store, run)
    answer = questions.what_if(store, record, changes or [], preset or [], set_ or [], samples)
    if json_:
        _print_json(answer)
    else:
        show_questions.what_if(answer)


@app.command()
@guarded
def samples(
    kept: Annotated[bool, typer.Option("--kept", help="Documents that were kept.")] = False,
    dropped_by: Annotated[
        str | None, typer.Option("--dropped-by", metavar="RULE", help="Documents dropped by a rule, or as duplicates …")
    ] = None,
    number: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 5,
    source: Annotated[str | None, typer.Option("--source", metavar="NAME", help="Of this source only.")] = None,
    language: Annotated[str | None, typer.Option("--language", metavar="LABEL", help="In this language only.")] = None,
    run: RunOption = None,
    workspace: WorkspaceOption = None,
    json_: JsonOption = False,
) -> None:
    """Real documents, kept or dropped, with the passages marked that a rule dropped them for."""
    from flows import looking, questions, show_questions

    if kept == (dropped_by is not None):
        raise UsageError("samples: give either --kept or --dropped-by RULE")
    reason = dropped_by or "kept"
    store = looking.open_store(workspace or DEFAULT_WORKSPACE)
    found = questions.samples(store, looking.record(store, run), reason, number, source, language)
    if json_:
        _print_json(found)
    else:
        show_questions.samples(reason, found)


@app.command()
@guarded
def takedown(
    id_: Annotated[list[str] | None, typer.Option("--id", metavar="ID", help="A document: 32 hex digits.")] = None,
    uri: Annotated[
        list[str] | None, typer.Option("--uri", metavar="URI[#RECORD]", help="An input file, or a record of it.")
    ] = None,
    source: Annotated[list[str] | None, typer.Option("--source", metavar="NAME", help="A whole source.")] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept with the takedown.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would touch.")] = False,
    workspace: WorkspaceOption = None,
    json_: JsonOption = False,
) -> None:
    """Leave documents out of all runs from now on; lists token shards and checkpoints that hold them."""
    from flows import looking, show
    from stages import takedown as takedowns

    if not (id_ or uri or source):
        raise UsageError("takedown: give --id, --uri or --source")
    for one in id_ or []:
        if not re.fullmatch("[0-9a-fA-F]{32}", one):
            raise UsageError(f"--id {one!r}: an id has 32 hex digits")
    store = looking.open_store(workspace or DEFAULT_WORKSPACE)
    found = takedowns.find(store, id_ or [], uri or [], source or [])
    path = None if dry_run else takedowns.write(store, found, reason)
    if json_:
        _print_json({"written": path, **dataclasses.asdict(found)})
    else:
        show.takedown(found, path)


@app.command()
@guarded
def verify(run: RunArgument = None, workspace: WorkspaceOption = None, json_: JsonOption = False) -> int:
    """Check sums, sizes and digests of every output on disk, or of one run's; exit code 1 if anything is wrong."""
    from flows import looking, show

    store = looking.open_store(workspace or DEFAULT_WORKSPACE)
    results = looking.verify(store, looking.record(store, run) if run is not None else None)
    if json_:
        _print_json(results)
    else:
        show.verified(store.url, results)
    return FAILED if any(result["problems"] for result in results) else DONE


@app.command()
@guarded
def report(
    run: RunArgument = None,
    workspace: WorkspaceOption = None,
    force: Annotated[bool, typer.Option("--force", help="Draw it again.")] = False,
    json_: JsonOption = False,
) -> None:
    """The path of a run's HTML report; it is drawn if it is not there yet."""
    from flows import looking, running

    running.catch_signals()
    store = looking.open_store(workspace or DEFAULT_WORKSPACE)
    path = running.draw_report(store, looking.record(store, run), force=force)
    if json_:
        _print_json({"report": path})
    else:
        print(path)


@app.command()
@guarded
def generate(
    prompt: Annotated[str, typer.Argument(help="Text to continue; empty: a new document.")],
    run: RunOption = None,
    workspace: WorkspaceOption = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="New tokens at most.")] = 128,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="0: always the likeliest token.")] = 0.8,
    top_k: Annotated[int, typer.Option("--top-k", min=0, help="Among this many likeliest tokens; 0: all.")] = 50,
    seed: Annotated[int, typer.Option("--seed", min=0, help="One seed, one text.")] = 1,
    json_: JsonOption = False,
) -> None:
    """Let a run's pretrained model write."""
    from flows import looking

    store = looking.open_store(workspace or DEFAULT_WORKSPACE)
    text = looking.generate(
        store,
        looking.record(store, run),
        prompt,
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        seed=seed,
    )
    if json_:
        _print_json({"prompt": prompt, "text": text})
    else:
        print(prompt + text)


@app.command()
@guarded
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    workspace: WorkspaceOption = None,
    json_: JsonOption = False,
) -> None:
    """Remove outputs that no run record names and nothing kept refers to."""
    from flows import looking, show
    from storage import garbage

    store = looking.open_store(workspace or DEFAULT_WORKSPACE)
    found = garbage.find(store)
    if not dry_run:
        garbage.collect(store, found)
    if json_:
        _print_json({"removed": not dry_run, **dataclasses.asdict(found)})
    else:
        show.garbage(found, dry_run=dry_run)


# -------------------------------------------------------------------- server


@server_app.command("start")
@guarded
def server_start(workspace: WorkspaceOption = None, json_: JsonOption = False) -> None:
    """Find the workspace's server or start it; prints the address of its UI."""
    from flows import server

    found = server.ensure(workspace or DEFAULT_WORKSPACE)
    _tell_server(found, json_)


@server_app.command("stop")
@guarded
def server_stop(workspace: WorkspaceOption = None, json_: JsonOption = False) -> None:
    """End the workspace's server."""
    from flows import server

    stopped = server.stop(workspace or DEFAULT_WORKSPACE)
    if json_:
        _print_json({"stopped": stopped})
    else:
        print("stopped" if stopped else "no server was running")


@server_app.command("status")
@guarded
def server_status(workspace: WorkspaceOption = None, json_: JsonOption = False) -> None:
    """Whether the workspace's server runs, and where."""
    from flows import server

    found = server.running(server.home_of(workspace or DEFAULT_WORKSPACE))
    if url := os.environ.get("PREFECT_API_URL"):
        found = server.Server(url)
    _tell_server(found, json_)


def _tell_server(found: Any, json_: bool) -> None:
    if json_:
        _print_json(
            {
                "running": found is not None,
                "api": found.api_url if found else None,
                "ui": found.ui_url if found else None,
                "pid": found.pid if found else None,
                "home": found.home if found else None,
            }
        )
    elif found is None:
        print("no server is running")
    else:
        print(f"Prefect UI: {found.ui_url}" + (f"  (process {found.pid}, {found.home})" if found.pid else ""))
