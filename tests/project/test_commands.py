"""Every command of both command lines is a function of the same name, for scripts and notebooks."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from importlib import import_module
from typing import Any

import pytest

from scanlearn.config.loading import settings_model
from scanlearn.errors import ScanlearnError

# What `config` prints, Python has in help() and in the settings' classes.
APART = {"config"}
COMMANDS = [
    (program, command.name, command.callback)
    for program in ("scanlearn", "scantune")
    for command in import_module(f"{program}.cli").app.registered_commands
    if command.name not in APART
]
FOLDER_AND_COMMAND = """
import importlib, inspect, sys
for line in sys.argv[1:]:
    exec(line)
    import scanlearn
    from scanlearn import audit
    assert inspect.isfunction(audit) and audit is scanlearn.audit, line
    assert sys.modules["scanlearn.audit.audit"].audit is audit, line
import scanlearn.audit.result as result, scanlearn.audit
assert result.IDENTICAL and scanlearn.audit.result is result
assert inspect.ismodule(sys.modules["scanlearn.audit"]), "the folder is still a folder"
"""
ORDERS = [
    ["from scanlearn import audit"],
    ["from scanlearn.audit.result import Audit", "from scanlearn import audit"],
    ["from scanlearn import audit", "from scanlearn.audit.audit import audit"],
    ["import scanlearn.audit", "importlib.import_module('scanlearn.audit.pairs')"],
]


def test_there_are_as_many_commands_as_the_help_lists() -> None:
    assert len(COMMANDS) >= 17


@pytest.mark.parametrize(
    ("program", "name", "command"), COMMANDS, ids=lambda value: value if type(value) is str else ""
)
def test_it_is_a_function_with_types_and_the_words_of_its_help(
    program: str, name: str, command: Any
) -> None:
    package = import_module(program)
    function = getattr(package, name)
    assert inspect.isfunction(function)
    assert function.__name__ == name
    assert name in package.__all__
    assert name in dir(package)
    parameters = inspect.signature(function).parameters
    assert not set(parameters) - set(function.__annotations__)
    assert "return" in function.__annotations__
    first = (inspect.getdoc(command) or "").split("\n\n")[0]
    assert (inspect.getdoc(function) or "").startswith(first)
    # Python takes what the words of the command line come to.
    configured = import_module(f"{program}.cli").CONFIGURED
    row = configured.get(name)
    if row is not None and row.name == name:
        keyword = {each for each in parameters if parameters[each].kind.name == "KEYWORD_ONLY"}
        assert keyword <= {*settings_model(function).model_fields, "table"}


@pytest.mark.parametrize("program", ["scanlearn", "scantune"])
def test_a_wrong_call_of_any_public_function_is_one_sentence(program: str) -> None:
    package = import_module(program)
    functions = [getattr(package, name) for name in package.__all__ if name != "load_config"]
    functions = [each for each in functions if inspect.isfunction(each)]
    assert len(functions) >= 6
    for function in functions:
        name = function.__name__
        with pytest.raises(ScanlearnError, match=rf"^{name}: 'wrong' is not "):
            function("a", "b", wrong=1)
        if required := _required(function):
            with pytest.raises(ScanlearnError, match=rf"^{name}: .* of the type object, but it"):
                function(*[object()] * len(required), **_named(function))


def _required(function: Any) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [
        each.name
        for each in parameters
        if each.kind is each.POSITIONAL_OR_KEYWORD and each.default is each.empty
    ]


def _named(function: Any) -> dict[str, str]:
    """Arguments that must be given, and by name alone."""
    parameters = inspect.signature(function).parameters.values()
    return {
        each.name: "x"
        for each in parameters
        if each.kind is each.KEYWORD_ONLY and each.default is each.empty
    }


def test_no_name_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, scanlearn, scantune\n"
        "dir(scanlearn), dir(scantune)\n"
        "assert not [n for n in sys.modules if n.startswith(('scanlearn.', 'scantune.'))]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("lines", ORDERS, ids=lambda lines: lines[0])
def test_audit_is_the_command_in_whatever_order_the_folder_is_imported(lines: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FOLDER_AND_COMMAND, *lines], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("program", ["scanlearn", "scantune"])
def test_it_tells_its_version_helps_by_a_letter_and_completes_words(
    program: str,
) -> None:
    import scanlearn

    def said(*words: str, **environment: str) -> str:
        code = f"import sys; sys.argv[0] = {program!r}; from {program}.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert said("--version") == f"{program} {scanlearn.__version__}\n"
    assert said("-h") == said("--help")
    name = next(name for each, name, _ in COMMANDS if each == program)
    assert said(name, "-h") == said(name, "--help")
    completing = {f"_{program.upper()}_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    names = said(**completing, COMP_WORDS=f"{program} pre").split()
    pre = [each for of, each, _ in COMMANDS if of == program and each.startswith("pre")]
    assert sorted(names) == sorted(pre)
