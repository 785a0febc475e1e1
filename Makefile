# One command each on a fresh machine: `make demo`, `make test`. Python >= 3.10 is all that must be there; `make ros-test` also wants cmake and g++.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test ros-test lint format clean

demo: $(READY)
	$(BIN)/da3 demo demo_output --force

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

ros-test:
	scripts/ros_test.sh

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# CPU wheels of torch unless TORCH says otherwise: PyPI's Linux default brings gigabytes of CUDA along.
$(READY): pyproject.toml setup.py requirements/constraints.txt scripts/venv.sh
	scripts/venv.sh $(PYTHON) $(VENV)
	touch $(READY)

clean:
	rm -rf $(VENV) .venv-ros build install log demo_output .mypy_cache .ruff_cache .pytest_cache
