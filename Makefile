# Every target sets up what it needs in .venv; `make PYTHON=python3.12 test` chooses another interpreter.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo app docs test test-stm test-dgl test-multislice test-app check clean help

help:
	@echo "make demo   crystals -> dataset -> trained classifier -> prediction, offline after the installation"
	@echo "make test   the whole test suite, offline"
	@echo "make test-stm  installs GPAW (needs a C++ compiler) and runs the tests that compute with it"
	@echo "make test-dgl  installs DGL (Python 3.11) on top of .venv in an environment of its own and tests the bridge"
	@echo "make test-multislice  installs abTEM on top of .venv in an environment of its own and computes with it"
	@echo "make app    the page for the browser, on this machine alone (installs Gradio in an environment of its own)"
	@echo "make test-app  tests of that page in Chromium (Debian: apt-get install -y chromium)"
	@echo "make docs   the documentation in build/site, from the pages in docs/ and the docstrings"
	@echo "make check  ruff, mypy --strict, then the test suite"
	@echo "make test-wheel  the whole road from the built wheel in an empty environment"

.venv/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv

.venv/.base: pyproject.toml .venv/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/.test: pyproject.toml .venv/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

# GPAW has no wheels; its C++ sources are compiled on the spot.
.venv/.stm: pyproject.toml .venv/.test
	CC=g++ $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[stm]'
	@touch $@

.venv/.dev: pyproject.toml .venv/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: .venv/.base
	$(BIN)/atomvision demo --out demo-output

test: .venv/.test
	$(BIN)/python -m pytest -n auto

test-stm: .venv/.stm
	$(BIN)/python -m pytest tests/simulation/test_gpaw_engine.py tests/simulation/test_stm_library.py

# DGL is no longer maintained and must not decide what else is installed: it sees the packages of .venv.
build/dgl/.done: pyproject.toml .venv/.test
	rm -rf build/dgl && $(PYTHON) -m venv build/dgl
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > "$$(build/dgl/bin/python -c 'import site; print(site.getsitepackages()[0])')/below.pth"
	build/dgl/bin/python -m pip install --quiet --disable-pip-version-check --no-deps 'dgl>=1.1.3,<2'
	@touch $@

test-dgl: build/dgl/.done
	build/dgl/bin/python -m pytest tests/analysis/test_dgl.py

# abTEM brings a compiler (numba) and notebook widgets, which nothing else here needs.
build/multislice/.done: pyproject.toml .venv/.test
	rm -rf build/multislice && $(PYTHON) -m venv build/multislice
	$(BIN)/python -c 'import site; print(f"import site; site.addsitedir({site.getsitepackages()[0]!r})")' > "$$(build/multislice/bin/python -c 'import site; print(site.getsitepackages()[0])')/below.pth"
	build/multislice/bin/python -m pip install --quiet --disable-pip-version-check 'abtem>=1.0.11'
	@touch $@

test-multislice: build/multislice/.done
	OMP_NUM_THREADS=1 build/multislice/bin/python -m pytest tests/simulation/test_multislice.py tests/physics/test_multislice_laws.py tests/docs -k multislice

# Gradio wants an older Pillow than the rest: it lives above .venv, whose packages it sees.
build/app/.done: pyproject.toml .venv/.test
	rm -rf build/app && $(PYTHON) -m venv build/app
	$(BIN)/python -c 'import site; print(f"import site; site.addsitedir({site.getsitepackages()[0]!r})")' > "$$(build/app/bin/python -c 'import site; print(site.getsitepackages()[0])')/below.pth"
	build/app/bin/python -m pip install --quiet --disable-pip-version-check 'gradio>=6.31' 'playwright>=1.65'
	@touch $@

app: build/app/.done
	build/app/bin/python app/app.py

# Browser tests; without Chromium they are skipped with a line that says how to install it.
test-app: build/app/.done
	build/app/bin/python -m pytest tests/app

.venv/.docs: pyproject.toml .venv/.base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

# Not --quiet: it keeps warnings from --strict as well.
docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "build/site/index.html"

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto

clean:
	rm -rf build dist demo-output runs .mypy_cache .ruff_cache .pytest_cache .hypothesis

.PHONY: test-wheel
test-wheel:
	rm -rf build/wheel && $(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip install --quiet build
	build/wheel/venv/bin/python -m build --wheel --outdir build/wheel .
	build/wheel/venv/bin/python -m pip install --quiet build/wheel/*.whl
	cd build/wheel && venv/bin/atomvision demo --tiny --out demo && venv/bin/atomvision validate demo/stem2d
