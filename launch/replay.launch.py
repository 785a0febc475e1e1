"""The node on a recorded bag, in a loop, as if it were live: ros2 launch da3 replay.launch.py bag:=/path/to/bag"""

from launch.actions import DeclareLaunchArgument, ExecuteProcess, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    share = FindPackageShare("da3")
    arguments = [
        DeclareLaunchArgument("bag", description="folder or file of the recording"),
        DeclareLaunchArgument("rate", default_value="1.0", description="speed of the replay"),
        DeclareLaunchArgument("rviz", default_value="true", description="show inputs and outputs"),
        DeclareLaunchArgument(
            "params_file",
            default_value=PathJoinSubstitution([share, "config", "one_camera.yaml"]),
            description="cameras and settings: see config/",
        ),
    ]
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution([share, "launch", "da3.launch.py"])),
        launch_arguments={
            "params_file": LaunchConfiguration("params_file"),
            "rviz": LaunchConfiguration("rviz"),
            "use_sim_time": "true",
        }.items(),
    )
    bag = ExecuteProcess(
        cmd=["ros2", "bag", "play", LaunchConfiguration("bag"), "--clock", "100", "--loop", "--rate", LaunchConfiguration("rate")],
        output="screen",
    )
    return LaunchDescription([*arguments, node, bag])
