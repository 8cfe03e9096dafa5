# Two commands do all the set-up on a machine that has only Python 3.11: make demo, make test.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
OUT ?= gaze-insight-demo
# A process a core, each with one thread of arithmetic; a file's tests stay together.
PYTEST := QT_QPA_PLATFORM=offscreen OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile
HEADLESS := $(if $(DISPLAY)$(WAYLAND_DISPLAY)$(findstring Darwin,$(shell uname -s)),,--headless)

.PHONY: demo test test-310 lint types contracts system benchmarks bundle clean

demo: $(VENV)/installed
	-@$(BIN)/python installer/system_libraries.py
	$(BIN)/gaze-insight demo --out "$(OUT)" $(HEADLESS)

# The window's tests have a process of their own: in one that has run three thousand other tests, Qt crashed when it put a
# new style on all that they had left.
test: $(VENV)/installed system lint types contracts
	$(PYTEST) --ignore-glob='*/test_window*.py'
	$(PYTEST) tests/test_window*.py

# gaze_capture alone, without torch and Qt, beside Tobii's own package; says so where there is no Python 3.10.
test-310:
	"$(PYTHON)" installer/test_python310.py

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed
	$(BIN)/mypy

contracts: $(VENV)/installed
	$(BIN)/lint-imports

benchmarks: $(VENV)/installed
	QT_QPA_PLATFORM=offscreen $(BIN)/python -m tests.benchmarks

bundle: $(VENV)/installed
	$(BIN)/python installer/smoke_test.py

system: $(VENV)/installed
	$(BIN)/python installer/system_libraries.py

# requirements.txt pins a tested set; it constrains, so that a platform may leave out or add what it must.
$(VENV)/installed: pyproject.toml requirements.txt
	"$(PYTHON)" -c "import sys; sys.exit(0 if sys.version_info >= (3, 10) else 'Gaze Insight needs Python 3.10 or newer, this is ' + sys.version.split()[0])"
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
