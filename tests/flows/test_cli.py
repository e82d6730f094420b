"""The command line: exit codes, messages that help, JSON for scripts, and nothing heavy before it is needed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import pytest

from flows.cli import main
from tests.flows.conftest import clean_environment

Call = Callable[..., subprocess.CompletedProcess[str]]
MAIN = "from flows.cli import main; raise SystemExit(main())"
SENTENCES = "The quick brown fox jumps over the lazy dog and that is all there is to say of it, with number {}. "


def write_run(folder: Path, **sections: Any) -> Path:
    """A folder with a few documents, a damaged line among them, and a configuration without training."""
    texts = folder / "texts"
    texts.mkdir(exist_ok=True)
    for number in range(3):
        rows = [{"text": "".join(SENTENCES.format(f"{number}{row}{n}") for n in range(20))} for row in range(10)]
        lines = [json.dumps(row) for row in rows]
        if number == 1:
            lines[4] = '{"text": broken'
        (texts / f"{number}.jsonl").write_text("\n".join(lines) + "\n")
    nothing = ("export_corpus", "tokenizer", "tokenize", "pretrain", "evaluate", "finetune", "release", "report")
    values = {
        "name": "small",
        "workspace": str(folder / "workspace"),
        "ingest": {"sources": [{"name": "texts", "kind": "jsonl", "path": str(texts)}]},
        **dict.fromkeys(nothing),
        "filter": {"expect": {"kept_share": {"min": 0.0}}},
        "how": {"workers": 1},
        **sections,
    }
    file = folder / "run.yaml"
    file.write_text(json.dumps(values))
    return file


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that has been brought to its filter stage without Prefect."""
    folder = tmp_path_factory.mktemp("finished")
    file = write_run(folder)
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "run", str(file), "--until", "filter", "--no-prefect"],
        env=clean_environment(),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Plan of run small" in done.stdout
    assert "Funnel" in done.stdout
    return folder


@pytest.fixture
def call(finished: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """Call the command line in the finished run's folder: in this process what only looks, which is faster."""
    for name in [name for name in os.environ if name.startswith(("PREFECT_", "GRISTMILL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(finished)

    def here(arguments: tuple[str, ...]) -> int:
        with pytest.raises(SystemExit) as left, mock.patch.object(sys, "argv", ["gristmill", *arguments]):
            main()
        return int(left.value.code or 0)

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        if arguments[0] == "run":
            return subprocess.run(
                [sys.executable, "-c", MAIN, *arguments],
                env=clean_environment(**environment),
                capture_output=True,
                text=True,
                timeout=120,
            )
        capfd.readouterr()
        with mock.patch.dict(os.environ, environment):
            code = here(arguments)
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, code, out, err)

    return run


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print(sorted({m.partition('.')[0] for m in sys.modules})))\n" + MAIN
    )
    times = []
    for _ in range(3):
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", code, "--help"], env=clean_environment(), capture_output=True, text=True
        )
        times.append(time.monotonic() - began)
        assert done.returncode == 0
    loaded = set(done.stdout.splitlines()[-1].strip("[]").replace("'", "").split(", "))
    assert not loaded & {"prefect", "torch", "pydantic", "pyarrow", "polars", "numba", "fsspec", "yaml"}
    for command in ("plan", "run", "status", "show", "why", "verify", "report", "generate", "gc", "server"):
        assert command in done.stdout
    assert min(times) < 1.0  # half a second on an idle machine


def test_a_finished_run_does_nothing_says_so_and_imports_no_prefect(finished: Path) -> None:
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print([m for m in ('prefect', 'torch') if m in sys.modules], file=sys.stderr))\n"
        + MAIN
    )
    before = json.loads((finished / "workspace/runs/small.json").read_text())
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "run.yaml", "--until", "filter"],
        env=clean_environment(),
        cwd=finished,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 10
    assert "Nothing to do" in done.stderr
    assert done.stderr.splitlines()[-1] == "[]"
    assert not (finished / "workspace/.prefect").exists()
    after = json.loads((finished / "workspace/runs/small.json").read_text())
    assert len(after["attempts"]) == len(before["attempts"]) + 1
    assert {s: e["output"] for s, e in after["stages"].items()} == {s: e["output"] for s, e in before["stages"].items()}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["plan", "none.yaml"], 2, "there is no configuration file none.yaml; did you mean run.yaml?"),
        (["plan", "run.yaml", "--set", "filter.presetz=[]"], 2, "did you mean filter.presets?"),
        (["plan", "run.yaml", "--workers", "-1"], 2, "--workers"),
        (["plan", "run.yaml", "--only", "fliter"], 2, "did you mean 'filter'?"),
        (["plan", "run.yaml", "--only", "pretrain"], 2, "is switched off in this configuration"),
        (["plan", "run.yaml", "--only", "filter", "--from", "ingest"], 2, "--only cannot be given together"),
        (["plan", "run.yaml", "--force", "nothing"], 2, "there is no stage 'nothing'"),
        (["plan", "run.yaml", "--set", "ingest.sources.0.path=text"], 2, "source 'texts', path: no jsonl files"),
        (["plan", "run.yaml", "--set", "ingest.sources.0.path=text"], 2, "did you mean 'texts'?"),
        (["plan", "run.yaml", "--set", "ingest.sources.0.path=foo://a"], 2, "there is no protocol 'foo'"),
        (["plan", "run.yaml", "--set", "ingest.sources.0.kind=html"], 2, "did you mean kind: jsonl?"),
        (["plan", "run.yaml", "--set", "ingest.sources.0.kind=text", "--set", "ingest.sources.0.encoding=x"], 2, "'x'"),
        (["frobnicate"], 2, "frobnicate"),
        (["status", "smal"], 2, "there is no run 'smal'"),
        (["show", "fliter"], 2, "did you mean 'filter'?"),
        (["show", "pretrain"], 2, "has no complete output of pretrain"),
        (["show", "fliter", "--run", "small"], 2, "there is no stage 'fliter'; did you mean 'filter'?"),
        (["why", "xyz"], 1, "is neither an id"),
        (["why", "0.jsonl#99"], 1, "there is no such record"),
        (["why", "0.jsnl#0"], 1, "the nearest is '0.jsonl'"),
        (["why", "0" * 32], 1, "no document of this run has the id"),
        (["generate", "x"], 2, "has no complete tokenizer yet"),
        (["report"], 1, "report"),
        (["status", "--workspace", "elsewhere"], 2, "there is no workspace"),
        (["takedown"], 2, "give --id, --uri or --source"),
        (["takedown", "--id", "12"], 2, "an id has 32 hex digits"),
        (["takedown", "--uri", "0.jsonl#99"], 1, "has the uri '0.jsonl#99'"),
        (["verify", "other"], 2, "there is no run 'other'"),
    ],
)
def test_mistakes_end_in_one_message_and_the_right_code(
    call: Call, arguments: list[str], code: int, message: str
) -> None:
    done = call(*arguments)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_stage_whose_inputs_are_missing_says_what_to_run(tmp_path: Path, gristmill: Call) -> None:
    write_run(tmp_path)
    done = gristmill("run", "run.yaml", "--only", "filter", "--no-prefect")
    assert done.returncode == 1
    assert "filter needs ingest, quality, decontaminate" in done.stderr
    assert json.loads((tmp_path / "workspace/runs/small.json").read_text())["status"] == "failed"


def test_a_run_of_one_stage_records_what_it_reads(call: Call) -> None:
    assert call("run", "run.yaml", "--name", "one", "--only", "filter", "--no-prefect").returncode == 0
    stages = json.loads(call("status", "one", "--json").stdout)["stages"]
    assert {"ingest", "quality", "filter"} <= set(stages)
    small = json.loads(call("status", "small", "--json").stdout)["stages"]
    assert {stage: entry["output"] for stage, entry in stages.items()}.items() <= {
        stage: entry["output"] for stage, entry in small.items()
    }.items()


def test_debug_shows_where(call: Call) -> None:
    done = call("why", "xyz", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_plan_says_what_changed(call: Call) -> None:
    done = call("plan", "run.yaml", "--set", "filter.contamination_overlap=0.9", "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["stage"]: row for row in json.loads(done.stdout)["stages"]}
    assert [rows[s]["state"] for s in ("ingest", "quality", "filter", "select")] == [
        "done", "done", "changed", "unknown yet"
    ]  # fmt: skip
    assert "contamination_overlap" in rows["filter"]["why"]
    assert "filter" in call("plan", "run.yaml").stdout


def test_status_and_show_tell_runs_and_outputs(call: Call) -> None:
    records = {record["name"]: record["status"] for record in json.loads(call("status", "--json").stdout)}
    assert records["small"] == "done"
    assert "small" in call("status").stdout
    assert json.loads(call("status", "small", "--json").stdout)["stages"]["filter"]["status"] == "done"
    found = json.loads(call("show", "ingest", "--json").stdout)
    assert found["manifest"]["counts"]["quarantined"] == {"bad-json": 1}
    assert {row["uri"]: row["quarantined"] for row in found["ledger"]} == {"0.jsonl": 0, "1.jsonl": 1, "2.jsonl": 0}
    assert found["samples"]
    text = call("show", "ingest").stdout
    assert "1.jsonl" in text
    assert "quarantined: bad-json" in text
    assert "Funnel" in call("show", "small").stdout
    assert json.loads(call("show", "small", "--json").stdout)["summary"]["funnel"]
    assert call("show", "filter").returncode == 0


def test_why_explains_documents_and_quarantined_records(call: Call) -> None:
    done = call("why", "1.jsonl#4", "--json")
    (record,) = json.loads(done.stdout)["documents"]
    assert record["status"] == "quarantined"
    (document,) = json.loads(call("why", "2.jsonl#3", "--json").stdout)["documents"]
    assert "quick brown fox" in document["excerpt"]
    assert document["evidence"]["features"]
    text = call("why", document["id"]).stdout
    assert document["id"] in text
    assert "quick brown fox" in text


def test_verify_finds_a_changed_byte(finished: Path, call: Call) -> None:
    done = call("verify")
    assert done.returncode == 0, done.stdout
    assert "complete and intact" in done.stdout
    file = next((finished / "workspace/outputs/quality").rglob("*.parquet"))
    original = file.read_bytes()
    file.write_bytes(original[:-20] + b"x" + original[-19:])
    try:
        done = call("verify", "small", "--json")
        assert done.returncode == 1
        (bad,) = [result for result in json.loads(done.stdout) if result["problems"]]
        assert bad["stage"] == "quality"
        assert "has other content than its digest says" in bad["problems"][0]
    finally:
        file.write_bytes(original)


def test_gc_says_what_it_would_remove_and_keeps_what_runs_name(call: Call) -> None:
    answer = json.loads(call("gc", "--dry-run", "--json").stdout)
    assert answer["removed"] is False
    assert not answer["folders"]
    assert call("gc").returncode == 0
    assert call("verify", "small").returncode == 0


def test_a_takedown_says_what_it_touches_and_the_next_run_leaves_it_out(tmp_path: Path, gristmill: Call) -> None:
    write_run(tmp_path)
    run = ("run", "run.yaml", "--until", "select", "--no-prefect")
    assert gristmill(*run).returncode == 0
    (document,) = json.loads(gristmill("why", "2.jsonl#3", "--json").stdout)["documents"]
    told = json.loads(gristmill("takedown", "--id", document["id"], "--dry-run", "--json").stdout)
    assert told["written"] is None
    assert told["entries"] == [{"source": "texts", "uri": "2.jsonl", "record": 3, "id": document["id"]}]
    assert told["shards"] == [f"outputs/ingest/{told['shards'][0].split('/')[2]}/{document['part']}.parquet"]
    done = gristmill("takedown", "--id", document["id"], "--reason", "asked for")
    assert document["id"] in done.stdout
    planned = json.loads(gristmill("plan", "run.yaml", "--json").stdout)["stages"]
    assert planned[0]["state"] == "changed"
    assert "takedown.entries: 0 → 1" in planned[0]["why"]
    assert gristmill(*run).returncode == 0
    refused = gristmill("why", document["id"])
    assert refused.returncode == 1
    assert "takedown" in gristmill("show", "ingest").stdout


def test_verify_reads_inputs_whose_time_stamp_says_nothing(tmp_path: Path, gristmill: Call) -> None:
    write_run(tmp_path)
    run = ("run", "run.yaml", "--until", "ingest", "--no-prefect")
    assert gristmill(*run).returncode == 0
    file = tmp_path / "texts" / "0.jsonl"
    stamp = file.stat()
    file.write_text(file.read_text().replace("lazy", "busy"))
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert "Nothing to do" in gristmill(*run).stderr
    assert json.loads(gristmill("plan", "run.yaml", "--verify", "--json").stdout)["stages"][0]["state"] == "changed"
    assert gristmill(*run, "--verify").returncode == 0
    (document,) = json.loads(gristmill("why", "0.jsonl#0", "--json").stdout)["documents"]
    assert "busy dog" in document["excerpt"]


def test_the_workspace_comes_from_the_environment_too(finished: Path, call: Call, tmp_path: Path) -> None:
    done = call("status", "small", "--json", GRISTMILL_WORKSPACE=str(finished / "workspace"))
    assert json.loads(done.stdout)["name"] == "small"
    planned = json.loads(call("plan", "run.yaml", "--json", GRISTMILL_WORKSPACE=str(tmp_path)).stdout)
    assert planned["workspace"] == str(tmp_path)
    assert planned["stages"][0]["state"] == "run"


def test_no_server_is_started_to_say_that_there_is_none(finished: Path, call: Call) -> None:
    assert json.loads(call("server", "status", "--json").stdout)["running"] is False
    assert json.loads(call("server", "stop", "--json").stdout) == {"stopped": False}
    assert not (finished / "workspace/.prefect").exists()


def test_a_gate_stops_with_code_3_and_says_so_again(call: Call) -> None:
    change = ["--set", "filter.expect.kept_share={min: 0.999}", "--set", "filter.contamination_overlap=0.95"]
    for _ in range(2):
        done = call("run", "run.yaml", "--name", "gated", "--no-prefect", "--until", "filter", *change)
        assert done.returncode == 3, done.stderr
        assert "stopped by a gate: filter" in done.stderr
    assert json.loads(call("status", "gated", "--json").stdout)["status"] == "stopped"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_its_children_and_its_record(tmp_path: Path, number: signal.Signals) -> None:
    file = write_run(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, "run", str(file), "--no-prefect", "--until", "select"],
        env=clean_environment(),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        me = psutil.Process(process.pid)
        deadline = time.monotonic() + 60
        while not me.children() or not (tmp_path / "workspace/runs/small.json").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        children = me.children(recursive=True)
        os.kill(process.pid, number)
        _, said = process.communicate(timeout=40)
    assert process.returncode == 130, said
    assert "interrupted" in said
    assert "Traceback" not in said
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    record = json.loads((tmp_path / "workspace/runs/small.json").read_text())
    assert record["status"] == record["attempts"][-1]["status"] == "interrupted"


def test_what_if_answers_from_what_is_stored_without_prefect_or_torch(call: Call, finished: Path) -> None:
    changes = ("gopher-top-4-gram=off", "gopher-too-few-words=400")
    done = call("what-if", *changes, "--run", "small", "--samples", "1")
    assert done.returncode == 0, done.stderr
    assert "gopher-too-few-words: non_symbol_words < 50 → non_symbol_words < 400" in done.stdout
    assert "gopher-top-4-gram: top_4_gram_character_share > 0.16 → off" in done.stdout
    assert "--set filter.rules.gopher-too-few-words.threshold=400" in done.stdout
    done = call("what-if", "gopher-top-4-gram=off", "--set", "filter.presets=[gopher]", "--run", "small")
    assert done.returncode == 2
    assert "belongs to a preset that is not in filter.presets (gopher-repetition, fineweb)" in done.stderr
    done = call("what-if", "--set", "filter.presets=[gopher]", "--run", "small", "--samples", "1")
    assert "would come in (1 of 29)" in done.stdout
    assert "dropped where top_4_gram_character_share > 0.16" in done.stdout
    assert "»" in done.stdout
    answer = json.loads(call("what-if", "--preset", "code", "--run", "small", "--json").stdout)
    assert answer["set"] == ["filter.presets=[gopher, gopher-repetition, code]"]
    assert answer["kept"][0] == answer["read"] - sum(row["first"][0] for row in answer["rules"])
    assert answer["later"] is None
    heavy = "[m for m in ('prefect', 'torch') if m in sys.modules]"
    script = f"import sys, atexit\natexit.register(lambda: print({heavy}, file=sys.stderr))\n{MAIN}"
    arguments = ["what-if", "gopher-hashes=0.2", "--run", "small"]
    light = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=clean_environment(), cwd=finished, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert light.returncode == 0
    assert light.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["what-if"], 2, "give RULE=VALUE, RULE=off, --preset or --set filter"),
        (["what-if", "gopher-hashes"], 2, "write RULE=VALUE, RULE=on or RULE=off"),
        (["what-if", "gopher-hash=1"], 2, "there is no rule of this name; did you mean 'gopher-hashes'?"),
        (["what-if", "gopher-hashes=many"], 2, "'many', but hash_ratio is a number"),
        (["what-if", "--preset", "gofer"], 2, "there is no preset 'gofer'; did you mean 'gopher'?"),
        (["what-if", "--preset", "datatrove"], 2, "quality.features.datatrove_words"),
        (["what-if", "--set", "select.seed=3"], 2, "what-if changes filter.… only"),
        (["what-if", "filter.rules=3"], 2, "filter.rules is no name of a rule"),
        (["samples"], 2, "give either --kept or --dropped-by RULE"),
        (["samples", "--kept", "--dropped-by", "x"], 2, "give either --kept or --dropped-by RULE"),
        (["samples", "--dropped-by", "gopher-hash"], 2, "there is no rule or reason 'gopher-hash'"),
        (["samples", "--dropped-by", "gopher-top-4-gram", "--source", "text"], 1, "'text'; there are: texts"),
        (["samples", "--kept"], 1, "no document was kept\n  documents by reason: gopher-top-4-gram 29"),
    ],
)
def test_questions_that_cannot_be_answered_say_why(call: Call, arguments: list[str], code: int, message: str) -> None:
    done = call(*arguments, "--run", "small")
    assert done.returncode == code
    assert message in done.stderr


def test_samples_print_documents_and_their_places(call: Call) -> None:
    query = ("samples", "--dropped-by", "gopher-top-4-gram", "-n", "2", "--run", "small")
    done = call(*query)
    assert done.returncode == 0
    assert done.stdout.count(" texts ") == 2
    assert "gopher-top-4-gram 2 of 2" in done.stdout
    assert done.stdout.count("»") == done.stdout.count("«") > 2
    found = json.loads(call(*query, "--json").stdout)
    assert [one["source"] for one in found] == ["texts", "texts"]
