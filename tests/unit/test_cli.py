"""The command line: exit codes, JSON, and one sentence for whatever is wrong."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import typer
from numpy.typing import NDArray
from rich.console import Console
from typer.testing import CliRunner, Result

from resonator.cli import bundles, connect, verbs
from resonator.cli.exits import ExitCode, code_of, outcome
from resonator.cli.live import show
from resonator.cli.main import main, make_app
from resonator.cli.output import print_json
from resonator.cli.pictures import device_picture, devices_table
from resonator.errors import BusUnreachable, InputInvalid, MessageInvalid, Refused, ResonatorError
from resonator.failures import Failure, FailureKind
from resonator.jobspec import TuningJob
from resonator.messages import (
    Activity,
    BlobRef,
    Cost,
    DeviceReport,
    Drain,
    Identity,
    JobState,
    JobStatus,
    Latency,
    Offer,
    TaskStatus,
)

IDENTITY = Identity(
    architecture="aarch64",
    cpu_model="Cortex-A78AE",
    cores=6,
    cores_used=(5,),
    memory=8 * 2**30,
    tvm_version="0.27",
    agent_version="0.1.0",
    labels={"model": "el300"},
    offers=(Offer(kind="cpu", target='{"kind": "llvm"}', tag="nvidia/jetson-orin-nano"),),
)
DEVICE = DeviceReport(
    device="local/box", state="running", identity=IDENTITY, doing="measuring t3/c17", measured=9
)


def status(state: JobState = JobState.RUNNING, **fields: object) -> JobStatus:
    defaults = {
        "job": "net-1",
        "name": "net",
        "state": state,
        "phase": "tuning",
        "budget": 64,
        "trials": 16,
        "estimate": 0.0042,
        "tasks": (TaskStatus(task="net-1/t0", name="conv2d", weight=2, trials=16, best=0.002),),
        "activities": (Activity(resource="compute 0", doing="build conv2d (t0)"),),
    }
    return JobStatus.model_validate({**defaults, **fields})


ENDED = status(
    JobState.SUCCEEDED,
    trials=64,
    untuned=Latency(median=0.02, low=0.019, high=0.021, device="local/box"),
    tuned=Latency(median=0.004, low=0.0039, high=0.0041, device="local/box", error=1e-6),
    bundle=BlobRef(digest="a" * 64, size=2**20),
)


class FakeClient:
    """Stands for the SDK: says what it is told to, and remembers what was asked of it."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.story: list[JobStatus] = [status(), ENDED]
        self.interrupted = False
        self.submitted: tuple[TuningJob, Path] | None = None
        self.fetched: tuple[str, Path] | None = None
        self.benched: tuple[Path, str | None] | None = None
        self.drained: Drain | None = None

    async def __aenter__(self) -> FakeClient:
        if self.error is not None:
            raise self.error
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def submit(self, job: TuningJob, model: Path) -> str:
        self.submitted = (job, model)
        return "net-1"

    async def bench(self, bundle: Path, device: str | None = None) -> str:
        self.benched = (bundle, device)
        return "net-1"

    async def jobs(self) -> tuple[JobStatus, ...]:
        return tuple(self.story)

    async def job(self, job: str) -> JobStatus:
        return self.story[-1]

    async def follow(self, job: str) -> AsyncIterator[JobStatus]:
        for one in self.story:
            yield one
        if self.interrupted:
            signal.raise_signal(signal.SIGINT)
            await asyncio.Event().wait()

    async def cancel(self, job: str) -> JobStatus:
        return status(JobState.CANCELED)

    async def fetch(self, job: str, path: Path) -> JobStatus:
        self.fetched = (job, path)
        return self.story[-1]

    async def devices(self) -> tuple[DeviceReport, ...]:
        return (DEVICE,)

    async def device(self, name: str) -> DeviceReport:
        return DEVICE

    async def drain(self, name: str, reason: str) -> DeviceReport:
        self.drained = Drain(by="lab/client/olga", role="operator", reason=reason)
        return DEVICE.model_copy(update={"drained": self.drained})

    async def undrain(self, name: str) -> DeviceReport:
        self.drained = None
        return DEVICE


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    fake = FakeClient()
    monkeypatch.setattr(connect, "open_client", lambda broker, site, identity: fake)
    return fake


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"onnx")
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(make_app(), [str(argument) for argument in arguments])


def lines(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


# --- exit codes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputInvalid("a"), 2),
        (BusUnreachable("b"), 3),
        (Refused("c"), 4),
        (MessageInvalid("d"), 1),
        (ResonatorError("e"), 1),
    ],
)
def test_each_error_is_a_sentence_on_stderr_and_a_code(
    client: FakeClient, error: ResonatorError, code: int
) -> None:
    client.error = error

    result = run("jobs")

    assert (result.exit_code, result.stdout, result.stderr) == (code, "", f"resonator: {error}\n")
    assert code_of(error) == code


def test_each_end_of_a_job_has_a_code() -> None:
    ends = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED)

    assert [outcome(state) for state in ends] == [0, 5, 6]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["jobs", "--nonsense"], "No such option"),
        (["job"], "Missing argument"),
        (["frobnicate"], "No such command"),
        (["fetch", "net-1"], "Missing option"),
        (["submit", "x.onnx", "--trials", "many"], "--trials"),
    ],
)
def test_bad_usage_is_explained(client: FakeClient, arguments: list[str], sentence: str) -> None:
    result = run(*arguments)

    assert result.exit_code == ExitCode.BAD_INPUT
    assert sentence in result.stderr


def test_an_unexpected_error_keeps_its_traceback(client: FakeClient) -> None:
    client.error = ZeroDivisionError()

    result = run("jobs")

    assert result.exit_code == ExitCode.UNEXPECTED
    assert isinstance(result.exception, ZeroDivisionError)


def test_without_a_verb_the_help_is_shown() -> None:
    result = run("--help")

    assert result.exit_code == 0
    for verb in (
        "submit",
        "jobs",
        "watch",
        "cancel",
        "fetch",
        "devices",
        "run",
        "bench",
        "hub",
        "agent",
        "demo",
    ):
        assert verb in result.stdout
    assert "130 interrupted" in result.stdout


def test_the_version_is_printed() -> None:
    assert run("--version").stdout.startswith("resonator 0.")


# --- submit -----------------------------------------------------------------------------------------------


def test_a_model_is_submitted_for_any_cpu_unless_told_otherwise(client: FakeClient, model: Path) -> None:
    result = run("submit", model)

    assert client.submitted is not None
    job, path = client.submitted
    assert (result.exit_code, result.stdout) == (0, "net-1\n")
    assert (path, job.metadata.name, str(job.spec.target)) == (model, "net", "kind cpu")
    assert "resonator watch net-1" in result.stderr


def test_every_flag_finds_its_field(client: FakeClient, model: Path) -> None:
    flags = "--label model=el300 --label zone=b --label note=a=b --tag a/b --device d --trials 9 --time 2h"
    more = "--priority 7 --shape data=1,3,8,8 --shape a=b=2 --objective-ms 4.5 --name other --json"

    result = run("submit", model, *flags.split(), *more.split())

    assert client.submitted is not None
    job = client.submitted[0]
    assert str(job.spec.target) == "tag a/b, device d, label model=el300, label note=a=b, label zone=b"
    assert job.spec.model.shapes == {"data": (1, 3, 8, 8), "a=b": (2,)}
    assert (job.spec.budget.trials, job.spec.budget.time, job.spec.priority) == (9, 7200, 7)
    assert job.spec.objective is not None
    assert (job.spec.objective.latency_ms, job.metadata.name) == (4.5, "other")
    assert lines(result) == [{"job": "net-1"}]


def test_a_job_file_is_submitted_and_flags_win_over_it(client: FakeClient, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        "metadata: {name: net}\n"
        "spec: {model: {onnx: models/net.onnx}, target: {labels: {a: b}}, budget: {trials: 5, time: 1h}}"
    )

    run("submit", file, "--trials", 7)

    assert client.submitted is not None
    job, path = client.submitted
    assert path == tmp_path / "models/net.onnx"
    assert (job.spec.budget.trials, job.spec.budget.time, str(job.spec.target)) == (7, 3600, "label a=b")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--trials", "0"], "spec.budget.trials: input should be greater than 0, not 0"),
        (["--trials", "-1"], "spec.budget.trials: input should be greater than 0, not -1"),
        (["--time", "soon"], "spec.budget.time: a time is a number of seconds"),
        (["--kind", "tpu"], "spec.target.kind: input should be 'cpu' or 'cuda', not 'tpu'"),
        (["--label", "el300"], "--label 'el300' is not of the form K=V"),
        (["--label", "=el300"], "--label '=el300' is not of the form K=V"),
        (
            ["--label", "a b=c"],
            "spec.target.labels.a b: a label's key is made of letters, digits, '.', '_', '/' and '-'",
        ),
        (["--shape", "1,3"], "--shape '1,3' is not of the form NAME=1,3"),
        (["--shape", "x=1,a"], "--shape x=1,a: '1,a' is not a list of whole numbers"),
        (["--shape", "x=0"], "spec.model.shapes.x.0: input should be greater than 0, not 0"),
        (["--priority", "10"], "spec.priority: input should be less than or equal to 9, not 10"),
        (["--objective-ms", "0"], "spec.objective.latency_ms: input should be greater than 0, not 0"),
        (["--name", "a b"], "metadata.name: a name is made of letters, digits, '.', '_' and '-'"),
    ],
)
def test_a_bad_flag_is_answered_with_one_sentence(
    client: FakeClient, model: Path, flags: list[str], sentence: str
) -> None:
    result = run("submit", model, *flags)

    assert result.exit_code == ExitCode.BAD_INPUT
    assert result.stderr.startswith(f"resonator: {sentence}")
    assert result.stderr.count("\n") == 1
    assert client.submitted is None


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("model.pt", "", "is neither a model nor a job description: .onnx, .yaml, .yml, .json are accepted"),
        ("absent.yaml", None, "cannot be read: No such file or directory"),
        ("job.yaml", "[", "the job description is not YAML"),
        ("job.json", "{}", "metadata: field required"),
    ],
)
def test_a_bad_file_is_answered_with_one_sentence(
    client: FakeClient, tmp_path: Path, name: str, content: str | None, sentence: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content or "x")

    result = run("submit", tmp_path / name)

    assert result.exit_code == ExitCode.BAD_INPUT
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_bundle_is_fetched_after_waiting(client: FakeClient, model: Path, tmp_path: Path) -> None:
    result = run("submit", model, "-o", tmp_path / "b.tar")

    assert result.exit_code == 0
    assert client.fetched == ("net-1", tmp_path / "b.tar")
    assert "64/64 trials" in result.stdout


def test_a_place_that_no_bundle_fits_in_is_refused_before_the_job_begins(
    client: FakeClient, model: Path, tmp_path: Path
) -> None:
    result = run("submit", model, "-o", tmp_path)

    assert result.exit_code == ExitCode.BAD_INPUT
    assert "is a folder; name a file" in result.stderr
    assert result.stdout == ""


def test_a_job_that_fails_has_no_bundle_and_a_code(client: FakeClient, model: Path, tmp_path: Path) -> None:
    failure = Failure(kind=FailureKind.WRONG_OUTPUT, detail="off by 2")
    client.story = [status(JobState.FAILED, failure=failure)]

    result = run("submit", model, "--wait", "-o", tmp_path / "b.tar")

    assert result.exit_code == ExitCode.JOB_FAILED
    assert "WRONG_OUTPUT: off by 2" in result.stdout
    assert client.fetched is None


# --- jobs -------------------------------------------------------------------------------------------------


def test_jobs_are_listed(client: FakeClient) -> None:
    assert "net-1" in run("jobs").stdout
    assert [one["state"] for one in json.loads(run("jobs", "--json").stdout)] == ["running", "succeeded"]


def test_without_jobs_the_list_says_how_to_make_one(client: FakeClient) -> None:
    client.story = []

    assert "resonator submit" in run("jobs").stdout


def test_a_job_is_shown(client: FakeClient) -> None:
    shown = run("job", "net").stdout

    for part in (
        "net-1",
        "succeeded",
        "64/64 trials",
        "20 ms",
        "4 ms",
        "5.00 x",
        "conv2d",
        "compute 0",
        "1 MiB",
    ):
        assert part in shown
    assert json.loads(run("job", "net", "--json").stdout)["tuned"]["median"] == 0.004


def test_what_a_job_cost_is_shown_by_outcome_and_by_task(client: FakeClient) -> None:
    costs = (
        Cost(outcome="measured", trials=40, device_s=61.0, cpu_s=12.0, joules=1200.0),
        Cost(outcome="raced", trials=24, device_s=2.0, cpu_s=8.0, joules=34.0),
        Cost(outcome="search", cpu_s=30.0),
    )
    task = TaskStatus(task="net-1/t0", name="conv2d", weight=2, trials=64, costs=costs[1:])
    client.story = [ENDED.model_copy(update={"costs": costs, "tasks": (task,)})]

    rows = [" ".join(line.split()) for line in run("job", "net").stdout.splitlines()]

    assert "t0 conv2d 2 64 0 - 40 s" in rows
    assert rows[rows.index("spent on trials device processor energy") + 1 :] == [
        "measured in full 40 1 min 01 s 12 s 1.2 kJ",
        "too slow for that 24 2 s 8 s 34 J",
        "search, cost model 0 s 30 s -",
        "in all 64 1 min 03 s 50 s 1.23 kJ",
    ]
    assert json.loads(run("job", "net", "--json").stdout)["costs"][1]["joules"] == 34.0


def test_watching_prints_a_line_for_each_piece_of_news(client: FakeClient) -> None:
    client.story = [status(trials=16), status(trials=16), status(trials=17), status(trials=32), ENDED]

    result = run("watch", "net")

    assert [line.split("trials")[0].split()[-1] for line in result.stdout.splitlines()] == [
        "16/64",
        "32/64",
        "64/64",
    ]
    assert result.exit_code == 0


def test_watching_as_json_prints_an_object_a_line(client: FakeClient) -> None:
    result = run("watch", "net", "--json")

    assert [one["trials"] for one in lines(result)] == [16, 64]


async def test_on_a_terminal_a_live_picture_shows_progress_and_who_does_what(client: FakeClient) -> None:
    tasks = [TaskStatus(task=f"net-1/t{index}", name="conv2d", weight=1) for index in range(40)]
    client.story = [status(), status(tasks=tuple(tasks)), ENDED]
    screen = io.StringIO()

    last = await show(
        client, "net-1", json=False, console=Console(file=screen, force_terminal=True, height=30)
    )

    assert last == ENDED
    for part in (
        "16/64 trials",
        "compute 0",
        "build conv2d (t0)",
        "and 25 more tasks",
        "64/64 trials",
        "5.00 x",
    ):
        assert part in screen.getvalue()


def test_an_infinite_error_is_null_in_json(client: FakeClient) -> None:
    tuned = Latency(median=0.1, low=0.1, high=0.1, device="d", error=float("inf"))
    client.story = [status(JobState.CANCELED, tuned=tuned)]

    result = run("watch", "net", "--json")

    assert '"error":null' in result.stdout
    assert result.exit_code == ExitCode.CANCELED


def test_interrupted_watching_leaves_the_job_and_says_so(client: FakeClient) -> None:
    client.interrupted = True
    client.story = [status()]

    result = run("watch", "net")

    assert result.exit_code == ExitCode.INTERRUPTED
    assert "`resonator watch net-1` follows it, `resonator cancel net-1` ends it" in result.stderr


def test_a_job_is_canceled(client: FakeClient) -> None:
    assert "canceled" in run("cancel", "net").stdout
    assert json.loads(run("cancel", "net", "--json").stdout)["state"] == "canceled"


def test_a_bundle_is_fetched(client: FakeClient, tmp_path: Path) -> None:
    result = run("fetch", "net", "-o", tmp_path / "b.tar", "--json")

    assert client.fetched == ("net", tmp_path / "b.tar")
    assert lines(result) == [{"job": "net-1", "bundle": str(tmp_path / "b.tar")}]


# --- devices and bundles ----------------------------------------------------------------------------------


def test_devices_are_listed_and_shown(client: FakeClient) -> None:
    assert "local/box" in run("devices").stdout
    assert json.loads(run("devices", "--json").stdout)[0]["device"] == "local/box"
    for part in ("Cortex-A78AE", "model=el300", "8 GiB", "nvidia/jetson-orin-nano", "measuring t3/c17"):
        assert part in run("device", "box").stdout
    assert json.loads(run("device", "box", "--json").stdout)["measured"] == 9


def test_a_device_is_drained_with_a_reason_and_undrained(client: FakeClient) -> None:
    said = run("drain", "box", "--reason", "it is moved").stderr
    assert said == "resonator: local/box gets no more work until `resonator undrain local/box`\n"
    assert client.drained is not None
    assert client.drained.reason == "it is moved"
    assert run("undrain", "box").stderr == "resonator: local/box may have work again\n"
    assert client.drained is None
    shown = json.loads(run("drain", "box", "--json").stdout)
    assert shown["drained"] == {"by": "lab/client/olga", "role": "operator", "reason": ""}


@pytest.mark.parametrize(
    ("role", "words"), [("operator", "drained by olga: why"), ("", "drained by olga (not signed): why")]
)
def test_a_drained_device_is_shown_with_who_and_why(role: str, words: str) -> None:
    report = DEVICE.model_copy(update={"doing": "", "drained": Drain(by="olga", role=role, reason="why")})
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(devices_table([report]))
    console.print(device_picture(report))
    assert console.export_text().count(words) == 2


def test_a_bundle_is_benched(client: FakeClient, tmp_path: Path) -> None:
    result = run("bench", tmp_path / "b.tar", "--device", "box")

    assert client.benched == (tmp_path / "b.tar", "box")
    assert result.stdout.splitlines()[-1] == "4 ms (3.9 ms to 4.1 ms) on local/box"


def npy(array: NDArray[np.float64]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    ("bundle", "arrays", "sentence"),
    [
        (None, {"x": 1}, "b.tar' cannot be read"),
        (b"rubbish", {"x": 1}, "is not a tar file"),
        (b"rubbish", None, "in.npz cannot be read: No such file"),
        (b"rubbish", b"", "in.npz is not a file of numpy.savez"),
        (b"rubbish", b"rubbish", "in.npz is not a file of numpy.savez"),
        (b"rubbish", npy(np.zeros(3)), "in.npz is not a file of numpy.savez"),
        (b"rubbish", b"PK\x03\x04rubbish", "in.npz is not a file of numpy.savez"),
    ],
)
def test_a_bad_bundle_or_input_is_answered_with_one_sentence(
    tmp_path: Path, bundle: bytes | None, arrays: bytes | dict[str, int] | None, sentence: str
) -> None:
    if bundle is not None:
        (tmp_path / "b.tar").write_bytes(bundle)
    if isinstance(arrays, bytes):
        (tmp_path / "in.npz").write_bytes(arrays)
    elif arrays is not None:
        np.savez(tmp_path / "in.npz", x=arrays["x"])

    result = run("run", tmp_path / "b.tar", "--input", tmp_path / "in.npz", "--output", tmp_path / "out.npz")

    assert result.exit_code == ExitCode.BAD_INPUT
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out.npz").exists()


def test_without_the_runtime_run_says_what_to_install(
    client: FakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "find_spec", lambda module: None)

    result = run("run", tmp_path / "b.tar", "--input", tmp_path / "in.npz", "--output", tmp_path / "out.npz")

    assert result.exit_code == ExitCode.BAD_INPUT
    assert "needs resonator[agent] (numpy, tvm not installed)" in result.stderr


# --- verbs of other packages ------------------------------------------------------------------------------


def sub_verb(number: int = typer.Option(1), fail: bool = False) -> None:
    if fail:
        raise Refused("not today")
    print(f"number {number}")
    raise typer.Exit(number)


def given_verb(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    entry = EntryPoint("extra", value, verbs.GROUP)
    monkeypatch.setattr(verbs, "entry_points", lambda group: [entry])


def test_a_verb_of_another_package_gets_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    given_verb(monkeypatch, f"{__name__}:sub_verb")
    monkeypatch.setattr(EntryPoint, "load", lambda entry: sub_verb)

    result = run("extra", "--number", 7)

    assert (result.exit_code, result.stdout) == (7, "number 7\n")
    assert "--number" in run("extra", "--help").stdout
    assert run("extra", "--nonsense").exit_code == ExitCode.BAD_INPUT
    assert (run("extra", "--fail").exit_code, run("extra", "--fail").stderr) == (4, "resonator: not today\n")


def test_a_verb_whose_extra_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    given_verb(monkeypatch, "resonator_hub.cli:hub")

    def load(entry: EntryPoint) -> object:
        raise ModuleNotFoundError("No module named 'sqlalchemy'", name="sqlalchemy")

    monkeypatch.setattr(EntryPoint, "load", load)

    result = run("extra")

    assert result.exit_code == ExitCode.BAD_INPUT
    assert "needs resonator[hub]: pip install 'resonator[hub]'" in result.stderr


def test_help_and_jobs_import_neither_tvm_nor_a_database() -> None:
    program = (
        "import sys\n"
        "from resonator.cli.main import make_app\n"
        "try:\n    make_app()(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'tvm', 'numpy', 'sqlalchemy', 'xgboost', 'onnx', 'resonator_hub', 'resonator_agent'}\n"
        "print('heavy:', *(heavy & set(sys.modules)))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.stdout.splitlines()[-1], done.stderr) == ("heavy:", "")


def test_a_terminal_without_a_sign_is_given_another(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "argv", ["resonator", "--version"])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit):
            main()
        print("56.7 µs", flush=True)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert terminal.buffer.getvalue().endswith(b"56.7 ?s\n")  # type: ignore[attr-defined]


def test_json_is_ascii_whatever_the_terminal_knows(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"unit": "µs", "worst": float("inf")})

    assert capsys.readouterr().out == '{"unit":"\\u00b5s","worst":null}\n'
