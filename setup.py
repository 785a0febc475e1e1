"""Everything is in pyproject.toml; this maps the top-level msg/ into the wheel, where offline bags look the definitions up."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["da3_core*", "da3_ros*"]), "da3_core.weights", "da3_ros.msg"],
    package_dir={"da3_ros.msg": "msg"},
    package_data={"da3_core": ["py.typed", "weights/*/*"], "da3_ros": ["py.typed"], "da3_ros.msg": ["*.msg"]},
)
