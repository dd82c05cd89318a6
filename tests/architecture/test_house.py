"""The house stays the house: layers, names, sizes, and a cheap front door."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ckptmerge
from ckptmerge import errors

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*ROOT.glob("ckptmerge/**/*.py"), *ROOT.glob("service/**/*.py")])
TOP_LEVEL = {
    "ckptmerge", "service", "tests", "configs", "docs", "Dockerfile", "pyproject.toml",
    "README.md", "Makefile", "constraints.txt", "CHANGELOG.md", "LICENSE",
}  # fmt: skip


def run_python(code: str) -> str:
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return answer.stdout.strip()


def test_importing_the_package_loads_no_torch() -> None:
    loaded = run_python(
        "import sys, ckptmerge\n"
        "print([m for m in ('torch', 'numpy', 'pydantic') if m in sys.modules])"
    )
    assert loaded == "[]"


def test_asking_the_command_line_for_help_loads_no_torch() -> None:
    loaded = run_python(
        "import sys\nfrom ckptmerge.cli.main import run\nimport contextlib, io\n"
        "with contextlib.redirect_stdout(io.StringIO()): run(['--help'])\n"
        "print('torch' in sys.modules)"
    )
    assert loaded == "False"


def test_every_public_name_is_there() -> None:
    for name in ckptmerge.__all__:
        assert getattr(ckptmerge, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ckptmerge.nothing


def test_what_the_proposers_asker_imports_loads_no_torch() -> None:
    modules = ["ask", "tell", "decide", "looks", "register", "open_studies", "proposer_process"]
    imports = "; ".join(f"import ckptmerge.workflow.{module}" for module in modules)
    assert run_python(f"import sys; {imports}; print('torch' in sys.modules)") == "False"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_one_idea_that_a_reader_can_hold(path: Path) -> None:
    assert path.stem not in {"utils", "helpers", "common", "misc"}
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 400, "which second idea is hiding in it?"
    assert ast.get_docstring(ast.parse(text)), "say in a sentence what the module is"


RUNS_CODE = frozenset(
    {
        "torch.load", "torch.hub.load", "torch.jit.load", "eval", "exec", "compile", "__import__",
        "yaml.load", "yaml.full_load", "yaml.unsafe_load", "yaml.load_all", "os.system", "os.popen",
    }
)  # fmt: skip
LOADERS = frozenset({"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal",
                     "shelve", "runpy"})  # fmt: skip


def code_that_runs_code(source: str) -> list[str]:
    """Return what in a module could run code that a file brings."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found += [name.name for name in names if name.name.split(".")[0] in LOADERS]
            case ast.ImportFrom(module=str(module), names=names):
                whole = [f"{module}.{name.name}" for name in names]
                found += [
                    name for name in whole if module.split(".")[0] in LOADERS or name in RUNS_CODE
                ]
            case ast.Call(func=function, keywords=keywords):
                found += [name for name in [ast.unparse(function)] if name in RUNS_CODE]
                for keyword in keywords:
                    given = f"{keyword.arg}={ast.unparse(keyword.value)}"
                    if keyword.arg in {"trust_remote_code", "allow_pickle", "shell"}:
                        found += [given] if given != f"{keyword.arg}=False" else []
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_loads_a_pickle_or_runs_what_a_file_says(path: Path) -> None:
    assert code_that_runs_code(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from pickle import loads", "import joblib.numpy_pickle",
        "from torch import load", "torch.load(f)", "torch.load(f, weights_only=True)", "eval(x)",
        "exec(x)", "yaml.load(f)", "np.load(f, allow_pickle=True)", "M(trust_remote_code=True)",
        "M(trust_remote_code=trusted)", "subprocess.run(x, shell=True)", "os.system(x)",
    ],
)  # fmt: skip
def test_what_would_run_code_is_seen(code: str) -> None:
    assert code_that_runs_code(code)


def test_every_error_is_in_the_tree_and_says_what_it_is() -> None:
    tree = errors.__doc__ or ""
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, Exception):
            assert name in tree
            assert kind.__doc__
            assert name == "CkptmergeError" or issubclass(kind, errors.CkptmergeError)


def test_nothing_else_stands_at_the_top() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    top = {line.split("/")[0] for line in tracked if line}
    assert {name for name in top if not name.startswith(".")} <= TOP_LEVEL


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if "==" in line
    }
    needed = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {need.split(">")[0].split("[")[0].lower() for need in needed}
    assert names <= pinned
