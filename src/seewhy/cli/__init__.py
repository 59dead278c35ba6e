"""The command `seewhy`: words to calls. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys
import warnings

from seewhy.cli import checking as checking  # registers its command
from seewhy.cli import evaluating as evaluating
from seewhy.cli.commands import app
from seewhy.cli.say import complain
from seewhy.errors import SeewhyError


def main() -> None:
    """Run the command.

    Exit code 0: good; 1: an error, told in one line with the remedy, and where there is more; 2: the words were wrong.
    """
    warnings.filterwarnings("ignore", "No ccache found")  # Paddle's, about compiling what no explanation compiles
    try:
        app()
    except SeewhyError as error:
        complain(error)
        sys.stderr.write(f"  {error.see}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader (head, less) left; Python would complain while flushing
        sys.exit(0)
