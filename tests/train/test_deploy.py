import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from urllib.parse import quote

import pytest
import yaml
from browser import ROOT, running_app
from commands import run_train
from forked_programs import run_program
from gradio_client import Client
from hub_server import HubServer, RefusedError, Response
from huggingface_hub import SpaceCard, close_session
from models import make_config, make_lm
from zero_gpu_server import QUEUED, ZeroGpuServer, quota

from charlm.errors import HubError, HubUnavailableError, ModelFileError, RequestError
from charlm.hub import Description, download_hosts, folder_address
from charlm.model.card import model_card
from charlm.model.history import join_runs
from charlm.model.published_card import Publication, published_card
from train.deploy import deploy, space_files

FILES = {"config.json": 1, "history.json": 2, "model.safetensors": 3}


@pytest.fixture(scope="module")
def model_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    make_lm("gru").save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def ada(hub, hub_environment, model_files):
    """A user with two models, logged in."""
    hub.add_user("ada", token="hf_ada")
    hub_environment(HF_TOKEN="hf_ada")
    for name in ("one", "two"):
        hub.add_repo(f"ada/{name}", model_files)
    return hub


def described(repo_id, requested=None, token=None, files=FILES):
    return Description(repo_id, requested, "a" * 40, files, True, {}, "mit", token)


def card_of(space):
    return yaml.safe_load(space.files["README.md"].decode().split("---\n")[1])


def test_a_space_gets_the_page_and_the_models_that_it_shows(ada):
    address = deploy("ada/page", ["ada/one", "ada/two"])
    space = ada.repos["spaces/ada/page"]
    assert address == f"{ada.url}/spaces/ada/page/commit/{space.commits[-1].id}"
    assert space.sdk == "gradio"
    assert space.variables == {"CHARLM_MODELS": "ada/one,ada/two"}
    needed = [
        "charlm/lm.py",
        "charlm/py.typed",
        "charlm/inference/kernels.c",
        "charlm/web/static/page.js",
        "charlm/web/static/scene.txt",
    ]
    for name in ("app.py", *needed, "train/__main__.py"):  # the page trains, too
        assert space.files[name] == (ROOT / name).read_bytes()
    unneeded = [name for name in space.files if name.startswith(("tests/", "docs/", "benchmarks/", ".ci"))]
    assert unneeded == []


@pytest.mark.parametrize("hardware", ["cpu-basic", "zero-a10g", "t4-small"])
def test_the_card_of_a_space_names_its_models_and_what_it_was_tested_with(hardware):
    card = space_files("ada/page", [described("ada/one")], hardware)["README.md"].decode()
    metadata, text = card.removeprefix("---\n").split("\n---\n", 1)
    ours = yaml.safe_load((ROOT / "README.md").read_text(encoding="utf-8").split("---\n", 2)[1])
    known = yaml.safe_load(metadata)
    assert known["title"] == "page" and known["models"] == ["ada/one"]
    for name in ("sdk", "sdk_version", "python_version", "app_file", "colorFrom", "colorTo", "short_description"):
        assert known[name] == ours[name]
    assert known["python_version"] == "3.12"  # which ZeroGPU has
    assert len(known["short_description"]) <= 60 and known["license"] == "mit" and "mcp-server" in known["tags"]
    assert known["suggested_hardware"] == hardware
    assert "[ada/one](https://huggingface.co/ada/one)" in text
    assert SpaceCard(card).data.to_dict() == known  # as the Hub's own library reads it


def test_a_space_is_built_with_the_files_that_its_models_need():
    models = [
        described("ada/one"),
        described("ada/two", "v2", files={"config.json": 1, "model.safetensors": 3}),
        described("ada/private", token=True),  # which the build cannot read
    ]
    card = yaml.safe_load(space_files("ada/page", models, "cpu-basic")["README.md"].decode().split("---\n")[1])
    assert card["preload_from_hub"] == [
        "ada/one config.json,history.json,model.safetensors",
        "ada/two config.json,model.safetensors v2",
    ]
    assert card["models"] == ["ada/one", "ada/two", "ada/private"]


@pytest.mark.parametrize(
    ("hardware", "torch", "others"),
    [
        ("zero-a10g", "torch==2.11.0", {"spaces>=0.51"}),  # https://huggingface.co/docs/hub/spaces-zerogpu
        ("cpu-upgrade", "torch==2.13.0", {"--extra-index-url https://download.pytorch.org/whl/cpu"}),
        ("t4-small", "torch==2.13.0", set()),
    ],
)
def test_each_hardware_gets_its_build_of_torch(hardware, torch, others):
    def lines(text):
        return {line.split("#")[0].strip() for line in text.splitlines()} - {""}

    ours = lines((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    needed = lines(space_files("ada/page", [described("ada/one")], hardware)["requirements.txt"].decode())
    assert needed == {line for line in ours if not line.startswith("torch==")} | {torch} | others


def test_a_model_may_be_pinned_to_a_revision(ada):
    commit = ada.repos["ada/one"].commits[-1].id
    deploy("ada/page", [f"hf://ada/one@{commit}", "https://huggingface.co/ada/two"])
    space = ada.repos["spaces/ada/page"]
    assert space.variables == {"CHARLM_MODELS": f"ada/one@{commit},ada/two"}
    assert card_of(space)["models"] == ["ada/one", "ada/two"]


def test_deploying_again_changes_the_models_and_leaves_what_others_put_there(ada):
    deploy("ada/page", ["ada/one"])
    space = ada.repos["spaces/ada/page"]
    space.commit({"notes.txt": b"mine", "charlm/gone.py": b"of an earlier version"})
    deploy("ada/page", ["ada/two"])
    assert space.variables == {"CHARLM_MODELS": "ada/two"}
    assert space.files["notes.txt"] == b"mine"
    assert "charlm/gone.py" not in space.files
    commits = len(space.commits)
    deploy("ada/page", ["ada/two"])
    assert len(space.commits) == commits  # nothing has changed


@pytest.mark.parametrize(
    ("account", "space", "hardware"),
    [
        ({}, "ada/page", "zero-a10g"),
        ({"plan": "pro"}, "ada/page", "cpu-basic"),
        ({"groups": ("lab",), "group_plans": {"lab": "team"}}, "lab/page", "cpu-basic"),
    ],
    ids=["free", "pro", "team"],
)
def test_a_new_space_gets_the_hardware_that_its_owner_has_free(ada, account, space, hardware):
    ada.add_user("ada", token="hf_ada", **account)
    deploy(space, ["ada/one"])
    made = ada.repos[f"spaces/{space}"]
    assert made.hardware == card_of(made)["suggested_hardware"] == hardware
    assert (b"spaces>=" in made.files["requirements.txt"]) == (hardware == "zero-a10g")


def test_a_space_keeps_its_hardware_unless_another_is_asked_for(ada):
    ada.add_user("ada", token="hf_ada", plan="pro")
    deploy("ada/page", ["ada/one"], hardware="zero-a10g")
    space = ada.repos["spaces/ada/page"]
    deploy("ada/page", ["ada/two"])
    assert space.hardware == "zero-a10g" and b"spaces>=" in space.files["requirements.txt"]
    assert ada.asked("POST /api/spaces/ada/page/hardware") == []
    deploy("ada/page", ["ada/two"], hardware="cpu-basic")
    assert space.hardware == "cpu-basic" and b"spaces>=" not in space.files["requirements.txt"]


def test_a_space_that_was_static_gets_hardware(ada):
    ada.add_repo("ada/page", kind="space", sdk="static")
    deploy("ada/page", ["ada/one"])
    assert ada.repos["spaces/ada/page"].hardware == "zero-a10g"


COMMAND = "python -m charlm deploy ada/page --model ada/one"
TWO = ("ada/first", "ada/second")  # the two ZeroGPU Spaces of a free account
REFUSALS = {
    "402": (
        {},
        ("ada/page", "cpu-basic"),
        "the Hub refuses ada/page the hardware cpu-basic (Static Spaces are free for everyone, but hosting Gradio and "
        "Docker Spaces on free cpu-basic requires a PRO subscription. Subscribe at https://huggingface.co/pro); "
        f"ZeroGPU is free: `{COMMAND} --hardware zero-a10g`",
    ),
    "402 for a GPU": (
        {"plan": "pro"},
        ("ada/page", "t4-small"),
        "the Hub refuses ada/page the hardware t4-small (You must add a payment method to your account to upgrade your "
        f"space's hardware); cpu-basic is free: `{COMMAND} --hardware cpu-basic`",
    ),
    "402 for an organization": (
        {"groups": ("lab",)},
        ("lab/page", None),
        "the Hub refuses lab/page the hardware cpu-basic (Static Spaces are free for everyone, but hosting Gradio and "
        "Docker Spaces on free cpu-basic requires a PRO subscription. Subscribe at https://huggingface.co/pro); under "
        f"your own name ZeroGPU is free: `{COMMAND} --hardware zero-a10g`",
    ),
    "403, two are there": (
        {},
        ("ada/page", None),
        "the Hub refuses ada/page the hardware zero-a10g (ada has reached its limit of 2 ZeroGPU Spaces); free are two "
        "ZeroGPU Spaces for an account older than 30 days: put the page on one that you have, "
        "`python -m charlm deploy ada/ITS-NAME --model ada/one`, or show it from this computer, "
        "`python -m charlm serve --model ada/one --share`",
    ),
    "403, too young": (
        {"days": 3},
        ("ada/page", None),
        "the Hub refuses ada/page the hardware zero-a10g (Your account is too recent to host ZeroGPU Spaces); free are "
        "two ZeroGPU Spaces for an account older than 30 days: put the page on one that you have, "
        "`python -m charlm deploy ada/ITS-NAME --model ada/one`, or show it from this computer, "
        "`python -m charlm serve --model ada/one --share`",
    ),
    "403, not confirmed": (
        {"confirmed": False},
        ("ada/page", None),
        "the Hub refuses ada/page the hardware zero-a10g (Confirm your email address to host ZeroGPU Spaces); two "
        "ZeroGPU Spaces are free once you have confirmed your e-mail address at "
        f"https://huggingface.co/settings/account: then run `{COMMAND} --hardware zero-a10g`",
    ),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_names_what_is_free_and_its_command(ada, refusal):
    account, (space, hardware), line = REFUSALS[refusal]
    ada.add_user("ada", token="hf_ada", **account)
    for name in TWO if "two are there" in refusal else ():
        ada.add_repo(name, kind="space", hardware="zero-a10g")
    with pytest.raises(HubError) as caught:
        deploy(space, ["ada/one"], hardware=hardware)
    assert str(caught.value) == line
    assert caught.value.exit_status == 2
    assert f"spaces/{space}" not in ada.repos


def test_the_command_of_a_refusal_works(ada, monkeypatch):
    with pytest.raises(HubError) as caught:
        deploy("ada/page", ["ada/one"], hardware="cpu-basic")
    run_train(monkeypatch, *str(caught.value).split("`")[1].split()[3:])
    assert ada.repos["spaces/ada/page"].hardware == "zero-a10g"


def test_other_hardware_refused_leaves_the_space_as_it_is(ada):
    deploy("ada/page", ["ada/one"])
    space = ada.repos["spaces/ada/page"]
    commits, variables = len(space.commits), dict(space.variables)
    with pytest.raises(HubError) as caught:
        deploy("ada/page", ["ada/two"], hardware="cpu-basic")
    assert str(caught.value).endswith(
        "; the Space keeps what it has with `python -m charlm deploy ada/page --model ada/two`"
    )
    assert (len(space.commits), space.variables, space.hardware) == (commits, variables, "zero-a10g")


def test_a_static_space_is_not_said_to_keep_hardware_that_it_does_not_have(ada):
    ada.add_repo("ada/page", kind="space", sdk="static")
    for name in TWO:
        ada.add_repo(name, kind="space", hardware="zero-a10g")
    with pytest.raises(HubError) as caught:
        deploy("ada/page", ["ada/one"])
    assert str(caught.value) == REFUSALS["403, two are there"][2]
    assert f"`{COMMAND}`" not in str(caught.value)  # which has just been refused


def test_a_name_that_something_else_has_is_refused(ada):
    ada.on("POST /api/repos/create", lambda _: RefusedError(409, "You already have a repo of that name").response)
    with pytest.raises(HubError) as caught:
        deploy("ada/page", ["ada/one"])
    assert str(caught.value) == (
        "the Hub has something else named ada/page (You already have a repo of that name); choose another name, as in "
        "`python -m charlm deploy ada/page-2 --model ada/one --hardware zero-a10g`"
    )


@pytest.mark.parametrize("step", ["POST /api/spaces/.*/variables", "POST /api/spaces/.*/commit"])
def test_the_same_command_finishes_a_space_whose_upload_failed(ada, step):
    ada.fail(step, 503)
    with pytest.raises(
        HubUnavailableError, match="503.*; the Space ada/page is not complete: run the same command again"
    ):
        deploy("ada/page", ["ada/one"])
    ada.heal()
    deploy("ada/page", ["ada/one"])
    space = ada.repos["spaces/ada/page"]
    assert (space.hardware, space.variables) == ("zero-a10g", {"CHARLM_MODELS": "ada/one"})
    assert "app.py" in space.files


@pytest.mark.slow
@pytest.mark.parametrize(
    ("space", "models", "message"),
    [
        ("page", ["ada/one"], "'page' is not the name of a Space; give it as USER/SPACE"),
        ("ada/page", ["ada/none"], "the Hub has no repository ada/none"),
        ("ada/page", ["weights/shakespeare-lstm/"], "is not the name of a repository"),
        ("ada/page", ["ada/one", "ada/other"], "ada/other has no config.json: it is not a charlm model"),
        ("eve/page", ["ada/one"], "eve/page would be eve's"),
    ],
)
def test_what_cannot_be_deployed_is_refused_before_a_space_is_made(ada, space, models, message):
    ada.add_repo("ada/other", {"pytorch_model.bin": b"x"})
    with pytest.raises(HubError, match=message):
        deploy(space, models)
    assert not any(name.startswith("spaces/") for name in ada.repos)


@pytest.mark.parametrize("name", ["models/mine", "./models/mine"])
def test_a_folder_in_the_place_of_a_repository_is_told_with_the_command_that_publishes_it(
    ada, tmp_path, monkeypatch, name
):
    (tmp_path / "models" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    said = f"^{name} is a folder here, .* of the Hub: `python -m charlm push {name} USER/NAME` publishes it"
    with pytest.raises(HubError, match=said):
        deploy("ada/page", [name])


def test_a_space_may_be_named_by_its_web_address(ada):
    deploy("https://huggingface.co/spaces/ada/page", ["ada/one"])
    assert "spaces/ada/page" in ada.repos


@pytest.mark.slow
def test_the_command_prints_where_the_space_is(ada):
    ended = run_program(["-m", "train", "deploy", "ada/page", "--model", "ada/one"], ROOT, dict(os.environ))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(f"{ada.url}/spaces/ada/page/commit/")


def put(files, folder):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.fixture(scope="module")
def space_python(tmp_path_factory):
    """The Python of an environment with what a Space on ZeroGPU asks for and nothing else, but the torch of the tests.

    Installing it takes a minute, so that it is done in CI alone, where CHARLM_FRESH_SPACE is 1. The variable may also
    be the path of a Python that has it all. Elsewhere it is this Python, which has all but the package `spaces`.
    """
    asked = os.environ.get("CHARLM_FRESH_SPACE", "")
    if asked != "1":
        return asked or sys.executable
    folder = tmp_path_factory.mktemp("space")
    ours = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    needed = space_files("ada/page", [described("ada/one")], "zero-a10g")["requirements.txt"].decode()
    torch = re.search(r"^torch==.*", ours, re.MULTILINE)[0]
    (folder / "requirements.txt").write_text(re.sub(r"^torch==.*", torch, needed, flags=re.MULTILINE), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "environment"], check=True)
    python = folder / "environment" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-compile"]  # a page needs few modules
    subprocess.run([*pip, "-r", folder / "requirements.txt"], check=True)
    return python


def uploaded(hub, folder, hardware):
    """Put what `deploy` uploads for this hardware into a folder; return the environment of the Space."""
    deploy("ada/page", ["ada/one", "ada/two"], hardware=hardware)
    space = hub.repos["spaces/ada/page"]
    put(space.files, folder)
    return {"PYTHONPATH": "", "HF_TOKEN": "", **space.variables}


@pytest.mark.slow
def test_what_was_uploaded_runs_where_there_is_nothing_else(ada, space_python, tmp_path):
    ada.add_user("ada", token="hf_ada", plan="pro")
    environment = uploaded(ada, tmp_path, "cpu-basic")
    with running_app(folder=tmp_path, python=space_python, **environment) as url:
        models = Client(url, verbose=False).predict(api_name="/models")
    assert [(model["name"], model["source"]) for model in models] == [("ada/one", "hub"), ("ada/two", "hub")]


# Starts a page on ZeroGPU that lends the CPU for want of a GPU: the fork of a call does not ask CUDA for the GPU that
# it was given. All else is done by the package `spaces`.
WITHOUT_GPU = """
import runpy, sys

sys.path.insert(0, {folder!r})
from charlm import zero_gpu

def mark(*arguments):
    import torch
    if torch.version.cuda is None:  # a torch for the CPU, which lacks what spaces looks for
        torch.version.cuda, torch._C._cuda_init, torch.cuda._is_in_bad_fork = "13.0", None, bool
    import spaces.zero.torch
    spaces.zero.torch.init = spaces.zero.torch.move = lambda *_, **__: None
    from charlm.web.answers import train
    train.GPU_STEP_SECONDS = 0.2  # a CPU is slower
    return marked(*arguments)

marked, zero_gpu.mark = zero_gpu.mark, mark
runpy.run_path({folder!r} + "/app.py", run_name="__main__")
"""
VISITOR = {"x-ip-token": "e30.e30.e30"}  # the header in which the Hub tells `spaces` who visits: a token of three {}


@pytest.fixture
def borrowing(ada, space_python, tmp_path):
    """The address of an uploaded page on ZeroGPU, and the stand-in for ZeroGPU."""
    if subprocess.run([space_python, "-c", "import spaces"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("there is no package spaces (CHARLM_FRESH_SPACE=1 installs it)")
    environment = uploaded(ada, tmp_path / "space", "zero-a10g")
    put({"app.py": WITHOUT_GPU.format(folder=str(tmp_path / "space")).encode()}, tmp_path / "start")
    said = []
    with ZeroGpuServer() as zero_gpu:
        environment |= zero_gpu.environment
        with running_app(folder=tmp_path / "start", python=space_python, said=said, **environment) as url:
            yield url, zero_gpu
    assert not [line for line in said if "Traceback" in line], "".join(said)


@pytest.mark.slow
def test_on_zero_gpu_the_uploaded_page_borrows_a_gpu_to_train(borrowing, visit):
    url, zero_gpu = borrowing
    assert zero_gpu.asked("/startup-report") == [{}]
    visitor = visit(f"{url}/?view=inside")
    visitor.page.set_extra_http_headers(VISITOR)
    visitor.page.locator("#seen-a .heat-text .traced").first.wait_for()  # without autograd, which would count the GPUs
    visitor.choose_view("Train")
    assert "up to 30 s of GPU time" in visitor.text("train-size")
    visitor.fill("train-text", "the cat sat on the mat, and the dog ran to the man.\n" * 100)

    # 1) the visitor's quota is spent: the page says so and offers the CPU
    zero_gpu.answers.append(quota(left=3, wait=3600))
    visitor.page.locator("#train-go").click()
    visitor.wait_for_words("train-status", "ZeroGPU quota exceeded: You have exceeded your ZeroGPU quota")
    assert "Try again in 1:00:00" in visitor.text("train-status")
    visitor.page.locator("#train-on-cpu").click()
    visitor.wait_for_words("train-status", "training: ")
    visitor.page.locator("#train-on-cpu").wait_for(state="hidden")
    visitor.page.locator("#train-stop").click()
    visitor.wait_for_words("train-status", "stopped")
    assert len(zero_gpu.asked("/schedule")) == 1 and zero_gpu.asked("/allow") == []

    # 2) it waits for a GPU, is given one for as long as the size needs, and gives it back
    zero_gpu.answers.append(QUEUED)
    visitor.page.locator("#train-go").click()
    ended = "/^(done|the \\d+ s of GPU time are over): the model is/"  # the latter on a busy machine
    visitor.wait_until(f"{ended}.test(document.getElementById('train-status').innerText)")
    _, asked = zero_gpu.asked("/schedule")
    assert int(asked["durationSeconds"]) <= 30 and asked["token"] == VISITOR["x-ip-token"]
    (allowed,), (released,) = zero_gpu.asked("/allow"), zero_gpu.asked("/release")
    assert allowed["allowToken"] == released["allowToken"] == "allowed" and released["fail"] == "false"
    visitor.choose_view("Write")
    visitor.wait_for_words("about-a", "trained on this page")
    visitor.generate(40)


@pytest.mark.slow
def test_the_command_in_a_models_card_installs_charlm_from_the_space(ada, tmp_path):
    deploy("ada/page", ["ada/one"])
    put(ada.repos["spaces/ada/page"].files, tmp_path / "space")
    git = ["git", "-c", "user.name=ada", "-c", "user.email=ada@example.org"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "Deploy the page"]):
        subprocess.run([*git, *command], cwd=tmp_path / "space", check=True)
    card = published_card(model_card(make_config(), None), "ada/one", Publication(space="ada/page", installs=True))
    (_, *arguments), *_ = [shlex.split(line) for line in card.splitlines() if line.startswith("    pip install")]
    here = f"git+file://{tmp_path / 'space'}"
    arguments = [each.replace("git+https://huggingface.co/spaces/ada/page", here) for each in arguments]
    # without what is here already, as no network is needed so
    offline = ["--quiet", "--no-deps", "--no-build-isolation", "--no-compile", "--target", str(tmp_path / "installed")]
    subprocess.run([sys.executable, "-m", "pip", *arguments, *offline], cwd=tmp_path, check=True)
    code = "import charlm; charlm.CharLM; print(charlm.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    found = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, text=True, env=environment)
    assert found.startswith(str(tmp_path / "installed"))


@pytest.mark.slow
def test_without_a_hub_the_uploaded_page_shows_what_came_with_it(tmp_path):
    put(space_files("ada/page", [described("ada/one")], "cpu-basic"), tmp_path)
    with running_app(folder=tmp_path, PYTHONPATH="", HF_ENDPOINT="http://127.0.0.1:9", CHARLM_MODELS="ada/one") as url:
        models = Client(url, verbose=False).predict(api_name="/models")
    assert [(model["name"], model["source"]) for model in models] == [
        ("shakespeare-lstm", "bundled"),
        ("shakespeare-rnn", "bundled"),
    ]


def test_a_lesson_of_ones_own_goes_onto_both_kinds_of_space(ada, tmp_path, monkeypatch):
    own = tmp_path / "lesson.txt"
    monkeypatch.setenv("CHARLM_LESSON", str(own))
    own.write_text("title: Mine\nstep: One\ntext: Draw.\n")
    with pytest.raises(RequestError, match="line 2: the step 'One' has no check"):
        deploy("ada/page", ["ada/one"])
    assert "spaces/ada/page" not in ada.repos
    own.write_text("title: Mine\nstep: One\ntext: Draw.\ncheck: use drawn Drawn\n")
    deploy("ada/page", ["ada/one"], sdk="static")
    assert data_of(ada.repos["spaces/ada/page"])["lesson"]["title"] == "Mine"
    files = space_files("ada/page", [described("ada/one")], "cpu-basic")
    assert files["charlm/browser/lesson.txt"] == own.read_bytes()  # in the place of ours, which the page shows


# Static Spaces


def test_a_static_space_gets_the_page_and_its_card_in_one_commit_and_no_hardware(ada):
    address = deploy("ada/page", ["ada/one", "ada/two@main", "hf://ada/one"], sdk="static")
    space = ada.repos["spaces/ada/page"]
    assert address == f"{ada.url}/spaces/ada/page/commit/{space.commits[-1].id}"
    assert (space.sdk, space.hardware, space.variables) == ("static", None, {})
    created, pushed = space.commits
    assert pushed.files.keys() - created.files.keys() == {"README.md", "LICENSE", "index.html", *page_modules()}
    assert all(space.files[name] == (ROOT / "charlm" / "browser" / name).read_bytes() for name in page_modules(".js"))
    card = card_of(space)
    assert SpaceCard(space.files["README.md"].decode()).data.to_dict() == card  # as the Hub's own library reads it
    assert (card["sdk"], card["app_file"], card["title"]) == ("static", "index.html", "page")
    assert card["models"] == ["ada/one", "ada/two"] and card["license"] == "mit"
    assert len(card["short_description"]) <= 60
    assert not card.keys() & {"sdk_version", "python_version", "suggested_hardware"}
    commits = [ada.repos[name].commits[-1].id for name in ("ada/one", "ada/two")]
    pins = [f"ada/{name} model.safetensors {commit}" for name, commit in zip(("one", "two"), commits, strict=True)]
    assert card["preload_from_hub"] == pins


def page_modules(*suffixes):
    """The names of the page's files besides index.html."""
    folder = ROOT / "charlm" / "browser"
    scripts = folder.rglob("*.js")
    found = [path.relative_to(folder).as_posix() for path in scripts if path.name != "start.js"]  # of exported pages
    return found if suffixes else [*found, "page.css"]


def data_of(space):
    """What the page of a static Space knows."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', index_of(space))[1])


def index_of(space):
    return space.files["index.html"].decode()


def test_the_page_of_a_static_space_names_each_model_at_a_commit_with_the_sha256_of_its_weights(ada, model_files):
    first = ada.repos["ada/one"].commits[-1].id
    ada.repos["ada/one"].commit({"notes.txt": b"a later commit"})
    deploy("ada/page", [f"ada/one@{first[:10]}", "ada/two"], sdk="static")
    data = data_of(ada.repos["spaces/ada/page"])
    assert data["hub"] == ada.url
    commits = {f"ada/one@{first[:10]}": first, "ada/two": ada.repos["ada/two"].commits[-1].id}
    assert [model["name"] for model in data["models"]] == list(commits)
    for model, repo in zip(data["models"], ("ada/one", "ada/two"), strict=True):
        commit = commits[model["name"]]
        assert model["address"] == f"{ada.url}/{repo}/resolve/{commit}"
        assert model["source"] == f"{repo}@{commit}"
        assert model["sha256"] == hashlib.sha256(model_files["model.safetensors"]).hexdigest()
        assert model["size"] == len(model_files["model.safetensors"])
        assert model["config"] == json.loads(model_files["config.json"])
        assert model["history"] == join_runs(json.loads(model_files["history.json"])) and model["license"] == "mit"


def policy_of(space):
    """The Content-Security-Policy of the page of a static Space: sources by directive."""
    policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', index_of(space))[1]
    return {name: sources for name, *sources in (rule.split() for rule in policy.split(";"))}


@pytest.mark.parametrize("cdn", [False, True])
def test_the_policy_of_the_page_names_the_hub_and_where_it_redirects_to_and_no_other_host(
    hub_environment, model_files, cdn
):
    with HubServer(cdn) as hub:
        hub_environment(HF_ENDPOINT=hub.url, HF_TOKEN="hf_ada")
        hub.add_user("ada", token="hf_ada")
        hub.add_repo("ada/one", model_files)
        deploy("ada/page", ["ada/one"], sdk="static")
        policy = policy_of(hub.repos["spaces/ada/page"])
        close_session()
    assert policy["connect-src"] == ["'self'", hub.url, *([hub.cdn_url] if cdn else [])]
    assert policy["script-src"] == ["'self'", "'wasm-unsafe-eval'"] and policy["default-src"] == ["'none'"]


@pytest.mark.parametrize("host", ['evil" onload="alert(1)', "evil.example; script-src *", "", "한.example"])
def test_a_redirect_to_what_is_no_host_does_not_come_into_the_page(ada, host):
    location = quote(f"https://{host}/file", safe=':/"=;()* ')
    ada.on("HEAD /ada/one/resolve", lambda _: Response(302, b"", {"Location": location, "ETag": '"x"'}))
    with pytest.raises(HubUnavailableError, match="the Hub gave no usable answer for ada/one"):
        deploy("ada/page", ["ada/one"], sdk="static")
    assert "spaces/ada/page" not in ada.repos


def test_on_the_hub_itself_the_policy_names_the_hubs_own_hosts(hub_environment):
    hub_environment(HF_ENDPOINT=None)
    hosts = ["https://huggingface.co", "https://*.hf.co", "https://*.huggingface.co"]
    assert download_hosts(described("ada/one")) == hosts
    assert folder_address(described("ada/one")) == f"https://huggingface.co/ada/one/resolve/{'a' * 40}"


def test_a_name_and_a_password_in_the_address_of_the_hub_do_not_come_into_the_page(hub_environment):
    hub_environment(HF_ENDPOINT="https://ada:secret@hub.example:8443/mirror")
    assert folder_address(described("ada/one")) == f"https://hub.example:8443/mirror/ada/one/resolve/{'a' * 40}"


def test_deploying_a_static_space_again_changes_its_models_and_leaves_what_others_put_there(ada):
    deploy("ada/page", ["ada/one"], sdk="static")
    space = ada.repos["spaces/ada/page"]
    space.commit({"notes.txt": b"mine"})
    deploy("ada/page", ["ada/two"], sdk="static")
    assert [model["name"] for model in data_of(space)["models"]] == ["ada/two"]
    assert space.files["notes.txt"] == b"mine"
    commits = len(space.commits)
    deploy("ada/page", ["ada/two"], sdk="static")
    assert len(space.commits) == commits  # nothing has changed


def test_a_gradio_space_can_become_a_static_one_and_back(ada):
    deploy("ada/page", ["ada/one"])
    space = ada.repos["spaces/ada/page"]
    deploy("ada/page", ["ada/one"], sdk="static")
    assert space.sdk == "static"
    assert not [name for name in space.files if name.startswith(("charlm/", "train/", "weights/", "app.py"))]
    assert not {"requirements.txt", "pyproject.toml"} & space.files.keys()
    deploy("ada/page", ["ada/one"])
    assert space.sdk == "gradio" and "app.py" in space.files


def test_a_space_that_becomes_static_keeps_files_whose_names_only_begin_like_ours(ada):
    deploy("ada/page", ["ada/one"])
    space = ada.repos["spaces/ada/page"]
    theirs = {"setup.py.orig": b"1", "requirements.txt.old": b"2", "app.pyc": b"3", "charlm.txt": b"4"}
    space.commit({**theirs, "charlm/gone.py": b"of an earlier version"})
    deploy("ada/page", ["ada/one"], sdk="static")
    assert theirs.items() <= space.files.items()
    assert not {"app.py", "setup.py", "requirements.txt", "charlm/gone.py"} & space.files.keys()


def test_hardware_does_not_go_with_a_static_space(ada):
    with pytest.raises(RequestError) as caught:
        deploy("ada/page", ["ada/one"], sdk="static", hardware="t4-small")
    assert str(caught.value) == (
        "--hardware t4-small does not go with --sdk static: the models of a static Space run in the browsers of its "
        "visitors; leave --hardware out"
    )
    assert ada.requests == []


def private(hub):
    hub.repos["ada/one"].private = True


def gated(hub):
    hub.repos["ada/one"].gated = True


def large(hub):
    siblings = [{"rfilename": "config.json", "size": 500}, {"rfilename": "model.safetensors", "size": 200_000_000}]
    about = {"id": "ada/one", "sha": "a" * 40, "siblings": siblings, "tags": ["charlm"]}
    hub.on("GET /api/models/ada/one", lambda _: Response(200, json.dumps(about).encode()))


def damaged(hub):
    hub.repos["ada/one"].commit({"model.safetensors": b"x" * 100})


CLOSED = (
    "ada/one is private or gated, and the page of a static Space has no token to load it with: make it public, or "
    "leave --sdk static out"
)
UNFIT = {
    "private": (private, HubError, CLOSED),
    "gated": (gated, HubError, CLOSED),
    "large": (
        large,
        HubError,
        "ada/one has 200 MB of weights, and a browser is given up to 100 MB for each model: show a smaller one, or "
        "leave --sdk static out",
    ),
    "damaged": (damaged, ModelFileError, None),
}


@pytest.mark.parametrize("fault", UNFIT)
def test_a_model_that_visitors_could_not_load_is_refused_before_a_static_space_is_made(ada, fault):
    break_it, kind, said = UNFIT[fault]
    break_it(ada)
    with pytest.raises(kind) as caught:
        deploy("ada/page", ["ada/one"], sdk="static")
    assert said is None or str(caught.value) == said
    assert "spaces/ada/page" not in ada.repos


def test_a_static_space_shows_a_model_whose_record_is_damaged_without_its_curves_and_says_so(ada):
    ada.repos["ada/one"].commit({"history.json": b"{}"})
    with pytest.warns(UserWarning, match="^ada/one: history.json .*; the page shows the model without its curves$"):
        deploy("ada/page", ["ada/one"], sdk="static")
    (model,) = data_of(ada.repos["spaces/ada/page"])["models"]
    assert model["history"] is None and model["size"] > 0


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (
            403,
            "the Hub refuses the static Space ada/page (No more); the same page as one file needs no Space: "
            "`python -m charlm export ada/one --html page.html`",
        ),
        (
            409,
            "the Hub has something else named ada/page (No more); choose another name, as in "
            "`python -m charlm deploy ada/page-2 --model ada/one --sdk static`",
        ),
    ],
)
def test_a_refused_static_space_is_told_with_the_way_out(ada, status, line):
    ada.on("POST /api/repos/create", lambda _: RefusedError(status, "No more.").response)
    with pytest.raises(HubError) as caught:
        deploy("ada/page", ["ada/one"], sdk="static")
    assert str(caught.value) == line


@pytest.mark.parametrize("plan", ["free", "pro"])
def test_a_static_space_is_free_whatever_the_account(ada, plan):
    ada.add_user("ada", token="hf_ada", plan=plan, days=1, confirmed=False)
    for name in ("ada/first", "ada/second", "ada/third"):
        deploy(name, ["ada/one"], sdk="static")
    assert [ada.repos[f"spaces/{name}"].sdk for name in ("ada/first", "ada/third")] == ["static"] * 2


def test_the_same_command_finishes_a_static_space_whose_upload_failed(ada):
    ada.fail("POST /api/spaces/.*/commit", 503)
    with pytest.raises(HubUnavailableError, match="the Space ada/page is not complete: run the same command again"):
        deploy("ada/page", ["ada/one"], sdk="static")
    ada.heal()
    deploy("ada/page", ["ada/one"], sdk="static")
    assert "index.html" in ada.repos["spaces/ada/page"].files
