import sys
import warnings

import pytest

from charlm import cli
from charlm.errors import RequestError


@pytest.fixture
def parser():
    """A program with a command that needs a text, and one that needs nothing."""
    parser = cli.Parser(prog="prog", examples=[("train on a text", "train --text my-text.txt")])
    parser.add_argument("--version", action="store_true")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("train", help="train a model", examples=[("a text of yours", "--text my-text.txt")])
    command.add_argument("--text", required=True)
    group = command.add_argument_group("the model")
    group.add_argument("--hidden-size", type=int)
    group.add_argument("--cell", choices=("rnn", "lstm", "gru"))
    command.add_argument("--embedding-size", type=int)
    commands.add_parser("serve", help="show models").add_argument("--port", type=int, default=7860)
    return parser


@pytest.fixture
def refuse(parser, capsys):
    """What the program says about arguments that it refuses."""

    def refuse(*arguments):
        with pytest.raises(SystemExit) as ended:
            parser.parse_args(arguments)
        printed = capsys.readouterr()
        assert (ended.value.code, printed.out) == (2, "")
        return printed.err

    return refuse


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--hiden-size", "3"], "prog train: no option --hiden-size; did you mean --hidden-size?"),
        (["train", "--hiden-size=3"], "prog train: no option --hiden-size; did you mean --hidden-size?"),
        (["train", "--hidden_size", "3"], "prog train: no option --hidden_size; did you mean --hidden-size?"),
        (["train", "-hidden-size", "3"], "prog train: no option -hidden-size; did you mean --hidden-size?"),
        (["train", "--hid", "3"], "prog train: no option --hid; did you mean --hidden-size?"),
        (["train", "--hidden=3"], "prog train: no option --hidden; did you mean --hidden-size?"),
        (["train", "--Text", "t"], "prog train: no option --Text; did you mean --text?"),
        (["train", "--unlike", "3"], "prog train: no option --unlike; --help shows what is allowed"),
        (["--vresion", "train"], "prog: no option --vresion; did you mean --version?"),
        (["tarin"], "prog: argument COMMAND: invalid choice: 'tarin' (choose from train, serve); did you mean train?"),
        (
            ["train", "--text", "t", "--cell", "ltsm"],
            "prog train: argument --cell: invalid choice: 'ltsm' (choose from rnn, lstm, gru); did you mean lstm?",
        ),
        (
            ["train", "--text", "t", "--cell", "transformer"],
            "prog train: argument --cell: invalid choice: 'transformer' (choose from rnn, lstm, gru); "
            "--help shows what is allowed",
        ),
        (
            ["train", "--hidden-size", "3"],
            "prog train: the following arguments are required: --text; --help shows what is allowed",
        ),
        (
            ["train", "my-text.txt", "--hidden-size", "3"],
            "prog train: the following arguments are required: --text; did you mean --text my-text.txt?",
        ),
        (["train", "--text", "t", "more"], "prog: unrecognized arguments: more; --help shows what is allowed"),
    ],
    ids=str,
)
def test_a_mistyped_word_is_answered_in_one_line_with_the_nearest_one(refuse, arguments, message):
    assert refuse(*arguments) == message + "\n"


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (["train", "--text=--unlike"], {"text": "--unlike"}),
        (["train", "--text", "-- two words"], {"text": "-- two words"}),
        (["train", "--text", "-1"], {"text": "-1"}),
        (["serve"], {"port": 7860}),
        (["--version", "serve"], {"version": True}),
    ],
    ids=str,
)
def test_what_argparse_allows_is_allowed(parser, arguments, values):
    assert vars(parser.parse_args(arguments)).items() >= values.items()


def test_a_command_alone_shows_what_it_needs_and_its_examples(refuse):
    assert refuse("train") == (
        "prog train: the following arguments are required: --text\n"
        "\n"
        "examples:\n"
        "  # a text of yours\n"
        "  prog train --text my-text.txt\n"
        "\n"
        "prog train --help shows everything that is allowed\n"
    )
    assert refuse().startswith(
        "prog: the following arguments are required: COMMAND\n\nexamples:\n  # train on a text\n"
    )


def test_the_help_of_a_command_ends_with_its_examples(parser, capsys):
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["train", "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.endswith("\nexamples:\n  # a text of yours\n  prog train --text my-text.txt\n")


def test_warnings_are_lines_even_where_the_environment_makes_them_errors(monkeypatch, capsys):
    def command():
        warnings.warn("a rare symbol", stacklevel=1)
        warnings.warn("an old name", DeprecationWarning, stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as PYTHONWARNINGS=error does, which also stands in `sys.warnoptions`
        monkeypatch.setattr(sys, "warnoptions", ["error"])
        assert cli.run(command) == 0
    assert capsys.readouterr().err == "warning: a rare symbol\n"


def test_an_error_and_a_warning_that_quote_control_characters_do_not_change_the_terminal(capsys):
    def fail():
        warnings.warn("no \x1b[2J", stacklevel=1)
        raise RequestError("there is no \x1b]0;title\x07")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert cli.run(fail) == 2
    assert capsys.readouterr().err == "warning: no \\x1b[2J\nerror: there is no \\x1b]0;title\\x07\n"


@pytest.mark.parametrize("kind", [cli.folder, cli.file])
def test_a_path_of_the_command_line_begins_in_the_home_folder_where_a_shell_has_left_the_tilde(monkeypatch, kind):
    monkeypatch.setenv("HOME", "/home/ada")
    assert [str(kind(path)) for path in ("~/model", "./~/model", "model~")] == ["/home/ada/model", "~/model", "model~"]
