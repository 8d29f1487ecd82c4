from pathlib import Path
from zipfile import ZipFile

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from hypothesis import example, given
from hypothesis import strategies as st
from models import laws

from charlm.errors import HubError, HubUnavailableError, ModelFileError, RequestError
from charlm.model_name import (
    DatasetFile,
    HubName,
    check_folder,
    choose_names,
    explain_missing,
    is_repo_id,
    parse_dataset_file,
    parse_hub_name,
    parse_model_name,
    parse_push_target,
    parse_space_name,
)

POEMS = HubName("ada/poems")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, which is empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The current folder for a whole module, with some folders, of which some share their names."""
    folder = tmp_path_factory.mktemp("folders")
    for name in ("a/m", "b/m", "m", "b/link"):
        (folder / name).mkdir(parents=True)
    (folder / "link").symlink_to(folder / "m")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        yield folder


# Repositories


@laws
@given(st.text("aZ0_-./g it한\n", max_size=12))
@example("a/" + "b" * 96)
@example("a/" + "b" * 97)
@example("b" * 96 + "/a")
@example("a/b.git")
@example("a--b/c")
@example("a..b/c")
@example("a/b\n")
def test_the_form_of_a_repositorys_name_is_what_the_hubs_own_client_says(name):
    try:
        validate_repo_id(name)
        valid = name.count("/") == 1
    except HFValidationError:
        valid = False
    assert is_repo_id(name) == valid


@pytest.mark.parametrize(
    ("name", "repo_id", "revision"),
    [
        ("ada/poems", "ada/poems", None),
        ("ada/poems@v1.0", "ada/poems", "v1.0"),
        ("ada/poems@refs/pr/1", "ada/poems", "refs/pr/1"),
        ("hf://ada/poems", "ada/poems", None),
        ("hf://ada/poems@0123abc", "ada/poems", "0123abc"),
        ("https://huggingface.co/ada/poems", "ada/poems", None),
        ("https://huggingface.co/ada/poems/", "ada/poems", None),
        ("http://hf.co/ada/poems?library=charlm#files", "ada/poems", None),
        ("HTTPS://HuggingFace.co/ada/poems", "ada/poems", None),
        ("huggingface.co/ada/poems", "ada/poems", None),
        ("https://huggingface.co/ada/poems/tree/main", "ada/poems", "main"),
        ("https://huggingface.co/ada/poems/tree/refs%2Fpr%2F1", "ada/poems", "refs/pr/1"),
        ("https://huggingface.co/ada/poems/blob/v1/config.json", "ada/poems", "v1"),
        ("https://huggingface.co/ada/poems/resolve/v1/model.safetensors", "ada/poems", "v1"),
        ("https://huggingface.co/ada/poems/commit/0123abc", "ada/poems", "0123abc"),
        ("https://huggingface.co/ada/poems/discussions/1", "ada/poems", None),
    ],
)
def test_every_way_to_name_a_repository_is_read(here, name, repo_id, revision):
    assert parse_hub_name(name) == HubName(repo_id, revision)
    assert parse_model_name(name) == (HubName(repo_id, revision), None)


def test_a_repository_is_written_as_it_is_read():
    for name in ("ada/poems", "ada/poems@v1"):
        assert str(parse_hub_name(name)) == name


def test_the_web_address_may_be_that_of_the_hub_that_is_set(monkeypatch):
    assert parse_hub_name("http://hub.example:8080/ada/poems") is None
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example:8080")
    assert parse_hub_name("http://hub.example:8080/ada/poems") == POEMS


@pytest.mark.parametrize(
    "name",
    [
        "",
        "poems",
        "a/b/c",
        "ada/poems@",
        "ada/poems@a b",
        "ada/poems@../../x",
        "ada/poems@v1@v2",
        "ada/poems@/etc/hostname",
        "ada/poems@a//b",
        "ada/poems@a/",
        "ada/poems@a.",
        "ada/poems@.a",
        "ada/poems@a/.b",
        "ada/poems@a.lock",
        "ada/poems@a.lock/b",
        "ada/poems@\udcff",
        "hf://poems",
        "hf://datasets/ada/poems",
        "hf://datasets/ada",
        "https://huggingface.co/datasets/ada",
        "https://huggingface.co/spaces/ada/page",
        "https://huggingface.co/ada",
        "https://example.org/ada/poems",
        "https://[/ada/poems",
        "ftp://huggingface.co/ada/poems",
        "file:" + "//ada/poems",
        "ada/" + "x" * 10**6,
    ],
    ids=lambda name: name[:40],
)
def test_what_names_no_model_on_the_hub_is_not_read(name):
    assert parse_hub_name(name) is None


@pytest.mark.parametrize("name", ["https://example.org/ada/poems", "hf://datasets/ada/poems", "s3://ada/poems"])
def test_an_address_of_something_else_is_refused(here, name):
    with pytest.raises(RequestError, match="is not the address of a model on the Hub; write hf://USER/NAME"):
        parse_model_name(name)


@pytest.mark.parametrize(
    "name",
    ["ada/page", "spaces/ada/page", "hf://spaces/ada/page", "https://huggingface.co/spaces/ada/page?x=1"],
)
def test_every_way_to_name_a_space_is_read(name):
    assert parse_space_name(name) == "ada/page"


@pytest.mark.parametrize(
    "name",
    [
        "",
        None,
        "page",
        "./ada/page",
        "hf://datasets/ada",
        "https:///spaces/ada/page",
        "https://huggingface.co/ada/page",
        "https://example.org/spaces/ada/page",
        "ftp://huggingface.co/spaces/ada/page",
    ],
)
def test_what_names_no_space_is_refused(name):
    with pytest.raises(HubError, match="is not the name of a Space; give it as USER/SPACE"):
        parse_space_name(name)


def test_a_push_goes_to_the_main_branch_of_a_repository():
    for name in ("ada/poems", "ada/poems@main", "hf://ada/poems", "https://huggingface.co/ada/poems/tree/main"):
        assert parse_push_target(name) == "ada/poems"
    for name in ("./ada/poems", "poems", 5, None):
        with pytest.raises(HubError, match="is not the name of a repository; give it as USER/NAME"):
            parse_push_target(name)
    with pytest.raises(HubError, match="^ada/poems@v1 names the revision v1, and a push goes to the main branch: give"):
        parse_push_target("ada/poems@v1")


# Folders


@pytest.mark.parametrize("name", ["ada/poems", "ada/poems@v1", "huggingface.co/poems"])
def test_a_name_that_could_be_both_is_the_folder_with_a_warning(here, name):
    (here / name).mkdir(parents=True)
    folder, warning = parse_model_name(name)
    assert folder == Path(name)
    if name.startswith("ada"):
        assert warning == (
            f"{name} is a folder here, and could be a repository on the Hub: the folder is used; "
            f"write ./{name} or hf://{name} to say which"
        )


@pytest.mark.parametrize("name", ["hf://ada/poems", "https://huggingface.co/ada/poems"])
def test_a_repository_that_is_named_as_one_is_not_the_folder(here, name):
    (here / "ada" / "poems").mkdir(parents=True)
    assert parse_model_name(name) == (POEMS, None)


def test_a_path_and_what_is_written_as_one_is_a_folder_without_a_warning(here):
    (here / "ada" / "poems").mkdir(parents=True)
    for name in ("./ada/poems", str(here / "ada" / "poems"), Path("ada/poems"), "ada/../ada/poems", "ada", "."):
        assert parse_model_name(name) == (Path(name), None)


@pytest.mark.parametrize("name", ["./ada/poems", "../ada/poems", "/ada/poems", Path("ada/poems"), "~/ada/poems"])
def test_a_path_that_is_no_folder_is_never_a_repository(here, name):
    with pytest.raises(ModelFileError, match="is neither a folder here nor the name of a Hub repository"):
        parse_model_name(name)


def test_a_mistyped_folder_is_told_with_the_one_that_is_there(here):
    (here / "runs" / "my-text").mkdir(parents=True)
    for name in ("./runs/my-txet", Path("runs/my-txet"), str(here / "runs" / "my-txet")):
        with pytest.raises(ModelFileError, match=r"there is no folder .*my-txet here; did you mean .*runs/my-text\?"):
            parse_model_name(name)


@pytest.mark.parametrize("kind", [HubError, HubUnavailableError])
def test_the_hub_alone_is_not_blamed_for_a_name_that_may_be_that_of_a_folder(here, kind):
    error = explain_missing("runs/my-txet", kind("the Hub is away"))
    assert (type(error), str(error)) == (kind, "there is no folder runs/my-txet here, and the Hub is away")
    error = explain_missing("hf://runs/my-txet", kind("the Hub is away"))
    assert (type(error), str(error)) == (kind, "the Hub is away")
    (here / "runs" / "my-text").mkdir(parents=True)
    error = explain_missing("runs/my-txet", kind("the Hub is away"))
    blamed = "" if kind is HubUnavailableError else " As a repository: the Hub is away"
    assert (type(error), str(error)) == (
        ModelFileError,
        f"there is no folder runs/my-txet here; did you mean runs/my-text?{blamed}",
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("shakespeare-lstm", "weights/shakespeare-lstm"),
        ("./weight/shakespeare-lstm", "weights/shakespeare-lstm"),
        ("./weights/shakespear-lstm", "weights/shakespeare-lstm"),
    ],
)
def test_a_model_is_found_where_only_its_folder_is_mistyped_or_missing(here, name, meant):
    (here / meant).mkdir(parents=True)
    (here / meant / "config.json").write_text("{}")
    with pytest.raises(ModelFileError, match=f"there is no folder {name} here; did you mean {meant}\\?$"):
        parse_model_name(name)


def test_where_no_repository_can_stand_a_missing_folder_is_told_without_the_hub(here):
    (here / "runs" / "my-text").mkdir(parents=True)
    assert check_folder(Path("runs/my-text")) == Path("runs/my-text")
    for name, told in [
        ("runs/my-txet", "there is no folder runs/my-txet here; did you mean runs/my-text?"),
        ("elsewhere/model", "there is no folder elsewhere/model here; check the path"),
    ]:
        with pytest.raises(ModelFileError) as refused:
            check_folder(Path(name))
        assert str(refused.value) == told


def test_an_archive_or_a_file_in_the_place_of_the_folder_is_told(here):
    with ZipFile("my-model.zip", "w") as archive:
        archive.writestr("config.json", "{}")
    (here / "my-model").mkdir()
    (here / "my-model" / "config.json").write_text("{}")
    with pytest.raises(
        ModelFileError, match=r"my-model\.zip is an archive: unpack it, and name the folder that comes out"
    ):
        parse_model_name("my-model.zip")
    with pytest.raises(ModelFileError, match=r"config\.json is a file: name the folder .*, perhaps my-model$"):
        parse_model_name("my-model/config.json")


# Files of data sets


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("hf://datasets/ada/poems/a.txt", DatasetFile("ada/poems", None, "a.txt")),
        ("HF://datasets/ada/poems@v1/a/b c.txt", DatasetFile("ada/poems", "v1", "a/b c.txt")),
        ("hf://datasets/ada/poems@refs%2Fpr%2F1/a.txt", DatasetFile("ada/poems", "refs/pr/1", "a.txt")),
        ("hf://datasets/ada/poems", DatasetFile("ada/poems", None, "")),
        ("https://huggingface.co/datasets/ada/poems/blob/v1/a/b%20c.txt", DatasetFile("ada/poems", "v1", "a/b c.txt")),
        (
            "https://huggingface.co/datasets/ada/poems/resolve/main/a.txt?download=true",
            DatasetFile("ada/poems", "main", "a.txt"),
        ),
        ("https://huggingface.co/datasets/ada/poems", DatasetFile("ada/poems", None, "")),
        ("hf://datasets/poems", None),
        ("hf://datasets/ada/poems@/a.txt", None),
        ("hf://datasets/a--b/poems/a.txt", None),
        ("hf://ada/poems/a.txt", None),
        ("https://example.com/datasets/ada/poems/blob/v1/a.txt", None),
        ("https://huggingface.co/ada/poems/blob/v1/a.txt", None),
        ("https://huggingface.co/datasets", None),
        ("datasets/ada/poems/a.txt", None),
        ("", None),
    ],
)
def test_the_name_of_a_file_of_a_data_set_is_read(name, found):
    assert parse_dataset_file(name) == found


def test_what_a_file_of_a_data_set_is_called_names_it_again():
    for file in (DatasetFile("ada/poems", None, "a.txt"), DatasetFile("ada/poems", "refs/pr/1", "a/b.txt")):
        assert parse_dataset_file(str(file)) == file


# Several models

SPELLINGS = ["a/m", "./a/m", "b/../a/m", "b/m", "m", "./m", "link", "b/link", "b/../link"]
SPELLINGS += ["hf://a/m", "huggingface.co/a/m", "hf://a/m@v1", "hf://b/m", "c/m", "hf://c/m"]


@laws
@given(st.lists(st.sampled_from(SPELLINGS), max_size=8))
@example(["a/m", "b/m", "hf://a/m"])
@example(["link", "a/m", "m", "b/link"])
@pytest.mark.filterwarnings("ignore:.* is a folder here, and could be a repository on the Hub")
def test_each_of_several_models_has_a_name_of_its_own_that_leads_to_it(folders, wanted):
    places = {parse_model_name(name)[0] for name in wanted}
    chosen = choose_names(wanted)
    assert len(chosen) == len(places)
    assert {parse_model_name(place)[0] for place in chosen.values()} == places


def test_a_model_is_named_as_shortly_as_tells_it_from_the_others(folders):
    assert list(choose_names(["./a/m", "hf://c/m"])) == ["m", "c/m"]
    assert list(choose_names(["./a/m", "./b/m", "hf://a/m@v1"])) == ["./a/m", "./b/m", "a/m@v1"]
