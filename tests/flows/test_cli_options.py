"""Options that are judged together; the command's messages are tested in test_cli.py."""

from __future__ import annotations

import pytest

from flows.cli_options import OptionError, check_server


def test_a_variable_of_the_environment_that_is_empty_is_none() -> None:
    check_server("127.0.0.1", database_url="", credentials="")
    with pytest.raises(OptionError, match="got none"):
        check_server("0.0.0.0", database_url=None, credentials="")
