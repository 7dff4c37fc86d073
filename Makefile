# make book and make test do all their own set-up, in .venv; nothing else is touched.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Real data: where a data folder stands beside the checkout, unless ROUTEBOOK_DATA says otherwise (empty: none).
ifeq ($(origin ROUTEBOOK_DATA),undefined)
ifneq ($(wildcard ../shared/data),)
export ROUTEBOOK_DATA := $(abspath ../shared/data)
endif
endif

.PHONY: book test lint format serve lock clean

book: $(READY)
	$(BIN)/routebook build

# The book first: it wants every processor. Then a file of tests a processor, each on one thread.
test: lint book
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --keep-id --verify $$(git ls-files '*.ipynb')
	$(BIN)/codespell

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/nbstripout --keep-id $$(git ls-files '*.ipynb')

serve: book
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html 8000

lock:
	$(PYTHON) tools/lock.py

clean:
	rm -rf _build

$(READY): requirements.lock requirements-scorer.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-scorer.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@
