#!/usr/bin/env bash
# The live node's tests, between real processes over real DDS; arguments go to pytest.
set -eo pipefail
cd "$(dirname "$0")/.."
source scripts/ros_env.sh
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # two busy processes share two cores
exec python -m pytest test/ros/live "$@"
