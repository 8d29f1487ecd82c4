"""The web demo. At home: `python app.py`; on a Hugging Face Space it is started the same way."""

import sys

from charlm import cli
from charlm.web.launch import add_arguments, launch, models_to_show


def main() -> None:
    """Serve the models that the command line or the environment names."""
    parser = cli.Parser(prog="python app.py", description="Show what character-level language models write.")
    add_arguments(parser)
    args = parser.parse_args()
    launch(models_to_show(args), args)


if __name__ == "__main__":
    sys.exit(cli.run(main))
