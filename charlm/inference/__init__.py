"""What a model does: read, score and write text."""

# The defaults of generate, stream, the commands and the page; here, because `--help` shows them and needs no numpy.
DEFAULT_LENGTH = 500
DEFAULT_TEMPERATURE = 0.8
